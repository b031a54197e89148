"""How good a reference photo is, before a visitor finds out: a score from 0 to 100, with the reasons in words.

::

    score = 100 * product of part ** weight

    detail         enough features
    spread         over the whole photo, not in one corner
    sharpness      no blur
    exposure       neither dark nor blown out
    distinctness   few features that look like others of the same photo (windows, columns, bricks)
    uniqueness     not mistaken for another landmark that is in the database
    recall         found again, before any other landmark, after being turned, shrunk, tilted, darkened and blurred

Every part is from 0 to 1. The parts say what to do about a photo; they are no probabilities.

Extracting features is what takes the time. Recall is the share of five changed copies that are proven. One copy that is
changed in all these ways at once comes first: where it is proven beyond doubt, so is each of the five, and they are not
made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from delf_edge.errors import DelfEdgeError, ImageError
from delf_edge.images.decode import content_hash, load_image
from delf_edge.images.photo_source import ChannelOrder, PhotoSource, read_photo
from delf_edge.images.quality import measure
from delf_edge.quantization.product_quantizer import decode
from delf_edge.quantization.restored import restored_features
from delf_edge.query.options import IdentifyOptions
from delf_edge.recognizer import Recognizer
from delf_edge.storage.records import StoredImage
from delf_edge.types import Codes, Features, UInt8Array
from delf_edge.verification import verify

WEIGHTS = {
    "detail": 1.0,
    "spread": 0.5,
    "sharpness": 0.7,
    "exposure": 0.4,
    "distinctness": 0.5,
    "uniqueness": 0.8,
    "recall": 1.0,
}
GOOD = 70  # a score from which on a photo needs no advice
_ENOUGH = 120  # features
_SHARP = 0.12  # of `gate.measure`: most photos that are in focus have more
_ALIKE = 0.85  # cosine of two features that cannot be told apart
_PROVEN = 16  # inliers, twice what strangers have
BEYOND_DOUBT = 40  # inliers of the copy that is changed in all ways; below, some of the five may fail
_RIVALS = 5  # candidates that are verified for a copy; a rival with more inliers than the photo itself is among them
_GRID = 4


@dataclass(frozen=True, slots=True)
class Quality:
    """The advice about one photo.

    Attributes:
        score: 0 (useless) to 100.
        parts: part -> 0..1; only those that could be measured.
        reasons: what lowers the score, the worst first, and what to do; empty for a good photo.
        confused_with: another landmark that the photo resembles, or None.
    """

    score: int
    parts: dict[str, float]
    reasons: tuple[str, ...]
    confused_with: str | None

    def as_json(self) -> dict[str, Any]:
        """For `json.dumps`."""
        return asdict(self) | {"parts": {name: round(value, 3) for name, value in self.parts.items()}}


@dataclass(frozen=True, slots=True)
class Finding:
    """What `lint` says about a stored image; `photo` tells whether its file was there to look at."""

    name: str
    landmark: str
    photo: bool
    quality: Quality


def assess(
    recognizer: Recognizer,
    photo: PhotoSource,
    *,
    landmark: str | None = None,
    channel_order: ChannelOrder | None = None,
) -> Quality:
    """The advice about a photo that may become a reference; nothing is stored.

    Args:
        recognizer: the database it would go into.
        photo: path, encoded bytes, or uint8 array with `channel_order`.
        landmark: what it shows; photos of the same landmark are no confusion. None takes what the photo has in the
            database, if it is there.

    Raises:
        ImageError: the photo cannot be used.
    """
    known = recognizer.store.find_content(content_hash(photo, channel_order=channel_order))
    if landmark is None and known is not None:
        landmark = recognizer.store.image(known).landmark
    pixels = load_image(photo, channel_order=channel_order).pixels
    features = recognizer.extract(pixels, channel_order="RGB")
    codes = recognizer.encode(features)
    look = measure(pixels, "RGB")
    parts = {
        "sharpness": min(1.0, look.sharpness / _SHARP),
        "exposure": min(1.0, look.brightness / 60) * min(1.0, 2 * (1 - look.bright_share)),
        "recall": _recall(recognizer, pixels, codes, landmark),
    }
    return _judge(recognizer, features, parts, landmark)


def assess_stored(recognizer: Recognizer, image: StoredImage) -> Finding:
    """The advice about a stored image: from its file, if that is still the very same photo, else from its codes.

    Raises:
        DelfEdgeError: neither can be read.
    """
    path = image.metadata.get("path")
    if isinstance(path, str):
        try:
            data = read_photo(path)
            if content_hash(data) == image.content_hash:
                return Finding(image.name, image.landmark, True, assess(recognizer, data, landmark=image.landmark))
        except ImageError:
            pass  # the file is gone or changed; its codes are still here
    codes = recognizer.store.codes([image.image_id]).get(image.image_id)
    if codes is None:
        raise DelfEdgeError(f"{image.name}: its codes are damaged; add the photo again")
    features = restored_features(codes, recognizer.bundle.codebook)
    return Finding(image.name, image.landmark, False, _judge(recognizer, features, {}, image.landmark))


def lint(recognizer: Recognizer) -> Iterator[Finding]:
    """The advice about every image of a database; damaged ones are left out (`Store.verify` names them)."""
    for image in recognizer.store.images():
        try:
            yield assess_stored(recognizer, image)
        except DelfEdgeError:
            continue


def _judge(recognizer: Recognizer, features: Features, parts: dict[str, float], landmark: str | None) -> Quality:
    uniqueness, rival = _uniqueness(recognizer, features, landmark)
    parts = {
        "detail": min(1.0, len(features) / _ENOUGH),
        "spread": _spread(features),
        "distinctness": _distinctness(features),
        "uniqueness": uniqueness,
        **parts,
    }
    score = 100.0
    for name, value in parts.items():
        score *= value ** WEIGHTS[name]
    reasons = [
        (value, _REASONS[name](features, rival)) for name, value in parts.items() if value < 0.75 and name in _REASONS
    ]
    return Quality(round(score), parts, tuple(text for _, text in sorted(reasons)), rival)


def _spread(features: Features) -> float:
    """Share of the cells of a grid that hold features; 60 % of them is as good as all."""
    if not len(features):
        return 0.0
    cells = np.floor(features.keypoints / np.maximum(features.image_size, 1) * _GRID).astype(int).clip(0, _GRID - 1)
    counts = np.bincount(cells[:, 1] * _GRID + cells[:, 0], minlength=_GRID**2)
    return min(1.0, float((counts >= max(1, 0.01 * len(features))).mean()) / 0.6)


def _distinctness(features: Features) -> float:
    """One minus the share of features that have a double elsewhere in the photo."""
    if len(features) < 2:
        return 1.0
    alike = features.descriptors @ features.descriptors.T > _ALIKE
    apart = np.abs(features.keypoints[:, None] - features.keypoints).max(axis=2) > 0.1 * max(features.image_size)
    return 1.0 - float((alike & apart).any(axis=1).mean())


def _uniqueness(recognizer: Recognizer, features: Features, landmark: str | None) -> tuple[float, str | None]:
    """One minus the probability of the best other landmark, and its name where it would be believed."""
    options = IdentifyOptions(without=frozenset() if landmark is None else frozenset({landmark}))
    best = next(iter(recognizer.rank(features, 1, options=options)), None)
    if best is None or best.n_inliers < options.min_inliers:
        return 1.0, None
    return 1.0 - best.probability, best.landmark if best.probability >= 0.25 else None


def _recall(recognizer: Recognizer, pixels: UInt8Array, codes: Codes, landmark: str | None) -> float:
    """Share of the changed copies of a photo that its own codes prove, and better than any other landmark's."""
    if not len(codes):
        return 0.0
    stored = decode(codes, recognizer.bundle.codebook)
    ruled_out = frozenset() if landmark is None else frozenset({landmark})
    options = IdentifyOptions(without=ruled_out, verify=_RIVALS)

    def proven(copy: UInt8Array, least: int) -> bool:
        features = recognizer.extract(copy, channel_order="RGB")
        own = verify(0, features, stored, codes.keypoints, codes.image_size).n_inliers
        if own < least:
            return False
        rival = next(iter(recognizer.rank(features, 1, options=options)), None)
        return rival is None or own > rival.n_inliers

    small = _shrunk(pixels)
    if proven(_changed(small), BEYOND_DOUBT):
        return 1.0
    return float(np.mean([proven(copy, _PROVEN) for copy in _copies(small)]))


def _shrunk(pixels: UInt8Array) -> UInt8Array:
    """A photo as a visitor's camera would give it: 640 px at most."""
    import cv2

    factor = min(1.0, 640 / max(pixels.shape[:2]))
    shrunk: UInt8Array = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    return shrunk


def _turned(pixels: UInt8Array, degrees: float, scale: float) -> UInt8Array:
    """Turned about its middle, and from afar; what comes into sight is the photo in a mirror."""
    import cv2

    h, w = pixels.shape[:2]
    turn = cv2.getRotationMatrix2D((w / 2, h / 2), degrees, scale)
    turned: UInt8Array = cv2.warpAffine(pixels, turn, (w, h), borderMode=cv2.BORDER_REFLECT_101)
    return turned


def _dark(pixels: UInt8Array) -> UInt8Array:
    return (pixels * 0.45).astype(np.uint8)


def _changed(small: UInt8Array) -> UInt8Array:
    """Turned, from afar, dark and blurred at once."""
    import cv2

    changed: UInt8Array = cv2.GaussianBlur(_dark(_turned(small, 12, 0.75)), (0, 0), 1.0)
    return changed


def _copies(small: UInt8Array) -> Iterator[UInt8Array]:
    """What a visitor's camera may make of the view: turned, from afar, from the side, dark, blurred."""
    import cv2

    h, w = small.shape[:2]
    yield _turned(small, 12, 1.0)
    yield _turned(small, -6, 0.6)
    corners = np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32)
    aside = corners * np.array([[1, 1], [0.86, 1], [0.86, 1], [1, 1]], np.float32)
    aside += np.array([[0, 0], [0, 0.1 * h], [0, -0.1 * h], [0, 0]], np.float32)
    view = cv2.getPerspectiveTransform(corners, aside)
    yield cv2.warpPerspective(small, view, (w, h), borderMode=cv2.BORDER_REFLECT_101)
    yield _dark(small)
    yield cv2.GaussianBlur(small, (0, 0), 2.0)


_REASONS: dict[str, Callable[[Features, str | None], str]] = {
    "detail": lambda f, _: f"only {len(f)} features: little to recognise; step back, or choose a side with more detail",
    "spread": lambda *_: "the detail lies in one part of the photo; let the place fill the frame",
    "sharpness": lambda *_: "the photo is blurred; hold still, clean the lens, or use more light",
    "exposure": lambda *_: "the photo is too dark or blown out; change the light or the side",
    "distinctness": lambda *_: "many parts look alike (windows, columns); include something that is there only once",
    "uniqueness": lambda _, rival: f"it resembles {rival or 'another landmark'}, which is in the database already",
    "recall": lambda *_: "turned, darkened or seen from the side it would not be found again; take another view",
}
