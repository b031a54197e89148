"""What the SDK finds for a question, before a probability is made of it: databases of any size, asked by its own parts.

Photos are extracted once for a network and codebook, whatever the weights, and kept on disk. A question goes through
`QueryPipeline` and `CandidateRanking` on a real database file; only the matches of a pair of photos are remembered.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data.feature_cache import Arrays, FeatureCache, photo_hash
from benchmarks.data.places import Photos, Places
from benchmarks.lab.runner import Progress, silent
from benchmarks.metrics.protocols import trapezoid_ap
from benchmarks.systems.delf import from_arrays, to_arrays
from delf_edge import Bundle, Recognizer
from delf_edge.bundle.calibration import Calibration
from delf_edge.bundle.cohort import Cohort
from delf_edge.features.extractor import Extractor, extract_options
from delf_edge.images.decode import content_hash, load_image
from delf_edge.quantization.coarse_quantizer import CoarseIndex
from delf_edge.quantization.product_quantizer import encode
from delf_edge.query.options import RANKING, IdentifyOptions
from delf_edge.query.ranking import CandidateRanking
from delf_edge.storage.records import NewImage
from delf_edge.types import Candidate, Codebook, Codes, Features, Int32Array, Verification

SIZES = (1, 5, 30)
KNOWN, UNKNOWN = 4, 8  # questions to a small database


@dataclass(frozen=True, slots=True)
class Found:
    """What a question found.

    Attributes:
        size: places in the database, None for all; `photos`: of each place at most, None for all.
        place: what is asked for; `known`: whether it is stored.
        right: whether the best photo shows it.
        score, rival, strangers, inliers: of the best photo, see `Calibration`.
        searched, of_landmark: photos that were searched, and those of them that show the best photo's landmark.
        ap, ap_alone: average precision of the ranking with the names of landmarks, and without; NaN where it was not
            ranked.
        first: whether the ranking begins with the place.
    """

    size: int | None
    photos: int | None
    place: str
    known: bool
    right: bool
    score: float
    rival: float
    strangers: float
    inliers: int
    searched: int
    of_landmark: int
    ap: float = float("nan")
    ap_alone: float = float("nan")
    first: bool = False

    @property
    def is_proven(self) -> bool:
        """Whether the best photo has the points without which nothing is named."""
        return self.inliers >= RANKING.min_inliers

    def logit(self, c: Calibration) -> float:
        """Log odds that the best photo shows what is asked for, -inf where it proves too little to be named."""
        margin = c.margin(self.score, self.rival, self.strangers)
        x = c.logit(self.score, margin, self.strangers, searched=self.searched, of_landmark=self.of_landmark)
        return x if self.is_proven else float("-inf")


class Lab:
    """Photos of a folder as a bundle sees them, and databases made of them.

    Args:
        data: folder that names are relative to.
        bundle: the model.
        out: folder of what is kept; None keeps nothing.
        preset: extraction preset, None for the bundle's own.
    """

    def __init__(
        self, data: Path, bundle: Bundle, out: Path | None, preset: str | None = None, progress: Progress = silent
    ) -> None:
        self.data, self.bundle, self.progress = data, bundle, progress
        self._options, self._extractor = extract_options(bundle, preset), Extractor(bundle)
        self._cache = FeatureCache(None if out is None else out / "features")
        digest = hashlib.sha256(bundle.network + (bundle.tail or b""))
        for name in Codebook.__dataclass_fields__:
            digest.update(np.ascontiguousarray(getattr(bundle.codebook, name)).tobytes())
        self._key = f"evidence 2 {digest.hexdigest()} {asdict(self._options)} {bundle.manifest.global_spec}"
        self._coarse = CoarseIndex(bundle.codebook.centroids)
        self._features: dict[str, Features] = {}
        self._words: dict[str, Int32Array] = {}
        self._images: dict[str, NewImage] = {}
        self._pairs: dict[tuple[str, str], Verification] = {}

    def features(self, name: str) -> Features:
        """A photo as it is asked for."""
        if name not in self._features:
            made = self._cache.get(self._key, photo_hash(self.data / name), lambda: self._made(name))
            self._features[name] = from_arrays(made)
            self._words[name] = np.asarray(made["words"], np.int32)
        return self._features[name]

    def _made(self, name: str) -> Arrays:
        features = self._extractor.extract(load_image(self.data / name), self._options)
        return dict(to_arrays(features)) | {"words": self._coarse.assign(features.descriptors, exact=True)[0][:, 0]}

    def codes(self, name: str) -> Codes:
        """A photo as it is stored."""
        features = self.features(name)
        return encode(features, self._words[name], self.bundle.codebook)

    def prepare(self, names: Iterable[str]) -> None:
        """Extract what the cache lacks."""
        wanted = list(dict.fromkeys(names))
        for i, name in enumerate(wanted):
            self.features(name)
            self.progress("extract", i + 1, len(wanted))

    @contextmanager
    def database(self, photos: Photos, cohort: Cohort | None, calibration: Calibration) -> Iterator[Recognizer]:
        """A database file of photos and the places they show."""
        bundle = replace(self.bundle, cohort=cohort)
        with (
            tempfile.TemporaryDirectory() as folder,
            Recognizer.open(Path(folder) / "p.db", bundle=bundle) as recognizer,
        ):
            recognizer.pipeline.calibration = calibration
            recognizer.store.add_many(self._image(name, place) for name, place in photos)
            recognizer.pipeline.index.refresh(recognizer.combined)
            yield recognizer

    def _image(self, name: str, place: str) -> NewImage:
        if name not in self._images:
            digest = content_hash((self.data / name).read_bytes())
            self._images[name] = NewImage(name, place, digest, self.codes(name))
        return replace(self._images[name], landmark=place)

    def ask(
        self, recognizer: Recognizer, name: str, options: IdentifyOptions, top: int
    ) -> tuple[CandidateRanking, list[Candidate]]:
        """A ranking whose best `options.verify` candidates are verified, and its candidates."""
        features = self.features(name)
        looked_up = recognizer.pipeline.look_up(features, options, top)
        candidates, ranking = looked_up.candidates, recognizer.pipeline.ranking(features, looked_up)
        asked = candidates[: options.verify]
        rows = {r.image_id: r.name for r in recognizer.combined.images_by_id([c.image_id for c in asked])}
        missing = [c for c in asked if (name, rows[c.image_id]) not in self._pairs]
        for c, found in recognizer.pipeline.verified(features, missing, options):
            self._pairs[name, rows[c.image_id]] = found
        for c in asked:
            ranking.add(c, self._pairs[name, rows[c.image_id]])
        return ranking, candidates

    def small(self, world: Places, cohort: Cohort | None, calibration: Calibration, n: int, seed: int) -> list[Found]:
        """Questions to `n` databases of each size with one photo a place, and of each with all."""
        rng, by_place, found = np.random.default_rng(seed), world.by_place(), []
        asked: dict[str, list[str]] = {}
        for name, place in world.asked:
            asked.setdefault(place, []).append(name)
        others = sorted(by_place.keys() - asked.keys())
        for size in SIZES:
            for photos in (1, None):
                for _ in range(n if size < SIZES[-1] else max(1, n // 4)):
                    own = rng.permutation(sorted(asked))[: max(1, size // 2) if size == SIZES[-1] else size].tolist()
                    own += rng.permutation(others)[: size - len(own)].tolist()
                    stored = tuple((p, x) for x in own for p in rng.permutation(by_place[x])[:photos].tolist())
                    inside = [q for q in world.asked if q[1] in own]
                    outside = [q for q in world.asked if q[1] not in own]
                    questions = [inside[i] for i in rng.permutation(len(inside))[: KNOWN * max(1, size // 10)]]
                    questions += [outside[i] for i in rng.permutation(len(outside))[: UNKNOWN * max(1, size // 10)]]
                    with self.database(stored, cohort, calibration) as recognizer:
                        found += [self._first(recognizer, name, x, x in own, size, photos) for name, x in questions]
                self.progress(f"databases of {size}", 1, 1)
        return found

    def _first(
        self, recognizer: Recognizer, name: str, place: str, known: bool, size: int | None, photos: int | None
    ) -> Found:
        without = frozenset[str]() if known else frozenset([place])
        ranking, _ = self.ask(recognizer, name, IdentifyOptions(without=without), 50)
        best = ranking.first()
        return Found(size, photos, place, known, best.landmark == place, *best[1:])

    def whole(self, world: Places, cohort: Cohort | None, calibration: Calibration) -> list[Found]:
        """Every question to the database of all places, ranked, and once more with its place ruled out."""
        found = []
        with self.database(world.stored, cohort, calibration) as recognizer:
            for i, (name, place) in enumerate(world.asked):
                found += [
                    self._ranked(recognizer, world, name, place),
                    self._first(recognizer, name, place, False, None, None),
                ]
                self.progress("all places", i + 1, len(world.asked))
        return found

    def _ranked(self, recognizer: Recognizer, world: Places, name: str, place: str) -> Found:
        ranking, candidates = self.ask(recognizer, name, RANKING, len(world.stored))
        n = sum(p == place for _, p in world.stored)
        gain = ranking.expansion_gain(recognizer.pipeline.index.global_descriptors([c.image_id for c in candidates]))

        def ap(weight: float | None) -> tuple[float, bool]:
            order = ranking.results(gain=gain, landmark=weight)
            ranks = [i for i, match in enumerate(order) if match.landmark == place]
            return trapezoid_ap(np.array(ranks, np.int64), n), bool(ranks) and ranks[0] == 0

        (with_names, first), (alone, _) = ap(None), ap(0.0)
        best = ranking.first()
        right = best.landmark == place
        return Found(None, None, place, True, right, *best[1:], ap=with_names, ap_alone=alone, first=first)


def choose_cohort(lab: Lab, photos: dict[str, list[str]], n: int = 80, seed: int = 0) -> list[str]:
    """Photos as different from each other as can be, no two of one place: the next is the one least like all so far."""
    rng = np.random.default_rng(seed)
    names = [str(rng.permutation(photos[place])[0]) for place in sorted(photos)]
    vectors = np.stack([lab.features(name).global_descriptor for name in names])
    chosen, near = [0], vectors @ vectors[0]
    while len(chosen) < min(n, len(names)):
        near[chosen] = np.inf
        chosen.append(int(near.argmin()))
        near = np.maximum(near, vectors @ vectors[chosen[-1]])
    return [names[i] for i in chosen]


def code_cohort(lab: Lab, names: Sequence[str], n_features: int = 150) -> Cohort:
    """Photos as a bundle carries them: the best features of each."""
    codes = [lab.codes(name) for name in names]
    arrays: dict[str, Any] = {
        "counts": np.array([min(len(c), n_features) for c in codes], np.uint16),
        "words": np.concatenate([c.words[:n_features] for c in codes]).astype(np.uint16),
        "codes": np.concatenate([c.codes[:n_features] for c in codes]),
        "global_codes": np.stack([c.global_code for c in codes]),
    }
    return Cohort.from_arrays(arrays, lab.bundle.codebook)
