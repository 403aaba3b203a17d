"""spanguard run: symbols, exit codes, files, children, and the proof that malloc is ours."""
import json
import os
import re
import signal
import struct
import subprocess

import pytest


def frames(text):
    """(function, file, line) of the first stack."""
    found = []
    for no, rest in re.findall(r"^    #(\d+) 0x[0-9a-f]+ in (.*)$", text, re.M):
        if int(no) != len(found):
            break
        place = re.match(r"(\S+) (\S+?):(\d+)(?::\d+)?$", rest)
        found.append((place[1], os.path.basename(place[2]), int(place[3])) if place else (rest.split(" ")[0], None, 0))
    return found


# ---------------------------------------------------------------- reports

def test_functions_files_lines_and_inlined_frames(spanguard, bugs, line):
    done = spanguard(bugs, "double-free")
    text = done.aborted()
    assert [f[0] for f in frames(text)[:2]] == ["free", "release"], text        # nothing of what is inlined into free
    stack = [f for f in frames(text) if f[1] == "bugs.c"]
    assert stack[:3] == [("release", "bugs.c", line("inlined free")), ("drop", "bugs.c", line("call of release")),
                         ("twice", "bugs.c", line("second free"))], text
    assert f"SUMMARY: spanguard: double-free {bugs.parent}" not in text
    summary = re.search(r"^SUMMARY: spanguard: double-free (\S+?):(\d+):\d+ in (\w+)$", text, re.M)
    assert summary and os.path.basename(summary[1]) == "bugs.c", text
    assert (summary[3], int(summary[2])) == ("release", line("inlined free"))
    assert re.search(r"^DEDUP_TOKEN: release--twice--main$", text, re.M), text
    assert "CODE: SG-DF (spanguard explain SG-DF)\n" in text


def test_build_id_where_there_is_no_debug_information(spanguard, bugs, scratch):
    stripped = scratch / "stripped"
    subprocess.run(["strip", "-g", "-o", stripped, bugs], check=True)
    text = spanguard(stripped, "double-free").aborted()
    ident = subprocess.run(["readelf", "-n", stripped], capture_output=True, text=True, check=True).stdout
    build_id = re.search(r"Build ID: ([0-9a-f]+)", ident)[1]
    assert re.search(rf"in twice \(\S*/stripped\+0x[0-9a-f]+\) \(BuildId: {build_id}\)$", text, re.M), text


def test_a_saved_report_is_finished_later(run, command, bugs, scratch, library, line):
    saved = scratch / "saved"
    run([bugs, "double-free"], env={"LD_PRELOAD": str(library), "SPANGUARD_OPTIONS": f"log={saved}:json={saved}.json"})
    assert "bugs.c" not in saved.read_text()
    text = run([command, "symbolize", saved]).clean()
    assert ("twice", "bugs.c", line("second free")) in frames(text), text
    out = run([command, "symbolize", f"{saved}.json"]).clean()
    report = json.loads(out)
    where = [(f.get("symbol"), os.path.basename(f.get("file", "")), f.get("line"), f.get("inlined", False))
             for f in report["stacks"]["error"]["frames"]]
    assert ("release", "bugs.c", line("inlined free"), True) in where
    assert ("drop", "bugs.c", line("call of release"), False) in where
    again = run([command, "symbolize"], stdin=open(f"{saved}.json")).clean()
    assert json.loads(again) == report


@pytest.mark.parametrize("mode", ["plain", "hardened", "strict", "debug", "guard"])
def test_no_bug_no_word(spanguard, bugs, mode):
    done = spanguard(f"--mode={mode}", "--", bugs, "none")
    assert done.clean() == "the end\n"


def test_each_place_once(spanguard, bugs, scratch, reports):
    done = spanguard("--halt-on-error=0", f"--json={scratch}/j", bugs, "many-places")
    assert done.status == 86 and done.out == "the end\n", done
    assert done.err.count("==ERROR: spanguard: ") == 2 and done.err.count("==GOING ON\n") == 2, done
    assert [r["id"] for r in reports(scratch / "j")] == ["SG-DF", "SG-IF2"]
    assert all(r["continues"] for r in reports(scratch / "j"))
    done = spanguard("--halt-on-error=0", bugs, "again")
    assert done.status == 86 and done.err.count("==ERROR: spanguard: ") == 1, done


# ---------------------------------------------------------------- where it goes

def test_log_and_json_files_with_process_id(spanguard, bugs, scratch, reports):
    done = spanguard(f"--log={scratch}/log.%p", f"--json={scratch}/json.%p", bugs, "in-child", "open", "3", cwd=scratch)
    assert done.status == 86 and done.err == "", done
    logs, jsons = sorted(scratch.glob("log.*")), sorted(scratch.glob("json.*"))
    assert len(logs) == 1 and len(jsons) == 1
    pid = int(logs[0].name.split(".")[1])
    assert re.search(rf"^=={pid}==ERROR: spanguard: attempting double-free", logs[0].read_text(), re.M)
    assert "bugs.c" in logs[0].read_text()
    assert [r["pid"] for r in reports(jsons[0])] == [pid] == [int(jsons[0].name.split(".")[1])]


def test_a_relative_file_stays_where_the_command_was(spanguard, bugs, scratch, reports):
    done = spanguard("--log=log", "--json", "json", bugs, "double-free", "chdir", cwd=scratch)
    assert done.aborted() == ""
    assert "attempting double-free" in (scratch / "log").read_text()
    assert len(reports(scratch / "json")) == 1


def test_descriptors_closed(spanguard, bugs, scratch, run, library, reports):
    """Without the command there is only the file; with it, not even fd 2 is needed."""
    options = f"log={scratch}/log:json={scratch}/json"
    done = run([bugs, "double-free", "closed"], env={"LD_PRELOAD": str(library), "SPANGUARD_OPTIONS": options})
    assert done.aborted() == ""
    assert (scratch / "log").read_text().count("==ABORTING") == 1
    assert len(reports(scratch / "json")) == 1
    done = spanguard(f"--log={scratch}/log2", bugs, "double-free", "closed")
    assert done.aborted() == ""
    assert (scratch / "log2").read_text().count("==ABORTING") == 1


def test_a_file_that_cannot_be_made(spanguard, bugs):
    assert "attempting double-free" in spanguard("--log=/nonexistent/x", bugs, "double-free").aborted()


@pytest.mark.parametrize("bug", ["two-threads", "handler"])
def test_one_whole_report(spanguard, bugs, bug, scratch, reports):
    text = spanguard(f"--json={scratch}/j", bugs, bug).aborted()
    assert text.count("==ERROR: spanguard: ") == 1 and text.count("==ABORTING\n") == 1, text
    assert "in twice " in text
    assert len(reports(scratch / "j")) == 1


# ---------------------------------------------------------------- exit codes

@pytest.mark.parametrize("status", [0, 1, 23, 77, 255])
def test_the_status_of_the_program(spanguard, status):
    assert spanguard("sh", "-c", f"exit {status}").status == status


@pytest.mark.parametrize("name", ["TERM", "KILL", "SEGV", "ABRT"])
def test_the_signal_of_the_program(spanguard, name):
    done = spanguard("sh", "-c", f"kill -{name} $$")
    assert done.status == -getattr(signal, "SIG" + name) and done.err == ""


def test_a_report_in_a_child_counts(spanguard, bugs):
    done = spanguard("sh", "-c", f"{bugs} double-free; exit 0")
    assert done.status == 86 and done.err.count("==ABORTING\n") == 1, done
    assert "in twice " in done.err


def test_bad_options(spanguard, bugs):
    for bad, near in (("--mod=debug", "mode"), ("--mode=debgu", "debug"), ("--sample=many", "0..")):
        done = spanguard(bad, bugs)
        assert done.status == 2 and near in done.err and done.out == "", done
    done = spanguard("--frobnicate", bugs)
    assert done.status == 2 and "frobnicate" in done.err
    done = spanguard(bugs, env={"SPANGUARD_OPTIONS": "smaple=1"})
    assert done.status == 2 and "sample" in done.err
    assert spanguard().status == 2
    assert spanguard("--").status == 2


def test_a_program_that_is_not_there(spanguard, scratch):
    assert (spanguard("/nonexistent/prog").status, spanguard("no-such-program-xyz").status) == (127, 127)
    plain = scratch / "plain"
    plain.write_text("")
    done = spanguard(plain)
    assert done.status == 126 and "not executable" in done.err


def test_options_of_the_environment_and_the_command_line(spanguard, bugs):
    done = spanguard("--halt-on-error=1", bugs, "double-free", env={"SPANGUARD_OPTIONS": "halt_on_error=0"})
    assert "==ABORTING" in done.aborted()
    done = spanguard(bugs, "double-free", env={"SPANGUARD_OPTIONS": "halt_on_error=0"})
    assert done.status == 86 and "==GOING ON" in done.err


def test_pools_of_others(spanguard):
    names = "PYTHONMALLOC G_SLICE GLIBCXX_FORCE_NEW"
    show = f"for v in {names}; do eval echo \\$$v; done"
    assert spanguard("--no-pools", "sh", "-c", show).clean().split() == ["malloc", "always-malloc", "1"]
    assert spanguard("sh", "-c", show).clean().split() == []


def test_no_symbolize_is_the_program_itself(spanguard, bugs):
    done = spanguard("--no-symbolize", bugs, "double-free")
    assert "bugs.c" not in done.aborted() and "attempting double-free" in done.err


# ---------------------------------------------------------------- is it ours?

def test_malloc_of_its_own(spanguard, build, bugs):
    here = os.path.dirname(__file__)
    own = build(f"{here}/own_malloc.c", "-rdynamic", "-w", "-fno-builtin")
    done = spanguard(own)
    assert done.status == 125 and "it defines malloc itself" in done.err and "--force" in done.err, done
    assert spanguard("--force", own).status == 0
    # behind a shell nothing can be seen before the start, but the library says it
    done = spanguard("sh", "-c", f"{own}; exit 0")
    assert done.status == 0 and f"has a malloc of its own ({own})" in done.err, done
    other = build(f"{here}/other_malloc.c")
    done = spanguard(other)
    assert done.status == 125 and "(je_malloc)" in done.err, done
    assert spanguard("--force", other).clean() == ""
    # what is ours although the address of malloc is the program's
    assert spanguard(build(f"{here}/takes_address.c", "-no-pie")).clean() == ""


def test_set_uid(spanguard, scratch):
    """The loader ignores LD_PRELOAD then, without a word."""
    if os.getuid() != 0:
        pytest.skip("needs root to make a set-uid program of somebody else")
    source, program = scratch / "secure.c", scratch / "secure"
    source.write_text("int main(int c, char **v) { return c; }\n")
    subprocess.run(["gcc", "-o", program, source], check=True)
    os.chown(program, 65534, 65534)
    os.chmod(program, 0o4755)
    done = spanguard(program)
    assert done.status == 125 and "it is set-uid or set-gid" in done.err, done
    # what a shell becomes after it was bound is the shell's affair
    assert spanguard("sh", "-c", f"exec {program}").status == 1


def test_a_library_of_another_build(command, run, scratch, library):
    """Its version and layout are read from the file, before anything is started."""
    other = scratch / "libspanguard.so"
    whole = library.read_bytes()
    at = whole.index(b"spanguard\0\0\0") + 12
    layout, version = struct.unpack_from("<Q16s", whole, at)
    version = version.rstrip(b"\0").decode()
    mine = f"this command is version {version} (layout {layout:016x})"
    for new, name in ((struct.pack("<Q", 0x1234) + whole[at + 8:at + 24], f"{version} (layout 0000000000001234)"),
                      (whole[at:at + 8] + b"9.8.7".ljust(16, b"\0"), f"9.8.7 (layout {layout:016x})")):
        other.write_bytes(whole[:at] + new + whole[at + 24:])
        done = run([command, "--force", "sh", "-c", "echo started"], env={"SPANGUARD_LIB": str(other)})
        assert done.status == 125 and done.out == "" and done.err.count("\n") == 2, done
        assert f"the library {other} is version {name}, {mine}" in done.err, done
    other.write_bytes(whole)
    assert run([command, f"--lib={other}", "sh", "-c", "echo started"]).clean() == "started\n"
    subprocess.run(["strip", other], check=True)
    assert run([command, f"--lib={other}", "sh", "-c", "echo started"]).clean() == "started\n"
    subprocess.run(["objcopy", "--remove-section=.note.spanguard", other], check=True)
    done = run([command, f"--lib={other}", "sh", "-c", "echo started"])
    assert done.status == 125 and done.out == "" and f"does not say which spanguard it is, {mine}" in done.err, done
    done = run([command, "doctor"], env={"SPANGUARD_LIB": str(other)})
    assert done.status == 125 and re.search(r"^FAIL  version +the library \S+ does not say", done.out, re.M), done


def test_a_library_that_has_no_effect(command, run, scratch, library):
    """Something else that says it is our library, and one that the loader cannot map: in both cases
    the program runs to its end, and nobody but us says that it ran without protection."""
    broken, source, note = scratch / "libspanguard.so", scratch / "empty.s", scratch / "note"
    subprocess.run(["objcopy", "-O", "binary", "--only-section=.note.spanguard", library, note], check=True)
    source.write_text(f'.section .note.spanguard, "a", @note\n.balign 8\n.incbin "{note}"\n'
                      '.section .note.GNU-stack, "", @progbits\n')
    subprocess.run(["gcc", "-shared", "-o", broken, source], check=True)
    done = run([command, "/bin/true"], env={"SPANGUARD_LIB": str(broken)})
    assert done.status == 125 and "the library did not get into the process" in done.err, done
    whole = broken.read_bytes()
    broken.write_bytes(whole[:54] + b"\0\0" + whole[56:])      # e_phentsize
    done = run([command, "sleep", "60"], env={"SPANGUARD_LIB": str(broken)}, timeout=50)
    assert done.status == 125 and "spanguard: cannot work with" in done.err, done
    assert "the library did not get into the process" in done.err, done
    broken.write_bytes(whole[:len(whole) // 4])
    done = run([command, "sleep", "60"], env={"SPANGUARD_LIB": str(broken)}, timeout=50)
    assert done.status == 125 and "does not say which spanguard it is" in done.err, done


def test_a_loader_that_fails_keeps_its_status(spanguard, scratch):
    lib, main = scratch / "lib.c", scratch / "main.c"
    lib.write_text("int f(void) { return 0; }\n")
    main.write_text("int f(void);\nint main(void) { return f(); }\n")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", scratch / "libgone.so", lib], check=True)
    subprocess.run(["gcc", "-o", scratch / "main", main, f"-L{scratch}", "-lgone"], check=True)
    done = spanguard(scratch / "main")
    assert done.status == 127 and "libgone.so" in done.err and "spanguard:" not in done.err, done


@pytest.mark.parametrize("what, flags, says", [
    ("static", ["-static"], "it is statically linked"),
    ("asan", ["-fsanitize=address"], "it is built with a sanitizer"),
    ("tsan", ["-fsanitize=thread"], "it is built with a sanitizer"),
])
def test_preflight(spanguard, build, what, flags, says):
    done = spanguard(build(os.path.join(os.path.dirname(__file__), "takes_address.c"), *flags))
    assert done.status == 125 and says in done.err and done.err.count("\n") == 2, done


def test_preflight_of_another_libc_and_machine(spanguard, scratch, build):
    here = os.path.dirname(__file__)
    subprocess.run(["musl-gcc", "-o", scratch / "musl", f"{here}/takes_address.c"], check=True)
    done = spanguard(scratch / "musl")
    assert done.status == 125 and "it runs on musl" in done.err, done
    other = bytearray(build(f"{here}/takes_address.c").read_bytes())
    other[18:20] = (183).to_bytes(2, "little")      # e_machine: AArch64
    (scratch / "arm").write_bytes(other)
    (scratch / "arm").chmod(0o755)
    done = spanguard(scratch / "arm")
    assert done.status == 125 and "another machine or word size" in done.err, done


def test_scripts(spanguard, scratch, build):
    static = build(os.path.join(os.path.dirname(__file__), "takes_address.c"), "-static")
    script = scratch / "script"
    script.write_text(f"#!{static}\n")
    script.chmod(0o755)
    done = spanguard(script)
    assert done.status == 125 and str(static) in done.err and "statically linked" in done.err
    script.write_text("#!/nonexistent/sh\n")
    done = spanguard(script)
    assert done.status == 126 and "/nonexistent/sh" in done.err
    script.write_text("#!/bin/sh\nexit 5\n")
    assert spanguard(script).status == 5


# ---------------------------------------------------------------- doctor, explain, help

def test_doctor(spanguard, build, run):
    done = spanguard("doctor", "/bin/ls")
    assert done.status == 0, done
    for row in ("dynamic", "privileges", "machine", "libc", "sanitizer", "own malloc", "sandbox", "pools", "debug info",
                "library", "version", "preload list", "guard pages", "address space", "core files", "ptrace", "overcommit",
                "addresses", "seccomp", "AppArmor"):
        assert re.search(rf"^(ok   |note ) {row} ", done.out, re.M), (row, done.out)
    assert done.out.count("why: ") == done.out.count("fix: ") == len(re.findall("^note ", done.out, re.M))
    static = build(os.path.join(os.path.dirname(__file__), "takes_address.c"), "-static")
    done = spanguard("doctor", static)
    assert done.status == 125 and re.search(r"^FAIL  dynamic +it is statically linked", done.out, re.M), done
    assert "fix: Link it dynamically" in done.out
    done = spanguard("doctor", "no-such-program-xyz")
    assert done.status == 127


def test_doctor_of_this_session(spanguard, library):
    done = spanguard("doctor", via=["prlimit", f"--as={8 << 30}"])
    assert re.search(r"^note  address space  address space is limited to 8192 MiB", done.out, re.M), done
    done = spanguard("doctor", env={"LD_PRELOAD": "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2"})
    assert re.search(r"^note  preload list   LD_PRELOAD holds another allocator", done.out, re.M), done


def test_explain(spanguard):
    every = spanguard("explain").clean().splitlines()
    ids = [text.split()[0] for text in every]
    assert len(ids) == len(set(ids)) >= 15
    for ident in ids:
        text = spanguard("explain", ident).clean()
        assert text.startswith(ident + "  ")
        assert "\nCause\n" in text and "\nExample\n" in text and "\nFix\n" in text
    assert spanguard("explain", "df").out == spanguard("explain", "SG-DF").out
    assert spanguard("explain", "bad-free").out.count("\nCause\n") == 3
    done = spanguard("explain", "SG-XX")
    assert done.status == 2 and "SG-XX" in done.err


def test_help(spanguard):
    text = spanguard("help").clean()
    assert text == spanguard("--help").clean() == spanguard("run", "--help").clean()
    for word in ("symbolize", "report", "explain", "doctor", "--log=FILE", "--json=FILE", "86", "125"):
        assert word in text
    assert re.fullmatch(r"spanguard \d+\.\d+\.\d+\n", spanguard("--version").clean())
