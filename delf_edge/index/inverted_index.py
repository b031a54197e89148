"""Which stored images may show the query's place: inverted lists in RAM, asymmetric distances, votes.

The lists (`lists.py`) are derived from the store. A change publishes a new content at once, so a search sees an image
whole or not at all, and never waits. A search scores the lists of the query's words, lets the nearest features vote
(`scan.py`), and adds the global descriptors::

    score_i = sqrt(votes_i / N_q) + global_weight * similarity_i

An index follows one `Source`: a store, or several that show themselves as one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from delf_edge import native
from delf_edge.arrays import l2_normalise
from delf_edge.errors import OptionError
from delf_edge.index.index_file import index_path, read_index, write_index
from delf_edge.index.inverted_lists import MAX_SEGMENT, State
from delf_edge.index.scoring import asmk, count_votes, global_similarity, neighbours, weigh
from delf_edge.index.slots import Slots
from delf_edge.quantization.coarse_quantizer import CoarseIndex
from delf_edge.quantization.product_quantizer import CodeBatch, CodeLayout, decode_global, inner_product_tables
from delf_edge.types import Candidate, Changes, Codebook, Features, Float32Array, Float64Array, Int32Array

DEAD_SHARE = 0.25  # of dead features, from which on lists are rewritten
WORTH_SAVING = 300_000  # features; fewer are read from the store in a moment
STALE_SHARE = 0.1  # of images read anew, from which on the file of the index is written again
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
        scoring: "votes", the paper's, or "asmk", aggregated residuals per word (see `scan`); a bundle's calibration is
            made for "votes". What is said of neighbours and votes is of that alone.
        alpha, tau: exponent and threshold of "asmk".
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


class Source(Protocol):
    """What an index reads of a store; see `Store` for what each gives."""

    layout: CodeLayout

    def revision(self) -> int:
        """Changes with the content."""

    def changes(self, since: int) -> Changes:
        """What happened after a revision."""

    def code_batches(self, image_ids: Sequence[int] | None = None, *, size: int = ...) -> Iterator[CodeBatch]:
        """Codes of many images, with their marks."""

    def fingerprints(self) -> tuple[int, NDArray[np.int64], NDArray[np.uint32]]:
        """The revision, and ids and marks of all images as of then."""


class CandidateIndex:
    """Searchable content of a store; may be changed in one thread while others search.

    Args:
        layout: sizes of the codes.
    """

    def __init__(self, layout: CodeLayout) -> None:
        self.layout = layout
        self.revision = -1
        self._lock = threading.Lock()  # of writers
        self._refresh_lock = threading.Lock()
        self._adopt(State.empty(layout))

    @classmethod
    def from_store(cls, store: Source, *, database: Path | None = None, uuid: str = "") -> CandidateIndex:
        """An index of everything readable in a store.

        Args:
            store: what to index.
            database: the database file, beside which the index of an earlier start may lie (`index_path`). What it
                says of an image is used only where the image's row is still the same, to its checksum; the rest is
                read from the store. The file is written anew where that was much, with the permissions of the
                database, and may be deleted at any time. None: no file.
            uuid: of the database, which the file bears too; needed with `database`.
        """
        index = cls(store.layout)
        if database is None:
            index._reconcile(store)
            return index
        state = read_index(index_path(database), uuid, store.layout)
        if state is not None:
            index._adopt(state)
        n_read = index._reconcile(store)
        if n_read > STALE_SHARE * index.n_images and index.n_features >= WORTH_SAVING:
            index.save(database, uuid)
        return index

    def moved_to(self, store: Source) -> CandidateIndex:
        """An index of another store, made from this one; images that are the same there are not read again."""
        index = CandidateIndex(self.layout)
        index._adopt(self._state)
        index._reconcile(store)
        return index

    def save(self, database: Path, uuid: str) -> bool:
        """Write the index beside the database for the next start; returns whether that worked. Failing is no error."""
        return write_index(index_path(database), uuid, self.layout, self._state, like=database)

    @property
    def state(self) -> State:
        """The content as it is now; it never changes."""
        return self._state

    def _adopt(self, state: State) -> None:
        self._state = state
        slots = np.flatnonzero(state.alive)
        self._slots = Slots(state.image_ids[slots], slots)

    def refresh(self, store: Source) -> bool:
        """Take over what changed in the store since the last call, by whichever process.

        Returns:
            Whether anything had changed.
        """
        with self._refresh_lock:  # else an older change could be applied after a newer one
            since = self.revision
            if since >= 0 and store.revision() == since:
                return False
            changes = store.changes(max(since, 0))
            if since < 0 or not changes.complete:
                self._reconcile(store)
                return True
            self.apply(removed=changes.removed)
            seen: set[int] = set()
            for batch in store.code_batches(changes.updated):
                self.apply(batch)
                seen.update(batch.image_ids.tolist())
            self.apply(removed=set(changes.updated) - seen)  # changed, and now damaged or gone
            self.revision = changes.revision
            return True

    def _reconcile(self, store: Source) -> int:
        """Bring the index to the store's content whatever it held before; returns how many images were read."""
        revision, ids, marks = store.fingerprints()
        state = self._state
        slots = np.flatnonzero(state.alive)
        slots = slots[np.argsort(state.image_ids[slots])]
        known = state.image_ids[slots]
        at = np.minimum(np.searchsorted(known, ids), max(0, len(known) - 1))
        same = np.zeros(len(ids), np.bool_)
        if len(known):
            same = (known[at] == ids) & (state.marks[slots][at] == marks) & (marks != 0)
        self.apply(removed=np.setdiff1d(known, ids[same]).tolist())
        wanted = ids[~same].tolist()
        for batch in _gathered(store.code_batches(wanted), self.layout):
            self.apply(batch)
        self.revision = revision
        return len(wanted)

    @property
    def n_images(self) -> int:
        """Images that a search can find."""
        return len(self._slots)

    @property
    def n_features(self) -> int:
        """Features in the lists, of removed images too until the next merge."""
        return self._state.n_features

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return self._state.nbytes

    # ------------------------------------------------------------------ changes

    def apply(self, batch: CodeBatch | None = None, *, removed: Iterable[int] = ()) -> None:
        """Add or replace the images of a batch and drop others, as one change.

        Args:
            batch: images to add; an id that is there already is replaced.
            removed: ids to drop; unknown ones are ignored.

        Raises:
            OptionError: the codes are not of this index's layout, or a word is out of range.
        """
        if batch is not None:
            self._check(batch)
        with self._lock:
            state, ids = self._state, [] if batch is None else batch.image_ids.tolist()
            gone = [i for i in {*map(int, removed), *ids} if i in self._slots]
            if gone:
                state = state.without([self._slots.get(i) for i in gone])
            first = len(state.image_ids)
            if batch is not None and ids:
                state = state.extended(batch, self.layout.n_words)
            self._state = state
            self._slots.drop(gone)
            self._slots.put(ids, first)
            if gone:
                self._sweep()

    def _check(self, batch: CodeBatch) -> None:
        M, G, K = self.layout.code_size, self.layout.global_dim, self.layout.n_words
        if batch.codes.shape[1:] != (M,) or batch.global_codes.shape[1:] != (G,):
            raise OptionError(f"codes {batch.codes.shape} and {batch.global_codes.shape} do not fit {self.layout}")
        if len(np.unique(batch.image_ids)) != len(batch.image_ids):
            raise OptionError("a batch names an image twice; apply the two versions one after the other")
        if len(batch.words) and int(batch.words.max()) >= K:
            raise OptionError(f"word {int(batch.words.max())} is out of range: the codebook has {K} words")

    def _sweep(self) -> None:
        """Rewrite lists and number slots anew once enough of them are dead; searches go on meanwhile."""
        state = self._state
        n_slots = len(state.alive)
        many_slots = n_slots - len(self._slots) > max(1000, n_slots // 2)
        if many_slots or state.dead_features() > DEAD_SHARE * (state.n_features + 1):
            for smaller in state.swept(self.layout.n_words):
                self._state = smaller
        if many_slots:
            self._adopt(self._state.renumbered(self.layout.n_words))

    # ------------------------------------------------------------------ search

    def search(
        self,
        features: Features,
        codebook: Codebook,
        coarse: CoarseIndex,
        options: SearchOptions | None = None,
        *,
        without: Sequence[int] = (),
    ) -> list[Candidate]:
        """Candidates for a query; see `search`."""
        return search(self._state, features, codebook, coarse, options, without=without)

    def global_descriptors(self, image_ids: Sequence[int]) -> Float32Array:
        """Global descriptors of images, float32 (n, G), unit L2; zeros for an image that is not in the index."""
        with self._lock:
            state, slots = self._state, np.array([self._slots.get(i) for i in image_ids], np.int64)
        found = l2_normalise(decode_global(state.global_codes[slots])) if len(state.image_ids) else None
        if found is None:
            return np.zeros((len(image_ids), self.layout.global_dim), np.float32)
        found[slots < 0] = 0
        return found


def search(
    state: State,
    features: Features,
    codebook: Codebook,
    coarse: CoarseIndex,
    options: SearchOptions | None = None,
    *,
    without: Sequence[int] = (),
) -> list[Candidate]:
    """Candidates for a query, the best first; equal scores by ascending image id.

    Args:
        state: content of an index, or several `lists.joined`; nothing else is looked at.
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
    options = options or SearchOptions()
    if features.descriptors.shape[1] != codebook.dim:
        raise OptionError(f"descriptors {features.descriptors.shape}; the codebook has dimension {codebook.dim}")
    if len(without):
        state = state.hiding(without)
    similarity = global_similarity(state, features.global_descriptor)
    votes = _votes(state, features, codebook, coarse, options)
    score = np.sqrt(votes / max(len(features), 1)) + options.global_weight * similarity
    found = np.flatnonzero(state.alive & ((votes > 0) | (similarity > 0)))
    if len(found) > options.top:
        worst = np.partition(score[found], -options.top)[-options.top]
        found = found[score[found] >= worst]
    found = found[np.lexsort((state.image_ids[found], -score[found]))][: options.top]
    return [Candidate(int(state.image_ids[i]), float(score[i]), float(votes[i]), float(similarity[i])) for i in found]


def _votes(state: State, features: Features, codebook: Codebook, coarse: CoarseIndex, o: SearchOptions) -> Float64Array:
    """float64 (S,), votes of every slot."""
    queries = features.descriptors
    if not len(queries) or not state.segments:
        return np.zeros(len(state.image_ids))
    words, base = coarse.assign(queries, o.probes(state.n_features, codebook.n_words))
    if o.scoring == "asmk":
        return asmk(state, queries, words, codebook, alpha=o.alpha, tau=o.tau)
    hits = _neighbours(state, queries, words, base, codebook, o)
    hits = weigh(
        hits,
        features.scores,
        k=o.k_neighbours,
        min_similarity=o.min_similarity,
        reference=o.reference,
        power=o.power,
        exponent=o.attention,
    )
    return count_votes(state, hits, burst=o.burst, length_norm=o.length_norm)


def _neighbours(
    state: State, queries: Float32Array, words: Int32Array, base: Float32Array, codebook: Codebook, o: SearchOptions
) -> native.Hits:
    """`scan.neighbours` of all queries, some at a time: the tables of all of them would not stay in the cache."""
    found = []
    for i in range(0, len(queries), _TABLES):
        part = slice(i, i + _TABLES)
        tables = inner_product_tables(queries[part], codebook)
        query, *rest = neighbours(state, words[part], base[part], tables, o.k_neighbours, o.min_similarity)
        found.append((query + i, *rest))
    query, slot, feature, score = (np.concatenate(column) for column in zip(*found, strict=True))
    return query, slot, feature, score


def _gathered(batches: Iterator[CodeBatch], layout: CodeLayout) -> Iterator[CodeBatch]:
    """Batches joined to whole segments, so that a first load sorts every feature once."""
    waiting: list[CodeBatch] = []
    for batch in batches:
        if waiting and sum(len(b.words) for b in waiting) + len(batch.words) > MAX_SEGMENT:
            yield CodeBatch.join(waiting, layout)
            waiting = []
        waiting.append(batch)
    if waiting:
        yield CodeBatch.join(waiting, layout)
