"""mode=debug names the guilty line: each mistake of bug.h, compiled plainly, at eight
sizes, in C and C++, alone and among eight threads. The report must name the right
error, the object with the size that was asked for, and stacks that lead to the very
lines; the same steps without the mistake must be silent.
"""
import os
import pathlib
import re

import pytest

HERE = pathlib.Path(__file__).resolve().parent
LIB = pathlib.Path(os.environ.get("SPANGUARD_LIB", HERE.parent.parent / "build" / "libspanguard.so")).resolve()
COMMAND = LIB.parent / "spanguard"
SIZES = [1, 7, 16, 100, 1000, 20000, 100000, 1 << 20]
SMALL_MAX = (32 << 10) - 16        # above, an object is a span between guard pages
FLAGS = ("-g", "-O1", "-pthread", "-w")

AT_FREE = r"heap-buffer-overflow detected at free on address "
UNDER_AT_FREE = r"heap-buffer-underflow (detected at free )?on address "
NOT_OURS = r"attempting free on address which was not malloc\(\)-ed: "

# class: first line of the report for a small object, and where the stacks must lead:
# the error's, the allocation's, the free's
MAKE, RELEASE = ("make_object", "MAKE"), ("release_object", "RELEASE")
BOTH = {
    "double-free": (r"attempting double-free on ", ("release_again", "AGAIN"), MAKE, RELEASE),
    "overflow": (AT_FREE, RELEASE, MAKE, None),
    "overflow-16": (AT_FREE, RELEASE, MAKE, None),
    "overflow-exit": (r"heap-buffer-overflow detected at verify on address ", None, MAKE, None),
    "underflow-exit": (r"heap-buffer-underflow (detected at verify )?on address ", None, MAKE, None),
    "underflow": (UNDER_AT_FREE, None, MAKE, None),
    "underflow-16": (UNDER_AT_FREE, None, MAKE, None),
    "after-free": (r"write-after-free detected at verify on address ", None, MAKE, RELEASE),
    "after-free-late": (r"write-after-free detected (on reuse|at retirement|at patrol) on address ", None, MAKE, RELEASE),
    "free-stack": (NOT_OURS, ("free_wrong", "WRONG"), None, None),
    "free-global": (NOT_OURS, ("free_wrong", "WRONG"), None, None),
    "free-mmap": (NOT_OURS, ("free_wrong", "WRONG"), None, None),
    "free-interior": (NOT_OURS, ("free_wrong", "WRONG"), MAKE, None),
    "stale-realloc": (r"attempting realloc on freed pointer ", ("use_stale", None), MAKE, RELEASE),
    "stale-usable": (r"attempting malloc_usable_size on freed pointer ", ("use_stale", None), MAKE, RELEASE),
}
C = {
    "sized": (r"free-size-mismatch on ", ("release_sized", "SIZED"), MAKE, None),
    "zero-size": (AT_FREE, RELEASE, MAKE, None),
}
MADE_BY = ("make_by", "MAKE-BY")
CXX = {
    "sized": (r"new-delete-type-mismatch on ", ("release_sized", "SIZED"), MAKE, None),
    "array-delete": (r"alloc-dealloc-mismatch \(operator new \[\] vs operator delete\) on ", ("release_plain", "PLAIN"), MAKE, None),
    "array-free": (r"alloc-dealloc-mismatch \(operator new \[\] vs free\) on ", ("free_wrong", "WRONG"), MAKE, None),
    "new-array": (r"alloc-dealloc-mismatch \(operator new vs operator delete \[\]\) on ", RELEASE, MADE_BY, None),
    "malloc-delete": (r"alloc-dealloc-mismatch \(malloc vs operator delete\) on ", ("release_plain", "PLAIN"), MADE_BY, None),
    "aligned-plain": (r"new-delete-alignment-mismatch on ", RELEASE, MADE_BY, None),
    "plain-aligned": (r"new-delete-alignment-mismatch on ", ("release_aligned", "ALIGNED"), MAKE, None),
}
CLASSES = {"c": BOTH | C, "c++": BOTH | CXX}

# what stops a large object's at the access instead: the guard page it lies against
AT_ACCESS = {
    "overflow": "heap-buffer-overflow", "overflow-16": "heap-buffer-overflow", "overflow-exit": "heap-buffer-overflow",
    "underflow-exit": "heap-buffer-underflow", "underflow": "heap-buffer-underflow", "underflow-16": "heap-buffer-underflow",
    "after-free": "heap-use-after-free", "after-free-late": "heap-use-after-free",
}


def expected(language, what, size):
    first, error, made, freed = CLASSES[language][what]
    large = size > SMALL_MAX
    behind = what.startswith("overflow")
    if large and what in AT_ACCESS and not (behind and size % 8192 != 0):
        return AT_ACCESS[what] + r" on address .* at pc ", ("touch", "TOUCH"), made, freed
    return first, error, made, freed


def line_of(marker):
    """Every file:line that carries it."""
    return {(p.name, i) for p in (HERE / "bug.h", HERE / "bug.c", HERE / "bug.cc")
            for i, text in enumerate(p.read_text().splitlines(), 1) if f"/* {marker} */" in text}


def check_stack(frames, where, text):
    """The function is in it, at the line that carries the marker."""
    function, marker = where
    rows = [m for f in frames if (m := re.search(r" in (\w+)(?:\([^)]*\))? (\S+):(\d+):\d+$", f)) and m[1] == function]
    assert rows, f"no {function} in:\n" + "\n".join(frames) + "\n" + text
    if marker is not None:
        assert any((pathlib.Path(m[2]).name, int(m[3])) in line_of(marker) for m in rows), text


def sections(text):
    """The stacks of a report: error, freed, allocated."""
    out, at = {"error": [], "freed": [], "allocated": []}, "error"
    for line in text.splitlines():
        if re.match(r"freed by thread ", line):
            at = "freed"
        elif re.match(r"(previously )?allocated by thread ", line):
            at = "allocated"
        elif line.startswith("neighbour "):
            break
        elif re.match(r"\s+#\d+ ", line):
            out[at].append(line)
    return out


@pytest.fixture(scope="session")
def bug(build):
    def of(language):
        if language == "c":
            return build(HERE / "bug.c", *FLAGS)
        return build(HERE / "bug.cc", "-std=c++17", *FLAGS)
    return of


def cells():
    for language, classes in CLASSES.items():
        for what in classes:
            for size in SIZES:
                yield from ((language, what, size, threads) for threads in (1, 8))


@pytest.mark.parametrize("language,what,size,threads", cells())
def test_named(bug, run, language, what, size, threads):
    done = run([COMMAND, "--mode=debug", bug(language), what, size, threads])
    first, error, made, freed = expected(language, what, size)
    if threads == 8:
        first = first.replace("at patrol", "at patrol|at verify")       # the others may outlive its wait
    assert done.status == -6, done
    assert len(re.findall(r"^==\d+==ERROR: spanguard: ", done.err, re.M)) == 1, done
    assert re.search(r"^==\d+==ERROR: spanguard: " + first, done.err, re.M), done
    stacks = sections(done.err)
    if error is not None:
        check_stack(stacks["error"], error, done.err)
    if made is None:
        return
    region = re.search(r"is located [\d,]+ bytes? (inside of|after|before) (\d+)-byte region", done.err)
    assert region and int(region[2]) == (0 if what == "zero-size" else size), done
    check_stack(stacks["allocated"], made, done.err)
    if freed is not None:
        check_stack(stacks["freed"], freed, done.err)
    else:
        assert not stacks["freed"], done


@pytest.mark.parametrize("language", CLASSES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("threads", [1, 8])
def test_silent(bug, run, language, size, threads):
    for what in CLASSES[language]:
        if what == "after-free-late" and threads == 8:
            continue        # long, and no different
        assert run([COMMAND, "--mode=debug", bug(language), what, size, threads, "ok"]).clean() == "end\n", what


MAKERS = {
    10: "malloc", 11: "calloc", 111111: "calloc", 12: "realloc", 13: "reallocarray", 14: "posix_memalign",
    15: "aligned_alloc", 16: "memalign", 17: "valloc", 4096: "pvalloc", 20: "malloc",
    30: "operator new[](unsigned long)", 31: "operator new(unsigned long)",
    32: "operator new[](unsigned long, std::nothrow_t const&)", 33: "operator new(unsigned long, std::nothrow_t const&)",
    34: "operator new(unsigned long, std::align_val_t)", 35: "operator new[](unsigned long, std::align_val_t)",
    36: "operator new(unsigned long, std::align_val_t, std::nothrow_t const&)",
    37: "operator new[](unsigned long, std::align_val_t, std::nothrow_t const&)",
}


@pytest.mark.parametrize("mode", ["debug", "guard"])
def test_function_that_was_called(build, run, mode):
    """The innermost frame is the function of the program's call, whatever it is made of inside."""
    done = run([COMMAND, f"--mode={mode}", "--leak-check=1", build(HERE / "apis.cc", "-g", "-O1", "-std=c++17", "-w")])
    found = re.findall(r"leak of (\d+) byte\(s\) in 1 object\(s\) allocated from:\n    #0 0x[0-9a-f]+ in (.+?) src/\S+\n"
                       r"    #1 0x[0-9a-f]+ in (?:from_\w+|__GI___strdup|strdup)\b", done.err)
    assert {int(size): name for size, name in found} == MAKERS and len(found) == len(MAKERS), done


DROPPERS = ["free", "realloc", "free_sized", "free_aligned_sized",
            *(f"operator delete{what}(void*{more})" for more in (
                "", ", unsigned long", ", std::align_val_t", ", unsigned long, std::align_val_t",
                ", std::align_val_t, std::nothrow_t const&") for what in ("", "[]"))]


@pytest.mark.parametrize("mode", ["debug", "guard"])
def test_function_that_freed(build, run, mode):
    program = build(HERE / "apis.cc", "-g", "-O1", "-std=c++17", "-w")
    for which, name in enumerate(DROPPERS):
        done = run([COMMAND, f"--mode={mode}", program, which])
        found = re.search(r"^freed by thread .* here:\n    #0 0x[0-9a-f]+ in (.+?) src/\S+\n"
                          r"    #1 0x[0-9a-f]+ in free_by\b", done.err, re.M)
        # a call that returns here would cost every sized delete two instructions
        assert found and found[1] in (name, "free_sized_check" if "(void*, unsigned long)" in name else name), (which, name, done)


# ---------------------------------------------------------------- to the byte

@pytest.mark.parametrize("language", CLASSES)
@pytest.mark.parametrize("what,size,offset,expected", [
    ("overflow", 100, 100, "0xc3"), ("overflow-16", 7, 22, "0xc3"), ("underflow", 1000, -1, "0xc3"),
    ("underflow-16", 16, -16, "0xc3"), ("after-free", 100, 50, "0xdf"), ("overflow", 100000, 100000, "0xc3")])
def test_changed_bytes(bug, run, language, what, size, offset, expected):
    done = run([COMMAND, "--mode=debug", bug(language), what, size, 1])
    if what.startswith("underflow") and "at pc " in done.err:
        return              # the first slot of its span: the guard page stopped it
    found = re.findall(r"^    offset (-?\d+): (0x..) \(expected (0x..)\)$", done.err, re.M)
    assert [(int(o), e) for o, _, e in found] == [(offset, expected)], done
    assert int(found[0][1], 16) ^ int(expected, 16) == 0x55, done
    assert "1 byte changed" in done.err, done


# ---------------------------------------------------------------- options

def test_goes_on(bug, run):
    """halt_on_error=0: one report of each place, and the program ends as it would."""
    done = run([COMMAND, "--mode=debug", "--halt_on_error=0", bug("c++"), "array-free", 100, 1])
    assert done.out == "end\n" and "==GOING ON" in done.err, done
    assert len(re.findall(r"ERROR: spanguard: alloc-dealloc-mismatch", done.err)) == 1, done


@pytest.mark.parametrize("what,option", [("array-free", "mismatch=0"), ("overflow", "redzone=0")])
def test_switched_off(bug, run, what, option):
    assert run([COMMAND, "--mode=debug", f"--{option}", bug("c++"), what, 100, 1]).clean() == "end\n"


def test_break_on_alloc(bug, run):
    """SIGTRAP at the serial number that a report gave."""
    done = run([COMMAND, "--mode=debug", "--seed=1", bug("c"), "double-free", 100, 1])
    serial = re.search(r"\(malloc, allocation (\d+), freed", done.err)[1]
    trap = run([COMMAND, "--mode=debug", "--seed=1", f"--break_on_alloc={serial}", bug("c"), "double-free", 100, 1])
    assert trap.status == -5 and "ERROR" not in trap.err, trap
    later = run([COMMAND, "--mode=debug", "--seed=1", "--break_on_alloc=1000000", bug("c"), "double-free", 100, 1])
    assert later.status == -6, later


def test_depth(bug, run):
    """No more frames than were asked for; none: the thread alone."""
    for depth in (0, 1, 3):
        done = run([COMMAND, "--mode=debug", "--no-symbolize", f"--stack_depth={depth}", bug("c"), "double-free", 100, 1])
        stacks = sections(done.err)
        assert len(stacks["allocated"]) == len(stacks["freed"]) == depth, done
