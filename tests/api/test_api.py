"""The malloc interface, one program per row of it, on glibc and on spanguard.

A program says nothing and exits 0 if all its checks hold. That glibc passes them
too shows that they ask for what is the custom, and not for what we happen to do.
"""
import pathlib

import pytest

pytestmark = pytest.mark.strict
HERE = pathlib.Path(__file__).resolve().parent

# What glibc 2.36 does not have, so that only spanguard can be asked.
GLIBC_LACKS = {
    "cfree.c": "not in libc since 2.26",
    "free_sized.c": "C23, not in libc",
}

# Programs that load a plug-in: its source is the argument.
PLUGIN = {"local_runtime.c": "plugin_local_runtime.cc"}

# Programs here ask for sizes that nobody can give, and mean it.
QUIET = "report_requests=0:report_oom=0"

WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-deprecated-declarations"]
FLAGS = {
    ".c": ["-std=gnu11", "-O0", "-g", *WARNINGS],
    ".cc": ["-std=c++17", "-O0", "-g", *WARNINGS],
}
LIBS = ("-ldl", "-lpthread")

PROGRAMS = sorted(p.name for p in HERE.iterdir()
                  if p.suffix in FLAGS and p.name not in PLUGIN.values())


def compiled(build, name, *extra):
    source = HERE / name
    return build(source, *FLAGS[source.suffix], *extra, libs=LIBS)


@pytest.mark.parametrize("name", PROGRAMS)
def test_program(name, alloc, build, run, request):
    if not alloc.guarded and name in GLIBC_LACKS:
        pytest.skip(GLIBC_LACKS[name])
    argv = [compiled(build, name)]
    if name in PLUGIN:
        argv.append(compiled(build, PLUGIN[name], "-shared", "-fPIC"))
    env = {"API_LIBRARY": str(request.getfixturevalue("library"))} if alloc.guarded else {}
    assert run(argv, alloc, QUIET, env=env).clean() == ""


def test_every_check_can_fail(build, run, scratch):
    """The CHECK of api.h ends a program with 1 and names the place."""
    source = scratch / "fails.c"
    source.write_text(f'#include "{HERE}/api.h"\nint main(void)\n{{\n\tCHECK(1 + 1 == 3);\n}}\n')
    result = run([build(source, *FLAGS[".c"], libs=LIBS)])
    assert result.status == 1
    assert "fails.c:4: does not hold: 1 + 1 == 3" in result.err


def test_a_preload_that_does_not_bind_is_seen(build, run):
    """With $API_LIBRARY naming another file than malloc's, no program passes."""
    result = run([compiled(build, "malloc_zero.c")], env={"API_LIBRARY": "/bin/sh"})
    assert result.status == 1
    assert "api.h" in result.err


def test_new_without_a_runtime_dies(guarded, build, run, scratch):
    """A C program calls operator new; there is nobody to throw bad_alloc."""
    source = scratch / "no_runtime.c"
    source.write_text("""
#include <stddef.h>
#include <stdint.h>
void *operator_new(size_t n) __asm__("_Znwm") __attribute__((weak));
int main(void) { return operator_new == NULL || operator_new(PTRDIFF_MAX) == NULL; }
""")
    text = run([build(source, *FLAGS[".c"])], guarded, QUIET).aborted()
    assert "out of memory: operator new of 9,223,372,036,854,775,807 bytes" in text
