"""The rows of the benchmark: what runs, with which arguments and inputs.

A row is data. `command` is a list of words in which {bin}, {in} and {out} are
directories; `files` are inputs, written once by gen.py; `result` is a file whose
contents must be the same under every allocator (standard output always must).
`quick` arguments are for smoke tests and give no figures.
"""
import shutil
from dataclasses import dataclass, field

import gen

SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"


@dataclass
class Row:
    name: str
    what: str
    command: list
    quick: list = None
    files: dict = field(default_factory=dict)         # name -> function returning bytes
    quick_files: dict = field(default_factory=dict)   # the same names, smaller
    env: dict = field(default_factory=dict)
    needs: str = ""                                   # a program that must be installed
    result: str = ""
    silent: bool = False                              # must print nothing at all
    server: bool = False                              # see redis_row.py

    def missing(self):
        return self.needs and shutil.which(self.needs, path=SYSTEM_PATH) is None


def ours(name, what, args, quick):
    return Row(name, what, [f"{{bin}}/{name}"] + args.split(), [f"{{bin}}/{name}"] + quick.split(), silent=True)


OURS = [
    ours("pairs", "tight malloc/free pairs, 39 sizes from 1 B to 32 KiB, at once and through a ring of 64",
         "3500000", "20000"),
    ours("larson", "8 threads replace a live set at random, die, and hand it to the next lane",
         "8 80 100000 5000", "8 4 2000 500"),
    ours("trade", "4 threads replace each other's objects in one table", "4 7000000 50000", "4 20000 2000"),
    ours("prodcons", "allocated on one thread, freed on another; 1 pair, then 4 pairs on one queue",
         "4 7000", "4 50"),
    ours("mixed", "2 threads, batches of mixed sizes with realloc, freed in three orders", "2 6000 2000", "2 20 500"),
    ours("large", "2 threads, 32 KiB to 8 MiB, every page touched, half of them filled, some realloc",
         "9000 48 32 8192 2", "100 16 32 8192 2"),
    ours("huge", "5 to 25 MiB in a loop, 6 alive, written completely", "600 6", "20 3"),
    ours("server", "2 workers, 64 requests in flight each, sessions, a cache whose sizes drift",
         "2 1500000", "2 5000"),
    ours("churn", "30,000 threads of one short burst, 8 at a time, leaving blocks to the next",
         "30000 8 300", "300 8 100"),
    ours("bursts", "8 threads, thousands of short bursts, other sizes each time", "8 6000", "8 50"),
    ours("graph", "syntax trees: built, walked, folded, dropped", "16 200000 6", "2 5000 2"),
    ours("strings", "lines and documents built by realloc, split into words", "800 1200", "5 500"),
    ours("zeroed", "calloc of records, tables and matrices, sparsely used", "2500", "20"),
    ours("cxx", "C++: std::map of strings to vectors, unordered_map, shared_ptr, deque", "14 60000", "3 2000"),
]

REAL = [
    Row("redis", "redis-server under redis-benchmark: 10 kinds of request, pipelined, 60,000 random keys",
        [], [], needs="redis-server", server=True),
    Row("python", "python3 builds and drops object graphs, PYTHONMALLOC=malloc",
        ["/usr/bin/python3", "{bench}/py_objects.py", "6"], ["/usr/bin/python3", "{bench}/py_objects.py", "1"],
        env={"PYTHONMALLOC": "malloc", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
        needs="/usr/bin/python3"),
    Row("sqlite", "sqlite3: 10^6 rows in memory, index, update, delete, join",
        ["sqlite3", ":memory:", ".read {in}/rows.sql"],
        files={"rows.sql": lambda: gen.sql_script(1000000)},
        quick_files={"rows.sql": lambda: gen.sql_script(20000)}, needs="sqlite3"),
    Row("z3", "z3: a job shop in integers, a quantified order", ["z3", "{in}/problem.smt2"],
        files={"problem.smt2": lambda: gen.smt_source(12, 130)},
        quick_files={"problem.smt2": lambda: gen.smt_source(5, 20)}, needs="z3"),
    Row("gs", "ghostscript renders a PDF of 60 pages: curves, text, images, transparency",
        ["gs", "-q", "-dNOPAUSE", "-dBATCH", "-dSAFER", "-sDEVICE=ppmraw", "-r72", "-o", "{out}/pages.ppm",
         "{in}/pages.pdf"],
        files={"pages.pdf": lambda: gen.pdf_file(60)}, quick_files={"pages.pdf": lambda: gen.pdf_file(2)},
        needs="gs", result="pages.ppm"),
    Row("gcc", "gcc -O2 on one C file of 200 functions", ["gcc", "-O2", "-c", "-o", "{out}/unit.o", "{in}/unit.c"],
        files={"unit.c": lambda: gen.c_source(200)}, quick_files={"unit.c": lambda: gen.c_source(10)},
        needs="gcc", result="unit.o"),
    Row("clang", "clang++ -O1 on one C++ file full of containers",
        ["clang++", "-std=c++17", "-O1", "-c", "-o", "{out}/unit.o", "{in}/unit.cc"],
        files={"unit.cc": lambda: gen.cxx_source(4)}, quick_files={"unit.cc": lambda: gen.cxx_source(1)},
        needs="clang++", result="unit.o"),
]

ROWS = OURS + REAL
