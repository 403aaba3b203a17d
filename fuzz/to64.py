#!/usr/bin/env python3
"""usage: fuzz/to64.py [--single] HARNESS FROM TO: the inputs of a directory, their ops
repeated or cut to 64. --single: bursts become single calls, and the checks that an
input asks for after every so many ops are left to its end."""
import os
import sys

# codes of fuzz/prog.c and fuzz/language.c: burst, burst_free, burst_zero -> malloc, free, calloc
SINGLE = {29: 0, 30: 0, 31: 0, 32: 19, 33: 19, 34: 19, 35: 4, 59: 0, 60: 19}
PROGRAMS = {"api", "scav", "fault", "crime"}

single = sys.argv[1] == "--single"
harness, source, to = sys.argv[1 + single:]
for name in os.listdir(source):
    with open(os.path.join(source, name), "rb") as f:
        data = f.read().ljust(24, b"\0")
    head, ops = bytearray(data[:16]), bytearray(data[16:16 + (len(data) - 16) // 8 * 8])
    if single:
        head[2] = 0
        for i in range(0, len(ops) if harness in PROGRAMS else 0, 8):
            ops[i] = ops[i] & 0xc0 | SINGLE.get(ops[i] & 0x3f, ops[i] & 0x3f)
    with open(os.path.join(to, name), "wb") as f:
        f.write(head + (ops * 64)[:64 * 8])
