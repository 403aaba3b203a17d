"""Runs one row under one allocator and returns what it took.

Times come from the monotonic clock around fork and wait4, CPU time and peak RSS
from wait4, all taken in launch.c (see there why not in Python). A run that
exits with an error, is killed, takes too long or prints something other than
the reference run under glibc is a Failure with the name of row and allocator.
"""
import hashlib
import os
import shlex
import shutil
import signal
import subprocess
from dataclasses import dataclass

import redis_row
from rows import SYSTEM_PATH

BENCH_DIR = os.path.dirname(os.path.abspath(__file__))


class Failure(Exception):
    pass


@dataclass
class Sample:
    time_s: float
    cpu_s: float
    rss_kib: int
    output: bytes = b""   # what must be equal to the reference


class Bench:
    """Directories, and what the rows must print."""

    def __init__(self, build_dir, quick, timeout_s):
        self.bin_dir = os.path.join(build_dir, "bin")
        self.in_dir = os.path.join(build_dir, "quick-input" if quick else "input")
        self.out_dir = os.path.join(build_dir, "output")
        self.quick = quick
        self.timeout_s = timeout_s
        self.reference = {}
        for path in (self.bin_dir, self.in_dir, self.out_dir):
            os.makedirs(path, exist_ok=True)

    def command(self, row):
        words = row.quick if self.quick and row.quick else row.command
        places = {"bin": self.bin_dir, "in": self.in_dir, "out": self.out_dir, "bench": BENCH_DIR}
        return [word.format(**places) for word in words]

    def environment(self, row, allocator):
        """What the measured command gets on top of the bare environment."""
        extra = {**row.env, **allocator.env}
        if allocator.lib:
            extra["LD_PRELOAD"] = os.path.abspath(allocator.lib)
        return extra

    def bare_environment(self):
        return {"PATH": SYSTEM_PATH, "HOME": self.out_dir, "TMPDIR": self.out_dir, "LC_ALL": "C.UTF-8"}

    def by_hand(self, row, allocator):
        """The same run as a shell line."""
        words = [f"{k}={shlex.quote(v)}" for k, v in self.environment(row, allocator).items()]
        return " ".join(words + [shlex.quote(word) for word in self.command(row)])

    def write_inputs(self, row):
        files = {**row.files, **(row.quick_files if self.quick else {})}
        stamp = hashlib.sha256(open(os.path.join(BENCH_DIR, "gen.py"), "rb").read()
                               + open(os.path.join(BENCH_DIR, "rows.py"), "rb").read()).hexdigest()[:12]
        for name, content in files.items():
            path = os.path.join(self.in_dir, name)
            mark = f"{path}.{stamp}"
            if os.path.exists(path) and os.path.exists(mark):
                continue
            with open(path, "wb") as f:
                f.write(content())
            open(mark, "w").close()

    def run(self, row, allocator):
        """One measured run, compared with the reference; raises Failure."""
        sample = redis_row.run(self, allocator, Failure, Sample) if row.server else self.run_command(row, allocator)
        if row.silent and sample.output:
            raise Failure(f"{row.name} under {allocator.name} printed: {shorten(sample.output)}")
        expected = self.reference.setdefault(row.name, sample.output)
        if sample.output != expected:
            raise Failure(f"{row.name} under {allocator.name} printed or wrote other output than under glibc:\n"
                          f"  expected {shorten(expected)}\n  got      {shorten(sample.output)}")
        return sample

    def run_command(self, row, allocator):
        name = f"{row.name} under {allocator.name}"
        self.clear_output()
        status, numbers, printed = self.launch(self.command(row), self.environment(row, allocator), name)
        if status != 0:
            raise Failure(f"{name} ended with {describe(status)}; it printed: {shorten(printed)}")
        if row.result:
            with open(os.path.join(self.out_dir, row.result), "rb") as f:
                printed += b"\nresult sha256 " + hashlib.sha256(f.read()).hexdigest().encode()
        return Sample(numbers[0] / 1e9, (numbers[1] + numbers[2]) / 1e6, numbers[3], printed)

    def launch(self, command, extra, name):
        """(wait status, [wall ns, user us, sys us, RSS KiB], standard output and error)."""
        report = os.path.join(self.out_dir, "report")
        capture = os.path.join(self.out_dir, "printed")
        words = [os.path.join(self.bin_dir, "launch"), report]
        words += [f"{k}={v}" for k, v in extra.items()] + ["--"] + command
        with open(capture, "wb") as out:
            child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                                     env=self.bare_environment(), cwd=self.out_dir, start_new_session=True)
            try:
                code = child.wait(self.timeout_s)
            except BaseException as error:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
                if isinstance(error, subprocess.TimeoutExpired):
                    raise Failure(f"{name} took more than {self.timeout_s} s") from None
                raise
        with open(capture, "rb") as f:
            printed = f.read()
        if code != 0:
            raise Failure(f"{name}: the launcher failed ({code}): {shorten(printed)}")
        with open(report) as f:
            status, *numbers = (int(v) for v in f.read().split())
        return status, numbers, printed

    def check_preload(self, allocator):
        """The library must really be in a process that is started with it, and be silent."""
        if not allocator.lib:
            return
        probe = {**allocator.env, "LD_PRELOAD": os.path.abspath(allocator.lib)}
        status, _, printed = self.launch(["cat", "/proc/self/maps"], probe, f"cat under {allocator.name}")
        lines = printed.decode(errors="replace").splitlines()
        if status != 0 or not any(os.path.realpath(allocator.lib) in line for line in lines):
            raise Failure(f"{allocator.name}: {allocator.lib} does not get loaded: {shorten(printed)}")
        noise = [line for line in lines if "-" not in line.split(" ")[0]]
        if noise:
            raise Failure(f"{allocator.name} prints at start: {noise[0]}")

    def clear_output(self):
        shutil.rmtree(self.out_dir, ignore_errors=True)
        os.makedirs(self.out_dir)


def describe(status):
    if os.WIFSIGNALED(status):
        return f"signal {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exit status {os.WEXITSTATUS(status)}"


def shorten(printed):
    text = printed.decode(errors="replace").strip()
    return (text[:2000] + " ...") if len(text) > 2000 else (text or "(nothing)")
