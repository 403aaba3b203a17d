"""What every test of the finished library shares.

Fixtures
  build(source, *flags, name=, libs=)   compiled program or library, cached for the session
  alloc         the allocator under test: glibc, plain, hardened (one test run each),
                and strict and debug for what carries the mark `strict`
  guarded       the same without glibc: for what only spanguard promises
  run(argv, alloc, ...)                 runs to the end, never longer than `timeout` seconds
  report(result)                        the parsed report of a run that died

The library is $SPANGUARD_LIB, by default build/libspanguard.so of this tree. A
missing library is a failure and not a skip: silence must not look like success.

Programs run in a session of their own, so a hung one is killed with all it
started. Nothing is inherited from the caller's environment that names a malloc.
"""
import hashlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time

import pytest

TESTS = pathlib.Path(__file__).resolve().parent
ROOT = TESTS.parent
LIB = pathlib.Path(os.environ.get("SPANGUARD_LIB", ROOT / "build" / "libspanguard.so")).resolve()


# ---------------------------------------------------------------- temporary directory
# One directory for all workers, readable by every user: some programs drop root.

def pytest_configure(config):
    config.addinivalue_line("markers", "strict: runs in mode=strict and mode=debug as well as in the other modes")
    if hasattr(config, "workerinput"):
        config.spanguard_tmp = pathlib.Path(config.workerinput["spanguard_tmp"])
        return
    config.spanguard_tmp = pathlib.Path(tempfile.mkdtemp(prefix="spanguard-tests-"))
    config.spanguard_tmp.chmod(0o755)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    node.workerinput["spanguard_tmp"] = str(node.config.spanguard_tmp)


def pytest_unconfigure(config):
    if not hasattr(config, "workerinput") and hasattr(config, "spanguard_tmp"):
        shutil.rmtree(config.spanguard_tmp, ignore_errors=True)


@pytest.fixture(scope="session")
def shared_tmp(pytestconfig):
    return pytestconfig.spanguard_tmp


@pytest.fixture
def scratch(shared_tmp):
    """An empty directory for one test, open to every user."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="scratch-", dir=shared_tmp))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path, ignore_errors=True)


# ---------------------------------------------------------------- compiling

class Builder:
    """Compiles one C or C++ source; the result is shared by everything that asks for the same."""

    def __init__(self, directory):
        self.dir = directory

    def __call__(self, source, *flags, name=None, libs=()):
        source = pathlib.Path(source)
        compiler = "g++" if source.suffix in (".cpp", ".cc") else "gcc"
        key = hashlib.sha256()
        for part in [source, *sorted(source.parent.glob("*.h"))]:
            key.update(part.read_bytes())
        key.update(repr((compiler, flags, libs)).encode())
        target = self.dir / (key.hexdigest()[:16] + "-" + (name or source.stem))
        if target.exists():
            return target
        fresh = target.with_name(f"{target.name}.{os.getpid()}")
        command = [compiler, *flags, "-o", fresh, source, *libs]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        try:
            os.link(fresh, target)
        except FileExistsError:
            pass        # another worker was faster, and may be running its own
        fresh.unlink()
        return target


@pytest.fixture(scope="session")
def build(shared_tmp):
    directory = shared_tmp / "bin"
    directory.mkdir(exist_ok=True)
    return Builder(directory)


# ---------------------------------------------------------------- allocators

class Alloc:
    """An allocator a program can be run on."""

    def __init__(self, name):
        self.name = name
        self.guarded = name != "glibc"

    def __repr__(self):
        return self.name

    def environment(self, options=""):
        if not self.guarded:
            return {}
        if not LIB.exists():
            pytest.fail(f"{LIB} is not there: run make, or set SPANGUARD_LIB")
        opts = f"mode={self.name}" + (":" + options if options else "")
        return {"LD_PRELOAD": str(LIB), "SPANGUARD_OPTIONS": opts}


GLIBC = Alloc("glibc")
STRICT = Alloc("strict")
DEBUG = Alloc("debug")
MODES = [Alloc("plain"), Alloc("hardened"), STRICT, DEBUG]


@pytest.fixture(params=[GLIBC, *MODES], ids=repr)
def alloc(request):
    return request.param


@pytest.fixture(params=MODES, ids=repr)
def guarded(request):
    return request.param


def wanted(item):
    """Strict and debug take the slow way at every call: they run where they add something."""
    params = item.callspec.params if hasattr(item, "callspec") else {}
    slow = [params[name] for name in ("alloc", "guarded") if params.get(name) in (STRICT, DEBUG)]
    mark = item.get_closest_marker("strict")
    return not slow or (mark is not None and (slow[0] is STRICT or mark.kwargs.get("debug", True)))


def pytest_collection_modifyitems(items):
    items[:] = [item for item in items if wanted(item)]


@pytest.fixture(scope="session")
def library():
    if not LIB.exists():
        pytest.fail(f"{LIB} is not there: run make, or set SPANGUARD_LIB")
    return LIB


# ---------------------------------------------------------------- running

class Result:
    """How a program ended. status: exit code; negative: the signal that ended it."""

    def __init__(self, argv, status, out, err, seconds):
        self.argv, self.status, self.out, self.err, self.seconds = argv, status, out, err, seconds

    def __repr__(self):
        head = f"{' '.join(map(str, self.argv))}\nstatus {self.status}, {self.seconds:.1f} s"
        return f"{head}\n--- stdout\n{self.out[-4000:]}\n--- stderr\n{self.err[-6000:]}"

    def clean(self):
        """Exit 0 and not a word on stderr: returns stdout."""
        assert self.status == 0, repr(self)
        assert self.err == "", repr(self)
        return self.out

    def aborted(self):
        """Died by SIGABRT, the way every report ends: returns stderr."""
        assert self.status == -signal.SIGABRT, repr(self)
        return self.err


def base_environment():
    """The caller's environment without anything that chooses or tunes a malloc."""
    drop = ("LD_", "SPANGUARD_OPTIONS", "MALLOC_", "GLIBC_TUNABLES", "PYTHON")
    env = {k: v for k, v in os.environ.items() if not k.startswith(drop)}
    env["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    env["LC_ALL"] = "C.UTF-8"
    return env


def run_program(argv, alloc=GLIBC, options="", env=None, timeout=60, preload=(), via=(), **kw):
    """Runs argv on `alloc`.

    preload: libraries to put in front of ours. via: a command in front of argv
    that runs without our library (unshare, setpriv ...); it must exist.
    Output is text; bytes that are not UTF-8 come out as backslash escapes."""
    env = {**base_environment(), **alloc.environment(options), **(env or {})}
    if preload:
        env["LD_PRELOAD"] = " ".join([*map(str, preload), env.get("LD_PRELOAD", "")]).strip()
    argv = [str(a) for a in argv]
    if via:
        moved = [f"{k}={env.pop(k)}" for k in ("LD_PRELOAD", "SPANGUARD_OPTIONS") if k in env]
        argv = [*map(str, via), "/usr/bin/env", *moved, *argv]
    kw.setdefault("stdin", subprocess.DEVNULL)
    kw.setdefault("stdout", subprocess.PIPE)
    kw.setdefault("stderr", subprocess.PIPE)
    began = time.monotonic()
    with subprocess.Popen(argv, env=env, start_new_session=True, text=True,
                          errors="backslashreplace", **kw) as child:
        try:
            out, err = child.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            out, err = child.communicate()
            late = Result(argv, child.returncode, out or "", err or "", time.monotonic() - began)
            pytest.fail(f"hung: not done after {timeout} s\n{late!r}")
    return Result(argv, child.returncode, out or "", err or "", time.monotonic() - began)


@pytest.fixture(scope="session")
def run():
    return run_program


# ---------------------------------------------------------------- reports

FRAME = re.compile(
    r"^\s*#(?P<no>\d+) 0x(?P<pc>[0-9a-f]+)(?: in (?P<func>.+?))? "
    r"\((?P<module>[^()]*?)\+0x(?P<offset>[0-9a-f]+)\)", re.M)
FIRST = re.compile(r"^==(?P<pid>\d+)==ERROR: spanguard: (?P<what>.*)$", re.M)


class Report:
    """The facts of one report.

    what: the sentence of the first line; api: the call it was; frames: (module, offset) of the stack
    of the offending call, innermost first; text: all of it."""

    def __init__(self, text):
        first = FIRST.findall(text)
        assert len(first) == 1, f"want exactly one report, have {len(first)}:\n{text}"
        said_first = text.split("\n", 1)[1] if text.startswith("=====") else text
        assert FIRST.match(said_first), f"the report is not the first thing said:\n{text}"
        self.text = text
        self.pid, self.what = int(first[0][0]), first[0][1]
        call = re.search(r"^  the call was ([^,\n]*)", text, re.M)
        self.api = call and call[1]
        self.frames = []
        for frame in FRAME.finditer(text):
            if int(frame["no"]) != len(self.frames):
                break       # the next stack of the same report
            self.frames.append((frame["module"], int(frame["offset"], 16)))

    def addresses(self):
        """Every address the first line names."""
        return [int(a, 16) for a in re.findall(r"0x([0-9a-f]+)", self.what)]

    def functions(self, module, tool="addr2line"):
        """Names of the functions of `module` on the stack, innermost first."""
        return [symbol_at(module, off, tool) for mod, off in self.frames
                if os.path.basename(mod) == os.path.basename(str(module))]


SYMBOLS = {}


def symbol_at(module, offset, tool):
    key = (str(module), offset, tool)
    if key not in SYMBOLS:
        done = subprocess.run([tool, "-f", "-C", "-e", str(module), hex(offset)],
                              capture_output=True, text=True, timeout=20)
        name = done.stdout.split("\n")[0].replace("(anonymous namespace)::", "")
        SYMBOLS[key] = name.split("(")[0]
    return SYMBOLS[key]


@pytest.fixture(scope="session")
def report():
    return lambda result: Report(result.aborted())
