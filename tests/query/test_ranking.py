"""What strangers and the other photos of a landmark do to the order and to the probabilities."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from delf_edge import Bundle, IdentifyOptions, Recognizer
from delf_edge.bundle.calibration import Calibration
from delf_edge.query.ranking import CandidateRanking
from delf_edge.types import Candidate, Features
from testing.paths import TINY_BUNDLE

WEIGHTS = Calibration(votes=0.0, similarity=1.0, inliers=0.0, bias=0.0, slope=1.0, margin_slope=1.0)


def photo(seed: int) -> bytes:
    blocks = np.random.default_rng(seed).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    return cv2.imencode(".png", cv2.resize(blocks, (320, 240), interpolation=cv2.INTER_NEAREST))[1].tobytes()


@pytest.fixture
def recognizer(tmp_path: Path) -> Iterator[Recognizer]:
    with Recognizer.open(tmp_path / "p.db", bundle=Bundle.load(TINY_BUNDLE)) as opened:
        for i, landmark in enumerate("abab"):
            opened.add(photo(i), landmark=landmark, name=f"{i}.png")
        yield opened


def ranking(
    recognizer: Recognizer, calibration: Calibration, scores: list[float], strangers: list[float]
) -> CandidateRanking:
    found = [Candidate(i + 1, s, 0.0, s) for i, s in enumerate(scores)]
    others = [Candidate(i, s, 0.0, s) for i, s in enumerate(strangers)]
    return CandidateRanking(calibration, recognizer.combined, Features.empty(8), found, others)


def test_the_second_best_stranger_is_a_rival(recognizer: Recognizer) -> None:
    def probability(strangers: list[float], slope: float = 0.0) -> float:
        weights = replace(WEIGHTS, cohort_slope=slope)
        return ranking(recognizer, weights, [2.0, 0.5, 0.4, 0.3], strangers).results()[0].probability

    assert probability([9.0, 0.4]) == probability([0.45, 0.4])  # below the other landmark's 0.5
    assert probability([9.0, 1.0]) < probability([9.0, 0.4])  # above it
    assert probability([0.6]) < probability([0.4])  # of one, that one
    assert probability([9.0, 0.4], slope=2.0) < probability([9.0, 0.1], slope=2.0)  # what looks like everything


def test_the_same_score_proves_less_among_many_photos(recognizer: Recognizer) -> None:
    def probability(weights: Calibration, searched: int) -> float:
        found = [Candidate(1, 1.0, 0.0, 1.0)]
        made = CandidateRanking(weights, recognizer.combined, Features.empty(8), found, searched=searched)
        return made.results()[0].probability

    plain = probability(WEIGHTS, 1)
    assert probability(WEIGHTS, 1000) == plain
    sized = replace(WEIGHTS, size_slope=0.5)
    assert plain == probability(sized, 1) > probability(sized, 4) > probability(sized, 300)
    assert probability(sized, 300) == probability(sized, 10_000)
    by_landmark = replace(WEIGHTS, photos_slope=1.0)  # two photos show landmark a
    odds = probability(by_landmark, 4) / (1 - probability(by_landmark, 4))
    assert odds == pytest.approx(plain / (1 - plain) / 2)


def test_an_answer_counts_the_photos_that_may_be_found(recognizer: Recognizer) -> None:
    features = recognizer.extract(photo(0))
    recognizer.pipeline.index.refresh(recognizer.combined)
    for options, expected in ((IdentifyOptions(), 4), (IdentifyOptions(without=frozenset("b")), 2)):
        looked_up = recognizer.pipeline.look_up(features, options, 5)
        first = recognizer.pipeline.ranking(features, looked_up).first()
        assert (first.searched, first.of_landmark) == (expected, 2)
    recognizer.remove("2.png")
    recognizer.pipeline.index.refresh(recognizer.combined)
    looked_up = recognizer.pipeline.look_up(features, IdentifyOptions(), 5)
    first = recognizer.pipeline.ranking(features, looked_up).first()
    assert (first.searched, first.landmark, first.of_landmark) == (3, "a", 1)


def test_a_landmark_raises_its_photos_in_a_ranking_alone(recognizer: Recognizer) -> None:
    weights = replace(WEIGHTS, landmark=2.0)
    made = ranking(recognizer, weights, [0.9, 0.7, 0.6, 0.1], [])
    assert [m.name for m in made.results()] == ["0.png", "1.png", "2.png", "3.png"]
    raised = made.results(gain={})
    assert [m.name for m in raised] == ["0.png", "2.png", "1.png", "3.png"]  # both photos of a, then those of b
    assert raised[0].score == pytest.approx(0.9 + 2 * 0.9)
    assert {m.name: m.probability for m in raised} == {m.name: m.probability for m in made.results()}


def test_a_removed_photo_raises_nothing(recognizer: Recognizer) -> None:
    weights = replace(WEIGHTS, landmark=2.0)
    recognizer.remove("0.png")
    names = [m.name for m in ranking(recognizer, weights, [0.9, 0.7, 0.6, 0.1], []).results(gain={})]
    assert names == ["1.png", "2.png", "3.png"]  # 0.6 + 2 * 0.6 is less than 0.7 + 2 * 0.7
