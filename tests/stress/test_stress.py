"""The stress program: ten seconds per mode here, ten minutes by `make stress`.

It is itself tested: with a fault planted in libc's malloc it must fail.
"""
import pathlib
import re

import pytest

HERE = pathlib.Path(__file__).resolve().parent
SECONDS = 10


@pytest.fixture(scope="session")
def stress(build):
    return build(HERE / "stress.c", "-O2", "-pthread")


@pytest.mark.glibc
def test_on_libc(run, stress):
    run([stress, 4], timeout=120).clean()


# of an object that is there twice, both its bytes and the size that the other has of it are wrong
@pytest.mark.parametrize("fault,said", [("twice", "contents lost|usable size too small"), ("smear", "contents lost"),
                                        ("grow", "growth from"), ("zero", "calloc is not zero")])
def test_sees_planted_fault(build, run, stress, fault, said):
    broken = build(HERE / "broken.c", "-O2", "-shared", "-fPIC", name="libbroken.so")
    done = run([stress, 12 if fault == "grow" else 8], env={"BROKEN": fault}, preload=[broken], timeout=120)
    assert done.status != 0 and re.search(said, done.err), done


def check_output(out):
    assert "verifies" in out and " 0 verifies" not in out, out
    assert " 0 forks" not in out and " 0 by mail" not in out, out


IN_STRICT = [pytest.param(options, marks=pytest.mark.strict) for options in ("", "guards=mprotect")]


MARK = "quarantine=mark:mark_pass_bytes=4m"


@pytest.mark.parametrize("options", [*IN_STRICT, "verify_every=5000", "scavenge=background",
                                     pytest.param(MARK, marks=pytest.mark.strict)])
def test_stress(run, stress, guarded, options):
    seconds = SECONDS if options == "" else SECONDS / 2
    check_output(run([stress, seconds], guarded, options, timeout=150).clean())


@pytest.mark.slow
@pytest.mark.strict
@pytest.mark.parametrize("options", ["", "quarantine=mark", "guards=mprotect"])
def test_stress_for_ten_minutes(run, stress, guarded, options):
    check_output(run([stress, 600], guarded, options, timeout=800).clean())
