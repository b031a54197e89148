"""Speed on this machine, side by side with peers in the same run: `python -m benchmarks.speed [--json]`.

Per photo of 640 px, on one thread: extraction with each preset, OpenCV SIFT (1,000 keypoints, detect and describe)
and XFeat where it is installed, taken in turn so that a busy machine slows all of them; medians, and medians of the
ratios to SIFT photo by photo. Then the network's share of the machine's own single-thread matrix-multiply rate, and, in
fresh processes, seconds and peak memory from process start to the first answer.

The photos are those of `assets/demo`; nothing outside the repository is needed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read when numpy is imported: one thread for everything that is timed

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.lab.records import environment
from benchmarks.systems.base import NotInstalledError
from benchmarks.systems.keypoints import xfeat
from delf_edge.bundle.bundle import Bundle, default_bundle_path
from delf_edge.diagnostics.speed import first_answer, milliseconds
from delf_edge.features.extractor import Extractor, extract_options
from delf_edge.features.network import Engine
from delf_edge.types import Image

DEMO = Path(__file__).parent.parent / "assets" / "demo"
LITE0_MACS_PER_PIXEL = 4905  # of the local network: trunk to block 10 and attention, summed over its layers


def photos(n: int) -> list[NDArray[np.uint8]]:
    """The first n reference photos, 640 px on the longer side, BGR."""
    found = []
    for path in sorted((DEMO / "references").rglob("*.webp"))[:n]:
        image = cv2.imread(str(path))
        if image is None:
            raise SystemExit(f"{path}: cannot be read")
        scale = 640 / max(image.shape[:2])
        found.append(np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8))
    return found


def contenders(bundle: Bundle) -> dict[str, Callable[[NDArray[np.uint8]], object]]:
    """What is timed, by name; each takes a BGR photo."""
    opencv: Any = cv2  # its stubs lag behind: OpenCV 5's lack SIFT_create
    sift = opencv.SIFT_create(nfeatures=1000)
    extractor = Extractor(bundle, num_threads=1)

    def delf(preset: str) -> Callable[[NDArray[np.uint8]], object]:
        options = extract_options(bundle, preset)
        return lambda p: extractor.extract(
            Image(np.ascontiguousarray(p[:, :, ::-1]), (p.shape[1], p.shape[0])), options
        )

    table: dict[str, Callable[[NDArray[np.uint8]], object]] = {
        "SIFT": lambda p: sift.detectAndCompute(cv2.cvtColor(p, cv2.COLOR_BGR2GRAY), None)
    }
    table |= {preset: delf(preset) for preset in bundle.presets}
    try:
        peer = xfeat()
        table["XFeat"] = lambda p: peer.detect(rgb(p))
    except NotInstalledError as e:
        print(f"XFeat: {e}", file=sys.stderr)
    return table


def rgb(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """BGR to RGB."""
    return np.ascontiguousarray(photo[:, :, ::-1])


def measure(n_photos: int, starts: int) -> dict[str, Any]:
    """All figures, JSON-ready."""
    cv2.setNumThreads(1)
    bundle = Bundle.load(default_bundle_path())
    table, images = contenders(bundle), photos(n_photos)
    for call in table.values():
        call(images[0])
    spent: dict[str, list[float]] = {name: [] for name in table}
    for p in images:
        for name, call in table.items():
            spent[name].append(milliseconds(lambda call=call, p=p: call(p)))  # type: ignore[misc]
    sift = np.array(spent["SIFT"])
    rows = {
        name: {"ms": float(np.median(ms)), "ratio_to_sift": float(np.median(np.array(ms) / sift))}
        for name, ms in spent.items()
    }
    return {
        "bundle": bundle.id,
        "variant": bundle.variant,
        "extraction": rows,
        "stages_ms": stages(bundle, images),
        "network": network_rate(bundle),
        "start": from_start(starts),
        "environment": environment(),
    }


def stages(bundle: Bundle, images: list[NDArray[np.uint8]]) -> dict[str, float]:
    """Median milliseconds of each stage of `identify`, over the demo's database."""
    from delf_edge import Recognizer

    with tempfile.TemporaryDirectory() as folder, Recognizer.open(Path(folder) / "s.db", bundle=bundle) as recognizer:
        for i, image in enumerate(images):
            recognizer.add(image, landmark=str(i), channel_order="BGR")
        answers = [recognizer.identify(image, channel_order="BGR").milliseconds for image in images]
    names = dict.fromkeys(stage for a in answers for stage in a)  # not every photo is turned
    return {stage: float(np.median([a[stage] for a in answers if stage in a])) for stage in names}


def network_rate(bundle: Bundle) -> dict[str, float]:
    """GFLOP/s of the local network at 480x640 and of a 1024 x 1024 matrix product, one thread each."""
    engine, x = Engine(bundle.network), np.zeros((1, 480, 640, 3), np.float32)
    a = np.random.default_rng(0).random((1024, 1024), np.float32)
    net = min(milliseconds(lambda: engine.run(x)) for _ in range(8))
    product = min(milliseconds(lambda: a @ a) for _ in range(8))
    rate, peak = 2 * LITE0_MACS_PER_PIXEL * 480 * 640 / net / 1e6, 2 * 1024**3 / product / 1e6
    return {"ms_480x640": net, "gflops": rate, "matmul_gflops": peak, "share": rate / peak}


def from_start(runs: int) -> dict[str, float]:
    """Seconds and peak MB from process start to the first answer, fresh processes, the demo's database."""
    from delf_edge import Recognizer

    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "demo.db"
        with Recognizer.open(database) as recognizer:
            for path in sorted((DEMO / "references").rglob("*.webp")):
                recognizer.add(path, landmark=path.parent.name)
        found = first_answer(database, default_bundle_path(), DEMO / "queries" / "colosseum.webp", runs)
    return {name: row["median"] for name, row in found.items()}


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=int, default=15, help="photos per contender, default 15")
    parser.add_argument("--starts", type=int, default=5, help="fresh processes, default 5")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    result = measure(args.photos, args.starts)
    text = json.dumps(result, indent=1)
    print(text)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
