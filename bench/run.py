#!/usr/bin/env python3
"""Measures spanguard's modes beside glibc, jemalloc, mimalloc, tcmalloc and Scudo.

    SPANGUARD_LIB=build/libspanguard.so bench/run.py [--runs 7] [--only glibc,plain,hardened,strict] ...

Runs are interleaved: run 1 of every row under all allocators, in an order that
rotates, then run 2, and so on; a slow minute of the machine falls on all of
them. A run of all rows under glibc and every mode writes results.md, results.json
and the charts beside this file, one with peers to peers/ here; a partial one
(--quick, --rows, a mode left out) to the build directory, so that published
figures are always of the whole set. Exit status: 0, or 1 if a run failed or
--gate was given and a target is missed. See README.md here.
"""
import argparse
import json
import os
import subprocess
import sys
import time

sys.dont_write_bytecode = True   # no __pycache__ beside the sources

import allocators
import chart
import readme
import report
from measure import BENCH_DIR, Bench, Failure
from rows import ROWS

C_FLAGS = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-pthread"]
CXX_FLAGS = ["-std=c++17", "-O2", "-Wall", "-Wextra"]
NO_ELISION = [f"-fno-builtin-{name}" for name in ("malloc", "calloc", "realloc", "free")]


def arguments():
    repo = os.path.dirname(BENCH_DIR)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7, help="measured runs of each row (default 7)")
    parser.add_argument("--rows", default="", help="only these rows, by commas; see --list")
    parser.add_argument("--only", default="", help="only these columns, by commas: modes and peers; glibc always")
    parser.add_argument("--modes", default="plain,hardened,strict",
                        help="modes of spanguard; hardened+name=value sets an option as well")
    parser.add_argument("--lib", action="append", default=[], metavar="NAME=PATH", help="one more allocator")
    parser.add_argument("--quick", action="store_true", help="small arguments, one run: a smoke test")
    parser.add_argument("--gate", action="store_true",
                        help="exit 1 if a mode misses its target; wants the whole set and 7 runs")
    parser.add_argument("--timeout", type=int, default=300, metavar="S", help="limit of a single run (default 300)")
    parser.add_argument("--build", default=os.environ.get("BENCH_BUILD", os.path.join(repo, "build", "bench")),
                        help="directory for programs, inputs and partial results")
    parser.add_argument("--out", default="", help="directory for the results")
    parser.add_argument("--readme", action="store_true", help="fill the README's table from the results and end")
    parser.add_argument("--list", action="store_true", help="name the rows and end")
    parser.add_argument("--by-hand", action="store_true", help="print the shell line of each run and end")
    args = parser.parse_args()
    args.build = os.path.abspath(args.build)
    args.library = os.environ.get("SPANGUARD_LIB", os.path.join(repo, "build", "libspanguard.so"))
    if args.quick:
        args.runs = 1
    if args.runs < 1:
        parser.error("--runs must be at least 1")
    if args.gate and (args.quick or args.rows or args.runs < 7):
        parser.error("--gate judges the whole set over at least 7 runs")
    return args


def say(text):
    print(text, file=sys.stderr, flush=True)


def build(bin_dir):
    """Compiles what is older than its source."""
    header = os.path.join(BENCH_DIR, "bench.h")
    for name in sorted(os.listdir(BENCH_DIR)):
        stem, kind = os.path.splitext(name)
        if kind not in (".c", ".cc"):
            continue
        source, program = os.path.join(BENCH_DIR, name), os.path.join(bin_dir, stem)
        newest = max(os.path.getmtime(source), os.path.getmtime(header))
        if os.path.exists(program) and os.path.getmtime(program) > newest:
            continue
        compiler = [os.environ.get("CC", "cc"), *C_FLAGS] if kind == ".c" else [os.environ.get("CXX", "c++"), *CXX_FLAGS]
        subprocess.run([*compiler, *NO_ELISION, "-o", program, source, "-lm"], check=True)


def chosen(names, known, what):
    """The members of `known` that the option names; all of them without it."""
    wanted = [n for n in names.split(",") if n]
    unknown = [n for n in wanted if n not in [k.name for k in known]]
    if unknown:
        sys.exit(f"run.py: no such {what}: {', '.join(unknown)}; there are {', '.join(k.name for k in known)}")
    return [k for k in known if not wanted or k.name in wanted]


def choose_allocators(args):
    modes = [m for m in args.modes.split(",") if m]
    extra = [tuple(item.split("=", 1)) for item in args.lib if "=" in item]
    if len(extra) != len(args.lib):
        sys.exit("run.py: --lib wants NAME=PATH")
    present, missing = allocators.find(modes, args.library, extra, args.build)
    for name in missing:
        say(f"skipped: {name}, no library found" + (f" at {args.library}" if name in modes else ""))
    wanted = [n for n in args.only.split(",") if n and n not in missing]
    return chosen(",".join(["glibc", *wanted]) if args.only else "", present, "allocator"), missing


def choose_rows(args):
    rows, skipped = [], []
    for row in chosen(args.rows, ROWS, "row"):
        if row.missing():
            say(f"skipped: row {row.name}, {row.needs} is not installed")
            skipped.append(row.name)
        else:
            rows.append(row)
    return rows, skipped


class Progress:
    """One line on standard error that is rewritten on a terminal."""

    def __init__(self, total):
        self.total, self.done, self.start = total, 0, time.monotonic()
        self.terminal = sys.stderr.isatty()

    def step(self, what, sample):
        self.done += 1
        left_s = (time.monotonic() - self.start) / self.done * (self.total - self.done)
        measured = f"{sample.time_s:.2f} s, {sample.rss_kib / 1024:.1f} MiB" if sample else "FAILED"
        line = f"[{self.done}/{self.total}, {left_s / 60:.1f} min left] {what}: {measured}"
        print(f"\r\033[K{line}" if self.terminal else line, end="" if self.terminal else "\n", file=sys.stderr, flush=True)

    def end(self):
        if self.terminal:
            print(file=sys.stderr)


def prepare(bench, rows, present):
    """Inputs, the check that preloading works, and one unmeasured reference run per row."""
    for allocator in present:
        bench.check_preload(allocator)
    for row in rows:
        bench.write_inputs(row)
        say(f"reference run: {row.name}")
        bench.run(row, present[0])


def measure_all(bench, rows, present, runs):
    """({(row, allocator): [Sample]}, {(row, allocator)} that failed)"""
    samples, failed = {}, set()
    progress = Progress(runs * len(rows) * len(present))
    for run in range(runs):
        for index, row in enumerate(rows):
            turn = (run + index) % len(present)
            for allocator in present[turn:] + present[:turn]:
                key, sample = (row.name, allocator.name), None
                if key not in failed:
                    try:
                        sample = bench.run(row, allocator)
                        samples.setdefault(key, []).append(sample)
                    except Failure as error:
                        failed.add(key)
                        say(f"\nFAILED: {error}")
                progress.step(f"run {run + 1}, {row.name}, {allocator.name}", sample)
    progress.end()
    return samples, failed


def result_directory(args, names, skipped):
    """Beside this file only what is complete: all rows, all modes; runs with peers have a place of their own."""
    if args.out:
        return args.out
    if args.quick or args.rows or skipped or any(mode not in names for mode in report.TARGETS):
        return args.build
    peers = any(name in allocators.ALL_PEERS for name in names)
    return os.path.join(BENCH_DIR, "peers") if peers else BENCH_DIR


def fill_readme():
    error = readme.fill(os.path.join(os.path.dirname(BENCH_DIR), "README.md"), BENCH_DIR)
    if error:
        say(f"run.py: {error}")
    return 1 if error else 0


def write_results(directory, result, text, modes, names):
    os.makedirs(directory, exist_ok=True)
    files = {"results.md": text, "results.json": json.dumps(result, indent=1) + "\n",
             **chart.charts(result, names, modes)}
    for name, content in files.items():
        with open(os.path.join(directory, name), "w", encoding="utf-8") as f:
            f.write(content)
    say(f"written to {directory}: {', '.join(files)}")


def main():
    args = arguments()
    if args.list:
        print("\n".join(f"{row.name:10} {row.what}" for row in ROWS))
        return 0
    if args.readme:
        return fill_readme()
    bench = Bench(args.build, args.quick, args.timeout)
    build(bench.bin_dir)
    rows, skipped = choose_rows(args)
    present, missing = choose_allocators(args)
    if args.by_hand:
        for row in rows:
            bench.write_inputs(row)
            for allocator in present:
                print("python3 bench/run.py --rows redis" if row.server else bench.by_hand(row, allocator))
        return 0
    machine = report.machine_facts(" ".join(sys.argv), args.runs)
    try:
        prepare(bench, rows, present)
    except Failure as error:
        say(f"FAILED: {error}")
        return 1
    samples, failed = measure_all(bench, rows, present, args.runs)
    machine["load_end"] = round(os.getloadavg()[0], 2)
    names = [a.name for a in present]
    result = report.results(samples, [row.name for row in rows], names, failed, machine)
    notes = [f"skipped: {name}" for name in missing + skipped if not args.only or name in args.only.split(",") + skipped]
    text = report.markdown(result, names, notes)
    modes = [a.name for a in present if a.spanguard]
    write_results(result_directory(args, names, skipped), result, text, modes, names)
    print(text)
    missed = args.gate and (skipped or not report.targets_met(result, args.modes.split(",")))
    return 1 if failed or missed else 0


if __name__ == "__main__":
    sys.exit(main())
