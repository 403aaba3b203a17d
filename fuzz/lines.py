#!/usr/bin/env python3
"""usage: fuzz/lines.py OUT.json LCOV...: what several builds executed, together.
Writes file -> lines executed; prints lines and branches by file, and by group, and
the places where the allocator ends a program or reports an error that were never
reached."""
import collections
import glob
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


# a call, not a declaration; complain_about and check are debug.c's and fault.c's own
DIE = re.compile(r"^\t+(?:.*[ (!])?(?:die|die_corruption|complain|complain_about|report_once|report_and_go_on)\(")
# these have a die() of their own in the harnesses (tests/fake_die.c)
NOT_HERE = ("src/report.c",)


def die_sites():
    """file -> line numbers of calls that report an error or end the program."""
    sites = {}
    for path in sorted(glob.glob("src/*.c") + glob.glob("hardening/*.c")):
        if path in NOT_HERE:
            continue
        with open(path, encoding="utf-8") as f:
            found = [(n, text.strip()) for n, text in enumerate(f, 1)
                     if DIE.match(text) and not text.lstrip().startswith("*")]
        if found:
            sites[path] = found
    return sites


def print_sites(lines):
    sites = die_sites()
    never = [(path, n, text) for path, found in sites.items() for n, text in found
             if not lines[path].get(n)]
    every = sum(len(found) for found in sites.values())
    print(f"die sites that the corpus fired: {every - len(never)} of {every}; never:")
    for path, n, text in never:
        print(f"  {path}:{n}: {text}")


def main():
    lines = collections.defaultdict(lambda: collections.defaultdict(bool))
    branches = collections.defaultdict(lambda: collections.defaultdict(bool))
    for path in sys.argv[2:]:
        read(path, lines, branches)
    for f in sorted(lines):
        row(f, [f], lines, branches)
    for name, pattern in GROUPS:
        row(name, [f for f in lines if re.fullmatch(pattern, f)], lines, branches)
    print_sites(lines)
    with open(sys.argv[1], "w", encoding="utf-8") as f:
        json.dump({k: [n for n, hit in v.items() if hit] for k, v in lines.items()}, f)


main()
