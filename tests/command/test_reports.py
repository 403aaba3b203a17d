"""Text and JSON of one report say the same, for every kind of error; schema; symbols."""
import json
import os
import pathlib
import re
import subprocess

import pytest

# bug, mode, code, class
KINDS = [
    ("double-free", "hardened", "SG-DF", "double-free"),
    ("double-free", "debug", "SG-DF", "double-free"),
    ("global", "hardened", "SG-IF", "bad-free"),
    ("interior", "hardened", "SG-IF2", "bad-free"),
    ("foreign", "hardened", "SG-IF3", "bad-free"),
    ("stale", "hardened", "SG-SP", "stale-pointer"),
    ("wrong-size", "hardened", "SG-SD", "free-size-mismatch"),
    ("use-after-free", "strict", "SG-UAF", "heap-use-after-free"),
    ("overflow", "strict", "SG-OV", "heap-buffer-overflow"),
    ("late-overflow", "strict", "SG-OV2", "heap-buffer-overflow"),
    ("late-overflow", "debug", "SG-OV2", "heap-buffer-overflow"),
]


def both(spanguard, bugs, scratch, reports, bug, mode, *more):
    text = spanguard(f"--mode={mode}", f"--json={scratch}/json", *more, bugs, bug).aborted()
    found = reports(scratch / "json")
    assert len(found) == 1, found
    return text, found[0]


def pcs(text, title):
    """The pcs of one stack of the text; title "" is the first."""
    start = text.index(title)
    found = []
    for no, pc in re.findall(r"^    #(\d+) (0x[0-9a-f]+) ", text[start:], re.M):
        if int(no) != len(found):
            break
        found.append(pc)
    return found


@pytest.mark.parametrize("bug, mode, code, kind", KINDS)
def test_the_same_facts(spanguard, bugs, scratch, reports, bug, mode, code, kind):
    text, report = both(spanguard, bugs, scratch, reports, bug, mode)
    assert (report["id"], report["class"]) == (code, kind), text
    assert f"=={report['pid']}==ERROR: spanguard: {report['title']}" in text
    assert f"\nCODE: {code} (spanguard explain {code})\n" in text
    assert re.search(rf"^SUMMARY: spanguard: {kind} ", text, re.M)
    assert f"\nDEDUP_TOKEN: {report['dedup_token']}\n" in text
    assert f"thread T{report['thread']} ({report['thread_name']}, tid {report['tid']})" in text
    if "hint" in report:
        assert f"\nHINT: {report['hint']}\n" in text
    if "call" in report:
        assert f"  the call was {report['call']}, the check that fired {report['check']}\n" in text
    for stack, title in (("error", ""), ("free", "freed by thread"), ("alloc", "allocated by thread")):
        if stack in report["stacks"]:
            assert [f["pc"] for f in report["stacks"][stack]["frames"]] == pcs(text, title), (stack, text)
        elif title:
            assert title not in text
    block = report.get("block")
    if block:
        distance = f"{block['distance']:,} byte" + ("" if block["distance"] == 1 else "s")
        relation = {"inside": "inside of", "before": "before", "after": "after"}[block["relation"]]
        assert re.search(rf"^{report['addr']} is located {distance} {relation} {block['bytes']}-byte \w+ \[{block['base']},",
                         text, re.M), text
    if "region" in report and "path" in report["region"]:
        assert report["region"]["path"] in text
    for byte in report.get("changed", {"bytes": []})["bytes"]:
        assert f"    offset {byte['offset']}: 0x{byte['found']:02x} (expected 0x{byte['expected']:02x})\n" in text
    assert report["exe"] == str(bugs) and not report["continues"]


def test_changed_bytes(spanguard, bugs, scratch, reports):
    text, report = both(spanguard, bugs, scratch, reports, "late-overflow", "debug")
    assert [b["offset"] for b in report["changed"]["bytes"]] == list(range(40, 48))
    assert bytes(b["found"] for b in report["changed"]["bytes"]) == b"spilt!!!"
    assert report["changed"]["text"] == "spilt!!!" and report["changed"]["count"] == 8
    assert report["changed"]["word"]["kind"] == "other"


NEIGHBOUR = re.compile(r"^neighbour (before|behind): (\d+)-byte (region|slot) \[(0x[0-9a-f]+),0x[0-9a-f]+\) "
                       r"\((?:(\w+), allocation (\d+), |(a sampled object), )?(live|freed|free)(?: by (\w+))?\)(, allocated here:)?$", re.M)


def told_neighbours(text):
    """As JSON has them, but for stacks."""
    found = {}
    for side, size, kind, base, api, serial, what, state, free_api, _ in NEIGHBOUR.findall(text):
        found[side] = {"base": base, "bytes": int(size), "state": state}
        assert (kind == "region") == bool(api or what)
        if what:
            found[side]["what"] = what
        elif kind == "region":
            found[side] |= {"api": api, "serial": int(serial)}
        if free_api:
            found[side]["free_api"] = free_api
    return found


# mode, options of it, what a neighbour's size is, how far away (0: one knows not)
ROWS = [("debug", ["--randomize=0"], 40, 64), ("guard", ["--guard-align=1"], 40, 8192), ("strict", ["--randomize=0"], 48, 48),
        ("hardened", ["--sample=1"], 40, 0)]


@pytest.mark.parametrize("mode, options, size, step", ROWS)
def test_neighbours(spanguard, bugs, scratch, reports, line, mode, options, size, step):
    """Before and behind, live or freed, and where allocated; as text and as JSON."""
    done = spanguard(f"--mode={mode}", *options, f"--json={scratch}/json", bugs, "in-a-row")
    text, report = done.err, reports(scratch / "json")[0]
    row = {int(at, 16): state for at, state in re.findall(r"^(0x[0-9a-f]+) (live|freed)$", done.out, re.M)}
    assert report["id"] in ("SG-OV", "SG-OV2") and len(row) == 9, done
    told = {side: {k: v for k, v in n.items() if k != "alloc"} for side, n in report["neighbours"].items()}
    assert told == told_neighbours(text), text
    base, known = int(report["block"]["base"], 16), 0
    for side, n in report["neighbours"].items():
        at = int(n["base"], 16)
        assert at < base if side == "before" else at > base, text
        if at not in row:
            continue
        known += 1
        assert n["state"] == row[at] and n["bytes"] == size and step in (0, abs(at - base)), text
        assert n.get("what") == ("a sampled object" if mode == "hardened" else None)
        if mode != "strict":
            made = [f["line"] for f in n["alloc"]["frames"] if f.get("file", "").endswith("bugs.c")]
            assert made[0] == line("kept" if row[at] == "live" else "released"), text
            assert len(n["alloc"]["frames"]) <= 3
            assert n.get("free_api") == (None if row[at] == "live" or mode == "hardened" else "free")
    assert known >= 1, text


def test_no_neighbours_where_they_tell_nothing(spanguard, bugs, scratch, reports):
    for bug in ("double-free", "stale", "wrong-size", "foreign"):
        text, report = both(spanguard, bugs, scratch, reports, bug, "debug")
        assert "neighbours" not in report and "\nneighbour " not in text
        (scratch / "json").unlink()


def test_debug_mode_keeps_the_life_of_the_object(spanguard, bugs, scratch, reports, line):
    text, report = both(spanguard, bugs, scratch, reports, "double-free", "debug")
    assert report["block"]["bytes"] == 40 and report["block"]["api"] == "malloc" and report["block"]["serial"] > 0
    assert report["block"]["state"] == "freed"

    def lines(stack):
        return [f["line"] for f in report["stacks"][stack]["frames"] if f.get("file", "").endswith("bugs.c")]
    assert lines("alloc")[0] == line("allocation")
    assert lines("free")[:3] == [line("inlined free"), line("call of release"), line("first free")]
    assert lines("error")[:3] == [line("inlined free"), line("call of release"), line("second free")]
    assert f"allocation {report['block']['serial']}" in text


def test_access(spanguard, bugs, scratch, reports, line):
    text, report = both(spanguard, bugs, scratch, reports, "use-after-free", "strict")
    access = report["access"]
    assert access["kind"] == "write" and access["addr"] == report["addr"]
    assert f" at pc {access['pc']} bp {access['bp']} sp {access['sp']}\nWRITE " in text
    first = report["stacks"]["error"]["frames"][0]
    assert first["pc"] == access["pc"] and first["line"] == line("bad write")


@pytest.mark.parametrize("mode", ["debug", "guard"])
def test_bad_requests_go_on(spanguard, bugs, scratch, reports, mode, line):
    done = spanguard(f"--mode={mode}", f"--json={scratch}/json", bugs, "bad-requests")
    assert done.status == 86 and done.out == "the end\n", done
    found = reports(scratch / "json")
    assert [(r["id"], r["title"], r["continues"]) for r in found] == [
        ("SG-BR", "bad request: malloc of 18,446,744,073,709,551,608 bytes (-8 as a signed number)", True),
        ("SG-BR", "bad request: calloc of 9223372036854775807 times 4 bytes", True),
        ("SG-BR", "bad request: posix_memalign with alignment 24", True)]
    assert line("negative size") in [f.get("line") for f in found[0]["stacks"]["error"]["frames"]]
    assert found[0]["given"] == "0xfffffffffffffff8"
    for title in (r["title"] for r in found):
        assert done.err.count(f"==ERROR: spanguard: {title}") == 1
    assert spanguard("--mode=hardened", bugs, "bad-requests").clean() == "the end\n"


@pytest.mark.parametrize("mode", ["debug", "guard"])
def test_no_memory_goes_on(spanguard, bugs, scratch, reports, mode, line):
    """Each place once, with what stands in the way; the call fails as it would have."""
    done = spanguard(f"--mode={mode}", f"--json={scratch}/json", bugs, "no-memory")
    assert done.status == 86 and done.out == "the end\n", done
    found = reports(scratch / "json")
    assert [(r["id"], r["title"], r["continues"]) for r in found] == [
        ("SG-OOM", f"out of memory: {api} of 2,147,483,648 bytes", True) for api in ("malloc", "realloc", "calloc")], done
    assert line("no memory") in [f.get("line") for f in found[0]["stacks"]["error"]["frames"]]
    for report in found:
        told = report["memory"]
        assert told["address_limit"] == 2 << 30 and 0 < told["resident_bytes"] <= told["address_bytes"] <= 2 << 30
        assert 10 < told["mappings"] < told["mappings_limit"]
        assert (f"\naddress space: {told['address_bytes']} of {2 << 30} bytes (RLIMIT_AS); in memory: "
                f"{told['resident_bytes']} bytes; mappings: {told['mappings']} of {told['mappings_limit']}\n") in done.err
        assert "ulimit -v unlimited" in report["hint"]
    for options in (["--mode=hardened"], [f"--mode={mode}", "--report-oom=0"]):
        done = spanguard(*options, bugs, "no-memory")
        assert done.status == 0 and done.out == "the end\n" and "ERROR" not in done.err, done


def test_modules(spanguard, bugs, scratch, reports):
    """Each frame lies in one of them, with the same offset and build id."""
    _, report = both(spanguard, bugs, scratch, reports, "late-overflow", "debug")
    found = report["modules"]
    assert {str(bugs), str(report["stacks"]["error"]["frames"][0]["module"])} <= {m["path"] for m in found}
    frames = [f for s in report["stacks"].values() for f in s["frames"]]
    for f in frames:
        pc = int(f["pc"], 16)
        inside = [m for m in found if int(m["start"], 16) <= pc < int(m["end"], 16)]
        assert len(inside) == 1 and inside[0]["path"] == f["module"] and inside[0]["build_id"] == f["build_id"], f
        assert pc - int(inside[0]["bias"], 16) == int(f["offset"], 16)
    assert {m["path"] for m in found} == {f["module"] for f in frames}


def test_symbolize_elsewhere(command, run, bugs, library, scratch, reports, line):
    """The program is gone and its frames are bare pcs: modules and a directory of debug files are enough."""
    mine = scratch / "bugs"
    mine.write_bytes(bugs.read_bytes())
    mine.chmod(0o755)
    env = {"LD_PRELOAD": str(library), "SPANGUARD_OPTIONS": f"mode=debug:json={scratch}/json:log={scratch}/log"}
    run([mine, "double-free"], env=env)
    raw = json.loads((scratch / "json").read_text())
    for stack in raw["stacks"].values():
        stack["frames"] = [{"pc": f["pc"]} for f in stack["frames"]]
    (scratch / "bare").write_text(json.dumps(raw) + "\n")
    build_id = next(m["build_id"] for m in raw["modules"] if m["path"] == str(mine))
    kept = scratch / "debug" / ".build-id" / build_id[:2]
    kept.mkdir(parents=True)
    subprocess.run(["objcopy", "--only-keep-debug", mine, kept / f"{build_id[2:]}.debug"], check=True)
    mine.unlink()

    def lines(*options):
        (scratch / "out").write_text(run([command, "symbolize", *options, scratch / "bare"]).clean())
        return [f["line"] for f in reports(scratch / "out")[0]["stacks"]["free"]["frames"] if f.get("file", "").endswith("bugs.c")]
    wanted = [line("inlined free"), line("call of release"), line("first free")]
    assert lines() == []
    assert lines(f"--debug-dir={scratch}/debug")[:3] == wanted
    (scratch / "named").mkdir()
    (scratch / "named" / "bugs").write_bytes(bugs.read_bytes())
    assert lines(f"--debug-dir={scratch}/named")[:3] == wanted
    text = run([command, "symbolize", f"--debug-dir={scratch}/debug", scratch / "log"]).clean()
    assert f"bugs.c:{line('inlined free')}" in text
    (scratch / "named" / "bugs").write_bytes(pathlib.Path("/bin/true").read_bytes())
    assert lines(f"--debug-dir={scratch}/named") == []


def test_same_place_same_fingerprint(spanguard, bugs, scratch, reports):
    prints = []
    for i, bug in enumerate(["double-free", "double-free", "interior"]):
        spanguard(f"--json={scratch}/{i}", bugs, bug)
        prints.append(reports(scratch / str(i))[0]["fingerprint"])
    assert prints[0] == prints[1] != prints[2]


def test_names_that_are_no_utf8(spanguard, bugs, scratch, reports):
    """The name of a file may be any bytes; JSON may not."""
    odd = os.fsencode(scratch) + b"/na\xffme\"\\\n"
    pathlib.Path(os.fsdecode(odd)).write_bytes(bugs.read_bytes())
    os.chmod(odd, 0o755)
    spanguard(f"--json={scratch}/json", os.fsdecode(odd), "double-free")
    assert reports(scratch / "json")[0]["exe"].endswith('/na\ufffdme"\\\n')


def test_long_stack_fits_in_one_line(spanguard, build, scratch, reports):
    """Paths as long as they can be, and deep recursion: frames are left out, not half the line."""
    deep = scratch
    for _ in range(7):
        deep = deep / ("x" * 50)
    deep.mkdir(parents=True)
    source = scratch / "deep.c"
    source.write_text("#include <stdlib.h>\n__attribute__((noinline)) void down(int n, char *p)\n"
                      "{ if (n) down(n - 1, p); else { free(p); free(p); } __asm__ volatile(\"\" ::: \"memory\"); }\n"
                      "int main(void) { down(200, malloc(40)); return 0; }\n")
    subprocess.run(["gcc", "-g", "-O1", "-w", "-o", deep / "deep", source], check=True)
    spanguard("--mode=debug", "--stack-depth=64", f"--json={scratch}/json", deep / "deep")
    report = reports(scratch / "json")[0]
    assert [len(report["stacks"][s]["frames"]) for s in ("error", "free", "alloc")] == [64, 64, 3] or \
        report["stacks"]["error"].get("cut")
