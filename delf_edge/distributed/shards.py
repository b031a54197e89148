"""One shard: a list of photos becomes a sealed database and a manifest, both written whole or not at all.

The file is a database (`storage.schema`) in which an image's id is its row in the manifest plus 1, and nothing depends
on the clock; or, for the fit of a codebook, arrays (`raw_features.py`). Beside it `NAME.json`, written last, so that a
shard with a manifest is finished::

    format, number, key, bundle_id, preset
    file_bytes, sha256   of the file
    photos, images, features
    bad                  rows that gave no image: row, url, error, message
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Self, TypeVar

import fsspec

from delf_edge.distributed.raw_features import load_bundle, raw_describer, write_features
from delf_edge.distributed.remote_files import ABSENT, fetch, put_file, put_path
from delf_edge.errors import BuildError
from delf_edge.features.extractor import Extractor, extract_options
from delf_edge.files import dump_json, dump_metadata, file_sha256, parse_json
from delf_edge.images.decode import content_hash, load_image
from delf_edge.images.limits import DEFAULT_LIMITS, ImageLimits, limits_of
from delf_edge.interchange.photo_entry import PhotoEntry
from delf_edge.interchange.photo_tables import SHARD_FORMAT, Shard
from delf_edge.quantization.coarse_quantizer import CoarseIndex
from delf_edge.quantization.packed_codes import CodeLayout, pack_codes
from delf_edge.quantization.product_quantizer import encode
from delf_edge.storage.rows import Row
from delf_edge.storage.store import Store
from delf_edge.types import Codes

_BATCH = 64  # images a transaction
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row of the manifest that gave no image, and why."""

    row: int
    url: str
    error: str
    message: str


@dataclass(frozen=True, slots=True)
class ShardManifest:
    """What a finished shard is; see the head of this module."""

    number: int
    key: str
    bundle_id: str
    preset: str
    file_bytes: int
    sha256: str
    photos: int
    images: int
    features: int
    bad: tuple[BadRow, ...] = field(default=())

    def to_bytes(self) -> bytes:
        """The manifest's file."""
        return dump_json({"format": SHARD_FORMAT, **asdict(self)})

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Self:
        """A manifest from its file.

        Raises:
            BuildError: it is none.
        """
        try:
            facts: dict[str, Any] = parse_json(data)
            if facts.pop("format") != SHARD_FORMAT:
                raise ValueError("of another format")
            return cls(**(facts | {"bad": tuple(BadRow(**bad) for bad in facts["bad"])}))
        except (ValueError, TypeError, KeyError, AttributeError) as e:
            raise BuildError(f"{where}: not the manifest of a shard ({e}); remove it and build again") from e


class Describer:
    """Photos to codes with one bundle and preset.

    Raises:
        BundleMismatchError: another bundle lies at this path.
    """

    def __init__(self, folder: str, bundle_id: str, preset: str, limits: ImageLimits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self.bundle = load_bundle(folder, bundle_id)
        self._extractor = Extractor(self.bundle, num_threads=1)
        self._options = extract_options(self.bundle, preset)
        self._coarse = CoarseIndex(self.bundle.codebook.centroids)

    @property
    def layout(self) -> CodeLayout:
        """Sizes of the codes."""
        return CodeLayout.of(self.bundle.codebook)

    def codes(self, data: bytes) -> Codes:
        """The stored form of an encoded photo."""
        features = self._extractor.extract(load_image(data, limits=self._limits), self._options)
        words = self._coarse.assign(features.descriptors, exact=True)[0][:, 0]
        return encode(features, words, self.bundle.codebook)


@lru_cache(maxsize=1)
def _describer(folder: str, bundle_id: str, preset: str, limits: ImageLimits) -> Describer:
    """Loaded once in every worker."""
    return Describer(folder, bundle_id, preset, limits)


def make_shard(shard: Shard, known_bad: Mapping[int, str] | None = None, at: Path | None = None) -> ShardManifest:
    """Describe the photos of a shard and put its two files in place.

    Args:
        shard: what to do.
        known_bad: rows that are not to be tried, and why.
        at: file that always holds the row being worked on, for whoever watches this process.

    Raises:
        BuildError: photos could not be fetched for a reason that may pass; run it again.
        BundleError, StoreError: the worker cannot do its work.
    """
    bad: list[BadRow] = []
    attempts = _Attempts(shard.rows, known_bad or {}, bad, at)
    with tempfile.TemporaryDirectory(prefix="delf-edge-shard-") as scratch:
        path = Path(scratch) / "shard"
        n_images, n_features = (_database if shard.what == "codes" else _features)(path, shard, attempts)
        manifest = ShardManifest(
            number=shard.number,
            key=shard.key,
            bundle_id=shard.bundle_id,
            preset=shard.preset,
            file_bytes=path.stat().st_size,
            sha256=file_sha256(path),
            photos=len(shard.rows),
            images=n_images,
            features=n_features,
            bad=tuple(bad),
        )
        put_path(path, f"{shard.out}/{shard.name}.shard")
        put_file(manifest.to_bytes(), f"{shard.out}/{shard.name}.json")
    return manifest


@dataclass(frozen=True, slots=True)
class _Attempts:
    """The rows of a shard; what is wrong with one goes into `bad`."""

    rows: Collection[PhotoEntry]
    known_bad: Mapping[int, str]
    bad: list[BadRow]
    at: Path | None

    def described(self, describe: Callable[[bytes], _T]) -> Iterator[tuple[PhotoEntry, bytes, _T]]:
        """Row, content hash and description of every photo that can be used, each photo and name once."""
        contents: set[bytes] = set()
        names: set[str] = set()
        for row in self.rows:
            if self.at is not None:
                self.at.write_text(str(row.row))
            try:
                if row.row in self.known_bad:
                    raise BuildError(self.known_bad[row.row])
                data = fetch(row.url)
                digest = content_hash(data)
                if digest in contents or row.name in names:
                    raise BuildError("the same photo, or its name, came before")
                described = describe(data)
            except OSError as e:
                if not isinstance(e, ABSENT):
                    raise BuildError(f"{row.url}: cannot be fetched ({e}); start the build again") from e
                self.bad.append(BadRow(row.row, row.url, type(e).__name__, e.strerror or str(e)))
                continue
            except Exception as e:  # whatever a photo does, it is one row of many
                self.bad.append(BadRow(row.row, row.url, type(e).__name__, str(e)))
                continue
            contents.add(digest)
            names.add(row.name)
            yield row, digest, described


def _database(path: Path, shard: Shard, attempts: _Attempts) -> tuple[int, int]:
    """Codes as a sealed database; returns the numbers of images and features."""
    describer = _describer(shard.bundle, shard.bundle_id, shard.preset, limits_of(shard.max_pixels))
    with Store.open(path, bundle_id=shard.bundle_id, layout=describer.layout) as store:
        facts = {"uuid": str(uuid.uuid5(uuid.NAMESPACE_URL, shard.key)), "created_at": "0.000", "revision": "1"}
        store.write_rows({"meta": list(facts.items())})
        counts = _fill(store, attempts.described(describer.codes))
        store.seal()
    return counts


def _features(path: Path, shard: Shard, attempts: _Attempts) -> tuple[int, int]:
    """Raw features as arrays; returns the numbers of images and features."""
    describe = raw_describer(shard.bundle, shard.bundle_id, shard.preset, limits_of(shard.max_pixels))
    return write_features(path, (features for _, _, features in attempts.described(describe)))


def _fill(store: Store, photos: Iterator[tuple[PhotoEntry, bytes, Codes]]) -> tuple[int, int]:
    """Store described photos; returns the numbers of images and features."""
    landmarks: dict[str, int] = {}
    n_images = n_features = 0
    put: dict[str, list[Row]] = {"landmarks": [], "images": [], "codes": []}
    for row, digest, codes in photos:
        if row.landmark not in landmarks:
            landmarks[row.landmark] = len(landmarks) + 1
            put["landmarks"].append((landmarks[row.landmark], row.landmark, "{}", row.latitude, row.longitude, 1))
        metadata = dump_metadata(row.metadata)
        image_id = row.row + 1
        size = codes.image_size
        put["images"].append((image_id, row.name, landmarks[row.landmark], metadata, size[0], size[1], digest, 0.0, 1))
        put["codes"].append((image_id, len(codes), pack_codes(codes)))
        n_images, n_features = n_images + 1, n_features + len(codes)
        if len(put["images"]) >= _BATCH:
            store.write_rows(put)
            put = {table: [] for table in put}
    store.write_rows(put)
    return n_images, n_features


def read_manifests(out: str, names: Iterator[str]) -> Iterator[ShardManifest]:
    """Manifests of finished shards."""
    for name in names:
        url = f"{out}/{name}.json"
        with fsspec.open(url, "rb") as file:
            yield ShardManifest.from_bytes(file.read(), url)
