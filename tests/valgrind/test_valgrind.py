"""Memcheck's verdicts on a program that uses spanguard are those it gives with glibc.

errors.cc makes one error per run. It is run under Memcheck twice: with libc's malloc,
which Memcheck replaces, and with spanguard preloaded and left in place, which tells
Memcheck of its objects by client requests (hardening/valgrind.h). Kinds of errors,
what the address is said to be, and the sums of the leak search must be equal, and so
must be the silence of the same program without the error.
"""
import pathlib
import re
import shutil

import pytest

HERE = pathlib.Path(__file__).resolve().parent
LEAKS = ["definitely lost", "indirectly lost", "possibly lost", "still reachable"]
KINDS = ["over-read", "over-write", "under-read", "under-write", "after-read", "after-write", "free-twice", "free-inner",
         "pair-new-free", "pair-malloc-delete", "pair-array-delete", "undefined-malloc", "undefined-realloc",
         "definite", "possible", "reachable"]
SIZES = [100, 100_000]
VALGRIND = ["valgrind", "--leak-check=full", "--show-leak-kinds=all", "--error-exitcode=0", "--num-callers=20"]
OURS = ["--soname-synonyms=somalloc=nouserintercepts"]

# what each kind must be: the test would prove nothing if both sides were silent
ERROR = {"over-read": "Invalid read", "under-read": "Invalid read", "after-read": "Invalid read",
         "over-write": "Invalid write", "under-write": "Invalid write", "after-write": "Invalid write",
         "free-twice": "Invalid free", "free-inner": "Invalid free", "pair-new-free": "Mismatched free",
         "pair-malloc-delete": "Mismatched free", "pair-array-delete": "Mismatched free",
         "undefined-malloc": "Conditional jump", "undefined-realloc": "Conditional jump",
         "definite": "definitely lost", "possible": "possibly lost", "reachable": "still reachable"}

pytestmark = pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")


@pytest.fixture(scope="session")
def errors(build):
    return build(HERE / "errors.cc", "-g", "-O1", "-fno-builtin", "-w")


def verdict(done):
    """Kind of error, place, function that made it; and the leak sums."""
    text = re.sub(r"^==\d+==ERROR: spanguard: alloc-dealloc-mismatch", "Mismatched free(), says spanguard", done.err,
                  flags=re.M)
    text = re.sub(r"^==\d+== ?", "", text, flags=re.M)
    kinds = re.findall(r"^(Invalid read|Invalid write|Invalid free|Mismatched free|Conditional jump|ERROR: spanguard)",
                       text, re.M)
    places = [place for place in re.findall(r"^ Address 0x[0-9a-f]+ is (.*)$", text, re.M)
              if not any(kind.startswith(("Invalid free", "Mismatched")) for kind in kinds)]
    offenders = set(re.findall(r"(?:at|by) 0x[0-9A-F]+: (offend_\w+)", text))
    leaks = {kind: re.search(rf"{kind}: ([\d,]+) bytes in ([\d,]+) blocks", text) for kind in LEAKS}
    return kinds, places, offenders, {kind: found and found.groups() for kind, found in leaks.items()}


def both(run, errors, library, *args):
    libc = run([*VALGRIND, errors, *args], timeout=120)
    ours = run([*VALGRIND, *OURS, errors, *args], env={"LD_PRELOAD": str(library)}, timeout=120)
    for done in (libc, ours):
        assert done.status == 0 and done.out == "end\n", done
    return libc, ours


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_same_verdict(run, errors, library, kind, size):
    libc, ours = both(run, errors, library, kind, size)
    want, have = verdict(libc), verdict(ours)
    if kind in LEAK_KINDS:
        assert int(want[3][ERROR[kind]][0].replace(",", "")) >= size, libc
    else:
        assert want[0] == [ERROR[kind]] and want[2], libc
    if kind == "definite":
        # Memcheck takes every mapping it has not made itself for roots: what a lost block points to is reachable
        lost, indirect = want[3]["definitely lost"], want[3]["indirectly lost"]
        assert (have[3]["definitely lost"], have[3]["still reachable"]) == (lost, indirect), f"{libc}\n{ours}"
        return
    if not kind.startswith("pair"):
        assert have == want, f"{libc}\n{ours}"
        return
    # no client request says which function allocated, so this one is told by spanguard
    assert have[0] == want[0] and have[3] == want[3], f"{libc}\n{ours}"


LEAK_KINDS = {"definite", "possible", "reachable"}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in {"reachable"}])
def test_silent(run, errors, library, kind, size):
    done = run([*VALGRIND, *OURS, errors, kind, size, "ok"], env={"LD_PRELOAD": str(library)}, timeout=120)
    assert done.status == 0 and done.out == "end\n", done
    kinds, places, _, leaks = verdict(done)
    assert (kinds, places) == ([], []), done
    lost = [leaks[kind] for kind in LEAKS[:3] if leaks[kind] is not None]
    assert all(found == ("0", "0") for found in lost), done


def test_switched_off(run, errors, library):
    """valgrind=0: Memcheck hears nothing of objects, and spanguard sees to its own."""
    done = run([*VALGRIND, *OURS, errors, "free-twice", 100], timeout=120,
               env={"LD_PRELOAD": str(library), "SPANGUARD_OPTIONS": "valgrind=0"})
    assert "attempting double-free" in done.err and "Invalid free" not in done.err, done


def test_a_real_program(run, library):
    """Nothing to be said of perl that is not said with libc."""
    script = "my %h = map { $_ => [1 .. $_ % 7] } 1 .. 300; print join(',', sort { $a <=> $b } keys %h), qq(\\n)"
    tool = ["valgrind", "-q", "--error-exitcode=9", *OURS]
    done = run([*tool, "/usr/bin/perl", "-e", script], env={"LD_PRELOAD": str(library), "PERL_HASH_SEED": "1"}, timeout=200)
    assert done.status == 0 and done.err == "", done
    assert done.out.startswith("1,2,3,"), done
