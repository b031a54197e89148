"""Test vectors that the Python code makes and `web-sdk/` must reach: pixels, levels, features, words, votes, answers.

``python -m testing.web_sdk_vectors`` writes them to `web-sdk/tests/vectors` anew. What the networks gave is part of the
vectors, rounded to 16 bits: they differ in the last digits from one processor to the next, and the rest shall not.

Make them anew when the default bundle changes. Words are found by comparing all, as in a browser, not by the graph.

* `vectors.npz` the arrays, `vectors.json` the rest, `demo.pack` a pack of eight demo references.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import cv2
import numpy as np
from numpy.typing import NDArray

from delf_edge import AddItem, Recognizer
from delf_edge.camera.temporal_voting import Voter
from delf_edge.features import extractor
from delf_edge.features.network import Engine
from delf_edge.features.pyramid import build_pyramid
from delf_edge.images.decode import load_image
from delf_edge.images.quality import measure
from delf_edge.index.search import SearchOptions
from delf_edge.packs.create import cut_pack
from delf_edge.quantization.coarse_quantizer import CoarseIndex
from delf_edge.query.options import IdentifyOptions
from delf_edge.types import Float32Array, Image
from testing.paths import ROOT

FOLDER = ROOT / "web-sdk" / "tests" / "vectors"
DEMO = ROOT / "assets" / "demo"
LANDMARKS = (
    "Brandenburg Gate",
    "Colosseum",
    "Hawa Mahal",
    "Mount Rushmore",
    "Petra",
    "Taj Mahal",
    "Konark Sun Temple",
    "Charminar",
)
QUERIES = ("brandenburgGate", "mountRushmore", "zimniPalace")
SIDE = 160  # pixels of the longer side: small pictures make small files
CHECKED = 5  # candidates whose verification is noted
# (width, height) before and after, as the pyramid and the gate resize
SIZES = (
    ((40, 30), (20, 15), "area"),
    ((41, 30), (21, 15), "linear"),
    ((47, 33), (32, 21), "linear"),
    ((48, 32), (16, 8), "area"),
    ((47, 33), (25, 18), "area"),
    ((20, 15), (40, 30), "linear"),
    ((23, 31), (31, 40), "linear"),
)
# of frames: seconds, and what was named
STORY: tuple[tuple[float, dict[str, float]], ...] = (
    (0.0, {"A": 0.9}),
    (0.5, {"A": 0.99}),
    (1.0, {}),
    (1.5, {"A": 0.95}),
    (2.0, {"B": 0.9}),
    (2.5, {"B": 0.97}),
    (3.0, {"B": 0.99}),
    (3.5, {"B": 0.99}),
    (4.0, {}),
    (7.0, {}),
    (7.5, {}),
    (8.0, {"A": 0.99}),
    (8.5, {"A": 0.99}),
)

Arrays = dict[str, NDArray[Any]]
Maps = dict[str, Float32Array]


@contextmanager
def networks(maps: Maps, prefix: str) -> Iterator[None]:
    """Networks that give what `maps` holds for a size of input; the rest is run, rounded, and put there."""

    class Remembering(Engine):
        def run(self, array: Float32Array) -> dict[str, Float32Array]:
            key = "{}/{}x{}x{}".format(prefix, *array.shape[1:])
            if not any(name.startswith(f"{key}/") for name in maps):
                for name, values in super().run(array).items():
                    maps[f"{key}/{name}"] = values.astype(np.float16).astype(np.float32)
            return {name.rpartition("/")[2]: v for name, v in maps.items() if name.startswith(f"{key}/")}

    with mock.patch.object(extractor, "Engine", Remembering):
        yield


def small_query(name: str) -> Image:
    """A demo query, made small."""
    photo = load_image(DEMO / "queries" / f"{name}.webp")
    factor = SIDE / max(photo.size)
    size = round(photo.size[0] * factor), round(photo.size[1] * factor)
    return Image(cv2.resize(photo.pixels, size, interpolation=cv2.INTER_AREA), size)


def make_pack(folder: Path) -> None:
    """The pack of the references of `LANDMARKS`, as `demo.pack`."""
    with TemporaryDirectory() as work, Recognizer.open(Path(work) / "demo.db") as places:
        for name in LANDMARKS:
            photo = next((DEMO / "references" / name).iterdir())
            list(places.add_many([AddItem(photo, name, f"{name}/{photo.name}")]))
        cut_pack(places.store, folder / "demo.pack", name="demo", version=1, overwrite=True)


def compute(folder: Path, arrays: Arrays, maps: Maps) -> tuple[Arrays, dict[str, Any]]:
    """All vectors, from the pixels and maps that are there, and the pack in `folder`."""
    found: Arrays = {"draws": np.random.default_rng(0).random((1000, 3))[::50]}
    facts: dict[str, Any] = {"resize": [], "queries": {}, "story": _told()}
    for i, (_, after, way) in enumerate(SIZES):
        how = cv2.INTER_AREA if way == "area" else cv2.INTER_LINEAR
        found[f"resize/{i}/out"] = cv2.resize(arrays[f"resize/{i}/in"], after, interpolation=how)
        facts["resize"].append(way)
    for name in QUERIES:
        with networks(maps, name), Recognizer.open(folder / "demo.pack", read_only=True) as places:
            own, facts["queries"][name] = _of_query(places, arrays[f"{name}/pixels"])
        found |= {f"{name}/{key}": value for key, value in own.items()}
    return found, facts


def _of_query(places: Recognizer, pixels: NDArray[np.uint8]) -> tuple[Arrays, dict[str, Any]]:
    image, options = (
        Image(pixels, (pixels.shape[1], pixels.shape[0])),
        IdentifyOptions(search=SearchOptions(exact_words=True)),
    )
    bundle, pipeline = places.bundle, places.pipeline
    scales = extractor.extract_options(bundle).scales
    features = places.extract(pixels, channel_order="RGB")
    words, similarity = CoarseIndex(bundle.codebook.centroids).assign(features.descriptors, 8)
    candidates, strangers, _ = pipeline.look_up(features, options, options.search.top)
    checked = [check for _, check in pipeline.verified(features, candidates[:CHECKED], options)]
    answer = pipeline.answer(features, options)
    frame = measure(pixels, "RGB")
    arrays: Arrays = {
        "keypoints": features.keypoints,
        "scores": features.scores,
        "descriptors": features.descriptors,
        "global": features.global_descriptor,
        "words": words,
        "word_similarity": similarity,
        "transforms": np.stack([check.transform for check in checked]),
        "small": frame.small,
    }
    facts = {
        "levels": [
            {"size": [level.pixels.shape[1], level.pixels.shape[0]], "crc32": zlib.crc32(level.pixels.tobytes())}
            for level in build_pyramid(image, scales)
        ],
        "candidates": [[c.image_id, c.score, c.votes, c.similarity] for c in candidates],
        "strangers": [[c.image_id, c.score, c.votes, c.similarity] for c in strangers],
        "matches": [len(check.matches) for check in checked],
        "inliers": [check.n_inliers for check in checked],
        "answer": {
            "landmark": answer.landmark,
            "image": answer.image,
            "probability": answer.probability,
            "nInliers": answer.n_inliers,
            "reason": answer.reason,
            "results": [[m.landmark, m.score, m.probability, m.n_inliers] for m in answer.results],
        },
        "frame": [frame.brightness, frame.bright_share, frame.contrast, frame.sharpness],
    }
    return arrays, facts


def _told() -> list[dict[str, Any]]:
    """`STORY` and what a voter says to it."""
    voter, lines = Voter(), []
    for now, named in STORY:
        decisions = [[d.change, d.landmark, d.previous] for d in voter.observe(named, now)]
        lines.append(
            {"now": now, "named": named, "decisions": decisions, "state": voter.state, "present": list(voter.present)}
        )
    return lines


def inputs() -> Arrays:
    """The pictures that everything begins with."""
    rng = np.random.default_rng(17)
    arrays: Arrays = {f"{name}/pixels": small_query(name).pixels for name in QUERIES}
    for i, ((width, height), _, _) in enumerate(SIZES):
        arrays[f"resize/{i}/in"] = rng.integers(0, 256, (height, width, 3), np.uint8)
    return arrays


def load(folder: Path = FOLDER) -> tuple[Arrays, Arrays, Maps, dict[str, Any]]:
    """Committed vectors: pictures, results, maps of the networks, and `vectors.json`."""
    with np.load(folder / "vectors.npz") as archive:
        stored = {name: archive[name] for name in archive.files}
    maps = {n.removeprefix("maps/"): v.astype(np.float32) for n, v in stored.items() if n.startswith("maps/")}
    pictures = {n: v for n, v in stored.items() if n.endswith(("/pixels", "/in"))}
    results = {n: v for n, v in stored.items() if n not in pictures and not n.startswith("maps/")}
    return pictures, results, maps, json.loads((folder / "vectors.json").read_text())


def main() -> None:
    """Write the vectors anew."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    make_pack(FOLDER)
    maps: Maps = {}
    pictures = inputs()
    results, facts = compute(FOLDER, pictures, maps)
    packed = {f"maps/{name}": values.astype(np.float16) for name, values in maps.items()}
    everything: dict[str, Any] = {**pictures, **results, **packed}
    np.savez_compressed(FOLDER / "vectors.npz", **everything)
    (FOLDER / "vectors.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
