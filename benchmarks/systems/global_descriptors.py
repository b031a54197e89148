"""Global descriptors on a backbone's map: MAC, R-MAC, GeM, with query expansion and database augmentation.

| row | sources |
|---|---|
| MAC | Razavian et al. 2016; the role of siaMAC (Radenovic et al., ECCV 2016) |
| R-MAC | Tolias et al., ICLR 2016; the role of DIR (Gordo et al., IJCV 2017) |
| GeM | Radenovic et al., TPAMI 2018 |
| +QE | average: Chum et al., ICCV 2007; alpha: Radenovic et al. 2018 |
| +DBA | Arandjelovic and Zisserman, CVPR 2012; weighted as in Gordo et al. 2017 |

Each is whitened on training photos. The map comes from a `Backbone`, so the same rows can be run on any bundle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.data.feature_cache import Arrays
from benchmarks.metrics.protocols import Floats
from benchmarks.systems.base import Result, System, unit
from delf_edge.types import Float32Array, UInt8Array


@dataclass(frozen=True, slots=True)
class Backbone:
    """A network's maps.

    Attributes:
        key: identity of the network (bundle id and variant, or name of the weights).
        maps: photo uint8 (H, W, 3) RGB -> non-negative maps float32 (h, w, C), one per scale.
    """

    key: str
    maps: Callable[[UInt8Array], Sequence[Float32Array]]


def mac(x: Float32Array) -> Float32Array:
    """Maximum over space: (h, w, C) to (C,)."""
    return np.asarray(x.max(axis=(0, 1)), np.float32)


def gem(x: Float32Array, p: float = 3.0) -> Float32Array:
    """Generalised mean over space with exponent p: (h, w, C) to (C,)."""
    clipped = np.maximum(x, 1e-6).astype(np.float64)
    return np.asarray((clipped**p).mean(axis=(0, 1)) ** (1 / p), np.float32)


def rmac_regions(height: int, width: int, levels: int = 3) -> list[tuple[int, int, int]]:
    """Square regions (top, left, side) of R-MAC: level l has l regions along the short side.

    Along the long side as many are added as bring the overlap of neighbours nearest to 40 % (the authors' code).
    """
    short, long = min(height, width), max(height, width)
    steps = np.arange(2, 8)
    overlap = (short**2 - short * (long - short) / (steps - 1)) / short**2
    extra = 0 if short == long else int(np.argmin(np.abs(overlap - 0.4))) + 1
    out = []
    for level in range(1, levels + 1):
        side = max(1, 2 * short // (level + 1))
        tall, wide = (level + extra, level) if height > width else (level, level + extra)
        tops = np.floor(np.linspace(0, height - side, tall)).astype(int) if tall > 1 else np.zeros(1, int)
        lefts = np.floor(np.linspace(0, width - side, wide)).astype(int) if wide > 1 else np.zeros(1, int)
        out += [(int(t), int(le), side) for t in tops for le in lefts]
    return out


def rmac(x: Float32Array, levels: int = 3) -> Float32Array:
    """Maxima of the regions, unit length: (h, w, C) to (R, C)."""
    h, w, _ = x.shape
    return unit(np.stack([mac(x[t : t + s, le : le + s]) for t, le, s in rmac_regions(h, w, levels)]))


POOL: dict[str, Callable[[Float32Array], Float32Array]] = {"MAC": mac, "GeM": gem}


@dataclass(frozen=True, slots=True)
class Expansion:
    """Query expansion and database augmentation.

    Attributes:
        kind: "none", "average" or "alpha".
        n: neighbours that are added to a query.
        alpha: exponent of the similarity that weighs a neighbour.
        dba: neighbours that are added to each database vector; 0 for none.
    """

    kind: str = "none"
    n: int = 5
    alpha: float = 3.0
    dba: int = 0

    @property
    def label(self) -> str:
        """What is appended to a row's name."""
        qe = {"none": "", "average": " + QE", "alpha": " + alpha-QE"}[self.kind]
        return (" + DBA" if self.dba else "") + qe


EXPANSIONS = (Expansion(), Expansion("average", n=3), Expansion("alpha", n=5), Expansion("alpha", n=5, dba=3))


def augment(vectors: Float32Array, k: int, alpha: float = 3.0) -> Float32Array:
    """Each database vector plus its k nearest, weighted by similarity^alpha: (N, D) to (N, D), unit."""
    similarity = vectors @ vectors.T
    k = min(k + 1, len(vectors))  # itself is among them with weight 1
    nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
    weights = np.clip(np.take_along_axis(similarity, nearest, 1), 0, None) ** alpha
    return unit(np.einsum("nk,nkd->nd", weights, vectors[nearest]))


def expand(query: Float32Array, vectors: Float32Array, similarity: Floats, how: Expansion) -> Float32Array:
    """The query (D,) plus its best neighbours, unit length. Neighbours at -inf are not used."""
    order = np.argsort(-similarity, kind="stable")[: how.n]
    order = order[np.isfinite(similarity[order])]
    weights = np.ones(len(order)) if how.kind == "average" else np.clip(similarity[order], 0, None) ** how.alpha
    return unit(query + weights @ vectors[order])


class GlobalSystem(System):
    """One pooled, whitened vector a photo, compared exhaustively by cosine.

    Args:
        backbone: gives the maps.
        pooling: "MAC", "R-MAC" or "GeM".
        expansion: query expansion and database augmentation.
        dim: dimensions kept by the whitening.
    """

    needs_fit = True
    stages = ("candidates",)

    def __init__(
        self, backbone: Backbone, pooling: str, expansion: Expansion = EXPANSIONS[0], dim: int = 256, label: str = ""
    ) -> None:
        self.backbone, self.pooling, self.expansion, self.dim = backbone, pooling, expansion, dim
        self.name = f"{pooling}{label}{expansion.label}"
        self.role = {"MAC": "siaMAC", "R-MAC": "DIR", "GeM": "DIR"}[pooling] + (
            "+QE" if expansion.kind != "none" else ""
        )
        self.key, self.wants = f"pooled 1 {backbone.key}", (pooling,)
        self._mean: Float32Array | None = None
        self._basis: Float32Array | None = None
        self._vectors: Float32Array = np.zeros((0, dim), np.float32)

    def extract(self, pixels: UInt8Array) -> Arrays:
        """All three poolings at once: rows of one backbone share their cached features."""
        maps = self.backbone.maps(pixels)
        regions = [rmac(x) for x in maps]
        return {
            "MAC": np.stack([unit(mac(x)) for x in maps]),
            "GeM": np.stack([unit(gem(x)) for x in maps]),
            "R-MAC": np.concatenate(regions),
        }

    def extract_only(self, pixels: UInt8Array) -> object:
        """This row's pooling alone, whitened."""
        rows = [rmac(x) if self.pooling == "R-MAC" else POOL[self.pooling](x)[None] for x in self.backbone.maps(pixels)]
        return self.vector({self.pooling: np.concatenate([unit(r) for r in rows])})

    def fit_key(self) -> str:
        """Whitenings differ by pooling and dimension."""
        return f"{self.key} {self.pooling} {self.dim}"

    def fit(self, training: Sequence[Arrays]) -> Arrays:
        """PCA-whitening (Jegou and Chum, ECCV 2012) of the pooled vectors of training photos."""
        rows = np.concatenate([np.asarray(t[self.pooling], np.float64) for t in training])
        mean = rows.mean(axis=0)
        values, vectors = np.linalg.eigh(np.cov(rows, rowvar=False))
        keep = np.argsort(-values)[: min(self.dim, len(rows) - 1)]
        floor = max(float(values.max()) * 1e-4, 1e-12)
        basis = (vectors[:, keep] / np.sqrt(np.maximum(values[keep], floor))).T
        learned = {"mean": mean.astype(np.float32), "basis": basis.astype(np.float32)}
        self.load_fit(learned)
        return learned

    def load_fit(self, learned: Arrays) -> None:
        """Take a whitening."""
        self._mean, self._basis = learned["mean"], learned["basis"]

    def vector(self, features: Arrays) -> Float32Array:
        """(D,), unit: each scale (and region) is whitened, normalised, and they are summed."""
        rows = np.asarray(features[self.pooling], np.float32)
        if self._mean is not None and self._basis is not None:
            rows = unit((rows - self._mean) @ self._basis.T)
        return unit(rows.sum(axis=0))

    def add(self, database: Sequence[Arrays]) -> None:
        """Keep one vector a photo."""
        vectors = np.stack([self.vector(d) for d in database])
        self._vectors = augment(vectors, self.expansion.dba) if self.expansion.dba else vectors

    def search(self, query: Arrays, absent: NDArray[np.bool_] | None = None) -> Result:
        """Cosine to every photo, once more with the expanded query where asked for.

        Confidence is the plain cosine: expansion makes everything more alike.
        """
        q: NDArray[Any] = self.vector(query)
        similarity = _hide(self._vectors @ q, absent)
        scores = similarity
        if self.expansion.kind != "none":
            scores = _hide(self._vectors @ expand(q, self._vectors, similarity, self.expansion), absent)
        best = int(np.argmax(scores)) if len(scores) else -1
        confidence = float(similarity[best]) if best >= 0 else float("-inf")
        return Result(
            np.asarray(scores, np.float64), confidence, {"candidates": similarity}, evidence={"similarity": confidence}
        )

    def bytes_per_image(self) -> float:
        """float32, as an exhaustive index keeps it."""
        return float(self._vectors.shape[1] * 4)

    def describe(self) -> dict[str, Any]:
        """Pooling and expansion."""
        e = self.expansion
        return {"key": self.key, "pooling": self.pooling, "dim": self.dim, "qe": e.kind, "qe_n": e.n, "dba": e.dba}


def _hide(scores: NDArray[Any], absent: NDArray[np.bool_] | None) -> Floats:
    out = np.asarray(scores, np.float64).copy()
    if absent is not None:
        out[absent] = -np.inf
    return out


class EmbeddingSystem(System):
    """What an app developer would pick: one embedding a photo from a mobile classifier, exact cosine search.

    That is MediaPipe's image embedder and searcher: the photo squeezed to 224 x 224, the classifier's global average
    pool, L2, and no training of one's own.

    Args:
        key: identity of the network.
        embed: photo uint8 (224, 224, 3) RGB -> float32 (C,).
    """

    role = "app developer"
    stages = ("candidates",)

    def __init__(self, key: str, embed: Callable[[UInt8Array], Float32Array]) -> None:
        self.name = "mobile embedding"
        self.key = f"embedding 1 {key}"
        self._embed = embed
        self._vectors: Float32Array = np.zeros((0, 1), np.float32)

    def extract(self, pixels: UInt8Array) -> Arrays:
        """The unit embedding."""
        import cv2

        squeezed = cv2.resize(pixels, (224, 224), interpolation=cv2.INTER_AREA)
        return {"embedding": unit(self._embed(np.asarray(squeezed, np.uint8)))}

    def add(self, database: Sequence[Arrays]) -> None:
        """Keep them all."""
        self._vectors = np.stack([np.asarray(d["embedding"], np.float32) for d in database])

    def search(self, query: Arrays, absent: NDArray[np.bool_] | None = None) -> Result:
        """Exact cosine."""
        scores = _hide(self._vectors @ query["embedding"], absent)
        confidence = float(scores.max(initial=-np.inf))
        return Result(scores, confidence, {"candidates": scores}, evidence={"similarity": confidence})

    def bytes_per_image(self) -> float:
        """float32."""
        return float(self._vectors.shape[1] * 4)
