"""The one path through all stages: add, remove, identify.

::

    with Recognizer.open("places.db") as places:
        places.add("eiffel.jpg", landmark="Eiffel Tower")
        answer = places.identify("holiday.jpg")
        print(answer.landmark, answer.probability, answer.n_inliers)
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

from delf_edge.bundle import Bundle, default_bundle_path
from delf_edge.candidates import CandidateIndex, SearchOptions
from delf_edge.coarse import CoarseIndex
from delf_edge.codec import CodeLayout, TurnedDecoder, encode
from delf_edge.codec import tiny as shortened
from delf_edge.decision import Calibration
from delf_edge.errors import DelfEdgeError, ImageError, NotFoundError, OptionError
from delf_edge.expansion import expand
from delf_edge.features import Extractor, clock, extract_options
from delf_edge.following import Following, marks
from delf_edge.images import ChannelOrder, PhotoSource, content_hash, load_image, make_thumbnail, read_photo
from delf_edge.index_file import index_path
from delf_edge.installed import open_packs
from delf_edge.position import Near
from delf_edge.shelf import Shelf
from delf_edge.store import NewImage, Problem, Store, StoredImage, StoreInfo
from delf_edge.types import Answer, BoolArray, Candidate, Codes, Features, Float32Array, Image, Match, Verification
from delf_edge.verification import VerifyOptions, outside_hull, verify

_READ_AHEAD = 8  # candidates whose codes, or rows, are read at a time


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
    """

    search: SearchOptions = field(default_factory=SearchOptions)
    geometry: VerifyOptions = field(default_factory=VerifyOptions)
    verify: int = 20
    certain: float = 0.95
    min_inliers: int = 6
    near: Near | None = None
    without: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.verify < 0 or self.min_inliers < 0 or not 0 < self.certain <= 1:
            raise OptionError(f"verify and min_inliers must not be negative, certain must be in (0, 1]: {self}")


RANKING = IdentifyOptions(verify=40)  # of `search` and `rank`


@dataclass(frozen=True, slots=True, eq=False)
class AddItem:
    """A photo to add with `Recognizer.add_many`."""

    photo: PhotoSource
    landmark: str
    name: str | None = None
    metadata: Mapping[str, Any] | None = None
    channel_order: ChannelOrder | None = None
    thumbnail: bool = False
    tiny: bool = False


@dataclass(frozen=True, slots=True)
class AddResult:
    """What became of an added photo.

    Attributes:
        image_id: its id in the store.
        name, landmark: as stored.
        status: "added"; "unchanged", the same photo was there with the same landmark; "updated", the same photo got a
            new name or landmark; "replaced", another photo had this name.
        n_features: features stored.
    """

    image_id: int
    name: str
    landmark: str
    status: Literal["added", "unchanged", "updated", "replaced"]
    n_features: int


@dataclass(frozen=True, slots=True, eq=False)
class AddError:
    """A photo that could not be added: its name and why."""

    name: str
    error: DelfEdgeError


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """The proof of an answer.

    Attributes:
        answer: what `identify` returns.
        image: the decoded query; keypoints of the query refer to it.
        query_keypoints, stored_keypoints: float32 (P, 2), the inliers, (x, y) in pixels of the query and of the stored
            image; empty where nothing was verified.
        stored: the stored image's row, None where there is no candidate.
    """

    answer: Answer
    image: Image
    query_keypoints: Float32Array
    stored_keypoints: Float32Array
    stored: StoredImage | None


class Recognizer:
    """A database of places, open for adding and asking. Use as a context manager; safe to share between threads.

    Attributes:
        bundle: the loaded model.
        store: the database file.
    """

    def __init__(
        self,
        store: Store,
        bundle: Bundle,
        *,
        preset: str | None = None,
        num_threads: int = 1,
        packs: Sequence[Store] = (),
        follow: Callable[[Shelf, CandidateIndex], Following] = Following,
    ) -> None:
        """Use `Recognizer.open`."""
        self.store, self.bundle = store, bundle
        self._extractor = Extractor(bundle, num_threads=num_threads)
        self._extract_options = extract_options(bundle, preset)
        self._calibration = Calibration.from_mapping(bundle.calibration)
        self._coarse, self._decoder = CoarseIndex(bundle.codebook.centroids), TurnedDecoder(bundle.codebook)
        shelf = Shelf(store, packs)
        self._packs = follow(shelf, CandidateIndex.from_store(shelf, index_path(store.path), store))

    @property
    def shelf(self) -> Shelf:
        """The database and the packs beside it, read as one; see `steady`."""
        return self._packs.now.shelf

    @property
    def _index(self) -> CandidateIndex:
        return self._packs.now.index

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        bundle: str | os.PathLike[str] | Bundle | None = None,
        preset: str | None = None,
        read_only: bool = False,
        num_threads: int = 1,
        packs: Sequence[str | os.PathLike[str]] = (),
    ) -> Self:
        """Open a database, creating it if need be.

        Args:
            path: the SQLite file.
            bundle: folder of a model bundle, or a loaded one; default: the one that came with the package.
            preset: extraction preset of the bundle, such as "fast" or "balanced"; default: the bundle's own.
            read_only: never write to the database; the file must exist.
            num_threads: threads of the network.
            packs: read-only packs to search as well; a folder stands for the packs that `delf-edge update` installed
                there. Their bytes are compared with their manifests. A version that is put into use in a folder later
                is taken up at a query, within seconds (`following`).

        Raises:
            BundleError: the bundle is damaged or unknown to this SDK.
            StoreError: the file is damaged, locked, newer, or was made with another bundle.
            PackError: a pack is absent, or not what its manifest says.
            OptionError: there is no such preset.
        """
        loaded = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle or default_bundle_path())
        layout = CodeLayout.of(loaded.codebook)
        folders = [Path(place) for place in packs if Path(place).is_dir()]
        mark = marks(folders)
        with ExitStack() as opened:  # closed again where something fails
            store = opened.enter_context(
                Store.open(path, bundle_id=loaded.id, layout=layout, mode="ro" if read_only else "rw")
            )
            beside = [
                opened.enter_context(pack)
                for place in packs
                for pack in open_packs(place, bundle_id=loaded.id, layout=layout)
            ]
            follow = partial(Following, folders=folders, mark=mark)
            recognizer = cls(store, loaded, preset=preset, num_threads=num_threads, packs=beside, follow=follow)
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
    def steady(self) -> Iterator[Shelf]:
        """Inside the block this thread sees the same packs at every call, whatever is switched meanwhile."""
        with self._packs.use() as view:
            yield view.shelf

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

    # ------------------------------------------------------------------ changing

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
    ) -> AddResult:
        """Store a photo of a landmark, durably when this returns.

        The same photo twice is one image: it keeps its id and takes the new landmark, name and metadata.

        Args:
            photo: path, encoded bytes, or uint8 array (H, W, 3) with `channel_order`.
            landmark: name of the place.
            name: name of the image, unique in the database; default: the path as given, or the start of the content
                hash.
            metadata: anything JSON can hold.
            channel_order: "RGB" or "BGR", for arrays.
            thumbnail: keep a small JPEG of the photo in the database, for showing it later.
            tiny: keep only the best features, as many as 1 KB holds. A photo that is stored already keeps its features.

        Raises:
            ImageError: the photo cannot be used; nothing was stored.
            StoreError: the database cannot be written; nothing was stored.
        """
        return self._add(AddItem(photo, landmark, name, metadata, channel_order, thumbnail, tiny))

    def add_many(
        self, items: Iterable[AddItem], *, on_error: Literal["raise", "collect"] = "raise"
    ) -> Iterator[AddResult | AddError]:
        """Store photos one after the other, each durably when it is yielded.

        Args:
            items: what to add.
            on_error: "collect" yields an `AddError` for a photo that cannot be used and goes on.

        Raises:
            ImageError: with "raise", the first photo that cannot be used.
            StoreError: the database cannot be written, in either mode.
        """
        if on_error not in ("raise", "collect"):
            raise OptionError(f"on_error={on_error!r}: must be 'raise' or 'collect'")
        for item in items:
            try:
                result: AddResult | AddError = self._add(item)
            except ImageError as e:
                if on_error == "raise":
                    raise
                result = AddError(item.name or _name_of(item.photo, b""), e)
            yield result

    def _add(self, item: AddItem) -> AddResult:
        photo = item.photo
        if isinstance(photo, str | os.PathLike):
            photo = read_photo(photo)  # once, so that what is hashed is what is stored
        digest = content_hash(photo, channel_order=item.channel_order)
        name = item.name or _name_of(item.photo, digest)
        known = self.store.find_content(digest)
        codes: Codes | None = None
        if known is not None:
            stored = self.store.image(known)
            codes = self.store.codes([known]).get(known)
            metadata = stored.metadata if item.metadata is None else item.metadata
            same = (stored.name, stored.landmark, stored.metadata) == (name, item.landmark, metadata)
            pictured = not item.thumbnail or self.store.thumbnail(known) is not None
            if codes is not None and same and pictured:
                return AddResult(known, name, item.landmark, "unchanged", len(codes))
        else:
            metadata = item.metadata or {}
        small: bytes | None = None
        if codes is None or item.thumbnail:
            image = load_image(photo, channel_order=item.channel_order)
            small = make_thumbnail(image) if item.thumbnail else None
            if codes is None:
                codes = self.encode(self._extractor.extract(image, self._extract_options))
                codes = shortened(codes) if item.tiny else codes
        added = self.store.add(NewImage(name, item.landmark, digest, codes, metadata, small))
        return AddResult(added.image_id, name, item.landmark, added.status, len(codes))

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
        """Remove all images of a landmark in one transaction; returns their ids.

        Raises:
            NotFoundError: no image shows it.
        """
        names = [image.name for image in self.store.images_by_id(self.store.image_ids(landmark))]
        if not names:
            raise NotFoundError(f"{self.store.path}: no image shows {landmark!r}")
        return self.store.remove(*names)

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
            photo: path, encoded bytes, or uint8 array.
            channel_order: "RGB" or "BGR", for arrays.
            timings: filled with milliseconds per stage.

        Raises:
            ImageError: the photo cannot be used.
        """
        return self._extract(photo, channel_order, {} if timings is None else timings)[1]

    def _extract(
        self, photo: PhotoSource, channel_order: ChannelOrder | None, timings: dict[str, float]
    ) -> tuple[Image, Features]:
        with clock(timings, "decode"):
            image = load_image(photo, channel_order=channel_order)
        return image, self._extractor.extract(image, self._extract_options, timings)

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
            photo: path, encoded bytes, or uint8 array (H, W, 3) with `channel_order`.
            top: landmarks listed in `Answer.matches` at most.
            channel_order: "RGB" or "BGR", for arrays.
            deadline_ms: milliseconds after which no further candidate is checked; the answer then says so.
            options: see `IdentifyOptions`.

        Raises:
            ImageError: the photo cannot be used.
            StoreError: the database cannot be read.
        """
        with self._packs.use():
            return self._identify(photo, top, channel_order, deadline_ms, options or IdentifyOptions())[0]

    def identify_many(self, photos: Iterable[PhotoSource], *, top: int = 5) -> Iterator[Answer]:
        """Answers to photos, in order."""
        for photo in photos:
            yield self.identify(photo, top=top)

    def explain(
        self,
        photo: PhotoSource,
        *,
        channel_order: ChannelOrder | None = None,
        deadline_ms: float | None = None,
        options: IdentifyOptions | None = None,
    ) -> Explanation:
        """Identify a photo and return the matched points as proof; arguments and errors as `identify`."""
        with self._packs.use():
            answer, image, features = self._identify(photo, 5, channel_order, deadline_ms, options or IdentifyOptions())
            return self._explanation(answer, image, features)

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
        of its matched points are set aside and the rest is asked for another landmark, by the same rules. So two
        landmarks are never proven by the same part of the photo.

        Args:
            limit: landmarks returned at most.

        Returns:
            At least one; only the first may be unknown.
        """
        with self._packs.use():
            return self._explain_all(photo, limit, channel_order, deadline_ms, options or IdentifyOptions())

    def _explain_all(
        self,
        photo: PhotoSource,
        limit: int,
        channel_order: ChannelOrder | None,
        deadline_ms: float | None,
        options: IdentifyOptions,
    ) -> list[Explanation]:
        answer, image, features = self._identify(photo, 5, channel_order, deadline_ms, options)
        found = [self._explanation(answer, image, features)]
        while answer.landmark is not None and len(found) < limit:
            features = _subset(features, outside_hull(features.keypoints, found[-1].query_keypoints))
            options = replace(options, without=options.without | {answer.landmark})
            answer = self._ask(features, 5, deadline_ms, options, {})
            if answer.found:
                found.append(self._explanation(answer, image, features))
        return found

    def _explanation(self, answer: Answer, image: Image, features: Features) -> Explanation:
        proof = answer.verification
        codes = None if proof is None else self.shelf.codes([proof.image_id]).get(proof.image_id)
        stored = None if proof is None else self.shelf.images_by_id([proof.image_id])
        if proof is None or codes is None or not stored:
            nowhere = np.zeros((0, 2), np.float32)
            return Explanation(answer, image, nowhere, nowhere, None)
        pairs = proof.matches[proof.inliers]
        return Explanation(answer, image, features.keypoints[pairs[:, 0]], codes.keypoints[pairs[:, 1]], stored[0])

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
            photo: path, encoded bytes, or uint8 array.
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
        options = options or RANKING
        with self._packs.use():
            self._index.refresh(self.shelf)
            candidates = self._candidates(features, options, top_k)
            checked = {c.image_id: v for c, v in self._verify(features, candidates[: options.verify], options)}
            scores = self._scores(features, candidates, checked)
            return self._matches(scores, candidates, checked, lift=self._lift(features, candidates, checked))[:top_k]

    def _identify(
        self,
        photo: PhotoSource,
        top: int,
        channel_order: ChannelOrder | None,
        deadline_ms: float | None,
        options: IdentifyOptions,
    ) -> tuple[Answer, Image, Features]:
        timings: dict[str, float] = {}
        image, features = self._extract(photo, channel_order, timings)
        return self._ask(features, top, deadline_ms, options, timings), image, features

    def _ask(
        self,
        features: Features,
        top: int,
        deadline_ms: float | None,
        options: IdentifyOptions,
        timings: dict[str, float],
    ) -> Answer:
        """Answer for features; `timings` holds what extracting them took."""
        began = time.perf_counter() - sum(timings.values()) / 1000
        with clock(timings, "refresh"):
            self._index.refresh(self.shelf)
        with clock(timings, "candidates"):
            candidates = self._candidates(features, options, options.search.top)
        checked: dict[int, Verification] = {}
        scores = self._scores(features, candidates, checked)
        landmarks: dict[int, str | None] = {}
        cut = False
        with clock(timings, "verify"):
            shortlist = candidates[: options.verify]
            for done, (candidate, verification) in enumerate(self._verify(features, shortlist, options), 1):
                checked[candidate.image_id] = verification
                scores |= self._scores(features, [candidate], checked)
                if done == len(shortlist):
                    break
                if deadline_ms is not None and (time.perf_counter() - began) * 1000 > deadline_ms:
                    cut = True
                    break
                if done % 3 == 0 and self._is_certain(scores, checked, options, landmarks):
                    break
        matches = _one_per_landmark(self._matches(scores, candidates, checked, top))
        timings["total"] = (time.perf_counter() - began) * 1000
        return self._answer(features, matches[:top], checked, cut, options, timings)

    def _candidates(self, features: Features, options: IdentifyOptions, top: int) -> list[Candidate]:
        weights = self._calibration  # candidates come in the order of their score before verification
        balance = weights.similarity / weights.votes if weights.votes > 0 else options.search.global_weight
        search = replace(options.search, top=max(top, options.verify, 1), global_weight=balance)
        without = self._excluded(options)
        return self._index.search(features, self.bundle.codebook, self._coarse, search, without=without)

    def _excluded(self, options: IdentifyOptions) -> list[int]:
        """Ids of the images that `near` and `without` rule out."""
        landmarks = set(options.without)
        if options.near is not None:
            places = self.shelf.landmarks()
            landmarks |= {p.name for p in places if not options.near.holds(p.latitude, p.longitude)}
        return [image_id for landmark in sorted(landmarks) for image_id in self.shelf.image_ids(landmark)]

    def _verify(
        self, features: Features, candidates: Sequence[Candidate], options: IdentifyOptions
    ) -> Iterator[tuple[Candidate, Verification]]:
        """Check candidates in order; one that vanished or is damaged counts as not verified."""
        codes: dict[int, Codes] = {}
        turned = replace(features, descriptors=self._decoder.turn(features.descriptors))
        for i, candidate in enumerate(candidates):
            if i % _READ_AHEAD == 0:  # the answer is often certain after a few: do not read them all
                codes = self.shelf.codes([c.image_id for c in candidates[i : i + _READ_AHEAD]])
            stored = codes.get(candidate.image_id)
            if stored is None:
                continue
            descriptors, size = self._decoder.decode(stored), stored.image_size
            yield candidate, verify(candidate.image_id, turned, descriptors, stored.keypoints, size, options.geometry)

    def _lift(
        self, features: Features, candidates: Sequence[Candidate], checked: Mapping[int, Verification]
    ) -> dict[int, float]:
        """What query expansion and support add to the score of each candidate, by image id."""
        known = self._index.global_descriptors([c.image_id for c in candidates])
        similarity = np.array([c.similarity for c in candidates], np.float64)
        inliers = [checked[c.image_id].n_inliers if c.image_id in checked else 0 for c in candidates]
        expanded = expand(self._calibration, features.global_descriptor, known, similarity, np.array(inliers, np.int64))
        gain = self._calibration.similarity * (expanded - similarity)
        return dict(zip((c.image_id for c in candidates), gain.tolist(), strict=True))

    def _scores(
        self, features: Features, candidates: Iterable[Candidate], checked: Mapping[int, Verification]
    ) -> dict[int, float]:
        """Scores of candidates by image id; one that is not in `checked` counts as not verified."""
        return {
            c.image_id: self._calibration.score(
                c.votes / max(len(features), 1),
                c.similarity,
                checked[c.image_id].n_inliers if c.image_id in checked else 0,
            )
            for c in candidates
        }

    def _is_certain(
        self,
        scores: Mapping[int, float],
        checked: Mapping[int, Verification],
        options: IdentifyOptions,
        landmarks: dict[int, str | None],
    ) -> bool:
        """Whether the best verified image is beyond doubt against the rest as it stands.

        `scores` are those of all candidates, by image id. `landmarks` remembers what was read of the store, from one
        call for a query to the next.
        """
        scored = sorted(((score, image_id) for image_id, score in scores.items()), reverse=True)
        (score, best), rest = scored[0], scored[1:]
        if best not in checked or checked[best].n_inliers < 3 * options.min_inliers:
            return False  # an image that is not verified yet scores higher, or the best one proves too little
        if self._calibration.probability(score, score) < options.certain:
            return False  # even without a rival
        rival = 0.0
        for i in range(0, len(rest), _READ_AHEAD):
            part = rest[i : i + _READ_AHEAD]
            self._read_landmarks([best, *(image_id for _, image_id in part)], landmarks)
            others = [s for s, i in part if landmarks[i] not in (None, landmarks[best])]
            if others:
                rival = others[0]
                break
        return self._calibration.probability(score, score - rival) >= options.certain

    def _read_landmarks(self, image_ids: Sequence[int], landmarks: dict[int, str | None]) -> None:
        """Add the landmarks of images to what is known; None for an image that is gone or damaged."""
        wanted = [i for i in image_ids if i not in landmarks]
        landmarks.update(dict.fromkeys(wanted))
        landmarks.update((row.image_id, row.landmark) for row in self.shelf.images_by_id(wanted))

    def _matches(
        self,
        scores: Mapping[int, float],
        candidates: Sequence[Candidate],
        checked: Mapping[int, Verification],
        n_landmarks: int | None = None,
        lift: Mapping[int, float] | None = None,
    ) -> list[Match]:
        """Candidates as matches, best score first; those whose row is gone or damaged are left out.

        `scores` are those of all candidates, by image id. With `n_landmarks`, the list may end once it holds images of
        that many landmarks: the rest need not be read.
        `lift` changes the order, not the probabilities.
        """
        scored = [(scores[c.image_id] + (lift[c.image_id] if lift else 0.0), c) for c in candidates]
        scored.sort(key=lambda pair: (-pair[0], pair[1].image_id))
        enough = len(scored) if n_landmarks is None else max(2, n_landmarks)  # the second one is the first one's rival
        step = len(scored) if n_landmarks is None else 2 * _READ_AHEAD
        found: list[tuple[float, Candidate, StoredImage]] = []
        best: dict[str, float] = {}
        for i in range(0, len(scored), max(1, step)):
            part = scored[i : i + step]
            rows = {row.image_id: row for row in self.shelf.images_by_id([c.image_id for _, c in part])}
            found += [(score, c, rows[c.image_id]) for score, c in part if c.image_id in rows]
            for _, candidate, row in found[-len(part) :]:
                best[row.landmark] = max(scores[candidate.image_id], best.get(row.landmark, -np.inf))
            if len(best) >= enough:
                break
        first, second = (*sorted(best.items(), key=lambda item: -item[1])[:2], ("", 0.0), ("", 0.0))[:2]
        matches = []
        for score, candidate, row in found:
            rival = second[1] if row.landmark == first[0] else first[1]
            verification = checked.get(candidate.image_id)
            matches.append(
                Match(
                    candidate.image_id,
                    row.name,
                    row.landmark,
                    score,
                    self._calibration.probability(scores[candidate.image_id], scores[candidate.image_id] - rival),
                    0 if verification is None else verification.n_inliers,
                    candidate.similarity,
                )
            )
        return matches

    def _answer(
        self,
        features: Features,
        matches: Sequence[Match],
        checked: Mapping[int, Verification],
        cut: bool,
        options: IdentifyOptions,
        timings: dict[str, float],
    ) -> Answer:
        threshold = self._calibration.threshold
        suffix = "; checking was cut short by the deadline" if cut else ""
        if not matches:
            why = "the photo has no features" if not len(features) else "the database has no image like it"
            return Answer(None, None, 0.0, 0, why + suffix, milliseconds=timings)
        best = matches[0]
        proof = checked.get(best.image_id)
        evidence = f"{best.n_inliers} matched points, probability {best.probability:.2f}"
        found = best.probability >= threshold and best.n_inliers >= options.min_inliers
        if found:
            why = f"{evidence}, threshold {threshold:.2f}"
        elif best.n_inliers < options.min_inliers:
            why = f"the best image, {best.name}, has {evidence}; {options.min_inliers} points are needed"
        else:
            why = f"the best image, {best.name}, has {evidence}, below the threshold {threshold:.2f}"
        return Answer(
            best.landmark if found else None,
            best.name if found else None,
            best.probability,
            best.n_inliers,
            why + suffix,
            tuple(matches),
            proof,
            timings,
        )

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


def _name_of(photo: PhotoSource, digest: bytes) -> str:
    return os.fspath(photo) if isinstance(photo, str | os.PathLike) else f"photo-{digest.hex()[:12]}"


def _subset(features: Features, keep: BoolArray) -> Features:
    return replace(
        features,
        keypoints=features.keypoints[keep],
        scales=features.scales[keep],
        scores=features.scores[keep],
        descriptors=features.descriptors[keep],
    )


def _one_per_landmark(matches: Iterable[Match]) -> list[Match]:
    best: dict[str, Match] = {}
    for match in matches:
        best.setdefault(match.landmark, match)
    return list(best.values())
