"""Fills the table of the repository's README from results.json and peers/results.json.

The block lies between two comment lines; everything else in the file stays. The
modes come from the last `make bench`, the peers from the last `make bench-peers`,
each with its own date, so neither run has to wait for the other.
"""
import json
import os

from report import of_real_programs
from rows import REAL

BEGIN, END = "<!-- bench: begin, made by bench/run.py --readme -->", "<!-- bench: end -->"
VERSIONED = {"jemalloc": "libjemalloc2", "mimalloc": "libmimalloc2.0", "tcmalloc": "libtcmalloc-minimal4",
             "scudo": "libclang-rt-19-dev"}


def load(path):
    try:
        with open(path, encoding="utf-8") as f:
            return json.load(f)
    except FileNotFoundError:
        return None


def label(name, machine):
    """`jemalloc 5.3.0` from Debian's 5.3.0-1, without an epoch."""
    version = machine.get("packages", {}).get(VERSIONED.get(name, ""), "")
    version = version.split(":")[-1].split("-")[0].split("+")[0]
    return f"{name} {version}".strip()


def value(number):
    return "-" if number is None else f"{number:.2f}"


def table(result):
    machine, means = result["machine"], result["geomean"]
    names = [name for name in means if name != "glibc"]
    rows = [("time", "time"), ("peak RSS", "rss"), ("time of the worst row", "worst_time")]
    lines = ["| | " + " | ".join(label(n, machine) for n in names) + " |", "|---" + "|---:" * len(names) + "|"]
    for text, key in rows:
        lines.append(f"| {text} | " + " | ".join(value(means[n].get(key)) for n in names) + " |")
    for text, measure in (("time", "time"), ("peak RSS", "rss")):
        real = [value(of_real_programs(result, n, measure)) for n in names]
        lines.append(f"| {text}, the {len(REAL)} real programs | " + " | ".join(real) + " |")
    return lines


def where(result):
    machine = result["machine"]
    return (f"geometric mean of {len(result['rows'])} rows, median of {machine['runs']} interleaved runs, "
            f"{machine['date'][:10]}, {machine['cpu']} ({machine['cores']} cores), Linux {machine['kernel']}, "
            f"{machine['libc']}")


def block(modes, peers):
    lines = []
    if modes is not None:
        lines += [f"Relative to glibc, {where(modes)}; smaller is better:", "", *table(modes), ""]
    if peers is not None:
        lines += [f"Beside Debian's other allocators, a run of its own: {where(peers)}:", "", *table(peers), ""]
    return "\n".join(lines)


def fill(readme, bench_dir):
    """Rewrites the block in place; returns an error text or an empty one."""
    modes = load(os.path.join(bench_dir, "results.json"))
    peers = load(os.path.join(bench_dir, "peers", "results.json"))
    if modes is None and peers is None:
        return "there is no results.json: run the whole set first"
    with open(readme, encoding="utf-8") as f:
        text = f.read()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        return f"{readme} must hold one line {BEGIN} and one {END}"
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    made = block(modes, peers)
    with open(readme, "w", encoding="utf-8") as f:
        f.write(f"{before}{BEGIN}\n{made}{END}{after}")
    return ""
