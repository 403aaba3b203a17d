"""A program that is built with AddressSanitizer has its malloc inside; preloading spanguard must not disturb it.

The spanguard command refuses such a program (tests/command). Without the command the sanitizer's runtime either refuses
to start, or, linked into the program, is in front of us and keeps all objects: then it must find what it finds without us.
"""
import pathlib
import shutil
import subprocess

import pytest

SOURCE = pathlib.Path(__file__).resolve().parent / "errors.cc"
pytestmark = pytest.mark.skipif(shutil.which("clang++") is None, reason="clang is not installed")


@pytest.fixture(scope="session")
def sanitized(shared_tmp):
    program = shared_tmp / "errors-asan"
    subprocess.run(["clang++", "-g", "-O1", "-fno-builtin", "-w", "-fsanitize=address", "-o", program, SOURCE], check=True)
    return program


@pytest.mark.parametrize("kind,what", [("over-write", "heap-buffer-overflow"), ("after-read", "heap-use-after-free"),
                                       ("free-twice", "attempting double-free")])
def test_asan_is_not_disturbed(run, sanitized, library, kind, what):
    env = {"LD_PRELOAD": str(library), "ASAN_OPTIONS": "detect_leaks=0"}
    found = run([sanitized, kind, 100], env=env)
    assert found.status == 1 and f"ERROR: AddressSanitizer: {what}" in found.err and "ERROR: spanguard" not in found.err, found
    silent = run([sanitized, kind, 100, "ok"], env=env)
    assert silent.status == 0 and silent.err == "" and silent.out == "end\n", silent


def test_the_shared_runtime_refuses(run, build, library):
    program = build(SOURCE, "-g", "-O1", "-fno-builtin", "-w", "-fsanitize=address")
    done = run([program, "over-write", 100], env={"LD_PRELOAD": str(library)})
    assert done.status == 1 and "ASan runtime does not come first" in done.err, done
