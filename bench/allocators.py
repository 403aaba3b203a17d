"""Which allocators are measured, and where their libraries are.

An allocator is a preloaded library and an environment. glibc is the absence of
both. Debian's packages: libjemalloc2 libmimalloc2.0 libtcmalloc-minimal4
libclang-rt-19-dev.
"""
import glob
import os
import platform
import re
import subprocess
from dataclasses import dataclass, field

PEERS = {
    "jemalloc": ["/usr/lib/*-linux-*/libjemalloc.so.2", "/usr/lib/libjemalloc.so.2"],
    "mimalloc": ["/usr/lib/*-linux-*/libmimalloc.so.2*", "/usr/lib/libmimalloc.so.2*"],
    "tcmalloc": ["/usr/lib/*-linux-*/libtcmalloc_minimal.so.4", "/usr/lib/libtcmalloc_minimal.so.4"],
}
ALL_PEERS = [*PEERS, "scudo"]
SCUDO = "/usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.scudo_standalone{part}-{arch}.{kind}"


@dataclass
class Allocator:
    name: str
    lib: str = ""
    env: dict = field(default_factory=dict)
    spanguard: bool = False
    before: list = field(default_factory=list)        # words in front of the command


def newest(patterns):
    """The file of the highest version that one of the patterns finds."""
    found = [path for pattern in patterns for path in glob.glob(pattern)]
    return max(found, key=lambda p: [int(n) for n in re.findall(r"\d+", p)], default="")


def scudo_library(build_dir):
    """LLVM's shared Scudo, or one linked from the archive where only that is shipped."""
    arch = platform.machine()
    shared = newest([SCUDO.format(part="", arch=arch, kind="so")])
    if shared:
        return shared
    archives = [newest([SCUDO.format(part=part, arch=arch, kind="a")]) for part in ("", "_cxx")]
    if not all(archives):
        return ""
    made = os.path.join(build_dir, "libscudo.so")
    command = ["cc", "-shared", "-o", made, "-Wl,--whole-archive", *archives, "-Wl,--no-whole-archive",
               "-pthread", "-lstdc++"]
    subprocess.run(command, check=True)
    return made


def spanguard_modes(modes, library):
    """`plain`, or `hardened+sample=0` for a mode with options of its own."""
    for mode in modes:
        options = "mode=" + ":".join(mode.split("+"))
        yield Allocator(mode, library, {"SPANGUARD_OPTIONS": options}, spanguard=True)


def find(modes, spanguard_library, extra, build_dir):
    """All allocators that are there, glibc first, and the names of those that are not."""
    candidates = [*spanguard_modes(modes, spanguard_library)]
    candidates += [Allocator(name, newest(patterns)) for name, patterns in PEERS.items()]
    candidates.append(Allocator("scudo", scudo_library(build_dir)))
    candidates += [Allocator(name, path) for name, path in extra]
    present = [a for a in candidates if a.lib and os.path.exists(a.lib)]
    missing = [a.name for a in candidates if a not in present]
    return [Allocator("glibc")] + present, missing
