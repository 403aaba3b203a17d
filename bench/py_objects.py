"""Builds and drops Python object graphs; run with PYTHONMALLOC=malloc.

    python3 py_objects.py [rounds]

A round makes a tree of objects with cycles, dictionaries of strings and tuples,
a list that is sorted and sliced, a JSON round trip and a few exceptions, and
checks a sum; two rounds stay alive. With PYTHONMALLOC=malloc every small object
of the interpreter is a call of malloc.
"""
import gc
import json
import sys


class Node:
    __slots__ = ("name", "children", "parent", "attributes")

    def __init__(self, name, parent):
        self.name = name
        self.parent = parent
        self.children = []
        self.attributes = {"id": name, "depth": 0 if parent is None else parent.attributes["depth"] + 1}


def tree(depth, fan, parent=None, path="r"):
    node = Node(path, parent)
    if depth > 0:
        for i in range(fan):
            node.children.append(tree(depth - 1, fan, node, f"{path}.{i}"))
    return node


def count(node):
    return 1 + sum(count(child) for child in node.children)


def table(seed, size):
    state = seed
    rows = {}
    for _ in range(size):
        state = (state * 1103515245 + 12345) % 2147483648
        key = f"key-{state % (size * 2)}"
        rows.setdefault(key, []).append((state, str(state), state / 7.0))
    return rows


def one_round(seed):
    root = tree(7, 4)
    rows = table(seed, 40000)
    flat = sorted((entry for values in rows.values() for entry in values), key=lambda e: e[1])
    pieces = [flat[i:i + 50] for i in range(0, len(flat), 50)]
    text = json.dumps({key: [entry[:2] for entry in values] for key, values in rows.items()})
    failed = 0
    for i in range(2000):
        try:
            rows[f"missing-{i}"]
        except KeyError as error:
            failed += len(str(error)) > 0
    total = count(root) + sum(len(piece) for piece in pieces) + len(json.loads(text)) + failed
    return total, (root, pieces)


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    alive = []
    total = 0
    for seed in range(rounds):
        value, kept = one_round(seed + 1)
        total += value
        alive = [kept] + alive[:1]
        gc.collect()
    print("total", total)


main()
