#!/usr/bin/env python3
"""Does an operation get dearer as the heap grows, or as threads are added?

    bench/scaling/scaling.py [--most 100000000] [--gate] [live] [pages] [threads]

live     instructions of a free and a malloc beside 10^4, 10^6 and 10^8 live objects
pages    instructions of a page_alloc_free and a page_alloc_alloc in heaps of 1, 10
         and 100 GiB, on addresses without memory (tests/sys_addr_only.c)
threads  CPU time of a fixed amount of work done by 1 to 8 threads: with blocks of
         their own, and exchanging blocks

Instructions are callgrind's, which repeat and do not know of caches. --gate: exit 1
if one of the first two grows by more than 1.3. Prints markdown; wants valgrind, a
compiler and build/libspanguard.so (or $SPANGUARD_LIB).
"""
import argparse
import os
import pathlib
import re
import resource
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LIB = os.environ.get("SPANGUARD_LIB", str(ROOT / "build" / "libspanguard.so"))
MODES = ["plain", "hardened", "strict"]
LIMIT = 1.3


def compile_all(out):
    flags = ["-std=gnu11", "-O2", "-fno-builtin-malloc", "-fno-builtin-free", "-pthread"]
    cc = os.environ.get("CC", "cc")
    for name in ("live", "contend"):
        subprocess.run([cc, *flags, "-o", out / name, HERE / f"{name}.c"], check=True)
    tiers = [ROOT / "src" / f"{n}.c" for n in ("mpagealloc", "mpallocbits", "mpagecache", "persistentalloc", "lock", "print")]
    support = [ROOT / "tests" / n for n in ("sys_addr_only.c", "fake_die.c")]
    subprocess.run([cc, *flags, "-DSPANGUARD_TEST_BUILD=1", f"-I{ROOT}/src", f"-I{ROOT}/tests", f"-I{ROOT}", "-o",
                    out / "pages", HERE / "pages.c", *tiers, *support, "-lcmocka"], check=True)


def instructions(out, command, env=None):
    """What callgrind counted between the two requests of the program."""
    for old in out.glob("counts.*"):
        old.unlink()
    done = subprocess.run(["valgrind", "-q", "--tool=callgrind", "--instr-atstart=no",
                           f"--callgrind-out-file={out}/counts.%p", *map(str, command)],
                          env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"scaling.py: {' '.join(map(str, command))}: status {done.returncode}\n{done.stderr}")
    # helpers of valgrind's own that run with the library leave a file of zeroes
    return max(int(re.search(r"^totals: (\d+)", f.read_text(), re.M).group(1)) for f in out.glob("counts.*"))


def row(name, values):
    ratio = max(values) / min(values)
    print(f"| {name} | " + " | ".join(f"{v:.1f}" for v in values) + f" | {ratio:.2f} |", flush=True)
    return ratio


def live(out, most):
    sizes, pairs = [n for n in (10**4, 10**6, 10**8) if n <= most], 200000
    print("| live objects | " + " | ".join(f"{n:.0e}" for n in sizes) + " | largest : smallest |")
    print("|---|" + "---:|" * (len(sizes) + 1))
    worst = 0
    for mode in MODES:
        env = {"LD_PRELOAD": LIB, "SPANGUARD_OPTIONS": f"mode={mode}:seed=1:sample=0:verify_at_exit=0"}
        loop = instructions(out, [out / "live", 10**4, pairs, "loop"], env)
        worst = max(worst, row(mode, [(instructions(out, [out / "live", n, pairs], env) - loop) / pairs for n in sizes]))
    return worst


def pages(out):
    sizes, pairs = (1, 10, 100), 20000
    print("| heap, GiB | " + " | ".join(map(str, sizes)) + " | largest : smallest |\n|---|---:|---:|---:|---:|")
    return row("free and alloc of 1 to 16 pages", [instructions(out, [out / "pages", n, pairs]) / pairs for n in sizes])


def cpu_ns(command, env):
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(list(map(str, command)), check=True, env={**os.environ, **env})
    wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu * 1e9, wall * 1e9, after.ru_nvcsw - before.ru_nvcsw


def threads(out):
    counts, operations = (1, 2, 4, 8), 8000000
    print("| CPU ns per malloc and free (waits per 10^6) | " + " | ".join(f"{n} threads" for n in counts) + " |")
    print("|---|" + "---:|" * len(counts))
    glibc = [("glibc", {})]
    ours = [(m, {"LD_PRELOAD": LIB, "SPANGUARD_OPTIONS": f"mode={m}"}) for m in MODES]
    for kind, what in ((0, "own blocks"), (1, "exchanged")):
        for name, env in glibc + ours:
            cells = []
            for n in counts:
                runs = [cpu_ns([out / "contend", n, operations, kind], env) for _ in range(3)]
                cpu, _, waits = min(runs)
                cells.append(f"{cpu / operations:.0f} ({waits * 10**6 / operations:.0f})")
            print(f"| {name}, {what} | " + " | ".join(cells) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="all without any")
    parser.add_argument("--most", type=int, default=10**8, help="live objects of the largest run")
    parser.add_argument("--gate", action="store_true")
    args = parser.parse_args()
    wanted, worst = args.parts or ["live", "pages", "threads"], 0
    with tempfile.TemporaryDirectory() as directory:
        out = pathlib.Path(directory)
        compile_all(out)
        if "live" in wanted:
            worst = max(worst, live(out, args.most))
        if "pages" in wanted:
            worst = max(worst, pages(out))
        if "threads" in wanted:
            threads(out)
    return 1 if args.gate and worst > LIMIT else 0


if __name__ == "__main__":
    sys.exit(main())
