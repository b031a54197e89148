"""Export and quantisation of the tiny network: what TFLite computes is what PyTorch computes, at any size."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from testing.paths import TINY_BUNDLE

torch = pytest.importorskip("torch", reason="needs PyTorch: make test-converters")
pytest.importorskip("litert_torch", reason="needs litert-torch: make test-converters")
# The exporter and its libraries warn about their own internals.
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

from delf_edge.bundle.bundle import Bundle  # noqa: E402
from delf_edge.converters.cli import app  # noqa: E402
from delf_edge.converters.export import check, pipeline, tflite  # noqa: E402
from delf_edge.converters.export.parity import local_parity  # noqa: E402
from delf_edge.converters.export.runtimes import Here  # noqa: E402
from delf_edge.converters.networks import from_tflite  # noqa: E402
from delf_edge.converters.networks.delf import LITE0, TINY, DelfNetwork  # noqa: E402
from delf_edge.converters.training.photos import Photo  # noqa: E402
from delf_edge.diagnostics.doctor import self_test  # noqa: E402
from delf_edge.errors import BundleError, EngineError  # noqa: E402
from delf_edge.features.network import Engine  # noqa: E402
from delf_edge.types import Float32Array  # noqa: E402


@pytest.fixture(scope="module")
def network() -> DelfNetwork:
    """Random weights, and batch norms that have seen some data, so that folding them is not trivial."""
    torch.manual_seed(0)
    net = DelfNetwork(TINY, attention_hidden=8).train()
    for norm in net.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.momentum = 0.3  # the few passes below are all it sees
    with torch.no_grad():
        for i in range(12):
            net.tail(net(torch.from_numpy(smooth(256, 256, 50 + i)).permute(0, 3, 1, 2))[0])
        # A head that tells cells apart: around its mean, and at a scale that int8 resolves.
        logit = net.eval()(torch.from_numpy(smooth(256, 256, 7)).permute(0, 3, 1, 2))[1]
        net.attention[2].weight /= logit.std()
        net.attention[2].bias.copy_((net.attention[2].bias - logit.mean()) / logit.std())
    net.eval()
    return net


@pytest.fixture(scope="module")
def local(network: DelfNetwork) -> bytes:
    return tflite.convert_local(network)


@pytest.fixture(scope="module")
def tail(network: DelfNetwork) -> bytes:
    return tflite.convert_tail(network)


def smooth(height: int, width: int, seed: int) -> Float32Array:
    noise = np.random.default_rng(seed).uniform(-1, 1, (height // 8, width // 8, 3)).astype(np.float32)
    large = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(large, -1, 1)[None], np.float32)


def test_receptive_field_of_a_cell_is_where_its_gradient_is(network: DelfNetwork) -> None:
    side = 97 + 16
    x = torch.zeros(1, 3, side, side, requires_grad=True)
    features = network.trunk(x)
    cell = features.shape[2] // 2
    features[0, :, cell, cell].abs().sum().backward()
    rows = np.flatnonzero(x.grad.abs().sum(dim=(0, 1, 3)).numpy())
    assert rows[-1] - rows[0] + 1 <= tflite.receptive_field(TINY)
    # Centred on pixel 16 * cell, as the manifest's offset of 0 says.
    assert abs((rows[0] + rows[-1]) / 2 - 16 * cell) <= 1
    assert tflite.receptive_field(LITE0) == 339


@pytest.mark.parametrize("size", [(64, 96), (32, 32), (241, 135)])
def test_float32_is_pytorch_at_any_size(network: DelfNetwork, local: bytes, size: tuple[int, int]) -> None:
    x = smooth(size[0] + 8, size[1] + 8, 1)[:, : size[0], : size[1]]
    out = Engine(local).run(np.ascontiguousarray(x))
    with torch.inference_mode():
        features, attention = network(torch.from_numpy(x.copy()).permute(0, 3, 1, 2))
    assert set(out) == {"features", "attention"}
    assert out["features"].shape == (1, -(-size[0] // 16), -(-size[1] // 16), network.channels)
    np.testing.assert_allclose(out["features"], features.permute(0, 2, 3, 1), atol=1e-4)
    np.testing.assert_allclose(out["attention"], attention.permute(0, 2, 3, 1), atol=1e-4)


def test_the_tail_is_pytorch_and_not_negative(network: DelfNetwork, tail: bytes) -> None:
    x = np.random.default_rng(0).normal(size=(1, 9, 14, network.channels)).astype(np.float32)
    out = Engine(tail).run(x)["global_map"]
    with torch.inference_mode():
        want = network.tail(torch.from_numpy(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    np.testing.assert_allclose(out, want, atol=1e-4)
    assert out.min() >= 0


def test_the_graph_is_lean(local: bytes) -> None:
    found = tflite.operators(local)
    # Batch norms and activations are folded, and nothing is transposed.
    assert set(found) <= {"CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "PAD"}
    convolutions = 1 + sum(3 if b.expand != 1 else 2 for b in TINY.blocks[: TINY.tap + 1]) + 2
    assert found["CONV_2D"] + found["DEPTHWISE_CONV_2D"] == convolutions
    assert found["PAD"] == 4  # one per layer of stride 2


@pytest.mark.parametrize(("variant", "floor"), [("float16", 0.9999), ("dynamic_range", 0.98), ("int8", 0.97)])
def test_quantised_variants_stay_close(network: DelfNetwork, local: bytes, variant: str, floor: float) -> None:
    calibration = [smooth(64 + 16 * (i % 3), 96, i) for i in range(16)]
    model = tflite.quantise(local, variant, lambda: calibration)
    parity = local_parity(network, variant, model, [smooth(256, 320, 99), smooth(192, 256, 98)])
    assert parity.cosine_mean > floor
    assert parity.cosine_worst5 <= parity.cosine_mean
    assert parity.keypoint_agreement > 0.8
    if variant == "int8":
        assert tflite.operators(model)["QUANTIZE"] == 1


def test_int8_without_photos_and_unknown_variants_are_refused(local: bytes) -> None:
    with pytest.raises(ValueError, match="calibration"):
        tflite.quantise(local, "int8", list)
    with pytest.raises(ValueError, match="unknown variant 'int4'"):
        tflite.quantise(local, "int4", list)


def test_parity_notices_another_network(local: bytes) -> None:
    torch.manual_seed(1)
    other = DelfNetwork(TINY, attention_hidden=8).eval()
    parity = local_parity(other, "float32", local, [smooth(128, 160, 99)])
    assert parity.cosine_mean < 0.9


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two places with six photos each."""
    root = tmp_path_factory.mktemp("photos")
    for number, place in enumerate(("bridge", "tower")):
        (root / place).mkdir()
        for i in range(6):
            pixels = np.rint(smooth(240, 320, 10 * number + i)[0] * 127 + 128).astype(np.uint8)
            cv2.imwrite(str(root / place / f"{i}.png"), pixels)
    return root


def test_the_bundle_command_makes_a_bundle_and_check_judges_it(
    network: DelfNetwork, photos: Path, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "network.pt"
    torch.save({"spec": "tiny", "attention_hidden": 8, "network": network.state_dict()}, checkpoint)
    source = ["--photos", str(photos), "--checkpoint", str(checkpoint)]
    small = ["--dim", "8", "--words", "32", "--code-size", "4", "--global-dim", "4", "--calibration", "8"]
    out, work = tmp_path / "bundle", ["--work", str(tmp_path / "work")]
    result = CliRunner().invoke(app, ["bundle", str(out), *source, *small, *work], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    bundle = Bundle.load(out)
    assert printed["bundle"] == bundle.id
    assert bundle.manifest.selection == "attention"
    assert sorted(bundle.manifest.network.variants) == ["float16", "int8"]
    assert all(c.passed for c in self_test(bundle))
    card = (out / "MODEL_CARD.md").read_text()
    assert "12 photos of 2 places" in card

    # The second time everything that takes long is there, and the same command gives the same networks and codebook.
    CliRunner().invoke(app, ["bundle", str(tmp_path / "again"), *source, *small, *work], catch_exceptions=False)
    for name in ("local_int8.tflite", "codebook.npz", "golden.npz"):
        assert (out / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name

    check_the_bundle(out, source, photos, tmp_path)


def check_the_bundle(bundle: Path, source: list[str], photos: Path, folder: Path) -> None:
    """`check` with the checkpoint, without it, and with bounds that cannot be met."""
    names = sorted(p.relative_to(photos).as_posix() for p in photos.rglob("*.png"))
    asked = {"queries": [{"query": n, "positives": names[:6]} for n in names[:2]], "database": names}
    (photos / "asked.json").write_text(json.dumps(asked))
    common = ["check", str(bundle), *source[:2], "--min-agreement", "0.7", "--work", str(folder / "work")]

    passed = CliRunner().invoke(app, [*common, *source[2:]], catch_exceptions=False)
    assert passed.exit_code == 0, passed.output
    assert "map" not in json.loads(passed.stdout)["local"][0]
    failed = CliRunner().invoke(app, [*common, *source[2:], "--min-cosine", "0.99999"], catch_exceptions=False)
    assert failed.exit_code == 1
    assert [r["passed"] for r in json.loads(failed.stdout)["local"] if r["variant"] == "int8"] == [False]

    measured = [*common, "--backbone", "tiny", "--benchmark", str(photos / "asked.json")]
    result = CliRunner().invoke(app, [*measured, "--max-map-loss", "1"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["float"]["from"] == "float16 of the bundle"
    by_variant = {row["variant"]: row for row in report["local"]}
    assert by_variant["float16"]["map_loss"] == 0.0
    assert by_variant["int8"]["map_loss"] == report["float"]["map"] - by_variant["int8"]["map"]
    impossible = CliRunner().invoke(app, [*measured, "--max-map-loss", "-1"], catch_exceptions=False)
    assert impossible.exit_code == 1


def test_a_runtime_that_refuses_a_network_fails_the_check(network: DelfNetwork, local: bytes, tmp_path: Path) -> None:
    class Refuses(Here):
        def outputs(self, model: bytes, inputs: Sequence[Float32Array]) -> list[dict[str, Float32Array]]:
            raise EngineError("operator 7 is unknown")

    report = check.check(
        TINY_BUNDLE, check.exported(network, "x"), [], check.Bounds(), [Refuses()], None, lambda _: None
    )
    assert [row["error"] for row in report["local"]] == ["operator 7 is unknown"] * 2
    assert not report["passed"]


def test_a_network_comes_back_from_its_own_export(network: DelfNetwork, local: bytes, tail: bytes) -> None:
    again = from_tflite.from_tflite(local, tail, TINY)
    x = torch.from_numpy(smooth(96, 128, 3)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        for ours, theirs in zip(again(x), network(x), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(again.tail(again(x)[0]), network.tail(network(x)[0]), atol=1e-4, rtol=1e-4)
    with pytest.raises(BundleError, match="--backbone"):
        from_tflite.from_tflite(local, None, LITE0)


def test_weights_in_eight_bits_come_back_by_their_scales(local: bytes, tail: bytes) -> None:
    again = from_tflite.from_tflite(local, tflite.to_dynamic_range(tail), TINY)
    whole = from_tflite.from_tflite(local, tail, TINY)
    for ours, theirs in zip(again._conv_head.weight, whole._conv_head.weight, strict=True):
        assert (ours - theirs).abs().max() <= theirs.abs().max() / 127


def test_a_bundle_without_a_float_variant_asks_for_the_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(TINY_BUNDLE, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["network"]["variants"] = {"int8": "local_int8.tflite"}
    manifest["network"]["default"] = "int8"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"has only int8.*--checkpoint"):
        check.restored(folder, TINY)


def test_calibration_and_parity_photos_differ() -> None:
    listed = [Photo(Path(f"{i}.jpg"), "a") for i in range(400)]
    calibration, judged = pipeline.held_out(listed, pipeline.ExportOptions(calibration_photos=100, parity_photos=24))
    assert (len(calibration), len(judged)) == (100, 24)
    assert not {p.path for p in calibration} & {p.path for p in judged}
    few, one = pipeline.held_out(listed[:3], pipeline.ExportOptions())
    assert (len(few), len(one)) == (2, 1)
