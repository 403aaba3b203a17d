#!/usr/bin/env python3
"""What the debugging modes cost, beside Memcheck, AddressSanitizer and Electric Fence.

    bench/debug.py [--runs 3] [--full] [--only glibc,debug] [--rows pairs,gcc] [--out FILE]

The rows are those of rows.py, shorter, because Memcheck takes fifty times as long;
with --full the real programs do the whole work of `make bench`, and only they run.
Figures are the CPU time (user and system) and the peak resident set of the process,
relative to glibc in the same run: the median of the ratios. CPU time, because the
modes differ by factors and other processes on the machine do not enter into it.

Columns: mode=debug and mode=guard of $SPANGUARD_LIB, preloaded; valgrind
--tool=memcheck; the bench programs compiled again with -fsanitize=address (real
programs cannot be: -); Debian's electric-fence, preloaded (failed: it ends the
program when it can make no more mappings). A run that prints something else than
under glibc, or fails, is named as such and gives no figure.
"""
import argparse
import datetime
import glob
import math
import os
import platform
import statistics
import subprocess
import sys

sys.dont_write_bytecode = True

import allocators
import gen
import run as bench_run
from measure import BENCH_DIR, Bench, Failure
from rows import OURS, REAL

SCALED = {
    "pairs": "10000", "larson": "8 4 10000 2000", "trade": "4 200000 20000", "prodcons": "4 300",
    "mixed": "2 300 1000", "large": "300 24 32 8192 2", "huge": "20 4", "server": "2 40000",
    "churn": "1000 8 300", "bursts": "8 200", "graph": "6 40000 2", "strings": "60 400",
    "zeroed": "120", "cxx": "2 12000",
}
INPUTS = {
    "sqlite": {"rows.sql": lambda: gen.sql_script(60000)},
    "z3": {"problem.smt2": lambda: gen.smt_source(6, 40)},
    "gs": {"pages.pdf": lambda: gen.pdf_file(8)},
    "gcc": {"unit.c": lambda: gen.c_source(30)},
    "clang": {"unit.cc": lambda: gen.cxx_source(1)},
}
ASAN = {"ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1"}


class Column(allocators.Allocator):
    """How a row is run: what stands before the command, and from where."""

    def __init__(self, name, lib="", env=None, before=(), bin_dir=None):
        super().__init__(name, lib, env or {}, before=list(before))
        self.bin_dir = bin_dir


class DebugBench(Bench):
    def __init__(self, build_dir, timeout_s, full):
        super().__init__(build_dir, not full, timeout_s)
        if not full:
            self.in_dir = os.path.join(build_dir, "debug-input")
            os.makedirs(self.in_dir, exist_ok=True)
        self.column = None

    def command(self, row):
        plain = self.bin_dir
        if self.column.bin_dir:
            self.bin_dir = self.column.bin_dir
        words = super().command(row)
        self.bin_dir = plain
        return self.column.before + words

    def measure(self, row, column):
        self.column = column
        return self.run(row, column)


def build_asan(bin_dir):
    """The bench programs again, as someone would who can compile the program."""
    os.makedirs(bin_dir, exist_ok=True)
    for source in sorted(glob.glob(os.path.join(BENCH_DIR, "*.c")) + glob.glob(os.path.join(BENCH_DIR, "*.cc"))):
        stem, kind = os.path.splitext(os.path.basename(source))
        program = os.path.join(bin_dir, stem)
        if os.path.exists(program) and os.path.getmtime(program) > os.path.getmtime(source):
            continue
        compiler = ["gcc", *bench_run.C_FLAGS] if kind == ".c" else ["g++", *bench_run.CXX_FLAGS]
        subprocess.run([*compiler, *bench_run.NO_ELISION, "-fsanitize=address", "-fno-omit-frame-pointer",
                        "-o", program, source, "-lm"], check=True)


def columns(library, build_dir):
    asan_dir = os.path.join(build_dir, "bin-asan")
    build_asan(asan_dir)
    fence = allocators.newest(["/usr/lib/libefence.so.0*", "/usr/lib/*-linux-*/libefence.so.0*"])
    found = [
        Column("glibc"),
        Column("debug", library, {"SPANGUARD_OPTIONS": "mode=debug"}),
        Column("guard", library, {"SPANGUARD_OPTIONS": "mode=guard"}),
        Column("memcheck", before=["/usr/bin/valgrind", "--tool=memcheck", "--trace-children=yes",
                                   "--leak-check=no", "--log-file=/dev/null"]),
        Column("asan", env=ASAN, bin_dir=asan_dir),
    ]
    if fence:
        found.append(Column("efence", fence, {"EF_ALLOW_MALLOC_0": "1", "EF_DISABLE_BANNER": "1"}))
    return found


def rows(full):
    for row in [] if full else OURS:
        row.quick = [row.command[0], *SCALED[row.name].split()]
        yield row
    for row in REAL:
        if full:
            if not row.missing():
                yield row
            continue
        row.quick_files = INPUTS.get(row.name, row.quick_files)
        if row.name == "python":
            row.quick = row.command[:-1] + ["2"]
        if not row.missing():
            yield row


def possible(row, column):
    """Only our own programs are compiled again, and Electric Fence ends a server by its first mappings."""
    return (column.bin_dir is None or row in OURS) and not (row.server and column.name == "efence")


def measure_all(bench, chosen, chosen_rows, runs):
    """{row: {column: (time ratio, RSS ratio) or a word}}"""
    table = {}
    for row in chosen_rows:
        bench.write_inputs(row)
        samples, words = {c.name: [] for c in chosen}, {}
        for _ in range(runs):
            for column in chosen:
                if not possible(row, column):
                    words[column.name] = "-"
                elif column.name not in words:
                    try:
                        samples[column.name].append(bench.measure(row, column))
                    except Failure as error:
                        print(f"bench/debug.py: {str(error)[:300]}", file=sys.stderr)
                        words[column.name] = "failed"
        base = samples["glibc"]
        table[row.name] = {}
        for column in chosen:
            mine = samples[column.name]
            table[row.name][column.name] = words.get(column.name) or (
                statistics.median(m.cpu_s / b.cpu_s for m, b in zip(mine, base)),
                statistics.median(m.rss_kib / b.rss_kib for m, b in zip(mine, base)))
        print(row.name, {k: v if isinstance(v, str) else tuple(round(x, 2) for x in v)
                         for k, v in table[row.name].items()}, file=sys.stderr, flush=True)
    return table


def mean(values):
    return math.exp(statistics.fmean(math.log(v) for v in values)) if values else None


def cell(value):
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value[0]:.2f} / {value[1]:.2f}"


def write(table, chosen, runs, out):
    names = [c.name for c in chosen if c.name != "glibc"]
    lines = ["# What debugging costs", "",
             "Written by `make bench-debug` (bench/debug.py): CPU time / peak RSS, relative to glibc in the same run, "
             f"median of {runs} runs; {platform.machine()}, {os.cpu_count()} CPUs, Linux {platform.release()}, "
             f"{datetime.date.today()}.", "",
             "| row | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for row, cells in table.items():
        lines.append(f"| {row} | " + " | ".join(cell(cells[n]) for n in names) + " |")
    means = []
    for n in names:
        got = [cells[n] for cells in table.values() if not isinstance(cells[n], str)]
        time, rss = mean([g[0] for g in got]), mean([g[1] for g in got])
        means.append("-" if time is None else f"{time:.2f} / {rss:.2f} ({len(got)} rows)")
    lines.append("| **geometric mean** | " + " | ".join(means) + " |")
    text = "\n".join(lines) + "\n"
    print(text)
    if out:
        with open(out, "w") as f:
            f.write(text)


def main():
    repo = os.path.dirname(BENCH_DIR)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--full", action="store_true", help="real programs only, with the whole work of make bench")
    parser.add_argument("--only", default="", help="only these columns; glibc always")
    parser.add_argument("--rows", default="", help="only these rows")
    parser.add_argument("--timeout", type=int, default=300, metavar="S", help="limit of a single run")
    parser.add_argument("--build", default=os.environ.get("BENCH_BUILD", os.path.join(repo, "build", "bench")))
    parser.add_argument("--out", default="", help="file for the table")
    args = parser.parse_args()
    library = os.environ.get("SPANGUARD_LIB", os.path.join(repo, "build", "libspanguard.so"))
    bench = DebugBench(os.path.abspath(args.build), args.timeout, args.full)
    bench_run.build(bench.bin_dir)
    only, only_rows = args.only.split(",") if args.only else [], args.rows.split(",") if args.rows else []
    chosen = [c for c in columns(os.path.abspath(library), os.path.abspath(args.build))
              if not only or c.name in only or c.name == "glibc"]
    chosen_rows = [r for r in rows(args.full) if not only_rows or r.name in only_rows]
    table = measure_all(bench, chosen, chosen_rows, args.runs)
    write(table, chosen, args.runs, args.out)


if __name__ == "__main__":
    main()
