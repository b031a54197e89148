"""One photo, asked as it stands, turned, and in parts; and what an answer may say where points prove nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from delf_edge.bundle.bundle import Bundle
from delf_edge.bundle.calibration import Calibration
from delf_edge.errors import OptionError
from delf_edge.query.options import IdentifyOptions
from delf_edge.query.photo import PhotoQuery, largest_free_part, turned
from delf_edge.recognizer import Recognizer
from delf_edge.types import Features, Image
from testing.paths import TINY_BUNDLE

SURE = Calibration(bias=4.0, threshold=0.5)  # whatever has the points is named


def scene(seed: int, height: int = 240, width: int = 320) -> np.ndarray:
    """RGB: blocks of random colours, different for each seed."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (height // 20, width // 20, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(blocks, (width, height), interpolation=cv2.INTER_NEAREST))


def image(pixels: np.ndarray) -> Image:
    return Image(np.ascontiguousarray(pixels), (pixels.shape[1], pixels.shape[0]))


@pytest.fixture
def recognizer(tmp_path: Path) -> Iterator[Recognizer]:
    with Recognizer.open(tmp_path / "places.db", bundle=Bundle.load(TINY_BUNDLE), preset="accurate") as opened:
        opened.pipeline.calibration = SURE
        for seed in range(4):
            opened.add(scene(seed), landmark=f"place {seed}", name=f"{seed}.png", channel_order="RGB")
        yield opened


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_photo_that_lies_on_its_side_is_found_in_another_turn(recognizer: Recognizer, degrees: int) -> None:
    options = IdentifyOptions(min_inliers=15)
    lying = turned(image(scene(2)), degrees).pixels
    upright = recognizer.identify(lying, channel_order="RGB", options=IdentifyOptions(min_inliers=15, turns=False))
    assert not upright.found
    answer = recognizer.identify(lying, channel_order="RGB", options=options)
    assert answer.landmark == "place 2"
    assert answer.reason.endswith(f"the photo was turned by {360 - degrees} degrees clockwise")
    assert answer.milliseconds["total"] > answer.milliseconds["turns"] > 0
    proof = recognizer.explain(lying, channel_order="RGB", options=options)
    np.testing.assert_array_equal(proof.image.pixels, scene(2))
    np.testing.assert_allclose(proof.query_keypoints, proof.stored_keypoints, atol=7)


def test_what_is_unknown_in_every_turn_stays_as_it_was_answered_upright(recognizer: Recognizer) -> None:
    options = IdentifyOptions(min_inliers=15)
    upright = recognizer.identify(scene(9), channel_order="RGB", options=IdentifyOptions(min_inliers=15, turns=False))
    answer = recognizer.identify(scene(9), channel_order="RGB", options=options)
    assert not answer.found
    assert (answer.reason, answer.probability) == (upright.reason, upright.probability)
    assert [m.name for m in answer.results] == [m.name for m in upright.results]
    assert "turns" in answer.milliseconds
    assert "turns" not in upright.milliseconds


def asked(recognizer: Recognizer, pixels: np.ndarray, options: IdentifyOptions, deadline_ms: float | None) -> list[Any]:
    """The sizes of the images whose features were taken for an answer; of glances as [size]."""
    sizes: list[Any] = []

    def extract(picture: Image, timings: dict[str, float]) -> Features:
        sizes.append(picture.size)
        return recognizer.extract(picture.pixels, channel_order="RGB", timings=timings)

    def glance(picture: Image, timings: dict[str, float]) -> Features:
        sizes.append([picture.size])
        return recognizer.extract(picture.pixels, channel_order="RGB", timings=timings)

    PhotoQuery(recognizer.pipeline, extract, deadline_ms, glance).identify(image(pixels), options, 5, {})
    return sizes


def test_the_other_turns_are_tried_only_where_they_may_help(recognizer: Recognizer) -> None:
    options = IdentifyOptions(min_inliers=15)
    wide, high = (320, 240), (240, 320)
    first, *glances, last = asked(recognizer, scene(9), options, None)
    assert (first, glances) == (wide, [[high], [high], [wide]])
    assert last in (wide, high)  # the likeliest turn alone is asked with all features
    lying = np.ascontiguousarray(np.rot90(scene(1)))
    assert asked(recognizer, lying, options, None) == [high, [wide], [wide], [high], wide]
    assert asked(recognizer, scene(9), options, 0.0) == [wide]
    assert asked(recognizer, scene(1), options, None) == [wide]
    assert asked(recognizer, np.zeros((240, 320, 3), np.uint8), options, None) == [wide]
    assert asked(recognizer, scene(9), IdentifyOptions(min_inliers=15, turns=False), None) == [wide]


def test_a_second_place_is_found_with_features_of_its_own(tmp_path: Path) -> None:
    """So many features of the first place stand before those of the second one that only the first is found."""
    strong, faint = scene(0), (scene(1).astype(int) // 8 + 110).astype(np.uint8)
    both = np.hstack([strong, faint])
    with Recognizer.open(tmp_path / "places.db", bundle=Bundle.load(TINY_BUNDLE), preset="accurate") as recognizer:
        recognizer.pipeline.calibration = SURE
        recognizer.add(strong, landmark="strong", name="a", channel_order="RGB")
        recognizer.add(faint, landmark="faint", name="b", channel_order="RGB")

        def extract(picture: Image, timings: dict[str, float]) -> Features:
            features = recognizer.extract(picture.pixels, channel_order="RGB", timings=timings)
            if picture.size != (640, 240):
                return features
            keep = features.keypoints[:, 0] < 320
            return replace(
                features,
                keypoints=features.keypoints[keep],
                scales=features.scales[keep],
                scores=features.scores[keep],
                descriptors=features.descriptors[keep],
            )

        query = PhotoQuery(recognizer.pipeline, extract)
        found = query.explain_all(image(both), IdentifyOptions(min_inliers=15), 3, {})
        assert [e.answer.landmark for e in found] == ["strong", "faint"]
        assert found[0].query_keypoints[:, 0].max() < 320
        assert found[1].query_keypoints[:, 0].min() >= found[0].query_keypoints[:, 0].max()
        assert np.abs(found[1].query_keypoints - found[1].stored_keypoints - [320, 0]).max() < 30
        without = query.explain_all(image(both), IdentifyOptions(min_inliers=15, anew=False), 3, {})
        assert [e.answer.landmark for e in without] == ["strong"]
        late = PhotoQuery(recognizer.pipeline, extract, deadline_ms=0.0)
        assert len(late.explain_all(image(both), IdentifyOptions(min_inliers=15), 3, {})) == 1


def test_the_largest_free_part_touches_no_proof() -> None:
    assert largest_free_part((640, 480), [(0, 0, 320, 480)]) == (320, 0, 640, 480)
    assert largest_free_part((640, 480), [(100, 0, 300, 480)]) == (300, 0, 640, 480)
    assert largest_free_part((640, 480), [(0, 200, 640, 480)]) == (0, 0, 640, 200)
    assert largest_free_part((640, 480), [(0, 0, 620, 480)]) is None  # a strip
    assert largest_free_part((640, 480), [(0, 0, 640, 480)]) is None
    assert largest_free_part((100, 60), []) is None  # small
    rng = np.random.default_rng(0)
    for _ in range(40):
        corners = np.sort(rng.integers(0, 300, (3, 2, 2)), axis=1)
        boxes = [(int(a[0]), int(a[1]), int(b[0]) + 1, int(b[1]) + 1) for a, b in corners]
        part = largest_free_part((301, 301), boxes)
        if part is not None:
            taken = np.zeros((301, 301), bool)
            for left, top, right, bottom in boxes:
                taken[top:bottom, left:right] = True
            left, top, right, bottom = part
            assert not taken[top:bottom, left:right].any()


def test_without_matched_points_an_unknown_photo_has_no_probability(recognizer: Recognizer) -> None:
    """However alike two pictures are at a glance: nothing is named without points."""
    recognizer.pipeline.calibration = Calibration(bias=9.0, threshold=0.5)
    options = IdentifyOptions(min_inliers=100_000, turns=False)
    answer = recognizer.identify(scene(0), channel_order="RGB", options=options)
    assert not answer.found
    assert answer.n_inliers > 6
    assert answer.probability == 0.5 * answer.n_inliers / 100_000
    assert "probability" not in answer.reason
    assert "100000 points are needed" in answer.reason
    nothing = recognizer.identify(scene(0), channel_order="RGB", options=IdentifyOptions(verify=0, turns=False))
    assert (nothing.found, nothing.n_inliers, nothing.probability) == (False, 0, 0.0)
    assert {m.probability for m in nothing.results} == {0.0}


@pytest.mark.parametrize("wrong", [0, -1, 2.5, True, "3", None])
def test_how_many_is_a_whole_number_above_zero(recognizer: Recognizer, wrong: Any) -> None:
    with pytest.raises(OptionError, match="top is"):
        recognizer.identify(scene(0), channel_order="RGB", top=wrong)
    with pytest.raises(OptionError, match="top_k is"):
        recognizer.search(scene(0), wrong, channel_order="RGB")
    with pytest.raises(OptionError, match="limit is"):
        recognizer.explain_all(scene(0), channel_order="RGB", limit=wrong)
    if wrong != 0:
        with pytest.raises(OptionError):
            IdentifyOptions(verify=wrong)
        with pytest.raises(OptionError):
            IdentifyOptions(min_inliers=wrong)


@pytest.mark.parametrize("wrong", [-1.0, float("nan")])
def test_a_deadline_is_not_negative(recognizer: Recognizer, wrong: float) -> None:
    with pytest.raises(OptionError, match="deadline_ms"):
        recognizer.identify(scene(0), channel_order="RGB", deadline_ms=wrong)
    with pytest.raises(OptionError, match="deadline_ms"):
        recognizer.explain(scene(0), channel_order="RGB", deadline_ms=wrong)
