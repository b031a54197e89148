"""An official SavedModel of random weights, built by TensorFlow, computes the same after the import.

The graphs below are the published ones (tf-slim ResNet-50 v1 with the stride in the last unit; the Keras model of
DELG), written in plain operations with the variable names that their SavedModels have.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from testing.paths import DEMO

torch = pytest.importorskip("torch", reason="needs PyTorch: make test-converters")
pytest.importorskip("litert_torch", reason="needs litert-torch: make test-converters")
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

from delf_edge.bundle.bundle import Bundle  # noqa: E402
from delf_edge.converters.cli import app  # noqa: E402
from delf_edge.converters.export import tflite  # noqa: E402
from delf_edge.converters.official.delf_resnet import OfficialDelf, from_variables  # noqa: E402
from delf_edge.converters.official.protobuf import OfficialFormatError  # noqa: E402
from delf_edge.converters.official.savedmodel import read_variables  # noqa: E402
from delf_edge.diagnostics.doctor import self_test  # noqa: E402
from delf_edge.features.network import Engine  # noqa: E402
from delf_edge.recognizer import Recognizer  # noqa: E402
from delf_edge.types import Float32Array  # noqa: E402

UNITS = (3, 4, 6)
Conv = Callable[..., Any]


@pytest.fixture(scope="module")
def tf() -> Any:
    return pytest.importorskip("tensorflow", reason="needs TensorFlow (an optional extra, for this test only)")


def photo(height: int, width: int) -> Float32Array:
    rng = np.random.default_rng(0)
    coarse = rng.uniform(-1, 1, (height // 16, width // 16, 3))
    return np.kron(coarse, np.ones((16, 16, 1))).astype(np.float32)[None]


def slim_graph(tf: Any, x: Any) -> tuple[Any, Any]:
    """Feature map and attention logit of DELF v1."""
    v1, rng = tf.compat.v1, np.random.default_rng(1)

    def variable(name: str, value: np.ndarray) -> Any:
        return v1.get_variable(name, initializer=value.astype(np.float32))

    def conv(x: Any, scope: str, out: int, k: int, stride: int = 1, norm: bool = True, relu: bool = True) -> Any:
        c = int(x.shape[-1])
        kernel = variable(f"{scope}/weights", rng.normal(0, np.sqrt(2 / (k * k * c)), (k, k, c, out)))
        if stride > 1 and k > 1:  # slim's conv2d_same
            pad = k - 1
            x = tf.pad(x, [[0, 0], [pad // 2, pad - pad // 2], [pad // 2, pad - pad // 2], [0, 0]])
            x = tf.nn.conv2d(x, kernel, stride, "VALID")
        else:
            x = tf.nn.conv2d(x, kernel, stride, "SAME")
        if not norm:
            return x + variable(f"{scope}/biases", rng.normal(0, 0.1, out))
        beta, gamma = (
            variable(f"{scope}/BatchNorm/{n}", rng.normal(m, 0.1, out)) for n, m in (("beta", 0), ("gamma", 1))
        )
        mean = variable(f"{scope}/BatchNorm/moving_mean", rng.normal(0, 0.1, out))
        variance = variable(f"{scope}/BatchNorm/moving_variance", rng.uniform(0.5, 1.5, out))
        x = tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-5)
        return tf.nn.relu(x) if relu else x

    x = conv(x, "resnet_v1_50/conv1", 64, 7, 2)
    x = tf.nn.max_pool2d(x, 3, 2, "SAME")
    for b, n in enumerate(UNITS):
        for u in range(n):
            scope, width, stride = (
                f"resnet_v1_50/block{b + 1}/unit_{u + 1}/bottleneck_v1",
                64 << b,
                2 if u == n - 1 else 1,
            )
            if int(x.shape[-1]) != 4 * width:
                short = conv(x, f"{scope}/shortcut", 4 * width, 1, stride, relu=False)
            else:
                short = tf.nn.max_pool2d(x, 1, stride, "SAME") if stride > 1 else x
            y = conv(conv(x, f"{scope}/conv1", width, 1), f"{scope}/conv2", width, 3, stride)
            x = tf.nn.relu(short + conv(y, f"{scope}/conv3", 4 * width, 1, relu=False))
    y = conv(x, "attention_block/attention/compute/conv1", 512, 1)
    return x, conv(y, "attention_block/attention/compute/conv2", 1, 1, norm=False)


def save_slim(tf: Any, folder: Path, image: Float32Array) -> tuple[Float32Array, Float32Array]:
    """Write the SavedModel, and run its graph on one photo."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [1, None, None, 3], "image")
        features, logit = slim_graph(tf, x)
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(folder), {"image": x}, {"features": features, "scores": logit})
        result: tuple[Float32Array, Float32Array] = session.run((features, logit), {x: image})
    return result


def test_delf_v1_gives_the_features_of_tensorflow_s_graph(tf: Any, tmp_path: Path) -> None:
    image = photo(256, 320)
    features, logit = save_slim(tf, tmp_path / "model", image)
    network = from_variables(read_variables(tmp_path / "model"))
    out = Engine(tflite.convert_local(network)).run(image)
    assert out["features"].shape == features.shape == (1, 8, 10, 1024)
    np.testing.assert_allclose(out["features"], features, atol=1e-3 * np.abs(features).max())
    np.testing.assert_allclose(out["attention"], logit, atol=1e-3 * np.abs(logit).max())


def keras_model(tf: Any, reduced: int) -> Any:
    """The attributes, and with them the variable names, of the DELG model."""
    layers = tf.keras.layers
    rng = np.random.default_rng(2)

    class Norm(layers.BatchNormalization):  # type: ignore[name-defined]
        def build(self, shape: Any) -> None:
            super().build(shape)
            for value, centre in ((self.beta, 0), (self.gamma, 1), (self.moving_mean, 0), (self.moving_variance, 1)):
                value.assign((rng.normal(centre, 0.1, value.shape)).astype(np.float32))

    class Unit(tf.Module):
        def __init__(self, width: int, stride: int, projects: bool) -> None:
            super().__init__()
            self.conv2a, self.bn2a = layers.Conv2D(width, 1, stride), Norm()
            self.conv2b, self.bn2b = layers.Conv2D(width, 3, padding="same"), Norm()
            self.conv2c, self.bn2c = layers.Conv2D(4 * width, 1), Norm()
            if projects:
                self.conv_shortcut, self.bn_shortcut = layers.Conv2D(4 * width, 1, stride), Norm()

        def __call__(self, x: Any) -> Any:
            y = tf.nn.relu(self.bn2a(self.conv2a(x)))
            y = self.bn2c(self.conv2c(tf.nn.relu(self.bn2b(self.conv2b(y)))))
            return tf.nn.relu(y + (self.bn_shortcut(self.conv_shortcut(x)) if hasattr(self, "conv_shortcut") else x))

    class Backbone(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn_conv1 = layers.Conv2D(64, 7, 2, padding="same"), Norm()
            for b, n in enumerate(UNITS):
                for u in range(n):
                    setattr(self, f"l{b + 2}{'abcdef'[u]}", Unit(64 << b, 2 if b and not u else 1, not u))

        def __call__(self, x: Any) -> Any:
            x = layers.MaxPooling2D(3, 2)(tf.nn.relu(self.bn_conv1(self.conv1(x))))
            for b, n in enumerate(UNITS):
                for u in range(n):
                    x = getattr(self, f"l{b + 2}{'abcdef'[u]}")(x)
            return layers.MaxPooling2D(1, 2)(x)

    class Head(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn_conv1, self.conv2 = layers.Conv2D(512, 1), Norm(), layers.Conv2D(1, 1)

        def __call__(self, x: Any) -> Any:
            return self.conv2(tf.nn.relu(self.bn_conv1(self.conv1(x))))

    class Autoencoder(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = layers.Conv2D(reduced, 1), layers.Conv2D(1024, 1, activation="relu")

    class Model(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.attention = Backbone(), Head()
            if reduced:
                self.autoencoder = Autoencoder()

        def __call__(self, x: Any) -> tuple[Any, Any]:
            x = self.backbone(x)
            if not reduced:
                return x, self.attention(x)
            short = self.autoencoder.conv1(x)
            return short, self.attention(self.autoencoder.conv2(short))

    class Extractor(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self._model = Model()

    return Extractor()


@pytest.mark.parametrize("reduced", [0, 16])
def test_delg_gives_the_features_of_tensorflow_s_model(tf: Any, tmp_path: Path, reduced: int) -> None:
    module = keras_model(tf, reduced)
    # Large enough for cells that do not see the right and lower border, where the paddings differ.
    image = photo(512, 544)
    features, logit = (np.asarray(t) for t in module._model(tf.constant(image)))
    tf.saved_model.save(module, str(tmp_path / "model"))
    network = from_variables(read_variables(tmp_path / "model"))
    with torch.inference_mode():
        ours, attention = network(torch.from_numpy(image).permute(0, 3, 1, 2))
    assert ours.shape == (1, reduced or 1024, 16, 17)
    inside = (slice(None), slice(0, 10), slice(0, 10))
    np.testing.assert_allclose(ours.permute(0, 2, 3, 1)[inside], features[inside], atol=1e-3 * np.abs(features).max())
    np.testing.assert_allclose(attention.permute(0, 2, 3, 1)[inside], logit[inside], atol=1e-3 * np.abs(logit).max())
    out = Engine(tflite.convert_local(network)).run(image)
    np.testing.assert_allclose(out["features"][inside], features[inside], atol=1e-3 * np.abs(features).max())
    np.testing.assert_allclose(out["attention"][inside], logit[inside], atol=1e-3 * np.abs(logit).max())


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six places, one photo each."""
    root = tmp_path_factory.mktemp("photos")
    for name in ("Brandenburg Gate", "Colosseum", "Great Pyramid of Giza", "Petra", "Pont du Gard", "Taj Mahal"):
        shutil.copytree(DEMO / "references" / name, root / name)
    return root


@pytest.mark.parametrize("kind", ["delf-v1", "delg"])
def test_an_official_model_becomes_a_bundle_that_finds_photos(tf: Any, places: Path, tmp_path: Path, kind: str) -> None:
    if kind == "delf-v1":
        save_slim(tf, tmp_path / "model", photo(64, 64))
    else:
        module = keras_model(tf, 128)
        module._model(tf.constant(photo(64, 64)))
        tf.saved_model.save(module, str(tmp_path / "model"))
    names = [str(tmp_path / name) for name in ("model", "bundle")]
    words = ["import", *names, "--photos", str(places), "--variants", "float16", "--work", str(tmp_path / "work")]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    bundle = Bundle.load(tmp_path / "bundle")
    assert bundle.manifest.name == f"{kind} imported"
    assert bundle.manifest.network.stride == 32
    assert all(c.passed for c in self_test(bundle))
    with Recognizer.open(tmp_path / "places.db", bundle=bundle) as recognizer:
        for path in sorted(places.rglob("*.webp")):
            recognizer.add(path, landmark=path.parent.name)
        asked = (
            ("brandenburgGate", "Brandenburg Gate"),
            ("colosseum", "Colosseum"),
            ("greatPyramid", "Great Pyramid of Giza"),
        )
        for query, landmark in asked:  # the reference itself made small, so that random weights can find it
            first = recognizer.rank(recognizer.extract(DEMO / "queries" / f"{query}.webp"), 1)[0]
            assert first.landmark == landmark


@pytest.mark.parametrize("slim", [True, False])
def test_a_cell_is_centred_where_the_manifest_says(slim: bool) -> None:
    from delf_edge.converters.official.delf_resnet import ResNetSpec

    torch.manual_seed(0)
    spec = ResNetSpec("x", slim, 32, 2.0 if slim else 3.0, 291, 1024, 1024)
    network = OfficialDelf(spec).eval()
    side, cell = 32 * 20, 10
    x = torch.rand(1, 3, side, side, requires_grad=True)
    network.trunk(x)[0, :, cell, cell].sum().backward()
    rows = np.flatnonzero(x.grad.abs().sum(dim=(0, 1, 3)).numpy())
    assert abs((rows[0] + rows[-1]) / 2 - (32 * cell + spec.offset)) <= 8  # the last subsampling sees one side more
    assert rows[-1] - rows[0] + 1 <= spec.receptive_field + 16


def test_another_model_is_refused_by_name() -> None:
    with pytest.raises(OfficialFormatError, match="neither DELF v1 nor DELG: its variables are dense/kernel"):
        from_variables({"dense/kernel": np.zeros((2, 2), np.float32)})
    with pytest.raises(OfficialFormatError, match="no variable 'resnet_v1_50/conv1/BatchNorm/moving_mean'"):
        from_variables({"resnet_v1_50/conv1/weights": np.zeros((7, 7, 3, 64), np.float32)})
