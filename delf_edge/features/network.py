"""Runs a TFLite network. The only door to LiteRT (`ai_edge_litert`, else `tflite_runtime`).

What callers need not know:

* A model is passed as bytes. By path it would be memory-mapped, and truncating the file later kills the process.
* An interpreter shared between threads mixes up results, so each thread has its own.
* Changing the input's shape allocates all tensors anew. A shape that comes back, as each pyramid level does in a
  video, gets an interpreter of its own, at the price of a second set of tensors. A shape seen once borrows the
  interpreter that has been idle longest.
* A fully quantised network takes and gives int8. It is fed and read through the scale and zero point of its tensors,
  so that callers see float32 either way.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from delf_edge.errors import EngineError, OptionError
from delf_edge.library_threads import usable_cores
from delf_edge.types import Float32Array

SIGNATURE = "serving_default"
_RUNTIMES = ("ai_edge_litert", "tflite_runtime")
_QUANTISED = (np.int8, np.uint8, np.int16)
_MAX_WORKERS = 4  # interpreters per thread
_MAX_SEEN = 64  # shapes remembered per thread


@cache
def _runtime() -> tuple[str, Any]:
    """Name and Interpreter class of the first runtime that can be imported."""
    failures = []
    for name in _RUNTIMES:
        try:
            return name, importlib.import_module(f"{name}.interpreter").Interpreter
        except ImportError as e:
            failures.append(f"{name}: {e}")
    raise EngineError("no TFLite runtime; pip install ai-edge-litert (tried " + "; ".join(failures) + ")")


_greeting = threading.Lock()
_greeted = False


@contextmanager
def without_greeting() -> Iterator[None]:
    """Keep the runtime's one INFO line, "Created TensorFlow Lite XNNPACK delegate", off stderr.

    It is printed by C++ once per process, in the first allocation, and has no switch. Whatever else was printed
    meanwhile is passed on.
    """
    global _greeted
    with _greeting:
        first, _greeted = not _greeted, True
    try:
        stderr = os.dup(2) if first and hasattr(os, "memfd_create") else -1
    except OSError:  # a service may have closed it
        stderr = -1
    if stderr < 0:
        yield
        return
    with open(os.memfd_create("stderr"), "w+b", buffering=0) as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            caught.seek(0)
            for line in caught.read().splitlines(keepends=True):
                if not line.startswith(b"INFO: "):
                    os.write(2, line)


def runtime_version() -> tuple[str, str]:
    """(distribution name, version) of the runtime in use, for `delf-edge doctor`.

    Raises:
        EngineError: neither runtime is installed.
    """
    from importlib import metadata  # 15 ms that only `doctor` needs

    name = _runtime()[0].replace("_", "-")
    try:
        return name, metadata.version(name)
    except metadata.PackageNotFoundError:
        return name, "unknown"


class Engine:
    """One network, ready to run in any number of threads.

    Args:
        model: content of a .tflite file. Verify its SHA-256 first: damaged models can crash the runtime.
        num_threads: threads each run may use; no more are started than the process has cores.

    Attributes:
        outputs: names of the outputs.

    Raises:
        EngineError: no runtime is installed, or it refuses the model.
        OptionError: `num_threads` is below 1.
    """

    def __init__(self, model: bytes, num_threads: int = 1) -> None:
        if not isinstance(num_threads, int) or num_threads < 1:
            raise OptionError(f"num_threads is {num_threads!r}; it must be a whole number, at least 1")
        num_threads = min(num_threads, usable_cores())  # more only wait for each other
        if model[4:8] != b"TFL3":
            raise EngineError(f"not a TFLite model ({len(model)} bytes, no TFL3 mark); export it again")
        self._model = model
        self._num_threads = num_threads
        self._local = threading.local()
        self.outputs = self._pool().workers[0].outputs  # a bad model fails here, not in the first run

    def run(self, array: Float32Array) -> dict[str, Float32Array]:
        """Run the network once.

        Args:
            array: float32 (1, H, W, C), the network's only input, normalised as its bundle says.

        Returns:
            Output name in the signature -> float32 array, a copy.

        Raises:
            EngineError: the shape does not fit the network, or the runtime failed.
        """
        return self._pool().worker(array.shape).run(array)

    def _pool(self) -> _Pool:
        pool: _Pool | None = getattr(self._local, "pool", None)
        if pool is None:
            pool = self._local.pool = _Pool(self._model, self._num_threads)
        return pool


class _Pool:
    """The interpreters of one thread, the one used last at the end."""

    def __init__(self, model: bytes, num_threads: int) -> None:
        self._model, self._num_threads = model, num_threads
        self.workers = [_Worker(model, num_threads)]
        self._seen: set[tuple[int, ...]] = set()

    def worker(self, shape: tuple[int, ...]) -> _Worker:
        """The interpreter that has this shape already, else a new one, else the one idle longest."""
        chosen = next((w for w in self.workers if w.shape == shape), None)
        if chosen is None:
            if shape in self._seen and len(self.workers) < _MAX_WORKERS:
                chosen = _Worker(self._model, self._num_threads)
            else:
                chosen = self.workers[0]
            if len(self._seen) >= _MAX_SEEN:
                self._seen.clear()
            self._seen.add(shape)
        self.workers = [w for w in self.workers if w is not chosen] + [chosen]
        return chosen


class _Worker:
    """One interpreter, used by one thread. `shape` is the input shape it is ready for, () for none."""

    def __init__(self, model: bytes, num_threads: int) -> None:
        name, interpreter = _runtime()
        try:
            self._interpreter = interpreter(model_content=model, num_threads=num_threads)
            inputs = self._interpreter.get_input_details()
            self._outputs = self._named_outputs()
        except (ValueError, RuntimeError, TypeError, AttributeError) as e:
            hint = "; tflite-runtime needs numpy below 2" if name == "tflite_runtime" else ""
            raise EngineError(f"{name} refuses the model ({len(model)} bytes): {e}{hint}") from e
        if len(inputs) != 1 or len(inputs[0]["shape"]) != 4:
            raise EngineError(f"the model has {len(inputs)} inputs; expected one of shape (1, H, W, C)")
        self._input = inputs[0]
        for tensor in (self._input, *self._outputs.values()):
            _check_dtype(tensor)
        self.shape: tuple[int, ...] = ()

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, sorted."""
        return tuple(sorted(self._outputs))

    def _named_outputs(self) -> dict[str, Any]:
        """Output name -> tensor details; names come from the signature, where the model has one."""
        details = {d["index"]: d for d in self._interpreter.get_output_details()}
        if SIGNATURE not in self._interpreter.get_signature_list():
            return {d["name"]: d for d in details.values()}
        # The runner keeps views of tensors, which would forbid every later allocation: use it and let it go.
        signed = self._interpreter.get_signature_runner(SIGNATURE).get_output_details()
        return {name: details.get(d["index"], d) for name, d in signed.items()}

    def run(self, array: Float32Array) -> dict[str, Float32Array]:
        expected = [int(n) for n in self._input.get("shape_signature", self._input["shape"])]
        if array.ndim != 4 or any(e not in (-1, n) for e, n in zip(expected, array.shape, strict=True)):
            wanted = tuple("any" if n < 0 else n for n in expected)
            raise EngineError(f"the network takes input of shape {wanted}, got {array.shape}")
        index = self._input["index"]
        try:
            if array.shape != self.shape:
                self.shape = ()  # stays so if the allocation fails
                self._interpreter.resize_tensor_input(index, array.shape, strict=False)
                with without_greeting():
                    self._interpreter.allocate_tensors()
                self.shape = array.shape
            self._interpreter.set_tensor(index, _quantise(array, self._input))
            self._interpreter.invoke()
            return {name: _dequantise(self._interpreter.get_tensor(d["index"]), d) for name, d in self._outputs.items()}
        except (ValueError, RuntimeError, MemoryError) as e:
            raise EngineError(f"the runtime failed on input of shape {array.shape}: {e}") from e


def _check_dtype(tensor: Any) -> None:
    dtype = tensor["dtype"]
    if dtype is np.float32:
        return
    if dtype not in _QUANTISED:
        raise EngineError(f"tensor {tensor['name']!r} is {np.dtype(dtype)}; expected float32 or quantised int8")
    if len(tensor["quantization_parameters"]["scales"]) != 1:
        raise EngineError(f"tensor {tensor['name']!r} is {np.dtype(dtype)} without one scale; export it again")


def _quantise(array: Float32Array, tensor: Any) -> Any:
    dtype = tensor["dtype"]
    if dtype is np.float32:
        return np.asarray(array, np.float32)
    scale, zero = tensor["quantization"]
    limits = np.iinfo(dtype)
    return np.clip(np.rint(array / np.float32(scale)) + zero, limits.min, limits.max).astype(dtype)


def _dequantise(array: Any, tensor: Any) -> Float32Array:
    result: Float32Array = array
    if tensor["dtype"] is not np.float32:
        scale, zero = tensor["quantization"]
        result = (array.astype(np.float32) - np.float32(zero)) * np.float32(scale)
    return result
