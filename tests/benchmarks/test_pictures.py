"""Ablations, geometric models and pictures on drawn data."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import ablations, selection, wins
from benchmarks.lab import plots, report
from benchmarks.metrics.protocols import Floats
from benchmarks.systems import geometry
from delf_edge.bundle.bundle import Bundle
from delf_edge.types import Features
from delf_edge.verification import VerifyOptions
from testing.paths import TINY_BUNDLE


def pair(n: int, wrong: int) -> tuple[Features, np.ndarray, np.ndarray, np.ndarray]:
    """Query features and a stored copy under a known similarity, `wrong` of which lie anywhere."""
    rng = np.random.default_rng(0)
    d = rng.normal(size=(n, 32)).astype(np.float32)
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    source = rng.uniform(0, 640, (n, 2)).astype(np.float32)
    m = np.array([[0.9, -0.2, 30], [0.2, 0.9, -10]])
    target = (source @ m[:, :2].T + m[:, 2]).astype(np.float32)
    target[:wrong] = rng.uniform(0, 640, (wrong, 2))
    ones = np.ones(n, np.float32)
    return Features(source, ones, ones.copy(), d, np.zeros(4, np.float32), (640, 640)), d.copy(), target, m


@pytest.mark.parametrize("name", geometry.MODELS)
def test_every_model_finds_the_planted_map(name: str) -> None:
    query, stored, target, m = pair(80, 30)
    found = geometry.MODELS[name](7, query, stored, target, (640, 640), VerifyOptions())
    assert found.image_id == 7
    assert 50 <= found.n_inliers <= 54
    corners = np.array([[100, 100, 1], [500, 200, 1], [300, 600, 1]])
    assert corners @ found.transform.T == pytest.approx(corners @ m.T, abs=8)
    again = geometry.MODELS[name](7, query, stored, target, (640, 640), VerifyOptions())
    np.testing.assert_array_equal(again.inliers, found.inliers)


@pytest.mark.parametrize("name", geometry.MODELS)
@pytest.mark.parametrize("n", [0, 2])
def test_too_few_points_give_no_map(name: str, n: int) -> None:
    query, stored, target, _ = pair(n, 0)
    found = geometry.MODELS[name](0, query, stored, target, (640, 640), VerifyOptions())
    assert found.n_inliers == 0


def test_one_way_matching_matches_every_feature() -> None:
    a, b = np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)[:1]
    assert geometry.one_way(a, b).tolist() == [[0, 0], [1, 0], [2, 0]]


def row(ap: list[float], default: bool, cost: float = 1.0) -> dict[str, object]:
    return {"ap": ap, "map": float(np.mean(ap)), "default": default, "cost": cost}


def test_a_verdict_needs_more_than_chance() -> None:
    base: list[float] = np.linspace(0.2, 0.9, 40).tolist()
    better = [v + 0.05 for v in base]
    noise = [v + (0.3 if i % 2 else -0.3) for i, v in enumerate(base)]
    text = ablations.verdict({"a": row(base, True), "b": row(better, False), "c": row(noise, False)})
    assert text.startswith("The default is a: mAP 0.550; better by more than chance: b (+0.050")
    assert "c (" not in text
    assert "nothing is better" in ablations.verdict({"a": row(base, True), "c": row(noise, False)})
    assert "worse: d (" in ablations.verdict({"a": row(better, True), "d": row(base, False)})
    assert "cheaper without a loss beyond chance: e (" in ablations.verdict(
        {"a": row(base, True), "e": row(noise, False, 0.5), "f": row(noise, False, 0.95)}
    )
    assert ablations.verdict({"x": row(base, False)}).startswith("x has the highest mAP")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three places of two photos, and training photos."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name in [f"{k}{p}{i}" for k in ("dev", "train") for p in range(3) for i in range(4)]:
        noise = np.random.default_rng(int(name[-2])).integers(0, 255, (20, 20, 3)).astype(np.uint8)
        image = cv2.resize(noise, (160, 160), interpolation=cv2.INTER_CUBIC)
        noisy = np.clip(image + rng.normal(0, 8, image.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{name}.png"), noisy)
    queries = [{"query": f"dev{p}0.png", "positives": [f"dev{p}1.png"], "place": f"p{p}"} for p in range(3)]
    database = [f"dev{p}{i}.png" for p in range(3) for i in (1, 2)]
    (folder / "dev.json").write_text(json.dumps({"queries": queries, "database": database}))
    rows = [f"train{p}{i}.png,t{p}" for p in range(3) for i in range(4)]
    (folder / "train.csv").write_text("path,place\n" + "\n".join(rows) + "\n")
    return folder


def test_ablations_run_record_and_go_on(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    words = [str(data / "dev.json"), "--bundle", str(TINY_BUNDLE), "--preset", "fast", "--out", str(tmp_path / "out")]
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.ABLATIONS_BEGIN}\n{report.ABLATIONS_END}\nafter\n")
    words += ["--results", str(tmp_path), "--readme", str(readme)]
    assert ablations.main([*words, "--only", "probes", "network"]) == 0
    assert ablations.main([*words, "--only", "pq"]) == 0
    assert "**Quantisation of the network.** The default is float16" in readme.read_text()
    recorded = json.loads((tmp_path / "ablations.json").read_text())["groups"]
    assert set(recorded) == {"probes", "network", "pq"}
    assert list(recorded["probes"]["choices"]) == ["1", "4", "8", "16", "32", "64"]
    assert list(recorded["network"]["choices"]) == ["float16", "int8"]
    cost = [r["cost"] for r in recorded["pq"]["choices"].values()]
    assert cost == sorted(cost)
    assert len(set(cost)) == len(cost)  # more PQ bytes are more bytes an image
    for name in recorded:
        assert (tmp_path / f"ablation-{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "probes: The default is 32" in capsys.readouterr().out
    monkeypatch.setattr(ablations, "measure", lambda *_: pytest.fail("a recorded group was run again"))
    assert ablations.main([*words, "--only", "pq"]) == 0
    assert ablations.main([str(tmp_path / "absent.json")]) == 2


def test_every_group_can_be_built() -> None:
    from benchmarks.data.feature_cache import FeatureCache
    from benchmarks.lab.runner import silent

    lab = ablations.Lab(TINY_BUNDLE, "fast", Path(), FeatureCache(None), silent)
    found = ablations.groups(lab)
    names = {g.name for g in found}
    assert {"scales", "features", "dimension", "pq", "words", "probes", "neighbours", "verified"} <= names
    assert {"model", "tolerance", "network"} <= names
    for g in found:
        if g.name not in ("words", "dimension", "pq"):  # these fit a codebook, over the training photos
            assert sum(c.default for c in g.choices) == 1, g.name
            assert all(c.build() is not None for c in g.choices[:1])


def test_selection_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8))
    out = tmp_path / "heat.png"
    assert (
        selection.main([str(photo), "--bundle", str(TINY_BUNDLE), "--plain", str(TINY_BUNDLE), "--out", str(out)]) == 0
    )
    assert cv2.imread(str(out)) is not None
    pixels = np.zeros((200, 300, 3), np.uint8)
    level, maps = selection.heats(pixels, Bundle.load(TINY_BUNDLE), Bundle.load(TINY_BUNDLE))
    assert list(maps) == ["L2 norm, not fine-tuned", "L2 norm", "attention"]
    for heat in maps.values():
        assert heat.shape == (-(-level.shape[0] // 16), -(-level.shape[1] // 16))


def test_selection_refuses_what_is_no_photo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.png").write_text("text")
    assert selection.main([str(tmp_path / "x.png"), "--bundle", str(TINY_BUNDLE)]) == 2
    cv2.imwrite(str(tmp_path / "dot.png"), np.zeros((2, 2, 3), np.uint8))
    assert selection.main([str(tmp_path / "dot.png"), "--bundle", str(TINY_BUNDLE), "--plain", str(TINY_BUNDLE)]) == 2
    assert "too small" in capsys.readouterr().err


def test_wins_shows_where_each_row_is_ahead(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")

    def answered(*ap: float) -> dict[str, object]:
        best = ["dev01.png", "dev11.png", "dev21.png", "dev02.png"]
        return {"queries": [{"query": f"dev{i}0.png", "ap": v, "best": best} for i, v in enumerate(ap)]}

    a, b = answered(1.0, 0.2, 0.5), answered(0.5, 0.9, 0.5)
    assert wins.widest(a, b, 3) == [0]
    assert wins.widest(b, a, 3) == [1]
    rows, out = tmp_path / "rows.json", tmp_path / "wins.png"
    rows.write_text(json.dumps({"systems": {"a": a, "b": b}}))
    words = [str(data / "dev.json"), "a", "b", "--rows", str(rows), "--out", str(out)]
    assert wins.main(words) == 0
    assert cv2.imread(str(out)) is not None
    assert wins.main([words[0], "a", "a", *words[3:]]) == 2  # nothing differs
    assert wins.main([words[0], "a", "c", *words[3:]]) == 2
    assert "run `make bench` first" in capsys.readouterr().err
    rows.write_text(json.dumps({"systems": {"a": answered(1.0), "b": answered(0.5)}}))
    assert wins.main(words) == 2
    assert "other queries" in capsys.readouterr().err


def test_stretching() -> None:
    heat: Floats = np.arange(1000.0).reshape(20, 50)
    out = selection.stretched(heat)
    assert out.min() == 0
    assert out.max() == 1
    assert selection.stretched(np.ones((3, 3))).max() == 0


def test_the_same_figures_give_the_same_file(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    points = [plots.Point("a", 1, 0.5, (0.4, 0.6), True), plots.Point("b", 10, 0.6, (0.5, 0.7))]
    one = plots.trade_off(points, "t", "ms", tmp_path / "1.png", logarithmic=True).read_bytes()
    two = plots.trade_off(points, "t", "ms", tmp_path / "2.png", logarithmic=True).read_bytes()
    assert one == two
