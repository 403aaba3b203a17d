"""The spanguard command, run as a user runs it.

Fixtures
  spanguard(*arguments, **run)    runs build/spanguard; the library is the one under test
  bugs                            the program of bugs.c, with debug information
  line(comment)                   the line of bugs.c that ends in /* comment */
  reports(path)                   the reports of a JSON file, each checked against the schema
"""
import json
import os
import pathlib

import jsonschema
import pytest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
COMMAND = pathlib.Path(os.environ.get("SPANGUARD", ROOT / "build" / "spanguard")).resolve()
SCHEMA = json.loads((ROOT / "doc" / "report.schema.json").read_text())
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)


@pytest.fixture(scope="session")
def command():
    if not COMMAND.exists():
        pytest.fail(f"{COMMAND} is not there: run make")
    return COMMAND


@pytest.fixture(scope="session")
def spanguard(command, run, library):
    def call(*arguments, env=None, **more):
        return run([command, *arguments], env={"SPANGUARD_LIB": str(library), **(env or {})}, **more)
    return call


@pytest.fixture(scope="session")
def bugs(build):
    return build(HERE / "bugs.c", "-g", "-O1", "-pthread", "-w", name="bugs")


@pytest.fixture(scope="session")
def line():
    text = (HERE / "bugs.c").read_text().split("\n")

    def number(comment):
        found = [i for i, s in enumerate(text, 1) if s.endswith(f"/* {comment} */")]
        assert len(found) == 1, (comment, found)
        return found[0]
    return number


def read_reports(path):
    found = []
    for text in pathlib.Path(path).read_text().splitlines():
        report = json.loads(text)
        wrong = [f"{list(e.absolute_path)}: {e.message}" for e in VALIDATOR.iter_errors(report)]
        assert not wrong, f"{wrong}\n{text}"
        found.append(report)
    return found


@pytest.fixture(scope="session")
def reports():
    return read_reports
