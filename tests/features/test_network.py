"""The engine gives the same output for a shape whatever came before it, in any thread, for float and int8 networks."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from delf_edge.errors import EngineError, OptionError
from delf_edge.features.network import Engine, runtime_version
from testing.paths import FIXTURES

LOCAL = (FIXTURES / "tiny_bundle" / "local_float16.tflite").read_bytes()
INT8_IO = (FIXTURES / "tiny_int8_io.tflite").read_bytes()


def noise(height: int, width: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (1, height, width, channels)).astype(np.float32)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(LOCAL)


def test_outputs_have_the_names_of_the_signature(engine: Engine) -> None:
    assert engine.outputs == ("attention", "features")
    out = engine.run(noise(96, 128))
    assert out["features"].shape == (1, 6, 8, 16)
    assert out["attention"].shape == (1, 6, 8, 1)
    assert all(a.dtype == np.float32 and np.isfinite(a).all() for a in out.values())


@pytest.mark.parametrize(("height", "width"), [(1, 1), (15, 17), (32, 32), (33, 70), (100, 1), (240, 321)])
def test_any_height_and_width(engine: Engine, height: int, width: int) -> None:
    out = engine.run(noise(height, width))
    assert out["features"].shape == (1, -(-height // 16), -(-width // 16), 16)


def test_the_order_of_shapes_does_not_matter(engine: Engine) -> None:
    shapes = [(64, 64), (96, 32), (64, 64), (32, 96), (96, 32), (48, 48), (80, 80), (112, 64), (64, 64), (32, 96)]
    for height, width in shapes * 2:
        x = noise(height, width)
        np.testing.assert_array_equal(engine.run(x)["features"], Engine(LOCAL).run(x)["features"])


def test_results_are_copies(engine: Engine) -> None:
    first = engine.run(noise(64, 64, 1))["features"]
    kept = first.copy()
    engine.run(noise(64, 64, 2))
    np.testing.assert_array_equal(first, kept)


def test_one_engine_in_many_threads(engine: Engine) -> None:
    inputs = [noise(32 + 16 * (i % 3), 64, i) for i in range(24)]
    expected = [Engine(LOCAL).run(x)["features"] for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda x: engine.run(x)["features"], inputs))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_fully_quantised_network_takes_and_gives_float32(engine: Engine) -> None:
    quantised = Engine(INT8_IO)
    x = noise(96, 128)
    for name, array in quantised.run(x).items():
        exact = engine.run(x)[name]
        assert array.dtype == np.float32
        assert np.corrcoef(array.ravel(), exact.ravel())[0, 1] > 0.98
        assert np.abs(array - exact).max() < 0.1 * np.ptp(exact)
    # Values beyond the quantised range saturate; they do not wrap around.
    np.testing.assert_array_equal(
        quantised.run(np.full((1, 32, 32, 3), 50, np.float32))["features"],
        quantised.run(np.full((1, 32, 32, 3), 5000, np.float32))["features"],
    )


@pytest.mark.parametrize("shape", [(1, 64, 64, 4), (2, 64, 64, 3), (64, 64, 3)])
def test_a_wrong_shape_is_named(engine: Engine, shape: tuple[int, ...]) -> None:
    with pytest.raises(EngineError, match=r"'any', 'any', 3.*got \("):
        engine.run(np.zeros(shape, np.float32))
    assert engine.run(noise(32, 32))["features"].shape == (1, 2, 2, 16)


@pytest.mark.parametrize("model", [b"", b"text", bytes(1000), LOCAL[:4] + b"TFL9" + LOCAL[8:]])
def test_what_is_not_a_model_is_refused(model: bytes) -> None:
    with pytest.raises(EngineError, match="not a TFLite model"):
        Engine(model)


def test_threads_are_checked() -> None:
    with pytest.raises(OptionError, match="num_threads"):
        Engine(LOCAL, num_threads=0)
    before = len(list(Path("/proc/self/task").iterdir()))
    Engine(LOCAL, num_threads=99_999).run(noise(32, 32))  # no more are started than there are cores
    assert len(list(Path("/proc/self/task").iterdir())) <= before + len(os.sched_getaffinity(0))
    assert Engine(LOCAL, num_threads=2).run(noise(32, 32))["features"].shape == (1, 2, 2, 16)


def test_the_runtime_has_a_name_and_a_version() -> None:
    name, version = runtime_version()
    assert name in ("ai-edge-litert", "tflite-runtime")
    assert version[0].isdigit()


def test_the_runtime_prints_nothing_and_real_messages_pass() -> None:
    runs = (
        "import sys, numpy as np\n"
        "from delf_edge.features import network\n"
        "e = network.Engine(open(sys.argv[1], 'rb').read())\n"
        "e.run(np.zeros((1, 32, 32, 3), np.float32))\n"
    )
    says = (
        "import os\n"
        "from delf_edge.features import network\n"
        "with network.without_greeting(): os.write(2, b'INFO: hello\\nERROR: real\\n')\n"
        "os.write(2, b'after\\n')\n"
    )
    model = FIXTURES / "tiny_bundle" / "local_float16.tflite"
    for code, stderr in ((runs, b""), (says, b"ERROR: real\nafter\n")):
        done = subprocess.run([sys.executable, "-c", code, str(model)], capture_output=True, check=True, timeout=120)
        assert done.stdout == b""
        assert done.stderr == stderr
