"""How fast is this machine? Medians of a minute or less, in a form that the owner of a board can contribute.

Extraction with every preset (taken in turn, so that a busy machine slows all of them), `identify` stage by stage, and
seconds and peak memory from the start of a fresh process to its first answer. The photos are those of the demo where
the checkout has them, else the picture that comes with the bundle. The JSON names no path and no host;
`benchmarks/boards.schema.json` says what it holds.
"""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from delf_edge.bundle.bundle import Bundle, default_bundle_path
from delf_edge.diagnostics.doctor import diagnose, golden_image
from delf_edge.errors import DelfEdgeError, OptionError
from delf_edge.features.extractor import Extractor, extract_options
from delf_edge.images.decode import load_image, make_thumbnail
from delf_edge.interchange.photo_lists import list_folder
from delf_edge.recognizer import Recognizer
from delf_edge.types import Image

SPEED_FORMAT = "delf-edge bench 1"
DEMO = Path(__file__).resolve().parent.parent / "assets" / "demo" / "references"
FIRST_ANSWER = """
import sys
from delf_edge import Recognizer
with Recognizer.open(sys.argv[1], bundle=sys.argv[2], read_only=True, num_threads=int(sys.argv[4])) as recognizer:
    answer = recognizer.identify(sys.argv[3])
with open("/proc/self/status") as f:  # ru_maxrss would count the process this one was forked from
    peak = next(int(line.split()[1]) for line in f if line.startswith("VmHWM"))
print(peak / 1024)
"""


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """How much is measured.

    Attributes:
        photos: photos that are asked for, at most.
        runs: times that each of them is.
        starts: fresh processes.
        num_threads: threads of the network.
    """

    photos: int = 12
    runs: int = 3
    starts: int = 3
    num_threads: int = 1

    def __post_init__(self) -> None:
        if min(self.photos, self.runs, self.starts, self.num_threads) < 1:
            raise OptionError(f"{self}: each of them must be at least 1")


def measure_speed(
    bundle: Path | None = None,
    *,
    database: Path | None = None,
    photos: Path | None = None,
    options: BenchOptions | None = None,
) -> dict[str, Any]:
    """All figures, JSON-ready.

    Args:
        bundle: folder of a model bundle; None for the one that comes with the package.
        database: what is searched; None for a temporary one of the photos themselves.
        photos: folder of what is asked for; None for the demo's, or the picture of the bundle.
        options: see `BenchOptions`.

    Raises:
        OptionError: no photo in the folder.
        BundleError, StoreError, ImageError: one of them cannot be used.
    """
    options, began = options or BenchOptions(), time.perf_counter()
    folder = bundle or default_bundle_path()
    load = os.getloadavg()[0]
    report = diagnose(folder, num_threads=options.num_threads)
    model = Bundle.load(folder)
    source, asked = _photos(photos, model, options.photos)
    with tempfile.TemporaryDirectory() as scratch:
        with _searched(database, model, asked, Path(scratch), options.num_threads) as recognizer:
            recognizer.identify(asked[0])  # the first answer reads the whole database
            identified = [recognizer.identify(data).milliseconds for _ in range(options.runs) for data in asked]
            info = recognizer.info()
        photo = Path(scratch) / "photo"
        photo.write_bytes(asked[0])
        searched = database or Path(scratch) / "places.db"
        start = first_answer(searched, folder, photo, options.starts, num_threads=options.num_threads)
    names = dict.fromkeys(stage for row in identified for stage in row)  # not every photo is turned
    stages = {stage: summary(row[stage] for row in identified if stage in row) for stage in names}
    return {
        "format": SPEED_FORMAT,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": {**report.machine, "load before": f"{load:.2f}"},
        "versions": dict(report.versions),
        "bundle": {"id": model.id, "network": model.variant},
        "self_test": report.passed,
        "threads": options.num_threads,
        "photos": {"source": source, "n": len(asked)},
        "database": {"images": info.n_images, "features": info.n_features},
        "extract_ms": _extraction(model, asked, options),
        "identify_ms": stages,
        "start": start,
        "seconds": round(time.perf_counter() - began, 1),
    }


def summary(values: Iterable[float]) -> dict[str, float]:
    """Median, least and most of some measurements, and how many there were."""
    found = np.array(list(values))
    median, least, most = (round(float(f(found)), 3) for f in (np.median, np.min, np.max))
    return {"median": median, "least": least, "most": most, "n": len(found)}


def milliseconds(call: Callable[[], object]) -> float:
    """Wall-clock milliseconds of one call."""
    began = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - began)


def first_answer(
    database: Path, bundle: Path, photo: Path, runs: int, *, num_threads: int = 1
) -> dict[str, dict[str, float]]:
    """Seconds and peak MB from the start of a process to its first answer, and its end.

    Raises:
        DelfEdgeError: the process failed; the message has its last line.
    """
    command = [sys.executable, "-c", FIRST_ANSWER, str(database), str(bundle), str(photo), str(num_threads)]
    seconds, peak = [], []
    for _ in range(runs):
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds.append(time.perf_counter() - began)
        if done.returncode:
            what = done.stderr.strip().rpartition("\n")[2]
            raise DelfEdgeError(f"a fresh process gave no answer: {what or f'exit code {done.returncode}'}")
        peak.append(float(done.stdout))
    return {"seconds": summary(seconds), "peak_mb": summary(peak)}


def as_text(result: dict[str, Any]) -> Iterator[str]:
    """The lines of a table."""
    machine = result["machine"]
    yield f"{machine['processor']}, {machine['cores']} cores, load {machine['load before']}, {machine['memory']}"
    yield f"bundle {result['bundle']['id']} ({result['bundle']['network']}), {result['threads']} thread(s)"
    photos, database = result["photos"], result["database"]
    yield f"{photos['n']} photos ({photos['source']}), {database['images']} images searched"
    yield f"{'milliseconds':24} {'median':>9} {'least':>9} {'most':>9}"
    rows = {f"extract, {name}": row for name, row in result["extract_ms"].items()}
    rows |= {f"identify, {stage}": row for stage, row in result["identify_ms"].items()}
    for name, row in rows.items():
        yield f"{name:24} {row['median']:9.1f} {row['least']:9.1f} {row['most']:9.1f}"
    start = result["start"]
    yield f"first answer of a fresh process: {start['seconds']['median']:.2f} s, {start['peak_mb']['median']:.0f} MB"
    yield f"self-test: {'passed' if result['self_test'] else 'FAILED, see delf-edge doctor'}"


def _photos(folder: Path | None, bundle: Bundle, n: int) -> tuple[str, list[bytes]]:
    """Where the photos come from, and their files."""
    if folder is None and not DEMO.is_dir():
        pixels = golden_image(bundle).repeat(2, axis=0).repeat(2, axis=1)
        size = (pixels.shape[1], pixels.shape[0])
        return "picture of the bundle, doubled", [make_thumbnail(Image(pixels, size), max(size))]
    listed, _ = list_folder(folder or DEMO, "any")
    return ("demo" if folder is None else "own"), [photo.path.read_bytes() for photo in listed[:n]]


@contextmanager
def _searched(
    database: Path | None, bundle: Bundle, asked: Sequence[bytes], folder: Path, num_threads: int
) -> Iterator[Recognizer]:
    """The database, open; one of the photos where none is given."""
    path = database or folder / "places.db"
    with Recognizer.open(path, bundle=bundle, num_threads=num_threads, read_only=database is not None) as recognizer:
        if database is None:
            for i, data in enumerate(asked):
                recognizer.add(data, landmark=str(i), name=str(i))
        yield recognizer


def _extraction(bundle: Bundle, asked: Sequence[bytes], options: BenchOptions) -> dict[str, dict[str, float]]:
    """Preset -> milliseconds of extraction, from pixels to features."""
    extractor = Extractor(bundle, num_threads=options.num_threads)
    presets = {name: extract_options(bundle, name) for name in bundle.presets}
    images = [load_image(data) for data in asked]
    for preset in presets.values():
        extractor.extract(images[0], preset)  # the first run of a shape makes an interpreter for it
    spent: dict[str, list[float]] = {name: [] for name in presets}
    for image in [image for _ in range(options.runs) for image in images]:
        for name, preset in presets.items():
            spent[name].append(milliseconds(lambda i=image, p=preset: extractor.extract(i, p)))  # type: ignore[misc]
    return {name: summary(values) for name, values in spent.items()}
