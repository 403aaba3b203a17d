"""spanguard addr and spanguard map: another process's heap, and that of a core file."""
import os
import pathlib
import re
import resource
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
        assert far.stdout == "0x1234 is no address of the heap\n" and far.returncode == 1


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
