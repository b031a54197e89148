"""Tests and labs use the package as anybody may: no member with a leading underscore of a module or an object of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.paths import ROOT

FOLDERS = ("tests", "testing", "reliability", "benchmarks", "examples")
OWNERS = {"self", "cls", "os"}  # what an object does with its own; os._exit has no other name
OF_NAMED_TUPLES = {"_asdict", "_fields", "_make", "_replace"}  # public; the underscore keeps them apart from fields
BY_NAME = {"setattr", "delattr", "getattr"}
# Members of other packages, which have no public name for what is needed, and of objects that a test made itself.
OTHERS = {
    ("benchmarks/boards.py", "_get_ops_details"): "LiteRT's interpreter",
    (
        "benchmarks/data/safe_pickle.py",
        "_Unpickler",
    ): "pickle's class in Python; the one in C hides its stack",
    ("tests/test_native.py", "_name"): "ctypes: the file of a library",
    ("tests/converters/official/test_delf_resnet.py", "_model"): "the TensorFlow model that the test makes",
    ("tests/converters/export/test_tflite.py", "_conv_head"): "the package of the ImageNet weights",
    ("tests/project/test_old_paths.py", "_old_paths"): "the module under test has no public door",
}


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in {"_", *OF_NAMED_TUPLES}


def uses(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of every use of another's private member, by dot, by import, or by name to monkeypatch."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=owner)) if owner in OWNERS:
                pass
            case ast.Attribute(attr=name) if private(name):
                yield node.lineno, name
            case ast.ImportFrom(names=names):
                yield from ((node.lineno, alias.name) for alias in names if private(alias.name))
            case ast.Call(args=[_, ast.Constant(value=str(name)), *_]) if called(node) in BY_NAME and private(name):
                yield node.lineno, name


def called(call: ast.Call) -> str:
    """The last name of what is called: "setattr" of `patch.setattr(...)`."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def own_names(tree: ast.AST) -> set[str]:
    """What a file defines itself: its functions, and the attributes of its own classes."""
    functions = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}
    stored = (n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store))
    return functions | {n.attr for n in stored if isinstance(n.value, ast.Name) and n.value.id == "self"}


def files() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def test_no_test_reaches_a_private_member() -> None:
    found = []
    for path in files():
        place = path.relative_to(ROOT).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        own = own_names(tree)
        found += [f"{place}:{line}: {n}" for line, n in uses(tree) if n not in own and (place, n) not in OTHERS]
    assert not found, "use what is public, or make it public:\n" + "\n".join(found)


def test_what_is_excused_is_still_there() -> None:
    for place, name in OTHERS:
        assert name in (ROOT / place).read_text(encoding="utf-8"), f"{place} no longer uses {name}"


@pytest.mark.parametrize(
    "line",
    ["import x; x._a", "x()._a.b", "from x import _a", "patch.setattr(x, '_a', 1)", "getattr(x, '_a')"],
)
def test_each_way_of_reaching_one_is_noticed(line: str) -> None:
    assert [name for _, name in uses(ast.parse(line))] == ["_a"]
    assert not list(uses(ast.parse("self._a; cls._b; x.__name__; x.a; setattr(x, 'a', 1)")))
