"""The order of a query's candidates: scores, certainty, probabilities.

The score of an image is made of its votes, its similarity, and its inliers once it was verified; the probability looks
at its lead over the best image of another landmark as well (`calibration`). Rows are read only as far as they decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from delf_edge.bundle.calibration import Calibration
from delf_edge.storage.combined import CombinedStore
from delf_edge.storage.records import StoredImage
from delf_edge.types import Candidate, Features, Float32Array, Match, Verification

_READ_AHEAD = 8  # rows that are read at a time


class FirstPlace(NamedTuple):
    """The best image, and what its probability is made of besides.

    Attributes:
        landmark: of the image; "" where there is none.
        score: its own.
        rival: the best score of another landmark, 0 where there is none.
        strangers: see `Calibration.strangers`.
        n_inliers: its own.
        searched, of_landmark: photos that were searched, and those of its landmark.
    """

    landmark: str
    score: float
    rival: float
    strangers: float
    n_inliers: int
    searched: int
    of_landmark: int


class CandidateRanking:
    """What is known of the candidates of one query; it grows as they are verified, one after the other.

    Args:
        calibration: a bundle's weights.
        shelf: where the candidates' rows are read, each once.
        features: the query.
        candidates: the best first, none of them verified.
        strangers: images of the bundle's cohort, found with them.
        searched: photos that were searched, see `Calibration`.

    Attributes:
        checked: verifications by image id; a candidate that is not in it counts as not verified.
    """

    def __init__(
        self,
        calibration: Calibration,
        shelf: CombinedStore,
        features: Features,
        candidates: Sequence[Candidate],
        strangers: Sequence[Candidate] = (),
        searched: int = 1,
    ) -> None:
        self.checked: dict[int, Verification] = {}
        self._calibration, self._shelf, self._features, self._candidates = calibration, shelf, features, candidates
        self._scores = {c.image_id: self._score(c, 0) for c in candidates}
        self._strangers = calibration.strangers([self._score(c, 0) for c in strangers])
        self._searched, self._of_landmark = searched, dict[str, int]()
        self._rows: dict[int, StoredImage | None] = {}  # as far as they were read; None: the image is gone or damaged

    def add(self, candidate: Candidate, verification: Verification) -> None:
        """Take in what the check of a candidate found."""
        self.checked[candidate.image_id] = verification
        self._scores[candidate.image_id] = self._score(candidate, verification.n_inliers)

    def _score(self, candidate: Candidate, n_inliers: int) -> float:
        votes = candidate.votes / max(len(self._features), 1)
        return self._calibration.score(votes, candidate.similarity, n_inliers)

    def _probability(self, score: float, rival: float, landmark: str) -> float:
        weights, strangers = self._calibration, self._strangers
        margin, photos = weights.margin(score, rival, strangers), self._photos(landmark)
        return weights.probability(score, margin, strangers, searched=self._searched, of_landmark=photos)

    def _photos(self, landmark: str) -> int:
        """How many photos show a landmark."""
        if landmark not in self._of_landmark:
            self._of_landmark[landmark] = self._shelf.n_images(landmark)
        return self._of_landmark[landmark]

    def _n_inliers(self, candidate: Candidate) -> int:
        found = self.checked.get(candidate.image_id)
        return 0 if found is None else found.n_inliers

    def _read(self, image_ids: Sequence[int], ahead: int = _READ_AHEAD) -> Iterator[StoredImage | None]:
        """The rows of images in this order, None for one that is gone or damaged; `ahead` are read at a time."""
        for i, image_id in enumerate(image_ids):
            if image_id not in self._rows:
                wanted = [k for k in image_ids[i : i + ahead] if k not in self._rows]
                self._rows.update(dict.fromkeys(wanted))
                self._rows.update((row.image_id, row) for row in self._shelf.images_by_id(wanted))
            yield self._rows[image_id]

    def is_certain(self, certain: float, min_inliers: int) -> bool:
        """Whether the best verified image is beyond doubt against the rest as it stands; see `IdentifyOptions`."""
        scored = sorted(((score, image_id) for image_id, score in self._scores.items()), reverse=True)
        score, best = scored[0]
        if best not in self.checked or self.checked[best].n_inliers < 3 * min_inliers:
            return False  # an image that is not verified yet scores higher, or the best one proves too little
        rows = zip(scored, self._read([image_id for _, image_id in scored]), strict=True)
        _, own = next(rows)
        landmark = "" if own is None else own.landmark
        if self._probability(score, 0.0, landmark) < certain:
            return False  # even without a rival
        rival = next((s for (s, _), row in rows if row is not None and row.landmark != landmark), 0.0)
        return self._probability(score, rival, landmark) >= certain

    def expansion_gain(self, known: Float32Array) -> dict[int, float]:
        """What query expansion and support add to the score of each candidate, by image id.

        Args:
            known: float32 (n, G), unit L2, the candidates' global descriptors.
        """
        from delf_edge.query.query_expansion import expand  # of a ranking alone, not of an answer

        similarity = np.array([c.similarity for c in self._candidates], np.float64)
        inliers = np.array([self._n_inliers(c) for c in self._candidates], np.int64)
        expanded = expand(self._calibration, self._features.global_descriptor, known, similarity, inliers)
        gain = self._calibration.similarity * (expanded - similarity)
        return dict(zip((c.image_id for c in self._candidates), gain.tolist(), strict=True))

    def first(self) -> FirstPlace:
        """The best image, as a calibration is fitted on it."""
        scored = sorted(self._candidates, key=lambda c: (-self._scores[c.image_id], c.image_id))
        rows = self._read([c.image_id for c in scored], 2 * _READ_AHEAD)
        read = ((c, row) for c, row in zip(scored, rows, strict=True) if row is not None)
        best, own = next(read, (None, None))
        if best is None or own is None:
            return FirstPlace("", 0.0, 0.0, self._strangers, 0, self._searched, 1)
        rival = next((self._scores[c.image_id] for c, row in read if row.landmark != own.landmark), 0.0)
        return FirstPlace(
            own.landmark,
            self._scores[best.image_id],
            rival,
            self._strangers,
            self._n_inliers(best),
            self._searched,
            self._photos(own.landmark),
        )

    def results(
        self, n_landmarks: int | None = None, gain: Mapping[int, float] | None = None, landmark: float | None = None
    ) -> list[Match]:
        """The candidates, best score first; those whose row is gone or damaged are left out.

        Args:
            n_landmarks: the list may end once it holds images of that many: the rest need not be read. None: all.
            gain: by image id, added to the scores, and the best score of an image's landmark with its weight too; this
                changes the order, not the probabilities. None: images are in the order of their own scores.
            landmark: that weight, in place of the bundle's.
        """
        weight = self._calibration.landmark if landmark is None else landmark
        scored = sorted(self._candidates, key=lambda c: (-self._scores[c.image_id], c.image_id))
        enough = len(scored) if n_landmarks is None else max(2, n_landmarks)  # the second one is the first one's rival
        rows = self._read([c.image_id for c in scored], len(scored) if n_landmarks is None else 2 * _READ_AHEAD)
        found: list[tuple[Candidate, StoredImage]] = []
        best: dict[str, float] = {}  # score by landmark, the best first
        for candidate, row in zip(scored, rows, strict=True):
            if row is not None:
                found.append((candidate, row))
                best.setdefault(row.landmark, self._scores[candidate.image_id])
                if len(best) >= enough:
                    break
        leader = next(iter(best), "")
        first, second = [*best.values(), 0.0, 0.0][:2]
        results = []
        for c, row in found:
            own = self._scores[c.image_id]
            probability = self._probability(own, second if row.landmark == leader else first, row.landmark)
            score = own if gain is None else own + gain.get(c.image_id, 0.0) + weight * best[row.landmark]
            n_inliers = self._n_inliers(c)
            results.append(Match(c.image_id, row.name, row.landmark, score, probability, n_inliers, c.similarity))
        return results if gain is None else sorted(results, key=lambda match: (-match.score, match.image_id))
