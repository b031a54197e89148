"""How a query is answered: the options of all its stages in one value."""

from __future__ import annotations

from dataclasses import dataclass, field

from delf_edge.errors import OptionError
from delf_edge.geo import Near
from delf_edge.index.search import SearchOptions
from delf_edge.verification import VerifyOptions


@dataclass(frozen=True, slots=True)
class IdentifyOptions:
    """How a query is answered.

    Attributes:
        search: the candidate stage; its `global_weight` is replaced by the bundle's.
        geometry: the check of one candidate.
        verify: candidates checked at most, best first. What stands at the head of an answer is decided sooner than the
            order of a whole ranking, so `search` and `rank` check 40 where they are given no options.
        certain: stop checking once the best probability is this high and every image left scores lower unverified.
        min_inliers: fewer prove nothing, whatever the probability.
        near: where the photo was taken; landmarks with coordinates outside of it are not candidates.
        without: landmarks that are not candidates.
        turns: where a photo is unknown, look at it turned by 90, 270 and 180 degrees and try the likeliest of these
            (`query.photo`). An unknown photo then takes up to three times as long; after the deadline no turn
            is begun. A camera's frames are never turned.
        anew: where `explain_all` finds no further landmark, take features of the rest of the photo anew. Each part that
            is tried, two at most, takes as long as a photo. Not for a camera.
        languages: of what an answer says of its landmark, tags of BCP 47, the most wanted first.
    """

    search: SearchOptions = field(default_factory=SearchOptions)
    geometry: VerifyOptions = field(default_factory=VerifyOptions)
    verify: int = 20
    certain: float = 0.9
    min_inliers: int = 6
    near: Near | None = None
    without: frozenset[str] = frozenset()
    turns: bool = True
    anew: bool = True
    languages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("verify", "min_inliers"):
            if isinstance(value := getattr(self, name), bool) or not isinstance(value, int):
                raise OptionError(f"{name} is {value!r}; it must be a whole number")
        if self.verify < 0 or self.min_inliers < 0 or not 0 < self.certain <= 1:
            raise OptionError(f"verify and min_inliers must not be negative, certain must be in (0, 1]: {self}")


RANKING = IdentifyOptions(verify=40)  # of `search` and `rank`
