"""The advice about reference photos: good ones, poor ones, and the reason in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from delf_edge import Bundle, ImageError, Recognizer
from delf_edge.bundle.calibration import Calibration
from delf_edge.diagnostics import reference_quality
from delf_edge.diagnostics.reference_quality import WEIGHTS, assess, lint
from delf_edge.images.decode import load_image
from testing.paths import ROOT, TINY_BUNDLE


def scene(seed: int) -> np.ndarray:
    blocks = np.random.default_rng(seed).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(blocks, (640, 480), interpolation=cv2.INTER_NEAREST))


def extractions(recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What features are taken of, from now on."""
    looks: list[object] = []
    extract = recognizer.extract

    def counted(photo: Any, **options: Any) -> Any:
        looks.append(photo)
        return extract(photo, **options)

    monkeypatch.setattr(recognizer, "extract", counted)
    return looks


@pytest.fixture
def recognizer(tmp_path: Path) -> Iterator[Recognizer]:
    with Recognizer.open(tmp_path / "places.db", bundle=Bundle.load(TINY_BUNDLE), preset="fast") as opened:
        opened.pipeline.calibration = Calibration()
        yield opened


def test_a_good_photo_scores_higher_than_a_spoilt_one(recognizer: Recognizer) -> None:
    good = assess(recognizer, scene(0), channel_order="BGR")
    assert set(good.parts) == set(WEIGHTS)
    assert all(0 <= value <= 1 for value in good.parts.values())
    blurred = assess(recognizer, cv2.GaussianBlur(scene(0), (0, 0), 12), channel_order="BGR")
    assert blurred.parts["sharpness"] < 0.6 < good.parts["sharpness"]
    assert any("blurred" in reason for reason in blurred.reasons)
    dark = assess(recognizer, scene(0) // 12, channel_order="BGR")
    assert dark.parts["exposure"] < 0.4
    assert any("dark" in reason for reason in dark.reasons)
    assert max(blurred.score, dark.score) < good.score


def test_a_black_photo_scores_nothing_and_says_why(recognizer: Recognizer) -> None:
    report = assess(recognizer, np.zeros((120, 160, 3), np.uint8), channel_order="RGB")
    assert report.score == 0
    assert report.reasons[0].startswith("only 0 features")
    json.dumps(report.as_json())
    with pytest.raises(ImageError):
        assess(recognizer, b"no photo")


def test_repeated_parts_are_found(recognizer: Recognizer) -> None:
    tile = scene(3)[:160, :160]
    wall = np.tile(tile, (3, 4, 1))
    report = assess(recognizer, wall, channel_order="BGR")
    assert report.parts["distinctness"] < assess(recognizer, scene(3), channel_order="BGR").parts["distinctness"]
    assert any("look alike" in reason for reason in report.reasons)


def test_a_photo_of_another_landmark_is_named_and_its_own_is_no_confusion(recognizer: Recognizer) -> None:
    recognizer.add(scene(0), landmark="town hall", channel_order="BGR", name="a")
    twin = np.clip(scene(0).astype(int) + 8, 0, 255).astype(np.uint8)
    confused = assess(recognizer, twin, channel_order="BGR", landmark="church")
    assert confused.confused_with == "town hall"
    assert any("resembles town hall" in reason for reason in confused.reasons)
    assert assess(recognizer, twin, channel_order="BGR", landmark="town hall").confused_with is None
    assert assess(recognizer, scene(0), channel_order="BGR").confused_with is None  # it is this very photo


def test_lint_judges_by_file_or_by_codes(recognizer: Recognizer, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), scene(0))
    recognizer.add(path, landmark="A", name="with file", metadata={"path": str(path)})
    recognizer.add(scene(1), landmark="B", name="codes only", channel_order="BGR")
    recognizer.add(np.zeros((90, 90, 3), np.uint8), landmark="C", name="black", channel_order="RGB")
    other = tmp_path / "b.png"
    cv2.imwrite(str(other), scene(2))
    recognizer.add(scene(5), landmark="D", name="another file now", channel_order="BGR", metadata={"path": str(other)})
    found = {finding.name: finding for finding in lint(recognizer)}
    assert set(found) == {"with file", "codes only", "black", "another file now"}
    assert [name for name, finding in found.items() if finding.photo] == ["with file"]
    assert set(found["with file"].quality.parts) == set(WEIGHTS)
    assert "recall" not in found["codes only"].quality.parts
    assert found["black"].quality.score == 0
    assert found["codes only"].quality.score > 0


def spoilt(photo: np.ndarray) -> dict[str, np.ndarray]:
    height, width = photo.shape[:2]
    return {
        "as it is": photo,
        "blurred": cv2.GaussianBlur(photo, (0, 0), 6),
        "dark": photo // 7,
        "small": cv2.resize(photo, None, fx=180 / max(height, width), fy=180 / max(height, width)),
        "a part": np.ascontiguousarray(photo[height // 20 : 2 * height // 5, width // 20 : 2 * width // 5]),
    }


@pytest.mark.parametrize(("place", "number"), [("Petra", 2), ("Hawa Mahal", 7)])
def test_one_copy_decides_as_the_five_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, number: int
) -> None:
    photo = load_image(ROOT / "assets" / "demo" / "references" / place / "photo.webp").pixels
    with Recognizer.open(tmp_path / "places.db") as opened:
        for other in ("Colosseum", "Taj Mahal", "Red Pyramid"):
            opened.add(ROOT / "assets" / "demo" / "references" / other / "photo.webp", landmark=other)
        looks = extractions(opened, monkeypatch)
        quick, numbers = {}, {}
        for kind, pixels in spoilt(photo).items():
            looks.clear()
            quick[kind] = assess(opened, pixels, landmark=place, channel_order="RGB")
            numbers[kind] = len(looks)
        assert numbers["as it is"] == number  # the photo, and one copy of it; five more where that leaves a doubt
        assert set(numbers.values()) <= {2, 7}
        monkeypatch.setattr(reference_quality, "BEYOND_DOUBT", 10**6)  # the five decide
        for kind, pixels in spoilt(photo).items():
            assert quick[kind] == assess(opened, pixels, landmark=place, channel_order="RGB"), kind


def test_a_photo_that_one_copy_does_not_decide_is_looked_at_in_all_ways(
    recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = extractions(recognizer, monkeypatch)
    twin = np.clip(scene(0).astype(int) + 8, 0, 255).astype(np.uint8)
    recognizer.add(twin, landmark="town hall", channel_order="BGR")
    looks.clear()
    report = assess(recognizer, scene(0), channel_order="BGR", landmark="church")
    assert len(looks) == 7
    assert report.parts["recall"] < 1  # the other one proves as much
