#!/usr/bin/python3
"""What guard mode costs real programs, beside Memcheck: a table for doc/performance.

usage: bench/guard_cost.py [PROGRAM ..]

The programs are those of tests/real, at their quick size. Figures are user and system
time of all processes together, in seconds, which other load on the machine changes
little. Memcheck runs with its defaults, and follows children as the library does.
"""
import os
import pathlib
import resource
import shutil
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "real"))
import workloads        # noqa: E402

WRAPPED = ["sqlite3", "git", "gcc", "g++", "perl", "redis-server", "python3"]
MEMCHECK = "exec valgrind -q --trace-children=yes --log-file=/dev/null"
LIBRARY = pathlib.Path(os.environ.get("SPANGUARD_LIB", ROOT / "build" / "libspanguard.so")).resolve()


def preload(options):
    return {"LD_PRELOAD": str(LIBRARY), "SPANGUARD_OPTIONS": options}


def wrappers(directory):
    """Scripts in front of the PATH that start the programs under Memcheck."""
    for name in WRAPPED:
        script = directory / name
        script.write_text(f'#!/bin/sh\n{MEMCHECK} {shutil.which(name)} "$@"\n')
        script.chmod(0o755)
    return directory


def seconds(name, env, in_front=None):
    python = workloads.PYTHON
    with tempfile.TemporaryDirectory() as directory:
        place = workloads.Place(directory, env)
        place.alarm = 900
        if in_front is not None:
            place.env["PATH"] = f"{in_front}:{place.env['PATH']}"
            workloads.PYTHON = str(in_front / "python3")
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        facts = workloads.WORKLOADS[name][0](place)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    workloads.PYTHON = python
    failed = [f for f in facts if f[0].endswith("status") and f[1] != 0]
    if failed:
        raise SystemExit(f"{name}: {failed}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    names = sys.argv[1:] or [n for n in workloads.WORKLOADS if n != "node"]
    print("| program | libc | guard, no stacks | guard | Memcheck | Memcheck / guard |")
    print("|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as directory:
        in_front = wrappers(pathlib.Path(directory))
        for name in names:
            libc = seconds(name, {})
            bare = seconds(name, preload("mode=guard:stack_depth=0"))
            guard = seconds(name, preload("mode=guard"))
            memcheck = seconds(name, {}, in_front)
            print(f"| {name} | {libc:.2f} | {bare:.2f} | {guard:.2f} | {memcheck:.2f} | {memcheck / guard:.1f} |",
                  flush=True)


if __name__ == "__main__":
    main()
