"""The reporter on a heap whose metadata somebody has overwritten: it comes to an end, with a whole
report, whatever it reads. tests/test_report.c does the same to the structures it is handed."""
import pathlib
import re

import pytest

HERE = pathlib.Path(__file__).resolve().parent
SEEDS = 250


@pytest.fixture(scope="module")
def corrupt(build):
    return build(HERE / "corrupt.c", "-g", "-O1", "-w")


@pytest.mark.parametrize("mode", ["hardened", "strict", "debug", "guard"])
@pytest.mark.parametrize("place", ["meta", "bss"])
def test_random_corruption(run, corrupt, library, scratch, mode, place):
    env = {"LD_PRELOAD": str(library), "SPANGUARD_OPTIONS": f"mode={mode}:json={scratch}/json.%p"}
    done = run([corrupt, place, "1", str(1 + SEEDS)], env=env, timeout=280)
    assert done.status == 0 and done.err == "", done
    found = {k: int(v) for k, v in re.findall(r"(\w+) (\d+)", done.out)}
    assert found["regions"] >= 1 and sum(found[k] for k in ("reported", "silent", "crashed", "survived")) == SEEDS
    # one may end by a signal that is nobody's: of 40,000, two did (a division by an overwritten size)
    assert found["reported"] >= SEEDS - 1, done
    assert all(p.stat().st_size < 1 << 20 for p in scratch.glob("json.*"))


def test_without_corruption_there_is_one_plain_report(run, build, library, scratch):
    """The same mistakes on a whole heap: no word about corruption."""
    source = scratch / "whole.c"
    text = (HERE / "corrupt.c").read_text()
    assert text.count("\tcorrupt();\n") == 1
    source.write_text(text.replace("\tcorrupt();\n", "\tdraw();\n").replace("static void\ncorrupt(void)", "void\ncorrupt(void)"))
    program = build(source, "-g", "-O1", "-w")
    env = {"LD_PRELOAD": str(library), "SPANGUARD_OPTIONS": f"log={scratch}/log"}
    done = run([program, "meta", "1", "41"], env=env)
    assert done.status == 0, done
    log = (scratch / "log").read_text()
    assert log.count("==ERROR: spanguard: ") == log.count("==ABORTING\n") == 40
    assert "corrupted" not in log and "another error" not in log
