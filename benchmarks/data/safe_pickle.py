"""Reads the plain data of a pickle without running anything in it.

`pickle.load` calls whatever function a file names. The ground truth of the revisited benchmarks comes as such files
from the network. Here an unpickler finds a name only in an allow-list, and what it finds there is not numpy's function
but one of this module, which describes an array and checks what it is told. numpy sees the bytes of numbers, nothing
else.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np

MAX_BYTES = 256 << 20
_MAX_DEPTH = 50
_REFUSED = {"EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "NEXT_BUFFER", "READONLY_BUFFER"}  # data from elsewhere


class UnsafePickleError(ValueError):
    """The pickle holds something else than plain data, or is damaged."""


class _Name:
    """A name of the allow-list; calling it calls what stands for it here."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(self, *arguments: Any) -> Any:
        if self.path not in _KNOWN:
            raise UnsafePickleError(f"the pickle calls {self.path}, which is not numpy's reconstruction")
        return _KNOWN[self.path](*arguments)

    def __setstate__(self, state: Any) -> None:
        raise UnsafePickleError("the pickle sets the state of something that is not a numpy array")


class _DType:
    """What numpy.dtype(text) would be, with the byte order that its state sets."""

    def __init__(self, text: str) -> None:
        self.text, self.order = text, "="

    def __setstate__(self, state: Any) -> None:
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

    def __setstate__(self, state: Any) -> None:
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
    array.__setstate__((1, shape, dtype, order == "F", bytes(data) if isinstance(data, bytearray) else data))
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


class _Unpickler(pickle._Unpickler):
    """The unpickler of the standard library that is written in Python.

    The one in C makes room for as many memo entries as a damaged file names, and does not show what is left on its
    stack.
    """

    stack: list[Any]
    metastack: list[Any]

    def find_class(self, module: str, name: str) -> _Name:
        path = f"{module}.{name}"
        if path not in _NAMES:
            raise UnsafePickleError(f"the pickle names {path}; only plain data and numpy number arrays are read")
        return _Name(path)


def _finish(value: Any, done: dict[int, Any], depth: int = 0) -> Any:
    """Arrays in place of their descriptions, all the way down.

    `done` keeps one result per object: a file of a few hundred bytes can refer to one list 2^50 times.
    """
    if depth > _MAX_DEPTH:
        raise UnsafePickleError(f"nested deeper than {_MAX_DEPTH}")
    if id(value) in done:
        return done[id(value)]
    match value:
        case _Array():
            made: Any = value.build()
        case dict():
            made = {_key(k): _finish(v, done, depth + 1) for k, v in value.items()}
        case list() | tuple():
            made = type(value)(_finish(v, done, depth + 1) for v in value)
        case set() | frozenset():
            made = type(value)(_key(v) for v in value)
        case None | bool() | int() | float() | str() | bytes():
            return value
        case _:
            raise UnsafePickleError(f"a {type(value).__name__} where data was expected")
    done[id(value)] = made
    return made


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
    try:
        for opcode, _, _ in pickletools.genops(data):  # every length in the file is one that it has
            if opcode.name in _REFUSED:
                raise UnsafePickleError(f"opcode {opcode.name}; only plain data and numpy number arrays are read")
        unpickler = _Unpickler(io.BytesIO(data), encoding="latin1")  # Python 2 wrote bytes as text
        value = unpickler.load()
        if unpickler.stack or unpickler.metastack:
            raise UnsafePickleError("the pickle does not end in one value")
        return _finish(value, {})
    except UnsafePickleError:
        raise
    except Exception as e:  # an unpickler that meets damage raises whatever comes
        raise UnsafePickleError(f"a damaged pickle ({e!r})") from e
