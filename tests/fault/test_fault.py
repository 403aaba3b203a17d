"""Touches of guards: what stops them is the machine, what is said of them is ours.

touch.c makes one access per run that a guard stops. The report must name the
right error, the right address, read or write, its length, the function that made the access
and those that allocated and freed the object; with "ok" the program must run
through without a word. chain.c and early.c make sure that nobody else who cares
for SIGSEGV can tell that we are there: what they see must be what they see
without us.
"""
import pathlib
import re
import signal

import pytest

HERE = pathlib.Path(__file__).resolve().parent
MODES = ["hardened", "strict"]
SAMPLE = "sample=1"
LARGE = "large_guards=1:large_guards_both=1:span_quarantine_fault=1"

# kind: title, what the address line says, functions on the stacks of the object's life
ACCESS = {
    "zero": ("access to a zero-size object", "0 bytes inside of 0-byte region", []),
    "over": ("heap-buffer-overflow", "0 bytes after 272-byte region", ["give"]),
    "under": ("heap-buffer-underflow", "1 byte before 272-byte region", ["give"]),
    "after": ("heap-use-after-free", "100 bytes inside of 272-byte region", ["take", "give"]),
}
LARGE_ACCESS = {
    "large-over": ("heap-buffer-overflow", "0 bytes after 262144-byte object"),
    "large-under": ("heap-buffer-underflow", "1 byte before 262144-byte object"),
    "large-after": ("heap-use-after-free", "5,000 bytes inside of 262144-byte object"),
}


@pytest.fixture(scope="session")
def touch(build):
    return build(HERE / "touch.c", "-g", "-O1")


@pytest.fixture(scope="session")
def chain(build):
    return build(HERE / "chain.c", "-g", "-O1", "-pthread")


@pytest.fixture(scope="session")
def early(build):
    return build(HERE / "early.c", "-g", "-shared", "-fPIC", name="early.so")


@pytest.fixture
def preload(library):
    """The environment of a mode: env=preload("strict", "sample=1")."""
    def environment(mode, options="", *behind):
        return {"LD_PRELOAD": " ".join(map(str, [library, *behind])),
                "SPANGUARD_OPTIONS": f"mode={mode}" + (":" + options if options else "")}
    return environment


def stacks(text):
    """[(heading, [(module, offset)])] of the stacks of the object's life."""
    found = []
    for head, body in re.findall(r"^((?:freed|previously allocated|allocated) by thread .*here:)\n"
                                 r"((?:    #.*\n)+)", text, re.M):
        frames = re.findall(r"^    #\d+ 0x[0-9a-f]+ (?:in \S+ )?\((.*?)\+0x([0-9a-f]+)\)", body, re.M)
        found.append((head, [(m, int(o, 16)) for m, o in frames]))
    return found


def check_access(said, done, title, where, kind):
    address = re.search(r"^ADDR (0x[0-9a-f]+) BASE", done.out, re.M)[1]
    assert re.match(rf"{title} on address {address} at pc 0x[0-9a-f]+ bp 0x[0-9a-f]+ sp 0x[0-9a-f]+$",
                    said.what), said.text
    assert re.search(rf"^{kind.upper()} of size 1 at {address} thread T0 \(", said.text, re.M), said.text
    assert re.search(rf"^{address} is located {re.escape(where)} ", said.text, re.M), said.text
    assert "\nHINT: " in said.text, said.text


# ---------------------------------------------------------------- guards

@pytest.mark.parametrize("access", ["read", "write"])
@pytest.mark.parametrize("kind", ACCESS)
@pytest.mark.parametrize("mode", MODES)
def test_touch(run, report, touch, preload, mode, kind, access):
    title, where, life = ACCESS[kind]
    done = run([touch, kind, access], env=preload(mode, SAMPLE))
    said = report(done)
    check_access(said, done, title, where, access)
    assert said.functions(touch)[0] == "offend", said.text
    assert f"#0 0x{said.what.split(' at pc 0x')[1].split()[0]} " in said.text, said.text
    histories = stacks(said.text)
    assert len(histories) == len(life), said.text
    for (_, frames), function in zip(histories, life):
        probe = type(said)(said.text)
        probe.frames = frames
        assert function in probe.functions(touch)[:2], said.text


@pytest.mark.parametrize("guards", ["marker", "mprotect"])
@pytest.mark.parametrize("kind", LARGE_ACCESS)
@pytest.mark.parametrize("access", ["read", "write"])
def test_touch_around_large(run, report, touch, preload, guards, kind, access):
    title, where = LARGE_ACCESS[kind]
    options = f"{LARGE}:guards={guards}:span_quarantine_bytes=64m:span_quarantine_share=100"
    done = run([touch, kind, access], env=preload("hardened", options))
    said = report(done)
    check_access(said, done, title, where, access)
    assert said.functions(touch)[0] == "offend", said.text


@pytest.mark.parametrize("kind", [*ACCESS, *LARGE_ACCESS, "slack", "frees"])
@pytest.mark.parametrize("mode", MODES)
def test_no_touch(run, touch, preload, mode, kind):
    done = run([touch, kind, "write", "ok"], env=preload(mode, f"{SAMPLE}:{LARGE}:verify_at_exit=1"))
    assert done.clean().endswith("fine\n"), done


@pytest.mark.parametrize("guards", ["marker", "mprotect"])
def test_either_kind_of_guard(run, report, touch, preload, guards):
    for kind in ("over", "under", "after"):
        done = run([touch, kind, "write"], env=preload("hardened", f"{SAMPLE}:guards={guards}"))
        assert report(done).what.startswith(ACCESS[kind][0]), done


def test_slack_is_checked_at_free(run, report, touch, preload):
    said = report(run([touch, "slack", "write"], env=preload("hardened", SAMPLE)))
    assert said.what.startswith("heap-buffer-overflow detected at free on address 0x"), said.text
    assert re.search(r"^5 bytes changed, by offsets from ", said.text, re.M), said.text
    assert re.search(r"^    offset 275: 0x73 \(expected 0x..\)$", said.text, re.M), said.text
    assert '  they look like text: "spilt"\n' in said.text, said.text
    assert "take" in said.functions(touch)[:2], said.text


def test_wrong_free_of_a_sampled_object(run, report, touch, preload):
    said = report(run([touch, "frees", "write"], env=preload("hardened", SAMPLE)))
    assert said.what.startswith("attempting double-free on 0x"), said.text
    assert [head.split(" by ")[0] for head, _ in stacks(said.text)] == ["freed", "previously allocated"]


# ---------------------------------------------------------------- going on

@pytest.mark.parametrize("kind,reports", [("over", 1), ("under", 1), ("after", 1), ("slack", 1), ("frees", 2)])
def test_recover(run, touch, preload, kind, reports):
    done = run([touch, kind, "write"], env=preload("hardened", f"{SAMPLE}:sample_recover=1"))
    assert done.status == 0 and done.out.endswith("fine\n"), done
    assert done.err.count("==ERROR: spanguard: ") == reports, done
    assert done.err.count("==GOING ON") == reports, done


def test_recover_is_for_sampled_objects_only(run, report, touch, preload):
    done = run([touch, "zero", "write"], env=preload("hardened", "sample_recover=1"))
    assert report(done).what.startswith("access to a zero-size object"), done


# ---------------------------------------------------------------- who was there before

EARLY = ["none", "siginfo", "plain", "ignore", "onstack", "onstack,usr1", "nodefer", "resethand",
         "plain,onstack,nodefer"]


@pytest.mark.parametrize("how", EARLY)
@pytest.mark.parametrize("kind", ["wild", "twice", "kill", "overflow"])
def test_chain(run, chain, early, preload, kind, how):
    """With us and without us: the same words, the same end."""
    env = {} if how == "none" else {"EARLY": how}
    behind = [] if how == "none" else [early]
    before = run([chain, kind], env={**env, "LD_PRELOAD": " ".join(map(str, behind))})
    after = run([chain, kind], env={**preload("hardened", SAMPLE, *behind), **env})
    assert (after.status, after.out, after.err) == (before.status, before.out, before.err), after
    caught = how not in ("none", "ignore") and (kind != "overflow" or "onstack" in how)
    assert caught == after.out.startswith("signal 11 at "), after
    if not caught and (kind, how) != ("kill", "ignore"):
        assert after.status == -signal.SIGSEGV, after


@pytest.mark.parametrize("how", EARLY)
@pytest.mark.parametrize("kind", ["thread", "alt"])
def test_our_guards_come_first(run, report, chain, early, preload, kind, how):
    """On a stack of 64 KiB, and on an alternate one."""
    env = {**preload("hardened", "", early), "EARLY": "" if how == "none" else how}
    done = run([chain, kind], env=env)
    said = report(done)
    assert said.what.startswith("access to a zero-size object on address 0x"), done
    assert "offend" in said.functions(chain)[:1], said.text
    assert done.out == "", done


def test_a_later_handler_replaces_ours(run, chain, preload):
    done = run([chain, "own"], env=preload("hardened"))
    assert (done.status, done.out, done.err) == (7, "own\n", ""), done


def test_plain_takes_no_signal(run, chain, preload):
    done = run([chain, "thread"], env=preload("plain"))
    assert done.clean() == "", done
