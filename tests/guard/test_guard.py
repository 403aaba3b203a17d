"""Guard mode: every class of error, at the access where a guard can stop it.

bug.c and bug.cc make one mistake per run; the report must name the right error, the
right object, read or write and its length, the function that allocated it and the
one that freed it. The same program without the mistake must be silent. life.c does
what a program may do, live.c counts mappings.
"""
import pathlib
import re
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE.parent / "real"))
import workloads        # noqa: E402

SIZES = [1, 13, 41, 255, 4097, 33333, 200001, 1 << 20]
LANGUAGES = ["c", "c++"]
THREADS = [1, 8]


@pytest.fixture(scope="session")
def bug(build):
    return {"c": build(HERE / "bug.c", "-g", "-O1", "-pthread"),
            "c++": build(HERE / "bug.cc", "-g", "-O1", "-pthread")}


@pytest.fixture(scope="session")
def life(build):
    return build(HERE / "life.c", "-g", "-O1", "-pthread")


@pytest.fixture(scope="session")
def live(build):
    return build(HERE / "live.c", "-g", "-O1")


@pytest.fixture(scope="session")
def leak(build, library):
    return build(HERE / "leak.c", "-g", "-O1", f"-I{ROOT / 'include'}", libs=(f"-L{library.parent}", "-lspanguard",
                                                                              f"-Wl,-rpath,{library.parent}"))


@pytest.fixture
def guard(library):
    def environment(options=""):
        return {"LD_PRELOAD": str(library),
                "SPANGUARD_OPTIONS": "mode=guard" + (":" + options if options else "")}
    return environment


def announced(done):
    found = re.search(r"^ADDR (0x[0-9a-f]+) BASE (0x[0-9a-f]+) BYTES (\d+)$", done.out, re.M)
    assert found, done
    return found[1], found[2], int(found[3])


def histories(said, program):
    """{"allocated": [functions], "freed": [...]} of the object's life."""
    found = {}
    for head, body in re.findall(r"^((?:freed|previously allocated|allocated) by thread .*here:)\n"
                                 r"((?:    #.*\n)+)", said.text, re.M):
        probe = type(said)(said.text)
        probe.frames = [(m, int(o, 16)) for m, o in re.findall(
            r"^    #\d+ 0x[0-9a-f]+ (?:in \S+ )?\((.*?)\+0x([0-9a-f]+)\)", body, re.M)]
        found["freed" if head.startswith("freed") else "allocated"] = probe.functions(program)
    return found


def commas(n):
    return f"{n:,}"


def check_life(said, program, freed):
    found = histories(said, program)
    assert found["allocated"][0] == "make_object", said.text
    assert ("freed" in found) == freed, said.text
    if freed:
        assert found["freed"][0] == "release_object", said.text


# ---------------------------------------------------------------- the access itself

ACCESS = {
    "over": ("heap-buffer-overflow", "right", "0 bytes after"),
    "under": ("heap-buffer-underflow", "left", "1 byte before"),
    "after": ("heap-use-after-free", "right", None),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ACCESS)
@pytest.mark.parametrize("access", ["read", "write"])
@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_access(run, report, bug, guard, language, threads, access, kind, size):
    title, side, where = ACCESS[kind]
    done = run([bug[language], f"{kind}-{access}", size, threads],
               env=guard(f"guard_align=1:guard_side={side}"))
    said = report(done)
    address, base, bytes_ = announced(done)
    assert bytes_ == size
    assert said.what.startswith(f"{title} on address {address} at pc "), said.text
    assert re.search(rf"^{access.upper()} of size 1 at {address} thread T0 \(", said.text, re.M), said.text
    assert said.functions(bug[language])[0] == f"offend_{access}", said.text
    if where is None:
        inside = commas(size // 2)
        where = f"{inside} byte{'' if inside == '1' else 's'} inside of"
    assert f"{address} is located {where} {size}-byte region [{base}," in said.text, said.text
    check_life(said, bug[language], freed=kind == "after")


@pytest.mark.parametrize("size", [n for n in SIZES if n % 16])
@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_byte_of_alignment(run, report, bug, guard, language, threads, size):
    """The default alignment leaves bytes before the guard: seen when the object is freed."""
    done = run([bug[language], "late", size, threads], env=guard())
    said = report(done)
    _, base, _ = announced(done)
    assert said.what.startswith(f"heap-buffer-overflow detected at free on address {base} "), said.text
    assert f"offset {size}: 0x01 (expected 0x" in said.text, said.text
    assert said.functions(bug[language])[0] == "release_object", said.text
    check_life(said, bug[language], freed=False)


@pytest.mark.parametrize("size", [n for n in SIZES if n % 16])
@pytest.mark.parametrize("language", LANGUAGES)
def test_byte_of_alignment_of_a_live_object(run, report, bug, guard, language, size):
    """The same in an object that is never freed: seen when the program ends."""
    done = run([bug[language], "kept", size, 1], env=guard())
    _, base, _ = announced(done)
    assert done.err.startswith(f"spanguard: verify: invariant slack is broken at {base}\n"), done
    assert re.search(f"^==\\d+==ERROR: spanguard: heap-buffer-overflow detected .* on address {base} ", done.err, re.M), done
    assert f"offset {size}: 0x01 (expected 0x" in done.err and done.status == -6, done
    silent = run([bug[language], "kept", size, 1, "ok"], env=guard())
    assert silent.status == 0 and silent.err == "", silent


# ---------------------------------------------------------------- wrong calls

FREES = {
    "twice": ("attempting double-free on {base} ", "offend_free", True),
    "inner": ("attempting free on address which was not malloc()-ed: {address}, 1 byte inside", "offend_free", False),
    "resize": ("attempting realloc on freed pointer {base} ", "offend_resize", None),
}


@pytest.mark.parametrize("size", [n for n in SIZES if n > 1])
@pytest.mark.parametrize("kind", FREES)
@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_wrong_free(run, report, bug, guard, language, threads, kind, size):
    title, function, freed = FREES[kind]
    done = run([bug[language], kind, size, threads], env=guard())
    said = report(done)
    address, base, _ = announced(done)
    assert said.what.startswith(title.format(base=base, address=address)), said.text
    assert said.functions(bug[language])[0] == function, said.text
    if freed is not None:
        check_life(said, bug[language], freed)


@pytest.mark.parametrize("size", SIZES)
def test_wrong_function(run, report, bug, guard, size):
    done = run([bug["c++"], "wrong", size, 1], env=guard())
    said = report(done)
    assert said.what.startswith("alloc-dealloc-mismatch (operator new [] vs operator delete)"), said.text
    assert said.functions(bug["c++"])[0] == "offend_wrong", said.text
    check_life(said, bug["c++"], freed=False)


@pytest.mark.parametrize("size", SIZES)
def test_wrong_size(run, report, bug, guard, size):
    done = run([bug["c++"], "sized", size, 1], env=guard())
    said = report(done)
    assert said.what.startswith("new-delete-type-mismatch on "), said.text
    assert f"size the program says:    {commas(size + 1)} bytes" in said.text, said.text
    assert said.functions(bug["c++"])[0] == "offend_sized", said.text
    check_life(said, bug["c++"], freed=False)


def test_no_bytes(run, report, bug, guard):
    for side in "right", "left":
        done = run([bug["c"], "over-read", 0, 1], env=guard(f"guard_side={side}"))
        said = report(done)
        address, base, _ = announced(done)
        assert said.what.startswith(f"access to a zero-size object on address {address} at pc "), said.text
        assert f"{address} is located 0 bytes inside of 0-byte region [{base},{base})" in said.text
        check_life(said, bug["c"], freed=False)


# ---------------------------------------------------------------- and nothing else

KINDS = ["over-read", "over-write", "under-read", "under-write", "after-read", "after-write", "late", "twice",
         "inner", "resize"]


@pytest.mark.parametrize("options", ["", "guard_align=1", "guard_side=left", "guards=mprotect"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_silence(run, bug, guard, language, options):
    kinds = KINDS + (["wrong", "sized"] if language == "c++" else [])
    for kind in kinds:
        for size in SIZES:
            done = run([bug[language], kind, size, 3, "ok"], env=guard(options))
            assert done.clean().endswith("fine\n"), done


@pytest.mark.parametrize("options", [
    "", "guard_side=left", "guard_quarantine_bytes=0", "guard_quarantine_bytes=1m:guard_align=16", "verify_every=500",
    "guard_quarantine_bytes=64k:guards=mprotect:guard_vma_percent=90"])
def test_life(run, life, guard, options):
    done = run([life], env=guard(":".join(filter(None, [options, "stack_depth=6"]))), timeout=240)
    assert done.status == 0 and done.out == "fine\n", done
    assert all("guard" in line for line in done.err.splitlines()), done


# ---------------------------------------------------------------- going on

@pytest.mark.parametrize("kind", ["over-read", "over-write", "after-read", "after-write", "late"])
def test_goes_on(run, bug, guard, kind):
    done = run([bug["c"], kind, 41, 1], env=guard("guard_align=16:halt_on_error=0" if kind == "late" else
                                                  "guard_align=1:halt_on_error=0"))
    assert done.out.endswith("fine\n"), done
    assert done.err.count("==ERROR: spanguard: ") == 1, done
    assert "==GOING ON" in done.err, done


# ---------------------------------------------------------------- leaks

@pytest.mark.parametrize("options", ["", "guard_align=1", "guard_side=left", "guard_align=8:guards=mprotect"])
def test_leaks(run, leak, guard, options):
    env = guard(":".join(filter(None, [options, "leak_check=1"])))
    done = run([leak, 5000], env=env)
    assert done.out == "marks agree: 0\n", done
    node = 48
    assert re.search(rf"^Direct leak of {node} byte\(s\) in 1 object\(s\) allocated from:", done.err, re.M), done
    assert re.search(rf"^Indirect leak of {node} byte\(s\) in 1 object\(s\) allocated from:", done.err, re.M), done
    assert re.search(r"^Direct leak of 77 byte\(s\) in 1 object\(s\) allocated from:", done.err, re.M), done
    assert done.err.count(" leak of ") == 3, done
    assert f"SUMMARY: spanguard: {2 * node + 77} byte(s) leaked in 3 allocation(s)." in done.err, done


# ---------------------------------------------------------------- a million, and too few

def facts(done):
    assert done.status == 0, done
    first = re.search(r"^mappings (\d+) KiB (\d+)$", done.out, re.M)
    last = re.findall(r"^mappings (\d+)$", done.out, re.M)
    return int(first[1]), int(first[2]), int(last[-1])


def test_a_million(run, live, guard):
    n = 1000000
    done = run([live, n], env=guard("stack_depth=0"), timeout=300)
    assert done.err == "", done
    full, kib, after = facts(done)
    assert full < 100 and after < 100, done
    assert kib / n < 4.4, done


def test_budget_of_mappings(run, live, guard):
    done = run([live, 20000], env=guard("guards=mprotect:guard_vma_percent=5:stack_depth=0"))
    full, _, after = facts(done)
    limit = int(pathlib.Path("/proc/sys/vm/max_map_count").read_text()) * 5 // 100
    assert limit // 2 < full <= limit + 20 and after <= limit + 20, done
    without = re.search(r"^spanguard: warning: ([\d,]+) objects went without a guard", done.err, re.M)
    assert without, done
    guarded = 20000 - int(without[1].replace(",", ""))
    assert limit // 2 - 200 < guarded <= limit // 2, done


# ---------------------------------------------------------------- real programs

@pytest.mark.parametrize("name", ["sqlite3", "git", "perl", "gcc", "g++", "python3", "redis", "node"])
def test_program(library, scratch, name):
    if workloads.missing(name):
        pytest.skip("not installed: " + ", ".join(workloads.missing(name)))
    def facts_on(env):
        directory = scratch / ("ours" if env else "libc")
        directory.mkdir()
        place = workloads.Place(directory, env)
        return [(label, str(value).replace(str(directory), "DIR"))
                for label, value in workloads.WORKLOADS[name][0](place)]
    want = facts_on({})
    have = facts_on({"LD_PRELOAD": str(library), "SPANGUARD_OPTIONS": "mode=guard"})
    assert not any("spanguard:" in value for _, value in have), have
    assert workloads.differences(want, have) == []
