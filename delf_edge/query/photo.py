"""From a photo to its answers: as it stands, turned where that gives none, and in parts where it shows several places.

A network of this kind does not know a place that lies on its side. Phones say in EXIF how a photo is to be turned, but
scans, screenshots and edited photos have lost that. So a photo that is unknown as it stands is looked at in its other
three turns, at the smallest scale alone and without verification. The turn whose best candidate scores highest is then
asked as a photo of its own. That is one more chance to name a stranger: what is found there has to be proven by twice
the points and a probability of `TURNED_CERTAIN`.

Once a landmark is found, the rest of the photo is asked for another one, first with the features outside of the proof.
They were chosen among all of the photo, so a second monument may have few of them: where nothing is found, the largest
part of the photo beside the proofs is taken for a photo of its own, with features of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from delf_edge.query.options import IdentifyOptions
from delf_edge.query.pipeline import Explanation, QueryPipeline
from delf_edge.types import Answer, BoolArray, Features, Float32Array, Image
from delf_edge.verification import outside_hull

TURNED_CERTAIN = 0.8  # least probability of what is found in a turned photo
_TURNS = (90, 270, 180)  # degrees clockwise, the likeliest first
_LEAST_PART, _LEAST_SIDE = 1 / 8, 64  # of the photo's pixels, and pixels: smaller parts are not asked
_PARTS = 2  # of the photo that are tried for each further landmark

Extract = Callable[[Image, dict[str, float]], Features]
PixelBox = tuple[int, int, int, int]  # left, top, right, bottom


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A photo as it was answered: upright or turned, with the features that were asked."""

    image: Image
    features: Features
    answer: Answer


class PhotoQuery:
    """Asks a pipeline for everything that one photo shows.

    Args:
        pipeline: answers where the features are there.
        extract: gives the features of an image and notes the milliseconds of its stages.
        deadline_ms: milliseconds from now after which nothing further is begun; None: no deadline.
        glance: the same at the smallest scale alone, which takes a sixth of the time: enough to tell which turn of a
            photo resembles something. None: `extract`.
    """

    def __init__(
        self, pipeline: QueryPipeline, extract: Extract, deadline_ms: float | None = None, glance: Extract | None = None
    ) -> None:
        self._pipeline, self._extract, self._glance = pipeline, extract, glance or extract
        self._began, self._deadline = time.perf_counter(), deadline_ms

    def identify(self, image: Image, options: IdentifyOptions, top: int, timings: dict[str, float]) -> View:
        """The answer to a photo, in the turn that gives one.

        Args:
            image: the photo.
            options: see `IdentifyOptions`.
            top: landmarks listed at most.
            timings: holds the milliseconds of decoding; gets those of the other stages, "turns" for the other turns.
        """
        features = self._extract(image, timings)
        answer = self._pipeline.answer(features, options, top=top, deadline_ms=self._deadline, timings=timings)
        view = View(image, features, answer)
        if answer.found or not options.turns or not len(features):
            return view
        began = time.perf_counter()
        found = self._turned(image, options, top)
        timings["turns"] = (time.perf_counter() - began) * 1000
        timings["total"] = timings.get("total", 0.0) + timings["turns"]
        if found is None:
            return view
        return replace(found, answer=replace(found.answer, milliseconds=timings))

    def _turned(self, image: Image, options: IdentifyOptions, top: int) -> View | None:
        """A photo in the likeliest of its other turns, if a landmark is proven beyond doubt there."""
        glances: list[tuple[float, int]] = []
        for degrees in _TURNS:
            if self._is_over():
                return None
            features = self._glance(turned(image, degrees), {})
            candidates = self._pipeline.candidates(features, options, 1) if len(features) else []
            glances.append((candidates[0].score if candidates else -np.inf, degrees))
        score, degrees = max(glances, key=lambda glance: glance[0])  # of equal ones the first
        if score == -np.inf or self._is_over():
            return None
        other = turned(image, degrees)
        features = self._extract(other, {})
        answer = self._pipeline.answer(features, options, top=top, deadline_ms=self._left())
        enough = answer.n_inliers >= 2 * options.min_inliers and answer.probability >= TURNED_CERTAIN
        if not (answer.found and enough):
            return None
        reason = f"{answer.reason}; the photo was turned by {degrees} degrees clockwise"
        return View(other, features, replace(answer, reason=reason))

    def explain_all(
        self, image: Image, options: IdentifyOptions, limit: int, timings: dict[str, float]
    ) -> list[Explanation]:
        """All landmarks of a photo, each with its proof; only the first may be unknown.

        Args:
            image: the photo.
            options: see `IdentifyOptions`.
            limit: landmarks at most.
            timings: as for `identify`.
        """
        first = self.identify(image, options, 5, timings)
        found = [self._pipeline.explanation(first.answer, first.image, first.features)]
        features = first.features
        while found[-1].answer.landmark is not None and len(found) < limit:
            features = _subset(features, outside_hull(features.keypoints, found[-1].query_keypoints))
            options = replace(options, without=options.without | {found[-1].answer.landmark}, turns=False)
            view = View(first.image, features, self._pipeline.answer(features, options, deadline_ms=self._left()))
            if not view.answer.found and options.anew:
                view = self._in_parts(first.image, [e.query_keypoints for e in found], options) or view
            if not view.answer.found:
                break
            found.append(self._pipeline.explanation(view.answer, view.image, view.features))
        return found

    def _in_parts(self, image: Image, proofs: Sequence[Float32Array], options: IdentifyOptions) -> View | None:
        """Ask parts of a photo that no proof touches, the largest first, with features of their own."""
        boxes = [_box_of(points, image.size) for points in proofs]
        for _ in range(_PARTS):
            part = largest_free_part(image.size, boxes)
            left = self._left()
            if part is None or (left is not None and left <= 0):
                return None
            features = self._extract(_cut(image, part), {})
            shift = np.array(part[:2], np.float32)
            moved = replace(features, keypoints=features.keypoints + shift, image_size=image.size)
            answer = self._pipeline.answer(moved, options, deadline_ms=self._left())
            if answer.found:
                return View(image, moved, answer)
            boxes.append(part)
        return None

    def _is_over(self) -> bool:
        left = self._left()
        return left is not None and left <= 0

    def _left(self) -> float | None:
        """Milliseconds until the deadline."""
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - (time.perf_counter() - self._began) * 1000)


def turned(image: Image, degrees: int) -> Image:
    """A photo turned clockwise by 90, 180 or 270 degrees."""
    pixels = np.ascontiguousarray(np.rot90(image.pixels, -degrees // 90))
    width, height = image.original_size
    return Image(pixels, (width, height) if degrees == 180 else (height, width))


def largest_free_part(size: tuple[int, int], boxes: Sequence[PixelBox]) -> PixelBox | None:
    """The largest rectangle of an image of `size` (width, height) that no box touches; None where it is small."""
    xs = sorted({0, size[0], *(x for box in boxes for x in (box[0], box[2]))})
    ys = sorted({0, size[1], *(y for box in boxes for y in (box[1], box[3]))})
    best, most = None, size[0] * size[1] * _LEAST_PART
    for left, right in combinations(xs, 2):
        for top, bottom in combinations(ys, 2):
            area = (right - left) * (bottom - top)
            if area < most or min(right - left, bottom - top) < _LEAST_SIDE:
                continue
            if all(right <= b[0] or b[2] <= left or bottom <= b[1] or b[3] <= top for b in boxes):
                best, most = (left, top, right, bottom), area
    return best


def _box_of(points: Float32Array, size: tuple[int, int]) -> PixelBox:
    """The rectangle of whole pixels around points (P, 2), at least 3."""
    low, high = np.floor(points.min(axis=0)).astype(int), np.ceil(points.max(axis=0)).astype(int) + 1
    low, high = np.clip(low, 0, size), np.clip(high, 0, size)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _cut(image: Image, part: PixelBox) -> Image:
    left, top, right, bottom = part
    return Image(np.ascontiguousarray(image.pixels[top:bottom, left:right]), (right - left, bottom - top))


def _subset(features: Features, keep: BoolArray) -> Features:
    return replace(
        features,
        keypoints=features.keypoints[keep],
        scales=features.scales[keep],
        scores=features.scores[keep],
        descriptors=features.descriptors[keep],
    )
