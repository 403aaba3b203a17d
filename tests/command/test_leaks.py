"""Leaks by the command: exit codes, JSON, CI formats, and a check in a running program."""
import json
import os
import pathlib
import re
import subprocess

import jsonschema
import pytest

HERE = pathlib.Path(__file__).resolve().parent
PAIR = [("direct", 48, 1), ("indirect", 48, 1)]


@pytest.fixture(scope="module")
def losing(build):
    return build(HERE / "losing.c", "-g", "-O1", "-w")


def fed(spanguard, scratch, lines, *arguments):
    (scratch / "in").write_text(lines)
    with open(scratch / "in", encoding="utf-8") as lines_in:
        return spanguard(*arguments, stdin=lines_in)


# ---------------------------------------------------------------- at exit

MENTIONED = "spanguard: no error was found; leaks were not looked for (--leak-check=1 does)"


def seen_on_a_terminal(command, library, *arguments):
    """Descriptor 2 is a terminal; its status, and what it showed."""
    ours, theirs = os.openpty()
    done = subprocess.run([command, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs,
                          env={**os.environ, "SPANGUARD_LIB": str(library)}, timeout=60)
    os.close(theirs)
    text = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:          # how a terminal says that nobody writes any more
            part = b""
        if not part:
            break
        text += part
    os.close(ours)
    assert MENTIONED.encode() not in done.stdout
    return done.returncode, text.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("mode", ["debug", "guard"])
def test_whoever_watches_is_told_what_was_not_looked_for(command, spanguard, library, bugs, mode):
    assert seen_on_a_terminal(command, library, f"--mode={mode}", bugs, "none") == (0, MENTIONED + "\n")
    assert seen_on_a_terminal(command, library, f"--mode={mode}", "--leak-check=1", bugs, "none") == (0, "")
    assert spanguard(f"--mode={mode}", bugs, "none").clean() == "the end\n"       # no terminal: not a word


def test_nothing_is_mentioned_elsewhere(command, library, bugs):
    assert seen_on_a_terminal(command, library, "--mode=hardened", bugs, "none") == (0, "")
    assert MENTIONED not in seen_on_a_terminal(command, library, "--mode=debug", "--halt-on-error=0", bugs, "double-free")[1]
    assert MENTIONED not in seen_on_a_terminal(command, library, "--mode=debug", bugs, "double-free")[1]

def test_leaks_at_exit(spanguard, losing, scratch, reports):
    done = fed(spanguard, scratch, "lose\n", "--mode=debug", "--leak-check=1", f"--json={scratch}/json", losing)
    assert done.status == 23 and "SUMMARY: spanguard: 96 byte(s) leaked in 2 allocation(s)." in done.err, done
    assert re.search(r"in node \S*/losing\.c:\d+:\d+\n.* in lose \S*/losing\.c:\d+", done.err), done
    found = reports(scratch / "json")
    assert sorted((r["leak"]["kind"], r["leak"]["bytes"], r["leak"]["objects"]) for r in found) == PAIR
    assert {(r["id"], r["class"], r["kind"]) for r in found} == {("SG-LK", "memory-leak", "leak")}
    assert all("node" in [f.get("symbol") for f in r["stacks"]["alloc"]["frames"]] for r in found)


def test_no_leak_no_word(spanguard, losing, scratch):
    done = fed(spanguard, scratch, "keep\nkeep\n", "--mode=debug", "--leak-check=1", losing)
    assert done.clean() == "ready\ndone\ndone\n"


def test_the_programs_own_status_counts_more(spanguard, losing, scratch):
    done = fed(spanguard, scratch, "lose\n", "--mode=debug", "--leak-check=1", losing, "7")
    assert done.status == 7 and "detected memory leaks" in done.err


def test_an_error_counts_more_than_leaks(spanguard, bugs):
    done = spanguard("--mode=debug", "--leak-check=1", "--halt-on-error=0", bugs, "lost-and-wrong")
    assert done.status == 86 and "detected memory leaks" in done.err, done


def test_sarif_of_leaks(spanguard, losing, scratch):
    fed(spanguard, scratch, "lose\nlose\n", "--mode=debug", "--leak-check=1", f"--json={scratch}/json", losing)
    log = json.loads(spanguard("report", scratch / "json", "--to=sarif", "--root", HERE).clean())
    jsonschema.Draft7Validator(json.loads((HERE / "sarif.schema.json").read_text())).validate(log)
    results = log["runs"][0]["results"]
    assert {r["ruleId"] for r in results} == {"SG-LK"}
    assert {r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in results} == {"losing.c"}


# ---------------------------------------------------------------- now

class Running:
    """The program, alive, and what it has said."""

    def __init__(self, command, library, losing, *options, env=None):
        self.child = subprocess.Popen([command, *options, losing], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.PIPE, text=True,
                                      env={"PATH": "/usr/bin:/bin", "SPANGUARD_LIB": str(library), **(env or {})})
        assert self.child.stdout.readline() == "ready\n"
        # the command's child is the program
        self.pid = int(subprocess.run(["pgrep", "-P", str(self.child.pid)], capture_output=True, text=True, check=True).stdout)

    def tell(self, line):
        self.child.stdin.write(line + "\n")
        self.child.stdin.flush()
        assert self.child.stdout.readline() == "done\n"

    def end(self):
        out, err = self.child.communicate(timeout=60)
        return self.child.returncode, out, err


@pytest.fixture
def running(command, library, losing):
    started = []

    def start(*options):
        started.append(Running(command, library, losing, *options))
        return started[-1]
    yield start
    for program in started:
        program.child.kill()
        program.child.wait()
        for pipe in (program.child.stdin, program.child.stdout, program.child.stderr):
            pipe.close()


def test_of_a_running_program(spanguard, running):
    program = running("--mode=debug", "--leak-signal=12")
    assert spanguard("leaks", program.pid).clean() == f"No leaks in process {program.pid}.\n"
    program.tell("lose")
    done = spanguard("leaks", program.pid)
    assert done.status == 23 and done.err == "", done
    assert done.out.count("==ERROR: spanguard: detected memory leaks\n") == 1
    assert "SUMMARY: spanguard: 96 byte(s) leaked in 2 allocation(s).\n" in done.out
    assert re.search(r"in node \S*/losing\.c:\d+", done.out)
    delta = spanguard("leaks", program.pid, "--delta")
    assert delta.clean() == f"No leaks since the last check in process {program.pid}.\n"
    program.tell("lose")
    delta = spanguard("leaks", "--delta", program.pid)
    assert delta.status == 23 and "96 byte(s) leaked in 2 allocation(s)." in delta.out, delta
    assert "192 byte(s) leaked in 4 allocation(s)." in spanguard("leaks", program.pid).out
    assert program.end() == (0, "", ""), "the program itself has noticed nothing"


def test_who_cannot_be_asked(spanguard, running):
    deaf = running("--mode=debug")
    done = spanguard("leaks", deaf.pid)
    assert done.status == 125 and "it was not started with leak_signal" in done.err
    done = spanguard("leaks", deaf.pid, "--signal=12")
    assert done.status == 125 and "does not catch that signal" in done.err
    assert deaf.end()[0] == 0
    done = spanguard("leaks", deaf.pid)
    assert done.status == 125 and "No such process" in done.err
    for arguments in (["leaks"], ["leaks", "x"], ["leaks", "1", "2"], ["leaks", "1", "--frob"], ["leaks", "-1"]):
        assert spanguard(*arguments).status == 2, arguments
