#!/usr/bin/env python3
"""Fails if files of a crate import each other in a circle, or its floors (the modules right below lib.rs) do.

An import counts for the file that defines what is imported: `pub use` in a parent is followed, and is no import of the
parent's. Tests inside of a file do not count.

circles.py [--list] [CRATE_DIRECTORY...]
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def split_group(text):
    """The members of a group, at its commas outside of inner braces."""
    depth, member = 0, ""
    for char in text:
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            yield member.strip()
            member = ""
        else:
            member += char
    if member.strip():
        yield member.strip()


def expand(tree):
    """The paths of a use tree, with the name that each is known by: `a::{b, c as d}` is (a::b, b) and (a::c, d)."""
    tree = " ".join(tree.split())
    if "{" in tree:
        prefix, rest = tree.split("{", 1)
        for member in split_group(rest.rsplit("}", 1)[0]):
            yield from expand((prefix + member).removesuffix("::self"))
        return
    path, _, alias = tree.partition(" as ")
    yield path.split("::"), alias or path.split("::")[-1]


class Crate:
    def __init__(self, directory):
        self.source = directory / "src"
        self.files = {}
        for file in sorted(self.source.rglob("*.rs")):
            if "tests" in file.relative_to(self.source).with_suffix("").parts:
                continue
            parts = file.relative_to(self.source).with_suffix("").parts
            self.files[() if parts in {("lib",), ("main",)} else parts] = file
        self.code, self.reexports = {}, {}
        for module, file in self.files.items():
            text = re.sub(r"#\[cfg\(test\)\]\s*mod \w+ \{.*", "", file.read_text(), flags=re.S)
            text = re.sub(r"//[^\n]*", "", text)
            self.code[module] = text
            uses = re.findall(r"^pub(?:\([^)]*\))? use ([^;]+);", text, re.M)
            self.reexports[module] = {name: path for tree in uses for path, name in expand(tree)}

    def absolute(self, module, path):
        """A path from the crate's root; None if it leads to another crate."""
        path, base = list(path), module
        if path[0] == "crate":
            return tuple(path[1:])
        is_relative = path[0] in {"self", "super"}
        while path and path[0] in {"self", "super"}:
            base = base[:-1] if path[0] == "super" else base
            path = path[1:]
        return base + tuple(path) if is_relative or (path and base + (path[0],) in self.files) else None

    def definition(self, path, seen=()):
        """The module that defines what a path from the root leads to."""
        module = ()
        for at, segment in enumerate(path):
            if module + (segment,) in self.files:
                module += (segment,)
                continue
            behind = self.reexports[module].get(segment)
            target = behind and self.absolute(module, behind)
            if target is not None and behind and (module, segment) not in seen:
                return self.definition(target + path[at + 1 :], (*seen, (module, segment)))
            break
        return module

    def imports(self):
        """By module: the modules that it imports from, and not those of its ancestors that only list it."""
        edges = {}
        for module, text in self.code.items():
            paths = [path for tree in re.findall(r"^\s*use ([^;]+);", text, re.M) for path, _ in expand(tree)]
            body = re.sub(r"^\s*(?:pub(?:\([^)]*\))? )?use [^;]+;", "", text, flags=re.M)
            paths += [path.split("::") for path in re.findall(r"\b(?:crate|super)(?:::\w+)+", body)]
            targets = {self.definition(path) for path in (self.absolute(module, path) for path in paths) if path is not None}
            edges[module] = targets - {module}
        return edges


def circles(edges):
    """The strongly connected components of more than one node (Tarjan)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(edges.get(node, ())):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            component = []
            while not component or component[-1] != node:
                component.append(stack.pop())
            if len(component) > 1:
                found.append(sorted(component))

    for node in sorted(edges):
        if node not in index:
            visit(node)
    return found


def main():
    arguments = [argument for argument in sys.argv[1:] if argument != "--list"]
    directories = [Path(argument) for argument in arguments] or [ROOT, *sorted((ROOT / "crates").iterdir())]
    sys.setrecursionlimit(10_000)
    failed = False
    for directory in directories:
        crate = Crate(directory)
        edges = crate.imports()
        floors = {}
        for module, targets in edges.items():
            if module:
                floors.setdefault(module[:1], set()).update(target[:1] for target in targets if target)
        floors = {floor: targets - {floor} for floor, targets in floors.items()}
        name = "envelope_pg" if directory == ROOT else directory.resolve().name
        if "--list" in sys.argv:
            for module, targets in sorted(edges.items()):
                print(name, "::".join(module) or "lib", "->", ", ".join("::".join(t) or "lib" for t in sorted(targets)))
        for what, graph in [("files", edges), ("floors", floors)]:
            for circle in circles(graph):
                names = tuple("::".join(module) or "lib" for module in circle)
                failed = True
                print(f"{name}: circle of {len(circle)} {what}: {', '.join(names)}")
    sys.exit(failed)


main()
