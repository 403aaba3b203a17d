"""How well placements can be guessed, measured on the finished library from outside.

randomness.c draws and counts; the figures are judged here. `python3 test_randomness.py [MODE]` prints the table
that doc/security.md quotes, for every size class, with $SPANGUARD_LIB or build/libspanguard.so.
"""
import math
import os
import pathlib
import re
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent

DRAWS = 1_000_000             # strict draws in the same way, and its calls cost more: fewer
DRAWS_STRICT = 20_000
CLASSES = [16, 64, 144, 256, 1024, 4096, 32768]       # bytes per slot
MANY = [16, 64, 144, 192, 256]                        # classes of at least 64 slots
RUNS = 5_000
RUNS_STRICT = 1_000
LIMIT = 0.02


@pytest.fixture(scope="session")
def program(build):
    return build(HERE / "randomness.c", "-O2", "-pthread")


@pytest.fixture
def facts(run, program, mode, unsampled):
    """Runs one experiment: its lines as (first word, {key: value}, numbers)."""
    def measure(*args, options=""):
        done = run([program, *args], mode, options=":".join(filter(None, (unsampled, options))), timeout=300)
        return parse(done.clean())
    return measure


def parse(text):
    rows = []
    for line in text.splitlines():
        name, *words = line.split()
        pairs = dict(w.split("=", 1) for w in words if "=" in w)
        rows.append((name, pairs, [int(w) for w in words if "=" not in w]))
    return rows


def request_of(elem, mode_name):
    """The largest request that gets this slot: strict keeps eight bytes for the canary."""
    return elem - 8 if mode_name == "strict" else elem


def runs_of(mode):
    return RUNS if mode.name == "hardened" else RUNS_STRICT


def slots_of(classes, elem):
    return next(slots for bytes_, _, slots in classes if bytes_ == elem)


def window_of(elem, slots, window_bytes=128 << 10):
    """As doc/architecture.md says: at most 64 slots, at most window_bytes, at least 8."""
    return min(64, slots, max(8, window_bytes // elem))


def min_entropy(counts):
    return -math.log2(max(counts) / sum(counts))


def collision_entropy(counts):
    """Of order 2, by the estimator without bias."""
    n = sum(counts)
    return -math.log2(sum(c * (c - 1) for c in counts) / (n * (n - 1)))


def chi_square_sigmas(counts):
    """How far from uniform, in standard deviations: by the cube root of Wilson and Hilferty, which is close to normal
    far out, where the statistic itself is not (6 of its own deviations come once in 400,000 with 34 degrees)."""
    expected = sum(counts) / len(counts)
    chi = sum((c - expected) ** 2 for c in counts) / expected
    free = len(counts) - 1
    return ((chi / free) ** (1 / 3) - (1 - 2 / (9 * free))) / math.sqrt(2 / (9 * free))


# ---------------------------------------------------------------- the choice

@pytest.mark.parametrize("elem", CLASSES)
def test_choice_is_uniform(facts, classes, mode, elem):
    """Of the k slots that a window still has, each is as likely as any other: for every k."""
    slots = slots_of(classes, elem)
    window = window_of(elem, slots)
    draws = DRAWS if mode.name == "hardened" else DRAWS_STRICT
    rows = facts("choice", request_of(elem, mode.name), slots, window, draws)
    ranks = {int(pairs["free"]): counts for name, pairs, counts in rows if name == "rank"}
    assert sum(ranks[window]) >= draws
    for free, counts in ranks.items():
        assert sum(counts) > 1000, f"only {sum(counts)} draws from {free}"
        # the most frequent of k uniform counts lies this far above their mean
        noise = math.log2(1 + 5 / math.sqrt(sum(counts) / free))
        assert min_entropy(counts) > math.log2(free) - max(0.1, noise), free
        if free > 1:
            assert chi_square_sigmas(counts) < 6, free
    if draws == DRAWS:
        assert min_entropy(ranks[window]) > math.log2(window) - 0.1


@pytest.mark.parametrize("elem", CLASSES)
def test_first_slot_of_a_span(facts, classes, mode, elem):
    """Where the first object of a new span lies: any of its slots."""
    slots = slots_of(classes, elem)
    rows = facts("choice", request_of(elem, mode.name), slots, window_of(elem, slots), DRAWS // 4 if mode.name == "hardened" else DRAWS_STRICT)
    first = next(counts for name, _, counts in rows if name == "first")
    assert sum(first) > 1000
    draws = sum(first)
    pairs = 5 * math.sqrt(2 * slots) / draws                    # five standard deviations of the share of equal pairs
    assert collision_entropy(first) > math.log2(slots) - max(0.15, math.log2(1 + pairs))
    words = [first[i:i + 64] for i in range(0, slots, 64)]
    busiest = max(sum(word) / draws * slots / len(word) for word in words)
    least = min(len(word) for word in words)                    # the shortest has the most noise
    assert busiest < max(1.27, 1 + 5 * math.sqrt(slots / least / draws)), "some 64 slots are preferred"


# ---------------------------------------------------------------- seeds

def test_seed_repeats(run, program, mode):
    """seed=N: two processes place everything at the same addresses."""
    first, second, other = (run([program, "place", 48, 3000], mode, options=f"seed={n}").clean() for n in (77, 77, 78))
    assert first == second
    assert first != other


def test_no_seed_does_not_repeat(run, program, mode):
    runs = {run([program, "place", 48, 3000], mode).clean() for _ in range(8)}
    assert len(runs) == 8


def test_threads_are_independent(facts):
    """The order in which one thread's window was drawn says nothing about another's."""
    _, pairs, _ = facts("threads", 1500, 2000)[0]
    share, expected = int(pairs["same"]) / int(pairs["of"]), float(pairs["expected"])
    sigma = math.sqrt(expected * (1 - expected) / int(pairs["of"]))
    assert abs(share - expected) < 6 * sigma, (share, expected)


@pytest.mark.parametrize("elem", [16, 64, 256])
def test_children_are_independent(facts, classes, mode, elem):
    """Two children of one parent: what one is given does not tell what the other is given. A window is drawn anew
    from what the parent's had left, at least half of it here."""
    request = request_of(elem, mode.name)
    _, pairs, _ = facts("fork", request, 20)[0]
    share = int(pairs["same"]) / int(pairs["of"])
    assert share < 0.15, f"{share:.3f} of a child's choices are its sibling's"


# ---------------------------------------------------------------- neighbours and reuse

@pytest.mark.parametrize("elem", MANY)
def test_adjacent_pairs(facts, classes, mode, elem):
    """No two of the first 64 objects are neighbours in more than 2 % of runs. Among n slots of which each is as
    likely, two are neighbours with 2/n; five standard deviations are left for the most frequent of 2,016 pairs."""
    slots = slots_of(classes, elem)
    runs = runs_of(mode)
    _, pairs, _ = facts("adjacent", request_of(elem, mode.name), slots, runs)[0]
    share, mean = int(pairs["most"]) / runs, float(pairs["mean"])
    noise = 5 * math.sqrt(LIMIT / runs)
    assert mean <= LIMIT, f"pairs are neighbours in {mean:.2%} of runs on average, the most frequent in {share:.2%}"
    assert share <= LIMIT + noise


@pytest.mark.parametrize("how", ["one", "churn", "all"])
@pytest.mark.parametrize("elem", MANY)
def test_reuse_is_unpredictable(facts, classes, mode, elem, how):
    """No single later allocation gets a freed slot in more than 2 % of runs."""
    slots = slots_of(classes, elem)
    runs = runs_of(mode) if how != "one" else runs_of(mode) // 5
    _, pairs, _ = facts("after-free", request_of(elem, mode.name), slots, runs, how)[0]
    noise = 5 * math.sqrt(LIMIT / runs)
    assert int(pairs["most"]) / runs <= LIMIT + noise, pairs
    if how == "one":
        assert int(pairs["reused"]) == 0, pairs


@pytest.mark.parametrize("elem", MANY)
def test_reuse_when_a_share_is_freed(facts, classes, mode, elem):
    """The least that makes a span worth a sweep, freed by somebody who knows where it is: each of the slots freed
    is then as likely. doc/security.md quotes the figure."""
    slots = slots_of(classes, elem)
    runs = runs_of(mode)
    _, pairs, _ = facts("after-free", request_of(elem, mode.name), slots, runs, "share")[0]
    chance = 1 / min(64, math.ceil(slots / 4))
    assert int(pairs["most"]) / runs <= chance + 5 * math.sqrt(chance / runs), pairs


@pytest.mark.parametrize("elem", MANY)
def test_reuse_is_late(facts, classes, mode, elem):
    """Typically a freed slot comes back after more allocations than its span's sweep waits for frees."""
    slots = slots_of(classes, elem)
    rows = {pairs["pattern"]: pairs for _, pairs, _ in facts("reuse", request_of(elem, mode.name), slots)}
    assert int(rows["pair"]["median"]) >= slots / 4, rows
    assert int(rows["churn"]["median"]) >= slots / 4, rows


def documented(elem):
    """The last column of the row of a class in doc/security.md: how often the slot has a new owner when 256 allocations
    have followed the free, in a heap that is in use: malloc and free in turns, and churn. As shares."""
    text = (HERE.parent.parent / "doc" / "security.md").read_text()
    row = next(line for line in text.split("\n") if line.startswith(f"| {elem:,} | "))
    return [int(share) / 100 for share in re.findall(r"(\d+) %", row.split("|")[-2])]


@pytest.mark.parametrize("elem", [16, 64, 144, 256, 1024, 4096])
def test_late_double_free_as_documented(facts, classes, mode, elem):
    """The chance that doc/security.md states for a late double free is the one there is. One seed: the times a slot
    is seen again depend on each other, so that the bound below is no bound of what other seeds give."""
    slots = slots_of(classes, elem)
    rows = {pairs["pattern"]: pairs
            for _, pairs, _ in facts("reuse", request_of(elem, mode.name), slots, options="seed=1")}
    for how, share in zip(("pair", "churn"), documented(elem)):
        found = int(rows[how]["within256"]) / int(rows[how]["seen"])
        assert abs(found - share) < 0.02 + 5 * math.sqrt(share * (1 - share) / 500), f"{how}: {found:.1%}, documented {share:.0%}"


@pytest.mark.parametrize("elem", [16, 256, 4096])
def test_late_double_free_alone(facts, classes, mode, elem):
    """When nothing else is freed, 4,096 allocations do not bring the slot back: the second free is always seen."""
    _, pairs, _ = facts("after-free", request_of(elem, mode.name), slots_of(classes, elem), 50, "one")[0]
    assert int(pairs["reused"]) == 0, pairs


# ---------------------------------------------------------------- the table of doc/security.md

SMALL_MAX_BYTES = 32768


def table(mode_name):
    root = HERE.parent.parent
    library = os.environ.get("SPANGUARD_LIB", root / "build" / "libspanguard.so")
    binary = pathlib.Path(os.environ.get("TMPDIR", "/tmp")) / f"spanguard-randomness-{os.getpid()}"
    subprocess.run(["gcc", "-O2", "-pthread", "-o", binary, HERE / "randomness.c"], check=True)

    def measure(*args):
        done = subprocess.run([binary, *map(str, args)], capture_output=True, text=True, check=True,
                              env={"LD_PRELOAD": str(library), "SPANGUARD_OPTIONS": f"mode={mode_name}:sample=0"})
        return parse(done.stdout)

    rows = re.findall(r"^ \* +\d+ +(\d+) +\d+ +\d+ +(\d+) +\d+ +[\d.]+% ", (root / "src" / "sizeclasses.h").read_text(),
                      re.M)
    print("| bytes per slot | slots per span | window | bits, one choice | bits, first slot of a span | "
          "pair: min / median | churn: min / 10 % / median | 2nd free meets a new owner: pair, churn |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    try:
        for elem, slots in ((int(a), int(b)) for a, b in rows):
            request, window = request_of(elem, mode_name), window_of(elem, slots)
            if request > SMALL_MAX_BYTES:       # the class that only a canary's tail leads to
                continue
            choice = measure("choice", request, slots, window, 40_000)
            rank = next(c for name, pairs, c in choice if name == "rank" and pairs["free"] == str(window))
            first = next(c for name, _, c in choice if name == "first")
            reuse = {pairs["pattern"]: {k: v for k, v in pairs.items() if k != "pattern"}
                     for _, pairs, _ in measure("reuse", request, slots)}
            pair, churn = ({k: int(v) for k, v in reuse[p].items()} for p in ("pair", "churn"))
            late = {how: int(reuse[how]["within256"]) / int(reuse[how]["seen"]) for how in ("pair", "churn")}
            print(f"| {elem:,} | {slots:,} | {window} | {collision_entropy(rank):.2f} | {collision_entropy(first):.2f} "
                  f"| {pair['min']} / {pair['median']} | {churn['min']} / {churn['p10']} / {churn['median']} "
                  f"| {100 * late['pair']:.0f} %, {100 * late['churn']:.0f} % |", flush=True)
    finally:
        binary.unlink()


if __name__ == "__main__":
    table(sys.argv[1] if len(sys.argv) > 1 else "hardened")
