"""Heap profiles: what google-pprof makes of them, and folded stacks."""
import os
import pathlib
import re
import shutil
import signal
import subprocess

import pytest

HERE = pathlib.Path(__file__).resolve().parent


@pytest.fixture(scope="session")
def sites(build):
    return build(HERE / "sites.c", "-g", "-O1")


@pytest.fixture
def tool(library):
    def call(*arguments):
        return subprocess.run([library.parent / "spanguard", *map(str, arguments)], capture_output=True, text=True,
                              timeout=60, env={"PATH": os.environ["PATH"]})
    return call


def pprof(program, file, *flags):
    """{function: flat bytes} and the total, as google-pprof --text says them."""
    if shutil.which("google-pprof") is None:
        pytest.skip("not installed: google-pprof")
    done = subprocess.run(["google-pprof", "--text", "--show_bytes", *flags, program, file], capture_output=True,
                          text=True, timeout=120)
    total = re.search(r"^Total: (\d+) B$", done.stdout, re.M)
    assert total, (done.stdout, done.stderr)
    rows = re.findall(r"^\s*(\d+)\s+[\d.]+%\s+[\d.]+%\s+\d+\s+[\d.]+%\s+(\S+)", done.stdout, re.M)
    return {name: int(flat) for flat, name in rows}, int(total[1])


def folded(text):
    rows = [line.rsplit(" ", 1) for line in text.splitlines()]
    return [(stack.split(";"), int(n)) for stack, n in rows]


def of_function(rows, name):
    return sum(n for stack, n in rows if name in stack)


@pytest.mark.parametrize("mode", ["hardened", "debug", "guard"])
def test_every_object(tool, sites, scratch, mode):
    file = scratch / "heap"
    done = tool("profile", f"--mode={mode}", "--profile=1", f"--profile_file={file}", "--", sites)
    assert done.returncode == 0 and done.stderr == "", done
    flat, total = pprof(sites, file)
    assert flat["take_300"] == 600000 and flat["take_100"] == 200000 and "come_and_go" not in flat, flat
    assert 800000 <= total < 820000, total
    flat, _ = pprof(sites, file, "--alloc_space")
    assert flat["come_and_go"] == 900000 and flat["take_300"] == 600000, flat
    rows = folded(tool("profile", "--folded", file).stdout)
    assert of_function(rows, "take_300") == 600000 and of_function(rows, "come_and_go") == 0
    stack = next(s for s, _ in rows if "take_300" in s)
    assert stack.index("main") < stack.index("work") < stack.index("take_300") < stack.index("malloc"), stack
    rows = folded(tool("profile", "--folded-total", file).stdout)
    assert of_function(rows, "come_and_go") == 900000


def test_sampled(tool, sites, scratch):
    """A mean of 1,700,000 / 2,000 = 850 samples: the sums are off by more than a quarter once in 10^9 runs."""
    file = scratch / "heap"
    done = tool("profile", "--profile=2000", f"--profile_file={file}", "--", sites)
    assert done.returncode == 0 and done.stderr == "", done
    assert " @ heap_v2/2000\n" in file.read_text()
    flat, _ = pprof(sites, file)
    assert 450000 < flat["take_300"] < 750000 and 100000 < flat["take_100"] < 300000, flat
    rows = folded(tool("profile", "--folded", file).stdout)
    assert abs(of_function(rows, "take_300") - flat["take_300"]) < 20000, rows


def test_samples_are_fair(tool, sites, scratch):
    """take_300 is sampled some 279 times a run, so that the mean of 16 runs is off by more than a tenth once in 10^12."""
    file = scratch / "heap"
    sums = []
    for _ in range(16):
        tool("profile", "--profile=2000", f"--profile_file={file}", "--", sites)
        sums.append(of_function(folded(tool("profile", "--folded", file).stdout), "take_300"))
    assert abs(sum(sums) / len(sums) - 600000) < 60000, sums


def test_signal(library, sites, scratch):
    """What is in use when the signal comes; nothing is written at this program's end."""
    file = scratch / "heap"
    options = f"records=1:profile=1:profile_file={scratch}/heap.%p:profile_signal={int(signal.SIGUSR1)}"
    env = {"PATH": os.environ["PATH"], "LD_PRELOAD": str(library), "SPANGUARD_OPTIONS": options}
    child = subprocess.Popen([sites, "signal"], env=env)
    assert child.wait(timeout=60) == 0
    flat, _ = pprof(sites, file.with_name(f"heap.{child.pid}"))
    assert flat["take_300"] == 600000 and flat["take_100"] == 200000, flat


def test_refuses(tool, scratch):
    text = scratch / "text"
    text.write_text("no profile")
    done = tool("profile", "--folded", text)
    assert done.returncode == 125 and "is no heap profile" in done.stderr
    assert tool("profile").returncode == 2
