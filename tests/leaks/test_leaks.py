"""The leak check: verdicts as LeakSanitizer's, and the report wherever a program runs.

cases.c and cases.cc are compiled twice: with clang -fsanitize=leak, and plainly, to
run on spanguard. Each case states what it loses; three opinions must be one.
"""
import json
import pathlib
import re
import shutil
import subprocess

import jsonschema
import pytest

HERE = pathlib.Path(__file__).resolve().parent
GROUP = re.compile(r"^(Direct|Indirect) leak of (\d+) byte\(s\) in (\d+) object\(s\) allocated from:$", re.M)
CASE = re.compile(r"CASE\((\w+), (\d+), (\d+)\)")
CASES = [(source, *found) for source in ("cases.c", "cases.cc") for found in CASE.findall((HERE / source).read_text())]


def verdict(text):
    """(objects, bytes) lost directly, (objects, bytes) lost indirectly."""
    sums = {"Direct": [0, 0], "Indirect": [0, 0]}
    for kind, nbytes, objects in GROUP.findall(text):
        sums[kind][0] += int(objects)
        sums[kind][1] += int(nbytes)
    return tuple(sums["Direct"]), tuple(sums["Indirect"])


@pytest.fixture(scope="session")
def by_lsan(shared_tmp):
    """Both sources under LeakSanitizer."""
    programs = {}
    for source, compiler in (("cases.c", "clang"), ("cases.cc", "clang++")):
        if shutil.which(compiler) is None:
            pytest.skip("no clang")
        programs[source] = shared_tmp / f"lsan-{source}"
        if not programs[source].exists():
            fresh = programs[source].with_suffix(f".{id(programs)}")
            subprocess.run([compiler, "-O1", "-pthread", "-fsanitize=leak", "-o", fresh, HERE / source], check=True)
            fresh.rename(programs[source])
    return programs


@pytest.fixture(scope="session")
def plainly(build):
    return {source: build(HERE / source, "-O1", "-pthread") for source in ("cases.c", "cases.cc")}


@pytest.fixture(scope="session")
def api(build, library):
    return build(HERE / "api.c", "-O1", "-pthread", "-rdynamic", libs=(library,))


class Mode:
    """A setting of options that the other directories do not run in."""

    def __init__(self, options, library):
        self.options, self.library = options, library

    def environment(self, options=""):
        return {"LD_PRELOAD": str(self.library), "SPANGUARD_OPTIONS": ":".join(filter(None, (self.options, options)))}


@pytest.fixture(scope="session")
def debug(library):
    return Mode("mode=debug:leak_check=1", library)


def test_there_are_enough_cases():
    assert len(CASES) >= 60 and len({name for _, name, _, _ in CASES}) == len(CASES)


@pytest.mark.parametrize("source,name,direct,indirect", CASES, ids=[name for _, name, _, _ in CASES])
@pytest.mark.parametrize("options", ["mode=debug", "mode=guard:guard_align=1"], ids=["debug", "guard"])
def test_agrees_with_lsan(run, by_lsan, plainly, library, options, source, name, direct, indirect):
    theirs = run([by_lsan[source], name])
    ours = run([plainly[source], name], Mode(f"{options}:leak_check=1", library))
    want = verdict(theirs.err)
    assert (want[0][0], want[1][0]) == (int(direct), int(indirect)), theirs
    assert verdict(ours.err) == want, ours
    leaks = int(direct) + int(indirect)
    assert ours.status == (23 if leaks else 0), ours
    assert bool(ours.err) == bool(leaks), ours
    if leaks:
        assert f"SUMMARY: spanguard: {want[0][1] + want[1][1]} byte(s) leaked in {leaks} allocation(s).\n" in ours.err


#: without records the end of an object is the end of its slot: a pointer behind it counts
END_OF_SLOT = {"past_an_odd_end", "past_a_large_end"}


@pytest.mark.strict
def test_counts_without_records(run, plainly, guarded):
    for source, name, direct, indirect in CASES:
        if name in END_OF_SLOT:
            continue
        done = run([plainly[source], name], guarded, options="leak_check=1:sample=0")
        (found, _), (found_indirect, _) = verdict(done.err)
        if guarded.name == "strict" and name == "past_the_end":
            continue
        assert (name, found, found_indirect) == (name, int(direct), int(indirect)), done


# ---------------------------------------------------------------- the report

REPORT = re.compile(r"""={65}
==\d+==ERROR: spanguard: detected memory leaks

Direct leak of 80 byte\(s\) in 2 object\(s\) allocated from:
    #0 0x[0-9a-f]+ in malloc .*
    #1 0x[0-9a-f]+ .*
    #2 0x[0-9a-f]+ in lose_one .*
(?:    #.*\n)+    suppression: leak:lose_one

Direct leak of 56 byte\(s\) in 1 object\(s\) allocated from:
    #0 .*
    #1 .*
    #2 0x[0-9a-f]+ in lose_another .*
(?:    #.*\n)+    suppression: leak:lose_another

Direct leak of 24 byte\(s\) in 1 object\(s\) allocated from:
(?:    #.*\n)+    suppression: leak:\S+

Indirect leak of 100 byte\(s\) in 1 object\(s\) allocated from:
    #0 .*
    #1 .*
    #2 0x[0-9a-f]+ in lose_pair .*
(?:    #.*\n)+    suppression: leak:lose_pair

Objects leaked above:
0x[0-9a-f]+ \(40 bytes\)
0x[0-9a-f]+ \(40 bytes\)
0x[0-9a-f]+ \(56 bytes\)
0x[0-9a-f]+ \(24 bytes\)
0x[0-9a-f]+ \(100 bytes\)

Still reachable: \d+ byte\(s\) in \d+ allocation\(s\)\.
SUMMARY: spanguard: 260 byte\(s\) leaked in 5 allocation\(s\)\.
""")


def test_report(run, api, debug):
    done = run([api, "many_places"], debug)
    assert REPORT.fullmatch(done.err) and done.status == 23, done


@pytest.mark.parametrize("mode", ["debug", "guard"])
def test_still_reachable(run, api, library, mode):
    """As many bytes as were asked for, and nothing that was freed."""
    done = run([api, "kept_and_freed"], Mode(f"mode={mode}:leak_check=1", library))
    assert verdict(done.err) == ((1, 40), (0, 0)), done
    assert "\nStill reachable: 410 byte(s) in 10 allocation(s).\n" in done.err, done


@pytest.mark.parametrize("what,options,status", [
    ("status_0_by_exit", "", 23), ("hold", "leak_exitcode=7", 7), ("hold", "leak_exitcode=0", 0), ("status_3", "", 3)])
def test_exit_status(run, api, debug, what, options, status):
    done = run([api, what], debug, options=options)
    assert done.status == status and verdict(done.err) == ((1, 40), (0, 0)), done


def test_output_is_not_lost(run, api, debug):
    """What stands in stdout's buffer is written although the exit status is changed."""
    assert run([api, "hold"], debug).out == "out of the buffer"


@pytest.mark.parametrize("what", ["clean", "ends_by__exit", "by_mapping"])
def test_silence(run, api, debug, what):
    run([api, what], debug).clean()


def test_functions_of_atexit_come_before(run, api, debug):
    assert verdict(run([api, "in_atexit"], debug).err) == ((1, 56), (0, 0))


def test_off_by_default(run, plainly, guarded):
    run([plainly["cases.c"], "many"], guarded).clean()


@pytest.mark.parametrize("records", ["", "records=1"])
def test_large_numbers(run, plainly, library, records):
    done = run([plainly["cases.c"], "many"], Mode(f"leak_check=1:sample=0:{records}", library))
    assert verdict(done.err)[0][0] == 100 and len(GROUP.findall(done.err)) == 1, done


def test_sampled_object_has_its_stack(run, api, library):
    """Not a mode with records: where an object happens to be sampled its stack and size are known."""
    done = run([api, "many_places"], Mode("leak_check=1:sample=1", library))
    assert verdict(done.err) == ((4, 160), (1, 100)), done
    assert "in lose_one" in done.err and "in lose_pair" in done.err, done


def test_json(run, api, debug, scratch):
    """A line for each place, by the schema of all reports."""
    schema = jsonschema.Draft7Validator(json.loads((HERE.parent.parent / "doc" / "report.schema.json").read_text()))
    run([api, "many_places"], debug, options=f"json={scratch}/log")
    lines = [json.loads(line) for line in (scratch / "log").read_text().splitlines()]
    for line in lines:
        schema.validate(line)
    assert sorted((line["leak"]["kind"], line["leak"]["bytes"], line["leak"]["objects"]) for line in lines) == [
        ("direct", 24, 1), ("direct", 56, 1), ("direct", 80, 2), ("indirect", 100, 1)]
    assert all("main" in json.dumps(line["stacks"]["alloc"]) for line in lines)


def test_log_file(run, api, debug, scratch):
    done = run([api, "hold"], debug, options=f"log={scratch}/log")
    assert (done.status, done.err) == (23, "") and verdict((scratch / "log").read_text())[0] == (1, 40)


# ---------------------------------------------------------------- suppressions

@pytest.mark.parametrize("lines,left", [
    ("leak:lose_one", (2, 80)), ("leak:^lose_one$", (2, 80)), ("leak:lose_*e$", (2, 80)), ("leak:lose", (0, 0)),
    ("leak:-api", (0, 0)), ("leak:no_such_function", (4, 160)), ("# leak:lose\n\nrace:lose_one\n", (4, 160)),
    ("leak:lose_one\r\n  leak:lose_another\n", (1, 24)), ("leak:^ose_one", (4, 160)), ("leak:lose_on$", (4, 160))])
def test_suppressions(run, api, debug, scratch, lines, left):
    (scratch / "list").write_text(lines)
    done = run([api, "many_places"], debug, options=f"leak_suppressions={scratch}/list")
    assert verdict(done.err)[0] == left and done.status == (23 if left[0] else 0), done
    used = re.search(r"^Suppressions used:\n  count      bytes template\n(.*?)^-", done.err, re.M | re.S)
    assert bool(used) == (left not in ((4, 160), (0, 0))), done
    if lines == "leak:lose_one":
        assert used[1] == "      2         80 lose_one\n", done


def test_suppression_that_the_report_proposes(run, api, debug, scratch):
    proposed = re.findall(r"^    suppression: (.*)$", run([api, "many_places"], debug).err, re.M)
    assert len(proposed) == 4
    (scratch / "list").write_text("\n".join(proposed))
    run([api, "many_places"], debug, options=f"leak_suppressions={scratch}/list").clean()


def test_proposal_is_not_a_function_of_libc(run, api, debug):
    """It would silence every string that is lost."""
    done = run([api, "by_strdup"], debug)
    assert re.findall(r"^    suppression: (.*)$", done.err, re.M) == ["leak:lose_string"], done


# functions that no module exports, and a template, whose name stays as linked
INSIDE = r"""
#include <cstdlib>
static void *volatile sink;
#define APART __attribute__((noinline, noclone))
static APART void hidden() { sink = malloc(40); }
namespace net { struct socket { APART void open() { sink = malloc(50); } };
template <class T> APART void twice() { sink = malloc(sizeof(T)); } }
int main() { hidden(); net::socket().open(); net::twice<char[60]>(); sink = nullptr; }
"""


def test_functions_that_are_not_exported(run, build, debug, scratch):
    source = scratch / "inside.cc"
    source.write_text(INSIDE)
    program = build(source, "-O1")
    proposed = re.findall(r"^    suppression: (.*)$", run([program], debug).err, re.M)
    assert proposed == ["leak:_ZN3net5twiceIA60_cEEvv", "leak:net::socket::open", "leak:hidden"], proposed
    (scratch / "list").write_text("\n".join(proposed))
    run([program], debug, options=f"leak_suppressions={scratch}/list").clean()
    (scratch / "list").write_text("leak:^hidden$\nleak:net::socket\n")
    assert verdict(run([program], debug, options=f"leak_suppressions={scratch}/list").err) == ((1, 60), (0, 0))
    subprocess.run(["strip", program], check=True)
    proposed = re.findall(r"^    suppression: (.*)$", run([program], debug).err, re.M)
    assert proposed == [f"leak:{program.name}"] * 3, proposed


def test_no_such_file(run, api, debug):
    done = run([api, "hold"], debug, options="leak_suppressions=/no/such/file")
    assert "spanguard: warning: cannot read the file of leak_suppressions: /no/such/file\n" in done.err, done
    assert verdict(done.err)[0] == (1, 40), done


def test_default_suppressions_of_the_program(run, build, debug, scratch, library):
    source = scratch / "own.c"
    source.write_text(f'#include "{HERE}/api.c"\nconst char *__lsan_default_suppressions(void);\n'
                      'const char *__lsan_default_suppressions(void) { return "leak:lose_one\\nleak:lose_pair\\n"; }\n')
    own = build(source, "-O1", "-pthread", "-rdynamic", f"-I{HERE}", libs=(library,))
    assert verdict(run([own, "many_places"], debug).err) == ((1, 56), (0, 0))


# ---------------------------------------------------------------- on demand

def numbers(done):
    return re.findall(r"^(\w+) (-?\d+)$", done.out, re.M)


def test_on_demand(run, api, library):
    done = run([api, "demand"], Mode("mode=debug", library))
    assert numbers(done) == [("none", "0"), ("one", "1"), ("three", "3")], done
    assert done.status == 0 and len(re.findall("detected memory leaks\n", done.err)) == 2, done


def test_delta(run, api, library):
    done = run([api, "delta"], Mode("mode=debug", library))
    assert numbers(done) == [("new", "1"), ("new", "0"), ("new", "3"), ("all", "4"), ("new", "0")], done
    assert len(re.findall("detected memory leaks since the last check\n", done.err)) == 2, done


def test_reports_keep_nothing_alive(run, api, library, scratch):
    """The address in a line of JSON does not stay in our own memory, where the next check finds it."""
    done = run([api, "delta"], Mode("mode=debug", library), options=f"json={scratch}/log")
    assert numbers(done) == [("new", "1"), ("new", "0"), ("new", "3"), ("all", "4"), ("new", "0")], done


@pytest.mark.strict
def test_delta_in_every_mode(run, api, guarded):
    done = run([api, "delta"], guarded)
    assert numbers(done) == [("new", "1"), ("new", "0"), ("new", "3"), ("all", "4"), ("new", "0")], done


def test_ignore(run, api, library):
    done = run([api, "ignore"], Mode("mode=debug", library))
    assert numbers(done) == [("ignore", "0"), ("left", "3"), ("ignore", "0"), ("left", "2"), ("ignore", "0"),
                             ("left", "3"), ("foreign", "-1"), ("null", "-1")], done


def test_ignored_and_freed(run, api, library):
    assert numbers(run([api, "ignored_and_freed"], Mode("mode=debug", library))) == [("left", "3")]


def test_signal(run, api, library):
    done = run([api, "by_signal"], Mode("mode=debug:leak_signal=12", library))
    assert done.status == 0 and verdict(done.err) == ((1, 40), (0, 0)), done


def test_thread_that_does_not_stop(run, api, debug):
    done = run([api, "with_deaf"], debug)
    assert done.status == 0, done
    assert re.fullmatch(r"spanguard: warning: cannot stop the other threads: thread \d+ \(deaf one\) does not answer "
                        r"signal \d+ within 1000 ms; it blocks that signal\n", done.err), done


# ---------------------------------------------------------------- where a program runs

def test_forked_child(run, api, debug):
    done = run([api, "losing_child"], debug)
    assert (done.status, done.out) == (0, "child 23\n") and verdict(done.err) == ((1, 40), (0, 0)), done


def test_without_ptrace(run, api, debug):
    assert verdict(run([api, "many_places", "seccomp"], debug).err) == ((4, 160), (1, 100))


def test_under_strace(run, api, debug, scratch):
    if shutil.which("strace") is None:
        pytest.skip("no strace")
    done = run([api, "many_places"], debug, via=["strace", "-f", "-q", "-o", scratch / "log"])
    assert done.status == 23 and verdict(done.err) == ((4, 160), (1, 100)), done


def test_under_gdb(run, api, debug, scratch):
    if shutil.which("gdb") is None:
        pytest.skip("no gdb")
    commands = scratch / "commands"
    sets = "".join(f"set environment {k} {v}\n" for k, v in debug.environment().items())
    commands.write_text(f"{sets}set startup-with-shell off\nset pagination off\nhandle all nostop noprint pass\n"
                        "run many_places\n")
    done = run(["gdb", "-q", "-batch", "-nx", "-x", commands, api], timeout=60)
    assert "exited with code 027" in done.out, done
    assert verdict(done.out + done.err) == ((4, 160), (1, 100)), done


def test_threads_at_the_end(run, build, debug, scratch):
    """exit is called while threads allocate and free."""
    source = scratch / "busy.c"
    source.write_text('#include "cases.h"\nstatic void *work(void *a) { for (;;) free(get(1000)); return a; }\n'
                      "int main(void) { pthread_t t; for (int i = 0; i < 4; i++) pthread_create(&t, NULL, work, NULL);\n"
                      "get(40); scrub(); usleep(20000); return 0; }\n")
    busy = build(source, "-O1", "-pthread", f"-I{HERE}", "-Wno-unused-function", "-Wno-unused-variable")
    for _ in range(5):
        done = run([busy], debug)
        assert done.status == 23 and verdict(done.err) == ((1, 40), (0, 0)), done
