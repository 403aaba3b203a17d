"""The row `redis`: redis-server under redis-benchmark over a unix socket.

The time is that of the benchmark clients (fixed numbers of requests), CPU time
and peak RSS (VmHWM, read before shutdown) are the server's. The clients run
without the allocator under test.

Debian links redis-server with jemalloc as a shared library. A preloaded library
comes first in symbol order, so malloc, calloc, realloc, free and
malloc_usable_size bind to it (checked here before the first run, with the
dynamic linker's own trace); mallctl, nallocx and malloc_stats_print remain
jemalloc's, which then serves an idle heap and is asked for statistics ten times
a second. For the row `glibc` the C library itself is preloaded, otherwise that
row would measure jemalloc. All allocators thus carry the idle jemalloc.
"""
import os
import re
import shutil
import subprocess
import tempfile
import time

from rows import SYSTEM_PATH

# (kinds, requests of each kind, value bytes)
PASSES = [
    ("set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,zadd", 150000, 64),
    ("set,get", 200000, 700),
    ("mset", 15000, 2000),
    ("set", 150000, 100),
]
QUICK_DIVISOR = 50
KEYS = 60000
PIPELINE = 16

bound = set()   # allocators whose binding was checked


def tool(name):
    return shutil.which(name, path=SYSTEM_PATH)


def c_library():
    listed = subprocess.run(["ldd", tool("redis-server")], capture_output=True, text=True, check=True).stdout
    match = re.search(r"=> (\S*/libc\.so\S*)", listed)
    return match.group(1) if match else ""


def check_binding(library, env, failure, name):
    """redis-server's malloc and free must come from the preloaded library."""
    trace = subprocess.run([tool("redis-server"), "--version"], capture_output=True, text=True,
                           env={**env, "LD_DEBUG": "bindings", "LD_BIND_NOW": "1"}, check=False).stderr
    for symbol in ("malloc", "free", "calloc", "realloc"):
        to = re.findall(rf"binding file \S*redis-server \[0\] to (\S+) \[0\]: normal symbol `{symbol}'", trace)
        if "binding file" in trace and (not to or os.path.basename(to[0]) != os.path.basename(library)):
            raise failure(f"redis under {name}: {symbol} is bound to {to}, not to {library}")


def ask(socket_path, env, *words):
    done = subprocess.run([tool("redis-cli"), "-s", socket_path, *words], capture_output=True, text=True,
                          env=env, timeout=60, check=False)
    return done.stdout.strip()


def await_server(server, socket_path, env, failure, name):
    for _ in range(200):
        if server.poll() is not None:
            raise failure(f"redis under {name}: the server ended with {server.returncode} at start")
        if os.path.exists(socket_path) and ask(socket_path, env, "PING") == "PONG":
            return
        time.sleep(0.05)
    raise failure(f"redis under {name}: the server does not answer")


def load(socket_path, env, divisor, timeout_s, failure, name):
    """All passes; returns their wall time."""
    start = time.monotonic()
    for kinds, requests, value_bytes in PASSES:
        command = [tool("redis-benchmark"), "-s", socket_path, "--csv", "-t", kinds, "-n", str(requests // divisor),
                   "-d", str(value_bytes), "-r", str(KEYS), "-P", str(PIPELINE), "-c", "20"]
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=timeout_s, check=False)
        if done.returncode != 0 or "rror" in done.stdout + done.stderr:
            raise failure(f"redis under {name}: redis-benchmark failed: {done.stdout[-500:]} {done.stderr[-500:]}")
    if ask(socket_path, env, "FLUSHALL") != "OK":
        raise failure(f"redis under {name}: FLUSHALL failed")
    return time.monotonic() - start


def peak_kib(pid):
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(r"VmHWM:\s+(\d+) kB", f.read()).group(1))


def await_end(pid, failure, name):
    """Exit code and resource usage; a server that does not end is a failure."""
    for _ in range(600):
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), usage
        time.sleep(0.05)
    raise failure(f"redis under {name}: the server does not shut down")


def run(bench, allocator, failure, sample):
    name = allocator.name
    bare = bench.bare_environment()
    library = os.path.abspath(allocator.lib) if allocator.lib else c_library()
    env = {**bare, **allocator.env, "LD_PRELOAD": library}
    with tempfile.TemporaryDirectory(prefix="bench-redis-") as work:
        if name not in bound:
            check_binding(library, env, failure, name)
            bound.add(name)
        socket_path = os.path.join(work, "s")
        errors = os.path.join(work, "errors")
        command = [*allocator.before, tool("redis-server"), "--port", "0", "--unixsocket", socket_path,
                   "--save", "", "--appendonly", "no", "--jemalloc-bg-thread", "no", "--dir", work,
                   "--logfile", os.path.join(work, "log")]
        with open(errors, "wb") as out:
            server = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        try:
            await_server(server, socket_path, bare, failure, name)
            wall_s = load(socket_path, bare, QUICK_DIVISOR if bench.quick else 1, bench.timeout_s, failure, name)
            rss = peak_kib(server.pid)
            ask(socket_path, bare, "SHUTDOWN", "NOSAVE")
            server.returncode, usage = await_end(server.pid, failure, name)
        except (subprocess.TimeoutExpired, OSError) as error:
            raise failure(f"redis under {name}: {error}") from None
        finally:
            if server.returncode is None:
                server.kill()
                server.wait()
        with open(errors, "rb") as f:
            printed = f.read()
        if server.returncode != 0 or printed:
            raise failure(f"redis under {name}: the server ended with {server.returncode} and printed"
                          f" {printed.decode(errors='replace')[:2000]}")
    return sample(wall_s, usage.ru_utime + usage.ru_stime, rss)
