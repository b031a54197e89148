"""What a runtime says is the same in this process and through another Python; needs no PyTorch.

DELF_EDGE_TFLITE_PYTHON names a Python with tflite-runtime for the last test.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from delf_edge.converters.export.runtimes import Benchmark, Elsewhere, Here
from delf_edge.errors import EngineError
from testing.paths import TINY_BUNDLE

MODEL = (TINY_BUNDLE / "local_float16.tflite").read_bytes()
TFLITE_PYTHON = os.environ.get("DELF_EDGE_TFLITE_PYTHON", "")
INPUTS = [np.random.default_rng(i).uniform(-1, 1, (1, 64, 96, 3)).astype(np.float32) for i in range(2)]


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    """Four scenes; each query is a scene's photo cut at the edges."""
    root = tmp_path_factory.mktemp("benchmark")
    queries = []
    for i in range(4):
        noise = np.random.default_rng(i).integers(0, 256, (12, 16, 3)).astype(np.uint8)
        photo = cv2.resize(noise, (320, 240), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(root / f"{i}.png"), photo)
        cv2.imwrite(str(root / f"q{i}.png"), photo[16:, 16:])
        queries.append({"query": f"q{i}.png", "positives": [f"{i}.png"]})
    file = root / "four.json"
    file.write_text(json.dumps({"queries": queries, "database": [f"{i}.png" for i in range(4)]}))
    return Benchmark(file, root / "work")


def test_another_python_gives_what_this_one_gives(benchmark: Benchmark) -> None:
    here, there = Here(), Elsewhere(sys.executable)
    for ours, theirs in zip(here.outputs(MODEL, INPUTS), there.outputs(MODEL, INPUTS), strict=True):
        assert ours.keys() == theirs.keys() == {"features", "attention"}
        for name, array in ours.items():
            np.testing.assert_allclose(array, theirs[name], atol=1e-5)
    assert there.milliseconds(MODEL, (1, 64, 64, 3)) > 0
    score = here.score(TINY_BUNDLE, MODEL, benchmark)
    assert score == there.score(TINY_BUNDLE, MODEL, benchmark)
    assert (score.queries, score.photos) == (4, 4)
    assert score.top1 >= 0.75  # a quarter by chance


def test_databases_are_kept_and_belong_to_one_network(benchmark: Benchmark) -> None:
    here = Here()
    here.score(TINY_BUNDLE, MODEL, benchmark)
    (file,) = benchmark.folder.glob("*.db")
    before = file.stat().st_size
    here.score(TINY_BUNDLE, MODEL, benchmark)
    assert file.stat().st_size == before
    here.score(TINY_BUNDLE, (TINY_BUNDLE / "local_int8.tflite").read_bytes(), benchmark)
    assert len(list(benchmark.folder.glob("*.db"))) == 2


def test_a_python_that_cannot_answer_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(EngineError, match="absent/python cannot be run"):
        Elsewhere(tmp_path / "absent" / "python")
    with pytest.raises(EngineError, match=r"failed at 'name' with status 1; .* needs tflite-runtime"):
        Elsewhere("false")
    with pytest.raises(EngineError, match="failed at 'outputs' with status 2"):
        Elsewhere(sys.executable).outputs(b"no model", INPUTS)
    assert "not a TFLite model" in capfd.readouterr().err


@pytest.mark.skipif(not TFLITE_PYTHON, reason="DELF_EDGE_TFLITE_PYTHON names no Python with tflite-runtime")
def test_tflite_runtime_gives_what_litert_gives(benchmark: Benchmark) -> None:
    there = Elsewhere(TFLITE_PYTHON)
    assert there.name.startswith("tflite-runtime 2.14")
    for ours, theirs in zip(Here().outputs(MODEL, INPUTS), there.outputs(MODEL, INPUTS), strict=True):
        for name, array in ours.items():
            np.testing.assert_allclose(array, theirs[name], atol=1e-4)
    assert there.score(TINY_BUNDLE, MODEL, benchmark).top1 >= 0.75
