"""All systems, one table: `python -m benchmarks.bench DEV.json` (`make bench`).

Every row runs in a process of its own, so that its memory is its own and a missing package is one line. Finished rows
are kept under `out/bench` and not run again for the same bundle, preset and set; features are kept by content.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import plots, report
from benchmarks.runner import environment
from benchmarks.systems import registry

HERE = Path(__file__).parent
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def row_file(out: Path, name: str, key: str) -> Path:
    """Where a finished row is kept."""
    slug = "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")
    return out / "bench" / f"{slug}-{hashlib.sha256(f'{name}|{key}'.encode()).hexdigest()[:12]}.json"


def run_row(name: str, words: Sequence[str], file: Path, fresh: bool) -> dict[str, Any]:
    """One row, from its file or from `benchmarks.evaluate` in a new process."""
    if file.is_file() and not fresh:
        stored: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return stored
    command = [
        sys.executable,
        "-m",
        "benchmarks.evaluate",
        *words,
        "--system",
        name.partition(" (")[0],
        "--json",
    ]  # DELF (x): x is its bundle
    start = time.monotonic()
    for extra in (["--prepare"], []):  # fits in a process of its own, so that they are not in the row's memory
        done = subprocess.run(
            [*command, *extra], capture_output=True, text=True, env=os.environ | ONE_THREAD, check=False
        )
        if done.returncode:
            break
    if done.returncode:
        lines = done.stderr.replace("\r", "\n").strip().splitlines()
        return {"error": lines[-1] if lines else f"exit code {done.returncode}"}
    row: dict[str, Any] = json.loads(done.stdout)
    row["seconds"] = round(time.monotonic() - start, 1)
    row.pop("environment", None)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(row), encoding="utf-8")
    return row


def key_of(dataset: Path, bundle: Path | None, preset: str | None, head: Sequence[int] | None) -> str:
    """What a row's figures depend on, beside its name."""
    content = hashlib.sha256(dataset.read_bytes()).hexdigest()[:16] if dataset.is_file() else str(dataset)
    return f"{content} {registry.load_bundle(bundle).id} {preset} {head}"


def bench(a: argparse.Namespace) -> dict[str, Any]:
    """Run every row that was asked for; the order is the table's."""
    bundles = dict(pair.split("=", 1) for pair in a.add_bundle)
    wanted = [n for n in registry.names(tuple(bundles)) if not a.only or n in a.only]
    systems: dict[str, Any] = {}
    for i, name in enumerate(wanted):
        other = bundles.get(name.removeprefix("DELF (").removesuffix(")")) if name.startswith("DELF (") else None
        bundle = Path(other) if other else a.bundle
        words = [str(a.dataset), "--out", str(a.out)]
        words += ["--bundle", str(bundle)] if bundle else []
        words += ["--preset", a.preset] if a.preset else []
        words += ["--train", str(a.train)] if a.train else []
        words += ["--head", *map(str, a.head)] if a.head else []
        print(f"[{i + 1}/{len(wanted)}] {name}", end=" ", file=sys.stderr, flush=True)
        row = run_row(name, words, row_file(a.out, name, key_of(a.dataset, bundle, a.preset, a.head)), a.fresh)
        print(row.get("error") or f"mAP {row['map']:.4f}", file=sys.stderr, flush=True)
        systems[name] = row | {"system": name}
    return {
        "command": "make bench",
        "dataset": Path(a.dataset).stem,
        "environment": environment(),
        "systems": systems,
    }


def record(result: dict[str, Any], folder: Path, readme: Path) -> None:
    """Write the JSON, the plots and the table."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dev.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    done = {n: r for n, r in result["systems"].items() if "error" not in r}
    if done:
        plots.speed(done, folder / "speed.png")
        plots.precision_recall_curves(done, folder / "precision_recall.png")
    own = done.get(registry.RUNTIME)
    if own and "probability" in own:
        title = f"delf-edge, bundle {own['bundle']}, DEV with strangers"
        plots.reliability_diagram(own["probability"], title, folder / "reliability.png")
    report.write_between(readme, report.document(result))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns 0, 1 where a row failed (a missing optional package is not a failure), 2 for bad input."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=(__doc__ or "").splitlines()[0])
    p.add_argument("dataset", type=Path, help="our JSON form, such as ../shared/data/dev.json")
    p.add_argument("--bundle", type=Path, help="bundle folder, default: the one in assets/")
    p.add_argument("--add-bundle", action="append", default=[], metavar="NAME=DIR", help="one more DELF row")
    p.add_argument("--preset", help="extraction preset, default: the bundle's own")
    p.add_argument("--train", type=Path, help="folder of train.csv, default: the dataset's folder")
    p.add_argument("--only", nargs="*", default=[], help="rows to run, default: all")
    p.add_argument("--head", type=int, nargs=2, metavar=("QUERIES", "PHOTOS"), help="only a part, for a quick look")
    p.add_argument("--fresh", action="store_true", help="run finished rows again")
    p.add_argument("--out", type=Path, default=Path("out"), help="folder for caches, default out/")
    p.add_argument("--results", type=Path, default=HERE / "results", help="folder of the recorded results")
    p.add_argument("--readme", type=Path, default=HERE / "README.md", help="file that gets the table")
    a = p.parse_args(arguments)
    if not a.dataset.is_file():
        print(f"{a.dataset}: no such file; `make bench` needs ../shared beside the checkout", file=sys.stderr)
        return 2
    result = bench(a)
    record(result, a.results, a.readme)
    print(report.table(result["systems"]))
    failed = [n for n, r in result["systems"].items() if "error" in r and not r["error"].startswith("not installed")]
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
