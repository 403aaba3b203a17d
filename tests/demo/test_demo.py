"""ci/demo, on small workloads: what a visitor sees first must work - and must be able to fail."""
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEMO = ROOT / "ci" / "demo"


def test_demo(run, library):
    done = run([DEMO, "--quick"], env={"SPANGUARD_LIB": str(library)}, timeout=300)
    lines = done.out.splitlines()
    assert not [lines[i:i + 4] for i, text in enumerate(lines) if "FAIL" in text]
    out = done.clean()
    assert "FAIL" not in out and "All well" in out, out
    assert out.count("outputs equal") == 8 and out.count("==ERROR: spanguard:") == 10, out
    if (ROOT / "build" / "spanguard").exists():
        for function in ("message_free", "list_free", "session_open", "image_sum", "text_new"):
            assert f" in {function} " in out, out
        for place, times in (("heap-buffer-overflow on address", 2), ("heap-use-after-free on address", 2),
                             ("detected memory leaks", 1)):
            assert out.count(place) == times, out
        assert out.count("nothing to report") == 2, out


def test_demo_can_fail(build, run):
    """A library that replaces nothing: not bound, no report, no statistics."""
    nothing = build(ROOT / "tests" / "demo" / "nothing.c", "-shared", "-fPIC", name="libnothing.so")
    done = run([DEMO, "--quick"], env={"SPANGUARD_LIB": str(nothing)}, timeout=300)
    assert done.status == 1, done
    assert done.out.count("FAIL") == 15, done
