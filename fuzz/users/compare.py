#!/usr/bin/env python3
"""Allocators for other people's fuzz targets, side by side: which bugs of bugs.c
each stops and where, what it says, and how fast the example target runs on it.

    fuzz/users/compare.py [--bugs] [--speed] [--seconds N]

Builds into build/users. Needs afl++ (libdislocator comes with it) and libcjson-dev.
"""
import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
OUT = f"{ROOT}/build/users"
OURS = f"{ROOT}/build/libspanguard.so"
DISLOCATOR = "/usr/lib/afl/libdislocator.so"
WARN = "-g -O1 -Wall -Wextra -Werror -Wundef -Wshadow -Wconversion".split()

# name, library, environment
ALLOCATORS = [
    ("glibc", None, {}),
    ("libdislocator", DISLOCATOR, {}),
    ("libdislocator aligned", DISLOCATOR, {"AFL_ALIGNED_ALLOC": "1"}),
    ("spanguard strict", OURS, {"SPANGUARD_OPTIONS": "mode=strict"}),
    ("spanguard debug", OURS, {"SPANGUARD_OPTIONS": "mode=debug:verify_at_exit=1"}),
    ("spanguard guard", OURS, {"SPANGUARD_OPTIONS": "mode=guard"}),
    ("spanguard guard, to the byte", OURS, {"SPANGUARD_OPTIONS": "mode=guard:guard_align=1"}),
    ("spanguard guard, left", OURS, {"SPANGUARD_OPTIONS": "mode=guard:guard_side=left"}),
]


def build():
    """Each program takes its place whole: another who builds at the same time may be running the one before."""
    os.makedirs(OUT, exist_ok=True)
    here = f"{ROOT}/fuzz/users"
    store = [f"{here}/store.c", f"{here}/store_fuzz.c"]
    fuzzer = ["-fsanitize=fuzzer", *store, "-lcjson"]
    quiet = {**os.environ, "AFL_QUIET": "1"}
    for name, compiler, args in (
        ("bugs", "gcc", [f"{here}/bugs.c"]),
        ("store_lf", "clang", fuzzer),
        ("store_lf_fixed", "clang", ["-DSTORE_FIXED", *fuzzer]),
        ("store_afl", "afl-clang-fast", fuzzer),
        ("store_afl_fixed", "afl-clang-fast", ["-DSTORE_FIXED", *fuzzer]),
    ):
        fresh = f"{OUT}/{name}.{os.getpid()}"
        subprocess.run([compiler, *WARN, "-o", fresh, *args], check=True, env=quiet)
        os.replace(fresh, f"{OUT}/{name}")


def environment(lib, extra, variable="LD_PRELOAD"):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SPANGUARD_", "AFL_", "LD_PRELOAD"))}
    env.update(extra)
    if lib:
        env[variable] = lib
    return env


def verdict(run):
    """Where the run stopped, by the last mark, and whether it was said what happened."""
    if run.returncode == 0:
        return "-"
    if run.returncode > 0:
        return "told at exit" if "ERROR: spanguard" in run.stderr else f"exit {run.returncode}"
    where = {"at": "at the access", "past": "at free or exit", "end": "at exit"}[run.stdout.split()[-1]]
    match = re.search(r"SUMMARY: spanguard: (\S+)", run.stderr)
    told = match.group(1) if match else ("" if "***" not in run.stderr else "a line")
    return f"{where}, {signal.Signals(-run.returncode).name}{': ' + told if told else ''}"


def compare_bugs():
    names = subprocess.run([f"{OUT}/bugs"], capture_output=True, text=True, check=True).stdout.split()
    bad = 0
    print("| bug | " + " | ".join(a[0] for a in ALLOCATORS) + " |")
    print("|---|" + "---|" * len(ALLOCATORS))
    found = [0] * len(ALLOCATORS)
    for name in names:
        row = []
        for i, (alloc, lib, extra) in enumerate(ALLOCATORS):
            env = environment(lib, extra)
            clean = subprocess.run([f"{OUT}/bugs", name, "clean"], capture_output=True, text=True, env=env)
            if clean.returncode != 0:
                print(f"{alloc}: {name} without the bug ended with {clean.returncode}:\n{clean.stderr}",
                      file=sys.stderr)
                bad += 1
            v = verdict(subprocess.run([f"{OUT}/bugs", name], capture_output=True, text=True, env=env))
            found[i] += v != "-"
            row.append(v)
        print(f"| {name} | " + " | ".join(row) + " |")
    print(f"| **found, of {len(names)}** | " + " | ".join(map(str, found)) + " |")
    return bad


def afl_speed(lib, extra, seconds):
    with tempfile.TemporaryDirectory() as work:
        env = environment(lib, extra, "AFL_PRELOAD")
        env.update(AFL_SKIP_CPUFREQ="1", AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES="1", AFL_NO_UI="1", AFL_NO_AFFINITY="1")
        run = subprocess.run(["afl-fuzz", "-V", str(seconds), "-s", "1", "-i", f"{ROOT}/fuzz/users/seeds", "-o", work, "--",
                              f"{OUT}/store_afl_fixed"], env=env, capture_output=True, text=True)
        stats = f"{work}/default/fuzzer_stats"
        if not os.path.exists(stats):
            return f"failed: {run.stdout[-300:]}"
        fields = dict(line.split(":", 1) for line in open(stats).read().splitlines())
        fields = {k.strip(): v.strip() for k, v in fields.items()}
        return f"{float(fields['execs_per_sec']):.0f} execs/s, stability {fields['stability']}, " \
               f"crashes {fields['saved_crashes']}"


# The stacks are wanted when a crash is looked at, not in a million runs without one.
FAST = {"spanguard debug": "mode=debug:stack_depth=0", "spanguard guard": "mode=guard:stack_depth=0"}


def compare_speed(seconds):
    print("| allocator | AFL++ persistent mode, the example with its bug mended |\n|---|---|")
    fast = [(f"{name}, stack_depth=0", OURS, {"SPANGUARD_OPTIONS": options}) for name, options in FAST.items()]
    for name, lib, extra in ALLOCATORS[:-2] + fast:
        print(f"| {name} | {afl_speed(lib, extra, seconds)} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bugs", action="store_true", help="only the table of bugs")
    parser.add_argument("--speed", action="store_true", help="only the table of speeds")
    parser.add_argument("--seconds", type=int, default=20, help="of AFL++ per allocator")
    args = parser.parse_args()
    for need in ("afl-clang-fast", "clang"):
        if not shutil.which(need):
            sys.exit(f"compare.py: {need} is not installed; ci/setup.sh installs it")
    if not os.path.exists(OURS):
        sys.exit(f"compare.py: {OURS} is missing; run make first")
    build()
    bad = 0
    if not args.speed:
        bad = compare_bugs()
    if not args.bugs:
        compare_speed(args.seconds)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
