"""What many photos would take, from measured costs, and a simulation of a build: `python -m benchmarks.scale`.

The reckoning multiplies unit costs (`results/speed.json`, `results/evaluate_default.json`, and prices to change) by a
number of photos. The simulation plays a build on workers that fail: shards of varying length, workers that die and come
back, retries as `cluster.py` makes them; it gives the time beyond the ideal and the work that is done twice.
"""

from __future__ import annotations

import argparse
import heapq
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.lab.records import environment

RESULTS = Path(__file__).parent / "results"
FEATURES = 300


@dataclass(frozen=True, slots=True)
class Costs:
    """Unit costs.

    Attributes:
        extract_ms: of one core for a photo, decoding included.
        bytes_per_image: on disk.
        ram_per_feature: bytes of the search index.
        photo_bytes: of a JPEG of 640 px as it is read.
        core_hour, gb_month, gb_out: prices of a usual cloud, US dollars; change them for yours.
    """

    extract_ms: float
    bytes_per_image: float
    ram_per_feature: float = 18.4
    photo_bytes: float = 120_000.0
    core_hour: float = 0.04
    gb_month: float = 0.023
    gb_out: float = 0.09


def measured(preset: str) -> Costs:
    """Costs from the recorded results."""
    speed = json.loads((RESULTS / "speed.json").read_text())
    quality = json.loads((RESULTS / "evaluate_default.json").read_text())
    return Costs(extract_ms=float(speed["extraction"][preset]["ms"]), bytes_per_image=float(quality["bytes_per_image"]))


def reckon(n: int, costs: Costs) -> dict[str, float]:
    """Core-hours, bytes and money for `n` photos."""
    core_hours = n * costs.extract_ms / 3.6e6
    disk, ram = n * costs.bytes_per_image, n * FEATURES * costs.ram_per_feature
    return {
        "photos": n,
        "core_hours": core_hours,
        "days_on_64_cores": core_hours / 64 / 24,
        "read_gb": n * costs.photo_bytes / 1e9,
        "database_gb": disk / 1e9,
        "index_ram_gb": ram / 1e9,
        "packs_of_100k": n / 1e5,
        "usd_compute": core_hours * costs.core_hour,
        "usd_storage_a_month": disk / 1e9 * costs.gb_month,
        "usd_ship_whole_to_1000_devices_one_pack": 1000 * 1e5 * costs.bytes_per_image / 1e9 * costs.gb_out,
        "usd_ship_1_percent_delta_to_1000_devices": 1000 * 1e3 * costs.bytes_per_image / 1e9 * costs.gb_out,
    }


@dataclass(frozen=True, slots=True)
class Simulated:
    """A simulated build.

    Attributes:
        ideal_hours: if no worker failed and all ended at the same moment.
        hours: until the last shard is there.
        wasted: share of the work that was lost with workers.
        deaths: of workers.
    """

    ideal_hours: float
    hours: float
    wasted: float
    deaths: int


def simulate(
    n_shards: int, shard_seconds: float, workers: int, *, mtbf_hours: float, restart_seconds: float, seed: int = 0
) -> Simulated:
    """Play a build: every shard goes to the worker that is free first; a worker that dies loses its shard.

    Args:
        n_shards: shards to make.
        shard_seconds: mean of a shard; their spread is that of a gamma distribution of shape 20.
        workers: single cores.
        mtbf_hours: mean time between the failures of one worker (spot instances: a few hours).
        restart_seconds: until a dead worker's replacement takes work.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    waiting = list(rng.gamma(20, shard_seconds / 20, n_shards))
    ideal = sum(waiting) / workers
    free = [(0.0, w) for w in range(workers)]
    fails = rng.exponential(mtbf_hours * 3600, workers)
    end = lost = 0.0
    deaths = 0
    while waiting:
        now, worker = heapq.heappop(free)
        length = waiting.pop()
        if now + length <= fails[worker]:
            end = max(end, now + length)
            heapq.heappush(free, (now + length, worker))
            continue
        died = max(now, float(fails[worker]))
        lost, deaths = lost + died - now, deaths + 1
        waiting.append(length)
        fails[worker] = died + restart_seconds + rng.exponential(mtbf_hours * 3600)
        heapq.heappush(free, (died + restart_seconds, worker))
    return Simulated(ideal / 3600, end / 3600, lost / max(ideal * workers, 1e-9), deaths)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description="What many photos would take.")
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--shard-size", type=int, default=256)
    a = parser.parse_args(arguments)
    costs = measured(a.preset)
    shard = a.shard_size * costs.extract_ms / 1e3
    runs = {
        f"{n} photos, {workers} cores, a failure every {mtbf} h": asdict(
            simulate(-(-n // a.shard_size), shard, workers, mtbf_hours=mtbf, restart_seconds=120)
        )
        for n, workers in ((5_000_000, 64), (50_000_000, 1000))
        for mtbf in (1000, 4, 0.25)
    }
    result = {
        "command": " ".join(["python -m benchmarks.scale", *sys.argv[1:]]),
        **environment(),
        "costs": asdict(costs),
        "reckoned": [reckon(n, costs) for n in (100_000, 5_000_000, 1_000_000_000)],
        "simulated": runs,
    }
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
