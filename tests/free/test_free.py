"""Exact free checking: every wrong free is seen at the call, and named right.

bad_free.cpp, compiled without any special flag (-g only tells this test which
function the report's module+offset belongs to), makes one mistake per run. The
report must name the right error, the right address, the call that was made, end
in SIGABRT, and its stack must lead to offend(). The same steps without the
mistake must end in exit 0 with not a word on stderr - on libc's malloc as well.
"""
import pathlib
import re

import pytest

HERE = pathlib.Path(__file__).resolve().parent

# Who frees first, who second: o owner, x and y others, d the owner ends,
# + a thousand others freed, t malloc_trim(0).
ALIVE = ["oo", "ox", "xo", "xx", "xy"]
DEAD = ["dxx", "dxy", "odx", "xdx", "xdy", "odxy"]
LATER = ["o+o", "x+x", "o+x", "x+o", "dx+y", "od+tx", "x+dty", "o+to"]
SIZES = [8, 100, 4096, 256 << 10]

# What the program calls: what the report calls it, and whether it is a free.
# reallocarray goes through the exported realloc, which other tools redirect.
APIS = {
    "free": ("free", True), "cfree": ("cfree", True),
    "delete": ("operator delete", True), "delete[]": ("operator delete[]", True),
    "delete-nothrow": ("operator delete", True), "delete-aligned": ("operator delete", True),
    "realloc": ("realloc", False), "realloc0": ("realloc", False), "reallocarray": ("realloc", False),
    "malloc_usable_size": ("malloc_usable_size", False),
}

INVALID = ["small-number", "minus-one", "ascii", "ascii-long", "non-canonical", "kernel", "bit-48", "wild-unaligned",
           "global", "bss", "bss-unaligned", "tls", "literal", "function", "libc", "mmap", "unmapped", "file",
           "never-allocated", "stack", "environment"]

# What the report must say the address is.
IS = {
    "global": "is in the .data of ", "bss": "is in the .bss of ", "bss-unaligned": "is in the .bss of ",
    "literal": "is in the read-only data of ", "function": "is in the code of ",
    "stack": "is on the stack of ", "environment": "is on the stack of ",
    "unmapped": "is not mapped", "small-number": "is not mapped", "file": "is in a mapping of the file ",
    "mmap": "is in a foreign anonymous mapping", "non-canonical": "non-canonical", "ascii-long": "non-canonical",
}

INSIDE_SIZES = [100, 20 << 10, 1 << 20]
OFFSETS = ["1", "8", "16", "half", "last"]

# form, size, what the program says
SIZED = [(form, size, said)
         for form in ("delete", "delete[]", "delete-aligned", "delete[]-aligned", "free_sized", "free_aligned_sized")
         for size, said in ((100, 300), (3000, 64), (16, 100000), (1 << 20, 100), (1 << 20, 3 << 20))]
ALIGNED = [(form, size, said) for form in ("align", "align[]", "align-sized", "align-c23")
           for size, said in ((100, 4096), (3000, 8192), (20000, 1 << 20))]


@pytest.fixture(scope="session")
def bad_free(build):
    return build(HERE / "bad_free.cpp", "-g", "-pthread")


def announced(done):
    """The address and the usable size that the program printed before its mistake."""
    found = re.search(r"^ADDR 0x([0-9a-f]+) USABLE (\d+)$", done.out, re.M)
    assert found, done
    return int(found[1], 16), int(found[2])


def grouped(number, unit="byte"):
    return f"{number:,} {unit}" + ("" if number == 1 else "s")


def check_stack(said, program, library, function):
    """#0 is our entry point; then the program's own frames, offend() among the first."""
    assert said.frames, said.text
    assert said.frames[0][0].endswith(library.name), said.text
    own = said.functions(program)
    assert function in own[:4], f"{own}\n{said.text}"
    assert own[-1] in ("main", "worker_main", "_start"), f"{own}\n{said.text}"


def mistake(run, report, bad_free, library, guarded, *args, function="offend"):
    done = run([bad_free, *args], guarded)
    said = report(done)
    check_stack(said, bad_free, library, function)
    address, usable = announced(done)
    assert said.addresses()[:1] == [address], done
    assert done.out.count("\n") <= 2, done
    return said, address, usable


def check_double(said, address, api):
    name, frees = APIS[api]
    if frees:
        assert said.what.startswith(f"attempting double-free on {address:#x} "), said.text
    else:
        assert said.what.startswith(f"attempting {name} on freed pointer {address:#x} "), said.text
    assert said.api == name, said.text


def check_not_malloced(said, address, api):
    name, frees = APIS[api]
    verb = "free" if frees else name
    want = f"attempting {verb} on address which was not malloc()-ed: {address:#x}"
    assert re.match(re.escape(want) + r"[ ,:]", said.what), said.text
    assert said.api == name, said.text


# ---------------------------------------------------------------- double

@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("pairing", ALIVE + DEAD + LATER)
def test_double_free(run, report, bad_free, library, guarded, pairing, size):
    said, address, _ = mistake(run, report, bad_free, library, guarded, "double", "free", pairing, size)
    check_double(said, address, "free")


@pytest.mark.parametrize("size", [100, 256 << 10])
@pytest.mark.parametrize("pairing", ["oo", "xy", "odx"])
@pytest.mark.parametrize("api", [api for api in APIS if api != "free"])
def test_double_free_by(run, report, bad_free, library, guarded, api, pairing, size):
    said, address, _ = mistake(run, report, bad_free, library, guarded, "double", api, pairing, size)
    check_double(said, address, api)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("pairing", ALIVE + DEAD + LATER)
def test_single_free(run, bad_free, alloc, pairing, size):
    assert run([bad_free, "double", "free", pairing, size, "ok"], alloc).clean().endswith("fine\n")


# ---------------------------------------------------------------- invalid

@pytest.mark.parametrize("kind", INVALID)
@pytest.mark.parametrize("api", ["free", "delete", "realloc", "malloc_usable_size"])
def test_invalid_free(run, report, bad_free, library, guarded, api, kind):
    said, address, _ = mistake(run, report, bad_free, library, guarded, "invalid", api, kind)
    check_not_malloced(said, address, api)
    assert re.search(rf"^{address:#x} .*{re.escape(IS.get(kind, ''))}", said.text, re.M), said.text


@pytest.mark.parametrize("kind", INVALID)
def test_no_invalid_free(run, bad_free, alloc, kind):
    assert run([bad_free, "invalid", "free", kind, "ok"], alloc).clean().endswith("fine\n")


# ---------------------------------------------------------------- interior, misaligned

@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("size", INSIDE_SIZES)
@pytest.mark.parametrize("api", ["free", "delete[]", "realloc", "malloc_usable_size"])
def test_interior_free(run, report, bad_free, library, guarded, api, size, offset):
    done = run([bad_free, "inside", api, size, offset], guarded)
    said = report(done)
    check_stack(said, bad_free, library, "offend")
    address, _ = announced(done)
    base, at = re.search(r"^BASE 0x([0-9a-f]+) OFFSET (\d+)$", done.out, re.M).groups()
    check_not_malloced(said, address, api)
    where = f"{address:#x} is located {grouped(int(at))} inside of "
    assert where in said.text, said.text
    assert f"[0x{base},0x" in said.text, said.text


@pytest.mark.parametrize("size", INSIDE_SIZES)
def test_no_interior_free(run, bad_free, alloc, size):
    assert run([bad_free, "inside", "free", size, "half", "ok"], alloc).clean().endswith("fine\n")


# ---------------------------------------------------------------- sizes and alignments

@pytest.mark.parametrize("form,size,claimed", SIZED)
def test_wrong_size(run, report, bad_free, library, guarded, form, size, claimed):
    said, address, usable = mistake(run, report, bad_free, library, guarded, "sized", form, size, claimed,
                                    function="offend_sized")
    kind = "new-delete-type-mismatch" if form.startswith("delete") else "free-size-mismatch"
    assert said.what.startswith(f"{kind} on {address:#x} "), said.text
    assert re.search(rf"size the program says: +{grouped(claimed)};", said.text), said.text
    assert re.search(rf"size of what lies there: +{grouped(usable)}\.", said.text), said.text
    name = {"d": "operator delete[]" if "[]" in form else "operator delete"}.get(form[0], form)
    assert said.api == name, said.text


@pytest.mark.parametrize("form,size,claimed", ALIGNED)
def test_wrong_alignment(run, report, bad_free, library, guarded, form, size, claimed):
    said, address, _ = mistake(run, report, bad_free, library, guarded, "sized", form, size, claimed,
                               function="offend_sized")
    kind = "free-alignment-mismatch" if form == "align-c23" else "new-delete-alignment-mismatch"
    assert said.what.startswith(f"{kind} on {address:#x} "), said.text
    assert re.search(rf"alignment the program says: +{grouped(claimed)};", said.text), said.text


@pytest.mark.parametrize("form,size,claimed", SIZED + ALIGNED)
def test_right_size(run, bad_free, alloc, form, size, claimed):
    assert run([bad_free, "sized", form, size, claimed, "ok"], alloc).clean().endswith("fine\n")


# ---------------------------------------------------------------- where the report leads

@pytest.mark.parametrize("tool", ["addr2line", "eu-addr2line"])
def test_stack_resolves(run, report, bad_free, guarded, tool):
    """Both tools that users have find function, file and line from module+offset."""
    said = report(run([bad_free, "double", "free", "oo", "100"], guarded))
    names = said.functions(bad_free, tool)
    assert names[:3] == ["call_free", "offend", "job_offend"], f"{names}\n{said.text}"


@pytest.mark.parametrize("flags", [("-O2", "-fomit-frame-pointer"), ("-O2", "-static-pie"), ("-Os", "-no-pie"),
                                   ("-O2", "-s"), ("-O2", "-flto")], ids=" ".join)
def test_any_build(build, run, report, guarded, flags):
    """No build flag is needed for detection; a static program is the one thing a preload cannot reach."""
    program = build(HERE / "bad_free.cpp", *flags, "-pthread")
    done = run([program, "double", "free", "oo", "100"], guarded)
    if "-static-pie" in flags:
        assert "spanguard" not in done.err, done
        return
    address, _ = announced(done)
    check_double(report(done), address, "free")
