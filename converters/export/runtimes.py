"""What `check` asks a TFLite runtime: the output of networks, their speed, and mAP on a benchmark.

The same questions are answered in this process, by the runtime that is installed beside PyTorch, or by another Python
that has another runtime (tflite-runtime ends at Python 3.11 and wants numpy 1, PyTorch's exporter wants numpy 2)::

    Here()                 -> this process
    Elsewhere(python)      -> python -m delf_edge.converters.export.runtimes: one JSON request in, one JSON answer out

The other Python needs the runtime and what `delf_edge` itself imports (numpy, OpenCV, hnswlib), and no PyTorch: this
module imports nothing else. Where both runtimes are installed, `Elsewhere` makes it use tflite-runtime.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import delf_edge
from delf_edge.bundle.bundle import Bundle
from delf_edge.converters.export.retrieval_metrics import Question, average_precision, read_questions
from delf_edge.errors import DelfEdgeError, EngineError
from delf_edge.features.network import Engine, runtime_version
from delf_edge.types import Float32Array

Outputs = dict[str, Float32Array]


@dataclass(frozen=True, slots=True)
class Score:
    """How well a network does on a benchmark, through the whole path of the SDK.

    Attributes:
        map: mean average precision over the queries.
        top1: share of queries whose first answer is right.
        queries, photos: how many were asked, of how many.
    """

    map: float
    top1: float
    queries: int
    photos: int


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What is asked, and where its databases are kept.

    Attributes:
        file: JSON file of queries, positives and database (`ranking.read_questions`).
        folder: databases are kept here, so that a stopped run goes on.
        preset: extraction preset; None for the bundle's own.
        head: only so many queries, and so many photos; None for all.
    """

    file: Path
    folder: Path
    preset: str | None = None
    head: tuple[int, int] | None = None


class Runtime(Protocol):
    """A TFLite runtime, here or elsewhere."""

    @property
    def name(self) -> str:
        """Distribution and version, e.g. "ai-edge-litert 2.3.0"."""

    def outputs(self, model: bytes, inputs: Sequence[Float32Array]) -> list[Outputs]:
        """What a network gives for each input, float32 (1, H, W, C)."""

    def milliseconds(self, model: bytes, shape: Sequence[int]) -> float:
        """Median time of one run on one thread, after two to warm up."""

    def score(self, bundle: Path, model: bytes, benchmark: Benchmark) -> Score:
        """mAP with `model` in place of the bundle's local network."""


class Here:
    """The runtime of this process."""

    @property
    def name(self) -> str:
        """Distribution and version."""
        return " ".join(runtime_version())

    def outputs(self, model: bytes, inputs: Sequence[Float32Array]) -> list[Outputs]:
        """What a network gives for each input, float32 (1, H, W, C)."""
        engine = Engine(model)
        return [engine.run(x) for x in inputs]

    def milliseconds(self, model: bytes, shape: Sequence[int], *, repeats: int = 10) -> float:
        """Median time of one run on one thread, after two to warm up."""
        engine, times = Engine(model, num_threads=1), []
        x = np.random.default_rng(0).uniform(-1, 1, tuple(shape)).astype(np.float32)
        for i in range(repeats + 2):
            start = time.perf_counter()
            engine.run(x)
            if i >= 2:
                times.append(1e3 * (time.perf_counter() - start))
        return statistics.median(times)

    def score(self, bundle: Path, model: bytes, benchmark: Benchmark) -> Score:
        """mAP with `model` in place of the bundle's local network."""
        loaded = replace(Bundle.load(bundle), network=model)
        questions, database = read_questions(benchmark.file, benchmark.head)
        content = json.dumps([loaded.id, self.name, benchmark.preset, database])
        key = hashlib.sha256(model + content.encode()).hexdigest()[:16]
        benchmark.folder.mkdir(parents=True, exist_ok=True)
        file = benchmark.folder / f"{benchmark.file.stem}-{key}.db"
        return _score(loaded, questions, database, benchmark, file)


def _score(
    bundle: Bundle, questions: Sequence[Question], database: Sequence[str], benchmark: Benchmark, file: Path
) -> Score:
    from delf_edge.ingestion import AddItem
    from delf_edge.recognizer import Recognizer

    root, index = benchmark.file.parent, {name: i for i, name in enumerate(database)}
    precision, first = [], []
    with Recognizer.open(file, bundle=bundle, preset=benchmark.preset) as recognizer:
        # Every photo is a landmark of its own: what is measured is the ranking of photos.
        for done, _ in enumerate(recognizer.add_many(AddItem(root / n, n, name=n) for n in database), 1):
            if done % 100 == 0 or done == len(database):
                print(f"{file.name}: {done} of {len(database)} photos", file=sys.stderr)
        for q in questions:
            found = recognizer.rank(recognizer.extract(root / q.query), len(database))
            ranking = [index[m.name] for m in found]
            ap, right = average_precision(ranking, q, len(database))
            precision.append(ap)
            first.append(right)
    return Score(statistics.fmean(precision), statistics.fmean(first), len(questions), len(database))


class Elsewhere:
    """The runtime of another Python, asked through a process of its own.

    Args:
        python: its interpreter. tflite-runtime is taken where it has both.

    Raises:
        EngineError: it cannot be run, or has no runtime; what it said is on stderr.
    """

    def __init__(self, python: str | Path) -> None:
        self._python = str(python)
        self._name = str(self._ask({"task": "name"}))

    @property
    def name(self) -> str:
        """Distribution and version."""
        return self._name

    def outputs(self, model: bytes, inputs: Sequence[Float32Array]) -> list[Outputs]:
        """What a network gives for each input, float32 (1, H, W, C)."""
        with tempfile.TemporaryDirectory() as scratch:
            given, result = Path(scratch) / "in.npz", Path(scratch) / "out.npz"
            np.savez(given, **{str(i): x for i, x in enumerate(inputs)})  # type: ignore[arg-type]
            self._ask({"task": "outputs", "inputs": str(given), "result": str(result)}, model)
            with np.load(result, allow_pickle=False) as stored:
                rows: list[Outputs] = [{} for _ in inputs]
                for key in stored.files:
                    i, name = key.split(" ", 1)
                    rows[int(i)][name] = stored[key]
        return rows

    def milliseconds(self, model: bytes, shape: Sequence[int]) -> float:
        """Median time of one run on one thread, after two to warm up."""
        return float(self._ask({"task": "milliseconds", "shape": list(shape)}, model))

    def score(self, bundle: Path, model: bytes, benchmark: Benchmark) -> Score:
        """mAP with `model` in place of the bundle's local network."""
        request = {
            "task": "score",
            "bundle": str(bundle.resolve()),
            "file": str(benchmark.file.resolve()),
            "folder": str(benchmark.folder.resolve()),
            "preset": benchmark.preset,
            "head": benchmark.head,
        }
        return Score(**self._ask(request, model))

    def _ask(self, request: dict[str, Any], model: bytes | None = None) -> Any:
        with tempfile.TemporaryDirectory() as scratch:
            # Only these two packages are lent: a whole site-packages would bring this Python's numpy along.
            for name, folder in (
                ("delf_edge", Path(delf_edge.__file__).parent),
                ("converters", Path(__file__).parent),
            ):
                (Path(scratch) / name).symlink_to(folder.resolve())
            if model is not None:
                file = Path(scratch) / "model.tflite"
                file.write_bytes(model)
                request = {**request, "model": str(file)}
            try:
                done = subprocess.run(
                    [self._python, "-m", "delf_edge.converters.export.runtimes"],
                    input=json.dumps(request),
                    stdout=subprocess.PIPE,
                    text=True,
                    cwd=scratch,
                    check=False,
                )
            except OSError as e:
                raise EngineError(f"{self._python} cannot be run: {e}; name the python of a virtual environment") from e
        if done.returncode:
            raise EngineError(
                f"{self._python} failed at {request['task']!r} with status {done.returncode}; what it said is above. "
                "It needs tflite-runtime, 'numpy<2', hnswlib and opencv-python-headless"
            )
        return json.loads(done.stdout.splitlines()[-1])


def answer(request: dict[str, Any]) -> Any:
    """The answer to one request of `Elsewhere`, JSON-ready."""
    here = Here()
    model = Path(request["model"]).read_bytes() if "model" in request else b""
    match request["task"]:
        case "name":
            return here.name
        case "outputs":
            with np.load(request["inputs"], allow_pickle=False) as stored:
                inputs = [stored[str(i)] for i in range(len(stored.files))]
            rows = here.outputs(model, inputs)
            np.savez(
                request["result"],
                **{f"{i} {name}": array for i, row in enumerate(rows) for name, array in row.items()},  # type: ignore[arg-type]
            )
            return len(rows)
        case "milliseconds":
            return here.milliseconds(model, request["shape"])
        case "score":
            head = tuple(request["head"]) if request["head"] else None
            asked = Benchmark(Path(request["file"]), Path(request["folder"]), request["preset"], head)
            score = here.score(Path(request["bundle"]), model, asked)
            return {name: getattr(score, name) for name in Score.__dataclass_fields__}
    raise ValueError(f"unknown task {request['task']!r}")


def main() -> int:
    """Answer one request on stdin; 2 if it cannot be answered."""
    try:
        import tflite_runtime  # noqa: F401

        sys.modules["ai_edge_litert"] = None  # type: ignore[assignment]  # the engine takes the next one
    except ImportError:
        pass
    try:
        print(json.dumps(answer(json.load(sys.stdin))))
    except DelfEdgeError as e:
        print(e, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
