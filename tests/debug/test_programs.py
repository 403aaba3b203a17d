"""mode=debug, and for servers mode=guard, over programs that are right: no report, and what they do is unchanged.

Slow: -m slow. The programs of tests/real run in mode=debug in every run of the tests;
here are Python's own tests, PostgreSQL under pgbench, nginx and redis under load.
"""
import os
import pathlib
import pwd
import re
import shutil
import signal
import subprocess
import time

import pytest

HERE = pathlib.Path(__file__).resolve().parent
LIB = pathlib.Path(os.environ.get("SPANGUARD_LIB", HERE.parent.parent / "build" / "libspanguard.so")).resolve()
MODULES = """test_list test_dict test_set test_bytes test_re test_collections test_functools test_heapq test_bisect
    test_deque test_struct test_array test_zlib test_hashlib test_fractions test_math test_copy test_generators
    test_queue test_exceptions test_binascii test_base64 test_textwrap test_string test_tuple test_slice test_range
    test_enumerate test_iter test_operator test_complex test_float test_int test_bool test_configparser test_csv
    test_html test_urlparse test_weakref test_json""".split()

pytestmark = pytest.mark.slow


class Armed:
    """Runs programs in a mode; reports of all of them go to files that must not be there."""

    def __init__(self, directory, mode):
        self.dir, self.mode = directory, mode
        self.env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(directory), "LC_ALL": "C.UTF-8",
                    "LD_PRELOAD": str(LIB), "SPANGUARD_OPTIONS": f"mode={mode}:log={directory}/report.%p"}

    def run(self, *argv, timeout=1200, **kw):
        return subprocess.run([str(a) for a in argv], env={**self.env, **kw.pop("env", {})}, cwd=self.dir,
                              capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL, check=False, **kw)

    def start(self, *argv, **kw):
        return subprocess.Popen([str(a) for a in argv], env=self.env, cwd=self.dir, stdin=subprocess.DEVNULL,
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, **kw)

    def reports(self):
        return "".join(p.read_text(errors="replace") for p in self.dir.glob("report.*"))


@pytest.fixture
def debug(scratch):
    d = Armed(scratch, "debug")
    yield d
    assert d.reports() == ""


@pytest.fixture(params=["debug", "guard"])
def armed(request, scratch):
    d = Armed(scratch, request.param)
    yield d
    assert d.reports() == ""


def is_ours(process):
    return LIB.name in pathlib.Path(f"/proc/{process.pid}/maps").read_text()


def stop(process):
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("module", MODULES)
def test_python(debug, module):
    done = debug.run("/usr/bin/python3", "-m", "test", "-q", module, env={"PYTHONMALLOC": "malloc"})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "SUCCESS" in done.stdout + done.stderr, done.stdout[-3000:]


def test_redis(armed):
    sock = armed.dir / "s"
    server = armed.start("redis-server", "--port", "0", "--unixsocket", sock, "--save", "", "--dir", armed.dir)
    try:
        for _ in range(200):
            if sock.exists():
                break
            time.sleep(0.1)
        # the client itself makes 600 objects for each reply to LRANGE, minutes of guards
        few = ["-n", "2000", "-t", "set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,spop,zadd,zpopmin,mset"]
        much = few if armed.mode == "guard" else ["-n", "20000"]
        done = armed.run("redis-benchmark", "-s", sock, "-q", "-P", "16", "-r", "5000", *much)
        assert done.returncode == 0 and "GET" in done.stdout, done
        assert is_ours(server)
    finally:
        stop(server)
    assert server.returncode == 0


NGINX = """worker_processes 2;
pid {dir}/pid;
error_log {dir}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log {dir}/access.log;
    client_body_temp_path {dir}/a; proxy_temp_path {dir}/b; fastcgi_temp_path {dir}/c;
    uwsgi_temp_path {dir}/d; scgi_temp_path {dir}/e;
    gzip on; gzip_types *; gzip_min_length 1;
    server {{ listen 127.0.0.1:{port}; root {dir}/www; }}
}}
"""


def test_nginx(armed):
    """Two workers serve compressed pages to 32 connections."""
    port = 20000 + os.getpid() % 20000
    www = armed.dir / "www"
    www.mkdir()
    (www / "index.html").write_text("".join(f"<p>line {i}\n" for i in range(3000)))
    (armed.dir / "conf").write_text("daemon off;\nuser root;\n" + NGINX.format(dir=armed.dir, port=port))
    server = armed.start("nginx", "-p", armed.dir, "-c", armed.dir / "conf")
    try:
        time.sleep(2)
        load = subprocess.run(["wrk", "-t2", "-c32", "-d8s", "-H", "Accept-Encoding: gzip", f"http://127.0.0.1:{port}/"],
                              capture_output=True, text=True, timeout=60, check=True)
        assert "Non-2xx" not in load.stdout, load.stdout
        assert int(re.search(r"(\d+) requests in", load.stdout)[1]) > 50, load.stdout
        assert is_ours(server)
    finally:
        stop(server)
    assert server.returncode == 0


def test_postgresql(armed):
    """initdb, a server, pgbench: as the user postgres, for it refuses root."""
    home = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    user = pwd.getpwnam("postgres")
    shutil.chown(armed.dir, "postgres")
    data = armed.dir / "data"
    who = {"user": user.pw_uid, "group": user.pw_gid}
    done = armed.run(home / "initdb", "-D", data, "-A", "trust", "--no-sync", **who)
    assert done.returncode == 0, done
    server = armed.start(home / "postgres", "-D", data, "-k", armed.dir, "-h", "", "-F", **who)
    try:
        for _ in range(300):
            if armed.run(home / "pg_isready", "-h", armed.dir, **who).returncode == 0:
                break
            time.sleep(0.2)
        done = armed.run(home / "pgbench", "-h", armed.dir, "-i", "-s", "1", "postgres", **who)
        assert done.returncode == 0, done
        done = armed.run(home / "pgbench", "-h", armed.dir, "-c", "4", "-j", "2", "-t", "200", "postgres", **who)
        assert done.returncode == 0 and "number of failed transactions: 0" in done.stdout, done
        assert is_ours(server)
    finally:
        os.kill(server.pid, signal.SIGINT)
        server.wait(120)
    assert server.returncode == 0
