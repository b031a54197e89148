"""The order of a query's candidates: scores, certainty, probabilities.

The score of an image is made of its votes, its similarity, and its inliers once it was verified; the probability looks
at its lead over the best image of another landmark as well (`calibration`). Rows are read only as far as they decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from delf_edge.bundle.calibration import Calibration
from delf_edge.query.query_expansion import expand
from delf_edge.storage.combined import CombinedStore
from delf_edge.storage.records import StoredImage
from delf_edge.types import Candidate, Features, Float32Array, Match, Verification

_READ_AHEAD = 8  # rows that are read at a time


class CandidateRanking:
    """What is known of the candidates of one query; it grows as they are verified, one after the other.

    Args:
        calibration: a bundle's weights.
        shelf: where the candidates' rows are read, each once.
        features: the query.
        candidates: the best first, none of them verified.

    Attributes:
        checked: verifications by image id; a candidate that is not in it counts as not verified.
    """

    def __init__(
        self, calibration: Calibration, shelf: CombinedStore, features: Features, candidates: Sequence[Candidate]
    ) -> None:
        self.checked: dict[int, Verification] = {}
        self._calibration, self._shelf, self._features, self._candidates = calibration, shelf, features, candidates
        self._scores = {c.image_id: self._score(c) for c in candidates}
        self._rows: dict[int, StoredImage | None] = {}  # as far as they were read; None: the image is gone or damaged

    def add(self, candidate: Candidate, verification: Verification) -> None:
        """Take in what the check of a candidate found."""
        self.checked[candidate.image_id] = verification
        self._scores[candidate.image_id] = self._score(candidate)

    def _score(self, candidate: Candidate) -> float:
        votes = candidate.votes / max(len(self._features), 1)
        return self._calibration.score(votes, candidate.similarity, self._n_inliers(candidate))

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
        if self._calibration.probability(score, self._calibration.margin(score, 0.0)) < certain:
            return False  # even without a rival
        rows = zip(scored, self._read([image_id for _, image_id in scored]), strict=True)
        _, own = next(rows)
        landmark = None if own is None else own.landmark
        rival = next((s for (s, _), row in rows if row is not None and row.landmark != landmark), 0.0)
        return self._calibration.probability(score, self._calibration.margin(score, rival)) >= certain

    def expansion_gain(self, known: Float32Array) -> dict[int, float]:
        """What query expansion and support add to the score of each candidate, by image id.

        Args:
            known: float32 (n, G), unit L2, the candidates' global descriptors.
        """
        similarity = np.array([c.similarity for c in self._candidates], np.float64)
        inliers = np.array([self._n_inliers(c) for c in self._candidates], np.int64)
        expanded = expand(self._calibration, self._features.global_descriptor, known, similarity, inliers)
        gain = self._calibration.similarity * (expanded - similarity)
        return dict(zip((c.image_id for c in self._candidates), gain.tolist(), strict=True))

    def results(self, n_landmarks: int | None = None, gain: Mapping[int, float] | None = None) -> list[Match]:
        """The candidates, best score first; those whose row is gone or damaged are left out.

        Args:
            n_landmarks: the list may end once it holds images of that many: the rest need not be read. None: all.
            gain: by image id, added to the scores; it changes the order, not the probabilities.
        """
        gain = gain or {}
        scored = [(self._scores[c.image_id] + gain.get(c.image_id, 0.0), c) for c in self._candidates]
        scored.sort(key=lambda pair: (-pair[0], pair[1].image_id))
        enough = len(scored) if n_landmarks is None else max(2, n_landmarks)  # the second one is the first one's rival
        rows = self._read([c.image_id for _, c in scored], len(scored) if n_landmarks is None else 2 * _READ_AHEAD)
        found: list[tuple[float, Candidate, StoredImage]] = []
        best: dict[str, float] = {}  # score by landmark
        for (score, candidate), row in zip(scored, rows, strict=True):
            if row is not None:
                found.append((score, candidate, row))
                best[row.landmark] = max(self._scores[candidate.image_id], best.get(row.landmark, -np.inf))
                if len(best) >= enough:
                    break
        leader = max(best, key=best.__getitem__, default="")
        first, second = [*sorted(best.values(), reverse=True), 0.0, 0.0][:2]
        results = []
        for score, c, row in found:
            own, rival = self._scores[c.image_id], second if row.landmark == leader else first
            probability = self._calibration.probability(own, self._calibration.margin(own, rival))
            n_inliers = self._n_inliers(c)
            results.append(Match(c.image_id, row.name, row.landmark, score, probability, n_inliers, c.similarity))
        return results
