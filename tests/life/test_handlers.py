"""Handlers of the program's that interrupt malloc and free, at every moment.

Each program runs on the library as it is shipped, and on one with lock checks, which
dies when a lock is waited for where a handler could come in and wait for it, too
(LOCK-4): what takes a race in the one is found at any call in the other.
"""
import os
import pathlib

import pytest

HERE = pathlib.Path(__file__).resolve().parent
BUILD = HERE.parent.parent / "build"
LIBRARIES = {
    "shipped": pathlib.Path(os.environ.get("SPANGUARD_LIB", BUILD / "libspanguard.so")).resolve(),
    "checked": BUILD / "checked" / "libspanguard.so",
}
THREAD = "-pthread"


class Either:
    """An allocator to run on, as conftest's Alloc."""

    def __init__(self, mode, library):
        self.mode, self.library = mode, library

    def __repr__(self):
        return f"{self.mode}-{self.library}"

    def environment(self, options=""):
        path = LIBRARIES[self.library]
        assert path.exists(), f"{path} is not there: run make all checked"
        return {"LD_PRELOAD": str(path),
                "SPANGUARD_OPTIONS": f"mode={self.mode}" + (":" + options if options else "")}


@pytest.fixture(params=[Either(mode, library) for mode in ("plain", "hardened", "strict", "debug", "guard")
                        for library in LIBRARIES], ids=repr)
def either(request):
    return request.param


def test_storm(build, run, either):
    """The handler interrupts malloc itself. libc may deadlock here: no run on it."""
    main = build(HERE / "signal_storm.c", "-O1", THREAD)
    assert run([main, 2], either).clean() == "survived\n"


def test_threads_that_begin_and_end(build, run, either):
    """Signals at the first malloc of a thread, and when its cache is gone."""
    main = build(HERE / "signal_threads.c", "-O1", THREAD)
    assert run([main, 200], either).clean() == "survived\n"


@pytest.mark.parametrize("how", ["fork", "_Fork"])
def test_fork(build, run, either, how):
    main = build(HERE / "fork_in_handler.c", "-O1", THREAD)
    assert run([main, how, 100], either).clean() == "forked\n"


@pytest.mark.parametrize("how", ["fork", "vfork"])
def test_fork_while_threads_allocate(build, run, either, how):
    main = build(HERE / "fork_threads.c", "-O1", THREAD)
    assert run([main, how, 5, 8], either).clean() == "forked\n"


def test_verify(build, run, either):
    main = build(HERE / "handler_verify.c", "-O1")
    assert run([main, 2], either).clean() == "survived\n"


def test_threads_and_keys(build, run, either):
    main = build(HERE / "thread_exit.cpp", THREAD)
    assert run([main], either).clean() == "main\nstatic\n"


def test_the_checks_are_there():
    """A library without them would pass everything above."""
    have = {name: b"LOCK-4" in path.read_bytes() for name, path in LIBRARIES.items()}
    assert have == {"shipped": False, "checked": True}
