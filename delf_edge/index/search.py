"""Which stored images may show the query's place: the lists of its words, asymmetric distances, votes.

A search scores the lists of the query's words, lets the nearest features vote (`scoring`), and adds the global
descriptors::

    score_i = sqrt(votes_i / N_q) + global_weight * similarity_i

It looks at nothing but one `IndexSnapshot`, so it sees every image whole or not at all, whatever changes meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from delf_edge.errors import OptionError
from delf_edge.index.asmk import asmk
from delf_edge.index.inverted_lists import IndexSnapshot
from delf_edge.index.scoring import count_votes, global_similarity, neighbours, weigh
from delf_edge.native import Hits
from delf_edge.quantization.coarse_quantizer import CoarseIndex
from delf_edge.quantization.product_quantizer import inner_product_tables
from delf_edge.types import Candidate, Codebook, Features, Float32Array, Float64Array, Int32Array

_LOOKED_AT = 1200  # stored features per query feature, see `SearchOptions.n_probe`
_LEAST_PROBES, _MOST_PROBES = 8, 32
_TABLES = 32  # query features whose tables are made at a time, of 16 KB each at 16 bytes a code


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """How candidates are found.

    Attributes:
        n_probe: P, words looked up per query feature; None takes as many as hold about 1,200 stored features, from 8
            to 32. Words far from the query hold few of its neighbours, but in a small database they cost nothing.
        k_neighbours: K, nearest stored features that vote per query feature.
        top: candidates returned at most.
        min_similarity: 0..1, similarity from which on a stored feature votes.
        power: exponent of the vote's weight; 0 counts votes, as the paper does.
        reference: 0..1, how far the similarity that weighs nothing moves from `min_similarity` towards that of the K-th
            neighbour; 0 leaves it there.
        attention: exponent of the query feature's own score, by which its vote is weighed; 0 makes all equal.
        burst: divide a vote by the square root of the number of query features that vote for the same stored feature
            (Jegou et al., CVPR 2009).
        length_norm: divide an image's votes by the square root of its number of features.
        global_weight: weight of the global descriptors' cosine beside the square root of the votes per query feature.
        scoring: "votes", the paper's, or "asmk", aggregated residuals per word (see `asmk`); a bundle's calibration is
            made for "votes". What is said of neighbours and votes is of that alone.
        alpha, tau: exponent and threshold of "asmk".
        exact_words: compare the query with every word even where the bundle has a graph over them. A graph misses one
            or two words of a hundred, mostly the farthest of those that are looked up.
    """

    n_probe: int | None = None
    k_neighbours: int = 50
    top: int = 50
    min_similarity: float = 0.3
    power: float = 1.5
    reference: float = 0.6
    attention: float = 1.0
    burst: bool = True
    length_norm: bool = False
    global_weight: float = 0.25
    scoring: Literal["votes", "asmk"] = "votes"
    alpha: float = 3.0
    tau: float = 0.0
    exact_words: bool = False

    def __post_init__(self) -> None:
        if min(1 if self.n_probe is None else self.n_probe, self.k_neighbours, self.top) < 1:
            raise OptionError(f"n_probe, k_neighbours and top must be at least 1: {self}")
        if not (0 <= self.min_similarity < 1 and self.power >= 0 and self.global_weight >= 0):
            raise OptionError(f"min_similarity must be in [0, 1), power and global_weight not negative: {self}")
        if not (0 <= self.reference <= 1 and self.attention >= 0):
            raise OptionError(f"reference must be in [0, 1], attention not negative: {self}")
        if self.scoring not in ("votes", "asmk") or self.alpha < 1 or not 0 <= self.tau < 1:
            raise OptionError(f"scoring must be 'votes' or 'asmk', alpha at least 1, tau in [0, 1): {self}")

    def probes(self, n_features: int, n_words: int) -> int:
        """Words looked up per query feature in an index of `n_features` features."""
        if self.n_probe is not None:
            return self.n_probe
        return int(np.clip(_LOOKED_AT * n_words // max(n_features, 1), _LEAST_PROBES, _MOST_PROBES))


def search(
    snapshot: IndexSnapshot,
    features: Features,
    codebook: Codebook,
    coarse: CoarseIndex,
    options: SearchOptions | None = None,
    *,
    without: Sequence[int] = (),
) -> list[Candidate]:
    """Candidates for a query, the best first; equal scores by ascending image id.

    Args:
        snapshot: content of an index, nothing else is looked at.
        features: the query's N features; none is ordinary, and leaves the global descriptor to decide.
        codebook: codebook of the stored codes.
        coarse: index of its centroids.
        options: see `SearchOptions`.
        without: ids of images that this query does not see: no candidates, no neighbours.

    Returns:
        At most `options.top` candidates that have a vote or a positive similarity.

    Raises:
        OptionError: the features' dimensions are not the codebook's.
    """
    return search_beside(snapshot, None, features, codebook, coarse, options, without=without)[0]


def search_beside(
    snapshot: IndexSnapshot,
    strangers: IndexSnapshot | None,
    features: Features,
    codebook: Codebook,
    coarse: CoarseIndex,
    options: SearchOptions | None = None,
    *,
    without: Sequence[int] = (),
) -> tuple[list[Candidate], list[Candidate]]:
    """`search` with the features of other images among those that may be neighbours and vote.

    Args:
        snapshot: content of an index.
        strangers: content of another, which is no part of the database; None: as `search`.
        features, codebook, coarse, options, without: as for `search`.

    Returns:
        The candidates, and the strangers in the same form and order, at most `options.top` of each.

    Raises:
        OptionError: the features' dimensions are not the codebook's.
    """
    options = options or SearchOptions()
    if features.descriptors.shape[1] != codebook.dim:
        raise OptionError(f"descriptors {features.descriptors.shape}; the codebook has dimension {codebook.dim}")
    if len(without):
        snapshot = snapshot.hiding(without)
    everything = snapshot if strangers is None else snapshot.beside(strangers)
    votes = _votes(everything, features, codebook, coarse, options)
    n = len(snapshot.image_ids)
    candidates = _best(snapshot, votes[:n], features, options)
    return candidates, [] if strangers is None else _best(strangers, votes[n:], features, options)


def _best(snapshot: IndexSnapshot, votes: Float64Array, features: Features, options: SearchOptions) -> list[Candidate]:
    similarity = global_similarity(snapshot, features.global_descriptor)
    score = np.sqrt(votes / max(len(features), 1)) + options.global_weight * similarity
    found = np.flatnonzero(snapshot.alive & ((votes > 0) | (similarity > 0)))
    if len(found) > options.top:
        worst = np.partition(score[found], -options.top)[-options.top]
        found = found[score[found] >= worst]
    found = found[np.lexsort((snapshot.image_ids[found], -score[found]))][: options.top]
    return [
        Candidate(int(snapshot.image_ids[i]), float(score[i]), float(votes[i]), float(similarity[i])) for i in found
    ]


def _votes(
    snapshot: IndexSnapshot, features: Features, codebook: Codebook, coarse: CoarseIndex, o: SearchOptions
) -> Float64Array:
    """float64 (S,), votes of every slot."""
    queries = features.descriptors
    if not len(queries) or not snapshot.segments:
        return np.zeros(len(snapshot.image_ids))
    n_probe = o.probes(snapshot.n_features, codebook.n_words)
    words, base = coarse.assign(queries, n_probe, exact=o.exact_words)
    if o.scoring == "asmk":
        return asmk(snapshot, queries, words, codebook, alpha=o.alpha, tau=o.tau)
    weighted = weigh(
        _neighbours(snapshot, queries, words, base, codebook, o),
        features.scores,
        k=o.k_neighbours,
        min_similarity=o.min_similarity,
        reference=o.reference,
        power=o.power,
        exponent=o.attention,
    )
    return count_votes(snapshot, weighted, burst=o.burst, length_norm=o.length_norm)


def _neighbours(
    snapshot: IndexSnapshot,
    queries: Float32Array,
    words: Int32Array,
    base: Float32Array,
    codebook: Codebook,
    o: SearchOptions,
) -> Hits:
    """`scoring.neighbours` of all queries, some at a time: the tables of all of them would not stay in the cache."""
    found = []
    for i in range(0, len(queries), _TABLES):
        part = slice(i, i + _TABLES)
        tables = inner_product_tables(queries[part], codebook)
        hits = neighbours(snapshot, words[part], base[part], tables, o.k_neighbours, o.min_similarity)
        found.append(hits._replace(query=hits.query + i))
    return Hits.join(found)
