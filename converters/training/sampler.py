"""Draws the photos of a step, and how they are shown. Every batch is a pure function of (seed, step)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from delf_edge.converters.training.augment import CropOptions, degrade, draw_crop, relight, warp
from delf_edge.converters.training.batches import Batch, Pairs, cell_centres, cell_targets, load_photo
from delf_edge.converters.training.options import TrainOptions
from delf_edge.converters.training.photos import Photo


@dataclass(frozen=True, slots=True)
class Partner:
    """The photo of a second view, the affine map to it, where to look in the first, and matched points (T, 4)."""

    photo: int
    affine: NDArray[np.float64]
    centre: NDArray[np.float64] | None
    side: float | None
    points: NDArray[np.float32] | None


class Sampler:
    """Draws batches; `batch(step)` depends on the seed and the step only."""

    def __init__(
        self,
        photos: Sequence[Photo],
        options: TrainOptions,
        pairs: Pairs | None = None,
        alike: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._options = options
        self.places = sorted({p.place for p in photos})
        number = {name: i for i, name in enumerate(self.places)}
        self._place = np.array([number[p.place] for p in photos], np.int64)
        self._pixels = [load_photo(photo.path, options.max_side) for photo in photos]
        counts = Counter(self._place.tolist())
        weight = np.array([p.weight * counts[number[p.place]] ** (options.balance - 1.0) for p in photos])
        self._weight = weight / weight.sum()
        self._alike = [[number[a] for a in (alike or {}).get(name, ()) if a in number] for name in self.places]
        self._pairs = pairs
        self._partners: dict[int, list[tuple[int, bool]]] = defaultdict(list)
        if pairs is not None:
            for k, (i, j) in enumerate(pairs.index.tolist()):
                self._partners[i].append((k, False))
                self._partners[j].append((k, True))

    def batch(self, step: int) -> Batch:
        """The batch of a step, always the same for the same seed."""
        o = self._options
        rng = np.random.default_rng((o.seed, step))
        size = int(rng.choice(o.sizes))
        if not o.w_local:
            return self._unpaired(rng, size)
        chosen = self._choose(rng, o.batch)
        views = np.empty((2 * o.batch, size, size, 3), np.uint8)
        targets = np.empty((o.batch, len(cell_centres(size)), 2), np.float32)
        crop = CropOptions(min_side=o.min_side)
        for b, i in enumerate(chosen.tolist()):
            pair = self.partner(rng, i)
            photo, other = self._pixels[i], self._pixels[pair.photo]
            first, centre, side = draw_crop(rng, photo.shape[1::-1], size, crop, pair.centre, pair.side)
            c = pair.affine @ [*centre, 1.0]
            scale = float(np.sqrt(abs(np.linalg.det(pair.affine[:, :2]))))
            second, _, _ = draw_crop(rng, other.shape[1::-1], size, crop, c, side * scale)
            views[b] = self._show(rng, photo, first, size)
            views[o.batch + b] = self._show(rng, other, second, size)
            targets[b] = cell_targets(first, second, pair.affine, pair.points, size)
        return Batch(views, np.tile(self._place[chosen], 2), targets)

    def _choose(self, rng: np.random.Generator, n: int) -> NDArray[np.int64]:
        """Photos of a batch: some by weight, the others from places that look like theirs, one each."""
        share = self._options.lookalike if any(self._alike) else 0.0
        first = n - round(share * n)
        total = len(self._pixels)
        chosen = rng.choice(total, first, replace=first > total, p=self._weight).tolist()
        for k in range(n - first):
            alike = self._alike[self._place[chosen[k % first]]]
            weight = self._weight * (self._place == alike[int(rng.integers(len(alike)))]) if alike else self._weight
            chosen.append(int(rng.choice(total, p=weight / weight.sum())))
        return np.array(chosen, np.int64)

    def _show(
        self, rng: np.random.Generator, photo: NDArray[np.uint8], homography: NDArray[np.float64], size: int
    ) -> NDArray[np.uint8]:
        """A view of a photo as some camera may see it on some day."""
        view = warp(photo, homography, size)
        if rng.random() < self._options.relight:
            view = relight(rng, view, self._pixels[int(rng.integers(len(self._pixels)))])
        return degrade(rng, view)

    def _unpaired(self, rng: np.random.Generator, size: int) -> Batch:
        """Without InfoNCE no view needs a partner: twice as many photos."""
        n = 2 * self._options.batch
        chosen = self._choose(rng, n)
        views = np.empty((n, size, size, 3), np.uint8)
        for b, i in enumerate(chosen.tolist()):
            photo = self._pixels[i]
            homography, _, _ = draw_crop(rng, photo.shape[1::-1], size, CropOptions(min_side=self._options.min_side))
            views[b] = self._show(rng, photo, homography, size)
        return Batch(views, self._place[chosen], np.zeros((0, 0, 2), np.float32))

    def partner(self, rng: np.random.Generator, i: int) -> Partner:
        """What is shown as the second view of photo i."""
        partners = self._partners.get(i)
        if self._pairs is None or not partners or rng.random() >= self._options.pair_share:
            return Partner(i, np.eye(2, 3), None, None, None)
        k, backwards = partners[int(rng.integers(len(partners)))]
        affine, centre, side = self._pairs.affine[k], self._pairs.centre[k], float(self._pairs.side[k])
        points = self._pairs.points[self._pairs.starts[k] : self._pairs.starts[k + 1]]
        other = int(self._pairs.index[k, 0 if backwards else 1])
        if backwards:
            inverse = np.linalg.inv(np.vstack([affine, [0.0, 0.0, 1.0]]))[:2]
            scale = float(np.sqrt(abs(np.linalg.det(affine[:, :2]))))
            affine, centre, side, points = inverse, affine @ [*centre, 1.0], side * scale, points[:, [2, 3, 0, 1]]
        if not len(points):
            return Partner(other, affine, centre, side, None)
        # Around one of the points, so that every part that both photos show has its turn.
        return Partner(other, affine, points[int(rng.integers(len(points))), :2].astype(np.float64), side, points)
