"""spanguard addr and spanguard map: another process's heap, and that of a core file."""
import html
import json
import os
import pathlib
import re
import resource
import shutil
import subprocess

import pytest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent


@pytest.fixture(scope="session")
def held(build):
    return build(HERE / "held.c", "-g", "-O1")


@pytest.fixture
def command(library):
    tool = library.parent / "spanguard"
    def call(*arguments):
        return subprocess.run([tool, *map(str, arguments)], capture_output=True, text=True, timeout=60)
    return call


def environment(library, mode):
    return {"PATH": os.environ["PATH"], "LD_PRELOAD": str(library), "SPANGUARD_OPTIONS": f"mode={mode}"}


class Running:
    """The program, waiting; kept and dropped are the addresses it named."""

    def __init__(self, program, env):
        self.child = subprocess.Popen([program], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.kept, self.dropped = self.child.stdout.readline().split()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.communicate("\n", timeout=20)
        assert self.child.returncode == 0


def core_of(program, env, directory):
    def limit():
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    done = subprocess.run([program, "abort"], env=env, cwd=directory, preexec_fn=limit, capture_output=True,
                          text=True, timeout=60)
    cores = list(directory.glob("core*"))
    if not cores:
        pattern = pathlib.Path("/proc/sys/kernel/core_pattern").read_text().strip()
        pytest.skip(f"no core file here: core_pattern is {pattern}")
    return cores[0], *done.stdout.split()


def functions(said, head):
    body = re.search(rf"^{head} [^\n]*here:\n((?:    #.*\n)+)", said, re.M)
    assert body, said
    return re.findall(r"^    #\d+ 0x[0-9a-f]+ in (\S+) ", body[1], re.M)


def check_addresses(command, where, kept, dropped, mode):
    said = command("addr", where, kept).stdout
    recorded = mode != "hardened"
    first = said.splitlines()[0]
    assert first.startswith(f"{kept} is located 0 bytes inside of {'41-byte region' if recorded else '48-byte slot'} "), said
    assert re.search(r"\blive\b", first), said
    if recorded:
        assert "make_kept" in functions(said, "allocated by"), said
        behind = command("addr", where, hex(int(kept, 16) + 44)).stdout
        assert " is located 3 bytes after 41-byte region " in behind, behind
    said = command("addr", where, dropped).stdout
    assert re.search(r"\bfreed\b", said.splitlines()[0]), said
    if recorded:
        assert "drop" in functions(said, "freed by"), said
        assert "make_dropped" in functions(said, "previously allocated by"), said


@pytest.mark.parametrize("mode", ["hardened", "debug", "guard"])
def test_addr_of_a_process(library, held, command, mode):
    with Running(held, environment(library, mode)) as it:
        check_addresses(command, it.child.pid, it.kept, it.dropped, mode)
        far = command("addr", it.child.pid, "0x1234")
        assert far.stdout == "0x1234 is no address of the heap: nothing is mapped there\n" and far.returncode == 1
        maps = pathlib.Path(f"/proc/{it.child.pid}/maps").read_text()
        stack, start = (re.search(rf"^([0-9a-f]+)-.* {re.escape(name)}$", maps, re.M)[1] for name in ("[stack]", str(held)))
        said = command("addr", it.child.pid, "0x" + stack).stdout
        assert said == f"0x{stack.lstrip('0')} is no address of the heap: it lies in [stack] (rw-p)\n"
        symbols = subprocess.run(["nm", held], capture_output=True, text=True, check=True).stdout
        variable = int(start, 16) + int(re.search(r"^([0-9a-f]+) b kept$", symbols, re.M)[1], 16)
        said = command("addr", it.child.pid, hex(variable + 1)).stdout
        assert said == f"{hex(variable + 1)} is no address of the heap: kept+0x1 of {held}\n"


def test_addr_of_sampled_objects(library, held, command, scratch):
    """mode=hardened keeps the stacks of one object in many; in a core file, too."""
    env = environment(library, "hardened:sample=1")

    def check(where, kept, dropped):
        said = command("addr", where, kept).stdout
        assert re.match(rf"{kept} is located 0 bytes inside of 41-byte region \[.*\) \(a sampled object, live\)\n", said), said
        assert "make_kept" in functions(said, "allocated by")
        said = command("addr", where, hex(int(dropped, 16) + 300)).stdout
        assert " is located 0 bytes after 300-byte region " in said and "(a sampled object, freed)" in said, said
        assert "drop" in functions(said, "freed by") and "make_dropped" in functions(said, "previously allocated by")

    with Running(held, env) as it:
        check(it.child.pid, it.kept, it.dropped)
    check(*core_of(held, env, scratch))


@pytest.mark.parametrize("mode", ["hardened", "debug", "guard"])
def test_addr_in_a_core_file(library, held, command, scratch, mode):
    core, kept, dropped = core_of(held, environment(library, mode), scratch)
    check_addresses(command, core, kept, dropped, mode)


def test_addr_refuses(library, held, command, scratch):
    with Running(held, {"PATH": os.environ["PATH"]}) as it:
        done = command("addr", it.child.pid, it.kept)
        assert done.returncode == 125 and "has no spanguard in it" in done.stderr
    done = command("addr", 999999999, "1")
    assert done.returncode == 125 and "process 999999999: " in done.stderr
    text = scratch / "text"
    text.write_text("no core")
    done = command("addr", text, "1")
    assert done.returncode == 125 and "neither a process id nor a core file" in done.stderr
    done = command("addr", os.getpid(), "12g")
    assert done.returncode == 2 and "not an address" in done.stderr


# ---------------------------------------------------------------- the map

BROWSER = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
           "--disable-background-networking", "--disable-component-update", "--disable-sync"]

# Hovers over every square until something of the kind shows, and hides all kinds but one.
PROBE = """<script>
const seen = {}, box = canvas.getBoundingClientRect();
for (let i = 0; i < cells.length; i++) {
  canvas.dispatchEvent(new MouseEvent("mousemove", { clientX: box.left + (i % across + 0.5) * size,
    clientY: box.top + (Math.floor(i / across) + 0.5) * size }));
  for (const k of cells[i].items) seen[DATA.pieces[k][2]] ??= tip.textContent;
}
const colored = () => { const d = pen.getImageData(0, 0, canvas.width, canvas.height).data, n = new Set();
  for (let i = 0; i < d.length; i += 4) n.add(d[i] << 16 | d[i + 1] << 8 | d[i + 2]); return n.size; };
const before = colored();
for (const box of document.querySelectorAll("#kinds input")) box.click();
const after = colored();
const out = document.createElement("pre");
out.id = "probe";
out.textContent = JSON.stringify({ seen, before, after, rows: [...document.querySelectorAll("#kinds tbody tr")].map(
  r => [...r.cells].map(c => c.textContent)), classes: document.querySelectorAll("#classes tbody tr").length });
document.body.append(out);
</script></body>"""


def shown(page, scratch):
    if shutil.which("chromium") is None:
        pytest.skip("not installed: chromium")
    probe = scratch / "probe.html"
    probe.write_text(page.read_text().replace("</body>", PROBE))
    done = subprocess.run([*BROWSER, f"--user-data-dir={scratch / 'browser'}", "--dump-dom", probe.as_uri()],
                          capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.S)
    assert found, (done.stdout[-2000:], done.stderr[-2000:])
    return json.loads(html.unescape(found[1]))


def check_map(seen, mode):
    rows = {name: int(pieces.replace(",", "")) for name, pieces, _ in seen["rows"]}
    if mode == "guard":
        # kept and stdio's buffer; dropped
        assert rows["guarded object, live"] >= 1 and rows["guarded object, freed"] >= 1, seen
        assert "guarded object, live, " in seen["seen"]["live"], seen
        assert seen["classes"] == 0, seen
    else:
        assert rows["span of small objects"] >= 2 and seen["classes"] >= 2, seen
        assert re.search(r"class \d+\n\d+ slots: \d+ live, \d+ freed, \d+ free", seen["seen"]["small"]), seen
        assert "returned to the kernel" in rows, seen
    if mode == "strict":
        assert rows["guard page"] >= 2, seen
    assert seen["before"] > seen["after"] >= 1, seen


@pytest.mark.parametrize("mode", ["strict", "guard"])
def test_map_of_a_process(library, held, command, scratch, mode):
    page = scratch / "map.html"
    with Running(held, environment(library, mode)) as it:
        done = command("map", it.child.pid, "--html", page)
        assert done.returncode == 0 and done.stderr == "", done
    check_map(shown(page, scratch), mode)


def test_map_of_a_core_file(library, held, command, scratch):
    core, *_ = core_of(held, environment(library, "strict"), scratch)
    page = scratch / "map.html"
    assert command("map", core, f"--html={page}").returncode == 0
    check_map(shown(page, scratch), "strict")


@pytest.mark.parametrize("mode", ["strict", "guard"])
def test_map_of_a_snapshot(library, held, command, scratch, mode):
    """The same page, byte for byte, without the process; and what is no snapshot is refused."""
    kept, page, later = scratch / "heap.json", scratch / "now.html", scratch / "later.html"
    with Running(held, environment(library, mode)) as it:
        done = command("map", it.child.pid, "--html", page, f"--snapshot={kept}")
        assert done.returncode == 0 and done.stderr == "", done
    assert command("map", kept, "--html", later).returncode == 0
    assert later.read_text() == page.read_text() and "process" in page.read_text()
    whole = json.loads(kept.read_text())
    assert whole["schema"] == "spanguard-map/1" and len(whole["pieces"]) > 3
    spoilt = [{**whole, "schema": "spanguard-map/2"}, {**whole, "pieces": 3},
              {**whole, "pieces": [["0x1000", 4096, "</script>", 0, 0, 0, 0, 0, ""]]},
              {**whole, "pieces": [["0x1000", "4096", "small", 0, 0, 0, 0, 0, ""]]}, {}]
    for i, what in enumerate(spoilt):
        kept.write_text(json.dumps(what))
        done = command("map", kept, "--html", scratch / f"{i}.html")
        assert done.returncode == 125 and "no snapshot that this command can read" in done.stderr, done
        assert not (scratch / f"{i}.html").exists()
    kept.write_text(json.dumps({**whole, "what": "</script><script>alert(1)"}))
    assert command("map", kept, "--html", later).returncode == 0
    assert "</script><script>alert" not in later.read_text()


def test_map_refuses(command, scratch):
    assert command("map", "1").returncode == 2
    done = command("map", os.getpid(), "--html", scratch / "x.html")
    assert done.returncode == 125 and "has no spanguard in it" in done.stderr


# ---------------------------------------------------------------- tool and library of different builds

# version and layout of a build that never was, in a program without spanguard
STRANGER = r"""
#include <stdint.h>
#include <stdio.h>
struct { char magic[8]; uint64_t layout; char version[16]; void *more[5]; } spanguard_root =
    { "MAGIC", 0x1234, "9.8.7", { 0 } };
int main(void) { printf("%p %p\n", (void *)&spanguard_root, (void *)stdin); fflush(stdout); getchar(); return 0; }
"""


def tool_version():
    return re.search(r'SPANGUARD_VERSION "(.*)"', (ROOT / "include" / "spanguard.h").read_text())[1]


@pytest.mark.parametrize("magic, version", [("spgroot2", "9.8.7"), ("spgroot1", "before 0.1.0")])
def test_another_version_is_refused(command, build, scratch, magic, version):
    source = scratch / "stranger.c"
    source.write_text(STRANGER.replace("MAGIC", magic))
    with Running(build(source, "-g", "-O1", "-w"), {"PATH": os.environ["PATH"]}) as p:
        for arguments in (["addr", p.child.pid, p.kept], ["map", p.child.pid, "--html", scratch / "map.html"]):
            done = command(*arguments)
            assert done.returncode != 0 and done.stdout == ""
            assert f"its library is version {version} (layout 0000000000001234)" in done.stderr
            assert re.search(rf"this command is version {re.escape(tool_version())} \(layout (?!0{{16}})[0-9a-f]{{16}}\)\n", done.stderr)
            assert "built with that library" in done.stderr


def layout_of(tree, compiler="gcc"):
    return subprocess.run([ROOT / "ci" / "layout", compiler], env={**os.environ, "ROOT": str(tree)}, check=True,
                          capture_output=True, text=True).stdout.strip()


def test_layout_of_any_change(scratch):
    """Every header that the tool reads memory by counts: fields, their order, constants,
    options, but not comments; and nothing else does."""
    for part in ("src", "hardening", "include"):
        shutil.copytree(ROOT / part, scratch / part)
    seen = {layout_of(scratch)}
    assert seen == {layout_of(ROOT, compiler) for compiler in ("gcc", "clang", "musl-gcc")} and re.fullmatch(r"0x[0-9a-f]{16}", *seen)
    changes = [("src/mspan.h", r"(?m)^(struct mspan \{\n)", r"\1\tuint32_t fresh;\n"),
               ("src/mheap.h", r"size_t os_page_pages;", "uint64_t os_page_pages;"),
               ("hardening/sidetable.h", r"(\tuint32_t alloc_stack;.*\n)(\tuint32_t free_stack;\n)", r"\2\1"),
               ("hardening/guardspace.h", r"GUARD_GRANULE_PAGES = 2", "GUARD_GRANULE_PAGES = 4"),
               ("src/options.def", r"OPTION\(stack_depth,", "OPTION(stack_deep,"),
               ("hardening/depot.h", r"DEPOT_HASH_BITS = ", "DEPOT_HASH_BITS = 1 + ")]
    for name, what, other in changes:
        path = scratch / name
        before = path.read_text()
        after, n = re.subn(what, other, before)
        assert n == 1, name
        path.write_text(after)
        found = layout_of(scratch)
        assert found not in seen, name
        seen.add(found)
        path.write_text(before)
    path = scratch / "src" / "mspan.h"
    path.write_text(path.read_text().replace("struct mspan {\n", "struct mspan {\n\t/* a word\n\t * more */\n\n", 1))
    assert layout_of(scratch) in seen
