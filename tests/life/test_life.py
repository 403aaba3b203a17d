"""A process's life: the classic ways in which a replaced malloc breaks a program.

One test for each failure known from other allocators. Every program first runs
on libc's malloc where the promise is not ours alone: a failure there is a
failure of the test.
"""
import ctypes
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess

import pytest

HERE = pathlib.Path(__file__).resolve().parent
THREAD = "-pthread"


def root_only():
    if os.geteuid() != 0:
        pytest.skip("needs root")


def limit(which, value):
    """A preexec function that sets one resource limit."""
    return lambda: resource.setrlimit(which, (value, value))


# ---------------------------------------------------------------- coming alive

@pytest.mark.parametrize("order", ["wrapper-first", "wrapper-last"])
def test_wrapper_by_dlsym(build, run, alloc, order):
    """A second preloaded library wraps malloc by dlsym, which itself calls calloc."""
    hello = build(HERE / "hello.c")
    wrapper = build(HERE / "wrap_dlsym.c", "-shared", "-fPIC", name="libwrap.so")
    env = alloc.environment()
    both = [str(wrapper), env.pop("LD_PRELOAD", "")]
    if order == "wrapper-last":
        both.reverse()
    out = run([hello], env={**env, "LD_PRELOAD": " ".join(filter(None, both))}).clean()
    wrapped = order == "wrapper-first" or not alloc.guarded
    assert out == ("hello\nwrapped\n" if wrapped else "hello\nnot wrapped\n")


def test_needs_no_dlsym(library):
    """What it imports cannot call back into malloc: no dlsym, no dynamic TLS, no malloc of others."""
    done = subprocess.run(["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True)
    imported = {line.split()[-1].split("@")[0] for line in done.stdout.splitlines()}
    forbidden = {"dlsym", "dlvsym", "dlopen", "malloc", "calloc", "realloc", "free", "strdup", "printf", "snprintf",
                 "vsnprintf", "fopen", "backtrace", "qsort", "getline", "opendir", "syslog", "__tls_get_addr"}
    assert not imported & forbidden


def test_static_tls_is_small(library):
    """Initial-exec TLS of at most 64 bytes: it must fit the surplus when opened late."""
    done = subprocess.run(["readelf", "-lW", library], capture_output=True, text=True, check=True)
    sizes = [int(line.split()[5], 16) for line in done.stdout.splitlines() if line.split()[:1] == ["TLS"]]
    assert len(sizes) == 1 and 0 < sizes[0] <= 64


def test_library_stays_mapped(library):
    """dlclose of it would leave objects without their allocator."""
    done = subprocess.run(["readelf", "-dW", library], capture_output=True, text=True, check=True)
    assert "NODELETE" in done.stdout
    assert "STATIC_TLS" in done.stdout


BINDING = pytest.mark.parametrize("binding", ["lazy", "now"])


def bind(binding):
    return {"LD_BIND_NOW": "1"} if binding == "now" else {}


@pytest.mark.strict
@BINDING
@pytest.mark.parametrize("flags", [("-Wl,-z,lazy",), ("-Wl,-z,now",), ("-no-pie", "-Wl,-z,lazy")], ids=" ".join)
def test_malloc_before_main(build, run, alloc, binding, flags):
    """IFUNC resolver of the program, preinit_array, constructors."""
    early = build(HERE / "early.c", *flags)
    assert run([early], alloc, env=bind(binding)).clean() == "early\n"


@pytest.mark.strict
@BINDING
@pytest.mark.parametrize("flags", [("-Wl,-z,lazy",), ("-Wl,-z,now",)], ids=" ".join)
def test_malloc_in_ifunc_of_library(build, run, alloc, binding, flags):
    """The resolver of a shared library, run in the middle of relocation."""
    lib = build(HERE / "ifunc_lib.c", "-shared", "-fPIC", *flags, name="libifunc.so")
    main = build(HERE / "ifunc_main.c", *flags, libs=(str(lib), f"-Wl,-rpath,{lib.parent}"))
    assert run([main], alloc, env=bind(binding)).clean() == "ifunc\n"


@BINDING
def test_under_audit(build, run, alloc, binding):
    """An auditor in a namespace of its own allocates in every hook."""
    audit = build(HERE / "audit.c", "-shared", "-fPIC", name="libaudit.so")
    hello = build(HERE / "hello.c")
    env = {"LD_AUDIT": str(audit), **bind(binding)}
    assert run([hello], alloc, env=env).clean() == "hello\n"


@pytest.mark.parametrize("linker", ["bfd", "gold", "lld", "mold"])
@pytest.mark.parametrize("how", ["preload", "linked"])
def test_linkers(build, run, library, guarded, linker, how):
    """Programs of every linker, preloaded and linked against the library."""
    if not shutil.which("ld." + linker) and not shutil.which(linker):
        pytest.skip(f"linker {linker} is not installed")
    flags = ["-O2", f"-fuse-ld={linker}"] + (["-DNO_IFUNC"] if linker == "lld" else [])
    libs = (str(library), f"-Wl,-rpath,{library.parent}") if how == "linked" else ()
    early = build(HERE / "early.c", *flags, libs=libs)
    if how == "preload":
        assert run([early], guarded).clean() == "early\n"
    else:
        options = guarded.environment()["SPANGUARD_OPTIONS"]
        assert run([early], env={"SPANGUARD_OPTIONS": options}).clean() == "early\n"


def test_fifty_tls_modules(build, run, alloc, scratch):
    """50 modules opened late: 42 with 4 KiB of TLS each, and eight that share the static surplus."""
    flags = ["-shared", "-fPIC"]
    source = HERE / "tls_dso.c"
    large = build(source, *flags, "-DTLS_BYTES=4096", '-DTLS_MODEL="global-dynamic"', name="libtls.so")
    small = build(source, *flags, "-DTLS_BYTES=32", '-DTLS_MODEL="initial-exec"', name="libtls.so")
    # One file, many modules: the dynamic linker tells them apart by inode.
    copies = [scratch / f"libtls{i}.so" for i in range(50)]
    for i, copy in enumerate(copies):
        shutil.copy(small if i % 6 == 5 else large, copy)
    main = build(HERE / "tls_main.c", THREAD)
    assert run([main, *copies], alloc).clean() == "modules 50\n"


def test_opened_late(build, run, library):
    """dlopen of it, beside libc's malloc: either refused by the loader, or good until after dlclose."""
    main = build(HERE / "dlopen_self.c", THREAD)
    done = run([main, library])
    if "NOOPEN" in subprocess.run(["readelf", "-dW", library], capture_output=True, text=True, check=True).stdout:
        assert "cannot be dlopen()ed" in done.err, done
    else:
        assert done.clean() == "closed\n"


# ---------------------------------------------------------------- processes

@pytest.mark.strict
@pytest.mark.parametrize("how", ["fork", "vfork", "spawn", "clone"])
def test_fork_while_threads_allocate(build, run, alloc, how):
    main = build(HERE / "fork_threads.c", "-O1", THREAD)
    rounds = 8 if alloc.name == "debug" else 25
    assert run([main, how, rounds, 8], alloc).clean() == "forked\n"


@pytest.mark.parametrize("how", ["_Fork", "syscall"])
def test_bare_fork(build, run, alloc, how):
    """No handlers run; with one thread the child is as good as its parent."""
    main = build(HERE / "fork_threads.c", "-O1", THREAD)
    assert run([main, how, 25, 0], alloc).clean() == "forked\n"


def test_bare_fork_while_threads_allocate(build, run, guarded):
    """No system promises this one; we do."""
    main = build(HERE / "fork_threads.c", "-O1", THREAD)
    assert run([main, "_Fork", 50, 8], guarded, timeout=100).clean() == "forked\n"


# ---------------------------------------------------------------- signals

@pytest.mark.strict
def test_signals_belong_to_the_program(build, run, alloc):
    main = build(HERE / "segv_owner.c")
    assert run([main, "handler"], alloc).clean() == "mine\n"


@pytest.mark.strict
def test_a_crash_stays_a_crash(build, run, alloc):
    main = build(HERE / "segv_owner.c")
    done = run([main, "crash"], alloc)
    assert done.status == -signal.SIGSEGV and done.err == "", done


# ---------------------------------------------------------------- ends of threads and processes

@pytest.mark.strict
def test_thread_exit(build, run, alloc):
    """thread_local and key destructors of all rounds allocate and free."""
    main = build(HERE / "thread_exit.cpp", THREAD)
    assert run([main], alloc).clean() == "main\nstatic\n"


@pytest.mark.strict
def test_objects_of_dead_threads(build, run, alloc):
    main = build(HERE / "orphans.c", "-O1", THREAD)
    run([main], alloc).clean()


def test_exit_order(build, run, alloc):
    main = build(HERE / "exit_order.c")
    module = build(HERE / "module.c", "-shared", "-fPIC", name="libmodule.so")
    said = run([main, module], alloc).clean().splitlines()
    assert [word for word in said if word != "module"] == [
        "atexit 2", "atexit 1", "on_exit", "destructor", "last destructor"]
    assert said.count("module") == 1


def test_hundred_thousand_threads(build, run, guarded):
    main = build(HERE / "many_threads.c", "-O1", THREAD)
    run([main, 100000], guarded, timeout=150).clean()


@pytest.mark.glibc
def test_hundred_thousand_threads_test(build, run):
    """The test program itself: libc keeps flat as well."""
    run([build(HERE / "many_threads.c", "-O1", THREAD), 10000]).clean()


# ---------------------------------------------------------------- modules and namespaces

@pytest.mark.strict
def test_dlclose(build, run, alloc):
    main = build(HERE / "plugin.c")
    module = build(HERE / "module.c", "-shared", "-fPIC", name="libmodule.so")
    assert run([main, "close", module], alloc).clean() == "plugged\n"


def test_second_namespace(build, run, alloc):
    main = build(HERE / "plugin.c")
    module = build(HERE / "module.c", "-shared", "-fPIC", name="libmodule.so")
    assert run([main, "space", module], alloc).clean() == "plugged\n"


def works_or_explains(done, report):
    """A pointer of another malloc: freeing it works, or ends in a report that names it."""
    address = int(re.match(r"ADDR 0x([0-9a-f]+)", done.out).group(1), 16)
    if done.status == 0:
        assert done.err == "" and done.out.endswith("plugged\n"), done
        return
    said = report(done)
    assert said.what.startswith("attempting free on address which was not malloc()-ed"), done
    assert address in said.addresses(), done


def test_deepbind_plugin(build, run, guarded, report):
    main = build(HERE / "plugin.c")
    module = build(HERE / "module.c", "-shared", "-fPIC", name="libmodule.so")
    works_or_explains(run([main, "deep", module], guarded), report)


def test_free_of_second_namespace(build, run, guarded, report):
    main = build(HERE / "plugin.c")
    module = build(HERE / "module.c", "-shared", "-fPIC", name="libmodule.so")
    works_or_explains(run([main, "spacefree", module], guarded), report)


# ---------------------------------------------------------------- reports from odd places

PLACES = ["main", "fiber", "edge", "altstack", "handler", "tinythread", "garbage", "deep", "two", "child"]


def whole_report(done, report, where="free"):
    said = report(done)
    assert said.what.startswith("attempting double-free"), done
    if where != "two":
        address = int(re.match(r"ADDR 0x([0-9a-f]+)", done.out).group(1), 16)
        assert address in said.addresses(), done
    return said


@pytest.mark.strict
@pytest.mark.parametrize("place", PLACES)
def test_report_from(build, run, guarded, report, place):
    main = build(HERE / "report_from.c", "-g", THREAD)
    said = whole_report(run([main, place], guarded), report, place)
    culprit = "thread_main" if place == "two" else "offend"
    assert culprit in said.functions(main), said.text


def test_report_closed_stdio(build, run, guarded):
    """Nowhere to say it: still the right death, at once."""
    main = build(HERE / "report_from.c", "-g", THREAD)
    run([main, "closed"], guarded, timeout=20).aborted()


def test_report_full_disk(build, run, guarded):
    main = build(HERE / "report_from.c", "-g", THREAD)
    with open("/dev/full", "wb") as full:
        run([main, "main"], guarded, timeout=20, stderr=full).aborted()


def test_report_reader_gone(build, run, guarded):
    """A log pipe nobody reads any more must not turn SIGABRT into SIGPIPE."""
    main = build(HERE / "report_from.c", "-g", THREAD)
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run([main, "main"], guarded, timeout=20, stderr=writer,
                   preexec_fn=lambda: signal.signal(signal.SIGPIPE, signal.SIG_DFL))
    finally:
        os.close(writer)
    done.aborted()


def test_report_spares_a_data_file(build, run, guarded, scratch):
    """fd 2 has become a data file: what the program wrote there stays."""
    main = build(HERE / "report_from.c", "-g", THREAD)
    data = scratch / "data"
    run([main, "datafile", data], guarded, timeout=20).aborted()
    assert data.read_text().startswith("precious\n")


def test_report_in_empty_root(build, run, guarded, report, scratch):
    root_only()
    main = build(HERE / "report_from.c", "-g", THREAD)
    whole_report(run([main, "chroot", scratch], guarded), report)


def in_namespace(setup):
    """Prefix that runs a command in a mount namespace changed by `setup`."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0:
        pytest.skip("cannot make a mount namespace here")
    return ["unshare", "-m", "/bin/sh", "-c", f'{setup} && exec "$@"', "sh"]


@pytest.mark.parametrize("setup", ["mount -t tmpfs none /proc", "mount -o remount,ro,bind /"],
                         ids=["no-proc", "read-only"])
def test_odd_file_systems(build, run, guarded, report, setup):
    """No /proc, or nothing writable: the heap works and so does its report."""
    root_only()
    via = in_namespace(setup)
    assert run([build(HERE / "hello.c")], guarded, via=via).clean() == "hello\n"
    main = build(HERE / "report_from.c", "-g", THREAD)
    whole_report(run([main, "main"], guarded, via=via), report)


def test_low_descriptors_stay_free(build, run, alloc, scratch):
    main = build(HERE / "closed_fds.c")
    log = scratch / "log"
    done = run([main, log], alloc, preexec_fn=lambda: [os.close(fd) for fd in range(3)])
    assert done.status == 0, done
    assert log.read_text() == "low\n"


# ---------------------------------------------------------------- sandboxes and privileges

@pytest.mark.strict
def test_seccomp_work(build, run, alloc):
    """After its start the heap needs the calls listed in sandbox.c and no other."""
    main = build(HERE / "sandbox.c", "-O1")
    assert run([main, "work"], alloc).clean() == "sandboxed\n"


def test_seccomp_report(build, run, guarded, report):
    main = build(HERE / "sandbox.c", "-O1")
    whole_report(run([main, "report"], guarded), report)


def test_no_new_privileges(build, run, alloc):
    main = build(HERE / "sandbox.c", "-O1")
    assert run([main, "nnp", main], alloc).clean() == "sandboxed\n"


def setuid_copy(program, directory):
    copy = directory / program.name
    shutil.copy(program, copy)
    copy.chmod(0o4755)
    return copy


def become_nobody():
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)


def test_setuid_program_ignores_preload(build, run, guarded, scratch):
    root_only()
    who = build(HERE / "who.c")
    copy = setuid_copy(who, scratch)
    done = run([copy], guarded, preexec_fn=become_nobody)
    assert done.out == "secure without\n" and done.status == 0, done
    assert run([who], guarded).clean() == "ordinary with\n"


def test_setuid_program_ignores_options(build, run, library, scratch):
    """Linked against the library, so it is there: the environment must not steer it."""
    root_only()
    here = scratch / "libspanguard.so"
    shutil.copy(library, here)
    # An absolute run path is honoured in a set-user-ID program.
    who = build(HERE / "who.c", libs=(str(library), f"-Wl,-rpath,{scratch},-rpath,{library.parent}"), name="who-linked")
    copy = setuid_copy(who, scratch)
    env = {"SPANGUARD_OPTIONS": "no_such_option=1:mode=nonsense:stats_at_exit=1"}
    done = run([copy], env=env, preexec_fn=become_nobody)
    assert done.clean() == "secure with\n"


# ---------------------------------------------------------------- limits

@pytest.mark.strict
def test_python_in_300_mb(run, alloc):
    """ulimit -v 300000: address space is short, not memory."""
    code = "x = [str(i) * 3 for i in range(200000)]; import json, sqlite3, decimal; print(len(json.dumps(x)))"
    done = run(["/usr/bin/python3", "-c", code], alloc, env={"PYTHONMALLOC": "malloc"},
               preexec_fn=limit(resource.RLIMIT_AS, 300000 << 10))
    assert done.clean() == "4066670\n"


@pytest.mark.strict
@pytest.mark.parametrize("kib", [100000, 300000, 1000000])
def test_address_space(build, run, alloc, kib):
    main = build(HERE / "limits.c", "-O1", THREAD)
    if repr(alloc) == "debug":
        kib += 20000        # its records and redzones
    done = run([main, 2], alloc, options="report_oom=0", preexec_fn=limit(resource.RLIMIT_AS, kib << 10))
    assert done.clean() == "within limits\n"


@pytest.mark.parametrize("stack", [64 << 10, 256 << 10, resource.RLIM_INFINITY])
def test_stack_limit(build, run, alloc, stack):
    main = build(HERE / "limits.c", "-O1", THREAD)
    done = run([main, 8], alloc, preexec_fn=limit(resource.RLIMIT_STACK, stack))
    assert done.clean() == "within limits\n"


@pytest.mark.strict
@pytest.mark.parametrize("options", ["", "scavenge=background"])
def test_no_more_threads(build, run, guarded, options, library, scratch):
    """RLIMIT_NPROC 1: not even the background scavenger gets its thread."""
    root_only()
    main = build(HERE / "limits.c", "-O1", THREAD)
    readable = shutil.copy(library, scratch)    # the checkout may be root's alone

    def drop():
        resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
        become_nobody()

    done = run([main, 2], guarded, options=options, env={"LD_PRELOAD": str(readable)}, preexec_fn=drop)
    assert done.status == 0 and done.out == "within limits\n", done
    warned = "spanguard: warning: cannot start the background scavenger"
    assert done.err.startswith(warned) and done.err.count("\n") == 1 if options else done.err == "", done


def test_locked_memory(build, run, alloc):
    """ulimit -l 0 and ulimit -d: nobody may need locked or brk memory."""
    main = build(HERE / "limits.c", "-O1", THREAD)
    done = run([main, 2], alloc, preexec_fn=limit(resource.RLIMIT_MEMLOCK, 0))
    assert done.clean() == "within limits\n"


@pytest.mark.skip(reason="vm.overcommit_memory=2 is a setting of the whole machine; fake_sys covers refused commits")
def test_strict_overcommit():
    pass


# ---------------------------------------------------------------- giving memory back

@pytest.mark.parametrize("order", ["same", "reverse", "random"])
def test_trim_gives_back(build, run, guarded, order):
    """1 GiB of 64-byte objects freed: below 5 % of the peak within 2 s of malloc_trim(0)."""
    main = build(HERE / "give_back.c", "-O2")
    run([main, 1024 if order == "same" else 256, "trim", order], guarded, timeout=120).clean()


def test_background_scavenger_gives_back(build, run, guarded):
    """The same by idling for at most 10 s."""
    main = build(HERE / "give_back.c", "-O2")
    run([main, 1024, "idle", "random"], guarded, options="scavenge=background", timeout=180).clean()


@pytest.mark.glibc
def test_give_back_test(build, run):
    run([build(HERE / "give_back.c", "-O2"), 128, "trim", "same"]).clean()


def counts(text):
    return [int(n) for n in re.fullmatch(r"empty (\d+) full (\d+) freed (\d+)\n", text).groups()]


@pytest.mark.strict
def test_mappings(build, run, guarded):
    """4 GiB live in small objects: fewer than 64 mappings of our own."""
    main = build(HERE / "mappings.c", "-O1")
    bare, _, _ = counts(run([main, 1]).clean())
    _, full, _ = counts(run([main, 4096], guarded, timeout=120).clean())
    assert full - bare < 64


def test_mappings_with_mprotect_guards(build, run, guarded):
    """Guards that cost mappings stay within their share of vm.max_map_count."""
    main = build(HERE / "mappings.c", "-O1")
    most = int(pathlib.Path("/proc/sys/vm/max_map_count").read_text())
    _, full, _ = counts(run([main, 1024], guarded, options="guards=mprotect", timeout=120).clean())
    assert full < most


@pytest.mark.strict(debug=False)
@pytest.mark.parametrize("guards", ["marker", "mprotect"])
@pytest.mark.parametrize("count, size", [(100000, 160 << 10), (1000000, 64)])
def test_many_live_objects(build, run, guarded, count, size, guards):
    """Under the kernel's own limit of mappings, and resident is what the program touched: two pages each."""
    main = build(HERE / "many_objects.c", "-O1")
    most = int(pathlib.Path("/proc/sys/vm/max_map_count").read_text())
    out = run([main, count, size], guarded, options=f"guards={guards}", timeout=120).clean()
    print(f"{guarded.name}, guards={guards}, {count} x {size}: {out}")
    mappings, mib = [int(n) for n in re.fullmatch(r"mappings (\d+) MiB (\d+)\n", out).groups()]
    assert mappings < (64 if guards == "marker" else most)
    assert mib << 20 < count * min(size + 64, 8192) * 1.25


@pytest.mark.strict
@pytest.mark.parametrize("program", ["hello.c", "orphans.c", "huge.c"])
def test_mprotect_guards_work(build, run, guarded, program):
    main = build(HERE / program, "-O1", THREAD)
    args = ["zero"] if program == "huge.c" else []
    run([main, *args], guarded, options="guards=mprotect", timeout=100).clean()


# ---------------------------------------------------------------- huge objects

@pytest.mark.strict
@pytest.mark.parametrize("what", ["sizes", "align", "realloc", "zero"])
def test_huge(build, run, alloc, what):
    main = build(HERE / "huge.c", "-O2")
    # it asks for sizes that nobody can give, and means it
    assert run([main, what], alloc, options="report_requests=0", timeout=100).clean() == "huge\n"


# ---------------------------------------------------------------- sealed mappings

def can_seal():
    """Whether this kernel has mseal: called with nothing to seal, which is allowed."""
    return ctypes.CDLL(None, use_errno=True).syscall(462, None, 0, 0) == 0


def count_sealed(text):
    return [int(n) for n in re.fullmatch(r"(\d+) sealed, (\d+) of them writable\n", text).groups()]


@pytest.mark.strict
@pytest.mark.parametrize("guards", ["marker", "mprotect"])
def test_sealed_mappings(build, run, guarded, guards):
    """Options, metadata with its guards and the arena map cannot be unmapped, moved or made accessible."""
    if not can_seal():
        pytest.skip("no mseal")
    main = build(HERE / "sealed.c", "-O1")
    bare, _ = count_sealed(run([main]).clean())
    sealed, writable = count_sealed(run([main], guarded, options=f"guards={guards}").clean())
    # options, fault handler: read-only; metadata and arena map: writable, and with mprotect a guard at each end of metadata
    assert sealed - bare >= (6 if guards == "mprotect" else 4) and writable >= 2


def test_mseal_refused(build, run, guarded):
    main = build(HERE / "sealed.c", "-O1")
    if can_seal():
        assert count_sealed(run([main, "refused"], guarded).clean())[1] == 0


def test_mseal_forbidden_after_the_start(build, run, guarded):
    """A program that kills itself for a call it does not know: none is made once main runs."""
    run([build(HERE / "sealed.c", "-O1"), "killed"], guarded).clean()
