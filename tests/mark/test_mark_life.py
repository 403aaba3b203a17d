"""A mark pass wherever a program runs: threads, fork, PID 1, debugger, tracer, sandbox."""
import os
import pathlib
import re
import shutil

import pytest

HERE = pathlib.Path(__file__).resolve().parent
MODES = ["alone", "roots", "threads", "child", "threads-child", "signals", "without-main"]


@pytest.fixture(scope="session")
def life(build, library):
    return build(HERE / "mark_life.c", "-pthread", "-O1", libs=(library,))



@pytest.mark.parametrize("mode", MODES)
def test_passes_agree(life, run, guarded, mode):
    assert run([life, mode], guarded).clean() == "ok\n"


def test_background_scavenger_is_not_waited_for(life, run, guarded):
    assert run([life, "threads"], guarded, options="scavenge=background").clean() == "ok\n"


def test_deaf_thread_is_named(life, run, guarded):
    """One that blocks all signals: a warning says who and why, and the program goes on."""
    done = run([life, "deaf"], guarded)
    assert (done.status, done.out) == (0, "ok\n"), done
    said = re.fullmatch(r"spanguard: warning: cannot stop the other threads: thread (\d+) \(deaf one\) does not "
                        r"answer signal (\d+) within 1000 ms; it blocks that signal\n", done.err)
    assert said and int(said[2]) >= 32, done


def test_without_ptrace(life, run, guarded):
    assert run([life, "threads", "seccomp"], guarded).clean() == "ok\n"


def test_as_pid_1(life, run, guarded):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    via = ["unshare", "--pid", "--fork", "--mount-proc"]
    assert run([life, "threads"], guarded, via=via).clean() == "ok\n"


def test_under_strace(life, run, guarded, scratch):
    if shutil.which("strace") is None:
        pytest.skip("no strace")
    done = run([life, "threads"], guarded, via=["strace", "-f", "-q", "-e", "trace=tgkill", "-o", scratch / "log"])
    assert (done.status, done.out) == (0, "ok\n"), done
    assert "tgkill" in (scratch / "log").read_text()


def test_under_gdb(life, run, guarded, scratch):
    """gdb stops at each signal until it is told not to; the deadline does not count that time."""
    if shutil.which("gdb") is None:
        pytest.skip("no gdb")
    env = guarded.environment()
    commands = scratch / "commands"
    sets = "".join(f"set environment {k} {v}\n" for k, v in env.items())
    commands.write_text(f"{sets}set startup-with-shell off\nset pagination off\nrun threads\nshell sleep 1.5\n"
                        "continue\nhandle all nostop noprint pass\ncontinue\n")
    done = run(["gdb", "-q", "-batch", "-nx", "-x", commands, life], timeout=60)
    assert "received signal SIG" in done.out, done
    assert re.search(r"^ok$", done.out, re.M), done
    assert "exited normally" in done.out and "warning: cannot stop" not in done.out + done.err, done


@pytest.mark.slow
def test_time_of_one_gib(run):
    """Prints how long a mark of 1 GiB of small objects takes; the unit test's own loop."""
    unit = HERE.parent.parent / "build" / "unit" / "gcc" / "test_mark"
    if not unit.exists():
        pytest.skip("needs make unit-gcc")
    done = run([unit], env={"MARK_MIB": "1024"}, timeout=300)
    print(*re.findall(r"^.*world stopped.*$", done.out + done.err, re.M), sep="\n")
    assert done.status == 0, done
