"""All systems, one table: `python -m benchmarks.bench DEV.json` (`make bench`).

Where `val.json` lies beside it, or another set is named with `--val`, every row is asked that too, in a column of its
own.

First everything that rows keep is made, one process for the rows that share features, as many at a time as there are
cores: features by content, whitenings and codebooks, and what is chosen on the training set. Then each row runs by
itself, in a process of its own, so that its times and its memory are its own and a missing package is one line.

What is finished is kept below `out/` and not done again: features for the same network and photo, a row for the same
photos, code, and (where it has one) bundle and preset. So a stopped run goes on where it was, and with a new bundle the
rows that have none are there already.
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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.lab import plots, report
from benchmarks.lab.code import code_digest
from benchmarks.lab.records import environment
from benchmarks.systems import registry

HERE = Path(__file__).parent
OF_VAL = ("map", "map_ci", "top1", "unknown")  # figures that are recorded of the second set
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True, slots=True)
class Row:
    """A row to run: its name in the table, the system of `registry`, its bundle (None: the default), and its file."""

    name: str
    system: str
    bundle: Path | None
    file: Path


def row_file(out: Path, name: str, key: str) -> Path:
    """Where a finished row is kept."""
    slug = "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")
    return out / "bench" / f"{slug}-{hashlib.sha256(f'{name}|{key}'.encode()).hexdigest()[:12]}.json"


def key_of(a: argparse.Namespace, system: str, bundle: Path | None) -> str:
    """What a row's figures depend on, beside its name."""
    train = (a.train or a.dataset.parent) / "train.csv"
    photos = [hashlib.sha256(p.read_bytes()).hexdigest()[:16] for p in (a.dataset, train) if p.is_file()]
    network = f"{registry.load_bundle(bundle).id} {a.preset}" if registry.needs_bundle(system) else ""
    return f"{photos} {network} {a.head} {code_digest()}"


def further_bundles(a: argparse.Namespace) -> dict[str, Path]:
    """Bundles that get rows of their own: those found below `--bundles`, then those named."""
    found = {p.parent.name: p.parent for p in sorted(a.bundles.glob("*/manifest.json"))} if a.bundles else {}
    return found | {name: Path(folder) for name, folder in (pair.split("=", 1) for pair in a.add_bundle)}


def rows_of(a: argparse.Namespace) -> list[Row]:
    """Every row in the table's order."""
    bundles = further_bundles(a)
    rows = []
    for name in registry.names(tuple(bundles)):
        system, _, other = name.removesuffix(")").partition(" (")
        bundle = bundles[other] if other else a.bundle
        rows.append(Row(name, system, bundle, row_file(a.out, name, key_of(a, system, bundle))))
    return rows


def command(a: argparse.Namespace, bundle: Path | None, *words: str) -> list[str]:
    """`benchmarks.evaluate` as this run wants it."""
    out = [sys.executable, "-m", "benchmarks.evaluate", str(a.dataset), "--out", str(a.out), *words]
    out += ["--bundle", str(bundle)] if bundle else []
    out += ["--preset", a.preset] if a.preset else []
    out += ["--train", str(a.train)] if a.train else []
    return out + (["--head", *map(str, a.head)] if a.head else [])


def run_process(words: Sequence[str]) -> tuple[str, str, float]:
    """Run it on one thread: stdout, the last line of stderr where it failed (else empty), and seconds."""
    start = time.monotonic()
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | ONE_THREAD, check=False)
    lines = done.stderr.replace("\r", "\n").strip().splitlines() or [f"exit code {done.returncode}"]
    return done.stdout, lines[-1] if done.returncode else "", time.monotonic() - start


def prepare(a: argparse.Namespace, rows: Sequence[Row]) -> None:
    """Make what rows keep, groups of rows side by side. What fails here fails again in its row, and is said there."""
    groups: list[tuple[Path | None, list[str]]] = []
    for bundle in dict.fromkeys(r.bundle for r in rows):
        systems = [r.system for r in rows if r.bundle == bundle]
        groups += [(bundle, group) for group in registry.sharing(systems)]

    def one(group: tuple[Path | None, list[str]]) -> None:
        error, seconds = run_process(command(a, group[0], "--prepare", *group[1]))[1:]
        print(f"prepared {', '.join(group[1])}: {error or f'{seconds:.0f} s'}", file=sys.stderr, flush=True)

    with ThreadPoolExecutor(a.jobs) as pool:
        list(pool.map(one, groups))


def run_row(row: Row, words: Sequence[str]) -> dict[str, Any]:
    """One row's figures, kept in its file; `{"error": line}` where it failed."""
    stdout, error, seconds = run_process(words)
    if error:
        return {"error": error}
    result: dict[str, Any] = json.loads(stdout)
    result.pop("environment", None)
    result["seconds"] = round(seconds, 1)
    row.file.parent.mkdir(parents=True, exist_ok=True)
    row.file.write_text(json.dumps(result), encoding="utf-8")
    return result


def bench(a: argparse.Namespace) -> dict[str, Any]:
    """Run the rows that are asked for and not finished; the table has every finished one."""
    systems = finished(a)
    val = a.val or a.dataset.with_name("val.json")
    if val.is_file() and val != a.dataset:
        for name, row in finished(
            argparse.Namespace(**vars(a) | {"dataset": val, "train": a.train or a.dataset.parent})
        ).items():
            if name in systems:
                systems[name]["val"] = {k: row[k] for k in ("error", *OF_VAL) if k in row}
    return {
        "command": "make bench",
        "dataset": Path(a.dataset).stem,
        "environment": environment(),
        "systems": systems,
    }


def finished(a: argparse.Namespace) -> dict[str, Any]:
    """Rows of one set of photos by name, those that are asked for and were not finished made first."""
    rows = rows_of(a)
    wanted = [r for r in rows if not a.only or r.name in a.only]
    todo = [r for r in wanted if a.fresh or not r.file.is_file()]
    prepare(a, todo)
    systems: dict[str, Any] = {}
    for row in rows:
        if row in todo:
            result = run_row(row, command(a, row.bundle, "--system", row.system, "--json"))
            said = result.get("error") or f"mAP {result['map']:.4f} ({result['seconds']:.0f} s)"
            print(f"{a.dataset.stem}, {row.name}: {said}", file=sys.stderr, flush=True)
        elif row.file.is_file():
            result = json.loads(row.file.read_text(encoding="utf-8"))
        else:
            continue
        systems[row.name] = result | {"system": row.name}
    return systems


def record(result: dict[str, Any], folder: Path, readme: Path) -> None:
    """Write the JSON, the plots and the table."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dev.json").write_text(report.as_text(result, "systems"), encoding="utf-8")
    done = {n: r for n, r in result["systems"].items() if "error" not in r}
    if done:
        plots.speed(done, folder / "speed.png")
        plots.precision_recall_curves(done, folder / "precision_recall.png")
    own = done.get(registry.RUNTIME)
    if own and "probability" in own:
        title = f"delf-edge, bundle {own['bundle']}, DEV with strangers"
        plots.reliability_diagram(own["probability"], title, folder / "reliability.png")
    report.write_between(readme, report.document(result))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=(__doc__ or "").splitlines()[0])
    p.add_argument("dataset", type=Path, help="our JSON form, such as ../shared/data/dev.json")
    p.add_argument("--bundle", type=Path, help="bundle folder, default: the one in assets/")
    p.add_argument("--add-bundle", action="append", default=[], metavar="NAME=DIR", help="rows for one more bundle")
    p.add_argument(
        "--bundles", type=Path, default=Path("build/bundles"), help="folder of further bundles, default build/bundles"
    )
    p.add_argument("--preset", help="extraction preset, default: the bundle's own")
    p.add_argument("--train", type=Path, help="folder of train.csv, default: the dataset's folder")
    p.add_argument("--val", type=Path, help="a second set for a column, default: val.json beside the dataset")
    p.add_argument("--only", nargs="*", default=[], help="rows to run, default: all")
    p.add_argument("--head", type=int, nargs=2, metavar=("QUERIES", "PHOTOS"), help="only a part, for a quick look")
    p.add_argument("--fresh", action="store_true", help="run finished rows again")
    p.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="extractions side by side, default: the cores")
    p.add_argument("--out", type=Path, default=Path("out"), help="folder for caches, default out/")
    p.add_argument("--results", type=Path, default=HERE / "results", help="folder of the recorded results")
    p.add_argument("--readme", type=Path, default=HERE / "README.md", help="file that gets the table")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns 0, 1 where a row failed (a missing optional package is not a failure), 2 for bad input."""
    a = parser().parse_args(arguments)
    if not plots.can_draw():
        return 2
    if not a.dataset.is_file():
        print(f"{a.dataset}: no such file; `make bench` needs ../shared beside the checkout", file=sys.stderr)
        return 2
    start = time.monotonic()
    result = bench(a)
    (a.out / "bench").mkdir(parents=True, exist_ok=True)
    (a.out / "bench" / "rows.json").write_text(json.dumps(result), encoding="utf-8")  # for `benchmarks.wins`
    record(result, a.results, a.readme)
    print(report.table(result["systems"]))
    print(f"{time.monotonic() - start:.0f} s", file=sys.stderr)
    failed = [n for n, r in result["systems"].items() if "error" in r and not r["error"].startswith("not installed")]
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
