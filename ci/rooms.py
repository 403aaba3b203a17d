#!/usr/bin/python3
"""Every hardening room alone, all of them, and none: does a program still work?

The rooms are not listed here. They come from `build/spanguard options --json`, the
table of src/options.def: an option that some mode sets to something else than
mode=plain does switches a room on, and so does each choice of an option that has
choices, and each yes/no option. "With OTHER:" at the head of an option's help says
what it needs beside it. So a new option joins by itself.

Each setting runs some of the conformance programs of tests/api, which say nothing
and exit 0, and a short stress run that verifies the whole heap again and again.

  ci/rooms.py              run the matrix; exit 1 if a setting fails
  ci/rooms.py --list       show the settings
  ci/rooms.py --planted    a library with a fault must fail in every setting

$SPANGUARD_LIB names another library.
"""
import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parent.parent
COMMAND = ROOT / "build" / "spanguard"
MODES = ["strict", "debug", "guard", "hardened"]        # whose value a room gets: the first that has one
NOT_A_ROOM = {"mode", "seed", "log", "help", "stats_at_exit", "mark_report", "leak_check"}       # these choose no behaviour, or only talk
API = ["no_overlap.c", "realloc_grid.c", "realloc_semantics.c", "alignments.c", "calloc_zero.c", "usable_size.c",
       "malloc_zero.c", "malloc_trim.c", "new_forms.cc", "containers.cc"]
SECONDS = 1


@dataclass
class Room:
    option: str
    value: str
    options: str            # for SPANGUARD_OPTIONS: mode=plain, what it needs, the room

    def __str__(self):
        return f"{self.option}={self.value}"


def table():
    done = subprocess.run([COMMAND, "options", "--json"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def values(row):
    """What to switch the option to, all others being as in mode=plain."""
    off = row["modes"]["plain"]
    armed = [row["modes"][mode] for mode in MODES if row["modes"][mode] != off]
    if armed:
        return armed[:1]
    if row["takes"] == "0|1":
        return ["1" if off == "0" else "0"]
    if re.fullmatch(r"[a-z|]+", row["takes"]):
        return [choice for choice in row["takes"].split("|") if choice != off]
    return []


def needs(row):
    """"With records:" or "With records and redzone:" at the head of the help."""
    head = re.match(r"With ([a-z_=]+(?:(?:, | and )[a-z_=]+)*):", row["help"])
    names = re.split(", | and ", head[1]) if head else []
    return [name if "=" in name else name + "=1" for name in names]


def rooms():
    return [Room(row["name"], value, ":".join(["mode=plain", *needs(row), f"{row['name']}={value}"]))
            for row in table() if row["name"] not in NOT_A_ROOM for value in values(row)]


def all_rooms():
    """Every room at once; of an option's choices, the last. Guards as the kernel has them: made by mprotect, there are
    not enough for each object, and the library rightly says so."""
    armed = {room.option: room.value for room in rooms() if room.option != "guards"}
    return ":".join(["mode=plain", *(f"{name}={value}" for name, value in armed.items())])


def settings():
    modes = next(row for row in table() if row["name"] == "mode")["takes"].split("|")
    return ([("none", "mode=plain")] + [(str(room), room.options) for room in rooms()] + [("all", all_rooms())]
            + [(f"mode={mode}", f"mode={mode}") for mode in modes if mode != "plain"])


def compile_programs(directory):
    flags = {".c": ["gcc", "-std=gnu11"], ".cc": ["g++", "-std=c++17"]}
    programs = []
    for source in [ROOT / "tests" / "api" / name for name in API]:
        target = directory / source.stem
        subprocess.run([*flags[source.suffix], "-O0", "-w", "-o", target, source, "-ldl", "-pthread"], check=True)
        programs.append([target])
    stress = directory / "stress"
    subprocess.run(["gcc", "-O2", "-pthread", "-o", stress, ROOT / "tests" / "stress" / "stress.c"], check=True)
    return [*programs, [stress, str(SECONDS)]]


def run_setting(programs, lib, options, more_env):
    """None, or what went wrong."""
    env = {"PATH": os.environ["PATH"], "LD_PRELOAD": str(lib), "API_LIBRARY": str(lib),
           "SPANGUARD_STRICT_OPTIONS": "1", **more_env}
    for argv in programs:
        verify = ":verify_every=3000:verify_at_exit=1" if "verify" not in options else ""
        env["SPANGUARD_OPTIONS"] = options + verify
        try:
            done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120)
        except subprocess.TimeoutExpired:
            return f"{argv[0].name} hangs"
        if done.returncode != 0 or done.stderr:
            return f"{argv[0].name} ends with {done.returncode}: {done.stderr[:3000]}"
    return None


def planted_library(directory):
    """libc's malloc with a fault: one object is handed out twice."""
    target = directory / "libbroken.so"
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", target, ROOT / "tests" / "stress" / "broken.c"], check=True)
    return target


def main():
    wanted = settings()
    if "--list" in sys.argv:
        for name, options in wanted:
            print(f"{name:32} {options}")
        return 0
    planted = "--planted" in sys.argv
    with tempfile.TemporaryDirectory(prefix="spanguard-rooms-") as scratch:
        directory = pathlib.Path(scratch)
        programs = compile_programs(directory)
        lib = pathlib.Path(os.environ.get("SPANGUARD_LIB", ROOT / "build" / "libspanguard.so")).resolve()
        env = {}
        if planted:
            lib, env, programs, wanted = planted_library(directory), {"BROKEN": "twice"}, [[programs[-1][0], "8"]], wanted[:1]
        failed = 0
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for (name, options), why in zip(wanted, pool.map(lambda s: run_setting(programs, lib, s[1], env), wanted)):
                print(f"{'FAILED' if why else 'ok':7} {name}", flush=True)
                if why:
                    failed += 1
                    print(f"        SPANGUARD_OPTIONS={options}\n        {why}", flush=True)
    print(f"{len(wanted) - failed} settings passed, {failed} failed")
    return int(failed != (len(wanted) if planted else 0))


if __name__ == "__main__":
    sys.exit(main())
