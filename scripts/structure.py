"""Figures of the structure: levels of imports, imports between modules, lines of code, names defined twice.

usage: python scripts/structure.py [CHECKOUT] [--json] [--details]

CHECKOUT is the folder that holds `delf_edge/` (default: this one), so the same script measures any commit:

    git worktree add /tmp/before 5ecff73
    python scripts/structure.py /tmp/before

What is counted, from the source alone (nothing is imported):

modules         Python files of `delf_edge`, without `converters` and `_old_paths`; `__init__.py` counts as its folder
imports         pairs (a, b) of modules where a imports b, at the top or inside a function; TYPE_CHECKING does not count
parts           what lies directly below `delf_edge`: folders and single modules
levels          parts in the longest chain of imports from part to part. Parts that import each other in a circle
                make one level together, and are listed
circles         groups of parts that import each other
lines of code   lines of the Python files that are neither empty, nor a comment, nor a docstring
names twice     public functions, classes and constants that two modules define at top level under one name
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

PACKAGE = "delf_edge"
NOT_COUNTED = ("converters", "assets", "_old_paths")  # the workstation's side, and the aliases of 0.1
NOT_NAMES = {"app", "commands"}  # where the commands of a module are registered, one in each by convention


@dataclass(frozen=True)
class Structure:
    """The figures of one checkout."""

    modules: int
    imports: int
    parts: int
    levels: int
    circles: list[list[str]]
    chain: list[str]
    lines_of_code: int
    names_twice: dict[str, list[str]]


def read_modules(package: Path) -> dict[str, ast.Module]:
    """Dotted name below the package -> its syntax tree; the package itself is the empty name."""
    modules = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        if parts[0] not in NOT_COUNTED:
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            modules[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return modules


def imports_of(name: str, tree: ast.Module, modules: Mapping[str, ast.Module]) -> set[str]:
    """The modules of the package that a module imports."""
    found = set()
    for node in _without_type_checking(tree):
        if isinstance(node, ast.Import):
            found |= {_module(alias.name, modules) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                found.add(_module(f"{node.module}.{alias.name}", modules) or _module(node.module, modules))
    return {module for module in found if module and module != name}


def _module(dotted: str, modules: Mapping[str, ast.Module]) -> str | None:
    """Name below the package of a dotted name that is one of its modules."""
    package, _, name = dotted.partition(".")
    return name if package == PACKAGE and name in modules else None


def _without_type_checking(tree: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(tree):
        if not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            yield child
            yield from _without_type_checking(child)


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of nodes that reach each other."""
    reach = {node: _reachable(graph, node) for node in graph}
    groups = {frozenset(b for b in reach[a] if a in reach[b]) | {a} for a in graph}
    return sorted(sorted(group) for group in groups if len(group) > 1)


def _reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    ahead = list(graph[start])
    while ahead:
        if (node := ahead.pop()) not in seen:
            seen.add(node)
            ahead += graph[node]
    return seen


def longest_chain(graph: Mapping[str, set[str]], groups: Iterable[list[str]]) -> list[str]:
    """The longest way along the edges; each group of a circle is one stop."""
    stop = {node: node for node in graph} | {node: " + ".join(group) for group in groups for node in group}
    merged: dict[str, set[str]] = {stop[node]: set() for node in graph}
    for node, targets in graph.items():
        merged[stop[node]] |= {stop[target] for target in targets} - {stop[node]}
    best: dict[str, list[str]] = {}

    def walk(node: str) -> list[str]:
        if node not in best:
            best[node] = [node, *max((walk(target) for target in sorted(merged[node])), key=len, default=[])]
        return best[node]

    return max((walk(node) for node in sorted(merged)), key=len, default=[])


def lines_of_code(source: str) -> int:
    """Lines that are neither empty, nor a comment, nor a docstring."""
    lines = set()
    previous = tokenize.INDENT
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.COMMENT, tokenize.NL, tokenize.ENDMARKER):
            continue
        alone = previous in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
        if not (token.type == tokenize.STRING and alone) and token.string.strip():
            lines.update(range(token.start[0], token.end[0] + 1))
        previous = token.type
    return len(lines)


def public_names(tree: ast.Module) -> set[str]:
    """Public functions, classes and constants that a module defines at top level."""
    names = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return {name for name in names if not name.startswith("_")} - NOT_NAMES


def measure(checkout: Path) -> Structure:
    """The figures of a checkout."""
    package = checkout / PACKAGE
    modules = read_modules(package)
    edges = {name: imports_of(name, tree, modules) for name, tree in modules.items() if name}
    parts: dict[str, set[str]] = {name.partition(".")[0]: set() for name in edges}
    for name, targets in edges.items():
        own = name.partition(".")[0]
        parts[own] |= {target.partition(".")[0] for target in targets} - {own}
    defined = defaultdict(list)
    for name, tree in modules.items():
        for public in public_names(tree):
            defined[public].append(name)
    groups = circles(parts)
    chain = longest_chain(parts, groups)
    return Structure(
        modules=len(edges),
        imports=sum(map(len, edges.values())),
        parts=len(parts),
        levels=len(chain),
        circles=groups,
        chain=chain,
        lines_of_code=sum(
            lines_of_code(path.read_text(encoding="utf-8"))
            for path in package.rglob("*.py")
            if path.relative_to(package).with_suffix("").parts[0] not in NOT_COUNTED
        ),
        names_twice={name: sorted(homes) for name, homes in sorted(defined.items()) if len(homes) > 1},
    )


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", nargs="?", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--details", action="store_true", help="also the longest chain and the names defined twice")
    options = parser.parse_args(arguments)
    found = measure(options.checkout)
    if options.json:
        print(json.dumps(asdict(found), indent=1))
        return 0
    print(f"modules         {found.modules}")
    print(f"imports         {found.imports}")
    print(f"parts           {found.parts}")
    print(f"levels          {found.levels}")
    print(f"circles         {len(found.circles)}")
    print(f"lines of code   {found.lines_of_code}")
    print(f"names twice     {len(found.names_twice)}")
    if options.details:
        print("\nlongest chain:  " + " -> ".join(found.chain))
        for group in found.circles:
            print("circle:         " + ", ".join(group))
        for name, homes in found.names_twice.items():
            print(f"{name}: {', '.join(homes)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
