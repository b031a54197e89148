"""Reads the plain data of a pickle without running anything in it.

`pickle.load` calls whatever function a file names. The ground truth of the revisited benchmarks comes as such files
from the network. This reader walks the opcodes that `pickletools.genops` decodes and builds containers, numbers,
text and numpy number arrays; a name is never imported and nothing is ever called. Names that stand for numpy's own
reconstruction of arrays are understood symbolically, every other name is refused.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np

MAX_BYTES = 256 << 20


class UnsafePickleError(ValueError):
    """The pickle holds something else than plain data, or is damaged."""


class _Mark:
    """The stack's MARK."""


class _Name:
    """A global that the file names; never imported."""

    def __init__(self, module: str, name: str) -> None:
        self.path = f"{module}.{name}"


class _DType:
    """What numpy.dtype(text) would be, with the byte order that its state sets."""

    def __init__(self, text: str) -> None:
        self.text, self.order = text, "="

    def set_state(self, state: Any) -> None:
        if (
            not isinstance(state, tuple)
            or len(state) < 5
            or state[1] not in ("<", ">", "|", "=")
            or state[4] is not None
        ):
            raise UnsafePickleError("a numpy dtype with an unexpected state")
        self.order = state[1]

    def build(self) -> np.dtype[Any]:
        text = self.text.lstrip("<>|=")
        if text[:1] not in ("b", "i", "u", "f") or not text[1:].isdigit() or int(text[1:]) not in (1, 2, 4, 8):
            raise UnsafePickleError(f"numpy dtype {self.text!r}; only booleans, integers and floats are read")
        return np.dtype(text).newbyteorder(self.order if self.order in "<>" else "=")  # type: ignore[arg-type]


class _Array:
    """An array that numpy would reconstruct."""

    def __init__(self) -> None:
        self.state: Any = None

    def set_state(self, state: Any) -> None:
        self.state = state

    def build(self) -> Any:
        if not isinstance(self.state, tuple) or len(self.state) != 5:
            raise UnsafePickleError("a numpy array without a proper state")
        _, shape, dtype, fortran, data = self.state
        if isinstance(data, str):  # Python 2 wrote bytes as text
            data = data.encode("latin-1", "strict")
        if not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise UnsafePickleError("a numpy array with a malformed shape")
        if not isinstance(dtype, _DType) or not isinstance(data, bytes):
            raise UnsafePickleError("a numpy array of objects; only numbers are read")
        built = dtype.build()
        if math.prod(shape) * built.itemsize != len(data):
            raise UnsafePickleError(f"a numpy array of shape {shape} with {len(data)} bytes")
        return np.frombuffer(data, built).reshape(shape, order="F" if fortran else "C").copy()


def _scalar(dtype: Any, data: Any) -> Any:
    if isinstance(data, str):
        data = data.encode("latin-1", "strict")
    if not isinstance(dtype, _DType) or not isinstance(data, bytes) or len(data) != dtype.build().itemsize:
        raise UnsafePickleError("a malformed numpy number")
    return np.frombuffer(data, dtype.build())[0].item()


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise UnsafePickleError("_codecs.encode of something else than latin-1 text")
    return text.encode("latin-1")


def _reconstruct(cls: Any, shape: Any, kind: Any) -> _Array:
    if not isinstance(cls, _Name) or cls.path != "numpy.ndarray":
        raise UnsafePickleError("numpy reconstruction of something else than an array")
    return _Array()


def _dtype(text: Any, *rest: Any) -> _DType:
    if not isinstance(text, str):
        raise UnsafePickleError("a numpy dtype that is not a name")
    return _DType(text)


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.set_state((1, shape, dtype, order == "F", bytes(data) if isinstance(data, bytearray) else data))
    return array


def _container(kind: Callable[..., Any]) -> Callable[..., Any]:
    def make(items: Any = ()) -> Any:
        if not isinstance(items, list | tuple):
            raise UnsafePickleError("a container made of something else than a list")
        return kind(_key(i) for i in items)

    return make


def _empty_bytes() -> bytes:  # how protocols 0 to 2 write b""
    return b""


_KNOWN: dict[str, Callable[..., Any]] = {
    "_codecs.encode": _encode,
    "numpy.dtype": _dtype,
    "__builtin__.bytes": _empty_bytes,
    "builtins.bytes": _empty_bytes,
    "builtins.set": _container(set),
    "builtins.frozenset": _container(frozenset),
    "__builtin__.set": _container(set),
    "__builtin__.frozenset": _container(frozenset),
}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    _KNOWN[f"{_module}._reconstruct"] = _reconstruct
    _KNOWN[f"{_module}.scalar"] = _scalar
for _module in ("numpy.core.numeric", "numpy._core.numeric"):
    _KNOWN[f"{_module}._frombuffer"] = _frombuffer
_NAMES = {*_KNOWN, "numpy.ndarray"}

_PUSH = {  # opcodes that push their decoded argument
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "MARK": _Mark,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
    "EMPTY_TUPLE": tuple,
}


class _Machine:
    """The pickle machine's stack and memo, without its imports and calls."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def since_mark(self) -> list[Any]:
        for i in range(len(self.stack) - 1, -1, -1):
            if isinstance(self.stack[i], _Mark):
                items = self.stack[i + 1 :]
                del self.stack[i:]
                return items
        raise UnsafePickleError("no mark on the stack")

    def fill(self, items: list[Any], kind: type) -> None:
        target = self.stack[-1]
        if not isinstance(target, kind):
            raise UnsafePickleError(f"items for a {kind.__name__} that is none")
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, set):
            target.update(_key(i) for i in items)
        elif isinstance(target, dict):
            if len(items) % 2:
                raise UnsafePickleError("a dictionary key without a value")
            target.update((_key(k), v) for k, v in zip(items[::2], items[1::2], strict=True))

    def name(self, module: Any, name: Any) -> None:
        path = f"{module}.{name}"
        if path not in _NAMES:
            raise UnsafePickleError(f"the pickle names {path}; only plain data and numpy number arrays are read")
        self.stack.append(_Name(str(module), str(name)))

    def reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, _Name) or function.path not in _KNOWN or not isinstance(arguments, tuple):
            raise UnsafePickleError("the pickle calls something that is not numpy's reconstruction")
        self.stack.append(_KNOWN[function.path](*arguments))

    def set_state(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, _DType | _Array):
            raise UnsafePickleError("the pickle sets the state of something that is not a numpy array")
        target.set_state(state)

    def step(self, op: str, argument: Any) -> None:
        """One opcode; anything that is not named here is refused."""
        stack = self.stack
        match op:
            case _ if op in _PUSH:
                stack.append(argument)
            case _ if op in _CONSTANTS:
                stack.append(_CONSTANTS[op]())
            case "PROTO" | "FRAME":
                pass
            case "POP":
                stack.pop()
            case "POP_MARK":
                self.since_mark()
            case "DUP":
                stack.append(stack[-1])
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "APPEND":
                self.fill([stack.pop()], list)
            case "APPENDS":
                self.fill(self.since_mark(), list)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                self.fill([key, value], dict)
            case "SETITEMS":
                self.fill(self.since_mark(), dict)
            case "ADDITEMS":
                self.fill(self.since_mark(), set)
            case "LIST":
                stack.append(self.since_mark())
            case "DICT":
                items = self.since_mark()
                stack.append({})
                self.fill(items, dict)
            case "TUPLE":
                stack.append(tuple(self.since_mark()))
            case "FROZENSET":
                stack.append(frozenset(_key(i) for i in self.since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                n = int(op[-1])
                if len(stack) < n:
                    raise UnsafePickleError("the stack is too short")
                stack[-n:] = [tuple(stack[-n:])]
            case "GLOBAL":
                self.name(*argument.split(" ", 1))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                self.name(module, name)
            case "REDUCE":
                self.reduce()
            case "BUILD":
                self.set_state()
            case _:
                raise UnsafePickleError(f"opcode {op}; only plain data and numpy number arrays are read")


def _finish(value: Any, done: dict[int, Any], depth: int = 0) -> Any:
    """Arrays in place of their descriptions, all the way down.

    `done` keeps one result per object: a file of a few hundred bytes can refer to one list 2^50 times.
    """
    if depth > 50:
        raise UnsafePickleError("nested deeper than 50")
    if isinstance(value, _DType | _Name | _Mark | bytearray):
        raise UnsafePickleError("a name where data was expected")
    if id(value) in done:
        value = done[id(value)]
    elif isinstance(value, _Array | dict | list | tuple):
        original = id(value)
        if isinstance(value, _Array):
            value = value.build()
        elif isinstance(value, dict):
            value = {k: _finish(v, done, depth + 1) for k, v in value.items()}
        else:
            value = type(value)(_finish(v, done, depth + 1) for v in value)
        done[original] = value
    return value


def _key(value: Any) -> Any:
    if not isinstance(value, str | bytes | int | float | None):
        raise UnsafePickleError("a dictionary key or set member that is neither text nor a number")
    return value


def loads(data: bytes) -> Any:
    """The plain data in a pickle: dict, list, tuple, set, numbers, text, bytes and numpy number arrays.

    Raises:
        UnsafePickleError: it holds or does anything else, is damaged, or is larger than 256 MiB.
    """
    if len(data) > MAX_BYTES:
        raise UnsafePickleError(f"{len(data)} bytes; at most {MAX_BYTES} are read")
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                if len(machine.stack) != 1:
                    raise UnsafePickleError("the pickle does not end in one value")
                return _finish(machine.stack[0], {})
            machine.step(opcode.name, argument)
    except UnsafePickleError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as e:
        raise UnsafePickleError(f"a damaged pickle ({e!r})") from e
    raise UnsafePickleError("the pickle ends without a value")
