#!/usr/bin/env python3
"""usage: fuzz/lines.py OUT.json LCOV...: what several builds executed, together.
Writes file -> lines executed; prints lines and branches by file, and by group."""
import collections
import json
import re
import sys

GROUPS = [
    ("the tiers", r"src/(m(?!ksize)\w*|lock|persistentalloc)\.c"),
    ("... and verify", r"src/(m(?!ksize)\w*|lock|persistentalloc|verify)\.c"),
    ("the rooms", r"hardening/.*"),
    ("src and hardening", r"(src|hardening)/.*"),
]


def read(path, lines, branches):
    file = None
    with open(path, encoding="utf-8") as f:
        for row in f:
            key, _, rest = row.strip().partition(":")
            if key == "SF":
                file = re.sub(r".*/((src|hardening)/)", r"\1", rest)
            elif key == "DA":
                at, n = rest.split(",")[:2]
                lines[file][int(at)] |= int(n) > 0
            elif key == "BRDA":
                at, block, branch, n = rest.split(",")
                branches[file][at, block, branch] |= n not in ("-", "0")


def row(name, files, lines, branches):
    out = f"{name:30}"
    for table in (lines, branches):
        all_of = [v for f in files for v in table[f].values()]
        out += f"{100 * sum(all_of) / len(all_of):7.1f} %" if all_of else "        -"
    print(out)


def main():
    lines = collections.defaultdict(lambda: collections.defaultdict(bool))
    branches = collections.defaultdict(lambda: collections.defaultdict(bool))
    for path in sys.argv[2:]:
        read(path, lines, branches)
    for f in sorted(lines):
        row(f, [f], lines, branches)
    for name, pattern in GROUPS:
        row(name, [f for f in lines if re.fullmatch(pattern, f)], lines, branches)
    with open(sys.argv[1], "w", encoding="utf-8") as f:
        json.dump({k: [n for n, hit in v.items() if hit] for k, v in lines.items()}, f)


main()
