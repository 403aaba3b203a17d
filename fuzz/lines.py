#!/usr/bin/env python3
"""lcov on stdin; on stdout, as JSON, the executed lines of each file of the tree."""
import json
import os
import sys

root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
lines, name = {}, None
for line in sys.stdin:
    if line.startswith("SF:"):
        name = os.path.relpath(line[3:].strip(), root)
    elif line.startswith("DA:"):
        at, count = line[3:].split(",")[:2]
        if int(count) > 0:
            lines.setdefault(name, []).append(int(at))
json.dump(lines, sys.stdout)
