"""malloc and free cost as many instructions beside a million objects as beside ten thousand.

Counted by callgrind, so nothing depends on time; bench/scaling/scaling.py also goes
to 10^8, to heaps of 100 GiB and to many threads.
"""
import pathlib
import subprocess
import sys

SCALING = pathlib.Path(__file__).resolve().parents[2] / "bench" / "scaling" / "scaling.py"


def test_live_objects():
    done = subprocess.run([sys.executable, SCALING, "--most", "1000000", "--gate", "live"],
                          capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines()[2:]] == ["plain", "hardened", "strict"]
