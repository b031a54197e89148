"""From evidence to a score and a probability, with weights that a bundle brings along.

::

    score       = votes * sqrt(votes per query feature) + similarity * cosine
                  + inliers * max(0, log((1 + n) / (1 + floor)))
    margin      = score - the best score of another landmark
    probability = sigmoid(bias + slope * score + margin_slope * margin)

`floor` is the number of inliers that RANSAC finds between strangers, so that a verified stranger gains nothing over
an image that was not verified. The best score of another landmark counts as that of an image with one vote in a
hundred and a cosine of 0.25 at least, which is what it is for half of all strangers in a database of 30 places: where
one or two are stored, a lead over nothing would prove nothing. The weights are fitted on training photos of places that
the network never saw (`python -m benchmarks.calibrate`), the threshold is set there for at most 1 % of strangers named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from delf_edge.errors import BundleError

_OTHER_VOTES, _OTHER_COSINE = 0.01, 0.25  # of the best image of another landmark, at least (`benchmarks.few_places`)


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

    def margin(self, score: float, rival: float) -> float:
        """Lead of a score over the best one of another landmark; 0 or -inf where there is no other."""
        return score - max(rival, self.score(_OTHER_VOTES, _OTHER_COSINE, 0))

    def probability(self, score: float, margin: float) -> float:
        """Probability that an image with this score shows the query's place, 0..1."""
        x = self.bias + self.slope * score + self.margin_slope * margin
        return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
