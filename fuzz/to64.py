#!/usr/bin/env python3
"""usage: fuzz/to64.py FROM TO: the inputs of a directory, their ops repeated or cut to 64."""
import os
import sys

for name in os.listdir(sys.argv[1]):
    with open(os.path.join(sys.argv[1], name), "rb") as f:
        data = f.read().ljust(24, b"\0")
    head, ops = data[:16], data[16:16 + (len(data) - 16) // 8 * 8]
    with open(os.path.join(sys.argv[2], name), "wb") as f:
        f.write(head + (ops * 64)[:64 * 8])
