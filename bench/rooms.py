#!/usr/bin/python3
"""What each hardening room costs alone, beside mode=plain.

The rooms are those of ci/rooms.py, from the option table: each is switched on alone
over mode=plain. Three figures, the first two free of the machine's noise:

  pair    instructions of one malloc and one free of 64 bytes on the owner's thread,
          mean of many with refills and sweeps, by callgrind as in ci/fastpath-count
  bench   instructions of the benchmark's own programs with small arguments, by
          cachegrind: geometric mean of the ratios to mode=plain, in percent more.
          What the kernel does is not in it, nor what a thread waits for
  time    user and system time of the same programs with larger arguments, the least
          of RUNS interleaved runs: geometric mean of the ratios, in percent more

  bench/rooms.py [--runs N] [--no-time|--only-time] [--room PATTERN]
  bench/rooms.py --fill      ... and writes the table into README.md and doc/security.md

$SPANGUARD_LIB names another library. Without it, build/libspanguard.so.
"""
import argparse
import datetime
import importlib.machinery
import importlib.util
import json
import math
import os
import pathlib
import platform
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.dont_write_bytecode = True
sys.path[:0] = [str(ROOT / "ci"), str(ROOT / "bench")]
import rooms as matrix      # noqa: E402
import rows                 # noqa: E402

# quieter than the full rows, long enough to be above the cost of a process's start
TIMED = {"pairs": "200000", "larson": "8 8 50000 5000", "trade": "4 400000 50000", "prodcons": "4 500",
         "mixed": "2 400 2000", "large": "600 48 32 8192 2", "huge": "30 6", "server": "2 100000",
         "churn": "2000 8 300", "bursts": "8 500", "graph": "14 60000 4", "strings": "60 1200", "zeroed": "200",
         "cxx": "3 20000"}
FEW = {"pairs": "20000", "larson": "4 2 2000 1000", "trade": "2 40000 5000", "prodcons": "2 50", "mixed": "1 30 1000",
       "large": "100 16 32 1024 1", "huge": "4 2", "server": "1 5000", "churn": "100 4 100", "bursts": "4 30",
       "graph": "10 3000 2", "strings": "5 400", "zeroed": "10", "cxx": "1 2000"}
# cost nothing until something happens, or are no room of their own
KNOBS = {"halt_on_error", "sample_recover", "verify_at_exit", "scavenge", "mismatch", "mark_report", "guards", "window_bytes",
         "idle_share", "span_quarantine_share", "valgrind"}
DEBUGGING = re.compile("guard_|records|redzone|report_requests|mode=debug|mode=guard")      # bench-debug measures these
FILLED = [ROOT / "README.md", ROOT / "doc" / "security.md"]


def fastpath():
    """ci/fastpath-count, which has no ending, as a module."""
    loader = importlib.machinery.SourceFileLoader("fastpath_count", str(ROOT / "ci" / "fastpath-count"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("fastpath_count", loader))
    loader.exec_module(module)
    return module


def settings(pattern):
    """[(name, options)]: plain first, then every room, then the modes."""
    chosen = [("none (`plain`)", "mode=plain")]
    chosen += [(f"`{room}`", room.options) for room in matrix.rooms()
               if room.option not in KNOBS and re.search(pattern, str(room))]
    modes = next(row for row in matrix.table() if row["name"] == "mode")["takes"].split("|")
    chosen += [(f"`mode={mode}`", f"mode={mode}") for mode in modes if mode != "plain" and re.search(pattern, mode)]
    return [setting for setting in chosen if not DEBUGGING.search(setting[0])]


def environment(options, library):
    return {"PATH": os.environ["PATH"], "LD_PRELOAD": str(library), "SPANGUARD_OPTIONS": options + ":seed=1"}


def compile_rows(directory):
    for row in rows.OURS:
        source = next(p for p in (ROOT / "bench" / f"{row.name}.c", ROOT / "bench" / f"{row.name}.cc") if p.exists())
        compiler = "g++" if source.suffix == ".cc" else "gcc"
        subprocess.run([compiler, "-O2", "-pthread", "-o", directory / row.name, source, "-lm"], check=True)


def pair_instructions(count, directory, binary, library, options):
    figures = count.mean(directory, binary, library, options.removeprefix("mode="))
    return figures["malloc"] + figures["free"]


def bench_instructions(directory, library, options):
    """{row: instructions}"""
    found = {}
    for name, arguments in FEW.items():
        done = subprocess.run(["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null",
                               directory / name, *arguments.split()], env=environment(options, library),
                              capture_output=True, text=True, timeout=1200)
        refs = re.search(r"I\s+refs:\s+([\d,]+)", done.stderr)
        if done.returncode != 0 or refs is None:
            sys.exit(f"{name} under {options}: {done.stderr[-2000:]}")
        found[name] = int(refs[1].replace(",", ""))
    return found


def cpu_seconds(argv, env):
    child = os.posix_spawn(argv[0], argv, env)
    _, status, used = os.wait4(child, 0)
    if status != 0:
        sys.exit(f"{argv} with {env['SPANGUARD_OPTIONS']} ends with {status}")
    return used.ru_utime + used.ru_stime


def bench_times(directory, library, wanted, runs, after_each):
    """{setting: {row: least CPU seconds}}, settings interleaved."""
    least = {name: {} for name, _ in wanted}
    for done in range(runs):
        if done:
            after_each(least)
        for row, arguments in TIMED.items():
            for name, options in wanted:
                took = cpu_seconds([str(directory / row), *arguments.split()], environment(options, library))
                least[name][row] = min(took, least[name].get(row, math.inf))
    return least


def percent_more(figures, base):
    """Geometric mean of the ratios, as percent more."""
    logs = [math.log(figures[row] / base[row]) for row in base]
    return 100 * (math.exp(sum(logs) / len(logs)) - 1)


def render(wanted, pairs, counts, times):
    text = "| room, alone over `plain` | instructions, malloc + free of 64 B | bench set, instructions | bench set, CPU time |\n"
    text += "|---|---:|---:|---:|\n"
    base = wanted[0][0]
    for name, _ in wanted:
        pair = f"{pairs[name]:.1f}" if name in pairs else "-"
        count = f"{percent_more(counts[name], counts[base]):+.1f} %" if name in counts else "-"
        time = f"{percent_more(times[name], times[base]):+.0f} %" if name in times else "-"
        if name == base:
            count, time = "0" if count != "-" else "-", "0" if time != "-" else "-"
        text += f"| {name} | {pair} | {count} | {time} |\n"
    return text


def fill(table):
    today, kernel = datetime.date.today().isoformat(), ".".join(platform.release().split(".")[:2])
    said = f"`make bench-rooms`, {today}, {machine()}, Linux {kernel}:\n\n"
    for path in FILLED:
        text = path.read_text()
        begin, end = "<!-- rooms: begin, made by bench/rooms.py --fill -->\n", "<!-- rooms: end -->"
        if begin not in text:
            sys.exit(f"{path} has no place for the table")
        head, rest = text.split(begin)
        path.write_text(head + begin + said + table + end + rest.split(end)[1])


def machine():
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return f"{model[1] if model else platform.machine()}, {os.cpu_count()} cores"


def keep(path, pairs, counts, times):
    if path:
        path.write_text(json.dumps({"pairs": pairs, "counts": counts, "times": times}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--no-time", action="store_true")
    parser.add_argument("--only-time", action="store_true")
    parser.add_argument("--room", default="", metavar="PATTERN")
    parser.add_argument("--fill", action="store_true")
    parser.add_argument("--save", type=pathlib.Path, help="keep the figures here, and measure only what is not there")
    args = parser.parse_args()
    library = pathlib.Path(os.environ.get("SPANGUARD_LIB", ROOT / "build" / "libspanguard.so")).resolve()
    wanted = settings(args.room)
    kept = json.loads(args.save.read_text()) if args.save and args.save.exists() else {}
    pairs, counts, times = (kept.get(key, {}) for key in ("pairs", "counts", "times"))
    with tempfile.TemporaryDirectory(prefix="spanguard-rooms-") as scratch:
        directory = pathlib.Path(scratch)
        compile_rows(directory)
        count = fastpath()
        binary = count.compile_program(directory)
        for name, options in wanted if not args.only_time else []:
            if name in counts:
                continue
            pairs[name] = pair_instructions(count, directory, binary, library, options)
            counts[name] = bench_instructions(directory, library, options)
            print(f"{name:32} {pairs[name]:8.1f} {percent_more(counts[name], counts[wanted[0][0]]):+8.1f} %",
                  file=sys.stderr, flush=True)
            keep(args.save, pairs, counts, times)
        if not args.no_time:
            times = bench_times(directory, library, wanted, args.runs,
                                lambda least: keep(args.save, pairs, counts, least))
    keep(args.save, pairs, counts, times)
    table = render(wanted, pairs, counts, times)
    print(table)
    if args.fill:
        fill(table)


if __name__ == "__main__":
    main()
