"""A codebook fitted on a cluster: a seeded sample of photos, and the statistics of its shards.

::

    manifest -> photos of the sample -> shards of raw features -> moments -> projection
                                                              -> projected rows -> Lloyd steps -> words, codes

The sample is a function of the manifest, the seed and the limits. A shard's statistics (moments; counts and sums of a
Lloyd step; outer products with the codes) are pure functions of the shard, and they are added up in the order of the
shards. So the codebook is the same to the bit for any number of workers, killed ones included. The rows stay on the
workers; what a dying one held is made again from the shards' files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from distributed import Client
from distributed.scheduler import KilledWorker

from delf_edge.arrays import unit
from delf_edge.codebooks.fit import CodebookOptions, Fit, automatic_words, quantise
from delf_edge.codebooks.projections import Moments, Projection, moments_of, pca, project
from delf_edge.distributed.cluster import result_of
from delf_edge.distributed.raw_features import read_features
from delf_edge.errors import BuildError
from delf_edge.interchange.photo_entry import PhotoEntry
from delf_edge.types import Codebook, Float32Array

_R = TypeVar("_R")
_RETRIES = 2  # of a task that raises, such as for a file server that is down for a moment
_POOLED = 1024  # pooled vectors that the report is made with, about


def choose(rows: Iterable[PhotoEntry], n: int, per_landmark: int, seed: int) -> list[PhotoEntry]:
    """A random sample of a manifest in its order, whatever that is, and in memory for about 2 n rows.

    Args:
        rows: the manifest.
        n: photos at most.
        per_landmark: photos of one landmark at most.
        seed: another one gives another sample.
    """
    kept: list[tuple[bytes, PhotoEntry]] = []
    rows = iter(rows)
    while more := [(_key(row, seed), row) for row in islice(rows, n)]:
        # What is dropped here stays dropped: a later row only ever takes the place of one with a larger key.
        kept = _smallest(sorted(kept + more, key=lambda pair: (pair[0], pair[1].row)), n, per_landmark)
    return sorted((row for _, row in kept), key=lambda row: row.row)


def _key(row: PhotoEntry, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\0{row.name}".encode()).digest()


def _smallest(pairs: Iterable[tuple[bytes, PhotoEntry]], n: int, per_landmark: int) -> list[tuple[bytes, PhotoEntry]]:
    taken: dict[str, int] = {}
    kept: list[tuple[bytes, PhotoEntry]] = []
    for key, row in pairs:
        if len(kept) < n and taken.get(row.landmark, 0) < per_landmark:
            taken[row.landmark] = taken.get(row.landmark, 0) + 1
            kept.append((key, row))
    return kept


@dataclass(frozen=True, slots=True)
class _Box:
    """Something that Dask shall not look into: it takes a tuple of a function and values for a task."""

    content: Any


def _open(box: _Box) -> Any:
    return box.content


def _apply_own(function: Callable[[Any, Any], _R], part: Any, argument: Any, own: _Box) -> _R:
    return function(part, (argument, own.content))


class ClusterParts:
    """Rows that workers hold (`codebooks.partitions.Parts`).

    Args:
        client: of the cluster.
        futures: of the rows of each part.
    """

    def __init__(self, client: Client, futures: Sequence[Any]) -> None:
        self._client, self._futures = client, list(futures)
        self._sizes: list[int] | None = None

    def sizes(self) -> Sequence[int]:
        """See `Parts`."""
        if self._sizes is None:
            self._sizes = list(self.map(_n_rows, None))
        return self._sizes

    def map(
        self, function: Callable[[Float32Array, Any], _R], argument: Any, each: Sequence[Any] | None = None
    ) -> Iterator[_R]:
        """See `Parts`; what is not asked for yet waits on the workers.

        Raises:
            BuildError: the cluster is gone, or a part has cost several workers.
        """
        yield from in_order(self._client, self._submit(function, argument, each))

    def derive(
        self, function: Callable[[Float32Array, Any], Float32Array], argument: Any, each: Sequence[Any] | None = None
    ) -> ClusterParts:
        """See `Parts`."""
        return ClusterParts(self._client, self._submit(function, argument, each))

    def _submit(self, function: Callable[[Any, Any], Any], argument: Any, each: Sequence[Any] | None) -> list[Any]:
        value = self._client.submit(_open, _Box(argument), pure=False)  # sent once, and made again if it is lost
        if each is None:
            return [self._client.submit(function, f, value, pure=False, retries=_RETRIES) for f in self._futures]
        return [
            self._client.submit(_apply_own, function, f, value, _Box(own), pure=False, retries=_RETRIES)
            for f, own in zip(self._futures, each, strict=True)
        ]


def in_order(client: Client, futures: list[Any]) -> Iterator[Any]:
    """Results one by one, each forgotten by the cluster once it is here.

    Raises:
        BuildError: the cluster is gone, or a task has cost several workers.
    """
    futures.reverse()
    while futures:
        try:
            yield result_of(client, futures.pop())
        except KilledWorker as e:
            raise BuildError(
                f"a part of the fit has cost several workers ({e}); start it again with more memory"
            ) from e


def fit_shards(
    client: Client, urls: Sequence[str], like: Codebook, options: CodebookOptions, report: Callable[[str], None]
) -> Fit:
    """Fit a codebook to shards of raw features.

    Args:
        client: of the cluster.
        urls: files of the shards, in order.
        like: codebook whose number of words is taken where `options.n_words` is 0 and there are enough descriptors.
        options: what to fit; the projection is a PCA.
        report: called with a line per step.

    Raises:
        BuildError: the photos have given too little, or the cluster fails.
    """
    report("moments of the descriptors")
    moments = _merged(in_order(client, [client.submit(_local_moments, url, retries=_RETRIES) for url in urls]))
    if moments is None:
        raise BuildError("no photo of the sample gave a feature; bad.csv of the work folder says why")
    try:
        projection = pca(moments, options.dim, options.whiten)
        sample = _sample(client, urls, projection, options.sample / moments.n, options.seed)
        n = sum(sample.sizes())
        words = options.n_words or min(like.n_words, automatic_words(n))
        report(f"{moments.n} descriptors, {n} of them sampled: {words} words and codes")
        settled = replace(options, n_words=words)
        pooled = in_order(client, [client.submit(_pooled_moments, url, retries=_RETRIES) for url in urls])
        global_moments = _merged(pooled)
        assert global_moments is not None  # a photo with features has a pooled vector
        return quantise(sample, moments, projection, global_moments, _some_pooled(client, urls), settled)
    except ValueError as e:
        raise BuildError(f"the sample is too small: {e}") from e


def _merged(parts: Iterable[Moments | None]) -> Moments | None:
    total: Moments | None = None
    for part in parts:
        if total is None:
            total = part
        elif part is not None:
            total.merge(part)
    return total


def _sample(client: Client, urls: Sequence[str], projection: Projection, share: float, seed: int) -> ClusterParts:
    """Projected rows of every shard, each row with the same chance, by the shard's own random numbers."""
    shared = client.submit(_open, _Box(projection), pure=False)
    return ClusterParts(
        client,
        [
            client.submit(_sampled, url, shared, share, _Box((seed, number)), pure=False, retries=_RETRIES)
            for number, url in enumerate(urls)
        ],
    )


def _some_pooled(client: Client, urls: Sequence[str]) -> Float32Array:
    found: list[Float32Array] = []
    for url in urls:
        found += in_order(client, [client.submit(_pooled, url, retries=_RETRIES)])
        if sum(map(len, found)) >= _POOLED:
            break
    return np.concatenate([rows for rows in found if len(rows)])


# -- on the workers ------------------------------------------------------------------------------------------------


def _n_rows(x: Float32Array, _: None) -> int:
    return len(x)


def _local_moments(url: str) -> Moments | None:
    found = read_features(url)
    return None if found is None else moments_of([unit(found[0])])


def _pooled_moments(url: str) -> Moments | None:
    found = read_features(url)
    return None if found is None else moments_of([unit(found[1])])


def _pooled(url: str) -> Float32Array:
    found = read_features(url)
    return np.zeros((0, 0), np.float32) if found is None else found[1]


def _sampled(url: str, projection: Projection, share: float, seeds: _Box) -> Float32Array:
    found = read_features(url)
    if found is None:
        return np.zeros((0, len(projection[1])), np.float32)
    chosen = np.random.default_rng(seeds.content).random(len(found[0])) < share
    return project(found[0][chosen], *projection)
