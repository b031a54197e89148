"""The one path through all stages: add, remove, identify.

::

    with Recognizer.open("places.db") as recognizer:
        recognizer.add("eiffel.jpg", landmark="Eiffel Tower")
        answer = recognizer.identify("holiday.jpg")
        print(answer.landmark, answer.probability, answer.n_inliers)
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from delf_edge._old_paths import forward
from delf_edge.bundle.bundle import Bundle, default_bundle_path
from delf_edge.errors import OptionError
from delf_edge.features.extractor import Extractor, extract_options
from delf_edge.images.decode import load_image
from delf_edge.images.limits import DEFAULT_LIMITS, ImageLimits
from delf_edge.images.photo_source import ChannelOrder, PhotoSource
from delf_edge.index.inverted_index import InvertedIndex
from delf_edge.packs.live import LivePacks, PointerStates, pointer_states
from delf_edge.quantization.coarse_quantizer import CoarseIndex
from delf_edge.quantization.packed_codes import CodeLayout
from delf_edge.quantization.product_quantizer import encode
from delf_edge.query.options import IdentifyOptions
from delf_edge.query.photo import PhotoQuery
from delf_edge.query.pipeline import Explanation, QueryPipeline
from delf_edge.storage.combined import CombinedStore
from delf_edge.storage.records import Problem, StoreInfo
from delf_edge.storage.store import Store
from delf_edge.timing import clock
from delf_edge.types import Answer, Codes, Features, Image, Match

if TYPE_CHECKING:  # what a program that only asks does without is imported where it is used
    from delf_edge.catalogue.catalogue import Catalogue
    from delf_edge.ingestion import AddError, AddItem, AddResult, Ingestion

__getattr__ = forward(__name__, "ingestion")


class Recognizer:
    """A database of places, open for adding and asking. Use as a context manager; safe to share between threads.

    Attributes:
        bundle: the loaded model.
        store: the database file.
        limits: how large a photo may be.
        pipeline: answers where the features are there already.
    """

    def __init__(
        self,
        store: Store,
        bundle: Bundle,
        *,
        preset: str | None = None,
        num_threads: int = 1,
        limits: ImageLimits = DEFAULT_LIMITS,
        packs: Sequence[Store] = (),
        pack_folders: Sequence[Path] = (),
        seen: PointerStates | None = None,
    ) -> None:
        """Use `Recognizer.open`."""
        self.store, self.bundle, self.limits = store, bundle, limits
        self._extractor = Extractor(bundle, num_threads=num_threads)
        self._extract_options = extract_options(bundle, preset)
        self._coarse = CoarseIndex(bundle.codebook.centroids, graph=bundle.graph)
        combined = CombinedStore(store, packs)
        index = InvertedIndex.from_store(combined, database=store.path, uuid=store.uuid)
        self._packs = LivePacks(combined, index, pack_folders, seen)
        self.pipeline = QueryPipeline(bundle, self._coarse, self._packs)

    @property
    def asker(self) -> QueryPipeline:
        """The name of `pipeline` in 0.1."""
        warnings.warn(
            "Recognizer.asker is now Recognizer.pipeline; it works until 0.3", DeprecationWarning, stacklevel=2
        )
        return self.pipeline

    @property
    def shelf(self) -> CombinedStore:
        """The name of `combined` in 0.1."""
        warnings.warn(
            "Recognizer.shelf is now Recognizer.combined; it works until 0.3", DeprecationWarning, stacklevel=2
        )
        return self.combined

    @property
    def combined(self) -> CombinedStore:
        """The database and the packs beside it, read as one; see `steady`."""
        return self._packs.now.store

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        bundle: str | os.PathLike[str] | Bundle | None = None,
        preset: str | None = None,
        read_only: bool = False,
        num_threads: int = 1,
        limits: ImageLimits = DEFAULT_LIMITS,
        packs: Sequence[str | os.PathLike[str]] = (),
    ) -> Self:
        """Open a database, creating it if need be.

        Args:
            path: the SQLite file.
            bundle: folder of a model bundle, or a loaded one; default: the one that came with the package.
            preset: extraction preset of the bundle, such as "fast" or "balanced"; default: the bundle's own.
            read_only: never write to the database; the file must exist.
            num_threads: threads of the network. NumPy's are its own matter: `OPENBLAS_NUM_THREADS=1`, set before it is
                imported, saves processor time.
            limits: how large a photo may be; see `ImageLimits`.
            packs: read-only packs to search as well; a folder stands for the packs that `delf-edge update` installed
                there. Their bytes are compared with their manifests. A version that is put into use in a folder later
                is taken up at a query, within seconds (`packs.live`).

        Raises:
            BundleError: the bundle is damaged or unknown to this SDK.
            StoreError: the file is damaged, locked, newer, or was made with another bundle.
            PackError: a pack is absent, or not what its manifest says.
            OptionError: there is no such preset.
        """
        loaded = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle or default_bundle_path())
        layout = CodeLayout.of(loaded.codebook)
        folders = [Path(given) for given in packs if Path(given).is_dir()]
        seen = pointer_states(folders)  # from before the packs are opened: a later switch is seen at a query
        if packs:
            from delf_edge.packs.installed import open_packs
        with ExitStack() as opened:  # closed again where something fails
            store = opened.enter_context(
                Store.open(path, bundle_id=loaded.id, layout=layout, mode="ro" if read_only else "rw")
            )
            beside = [
                opened.enter_context(pack)
                for given in packs
                for pack in open_packs(given, bundle_id=loaded.id, layout=layout)
            ]
            recognizer = cls(
                store,
                loaded,
                preset=preset,
                num_threads=num_threads,
                limits=limits,
                packs=beside,
                pack_folders=folders,
                seen=seen,
            )
            opened.pop_all()
            return recognizer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the database and its packs; closing twice is fine."""
        self._packs.close()

    # ------------------------------------------------------------------ packs

    @contextmanager
    def steady(self) -> Iterator[CombinedStore]:
        """Inside the block this thread sees the same packs at every call, whatever is switched meanwhile."""
        with self._packs.pin() as snapshot:
            yield snapshot.store

    def refresh_packs(self) -> None:
        """Take up packs that were switched, before this returns; queries do so by themselves, in the background."""
        self._packs.refresh()

    @property
    def pack_problems(self) -> tuple[str, ...]:
        """Why versions that should be in use are not; queries are answered from the versions before."""
        return self._packs.problems

    @property
    def pack_switches(self) -> int:
        """How often other packs were taken up since the start."""
        return self._packs.switches

    @property
    def catalogue(self) -> Catalogue:
        """What is known of the landmarks of the database and its packs; changes go to the database."""
        from delf_edge.catalogue.catalogue import Catalogue

        return Catalogue(self.combined.stores)

    # ------------------------------------------------------------------ changing

    @cached_property
    def _ingestion(self) -> Ingestion:
        from delf_edge.ingestion import Ingestion

        return Ingestion(self.store, lambda image: self.encode(self._features_of(image, {})), self.limits)

    def add(
        self,
        photo: PhotoSource,
        *,
        landmark: str,
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        channel_order: ChannelOrder | None = None,
        thumbnail: bool = False,
        tiny: bool = False,
        replace: bool = False,
    ) -> AddResult:
        """Store a photo of a landmark, durably when this returns.

        The same photo twice is one image: it keeps its id and takes the new landmark, name and metadata. Another photo
        never loses its name to this one, unless `replace` says so, or no name is given and the file is the same: its
        new content replaces the old.

        Args:
            photo: path, bytes of an image file, open file, Pillow image, or uint8 array (H, W, 3) with `channel_order`.
            landmark: name of the place.
            name: name of the image, unique in the database; default: the path as given, or the start of the content
                hash.
            metadata: anything JSON can hold.
            channel_order: "RGB" or "BGR", for arrays.
            thumbnail: keep a small JPEG of the photo in the database, for showing it later.
            tiny: keep only the best features, as many as 1 KB holds. A photo that is stored already keeps its features.
            replace: if another photo has this name, remove that.

        Raises:
            ImageError: the photo cannot be used; nothing was stored.
            NameTakenError: another photo has this name; nothing was stored.
            OptionError: a name is no text or blank, or JSON cannot hold the metadata; nothing was stored.
            StoreError: the database cannot be written; nothing was stored.
        """
        from delf_edge.ingestion import AddItem

        return self._ingestion.add(AddItem(photo, landmark, name, metadata, channel_order, thumbnail, tiny, replace))

    def add_many(
        self, items: Iterable[AddItem], *, on_error: Literal["raise", "collect"] = "raise"
    ) -> Iterator[AddResult | AddError]:
        """Store photos one after the other, each durably when it is yielded.

        Args:
            items: what to add.
            on_error: "collect" yields an `AddError` for a photo, name or metadata that cannot be used and goes on.

        Raises:
            ImageError: with "raise", the first photo that cannot be used.
            OptionError: with "raise", the first name or metadata that cannot be stored.
            StoreError: the database cannot be written, in either mode.
        """
        return self._ingestion.add_many(items, on_error)

    def encode(self, features: Features) -> Codes:
        """The stored form of features."""
        words, _ = self._coarse.assign(features.descriptors, exact=True)
        return encode(features, words[:, 0], self.bundle.codebook)

    def remove(self, image: str | int) -> int:
        """Remove an image by name or id; returns its id.

        Raises:
            NotFoundError: there is none in the database; images of packs cannot be removed.
        """
        name = image if isinstance(image, str) else self.store.image(image).name
        return self.store.remove(name)[0]

    def remove_landmark(self, landmark: str) -> list[int]:
        """Remove a landmark, its coordinates and all its images in one transaction; returns the ids of the images.

        Raises:
            NotFoundError: there is no such landmark.
        """
        return self.store.remove_landmark(landmark)

    def rename_landmark(self, old: str, new: str, *, merge: bool = False) -> int:
        """Give a landmark another name, by which `delf-edge index` then knows its folder too; returns its id.

        Args:
            old: its name.
            new: the other name.
            merge: allow that another landmark is called so; it gets the images.

        Raises:
            NotFoundError: there is no landmark of the old name.
            OptionError: another landmark has the new name, or it is empty.
        """
        return self.store.rename_landmark(old, new, merge=merge)

    def relabel(self, image: str | int, landmark: str) -> int:
        """Say that an image shows another landmark; returns its id.

        Raises:
            NotFoundError: there is no such image.
        """
        name = image if isinstance(image, str) else self.store.image(image).name
        return self.store.relabel(name, landmark)

    # ------------------------------------------------------------------ asking

    def extract(
        self,
        photo: PhotoSource,
        *,
        channel_order: ChannelOrder | None = None,
        timings: dict[str, float] | None = None,
    ) -> Features:
        """The features of a photo, as they would be stored or searched with.

        Args:
            photo: as for `identify`.
            channel_order: "RGB" or "BGR", for arrays.
            timings: filled with milliseconds per stage.

        Raises:
            ImageError: the photo cannot be used.
        """
        timings = {} if timings is None else timings
        return self._features_of(self._decoded(photo, channel_order, timings), timings)

    def _decoded(self, photo: PhotoSource, channel_order: ChannelOrder | None, timings: dict[str, float]) -> Image:
        with clock(timings, "decode"):
            return load_image(photo, channel_order=channel_order, limits=self.limits)

    def _features_of(self, image: Image, timings: dict[str, float]) -> Features:
        return self._extractor.extract(image, self._extract_options, timings)

    def _glance_of(self, image: Image, timings: dict[str, float]) -> Features:
        """Features of the smallest scale alone."""
        options = replace(self._extract_options, scales=(min(self._extract_options.scales),))
        return self._extractor.extract(image, options, timings)

    def identify(
        self,
        photo: PhotoSource,
        *,
        top: int = 5,
        channel_order: ChannelOrder | None = None,
        deadline_ms: float | None = None,
        options: IdentifyOptions | None = None,
    ) -> Answer:
        """Name the landmark a photo shows, or say that it is unknown.

        Args:
            photo: path, bytes of an image file, open file, Pillow image, or uint8 array (H, W, 3) with `channel_order`.
            top: landmarks listed in `Answer.results` at most.
            channel_order: "RGB" or "BGR", for arrays.
            deadline_ms: milliseconds after which no further candidate is checked; the answer then says so.
            options: see `IdentifyOptions`.

        Raises:
            ImageError: the photo cannot be used.
            StoreError: the database cannot be read.
        """
        timings: dict[str, float] = {}
        query = PhotoQuery(self.pipeline, self._features_of, deadline_ms, self._glance_of)
        with self._packs.pin():
            image = self._decoded(photo, channel_order, timings)
            return query.identify(image, options or IdentifyOptions(), top, timings).answer

    def identify_many(
        self,
        photos: Iterable[PhotoSource],
        *,
        top: int = 5,
        channel_order: ChannelOrder | None = None,
        deadline_ms: float | None = None,
        options: IdentifyOptions | None = None,
    ) -> Iterator[Answer]:
        """The answers to photos, one after the other, each when it is asked for; arguments as `identify`.

        Raises:
            ImageError: a photo cannot be used. The iterator ends there: where bad photos are to be passed over, call
                `identify` for each.
            StoreError: the database cannot be read.
        """
        for photo in photos:
            yield self.identify(photo, top=top, channel_order=channel_order, deadline_ms=deadline_ms, options=options)

    def explain(
        self,
        photo: PhotoSource,
        *,
        channel_order: ChannelOrder | None = None,
        deadline_ms: float | None = None,
        options: IdentifyOptions | None = None,
    ) -> Explanation:
        """Identify a photo and return the matched points as proof; arguments and errors as `identify`."""
        proofs = self.explain_all(photo, limit=1, channel_order=channel_order, deadline_ms=deadline_ms, options=options)
        return proofs[0]

    def explain_all(
        self,
        photo: PhotoSource,
        *,
        limit: int = 3,
        channel_order: ChannelOrder | None = None,
        deadline_ms: float | None = None,
        options: IdentifyOptions | None = None,
    ) -> list[Explanation]:
        """All landmarks in one photo, each with its proof; arguments and errors as `identify`.

        The first is what `explain` returns. After every landmark that is found, the features inside the convex hull
        of its matched points are set aside and the rest is asked for another landmark, by the same rules; then parts
        of the photo beside the proofs, with features of their own (`IdentifyOptions.anew`). So two landmarks are never
        proven by the same part of the photo.

        Args:
            limit: landmarks returned at most.

        Returns:
            At least one; only the first may be unknown.
        """
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise OptionError(f"limit is {limit!r}; it must be a whole number, at least 1")
        timings: dict[str, float] = {}
        query = PhotoQuery(self.pipeline, self._features_of, deadline_ms, self._glance_of)
        with self._packs.pin():
            image = self._decoded(photo, channel_order, timings)
            return query.explain_all(image, options or IdentifyOptions(), limit, timings)

    def search(
        self,
        photo: PhotoSource,
        top_k: int = 100,
        *,
        channel_order: ChannelOrder | None = None,
        options: IdentifyOptions | None = None,
    ) -> list[Match]:
        """Rank stored images by how likely they show the photo's place; every image, not one per landmark.

        Args:
            photo: as for `identify`.
            top_k: images returned at most.
            channel_order: "RGB" or "BGR", for arrays.
            options: see `IdentifyOptions`; `certain` does not apply. None: the defaults, but 40 candidates checked.

        Raises:
            ImageError: the photo cannot be used.
        """
        features = self.extract(photo, channel_order=channel_order)
        return self.rank(features, top_k, options=options)

    def rank(self, features: Features, top_k: int = 100, *, options: IdentifyOptions | None = None) -> list[Match]:
        """As `search`, for features that were extracted before."""
        with self._packs.pin():
            return self.pipeline.rank(features, top_k, options)

    # ------------------------------------------------------------------ the file

    def info(self) -> StoreInfo:
        """Facts about the database."""
        return self.store.info()

    def verify(self) -> list[Problem]:
        """Check every checksum of the database; an empty list is a clean file."""
        return self.store.verify()

    def snapshot(self, target: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Copy the database while it is in use."""
        return self.store.snapshot(target, overwrite=overwrite)
