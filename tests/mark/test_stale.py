"""quarantine=mark: a freed object's memory comes back when nothing points to it, and not before."""
import os
import pathlib
import re
import shutil

import pytest

HERE = pathlib.Path(__file__).resolve().parent
OPTIONS = "quarantine=mark:mark_report=1:mark_pass_bytes=1m"
#: place -> how mark_report names it
PLACES = {
    "bss": r"the pointer: 0x[0-9a-f]+ is in the \.bss of \S+-stale \(offset 0x[0-9a-f]+\), stale_in_bss\+0x10\n",
    "data": r"the pointer: 0x[0-9a-f]+ is in the \.data of \S+-stale \(offset 0x[0-9a-f]+\), stale_in_data\+0x8\n",
    "tls": r"the pointer: 0x[0-9a-f]+ is in a foreign anonymous mapping ",
    "stack": r"the pointer: 0x[0-9a-f]+ is on the stack, in a register or in the thread-local storage of thread \d+ "
             r"\(\S+\)\n",
    "heap": r"the pointer: 0x[0-9a-f]+ is located 0 bytes inside of (64|80)-byte slot ",
    "unreached": r"the pointer: 0x[0-9a-f]+ is located 0 bytes inside of (64|80)-byte slot .*\n"
                 r"nobody points to the object it is in: that one may be lost\n",
    "user": r"the pointer: 0x[0-9a-f]+ is in a range that was given to spanguard_root_add\n",
}


@pytest.fixture(scope="session")
def stale(build):
    return build(HERE / "stale.c", "-pthread", "-O1", "-rdynamic")


def check_report(err, place):
    """Of the object that is kept, among what our own frames may hold."""
    head = r"==\d+==WARNING: spanguard: stale-pointer to (0x[0-9a-f]+) stands at 0x[0-9a-f]+\n"
    said = re.search(head + r"\1 is located (0|1,000) bytes inside of 3\d{5}-byte object .* \(freed; .*, in the "
                     r"quarantine\)\n" + PLACES[place], err)
    assert said, err


@pytest.mark.strict(debug=False)
@pytest.mark.parametrize("place", PLACES)
def test_kept_and_reported(stale, run, guarded, place):
    # an end pointer of the slot before would count as one to the object that nobody is to reach
    options = OPTIONS + ":seed=1" if place == "unreached" else OPTIONS
    done = run([stale, place], guarded, options=options)
    assert (done.status, done.out) == (0, "kept\n"), done
    check_report(done.err, place)


@pytest.mark.strict(debug=False)
def test_comes_back(stale, run, guarded):
    """Nothing points to it any more: it is reused, and nothing in .bss, .data or the heap is reported."""
    done = run([stale, "none"], guarded, options=OPTIONS)
    assert (done.status, done.out) == (0, "reused\n"), done
    assert ".bss" not in done.err and ".data" not in done.err and "slot" not in done.err, done


@pytest.mark.strict(debug=False)
@pytest.mark.parametrize("guards", ["marker", "mprotect"])
def test_says_nothing_by_default(stale, run, guarded, guards):
    options = f"quarantine=mark:mark_pass_bytes=1m:guards={guards}"
    assert run([stale, "bss"], guarded, options=options).clean() == "kept\n"
    assert run([stale, "none"], guarded, options=options).clean() == "reused\n"


def test_bounded_quarantine_reuses(stale, run, guarded):
    """What the mark adds: with the same pointer left, the bounded quarantine gives the memory out again."""
    assert run([stale, "bss"], guarded, options="span_quarantine_bytes=1m").clean() == "reused\n"


@pytest.mark.parametrize("how", [["threads"], ["fork"], ["threads", "fork"], ["threads", "seccomp"]])
def test_lives(stale, run, guarded, how):
    done = run([stale, "bss", *how], guarded, options=OPTIONS)
    assert (done.status, done.out) == (0, "kept\n"), done
    check_report(done.err, "bss")
    done = run([stale, "none", *how], guarded, options=OPTIONS)
    assert (done.status, done.out) == (0, "reused\n"), done


def test_as_pid_1(stale, run, guarded):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    done = run([stale, "bss", "threads"], guarded, options=OPTIONS, via=["unshare", "--pid", "--fork", "--mount-proc"])
    assert (done.status, done.out) == (0, "kept\n"), done
    check_report(done.err, "bss")


def test_under_strace(stale, run, guarded, scratch):
    if shutil.which("strace") is None:
        pytest.skip("no strace")
    done = run([stale, "bss", "threads"], guarded, options=OPTIONS,
               via=["strace", "-f", "-q", "-e", "trace=tgkill", "-o", scratch / "log"])
    assert (done.status, done.out) == (0, "kept\n"), done
    check_report(done.err, "bss")
    assert "tgkill" in (scratch / "log").read_text()


def test_under_gdb(stale, run, guarded, scratch):
    if shutil.which("gdb") is None:
        pytest.skip("no gdb")
    env = {**guarded.environment(), "SPANGUARD_OPTIONS": OPTIONS}
    commands = scratch / "commands"
    sets = "".join(f"set environment {k} {v}\n" for k, v in env.items())
    commands.write_text(f"{sets}set startup-with-shell off\nset pagination off\n"
                        "handle all nostop noprint pass\nrun bss threads\n")
    done = run(["gdb", "-q", "-batch", "-nx", "-x", commands, stale], timeout=60)
    assert re.search(r"^kept$", done.out, re.M) and "exited normally" in done.out, done
    check_report(done.out + done.err, "bss")


def test_thread_that_does_not_stop(stale, run, guarded):
    """No verdict is no release: the memory stays parked, and the program goes on."""
    done = run([stale, "none", "deaf"], guarded, options=OPTIONS)
    assert (done.status, done.out) == (0, "kept\n"), done
    assert re.fullmatch(r"spanguard: warning: cannot stop the other threads: thread \d+ \(deaf one\) does not answer "
                        r"signal \d+ within 1000 ms; it blocks that signal\n", done.err), done
