"""Real programs at work, with everything they produce as facts to compare.

A workload is a function of a Place (a directory, an environment, a scale) that
returns a list of facts: pairs of a label and a value that must be the same
whatever malloc is underneath - exit statuses, output, digests of files. Times
and other things that differ from run to run are left out by the workload.
tests/real compares the facts of runs on spanguard with those of a run on libc,
and so does ci/demo.
"""
import hashlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

PYTHON = "/usr/bin/python3"


class Place:
    """Where a workload runs, and on what.

    env: the variables that choose the malloc, over a fixed small environment.
    big: the size for a demonstration and not for a quick check."""

    def __init__(self, directory, env=None, big=False):
        self.dir = pathlib.Path(directory)
        self.big = big
        self.env = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.dir), "TMPDIR": str(self.dir), "LC_ALL": "C.UTF-8", "TZ": "UTC",
            "PYTHONMALLOC": "malloc", "PYTHONHASHSEED": "1", "PYTHONDONTWRITEBYTECODE": "1",
            "PERL_HASH_SEED": "1", "GIT_CONFIG_NOSYSTEM": "1", "GIT_PAGER": "cat",
            **(env or {}),
        }
        self.alarm = 400          # a hang; a busy machine makes guard mode slow

    def write(self, name, text):
        path = self.dir / name
        path.write_text(text)
        return path

    def run(self, *argv, cwd=None, env=None, stdin=subprocess.DEVNULL, **kw):
        """Runs to the end in a process group of its own; kills all of it when late."""
        with subprocess.Popen([str(a) for a in argv], env={**self.env, **(env or {})}, cwd=cwd or self.dir,
                              stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              errors="backslashreplace", start_new_session=True, **kw) as child:
            try:
                out, err = child.communicate(timeout=self.alarm)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                out, err = child.communicate()
                err += f"\nkilled after {self.alarm} s"
        return child.returncode, out, err

    def facts(self, label, *argv, clean=None, **kw):
        """Runs argv; its status, output and complaints as facts. clean: text -> what of it is stable."""
        status, out, err = self.run(*argv, **kw)
        clean = clean or (lambda text: text)
        return [(f"{label}: status", status), (f"{label}: stdout", clean(out)), (f"{label}: stderr", clean(err))]


def digest(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


# ---------------------------------------------------------------- python

PYTHON_SCRIPT = r'''
import collections, decimal, gc, hashlib, json, random, re, sqlite3, sys, threading, zlib
scale = int(sys.argv[1])
random.seed(7)

class Node:
    def __init__(self, name):
        self.name, self.links, self.data = name, [], {}

def graph(n):
    nodes = [Node("n%d" % i) for i in range(n)]
    for node in nodes:
        node.links = random.sample(nodes, 5)
        node.data = {str(k): [k, k * 0.5, "x" * (k % 40)] for k in range(8)}
    return nodes

total = 0
for round in range(6):
    nodes = graph(2000 * scale)
    total += sum(len(l.name) for n in nodes for l in n.links)
    text = json.dumps([n.data for n in nodes])
    total += len(re.findall(r"x{7,20}", text)) + len(json.loads(text))
    del nodes
    gc.collect()
print("graph", total)

def work(seed, out):
    r, kept = random.Random(seed), {}
    for i in range(20000 * scale):
        kept[r.randrange(500)] = bytes(r.randrange(2000))
    out[seed] = sum(map(len, kept.values()))

out = {}
threads = [threading.Thread(target=work, args=(s, out)) for s in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
print("threads", sorted(out.items()))

db = sqlite3.connect(":memory:")
db.execute("create table t (a integer, b text)")
db.executemany("insert into t values (?, ?)", ((i, "v%d" % (i % 97)) for i in range(20000 * scale)))
print("sqlite", db.execute("select b, count(*), sum(a) from t group by b order by 2, 3 limit 3").fetchall())
decimal.getcontext().prec = 1500
print("pi", hashlib.sha256(str(decimal.Decimal(2).sqrt()).encode()).hexdigest())
blob = b"".join(hashlib.sha256(b"%d" % i).digest() for i in range(3000 * scale))
print("zlib", zlib.crc32(zlib.decompress(zlib.compress(blob, 9))))
print("counter", collections.Counter(blob).most_common(3))
'''


def python(place):
    script = place.write("graphs.py", PYTHON_SCRIPT)
    return place.facts("python3", PYTHON, script, 10 if place.big else 1)


PYTHON_TESTS = ["test_dict", "test_set", "test_list", "test_json", "test_re", "test_collections", "test_struct",
                "test_zlib", "test_deque", "test_heapq", "test_bytes", "test_unicode", "test_thread", "test_gc"]


def python_tests(place):
    """Modules of Python's own test-suite, where Debian's package with it is there."""
    def verdict(text):
        return [line for line in text.splitlines() if "OK." in line or "failed" in line or "SUCCESS" in line.upper()]

    status, out, err = place.run(PYTHON, "-m", "test", "-q", *(PYTHON_TESTS if place.big else PYTHON_TESTS[:9]))
    return [("python tests: status", status), ("python tests: verdict", verdict(out)), ("python tests: stderr", err)]


def have_python_tests():
    return subprocess.run([PYTHON, "-c", "import test.test_dict"], capture_output=True).returncode == 0


# ---------------------------------------------------------------- redis

def redis(place):
    """Server and benchmark both on the malloc under test; data compared by digest, also after BGSAVE's fork."""
    sock = place.dir / "redis.sock"
    # The path of a unix socket is short; a relative one always fits.
    server = subprocess.Popen(
        ["redis-server", "--port", "0", "--unixsocket", "redis.sock", "--save", "", "--logfile", "redis.log",
         "--enable-debug-command", "yes", "--daemonize", "no", "--appendonly", "no"],
        env=place.env, cwd=place.dir, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True)
    try:
        facts = redis_session(place, sock, server)
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
        out, err = server.communicate()
    log = (place.dir / "redis.log").read_text()
    return facts + [("redis-server: status", server.returncode), ("redis-server: stdout", out),
                    ("redis-server: stderr", err), ("redis-server: log complains", "spanguard" in log)]


def await_socket(path, server, seconds=30):
    until = time.monotonic() + seconds
    while time.monotonic() < until and server.poll() is None:
        with socket.socket(socket.AF_UNIX) as s:
            try:
                s.connect(os.path.relpath(path))
                return
            except OSError:
                time.sleep(0.05)


def redis_session(place, sock, server):
    await_socket(sock, server)
    requests = 100000 if place.big else 10000

    def cli(*words):
        status, out, err = place.run("redis-cli", "-s", "redis.sock", *words)
        return (status, out.strip(), err)

    def benchmark(label, *words):
        status, out, err = place.run("redis-benchmark", "-s", "redis.sock", "-q", *words)
        kinds = sorted({line.split(":")[0].strip() for part in out.split("\r") for line in part.splitlines()
                        if "requests per second" in line})
        return [(f"benchmark {label}: status", status), (f"benchmark {label}: ran", kinds),
                (f"benchmark {label}: stderr", err)]

    facts = benchmark("mixed", "-n", requests, "-c", 20, "-t", "set,get,incr,lpush,rpush,lpop,sadd,hset,zadd,mset")
    facts += benchmark("pipelined", "-n", requests, "-P", 16, "-d", 500, "-r", 1000, "-t", "set,get")
    cli("flushall")
    fill = ("for i = 1, %d do redis.call('set', 'k' .. i, string.rep('v', i %% 700)) "
            "redis.call('hset', 'h' .. i %% 50, 'f' .. i, i) redis.call('zadd', 'z', i, 'm' .. i) "
            "if i %% 3 == 0 then redis.call('del', 'k' .. (i - 1)) end end") % (requests // 2)
    facts += [("fill", cli("eval", fill, 0)), ("digest", cli("debug", "digest")), ("bgsave", cli("bgsave")[0])]
    for _ in range(600):
        if "rdb_bgsave_in_progress:0" in cli("info", "persistence")[1]:
            break
        time.sleep(0.05)
    facts += [("last bgsave", "rdb_last_bgsave_status:ok" in cli("info", "persistence")[1]),
              ("reload", cli("debug", "reload", "nosave", "noflush", "merge")[0] in (0, 1)),
              ("digest after reload", cli("debug", "digest")), ("size", cli("dbsize")),
              ("flush", cli("flushall")), ("purge", cli("memory", "purge")[0]), ("shutdown", cli("shutdown", "nosave")[0])]
    server.wait(timeout=30)
    return facts


# ---------------------------------------------------------------- sqlite3

def sqlite(place):
    rows = 1000000 if place.big else 200000
    script = place.write("rows.sql", f"""
create table t (id integer primary key, k integer, v text);
with recursive n(i) as (select 1 union all select i + 1 from n where i < {rows})
insert into t select i, (i * 7919) % 100003, 'value ' || (i * 31 % 1000) from n;
create index by_k on t (k);
select count(*), sum(k), min(v), max(v) from t;
select v, count(*) from t group by v order by 2 desc, 1 limit 5;
select a.id, b.id from t a join t b on a.k = b.k and a.id < b.id order by 1, 2 limit 5;
delete from t where k % 3 = 0;
update t set v = upper(v) || id where k % 5 = 0;
select count(*), sum(length(v)) from t;
pragma integrity_check;
vacuum;
select count(*) from t;
""")
    database = place.dir / "rows.db"
    with open(script) as text:
        facts = place.facts("sqlite3", "sqlite3", database, stdin=text)
    return facts + [("sqlite3: database", digest(database))]


# ---------------------------------------------------------------- git

def git(place):
    repo = place.dir / "repo"
    commits = 60 if place.big else 20
    identity = {f"GIT_{who}_{what}": text for who in ("AUTHOR", "COMMITTER")
                for what, text in (("NAME", "A"), ("EMAIL", "a@example.org"), ("DATE", "2001-02-03T04:05:06Z"))}

    def call(*words, cwd=repo):
        label = "git " + " ".join(str(w) for w in words if not str(w).startswith("/"))
        return place.facts(label, "git", *words, cwd=cwd, env=identity, clean=lambda t: t.replace(str(place.dir), "."))

    facts = call("init", "-q", "-b", "main", repo, cwd=place.dir)
    for c in range(commits):
        for f in range(40):
            body = "".join(f"line {i} of file {f}, change {(c * 31 + i * f) % 97 if i % 17 == c % 17 else 0}\n"
                           for i in range(150))
            (repo / f"file{f}.txt").write_text(body)
        facts += call("add", "-A") + call("commit", "-q", "-m", f"commit {c}")
    facts += call("clone", "-q", "--no-hardlinks", repo, place.dir / "clone", cwd=place.dir)
    facts += call("log", "--stat", "--format=%H %s") + call("diff", "HEAD~10", "HEAD") + call("blame", "file7.txt")
    facts += call("grep", "-c", "change 5", "HEAD~3") + call("repack", "-a", "-d", "-q", "--threads=2")
    facts += call("gc", "-q", "--aggressive") + call("fsck", "--full", "--strict", "--no-progress")
    facts += call("rev-parse", "HEAD", cwd=place.dir / "clone") + call("fsck", "--no-progress", cwd=place.dir / "clone")
    return facts


# ---------------------------------------------------------------- compilers

def c_source(functions):
    parts = ["#include <stdio.h>\n#include <string.h>\nstruct node { struct node *next; int key; char text[32]; };\n"]
    for i in range(functions):
        parts.append(f"""
static int work{i}(struct node *list, int *table, int n)
{{
	int sum = {i};
	for (struct node *at = list; at != NULL; at = at->next) {{
		switch (at->key % 7) {{
		case 0: sum += table[at->key % n]; break;
		case 1: sum ^= (int)strlen(at->text); break;
		case 2: table[sum % n & 15] = at->key * {i + 3}; break;
		case 3: for (int k = 0; k < n; k++) sum += table[k] * (k ^ {i}); break;
		default: sum = sum * 31 + at->key; break;
		}}
	}}
	return sum;
}}
""")
    parts.append("int all(struct node *l, int *t, int n) { int s = 0;\n")
    parts += [f"\ts += work{i}(l, t, n);\n" for i in range(functions)]
    parts.append("\treturn s; }\nint main(void) { int t[16] = { 1 }; struct node n = { NULL, 3, \"x\" };"
                 " printf(\"%d\\n\", all(&n, t, 16)); return 0; }\n")
    return "".join(parts)


CPP_SOURCE = r'''
#include <algorithm>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <regex>
#include <sstream>
#include <string>
#include <unordered_map>
#include <vector>
template <int N> struct Fib { static constexpr long value = Fib<N - 1>::value + Fib<N - 2>::value; };
template <> struct Fib<0> { static constexpr long value = 0; };
template <> struct Fib<1> { static constexpr long value = 1; };
template <typename... T> std::string join(const T &...t) { std::ostringstream o; ((o << t << ','), ...); return o.str(); }
int main()
{
	std::map<std::string, std::vector<std::shared_ptr<std::string>>> m;
	std::unordered_map<int, std::function<int(int)>> f;
	for (int i = 0; i < 20000; i++) {
		m["k" + std::to_string(i % 301)].push_back(std::make_shared<std::string>(static_cast<size_t>(i % 97), 'x'));
		f[i % 53] = [i](int x) { return x * i; };
	}
	size_t total = 0;
	for (auto &[k, v] : m) {
		std::sort(v.begin(), v.end(), [](auto &a, auto &b) { return a->size() < b->size(); });
		total += v.size() * v.back()->size();
	}
	std::regex word("k(1[0-9]+)");
	long hits = std::count_if(m.begin(), m.end(), [&](auto &p) { return std::regex_match(p.first, word); });
	std::cout << join(Fib<60>::value, total, hits, f[7](3)) << '\n';
}
'''


def gcc(place):
    source = place.write("big.c", c_source(500 if place.big else 120))
    facts = place.facts("gcc", "gcc", "-O2", "-g", "-frandom-seed=1", f"-fdebug-prefix-map={place.dir}=.",
                        "-o", "big", source.name)
    facts += [("gcc: assembly", place.run("gcc", "-O2", "-frandom-seed=1", "-S", "-o", "-", source.name))]
    return facts + [("gcc: program", digest(place.dir / "big"))] + place.facts("gcc's program", "./big")


def gxx(place):
    place.write("stl.cpp", CPP_SOURCE)
    facts = place.facts("g++", "g++", "-std=c++17", "-O2", "-frandom-seed=1", "-o", "stl", "stl.cpp")
    return facts + [("g++: program", digest(place.dir / "stl"))] + place.facts("g++'s program", "./stl")


# ---------------------------------------------------------------- node, perl

NODE_SCRIPT = r'''
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const crypto = require('crypto'), zlib = require('zlib');
const scale = +(process.argv[2] || 1);
let state = 12345;
const rnd = n => (state = (state * 1103515245 + 12345) & 0x7fffffff) % n;
function work(n) {
  const map = new Map(), list = [];
  for (let i = 0; i < n; i++) {
    map.set('k' + rnd(n), { i, text: 'x'.repeat(rnd(50)), list: [i, i + 1] });
    if (i % 10 == 0) list.push(Buffer.alloc(rnd(5000), i & 255));
  }
  const text = JSON.stringify([...map.entries()].sort());
  const hash = crypto.createHash('sha256').update(text);
  for (const b of list) hash.update(b);
  return hash.digest('hex');
}
if (isMainThread) {
  console.log('main', work(30000 * scale));
  const packed = zlib.gzipSync(Buffer.from('abc'.repeat(100000 * scale)));
  console.log('zlib', zlib.gunzipSync(packed).length);
  const done = [];
  let left = 3;
  for (let id = 0; id < 3; id++)
    new Worker(__filename, { workerData: id, argv: [String(scale)] }).on('message', m => { done[id] = m; })
      .on('exit', code => { if (--left == 0) console.log(done.join('\n')); });
} else {
  state = workerData + 1;
  parentPort.postMessage('worker ' + workerData + ' ' + work(10000 * scale));
}
'''


def node(place):
    script = place.write("work.js", NODE_SCRIPT)
    return place.facts("node", "node", script, 10 if place.big else 1)


PERL_SCRIPT = r'''
use strict; use warnings; use List::Util qw(sum); use Digest::SHA qw(sha256_hex); use Storable qw(freeze thaw);
my ($scale, %h, @list) = (shift);
for my $i (1 .. 60000 * $scale) {
    my $k = ($i * 7919) % 10007;
    push @{$h{"key$k"}}, "v" x ($i % 60);
    delete $h{"key" . (($i * 31) % 10007)} if $i % 4 == 0;
}
my $text = join ",", map { "$_=" . scalar @{$h{$_}} } sort keys %h;
(my $changed = $text) =~ s/key(\d+)=(\d+)/$2:$1/g;
my $copy = thaw(freeze(\%h));
@list = sort { $a <=> $b } map { length } map { @$_ } values %$copy;
print sha256_hex($changed), " ", scalar(@list), " ", sum(@list), "\n";
my $pid = fork; if (!$pid) { my @x = map { "y" x $_ } 1 .. 2000; exit(@x == 2000 ? 0 : 1) } waitpid $pid, 0; print "child $?\n";
'''


def perl(place):
    script = place.write("work.pl", PERL_SCRIPT)
    return place.facts("perl", "perl", script, 20 if place.big else 1)


# name -> (function, programs it needs)
WORKLOADS = {
    "python3": (python, ["/usr/bin/python3"]),
    "redis": (redis, ["redis-server", "redis-cli", "redis-benchmark"]),
    "sqlite3": (sqlite, ["sqlite3"]),
    "git": (git, ["git"]),
    "gcc": (gcc, ["gcc"]),
    "g++": (gxx, ["g++"]),
    "node": (node, ["node"]),
    "perl": (perl, ["perl"]),
}


def missing(name):
    """Programs a workload needs that are not installed."""
    return [program for program in WORKLOADS[name][1] if shutil.which(program) is None]


def differences(want, have):
    """Readable lines for every fact that is not as it should be."""
    lines = []
    for (label, expected), (label2, found) in zip(want, have):
        if (label, expected) != (label2, found):
            lines.append(f"{label2}: {str(found)[-1500:]!r}\n    instead of {str(expected)[-500:]!r}")
    if len(want) != len(have):
        lines.append(f"{len(have)} facts instead of {len(want)}")
    return lines
