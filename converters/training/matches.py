"""Descriptors of one point seen in two photos: what a learned projection is fitted on.

Photos of one place are matched pairwise with the exported network, and only what an affine RANSAC confirms is taken:
nobody has to label anything.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from delf_edge.converters.export.recipes import provisional_bundle
from delf_edge.converters.training.photos import Photo
from delf_edge.errors import ImageError
from delf_edge.features.extractor import Extractor
from delf_edge.images.decode import load_image
from delf_edge.types import Features, Float32Array

MIN_INLIERS = 20


def matched_descriptors(
    photos: Sequence[Photo],
    local: bytes,
    head: Mapping[str, Any],
    folder: Path,
    *,
    pairs_per_place: int = 40,
    seed: int = 0,
    report: Callable[[str], None] = lambda line: None,
) -> Iterator[tuple[Float32Array, Float32Array]]:
    """Raw descriptors of confirmed matches, (n, C) of one photo and (n, C) of the other, pair by pair.

    Args:
        photos: places with a single photo give nothing.
        local: the local TFLite network.
        head: a manifest without files; features are those of its default preset.
        folder: for the bundle that the features are extracted with.
        pairs_per_place: at most so many pairs of a place are tried.
        seed: of the choice of pairs.
        report: called with a line per place.
    """
    from delf_edge.converters.training.pairs import verify_pair

    extractor = Extractor(provisional_bundle(folder / "bundle", local, None, {**head, "tail": None}))
    rng = np.random.default_rng(seed)
    groups: dict[str, list[Path]] = defaultdict(list)
    for photo in photos:
        groups[photo.place].append(photo.path)
    for place, paths in sorted(groups.items()):
        tries = [(a, b) for i, a in enumerate(paths) for b in paths[i + 1 :]]
        if len(tries) > pairs_per_place:
            tries = [tries[k] for k in np.sort(rng.choice(len(tries), pairs_per_place, replace=False))]
        seen = {path: _features(extractor, path) for path in sorted({p for pair in tries for p in pair})}
        found = 0
        for a, b in tries:
            first, second = seen[a], seen[b]
            if first is None or second is None:
                continue
            result = verify_pair((first.keypoints, first.descriptors), (second.keypoints, second.descriptors))
            if result is None or np.count_nonzero(result[1]) < MIN_INLIERS:
                continue
            _, inliers, matched = result
            found += 1
            yield _rows(first, matched[inliers, :2]), _rows(second, matched[inliers, 2:])
        if tries:
            report(f"{place}: {found} of {len(tries)} pairs confirmed")


def _features(extractor: Extractor, path: Path) -> Features | None:
    try:
        features = extractor.extract(load_image(path))
    except (ImageError, OSError):
        return None
    return features if len(features) >= MIN_INLIERS else None


def _rows(features: Features, points: Float32Array) -> Float32Array:
    """Descriptors at keypoints; two levels may share a point, then it is the first of them."""
    index: dict[tuple[float, float], int] = {}
    for i, (x, y) in enumerate(features.keypoints.tolist()):
        index.setdefault((x, y), i)
    return features.descriptors[[index[x, y] for x, y in points.tolist()]]
