"""From features to an answer, a ranking, or an explanation: what is done for a query once its features are there.

::

    features -> Candidates -> Verifications -> CandidateRanking -> Answer

Candidates come in the order of their score before verification. They are verified in that order until the best is
certain, the deadline is over, or enough were checked.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from delf_edge.bundle.bundle import Bundle
from delf_edge.bundle.calibration import Calibration
from delf_edge.bundle.cohort import Cohort
from delf_edge.errors import OptionError, StoreError
from delf_edge.index.inverted_index import InvertedIndex
from delf_edge.index.inverted_lists import IndexSnapshot
from delf_edge.index.search import search_beside
from delf_edge.packs.live import LivePacks
from delf_edge.quantization.coarse_quantizer import CoarseIndex
from delf_edge.quantization.packed_codes import CodeBatch, CodeLayout
from delf_edge.quantization.product_quantizer import TurnedDecoder
from delf_edge.query.options import RANKING, IdentifyOptions
from delf_edge.query.ranking import CandidateRanking
from delf_edge.storage.combined import CombinedStore
from delf_edge.storage.records import StoredImage
from delf_edge.timing import clock
from delf_edge.types import Answer, Candidate, Codes, Features, Float32Array, Image, Match, Verification
from delf_edge.verification import verify

_READ_AHEAD = 8  # candidates whose codes are read at a time


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """The proof of an answer.

    Attributes:
        answer: what `identify` returns.
        image: the decoded query; keypoints of the query refer to it.
        query_keypoints, stored_keypoints: float32 (P, 2), the inliers, (x, y) in pixels of the query and of the stored
            image; empty where nothing was verified.
        stored: the stored image's row, None where there is no candidate.
    """

    answer: Answer
    image: Image
    query_keypoints: Float32Array
    stored_keypoints: Float32Array
    stored: StoredImage | None


class LookedUp(NamedTuple):
    """What the index knows of a query.

    Attributes:
        candidates: in the order of their score before verification.
        strangers: images of the bundle's cohort, in the same order.
        searched: photos that were searched.
    """

    candidates: list[Candidate]
    strangers: list[Candidate]
    searched: int


class QueryPipeline:
    """Answers queries whose features are there. It keeps nothing of a query, so threads may share it.

    Args:
        bundle: the loaded model.
        coarse: index of its centroids.
        packs: what is searched; inside `packs.pin()` every stage sees the same.

    Attributes:
        calibration: the bundle's weights.
    """

    def __init__(self, bundle: Bundle, coarse: CoarseIndex, packs: LivePacks) -> None:
        self.calibration = Calibration.from_mapping(bundle.calibration)
        self._codebook, self._coarse, self._decoder = bundle.codebook, coarse, TurnedDecoder(bundle.codebook)
        self._packs = packs
        self._cohort = None if bundle.cohort is None else _snapshot(bundle.cohort, CodeLayout.of(bundle.codebook))

    @property
    def index(self) -> InvertedIndex:
        """The lists that are searched."""
        return self._packs.now.index

    @property
    def _shelf(self) -> CombinedStore:
        return self._packs.now.store

    def answer(
        self,
        features: Features,
        options: IdentifyOptions | None = None,
        *,
        top: int = 5,
        deadline_ms: float | None = None,
        timings: dict[str, float] | None = None,
    ) -> Answer:
        """What `Recognizer.identify` returns; `timings` holds what extracting the features took."""
        if isinstance(top, bool) or not isinstance(top, int) or top < 1:
            raise OptionError(f"top is {top!r}; it must be a whole number, at least 1")
        if deadline_ms is not None and not (isinstance(deadline_ms, int | float) and deadline_ms >= 0):
            raise OptionError(f"deadline_ms is {deadline_ms!r}; it must be a number and not negative")
        options, timings = options or IdentifyOptions(), {} if timings is None else timings
        began = time.perf_counter() - sum(timings.values()) / 1000
        with clock(timings, "refresh"):
            self.index.refresh(self._shelf)
        with clock(timings, "candidates"):
            looked_up = self.look_up(features, options, options.search.top)
        candidates, ranking = looked_up.candidates, self.ranking(features, looked_up)
        cut = False
        with clock(timings, "verify"):
            shortlist = candidates[: options.verify]
            for done, (candidate, verification) in enumerate(self.verified(features, shortlist, options), 1):
                ranking.add(candidate, verification)
                if done == len(shortlist):
                    break
                if deadline_ms is not None and (time.perf_counter() - began) * 1000 > deadline_ms:
                    cut = True
                    break
                if done % 3 == 0 and ranking.is_certain(options.certain, options.min_inliers):
                    break
        results = [self._bounded(r, options.min_inliers) for r in _one_per_landmark(ranking.results(top))[:top]]
        timings["total"] = (time.perf_counter() - began) * 1000
        suffix = "; checking was cut short by the deadline" if cut else ""
        if not results:
            why = "the photo has no features" if not len(features) else "the database has no image like it"
            return Answer(None, None, 0.0, 0, why + suffix, milliseconds=timings)
        best = results[0]
        found, why = self._judged(best, options.min_inliers)
        info = None
        if found:
            from delf_edge.catalogue.reader import CatalogueReader

            with suppress(StoreError):  # the catalogue is damaged: the place is known all the same
                info = CatalogueReader(self._shelf.stores).info(best.landmark, options.languages)
        return Answer(
            best.landmark if found else None,
            best.name if found else None,
            best.probability,
            best.n_inliers,
            why + suffix,
            tuple(results),
            ranking.checked.get(best.image_id),
            timings,
            info,
        )

    def _bounded(self, result: Match, min_inliers: int) -> Match:
        """A result whose probability says no more than its points: alike at a glance is no proof.

        The calibration is fitted on scores in which the global descriptor alone may be enough. Without `min_inliers`
        points nothing is named, so the probability is at most their share of the threshold.
        """
        if result.n_inliers >= min_inliers:
            return result
        most = self.calibration.threshold * result.n_inliers / min_inliers
        return replace(result, probability=max(0.0, min(result.probability, most)))

    def _judged(self, best: Match, min_inliers: int) -> tuple[bool, str]:
        """Whether the best image is the answer, and why."""
        threshold = self.calibration.threshold
        points = f"{best.n_inliers} matched point{'' if best.n_inliers == 1 else 's'}"
        if best.n_inliers < min_inliers:
            return False, f"the best image, {best.name}, has {points}; {min_inliers} points are needed"
        evidence = f"{points}, probability {best.probability:.2f}"
        if best.probability >= threshold:
            return True, f"{evidence}, threshold {threshold:.2f}"
        return False, f"the best image, {best.name}, has {evidence}, below the threshold {threshold:.2f}"

    def rank(self, features: Features, top_k: int, options: IdentifyOptions | None = None) -> list[Match]:
        """What `Recognizer.rank` returns."""
        if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1:
            raise OptionError(f"top_k is {top_k!r}; it must be a whole number, at least 1")
        options = options or RANKING
        self.index.refresh(self._shelf)
        looked_up = self.look_up(features, options, top_k)
        candidates, ranking = looked_up.candidates, self.ranking(features, looked_up)
        for candidate, verification in self.verified(features, candidates[: options.verify], options):
            ranking.add(candidate, verification)
        known = self.index.global_descriptors([c.image_id for c in candidates])
        return ranking.results(gain=ranking.expansion_gain(known))[:top_k]

    def explanation(self, answer: Answer, image: Image, features: Features) -> Explanation:
        """An answer with the points that prove it; `features` are those that were asked, of `image`."""
        proof = answer.verification
        proven = [] if proof is None else [proof.image_id]
        codes, stored = self._shelf.codes(proven), self._shelf.images_by_id(proven)
        if proof is None or not codes or not stored:
            nowhere = np.zeros((0, 2), np.float32)
            return Explanation(answer, image, nowhere, nowhere, None)
        ours, theirs = proof.matches[proof.inliers].T
        return Explanation(answer, image, features.keypoints[ours], codes[proof.image_id].keypoints[theirs], stored[0])

    # ------------------------------------------------------------------ the stages

    def candidates(self, features: Features, options: IdentifyOptions, top: int) -> list[Candidate]:
        """At least as many candidates as are verified, in the order of their score before verification."""
        return self.look_up(features, options, top).candidates

    def look_up(self, features: Features, options: IdentifyOptions, top: int) -> LookedUp:
        """What the index knows of a query, before anything is verified."""
        weights = self.calibration
        balance = weights.similarity / weights.votes if weights.votes > 0 else options.search.global_weight
        search = replace(options.search, top=max(top, options.verify, 1), global_weight=balance)
        snapshot, without = self.index.snapshot, self._excluded(options)
        searched = self.index.n_images - len(without)
        found = search_beside(snapshot, self._cohort, features, self._codebook, self._coarse, search, without=without)
        return LookedUp(*found, searched)

    def ranking(self, features: Features, looked_up: LookedUp) -> CandidateRanking:
        """What is known of candidates before any of them is verified."""
        return CandidateRanking(self.calibration, self._shelf, features, *looked_up)

    def _excluded(self, options: IdentifyOptions) -> list[int]:
        """Ids of the images that `near` and `without` rule out."""
        landmarks = set(options.without)
        if options.near is not None:
            places = self._shelf.landmarks()
            landmarks |= {p.name for p in places if not options.near.holds(p.latitude, p.longitude)}
        return [image_id for landmark in sorted(landmarks) for image_id in self._shelf.image_ids(landmark)]

    def verified(
        self, features: Features, candidates: Sequence[Candidate], options: IdentifyOptions
    ) -> Iterator[tuple[Candidate, Verification]]:
        """Check candidates in order; one that vanished or is damaged is passed over."""
        codes: dict[int, Codes] = {}
        turned = replace(features, descriptors=self._decoder.turn(features.descriptors))
        for i, candidate in enumerate(candidates):
            if i % _READ_AHEAD == 0:  # the answer is often certain after a few: do not read them all
                codes = self._shelf.codes([c.image_id for c in candidates[i : i + _READ_AHEAD]])
            stored = codes.get(candidate.image_id)
            if stored is None:
                continue
            descriptors, size = self._decoder.decode(stored), stored.image_size
            yield candidate, verify(candidate.image_id, turned, descriptors, stored.keypoints, size, options.geometry)


def _snapshot(cohort: Cohort, layout: CodeLayout) -> IndexSnapshot:
    """A cohort as something that can be searched; its images are numbered from 0."""
    n = len(cohort)
    batch = CodeBatch(
        np.arange(n),
        cohort.counts.astype(np.int64),
        cohort.words,
        cohort.codes,
        cohort.global_codes,
        np.zeros(n, np.uint32),
    )
    return IndexSnapshot.empty(layout).extended(batch, layout.n_words)


def _one_per_landmark(results: Iterable[Match]) -> list[Match]:
    best: dict[str, Match] = {}
    for result in results:
        best.setdefault(result.landmark, result)
    return list(best.values())
