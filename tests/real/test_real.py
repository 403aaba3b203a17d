"""Real programs on the library: same output, same exit status, no word more on stderr.

The reference is a run on libc in the same session. What a program says on stderr
on libc it must say with the library too, and nothing else.
"""
import pathlib
import sys
import tempfile

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import workloads        # noqa: E402

REFERENCE = {}


def facts_of(name, directory, environment, big):
    place = workloads.Place(tempfile.mkdtemp(prefix=f"{name}-", dir=directory), environment, big)
    function = workloads.python_tests if name == "python-tests" else workloads.WORKLOADS[name][0]
    return [(label, str(value).replace(str(place.dir), "DIR")) for label, value in function(place)]


def compare(name, alloc, directory, options="", big=False):
    if name == "python-tests":
        if not workloads.have_python_tests():
            pytest.skip("Python's test package is not installed (libpython3.11-testsuite)")
    elif workloads.missing(name):
        pytest.skip("not installed: " + ", ".join(workloads.missing(name)))
    if (name, big) not in REFERENCE:
        REFERENCE[name, big] = facts_of(name, directory, {}, big)
    want = REFERENCE[name, big]
    statuses = [value for label, value in want if label.endswith("status")]
    assert statuses and set(statuses) == {"0"}, f"fails on libc: {want}"
    have = facts_of(name, directory, alloc.environment(options), big)
    assert not any("spanguard:" in value for _, value in have), have
    assert workloads.differences(want, have) == []


@pytest.mark.strict
@pytest.mark.parametrize("name", workloads.WORKLOADS)
def test_program(guarded, scratch, name):
    compare(name, guarded, scratch)


@pytest.mark.strict
def test_python_tests(guarded, scratch):
    compare("python-tests", guarded, scratch)


@pytest.mark.parametrize("options", ["verify_every=1000", "guards=mprotect", "scavenge=background:scavenge_delay_ms=1"])
@pytest.mark.parametrize("name", ["python3", "sqlite3", "g++"])
def test_program_with(guarded, scratch, name, options):
    compare(name, guarded, scratch, options)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*workloads.WORKLOADS, "python-tests"])
def test_program_at_length(guarded, scratch, name):
    compare(name, guarded, scratch, big=True)
