#!/usr/bin/env python3
"""Do the oracles see bugs? Builds the tree with each planted bug of fuzz/mutants/,
replays the corpus, and fuzzes what survives that.

usage: fuzz/mutants.py [--fuzz SECONDS] [--scratch SECONDS] [--ablate] [--apply-only]
                       [--from-scratch] [--only N,N] [--jobs N] [--json FILE]

  --fuzz SECONDS      for each survivor and harness at most that long (default 0: not);
                      of CPU, as all seconds of fuzzing, so that a busy machine is no excuse
  --scratch SECONDS   then each bug again, by fuzzing from an empty corpus: the harnesses
                      its patch names, at most that long each
  --from-scratch      no replay: the latter only, of --fuzz SECONDS
  --ablate            afterwards, each oracle off in turn: who lives then?
  --apply-only     only say whether every patch still applies
Status 0: every patch applies, and (without --only) at least KILLS of them die.

A patch names in its header what it breaks, the bug it descends from, and which
harness should see it: sched is H8, real H13, which are asked only where it names them
and no other sees it. Only objects that depend on a patched file are compiled
again. reached: the corpus executes a changed line; triggered: some input leaves
another trace than it does without the patch; killed: by which oracle."""
import argparse
import concurrent.futures
import glob
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OUT = os.path.join(ROOT, "build", "mutants")
KILLS = 36
TIMEOUT = 120           # seconds of CPU; ten times that by the clock
HANG = 20               # seconds of one input while fuzzing
FIRST = 30              # seconds that each engine and harness gets before any gets more
LITMUS_MAX = 1500
PATTERNS = [
    (r"FAIL oracle=(\w+)", None),
    (r"ERROR: AddressSanitizer: (use-after-poison|unknown-crash)", "touch"),
    (r"ERROR: AddressSanitizer", "asan"),
    (r"runtime error", "ubsan"),
    (r"fake_sys: ", "system"),
    (r"fake_die: ", "death"),
    (r"ALARM: working on the last Unit|timeout after", "hang"),
    (r"deadly signal|Sanitizer: (SEGV|BUS|FPE|ILL)", "signal"),
]


def make(*args):
    return subprocess.run(["make", "-s", "-C", ROOT, *args], check=True,
                          stdout=subprocess.PIPE, text=True).stdout.strip()


def patches(only):
    def number(path):
        return int(os.path.basename(path).split("-")[0])
    found = sorted(glob.glob(os.path.join(ROOT, "fuzz", "mutants", "*.patch")), key=number)
    return [p for p in found if not only or number(p) in only]


def header(path):
    with open(path, encoding="utf-8") as f:
        return dict(re.findall(r"^(\w+): +(.*)$", f.read().split("\n--- ")[0], re.M))


def name_of(path):
    return os.path.basename(path)[:-len(".patch")]


def apply(path, tree):
    """A tree of links, with copies of what the patch changes. False: it does not apply."""
    shutil.rmtree(tree, ignore_errors=True)
    for d in ("src", "hardening", "include", "tests", "fuzz"):
        for top, _, files in os.walk(os.path.join(ROOT, d)):
            to = os.path.join(tree, os.path.relpath(top, ROOT))
            os.makedirs(to, exist_ok=True)
            for f in files:
                if f.endswith((".c", ".h", ".def", ".txt")):
                    os.symlink(os.path.join(top, f), os.path.join(to, f))
    with open(path, encoding="utf-8") as f:
        touched = re.findall(r"^\+\+\+ b/(\S+)", f.read(), re.M)
    for t in touched:
        os.remove(os.path.join(tree, t))
        shutil.copy(os.path.join(ROOT, t), os.path.join(tree, t))
    r = subprocess.run(["patch", "-p1", "-s", "-F2", "--no-backup-if-mismatch", "-i", path],
                       cwd=tree, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if r.returncode != 0:
        sys.stderr.write(f"{name_of(path)}: does not apply\n{r.stdout}")
        return None
    return touched


class Variant:
    """Objects of a build of fuzz.mk, and how to make and link one of them."""

    def __init__(self, name):
        self.name = name
        self.dir = os.path.join(ROOT, "build", "fuzz", name)
        flags = make(f"fuzz-flags-{name}").split("\n")
        self.compile, self.link, self.libs = flags[0], flags[1], flags[2]
        self.simulated = sched_var("SIM_SRC")

    def objects(self, main):
        return [os.path.join(ROOT, o) for o in make(f"fuzz-objects-{self.name}").split()] + main

    def depends(self, obj, touched):
        try:
            with open(obj[:-2] + ".d", encoding="utf-8") as f:
                words = set(f.read().replace("\\\n", " ").split())
        except FileNotFoundError:
            return False
        return any(t in words or os.path.normpath(t) in {os.path.normpath(w) for w in words}
                   for t in touched)

    def build(self, tree, touched, main, out):
        objs = []
        for o in self.objects(main):
            if not self.depends(o, touched):
                objs.append(o)
                continue
            src = os.path.relpath(o, self.dir)[:-2] + ".c"
            new = os.path.join(tree, self.name, src[:-2].replace("/", "_") + ".o")
            os.makedirs(os.path.dirname(new), exist_ok=True)
            extra = {"src/export_libc.c": "-Wno-missing-prototypes -include fuzz/rename.h",
                     "src/report.c": "-include fuzz/simreport.h"}.get(src, "")
            if src in self.simulated:
                extra = "-include fuzz/simlibc.h"
            if src == "src/verify.c" and self.name in ("plain", "edges"):
                extra = " ".join(sched_var("VERIFY_BOUNDS"))
            extra += f" -DSG_HARNESS={src[7:-2]} fuzz/target.c" if src.startswith("target_") \
                else f" {src}"
            subprocess.run(f"{self.compile} -w {extra} -c -o {shlex.quote(new)}", shell=True, cwd=tree,
                           check=True)
            objs.append(new)
        subprocess.run(f"{self.link} -o {shlex.quote(out)} {shlex.join(objs)} {self.libs}", shell=True,
                       check=True, cwd=ROOT)


def sched_var(name):
    return make("sched-print", f"NAME={name}").split()


class Sched:
    """H8: the objects of build/sched/h8, those changed compiled again."""

    def build(self, tree, touched, out):
        tiers = [o for o in sched_var("SCHED_TIERS:%.c=$(SCHED_O)/%.o") if "fake_sys" not in o]
        harness, objs = sched_var("SCHED_HARNESS"), {}
        for o in tiers + harness:
            src = os.path.relpath(o, "build/sched")[:-2] + ".c"
            if not self.depends(o, touched):
                continue
            objs[o] = os.path.join(tree, "sched", src[:-2].replace("/", "_") + ".o")
            os.makedirs(os.path.dirname(objs[o]), exist_ok=True)
            subprocess.run([*sched_var("SCHED_COMPILE"), "-w", "-c", src, "-o", objs[o]],
                           cwd=tree, check=True)
        joined = os.path.join(tree, "sched", "tiers.o")
        os.makedirs(os.path.dirname(joined), exist_ok=True)
        subprocess.run(["ld", "-r", "-o", joined, *[objs.get(o, o) for o in tiers]],
                       cwd=ROOT, check=True)
        subprocess.run(["objcopy", *sched_var("SCHED_RENAME"), joined], cwd=ROOT, check=True)
        subprocess.run([*sched_var("SCHED_LINK_FLAGS"), "-o", out,
                        *[objs.get(o, o) for o in harness], joined], cwd=ROOT, check=True)

    @staticmethod
    def depends(obj, touched):
        try:
            with open(os.path.join(ROOT, obj[:-2] + ".d"), encoding="utf-8") as f:
                words = f.read().replace("\\\n", " ").split()
        except FileNotFoundError:
            return False
        return any(os.path.normpath(w) in touched for w in words)


class Library:
    """The preloaded library, for H13: the objects of build/lib, those changed compiled again."""

    def build(self, tree, touched, out):
        objs = []
        for o in sched_var("LIB_OBJ"):
            if Sched.depends(o, touched):
                src = os.path.relpath(o, "build/lib")[:-2] + ".c"
                o = os.path.join(tree, "lib", src[:-2].replace("/", "_") + ".o")
                os.makedirs(os.path.dirname(o), exist_ok=True)
                subprocess.run([*sched_var("CC"), *sched_var("BASE_CFLAGS"), *sched_var("CFLAGS"), "-w", "-c", src,
                                "-o", o], cwd=tree, check=True)
            objs.append(o)
        subprocess.run([*sched_var("CC"), *sched_var("SO_LDFLAGS"), "-o", out, *objs], cwd=ROOT, check=True)


def real(library):
    """As replay, of H13, with the oracle's name for what a process can do wrong."""
    begin = time.time()
    status, _ = run(["fuzz/real.sh"], 10 * TIMEOUT, {"SPANGUARD_LIB": library})
    if status == 0:
        return None
    return ("process", "real", time.time() - begin)


def litmus(exe):
    """As replay, of all litmus programs, at most LITMUS_MAX schedules of each."""
    begin = time.time()
    status, text = run([exe, f"--max={LITMUS_MAX}"], TIMEOUT)
    if status == 0:
        return None
    return ("litmus" if "FAIL" in text else verdict(status, text), "sched", time.time() - begin)


def verdict(status, text):
    for pattern, oracle in PATTERNS:
        m = re.search(pattern, text)
        if m:
            return oracle or m.group(1)
    if status == -signal.SIGILL:        # -fsanitize-undefined-trap-on-error
        return "bounds"
    return "hang" if status in ("timeout", -signal.SIGXCPU) else f"status {status}"


def run(cmd, seconds, env=None, cwd=ROOT):
    try:
        r = subprocess.run(cmd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           timeout=seconds, cwd=cwd, errors="replace",
                           env={**os.environ, **(env or {})})
        return r.returncode, r.stdout
    except subprocess.TimeoutExpired as e:
        return "timeout", (e.stdout or b"").decode(errors="replace")


def fuzz_run(cmd, seconds):
    """Status (None: the time is over), output, and seconds of CPU that it took."""
    with tempfile.TemporaryFile() as out:
        p = subprocess.Popen(["timeout", str(60 + 30 * seconds), "prlimit", f"--cpu={seconds}:{seconds + 5}", *cmd],
                             stdout=out, stderr=subprocess.STDOUT, cwd=ROOT)
        _, status, used = os.wait4(p.pid, 0)
        p.returncode = os.waitstatus_to_exitcode(status)    # nobody else may wait for it
        out.seek(0)
        text = out.read().decode(errors="replace")
    over = p.returncode in (0, 124, -signal.SIGXCPU)
    return None if over else p.returncode, text, used.ru_utime + used.ru_stime


def inputs(harness):
    return [p for p in (f"corpus/{harness}", f"corpus/regress/{harness}")
            if os.path.isdir(os.path.join(ROOT, p))]


def order(all_harnesses, wanted):
    first = [h for h in wanted.split() if h in all_harnesses]
    return first + [h for h in all_harnesses if h not in first]


def replay(tool, harnesses, env=None):
    """(oracle, harness, seconds) of the first failure, or None; and the traces."""
    begin, traces = time.time(), {}
    times = "1" if "asan" in tool else "2"
    for h in harnesses:
        if not inputs(h):
            continue
        status, text = run(["prlimit", f"--cpu={TIMEOUT}:{TIMEOUT + 5}", tool, "run", "-t", "-n", times, h, *inputs(h)],
                           10 * TIMEOUT, env)
        traces.update((f"{h}/{n}", t) for t, n in re.findall(r"^([0-9a-f]{16}) (\S+)$", text, re.M))
        if status != 0:
            return (verdict(status, text), h, time.time() - begin), traces
    return None, traces


def covered_lines():
    """file -> lines the corpus executes, if build/fuzz/cov was run (make fuzz-report)."""
    lines = {}
    try:
        with open(os.path.join(ROOT, "build", "fuzz", "lines.json"), encoding="utf-8") as f:
            lines = {k: set(v) for k, v in json.load(f).items()}
    except FileNotFoundError:
        pass
    return lines


def changed_lines(path):
    with open(path, encoding="utf-8") as f:
        text = f.read()
    found, at, file = [], 0, ""
    for line in text.split("\n"):
        if line.startswith("--- a/"):
            file = line[6:]
        m = re.match(r"@@ -(\d+)", line)
        if m:
            at = int(m.group(1))
        elif at and line[:1] in (" ", "-"):
            found.append((file, at))
            at += 1
    return found


def shares(seconds):
    """Half of the seconds, in two parts."""
    half = max(seconds // 2, 1)
    return [min(half, FIRST), *([half - FIRST] if half > FIRST else [])]


def fuzz(tree, touched, harnesses, seconds, from_scratch):
    # half of the time without sanitizers, which is several times as fast; they see what is
    # touched, and of H12 nothing
    spent = 0.0
    for part, name, h in [(p, n, h) for p in shares(seconds) for n in ("edges", "libfuzzer")
                          for h in harnesses if (h, n) != ("check", "libfuzzer")]:
        exe = os.path.join(tree, f"fuzz_{name}_{h}")
        if not os.path.exists(exe):
            v = Variant(name)
            v.build(tree, touched, [os.path.join(v.dir, f"target_{h}.o")], exe)
        work = os.path.join(tree, "work_" + h)
        os.makedirs(work, exist_ok=True)
        status, text, took = fuzz_run([exe, "-max_len=1040", f"-timeout={HANG}", f"-artifact_prefix={work}/", work,
                                       *([] if from_scratch else inputs(h))], part)
        if status is not None:
            return (verdict(status, text), h, spent + took)
        spent += took
    return None


def one(path, args, harnesses, base, covered):
    tree = os.path.join(OUT, name_of(path))
    touched = apply(path, tree)
    if touched is None:
        return {"name": name_of(path), "applies": False}
    info = header(path)
    result = {"name": name_of(path), "applies": True, "what": info.get("What", ""),
              "wanted": info.get("Killer", ""), "killed": None, "by": "replay", "built": [],
              "reached": any(n in covered.get(f, ()) for f, n in changed_lines(path))}
    if args.from_scratch:
        dead = scratch_one(path, harnesses, args.fuzz)
        return {**result, "killed": dead, "by": "fuzzing"}
    todo = order(harnesses, info.get("Killer", ""))
    dead, traces = None, {}
    for variant in ("plain", "asan"):
        v = Variant(variant)
        tool = os.path.join(tree, "sgfuzz_" + variant)
        main = [os.path.join(v.dir, "fuzz", f + ".o") for f in ("sgfuzz", "min", "toc", "stable", "random")]
        v.build(tree, touched, main, tool)
        result["built"].append(variant)
        dead, traces = replay(tool, todo)
        result["reached"] |= dead is not None
        # ASan runs leave other traces: H12 flips nothing there
        result["triggered"] = result.get("triggered") or dead is not None or (
            variant == "plain" and any(base.get(k) != t for k, t in traces.items()))
        if dead or variant == "asan":
            break
    for word, kind, name, ask in (("sched", Sched, "h8", litmus), ("real", Library, "libspanguard.so", real)):
        if dead is None and word in info.get("Killer", "").split():
            kind().build(tree, touched, os.path.join(tree, name))
            dead = ask(os.path.join(tree, name))
            result["triggered"] |= dead is not None
            result["reached"] |= dead is not None
    if dead is None and args.fuzz:
        result["by"] = "fuzzing"
        mine = [h for h in todo if h in info.get("Killer", "").split()] or todo
        dead = fuzz(tree, touched, mine, args.fuzz, False)
    result["killed"] = dead
    return result


def show(r):
    if not r["applies"]:
        return f"{r['name']:30} does not apply"
    yes = ("no", "yes")
    k = r["killed"]
    end = f"{k[0]:9} {k[1]:8} {r['by']:8} {k[2]:6.1f} s" if k else "SURVIVES"
    return f"{r['name']:30} {yes[r['reached']]:7} {yes[r.get('triggered', bool(k))]:9} {end}"


def scratch_one(path, harnesses, seconds):
    """(oracle, harness, seconds of fuzzing), or None: from an empty corpus."""
    tree = os.path.join(OUT, name_of(path))
    touched = apply(path, tree)
    wanted = header(path).get("Killer", "").split()
    mine = [h for h in wanted if h in harnesses]
    if wanted == ["real"]:      # its inputs are no engine's
        return None
    if "sched" in wanted:       # its schedules are as random as an engine's
        exe = os.path.join(tree, "h8")
        Sched().build(tree, touched, exe)
        begin, seed = time.time(), 0
        while time.time() - begin < seconds:        # a few of each program, and again
            seed += 1
            status, text = run([exe, "--pct=200", f"--seed={seed}"], seconds)
            if "FAIL" in text or status not in (0, "timeout"):
                return (verdict(status, text) if "FAIL" not in text else "litmus", "sched",
                        time.time() - begin)
    return fuzz(tree, touched, mine or harnesses[:1], seconds, True)


def spread(seconds):
    s = sorted(seconds) or [0]
    return f"median {s[len(s) // 2]:.1f} s, longest {s[-1]:.1f} s"


def scratch(todo, harnesses, seconds, jobs):
    print(f"\nfrom an empty corpus, at most {seconds} s a harness")
    took = []
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for path, k in zip(todo, pool.map(lambda q: scratch_one(q, harnesses, seconds), todo)):
            print(f"{name_of(path):30} " + (f"{k[0]:9} {k[1]:8} {k[2]:6.1f} s" if k
                                            else "SURVIVES"), flush=True)
            took += [k[2]] if k else []
    print(f"{len(took)} of {len(todo)} killed from an empty corpus, {spread(took)}")


def lives_without(result, oracle, harnesses):
    """Whether no other oracle sees it, in either build. H13 comes last: nobody else did."""
    return result["killed"][1] == "real" or all(replay(os.path.join(OUT, result["name"], "sgfuzz_" + v),
                      [result["killed"][1], *harnesses], {"SG_ORACLES_OFF": oracle})[0] is None
               for v in result["built"])


def ablate(results, harnesses, jobs):
    """Each oracle that killed: off, over the mutants it killed in replay."""
    print("\noracle off     lives then")
    mine = [r for r in results if r.get("killed") and r["by"] == "replay"
            and r["killed"][1] in [*harnesses, "real"]]
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        lives = dict(zip((r["name"] for r in mine), pool.map(
            lambda r: lives_without(r, r["killed"][0], harnesses), mine)))
    for oracle in sorted({r["killed"][0] for r in mine}):
        of_it = [r["name"] for r in mine if r["killed"][0] == oracle]
        print(f"{oracle:14} {', '.join(n for n in of_it if lives[n]) or '-'}"
              f" ({sum(lives[n] for n in of_it)} of {len(of_it)})")


def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--fuzz", type=int, default=0)
    p.add_argument("--scratch", type=int, default=0)
    p.add_argument("--from-scratch", action="store_true")
    p.add_argument("--ablate", action="store_true")
    p.add_argument("--apply-only", action="store_true")
    p.add_argument("--only", type=lambda s: [int(x) for x in s.split(",")])
    p.add_argument("--jobs", type=int, default=os.cpu_count())
    p.add_argument("--json")
    args = p.parse_args()
    todo = patches(args.only)
    if args.apply_only:
        bad = [q for q in todo if apply(q, os.path.join(OUT, name_of(q))) is None]
        print(f"{len(todo) - len(bad)} of {len(todo)} patches apply")
        return 1 if bad or not todo else 0
    make("fuzz-runners", "build/sched/h8", "build/libspanguard.so",
         *(["fuzz-libfuzzer", "fuzz-fast"] if args.fuzz or args.scratch else []))
    plain = os.path.join(ROOT, "build/fuzz/plain/sgfuzz")
    harnesses = subprocess.run([plain, "list"], stdout=subprocess.PIPE, text=True,
                               check=True).stdout.split()
    dead, base = (None, {}) if args.from_scratch else replay(plain, harnesses)
    if not args.from_scratch:
        dead = dead or replay(os.path.join(ROOT, "build/fuzz/asan/sgfuzz"), harnesses)[0]
    if dead:
        sys.exit(f"the tree without a planted bug fails: {dead}")
    covered = covered_lines()
    print(f"{'planted bug':30} {'reached':7} {'triggered':9} {'oracle':9} {'harness':8} by")
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        results = []
        for r in pool.map(lambda q: one(q, args, harnesses, base, covered), todo):
            results.append(r)
            print(show(r), flush=True)
    killed = [r for r in results if r["applies"] and r["killed"]]
    replayed = [r for r in killed if r["by"] == "replay"]
    how = spread([r["killed"][2] for r in killed]) if args.from_scratch else f"{len(replayed)} of them by replay"
    print(f"{len(killed)} of {len(results)} killed, {how}")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump(results, f, indent=1)
    if args.ablate:
        ablate(results, harnesses, args.jobs)
    if args.scratch:
        scratch([q for q, r in zip(todo, results) if r["applies"]], harnesses, args.scratch,
                args.jobs)
    if not all(r["applies"] for r in results):
        return 1
    return 0 if args.only or len(killed) >= KILLS else 1


if __name__ == "__main__":
    sys.exit(main())
