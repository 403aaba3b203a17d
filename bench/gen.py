"""Writes the inputs of the rows that run real programs.

Every generator is a function of its size alone (its own PRNG, fixed seeds), so
two machines get the same bytes. Inputs go to the build directory; they are
written once and found again by name and size.
"""
import zlib


class Rng:
    """splitmix64, as in bench.h."""

    MASK = (1 << 64) - 1

    def __init__(self, seed):
        self.state = seed

    def next(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & self.MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & self.MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & self.MASK
        return z ^ (z >> 31)

    def below(self, n):
        return ((self.next() >> 32) * n) >> 32

    def between(self, low, high):
        return low + self.below(high - low + 1)

    def pick(self, items):
        return items[self.below(len(items))]


def c_source(functions):
    """One C file: structures, switches, loops over arrays, calls between functions."""
    rng = Rng(1)
    out = ["#include <stdint.h>", "#include <stdlib.h>", "#include <string.h>",
           "struct item { uint64_t key; int kind; double weight; struct item *next; char name[24]; };"]
    for i in range(functions):
        out.append(f"static uint64_t step_{i}(struct item *it, uint64_t a, uint64_t b, unsigned n)\n{{")
        out.append(f"\tuint64_t acc = a * {rng.between(3, 999)}u, t[16] = {{0}};")
        out.append("\tfor (unsigned i = 0; i < n; i++) {")
        out.append(f"\t\tt[i & 15] += (acc >> {rng.between(1, 31)}) ^ (b + i * {rng.between(1, 99)}u);")
        out.append("\t\tswitch ((acc ^ i) & 7) {")
        for case in range(7):
            op = rng.pick(["+", "^", "*", "-", "|"])
            out.append(f"\t\tcase {case}: acc = (acc {op} t[(i + {case}) & 15]) + {rng.between(1, 9999)}u; break;")
        out.append("\t\tdefault: it->weight = it->weight * 1.5 + (double)acc; it->key ^= acc; break;\n\t\t}")
        out.append("\t}\n\tif (it->next && it->next->key > acc) {")
        out.append(f"\t\tmemcpy(it->name, it->next->name, {rng.between(4, 24)});")
        callee = f"step_{rng.below(i)}" if i else None
        out.append(f"\t\tacc += {callee}(it->next, acc, b + 1, n / 2);" if callee else "\t\tacc++;")
        out.append("\t}\n\treturn acc + t[b & 15];\n}")
    out.append("uint64_t run(struct item *it, unsigned n)\n{\n\tuint64_t v = 0;")
    out.extend(f"\tv += step_{i}(it, v, {i}u, n);" for i in range(functions))
    out.append("\treturn v;\n}\n")
    return "\n".join(out).encode()


def cxx_source(classes):
    """One C++ file: the library's containers, instantiated for many types."""
    rng = Rng(2)
    out = ["#include <algorithm>", "#include <functional>", "#include <map>", "#include <memory>",
           "#include <set>", "#include <string>", "#include <unordered_map>", "#include <vector>"]
    for i in range(classes):
        out.append(f"struct key_{i} {{ int a; std::string b; bool operator<(const key_{i} &o) const"
                   " { return a < o.a || (a == o.a && b < o.b); } };")
        out.append(f"struct value_{i} {{ std::vector<key_{i}> keys; std::shared_ptr<value_{i}> next;"
                   f" std::function<int(int)> f; double w[{rng.between(1, 9)}]; }};")
        out.append(f"int use_{i}(int n)\n{{\n\tstd::map<key_{i}, value_{i}> m;\n\tstd::set<key_{i}> s;"
                   f"\n\tstd::unordered_map<std::string, std::vector<value_{i}>> u;")
        out.append(f"\tfor (int i = 0; i < n; i++) {{\n\t\tkey_{i} k{{i * {rng.between(2, 99)}, std::to_string(i)}};"
                   f"\n\t\tauto &v = m[k];\n\t\tv.f = [k, n](int x) {{ return x + k.a * n; }};"
                   f"\n\t\tv.keys.push_back(k);\n\t\ts.insert(k);\n\t\tu[k.b].push_back(v);"
                   f"\n\t\tv.next = std::make_shared<value_{i}>(v);\n\t}}")
        out.append("\tint total = static_cast<int>(s.size() + u.size());\n\tfor (auto &e : m)\n\t{"
                   "\n\t\tstd::sort(e.second.keys.begin(), e.second.keys.end());"
                   "\n\t\ttotal += e.second.f(e.first.a);\n\t}\n\treturn total;\n}")
    out.append("int run(int n)\n{\n\treturn 0")
    out.extend(f"\t\t+ use_{i}(n)" for i in range(classes))
    out.append("\t;\n}\n")
    return "\n".join(out).encode()


def sql_script(rows):
    """A table of `rows` rows with an index, joins, updates and deletes, in memory."""
    return f"""
PRAGMA cache_size = -200000;
CREATE TABLE t (id INTEGER PRIMARY KEY, k INTEGER, name TEXT, body TEXT);
INSERT INTO t
  WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
  SELECT i, (i * 7919) % 100003, 'name-' || ((i * 31) % 5003), printf('%0' || (10 + i % 60) || 'd', i) FROM n;
CREATE INDEX t_k ON t (k, name);
SELECT count(*), sum(k), sum(length(body)) FROM t;
SELECT name, count(*) AS c, group_concat(id % 10, '') FROM t WHERE k < 400 GROUP BY name ORDER BY c DESC, name LIMIT 5;
UPDATE t SET body = body || '-changed-' || k WHERE id % 3 = 0;
DELETE FROM t WHERE id % 5 = 0;
CREATE TABLE u AS SELECT a.id AS x, b.id AS y FROM t a JOIN t b ON a.k = b.k AND b.id > a.id WHERE a.id < {rows // 20};
SELECT count(*), sum(x + y) FROM u;
SELECT count(DISTINCT name), max(length(body)), sum(length(body)) FROM t;
""".encode()


def job_shop(jobs, machines, deadline):
    """Can `jobs` jobs pass `machines` machines by the deadline? (Linear integer arithmetic.)"""
    rng = Rng(3)
    out = [f"(declare-const s{j}_{m} Int)" for j in range(jobs) for m in range(machines)]
    length = [[rng.between(1, 9) for _ in range(machines)] for _ in range(jobs)]
    for j in range(jobs):
        out.append(f"(assert (>= s{j}_0 0))")
        out += [f"(assert (>= s{j}_{m + 1} (+ s{j}_{m} {length[j][m]})))" for m in range(machines - 1)]
        out.append(f"(assert (<= (+ s{j}_{machines - 1} {length[j][-1]}) {deadline}))")
    for m in range(machines):
        for i in range(jobs):
            for j in range(i):
                a, b = f"s{i}_{m}", f"s{j}_{m}"
                out.append(f"(assert (or (>= {a} (+ {b} {length[j][m]})) (>= {b} (+ {a} {length[i][m]}))))")
    return out + ["(check-sat)"]


def strict_order(links):
    """A chain of `links` terms under a transitive order: thousands of instances of the axioms."""
    out = ["(declare-sort E 0)", "(declare-fun f (E E) E)", "(declare-fun lt (E E) Bool)",
           "(assert (forall ((x E) (y E) (z E)) (=> (and (lt x y) (lt y z)) (lt x z))))",
           "(assert (forall ((x E)) (not (lt x x))))",
           "(assert (forall ((x E) (y E)) (! (lt x (f x y)) :pattern ((f x y)))))"]
    out += [f"(declare-const e{i} E)" for i in range(links + 1)]
    out += [f"(assert (= e{i + 1} (f e{i} e{i // 2})))" for i in range(links)]
    return out + [f"(assert (lt e{links} e0))", "(check-sat)"]


def smt_source(jobs, links):
    """Two problems, two solvers of z3: simplex with few blocks, instantiation with many."""
    lines = job_shop(jobs, 5, jobs * 6) + ["(reset)"] + strict_order(links)
    return "\n".join(lines).encode() + b"\n"


def page_content(rng, number):
    """Text in two fonts, filled and stroked curves, an image and a form, clipped."""
    out = ["q 0.5 w"]
    for _ in range(250):
        x, y = rng.below(550), rng.below(780)
        points = " ".join(str(v + rng.below(80)) for v in (x, y, x, y, x, y))
        colour = " ".join(f"{rng.below(100) / 100:.2f}" for _ in range(3))
        out.append(f"{colour} {rng.pick(['rg', 'RG'])} {x} {y} m {points} c {rng.pick(['S', 'f', 'B'])}")
    for _ in range(40):
        out.append(f"q {rng.below(400)} {rng.below(600)} 120 90 re W n 1 0 0 1 {rng.below(400)} {rng.below(600)} cm"
                   f" {rng.pick(['/Form Do', '/Gs gs /Form Do', '60 0 0 60 0 0 cm /Image Do'])} Q")
    for line in range(60):
        words = " ".join("".join(chr(97 + rng.below(26)) for _ in range(rng.between(2, 10))) for _ in range(12))
        out.append(f"BT /F{1 + line % 2} {8 + line % 5} Tf 30 {790 - 13 * line} Td (p{number} {words}) Tj ET")
    out.append("Q")
    return "\n".join(out).encode()


def pdf_file(pages):
    """A PDF of `pages` pages: compressed streams, fonts, curves, transparency, images."""
    rng = Rng(4)
    objects = [None, None]   # 1 is the catalogue, 2 the page tree

    def add(head, stream=None):
        if stream is not None:
            data = zlib.compress(stream, 6)
            head = f"{head[:-2]} /Filter /FlateDecode /Length {len(data)} >>"
            objects.append(head.encode() + b"\nstream\n" + data + b"\nendstream")
        else:
            objects.append(head.encode())
        return len(objects)

    fonts = [add(f"<< /Type /Font /Subtype /Type1 /BaseFont /{name} >>") for name in ("Helvetica", "Times-Roman")]
    state = add("<< /Type /ExtGState /ca 0.5 /CA 0.5 /BM /Multiply >>")
    pixels = bytes(rng.below(256) for _ in range(64 * 64 * 3))
    image = add("<< /Type /XObject /Subtype /Image /Width 64 /Height 64 /ColorSpace /DeviceRGB"
                " /BitsPerComponent 8 >>", pixels)
    form = add("<< /Type /XObject /Subtype /Form /BBox [0 0 100 100] /Group << /S /Transparency >> >>",
               b"0.2 0.6 0.3 rg 10 10 m 90 20 60 90 20 80 c f 0 0 1 RG 0 0 80 80 re S")
    resources = (f"<< /Font << /F1 {fonts[0]} 0 R /F2 {fonts[1]} 0 R >> /ExtGState << /Gs {state} 0 R >>"
                 f" /XObject << /Image {image} 0 R /Form {form} 0 R >> >>")
    kids = []
    for number in range(pages):
        content = add("<< >>", page_content(rng, number))
        kids.append(add(f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources {resources}"
                        f" /Contents {content} 0 R >>"))
    objects[0] = b"<< /Type /Catalog /Pages 2 0 R >>"
    objects[1] = f"<< /Type /Pages /Count {pages} /Kids [{' '.join(f'{k} 0 R' for k in kids)}] >>".encode()
    out = bytearray(b"%PDF-1.7\n")
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    start = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    out += "".join(f"{place:010d} 00000 n \n" for place in places).encode()
    out += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n".encode()
    return bytes(out)
