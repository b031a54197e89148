"""Estimates for boards that nobody has measured, beside those that somebody has: `python -m benchmarks.boards`.

An estimate is not a measurement. The network: its multiply-accumulates, counted in the model, over the board's peak
times the share of the peak that networks of this kind reach. The share is a range. Its lower end is what XNNPACK's
authors published for MobileNets on all four cores of a Raspberry Pi 4, where threads wait for each other and for
memory; its upper end is what our network reaches of the matrix-multiply rate on one thread of the x86-64 machine of
results/speed.json. Everything else (decoding, search, verification): milliseconds measured there, times a range of
ratios of clock and of work done in a cycle. The middle of a range is its geometric mean; the error stated is half the
range, as a factor.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.lab.records import environment
from delf_edge.bundle.bundle import Bundle, default_bundle_path
from delf_edge.features.extractor import extract_options
from delf_edge.features.pyramid import BASE_SIZE

HERE = Path(__file__).parent
SPEED = HERE / "results" / "speed.json"
BOARDS = HERE / "boards"
PHOTO = (BASE_SIZE, BASE_SIZE * 3 // 4)  # pixels (width, height)

# XNNPACK's README (February 2020, end2end-bench, FP32, four threads, Raspberry Pi 4 at 1.5 GHz): milliseconds, and the
# multiply-accumulates that the papers of the networks state.
PUBLISHED = {"MobileNet v1 1.0": (75, 569e6), "MobileNet v2 1.0": (44, 300e6)}


@dataclass(frozen=True, slots=True)
class Board:
    """A processor.

    Attributes:
        name: the board.
        core: the core.
        ghz: its clock.
        flops_per_cycle: of one core in float32. Cortex-A72: one 128-bit multiply-add a cycle, as measured (15.9 GFLOP/s
            at 2.0 GHz, vfpbench); Cortex-A76: two, by Arm's optimisation guide.
        work: work in a cycle on code that is no matrix product, as a share of a Zen 3 core's: least and most.
    """

    name: str
    core: str
    ghz: float
    flops_per_cycle: int
    work: tuple[float, float]

    @property
    def peak(self) -> float:
        """GFLOP/s of one core."""
        return self.ghz * self.flops_per_cycle


A72, A76 = (0.35, 0.6), (0.6, 0.9)  # assumptions: two issue slots of three and no wide caches; four and better ones
TARGETS = (
    Board("Raspberry Pi 4 (1.5 GHz)", "Cortex-A72", 1.5, 8, A72),
    Board("Raspberry Pi 4 (1.8 GHz)", "Cortex-A72", 1.8, 8, A72),
    Board("Raspberry Pi 5 (2.4 GHz)", "Cortex-A76", 2.4, 16, A76),
)
# A Zen 3 core under a hypervisor that does not tell: at least by its matrix product, at most by its data sheet.
HOST_GHZ = (2.6, 3.5)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Milliseconds: the middle of a range, its ends, and the error as a factor up or down."""

    middle: float
    least: float
    most: float

    @classmethod
    def of(cls, least: float, most: float) -> Estimate:
        """The estimate between two ends."""
        return cls(*(round(v, 1) for v in (math.sqrt(least * most), least, most)))

    @property
    def factor(self) -> float:
        """By which it may be wrong, either way."""
        return math.sqrt(self.most / self.least)


def multiply_accumulates(model: bytes, shape: tuple[int, int, int, int]) -> int:
    """Multiply-accumulates of a TFLite model for an input of a shape, summed over its convolutions and products."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES  # a delegate hides the operations
    interpreter = Interpreter(model_content=model, experimental_op_resolver_type=plain)
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], list(shape))
    interpreter.allocate_tensors()
    tensors = {t["index"]: [int(n) for n in t["shape"]] for t in interpreter.get_tensor_details()}
    total = 0
    for op in interpreter._get_ops_details():
        if op["op_name"] not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            continue
        weights, made = tensors[int(op["inputs"][1])], tensors[int(op["outputs"][0])]
        if op["op_name"] == "CONV_2D":  # (out, height, width, in)
            total += math.prod(made) * math.prod(weights[1:])
        elif op["op_name"] == "DEPTHWISE_CONV_2D":  # (1, height, width, channels)
            total += math.prod(made) * math.prod(weights[1:3])
        else:  # (out, in)
            total += math.prod(made) * weights[1]
    return total


def work(bundle: Bundle) -> dict[str, int]:
    """Preset -> multiply-accumulates for a photo of 640 x 480: every level, and the tail on the map of one."""
    width, height = PHOTO
    found = {}
    for preset in bundle.presets:
        scales = extract_options(bundle, preset).scales
        sizes = [(round(height * s), round(width * s)) for s in scales]
        found[preset] = sum(multiply_accumulates(bundle.network, (1, h, w, 3)) for h, w in sizes)
    if bundle.tail is not None:
        network = bundle.manifest.network
        h, w = (math.ceil(side * bundle.manifest.global_spec.level_scale / network.stride) for side in (height, width))
        found["global"] = multiply_accumulates(bundle.tail, (1, h, w, network.channels))
    return found


def published_share() -> float:
    """Share of the peak of four Cortex-A72 cores at 1.5 GHz in XNNPACK's own figures: the least."""
    peak = 4 * TARGETS[0].peak
    return min(2 * macs / ms / 1e6 / peak for ms, macs in PUBLISHED.values())


def estimate(macs: dict[str, int], speed: dict[str, Any]) -> list[dict[str, Any]]:
    """Per board: milliseconds of extraction with each preset, of the rest of an answer, and of the whole."""
    shares = (published_share(), float(speed["network"]["share"]))
    stages: dict[str, float] = speed["stages_ms"]
    rest = sum(ms for stage, ms in stages.items() if stage not in ("network", "global", "total"))
    rows = []
    for board in TARGETS:
        times = {name: tuple(2 * n / (board.peak * share) / 1e6 for share in shares) for name, n in macs.items()}
        slower = HOST_GHZ[0] / board.ghz / board.work[1], HOST_GHZ[1] / board.ghz / board.work[0]
        other = rest * slower[0], rest * slower[1]
        tail = times.pop("global", (0.0, 0.0))
        row: dict[str, Any] = {"board": board.name, "core": board.core, "peak GFLOP/s": board.peak}
        row["network ms"] = {name: _facts(most + tail[0], least + tail[1]) for name, (most, least) in times.items()}
        row["search, verification and the rest ms"] = _facts(*other)
        row["identify ms"] = {
            name: _facts(least + tail[1] + other[0], most + tail[0] + other[1]) for name, (most, least) in times.items()
        }
        rows.append(row)
    return rows


def _facts(*ends: float) -> dict[str, float]:
    found = Estimate.of(min(ends), max(ends))
    return {**asdict(found), "error, factor": round(found.factor, 2)}


def contributed() -> Iterator[tuple[str, dict[str, Any]]]:
    """Boards that were measured: name and figures."""
    for path in sorted(BOARDS.glob("*.json")):
        yield path.stem, json.loads(path.read_text(encoding="utf-8"))


def as_text(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The tables, in Markdown."""
    presets = list(rows[0]["identify ms"])
    yield "Estimated, not measured: milliseconds of `identify` on one thread, a photo of 640 x 480 (least to most)"
    yield ""
    yield f"| board | {' | '.join(presets)} | of it search, verification, decoding |"
    yield "|---|" + "---|" * (len(presets) + 1)
    for row in rows:
        cells = [row["identify ms"][p] for p in presets] + [row["search, verification and the rest ms"]]
        yield (
            f"| {row['board']} | "
            + " | ".join(f"{c['middle']:.0f} ({c['least']:.0f} to {c['most']:.0f})" for c in cells)
            + " |"
        )
    yield ""
    yield "Measured: `delf-edge bench --json`, files of benchmarks/boards (medians)"
    yield ""
    yield "| board | processor | extract, ms | identify, ms | first answer, s, MB | note |"
    yield "|---|---|---|---|---|---|"
    for name, found in contributed():
        extract = ", ".join(f"{p} {row['median']:.0f}" for p, row in found["extract_ms"].items())
        total, start = found["identify_ms"]["total"]["median"], found["start"]
        first = f"{start['seconds']['median']:.2f}, {start['peak_mb']['median']:.0f}"
        note = found.get("note", "")
        yield f"| {name} | {found['machine']['processor']} | {extract} | {total:.0f} | {first} | {note} |"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.boards", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the estimates to this file")
    options = parser.parse_args()
    speed = json.loads(SPEED.read_text(encoding="utf-8"))
    bundle = Bundle.load(default_bundle_path())
    macs = work(bundle)
    rows = estimate(macs, speed)
    for line in as_text(rows):
        print(line)
    if options.json:
        facts = {
            "what": "estimates, not measurements; see benchmarks/boards.py for the model and its assumptions",
            "command": "python -m benchmarks.boards --json benchmarks/results/boards_estimate.json",
            "bundle": bundle.id,
            "multiply-accumulates, 640 x 480": macs,
            "share of the peak": [round(published_share(), 3), round(speed["network"]["share"], 3)],
            "measured on x86-64": {"commit": speed["environment"]["commit"], "stages_ms": speed["stages_ms"]},
            "assumed": {
                "GHz of the x86-64 core": HOST_GHZ,
                "work in a cycle, of its": {b.core: b.work for b in TARGETS},
            },
            "boards": rows,
            "environment": environment(),
        }
        options.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
