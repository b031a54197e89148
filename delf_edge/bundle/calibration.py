"""From evidence to a score and a probability, with weights that a bundle brings along.

::

    score       = votes * sqrt(votes per query feature) + similarity * cosine
                  + inliers * max(0, log((1 + n) / (1 + floor)))
    margin      = score - max(the best score of another landmark, strangers)
    probability = sigmoid(bias + slope * score + margin_slope * margin - cohort_slope * strangers
                          - size_slope * log(min(photos stored, 300)) - photos_slope * log(photos of the landmark))

`floor` is the number of inliers that RANSAC finds between strangers, so that a verified stranger gains nothing over
an image that was not verified. `strangers` is what the query reaches among the coded photos of nobody's places that the
bundle has with it (`cohort`): where one or two landmarks are stored, a lead over nothing would prove nothing, and what
looks like everything must lead by more. It is the second best score there, for the best photo of the cohort may by
chance show the very place that was asked for. A bundle without a cohort has the score of one vote in a hundred and a
cosine of 0.25 in its place, which is what the best of another landmark reaches for half of all strangers in a database
of 30 places. The more photos are stored, and the more of them show one landmark, the higher the best of many chances
scores for a stranger; the two logarithms take that away again, so that one threshold holds for a database of one photo
and for one of many thousands. Beyond 300 photos more of them lift the best of another landmark as much, and the lead
over it no further. The weights are fitted on places that are left out in turn (`python -m benchmarks.honest`), the
threshold is set there for at most 1 % of strangers named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from delf_edge.errors import BundleError

_OTHER_VOTES, _OTHER_COSINE = 0.01, 0.25  # what strangers reach, where a bundle has no cohort
_FEW = 300  # photos, see the module


@dataclass(frozen=True, slots=True)
class Calibration:
    """Weights of the score and of the probability; see the module.

    Attributes:
        votes, similarity, inliers: weights of the three kinds of evidence.
        floor: inliers that say nothing.
        bias, slope, margin_slope: of the logistic function.
        threshold: probability from which on a landmark is named.
        expansion: images proven by RANSAC that enter query expansion when a database is ranked; 0 switches it off.
        alpha: exponent of their weight, similarity ** alpha.
        support: images most like an image that stand up for it when a database is ranked; 0 switches it off. Neither
            of the two changes a probability, which speaks of the evidence for the image itself (see `expansion`).
        cohort_slope: what the score of strangers takes from the logit of the probability.
        size_slope, photos_slope: what the logarithms of the number of photos that were searched, 300 at most, and of
            those that show the landmark, take from it.
        landmark: weight of the best score of an image's landmark, when a database is ranked: what is known of one photo
            of a place speaks for its others. It changes no probability either; 0 ranks every image by itself.
    """

    votes: float = 4.0
    similarity: float = 1.0
    inliers: float = 1.0
    floor: float = 8.0
    bias: float = -4.0
    slope: float = 2.5
    margin_slope: float = 1.5
    threshold: float = 0.5
    expansion: int = 0
    alpha: float = 3.0
    support: int = 0
    cohort_slope: float = 0.0
    landmark: float = 0.0
    size_slope: float = 0.0
    photos_slope: float = 0.0

    @classmethod
    def from_mapping(cls, values: Mapping[str, object]) -> Calibration:
        """From the `calibration` object of a bundle's manifest; what it leaves out has its default.

        Raises:
            BundleError: an unknown name, or a value that is no finite number.
        """
        known = {f.name: f.type for f in fields(cls)}
        numbers: dict[str, float] = {}
        for name, value in values.items():
            if name not in known:
                raise BundleError(f"calibration has {name!r}; this SDK knows {', '.join(known)}; update delf-edge")
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise BundleError(f"calibration {name} is {value!r}; expected a finite number")
            numbers[name] = int(value) if name in ("expansion", "support") else float(value)
        return cls(**numbers)  # type: ignore[arg-type]

    def score(self, votes_per_feature: float, similarity: float, n_inliers: int) -> float:
        """Score of one stored image; higher is better."""
        found = max(0.0, math.log((1 + n_inliers) / (1 + self.floor)))
        return self.votes * math.sqrt(max(0.0, votes_per_feature)) + self.similarity * similarity + self.inliers * found

    def strangers(self, scores: Sequence[float]) -> float:
        """What strangers reach, from the scores of a cohort's photos; of none, a constant (see the module)."""
        if not scores:
            return self.score(_OTHER_VOTES, _OTHER_COSINE, 0)
        return sorted(scores, reverse=True)[min(1, len(scores) - 1)]

    def margin(self, score: float, rival: float, strangers: float | None = None) -> float:
        """Lead of a score over the best one of another landmark and over strangers.

        Args:
            score: of an image.
            rival: the best score of another landmark; 0 or -inf where there is no other.
            strangers: see `strangers`; None: there is no cohort.
        """
        return score - max(rival, self.strangers(()) if strangers is None else strangers)

    def logit(
        self, score: float, margin: float, strangers: float | None = None, *, searched: int = 1, of_landmark: int = 1
    ) -> float:
        """Log odds that an image with this score shows the query's place.

        Args:
            score: of the image.
            margin: see `margin`.
            strangers: as for `margin`.
            searched: photos that were searched.
            of_landmark: those of them that show the image's landmark.
        """
        x = self.bias + self.slope * score + self.margin_slope * margin
        x -= self.cohort_slope * (self.strangers(()) if strangers is None else strangers)
        x -= self.size_slope * math.log(min(max(1, searched), _FEW))
        return x - self.photos_slope * math.log(max(1, of_landmark))

    def probability(
        self, score: float, margin: float, strangers: float | None = None, *, searched: int = 1, of_landmark: int = 1
    ) -> float:
        """Probability that an image with this score shows the query's place, 0..1; the arguments as for `logit`."""
        x = self.logit(score, margin, strangers, searched=searched, of_landmark=of_landmark)
        return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
