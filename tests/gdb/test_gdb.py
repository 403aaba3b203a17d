"""tools/spanguard-gdb.py on a stopped process and on its core file, from gdb in batch mode."""
import pathlib
import re
import shutil

import pytest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SCRIPT = ROOT / "tools" / "spanguard-gdb.py"
pytestmark = pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")
RECORDS = ["debug", "guard"]        # modes that know of every object who made it


@pytest.fixture(scope="session")
def heap(build):
    return build(HERE / "heap.c", "-g", "-O1")


CORE_PATTERN = pathlib.Path("/proc/sys/kernel/core_pattern").read_text().strip()


def line_of(text):
    """Number of the line of heap.c that holds this."""
    lines = (HERE / "heap.c").read_text().split("\n")
    return next(i for i, line in enumerate(lines, 1) if text in line)


class Gdb:
    """Runs commands on a stopped process, on the core file the kernel made of it, or on one of gdb's."""

    def __init__(self, kind, run, heap, library, scratch):
        self.kind, self.run, self.heap, self.library, self.scratch = kind, run, heap, library, scratch

    def batch(self, words, *files):
        flags = [flag for word in words for flag in ("-ex", word)]
        return self.run(["gdb", "-q", "-nx", "-batch", *flags, self.heap, *files], timeout=120)

    def stopped(self, options):
        return ["set startup-with-shell off", f"set environment LD_PRELOAD {self.library}",
                f"set environment SPANGUARD_OPTIONS {options}", "break stop_here", "run"]

    def kernel_core(self, options):
        self.run(["bash", "-c", f"cd {self.scratch} && ulimit -c unlimited && exec {self.heap} abort"],
                 env={"LD_PRELOAD": str(self.library), "SPANGUARD_OPTIONS": options})
        return next(self.scratch.glob("core*"))

    def gdb_core(self, options):
        """gdb gives up a mapping at the first page that it cannot read: guards must be mappings of their own."""
        core = self.scratch / "gcore"
        self.batch([*self.stopped(options + ":guards=mprotect"), f"generate-core-file {core}"])
        return core

    def __call__(self, options, *wanted):
        for old in self.scratch.glob("*core*"):
            old.unlink()
        asked = [f"source {SCRIPT}", *[word for text in wanted for word in ("echo \\n==\\n", text)]]
        if self.kind == "live":
            done = self.batch([*self.stopped(options), *asked])
        else:
            core = self.kernel_core(options) if self.kind == "core" else self.gdb_core(options)
            done = self.batch(asked, core)
        return [part.strip() for part in done.out.split("\n==\n")[1:]], done


@pytest.fixture(params=["live", "core", "gcore"])
def gdb(request, run, heap, library, scratch):
    if request.param == "core" and CORE_PATTERN != "core":
        pytest.skip(f"core files go to {CORE_PATTERN}")
    return Gdb(request.param, run, heap, library, scratch)


def test_addr(gdb):
    """Of each kind of address: what it is, exactly, and who did it."""
    for mode in RECORDS:
        (live, inner, freed, large, parked, foreign), done = gdb(
            f"mode={mode}", "spanguard addr live[3]", "spanguard addr inner", "spanguard addr freed",
            "spanguard addr (char *)large + 1000", "spanguard addr parked", "spanguard addr &large")
        assert re.match(r"0x[0-9a-f]+ is 0 bytes inside of a 100-byte object \[0x[0-9a-f]+,0x[0-9a-f]+\), live$",
                        live.split("\n")[0]), done
        assert re.search(r"^  allocated by malloc, thread \d+, number 4$", live, re.M), done
        assert "is 40 bytes inside of a 100-byte object" in inner and "number 10" in inner, done
        assert re.search(r"is 0 bytes inside of a 100-byte object \[.*\), freed", freed), done
        assert re.search(r"^  freed by free, thread \d+, after allocation 100$", freed, re.M), done
        assert "is 1000 bytes inside of a 300000-byte object" in large and ", live" in large, done
        assert "is 0 bytes inside of a 200000-byte object" in parked and "freed" in parked.split("\n")[0], done
        assert foreign.endswith("is no address of spanguard's heap"), done


def test_addr_without_records(gdb):
    for mode in ("hardened", "strict"):
        (live, freed, parked), done = gdb(f"mode={mode}:sample=0", "spanguard addr live[3]", "spanguard addr freed",
                                          "spanguard addr parked")
        assert "is 0 bytes inside of a 112-byte object" in live and ", live\n  slot " in live, done
        assert ", freed, not swept yet\n" in freed, done
        assert ", freed, in the quarantine\n" in parked, done


def test_sampled(gdb):
    (live, stack), done = gdb("mode=hardened:sample=1", "spanguard addr live[0]", "spanguard bt alloc live[0]")
    assert "a 100-byte object" in live and "  a sampled object\n  allocated by thread " in live, done
    assert re.search(rf"^#\d .* in make_one at .*heap\.c:{line_of('malloc(n)')}$", stack, re.M), done


def test_bt(gdb):
    malloc, free_, make, drop = map(line_of, ("malloc(n)", "free(p)", "make_one(100)", "drop_one(freed)"))
    for mode in RECORDS:
        (alloc, free, alive, parked), done = gdb(f"mode={mode}", "spanguard bt alloc inner", "spanguard bt free freed",
                                                 "spanguard bt free live[3]", "spanguard bt alloc parked")
        assert re.match(r"#0 +0x[0-9a-f]+ in malloc \(.*libspanguard\.so\)\n#1 ", alloc), done
        assert re.search(rf"^#2 .* in make_parked at .*heap\.c:{line_of('make_one(200000)')}, inlined into main$", parked, re.M), done
        assert re.search(rf"^#\d .* in make_one at .*heap\.c:{malloc}\n#\d .* in main at .*heap\.c:{make}$", alloc, re.M), done
        assert re.search(rf"^#\d .* in drop_one at .*heap\.c:{free_}\n#\d .* in main at .*heap\.c:{drop}$", free, re.M), done
        assert alive == "" and "it has not been freed" in done.err, done


def test_bt_without_records(gdb):
    (stack,), done = gdb("mode=hardened:sample=0", "spanguard bt alloc live[3]")
    assert stack == "" and "mode=debug or mode=guard keeps the stacks" in done.err, done


def test_spans_and_quarantine(gdb):
    (small, big, all_of_them, parked), done = gdb("mode=strict:sample=0", "spanguard spans 112", "spanguard spans 0",
                                                  "spanguard spans", "spanguard quarantine")
    assert re.search(r"^ *[0-9a-f]+ +32768 +292 +99 .*class 112, scan +in use +thread \d+\n1 spans, 32768 bytes$", small,
                     re.M), done
    assert re.search(r" 1 +1 +0 +large, scan +in use +nobody$", big, re.M), done
    assert re.search(r"large, scan +in the quarantine", big), done
    assert int(re.search(r"^(\d+) spans, ", all_of_them, re.M)[1]) >= 3, done
    assert re.search(r"^ *[0-9a-f]+ +204800  large, scan +faults\n1 spans and large objects, 204800 bytes$", parked, re.M), done


@pytest.mark.parametrize("mode", ["debug", "guard", "strict", "plain"])
def test_last(gdb, mode):
    """ring=N arms a mode that is not armed, too."""
    (last, about), done = gdb(f"mode={mode}:ring=1000:sample=0", "spanguard last 3", "spanguard last 9 freed")
    calls = [re.match(r"(\d+)  thread \d+ +(\S+) +(0x[0-9a-f]+)(?: (\d+) bytes)?$", line.strip()).groups()
             for line in last.split("\n")]
    assert [(api, size) for _, api, _, size in calls] == [("free", None), ("malloc", "200000"), ("malloc", "300000")], done
    assert calls[0][2] == calls[1][2] and int(calls[0][0]) == int(calls[1][0]) + 1, done
    history = [re.split(r" {2,}", line.strip()) for line in about.split("\n")]
    assert [words[2] for words in history] == ["free", "malloc"], done


def test_last_wraps(gdb):
    """A ring of 16 holds the last 16."""
    (last,), done = gdb("mode=debug:ring=10", "spanguard last 100")
    numbers = [int(line.split()[0]) for line in last.split("\n")]
    assert numbers == list(range(104, 88, -1)), done


def test_no_ring(gdb):
    (last,), done = gdb("mode=debug", "spanguard last 3")
    assert last == "" and "ring=1000 keeps the last 1,000" in done.err, done


def test_auto_load(run, heap, library, scratch):
    """Beside the library, under its name, in a directory that is trusted."""
    copy = scratch / "libspanguard.so"
    shutil.copy(library, copy)
    shutil.copy(SCRIPT, scratch / "libspanguard.so-gdb.py")
    words = ["set startup-with-shell off", f"set environment LD_PRELOAD {copy}", "break stop_here", "run",
             "spanguard addr live[3]"]
    flags = [flag for word in words for flag in ("-ex", word)]
    done = run(["gdb", "-q", "-nx", "-batch", "-iex", f"add-auto-load-safe-path {scratch}", *flags, heap], timeout=120)
    assert "is 0 bytes inside of a 112-byte object" in done.out, done


STALE = """#include <stdlib.h>
__attribute__((noinline)) static void drop(char *p) { free(p); }
int main(void) { char *volatile p = malloc(72); drop(p); return p[8]; }
"""


def test_started_in_gdb(run, library, scratch):
    """The command becomes the program under gdb, which stops at the access; then comes the report."""
    source, program = scratch / "stale.c", scratch / "stale"
    source.write_text(STALE)
    run(["gcc", "-g", "-O1", "-w", "-o", program, source]).clean()
    at = "$_siginfo._sifields._sigfault.si_addr"
    words = [f"source {SCRIPT}", "run", f"spanguard addr {at}", f"spanguard bt free {at}", "continue"]
    flags = [flag for word in words for flag in ("-ex", word)]
    done = run(["gdb", "-q", "-nx", "-batch", *flags, "--args", library.parent / "spanguard", f"--lib={library}",
                "--no-symbolize", "--mode=guard", program], timeout=120)
    assert re.search(r"SIGSEGV.*is 8 bytes inside of a 72-byte object \[.*\), freed\n  a guarded object\n"
                     r".* in drop at .*stale\.c:2\n.*SIGABRT", done.out, re.S), done
    assert "heap-use-after-free on address" in done.err, done


def test_without_spanguard(run, heap):
    words = ["set startup-with-shell off", "break stop_here", "run", f"source {SCRIPT}", "spanguard addr live[3]"]
    flags = [flag for word in words for flag in ("-ex", word)]
    done = run(["gdb", "-q", "-nx", "-batch", *flags, heap], timeout=120)
    assert "spanguard is not in this process" in done.err, done


def test_a_core_file_without_metadata(run, heap, library, scratch):
    """gdb's own core file of a process with marker guards has zeros where the metadata was: both
    tools say so and do not show an empty heap."""
    gdb = Gdb("gcore", run, heap, library, scratch)
    core = scratch / "gcore"
    made = gdb.batch([*gdb.stopped("mode=debug"), f"generate-core-file {core}"])
    if "Memory read failed" not in made.err + made.out:
        pytest.skip("no guard markers here: the core file is whole")
    for word in ("addr live[3]", "bt alloc live[3]", "spans", "quarantine"):
        done = gdb.batch([f"source {SCRIPT}", f"spanguard {word}"], core)
        assert "what spanguard knows of the heap is not in this core file" in done.err, done
        assert "guards=mprotect" in done.err and "0 spans" not in done.out, done
    command = library.parent / "spanguard"
    for words in (["addr", core, "0x1234"], ["map", core, "--html", scratch / "page"]):
        done = run([command, *words])
        assert done.status != 0 and done.out == "" and not (scratch / "page").exists(), done
        assert f"{core}: what spanguard knows of the heap is not in the core file" in done.err, done
        assert "--guards=mprotect" in done.err and done.err.count("\n") == 2, done
