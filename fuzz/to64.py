#!/usr/bin/env python3
"""usage: fuzz/to64.py IN OUT: the input with its ops repeated, or cut, to 64."""
import sys

with open(sys.argv[1], "rb") as f:
    data = f.read().ljust(24, b"\0")
head, ops = data[:16], data[16:16 + (len(data) - 16) // 8 * 8]
with open(sys.argv[2], "wb") as f:
    f.write(head + (ops * 64)[:64 * 8])
