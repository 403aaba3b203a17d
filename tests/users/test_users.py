"""Other people's fuzz targets on top of spanguard: what doc/fuzzing-your-program.md says.

The example is fuzz/users: a store on Debian's libcjson, built for AFL++ and libFuzzer
with no sanitizer.
"""
import glob
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "fuzz" / "users"))
import compare  # noqa: E402

NOT_IN_THE_DIRECTION = {"underflow-read-1"}      # of a guard on the right


@pytest.fixture(scope="module")
def built():
    assert os.path.exists(compare.OURS), "run make first"
    compare.build()
    return pathlib.Path(compare.OUT)


def names(built):
    return subprocess.run([built / "bugs"], capture_output=True, text=True, check=True).stdout.split()


def run_bug(built, name, options, *more):
    env = compare.environment(compare.OURS, {"SPANGUARD_OPTIONS": options})
    return subprocess.run([built / "bugs", name, *more], capture_output=True, text=True, env=env, timeout=60)


@pytest.mark.parametrize("options", ["mode=strict", "mode=debug", "mode=guard", "mode=guard:guard_align=1",
                                     "mode=guard:guard_side=left"])
def test_without_the_bug_all_is_silent(built, options):
    for name in names(built):
        r = run_bug(built, name, options, "clean")
        assert r.returncode == 0 and r.stderr == "", (name, r.stderr)
        assert r.stdout.endswith("end")


def test_guard_to_the_byte_stops_every_bug_but_one(built):
    verdicts = {n: compare.verdict(run_bug(built, n, "mode=guard:guard_align=1")) for n in names(built)}
    assert {n for n, v in verdicts.items() if v == "-"} == NOT_IN_THE_DIRECTION
    late = {n for n, v in verdicts.items() if v.startswith("at free")}
    assert late == {"underflow-write-1"}


def test_guard_on_the_left_stops_the_underflows_at_the_access(built):
    for name in ("underflow-read-1", "underflow-write-1"):
        r = run_bug(built, name, "mode=guard:guard_side=left")
        assert compare.verdict(r) == "at the access, SIGABRT: heap-buffer-underflow", r.stderr


def afl(built, target, work, *limits):
    env = compare.environment(compare.OURS, {"SPANGUARD_OPTIONS": "mode=guard:stack_depth=0:seed=1"}, "AFL_PRELOAD")
    env.update(AFL_SKIP_CPUFREQ="1", AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES="1", AFL_NO_UI="1",
               AFL_NO_AFFINITY="1", AFL_BENCH_UNTIL_CRASH="1")
    here = ROOT / "fuzz" / "users"
    run = subprocess.run(["afl-fuzz", *limits, "-s", "1", "-t", "5000", "-x", here / "store.dict", "-i", here / "seeds",
                          "-o", work, "--", built / target], env=env, capture_output=True, text=True, timeout=500)
    stats = work / "default" / "fuzzer_stats"
    assert stats.exists(), run.stdout[-2000:]
    fields = dict(line.split(":", 1) for line in stats.read_text().splitlines())
    return {k.strip(): v.strip() for k, v in fields.items()}


def replay(target, file):
    """One input under the command, which adds the symbols."""
    return subprocess.run([ROOT / "build" / "spanguard", "--mode=guard", "--", target, "-handle_abrt=0", file],
                          capture_output=True, text=True, env=compare.environment(None, {}), timeout=60)


def test_afl_finds_the_bug_of_the_example(built, tmp_path):
    fields = afl(built, "store_afl", tmp_path, "-E", "300000")
    assert fields["stability"] == "100.00%"
    crashes = glob.glob(f"{tmp_path}/default/crashes/id:*")
    assert crashes, fields
    r = replay(built / "store_lf", crashes[0])
    assert r.returncode == -6
    assert "SUMMARY: spanguard: heap-use-after-free" in r.stderr
    access, freed = r.stderr.split("freed by thread")
    assert re.search(r"READ of size \d+ at 0x", access)
    assert re.search(r"in show \S*store\.c:\d+", access), access
    assert re.search(r"in drop \S*store\.c:\d+", freed.split("allocated by thread")[0]), freed
    # mended, the same input is nothing
    r = replay(built / "store_lf_fixed", crashes[0])
    assert r.returncode == 0 and "spanguard: " not in r.stderr


def test_the_mended_example_is_silent_under_afl(built, tmp_path):
    fields = afl(built, "store_afl_fixed", tmp_path, "-E", "20000")
    assert (fields["saved_crashes"], fields["saved_hangs"], fields["stability"]) == ("0", "0", "100.00%")


@pytest.mark.parametrize("options,most_mib", [("mode=strict", 96), ("mode=guard:stack_depth=0", 400),
                                              ("mode=debug:stack_depth=0:slot_quarantine_bytes=1m", 96)])
def test_memory_stays_bounded_between_iterations(built, tmp_path, options, most_mib):
    """Peak RSS after four times as many inputs is the same, up to a tenth and 8 MiB."""
    peaks = []
    for runs in ("16000", "64000"):
        env = compare.environment(compare.OURS, {"SPANGUARD_OPTIONS": options})
        corpus = tmp_path / runs
        corpus.mkdir()
        r = subprocess.run(["/usr/bin/time", "-f", "PEAK %M", built / "store_lf_fixed", f"-runs={runs}", "-seed=1",
                            "-max_len=256", "-rss_limit_mb=0", corpus, ROOT / "fuzz" / "users" / "seeds"],
                           capture_output=True, text=True, env=env, cwd=tmp_path, timeout=300)
        assert r.returncode == 0, r.stderr[-2000:]
        peaks.append(int(re.search(r"PEAK (\d+)", r.stderr).group(1)) / 1024)
    assert peaks[1] < peaks[0] * 1.1 + 8 and peaks[1] < most_mib, peaks


def test_placement_repeats_with_a_seed(built):
    """The address in the report of one input is the same in every run with seed=N."""
    def address():
        r = run_bug(built, "double-free", "mode=strict:seed=7")
        return re.search(r"on (0x[0-9a-f]+)", r.stderr).group(1)
    assert len({address() for _ in range(4)}) == 1
