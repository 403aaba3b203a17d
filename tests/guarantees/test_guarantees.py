"""The table of guarantees of doc/security.md, a death test for each cell.

bug.c and bug.cc, compiled without any special flag (-g only tells this test which
function the report's module+offset belongs to), make one mistake per run; wild.c
damages the allocator's metadata. A cell that promises a report is tested for
signal, sentence, address and function; the same steps without the mistake must be
silent. A cell that promises none is tested too: the program goes on, its metadata
agrees with itself, and no two live objects overlap.

Every test's id begins with its row, so that -k picks one: double-free,
double-free-late, bad-pointer, sized, slot-overflow, large-overflow, span-overflow,
write-after-free, parked-access, stale-data, zero-size, sampled, metadata.
"""
import pathlib
import re

import pytest

HERE = pathlib.Path(__file__).resolve().parent

SMALL = [8, 100, 4096]
LARGE = [256 << 10]
SIZES = SMALL + LARGE
LANGUAGES = ["c", "c++"]


def cells(row, variants, sizes, languages=LANGUAGES):
    """Rows of (language, variant, size) with readable ids."""
    return [pytest.param(language, variant, size, id=f"{row}-{variant.replace('/', '-')}-{size}-{language}")
            for variant in variants for size in sizes for language in languages]


@pytest.fixture(scope="session")
def bug(build):
    programs = {"c": build(HERE / "bug.c", "-g", "-pthread"), "c++": build(HERE / "bug.cc", "-g", "-pthread")}
    return programs.__getitem__


@pytest.fixture(scope="session")
def wild(build):
    return build(HERE / "wild.c", "-g")


# ---------------------------------------------------------------- what a run said

def announced(done):
    """The address and the usable size that the program printed before its mistake."""
    found = re.search(r"^ADDR 0x([0-9a-f]+) USABLE (\d+)$", done.out, re.M)
    assert found, done
    return int(found[1], 16), int(found[2])


def check_stack(said, program, function):
    """The program's own frames, `function` among the first."""
    own = said.functions(program)
    assert function in own[:4], f"{own}\n{said.text}"
    assert own[-1] in ("main", "thread_offend", "_start"), f"{own}\n{said.text}"


def goes_on(done):
    """Nothing stopped it, and nothing is damaged."""
    assert done.status == 0, done
    assert done.err == "", done
    assert done.out.endswith("undamaged\n"), done


def stopped_share(done):
    """How many of its children were stopped, as a share; the others were undamaged."""
    assert done.status == 0, done
    found = re.search(r"^STOPPED (\d+) OF (\d+)$", done.out, re.M)
    assert found, done
    return int(found[1]) / int(found[2])


# kinds of wrong pointers and what their address line says; calls, and what they call themselves
WHERE = {"stack": "is on the stack of ", "global": "is in the .data of ", "foreign": "is in a foreign anonymous mapping",
         "wild": "is not mapped", "interior": " inside of ", "misaligned": " inside of ", "freed": ""}
CALLS = {"free": "free", "realloc": "realloc", "usable": "malloc_usable_size"}


# ---------------------------------------------------------------- without the mistake

SILENT = (
    cells("double-free", ["same", "two", "dead", "gone", "lent", "strangers"], SIZES)
    + cells("double-free-late", ["held", "churn"], SIZES)
    + cells("bad-pointer", [f"{kind}/{call}" for kind in WHERE for call in CALLS], SIZES)
    + cells("sized", ["size", "align"], SIZES)
    + cells("slot-overflow", [f"{n}/{when}" for n in (1, 8, 32) for when in ("free", "verify", "retire")], SMALL)
    + cells("large-overflow", ["over/read", "over/write", "under/read", "under/write"], [40000, 256 << 10])
    + cells("span-overflow", ["read", "write"], SMALL)
    + cells("write-after-free", ["reuse", "verify", "retire"], SIZES)
    + cells("parked-access", ["read", "write"], SIZES)
    + cells("stale-data", ["any"], SIZES)
    + cells("zero-size", ["malloc/write", "calloc/write", "aligned/write", "realloc/write"], [0], ["c"])
    + cells("zero-size", ["new/write", "new-array/write"], [0], ["c++"])
    + cells("sampled", ["over/write", "under/write", "after/write"], SMALL)
)


@pytest.mark.parametrize("language,variant,size", SILENT)
def test_silent(request, run, bug, mode, language, variant, size):
    row = row_of(request)
    goes_on(run([bug(language), row, variant, size, "ok"], mode, options="sample=1" if row == "sampled" else ""))


ROWS = ["sampled", "double-free-late", "double-free", "bad-pointer", "sized", "slot-overflow", "large-overflow", "span-overflow",
        "write-after-free", "parked-access", "stale-data", "zero-size"]


def row_of(request):
    """The row whose name is in the test's id; of two, the longer."""
    return next(row for row in ROWS if row in request.node.callspec.id)


# ---------------------------------------------------------------- double free

def check_double(said, address, language):
    assert said.what.startswith(f"attempting double-free on {address:#x} "), said.text
    assert said.api == ("free" if language == "c" else "operator delete"), said.text


@pytest.mark.parametrize("language,variant,size", cells("double-free", ["same", "two", "dead", "gone", "lent", "strangers"], SIZES))
def test_double_free(run, report, bug, mode, language, variant, size):
    """At the call, whoever freed first and whether or not the owner lives."""
    done = run([bug(language), "double-free", variant, size], mode)
    said = report(done)
    check_double(said, announced(done)[0], language)
    check_stack(said, bug(language), "offend_free")


@pytest.mark.parametrize("language,variant,size", cells("double-free-late", ["held", "churn"], SIZES))
def test_double_free_late(run, report, bug, mode, language, variant, size):
    """300 allocations later: seen at the call if the slot has no new owner; else it is the new owner's own free
    that is one too many. How often a slot has one by then is measured in test_randomness.py. Under churn the span
    may be gone and something else be there: then the address is no object's, or lies inside of one."""
    done = run([bug(language), "double-free-late", variant, size], mode)
    said = report(done)
    address, _ = announced(done)
    if variant == "held" or said.what.startswith("attempting double-free"):
        check_double(said, address, language)
    else:
        assert said.what.startswith(f"attempting free on address which was not malloc()-ed: {address:#x}"), said.text
    reused = re.search(r"^REUSED (\d)$", done.out, re.M)[1] == "1"
    check_stack(said, bug(language), "victim_free" if reused else "offend_free")


# ---------------------------------------------------------------- pointers that are not right

KINDS = [f"{kind}/{call}" for kind in WHERE for call in CALLS]


@pytest.mark.parametrize("language,variant,size", cells("bad-pointer", KINDS, SIZES))
def test_bad_pointer(run, report, bug, mode, language, variant, size):
    kind, call = variant.split("/")
    done = run([bug(language), "bad-pointer", variant, size], mode)
    said = report(done)
    address, _ = announced(done)
    api = "operator delete" if (language, call) == ("c++", "free") else CALLS[call]
    assert said.api == api, said.text
    if kind == "freed" and call == "free":
        want = f"attempting double-free on {address:#x} "
    elif kind == "freed":
        want = f"attempting {api} on freed pointer {address:#x} "
    else:
        verb = "free" if call == "free" else api
        want = f"attempting {verb} on address which was not malloc()-ed: {address:#x}"
    assert said.what.startswith(want), said.text
    assert re.search(rf"^{address:#x} .*{re.escape(WHERE[kind])}", said.text, re.M), said.text
    check_stack(said, bug(language), "offend")


@pytest.mark.parametrize("language,variant,size", cells("sized", ["size", "align"], SIZES))
def test_sized(run, report, bug, mode, language, variant, size):
    done = run([bug(language), "sized", variant, size], mode)
    said = report(done)
    address, _ = announced(done)
    kind = {"c": "free", "c++": "new-delete"}[language]
    what = {("c", "size"): "size", ("c++", "size"): "type"}.get((language, variant), "alignment")
    assert said.what.startswith(f"{kind}-{what}-mismatch on {address:#x} "), said.text
    said_size = f"{3 * size + 64:,} bytes" if variant == "size" else ""
    assert said_size in said.text, said.text
    check_stack(said, bug(language), "offend_sized")


# ---------------------------------------------------------------- overflow out of a slot

SLOT = [f"{n}/{when}" for n in (1, 8, 32) for when in ("free", "verify", "retire")]


@pytest.mark.parametrize("language,variant,size", cells("slot-overflow", SLOT, SMALL))
def test_slot_overflow_goes_on(run, bug, hardened, unsampled, language, variant, size):
    """hardened: the neighbour's bytes are lost; metadata is never reached."""
    goes_on(run([bug(language), "slot-overflow", variant, size], hardened, options=unsampled))


@pytest.mark.parametrize("language,variant,size", cells("slot-overflow", SLOT, SMALL))
def test_slot_overflow(run, report, bug, strict, language, variant, size):
    """strict: the canary is found changed, at free or when the heap is verified; the report shows the bytes."""
    done = run([bug(language), "slot-overflow", variant, size], strict)
    address, usable = announced(done)
    if variant.endswith("/verify"):
        check_verify(done, "CANARY-1", address, usable)
        return
    said = report(done)
    if variant.endswith("/retire"):
        # 32 bytes reach the canary of the next slot, too; which is looked at first is luck
        first = ("write-after-free detected", "heap-buffer-overflow detected at free")[:1 + variant.startswith("32")]
        assert said.what.startswith(first), said.text
        check_bytes(said)
        check_stack(said, bug(language), "notice_retire")
        return
    assert said.what.startswith("heap-buffer-overflow detected at free"), said.text
    assert any(address <= a < address + usable + 16 for a in said.addresses()), said.text
    check_bytes(said)
    check_stack(said, bug(language), "notice_free")


def check_bytes(said):
    """The report shows a changed byte as it was found and as it should be."""
    assert re.search(r"0xa5 \(expected 0x[0-9a-f]{2}\)", said.text), f"the changed bytes are not shown\n{said.text}"


def check_verify(done, tag, address, usable):
    """spanguard_verify() counted it and named the tag and a place within the slot. It does not end the program."""
    assert done.status == 42, done
    found = re.findall(rf"{tag}\b.* 0x([0-9a-f]+)", done.err)
    assert any(address <= int(a, 16) < address + usable + 16 for a in found), done
    assert "ERROR: spanguard" not in done.err, done


# ---------------------------------------------------------------- out of a large object, out of a span

TOUCH = ["over/read", "over/write", "under/read", "under/write"]
LARGE_SIZES = [40000, 256 << 10]


@pytest.mark.parametrize("language,variant,size", cells("large-overflow", TOUCH, LARGE_SIZES))
def test_large_overflow(run, report, bug, strict, language, variant, size):
    """strict: both sides, at the access."""
    done = run([bug(language), "large-overflow", variant, size], strict)
    said = report(done)
    address, _ = announced(done)
    kind = "overflow" if variant.startswith("over") else "underflow"
    assert said.what.startswith(f"heap-buffer-{kind} on address {address:#x}"), said.text
    check_stack(said, bug(language), "offend_touch")


@pytest.mark.parametrize("language,variant,size", cells("large-overflow", ["over/write/share", "over/read/share"], LARGE_SIZES))
def test_large_overflow_share(run, bug, hardened, unsampled, language, variant, size):
    """hardened: 1 in 8 has a guard behind it; the bounds are five standard deviations of 240 trials."""
    share = stopped_share(run([bug(language), "large-overflow", variant, size], hardened, options=unsampled))
    assert 1 / 8 - 0.107 < share < 1 / 8 + 0.107, share


@pytest.mark.parametrize("language,variant,size", cells("large-overflow", ["under/write/share", "under/read/share"], LARGE_SIZES))
def test_large_underflow_share(run, bug, hardened, unsampled, language, variant, size):
    """hardened: the byte before is behind something else, which has a guard once in 8 times at most."""
    share = stopped_share(run([bug(language), "large-overflow", variant, size], hardened, options=unsampled))
    assert share < 1 / 8 + 0.107, share


def span_bytes_of(classes, size):
    """A run of this many bytes from anywhere in a span leaves it."""
    return 1 + max(span for elem, span, _ in classes if size <= elem <= max(2 * size, 32))


@pytest.mark.parametrize("language,variant,size", cells("span-overflow", ["read", "write"], SMALL))
def test_span_overflow(run, report, bug, strict, classes, language, variant, size):
    """strict: a run out of the span is stopped at its end."""
    limit = span_bytes_of(classes, size)
    done = run([bug(language), "span-overflow", variant, size, limit], strict)
    said = report(done)
    address, _ = announced(done)
    assert said.what.startswith("heap-buffer-overflow on address "), said.text
    assert address < said.addresses()[0] <= address + limit, said.text
    check_stack(said, bug(language), "offend_run")


@pytest.mark.parametrize("language,variant,size", cells("span-overflow", ["read/share", "write/share"], SMALL))
def test_span_overflow_share(run, bug, hardened, unsampled, classes, language, variant, size):
    """hardened: at least the guard of one span in 8 is in the way, of several spans when the run is long."""
    limit = span_bytes_of(classes, size)
    share = stopped_share(run([bug(language), "span-overflow", variant, size, limit], hardened, options=unsampled))
    assert 0.02 < share < 0.6, share


# ---------------------------------------------------------------- after free

@pytest.mark.parametrize("language,variant,size",
                         cells("write-after-free", ["reuse", "verify", "retire"], SIZES))
def test_write_after_free_goes_on(run, bug, hardened, unsampled, language, variant, size):
    """hardened: the write lands in memory that nobody has yet."""
    goes_on(run([bug(language), "write-after-free", variant, size], hardened, options=unsampled))


@pytest.mark.parametrize("language,variant,size",
                         cells("write-after-free", ["reuse", "verify", "retire"], SMALL))
def test_write_after_free(run, report, bug, strict, language, variant, size):
    """strict: the freed slot is not zero any more when somebody looks, and the report shows the bytes."""
    done = run([bug(language), "write-after-free", variant, size], strict)
    address, usable = announced(done)
    if variant == "verify":
        check_verify(done, "ZERO-1", address, usable)
        return
    said = report(done)
    assert said.what.startswith("write-after-free detected"), said.text
    assert any(address <= a < address + usable for a in said.addresses()), said.text
    check_bytes(said)
    check_stack(said, bug(language), f"notice_{variant}")


@pytest.mark.parametrize("language,variant,size", cells("write-after-free", ["reuse", "verify", "retire"], LARGE))
def test_write_after_free_large(run, report, bug, strict, language, variant, size):
    """strict: a large object is parked when it is freed; the write itself is the report."""
    done = run([bug(language), "write-after-free", variant, size], strict)
    said = report(done)
    address, usable = announced(done)
    assert said.what.startswith("heap-use-after-free on address "), said.text
    assert address <= said.addresses()[0] < address + usable, said.text
    check_stack(said, bug(language), "offend_write")


@pytest.mark.parametrize("language,variant,size", cells("parked-access", ["read", "write"], SIZES))
def test_parked_access_goes_on(run, bug, hardened, unsampled, language, variant, size):
    """hardened: parked pages stay mapped, so that loops over large objects stay fast."""
    goes_on(run([bug(language), "parked-access", variant, size], hardened, options=unsampled))


@pytest.mark.parametrize("language,variant,size", cells("parked-access", ["read", "write"], SIZES))
def test_parked_access(run, report, bug, strict, language, variant, size):
    """strict: any touch of what is parked is a report at the access."""
    done = run([bug(language), "parked-access", variant, size], strict)
    said = report(done)
    low, high = (int(a, 16) for a in re.search(r"^RANGE 0x([0-9a-f]+) 0x([0-9a-f]+)$", done.out, re.M).groups())
    assert said.what.startswith("heap-use-after-free on address "), said.text
    assert low <= said.addresses()[0] < high, said.text
    assert re.search(rf"\b{variant.upper()}\b", said.text), said.text
    check_stack(said, bug(language), "offend_touch")


@pytest.mark.parametrize("language,variant,size", cells("stale-data", ["any"], SIZES))
def test_stale_data(run, bug, mode, unsampled, language, variant, size):
    """strict: no byte of an earlier object is ever seen; hardened promises nothing, and is undamaged. In strict a
    large object's pages come back fresh, so there an address need not come back within the run."""
    done = run([bug(language), "stale-data", variant, size], mode, options=unsampled, timeout=120)
    goes_on(done)
    reused, dirty = map(int, re.search(r"^REUSED (\d+) DIRTY (\d+)$", done.out, re.M).groups())
    if size in SMALL:
        assert reused > 0, "no address came back: the run shows nothing"
    if mode.name == "strict":
        assert dirty == 0, done
    elif size in SMALL:
        assert dirty > 0, "the test would see no stale byte if there were one"


# ---------------------------------------------------------------- nothing to touch

ZERO = [f"{api}/{touch}" for api in ("malloc", "calloc", "aligned", "realloc") for touch in ("read", "write")]


@pytest.mark.parametrize("language,variant,size", cells("zero-size", ZERO, [0], ["c"])
                         + cells("zero-size", ["new/read", "new/write", "new-array/read", "new-array/write"], [0], ["c++"]))
def test_zero_size(run, report, bug, mode, language, variant, size):
    done = run([bug(language), "zero-size", variant, size], mode)
    said = report(done)
    address, usable = announced(done)
    assert usable == 0, done
    assert "access to a zero-size object" in said.what, said.text
    assert address in said.addresses(), said.text
    check_stack(said, bug(language), "offend_touch")


# ---------------------------------------------------------------- sampled objects

NEXT_TO = {"over": "heap-buffer-overflow", "under": "heap-buffer-underflow", "after": "heap-use-after-free"}


@pytest.mark.parametrize("language,variant,size",
                         cells("sampled", [f"{where}/{touch}" for where in NEXT_TO for touch in ("read", "write")], SMALL))
def test_sampled(run, report, bug, mode, language, variant, size):
    """One object in so many lies between guards: there the access itself is the report, with the stacks."""
    where, touch = variant.split("/")
    done = run([bug(language), "sampled", variant, size], mode, options="sample=1")
    said = report(done)
    address, usable = announced(done)
    assert said.what.startswith(f"{NEXT_TO[where]} on address "), said.text
    assert address - 1 <= said.addresses()[0] <= address + usable + 16, said.text
    assert re.search(rf"^{touch.upper()} of size 1 at ", said.text, re.M), said.text
    assert re.search(r"^(previously )?allocated by thread T0", said.text, re.M), said.text
    assert bool(re.search(r"^freed by thread T0", said.text, re.M)) == (where == "after"), said.text
    check_stack(said, bug(language), "offend_touch")


# ---------------------------------------------------------------- metadata

TAGS = {"live-bit": "MSPAN-1", "count": "MSPAN-4", "geometry": "MSPAN-6"}


@pytest.mark.parametrize("plant", [pytest.param(p, id=f"metadata-verify-{p}") for p in TAGS])
def test_metadata_verify(run, wild, mode, plant):
    """A field of a span's struct, changed by a wild write, is named by spanguard_verify()."""
    done = run([wild, plant], mode, options="patrol=0:verify_at_exit=0")
    assert done.status == 0, done
    assert int(re.search(r"^VERIFY (\d+)$", done.out, re.M)[1]) > 0, done
    assert re.search(rf"{TAGS[plant]}\b.* {announced(done)[0]:#x}\b", done.err), done


@pytest.mark.parametrize("plant", [pytest.param(p, id=f"metadata-patrol-{p}") for p in TAGS])
def test_metadata_patrol(run, report, wild, mode, plant):
    """... and without anybody asking, by a patrol. Here every refill is one: at the rates of the modes a sweep, which
    counts anew, may have put a wrong bit or count right before."""
    done = run([wild, plant, "patrol"], mode, options="patrol=1")
    said = report(done)
    assert f"[{TAGS[plant]}] at {announced(done)[0]:#x}" in said.what, said.text
    assert "main" in said.functions(wild), said.text


@pytest.mark.parametrize("row", [pytest.param("metadata", id="metadata-patrol-rate")])
def test_metadata_patrol_rate(run, report, wild, mode, row):
    """At the rate of the mode, what stays wrong is found."""
    done = run([wild, "geometry", "patrol"], mode)
    assert re.search(r"\[[A-Z]+-\d+\] at ", report(done).what), done


@pytest.mark.parametrize("side", [pytest.param(s, id=f"metadata-guard-{s}") for s in ("above", "below")])
def test_metadata_guard(run, wild, mode, side):
    """A run through metadata is stopped by a guard before it meets anything else."""
    done = run([wild, side], mode)
    stop, far = re.search(r"^STOPPED 0x([0-9a-f]+) AFTER (\d+)$", done.out, re.M).groups()
    assert int(far) < 64 << 20, done
    assert done.status in (-11, -6), done
    if done.status == -6:
        assert f"0x{stop}" in done.err, done


@pytest.mark.parametrize("option", [pytest.param("guards=mprotect", id="metadata-guard-mprotect"),
                                    pytest.param("guards=auto", id="metadata-guard-auto")])
def test_metadata_silent(run, wild, mode, option):
    """The same steps without the wild write."""
    done = run([wild, "none", "patrol"], mode, options=option)
    assert done.status == 0 and done.err == "", done
    assert done.out.endswith("VERIFY 0\n"), done
