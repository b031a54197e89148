"""The data types: one per arrow of the way from a photo to an answer.

Every type is frozen, slotted and compares by identity (arrays have no single truth value). Arrays are set
read-only when a value is constructed, so a value can be shared between threads.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]
Int32Array = NDArray[np.int32]
Int64Array = NDArray[np.int64]
UInt8Array = NDArray[np.uint8]
UInt16Array = NDArray[np.uint16]
BoolArray = NDArray[np.bool_]


def _freeze(value: Any) -> None:
    """Set every array field of a dataclass read-only."""
    for f in fields(value):
        array = getattr(value, f.name)
        if isinstance(array, np.ndarray):
            array.setflags(write=False)


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """A decoded photo.

    Attributes:
        pixels: uint8 (H, W, 3), RGB, upright (EXIF orientation applied).
        original_size: (width, height) in pixels of the upright original. Larger than `pixels` where a large
            JPEG was decoded at reduced size.
    """

    pixels: UInt8Array
    original_size: tuple[int, int]

    def __post_init__(self) -> None:
        _freeze(self)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of `pixels`."""
        return self.pixels.shape[1], self.pixels.shape[0]


@dataclass(frozen=True, slots=True, eq=False)
class PyramidLevel:
    """One resized copy of an image.

    Attributes:
        pixels: uint8 (h, w, 3), RGB.
        scale_xy: float64 (2,), level pixels per image pixel along x and y. The two differ by rounding.
    """

    pixels: UInt8Array
    scale_xy: Float64Array

    def __post_init__(self) -> None:
        _freeze(self)


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """The selected local features of one image, best score first, and its global descriptor.

    Attributes:
        keypoints: float32 (N, 2), (x, y) in image pixels; (0, 0) is the centre of the top left pixel.
        scales: float32 (N,), the pyramid scale a feature was found at, level pixels per image pixel.
        scores: float32 (N,), attention (or L2 norm), higher is better.
        descriptors: float32 (N, D), unit L2 after PCA.
        global_descriptor: float32 (G,), unit L2; zeros where the image gave none.
        image_size: (width, height) of the image that the keypoints refer to.
    """

    keypoints: Float32Array
    scales: Float32Array
    scores: Float32Array
    descriptors: Float32Array
    global_descriptor: Float32Array
    image_size: tuple[int, int]

    def __post_init__(self) -> None:
        _freeze(self)

    def __len__(self) -> int:
        return len(self.keypoints)

    @classmethod
    def empty(cls, dim: int, global_dim: int = 0, image_size: tuple[int, int] = (0, 0)) -> Features:
        """Features of an image in which nothing was selected (a black frame)."""
        return cls(
            keypoints=np.zeros((0, 2), np.float32),
            scales=np.zeros(0, np.float32),
            scores=np.zeros(0, np.float32),
            descriptors=np.zeros((0, dim), np.float32),
            global_descriptor=np.zeros(global_dim, np.float32),
            image_size=image_size,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Codebook:
    """What turns raw network outputs into descriptors, words and codes.

    Attributes:
        pca_mean: float32 (C,), subtracted from an L2-normalised raw descriptor.
        pca_basis: float32 (D, C), rows are directions (whitening, where used, is folded in).
        centroids: float32 (K, D), coarse centroids: the visual words.
        pq: float32 (M, 256, D/M), product quantiser of the residual to the word's centroid.
        rotation: float32 (D, D) orthogonal, applied to the residual before PQ (OPQ); identity for plain PQ.
        global_mean: float32 (Cg,), subtracted from the L2-normalised pooled vector.
        global_basis: float32 (G, Cg), whitening directions of the global descriptor.
    """

    pca_mean: Float32Array
    pca_basis: Float32Array
    centroids: Float32Array
    pq: Float32Array
    rotation: Float32Array
    global_mean: Float32Array
    global_basis: Float32Array

    def __post_init__(self) -> None:
        _freeze(self)

    @property
    def dim(self) -> int:
        """D, the dimension of a local descriptor."""
        return int(self.pca_basis.shape[0])

    @property
    def global_dim(self) -> int:
        """G, the dimension of the global descriptor."""
        return int(self.global_basis.shape[0])

    @property
    def n_words(self) -> int:
        """K, the number of visual words."""
        return int(self.centroids.shape[0])

    @property
    def code_size(self) -> int:
        """M, the bytes of one PQ code."""
        return int(self.pq.shape[0])


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """The stored form of `Features`, best score first.

    Attributes:
        keypoints: float32 (N, 2), (x, y) in image pixels (on a grid of 1/4095 of the image's longer side).
        words: uint16 (N,), index of the coarse centroid.
        codes: uint8 (N, M), PQ codes of the rotated residual.
        global_code: int8 (G,), the global descriptor times 127 / its largest absolute value.
        image_size: (width, height) the keypoints refer to.
    """

    keypoints: Float32Array
    words: UInt16Array
    codes: UInt8Array
    global_code: NDArray[np.int8]
    image_size: tuple[int, int]

    def __post_init__(self) -> None:
        _freeze(self)

    def __len__(self) -> int:
        return len(self.words)


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """An image that may show the query's place, before verification.

    Attributes:
        image_id: row id in the store.
        score: fused score, higher is better; what the list is sorted by.
        votes: local score alone (sum of the votes of the query's features).
        similarity: cosine of the global descriptors, -1..1.
    """

    image_id: int
    score: float
    votes: float
    similarity: float


@dataclass(frozen=True, slots=True, eq=False)
class Verification:
    """Geometric check of one candidate.

    Attributes:
        image_id: row id in the store.
        matches: int32 (P, 2), (query feature, stored feature) indices of the tentative matches.
        inliers: bool (P,), which matches agree with `transform`.
        transform: float64 (2, 3), affine map from query pixels to stored pixels; NaN where none was found.
    """

    image_id: int
    matches: Int32Array
    inliers: BoolArray
    transform: Float64Array

    def __post_init__(self) -> None:
        _freeze(self)

    @property
    def n_inliers(self) -> int:
        """Number of matches that agree with `transform`."""
        return int(np.count_nonzero(self.inliers))


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """One stored image in the results of a query: the best one, or a runner-up.

    Attributes:
        image_id: row id in the store.
        name: the image's name in the store.
        landmark: its landmark's name.
        score: final score, what the ranking is sorted by.
        probability: calibrated probability that this image shows the query's place.
        n_inliers: matches that passed RANSAC; 0 where the image was not verified.
        similarity: cosine of the global descriptors.
    """

    image_id: int
    name: str
    landmark: str
    score: float
    probability: float
    n_inliers: int
    similarity: float


@dataclass(frozen=True, slots=True)
class LandmarkInfo:
    """What is known of the landmark of an answer, in one language.

    Attributes:
        slug: its stable name in URLs and tables.
        name: its name in the database.
        title: its name in `language`; where it has no text, `name`.
        language: of title and summary, a tag of BCP 47; None where it has no text.
        summary: a sentence or two of plain text.
        link: where more can be read.
        audio: name of the sound that belongs to the text.
        kind: what it is, such as "castle".
        collection: what it belongs to.
        latitude, longitude: degrees (WGS 84), None where unknown.
        external_ids: its ids elsewhere.
        media: names of its pictures and sounds; `Recognizer.catalogue` has their bytes.
    """

    slug: str
    name: str
    title: str
    language: str | None = None
    summary: str | None = None
    link: str | None = None
    audio: str | None = None
    kind: str | None = None
    collection: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    external_ids: dict[str, str] = field(default_factory=dict)
    media: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What `identify` returns.

    Attributes:
        landmark: the landmark's name, or None for "unknown".
        image: name of the stored image that proves it, or None.
        probability: calibrated probability of the best image, 0..1 (also when the answer is unknown). Without the least
            number of matched points it is at most their share of the threshold, 0 where there is no point.
        n_inliers: its RANSAC inliers.
        reason: one sentence why this is the answer, or why it is unknown.
        results: stored images, the most probable place first; at most one per landmark.
        verification: the proof for the best match, None where nothing was verified.
        milliseconds: stage name -> time it took.
        info: what is known of the landmark, in the language asked for (`IdentifyOptions.languages`); None: unknown.
    """

    landmark: str | None
    image: str | None
    probability: float
    n_inliers: int
    reason: str
    results: tuple[Match, ...] = ()
    verification: Verification | None = None
    milliseconds: dict[str, float] = field(default_factory=dict)
    info: LandmarkInfo | None = None

    @property
    def found(self) -> bool:
        """Whether a landmark was named."""
        return self.landmark is not None

    @property
    def matches(self) -> tuple[Match, ...]:
        """The name of `results` in 0.1."""
        return self.results


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened after a revision.

    Attributes:
        revision: the state this leads to.
        complete: False where the removals are no longer all known; start again from all images.
        updated: ids of images that were added or changed, ascending.
        removed: ids that are gone.
    """

    revision: int
    complete: bool
    updated: tuple[int, ...]
    removed: tuple[int, ...]
