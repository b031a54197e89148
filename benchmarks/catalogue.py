"""The catalogue at size, and under `kill -9`: `python -m benchmarks.catalogue [--landmarks N] [--kills N]`.

* N landmarks with texts in five languages: seconds to import, to export and to import again; whether the two catalogues
  are equal; milliseconds of a full-text search and of one landmark's row; bytes a landmark.
* Processes that import, merge or migrate are killed at a random moment. Afterwards the file must be sound and hold what
  it held before or what it should hold after, nothing between.

Nothing here depends on photos, so the database has none.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.lab.records import environment
from delf_edge.catalogue.catalogue import Catalogue
from delf_edge.files import write_atomically
from delf_edge.quantization.packed_codes import CodeLayout
from delf_edge.storage.store import Store

LANGUAGES = ("en", "de", "es", "fr", "pl")
_LAYOUT = CodeLayout(4, 8, 1000)
_SYLLABLES = ("ka", "lo", "mi", "ren", "ström", "château", "zam", "łó", "qué", "tor", "win", "bel", "ax", "sé", "grad")


def open_store(path: Path) -> Store:
    """A database without photos."""
    return Store.open(path, bundle_id="catalogue", layout=_LAYOUT)


def word(rng: random.Random) -> str:
    """A made-up word of two to four syllables."""
    return "".join(rng.choices(_SYLLABLES, k=rng.randint(2, 4)))


def write_table(path: Path, n: int, seed: int = 0) -> None:
    """Landmarks with a title, 25 words of summary and 60 of body in each language."""
    rng = random.Random(seed)
    vocabulary = [word(rng) for _ in range(20_000)]
    with path.open("w", encoding="utf-8") as file:
        for i in range(n):
            texts = {}
            for language in LANGUAGES:
                words = rng.choices(vocabulary, k=88)
                texts[language] = {
                    "title": " ".join(words[:3]),
                    "summary": " ".join(words[3:28]),
                    "body": " ".join(words[28:]),
                }
            row = {
                "slug": f"place-{i}",
                "name": f"Place {i}",
                "kind": "castle",
                "latitude": i % 90,
                "longitude": i % 180,
            }
            file.write(json.dumps({**row, "texts": texts}, ensure_ascii=False) + "\n")


def _timed(body: Callable[[], object]) -> float:
    began = time.perf_counter()
    body()
    return time.perf_counter() - began


def _processor(body: Callable[[], object]) -> float:
    """Seconds of processor: what else runs on the machine does not count."""
    began = time.process_time()
    body()
    return time.process_time() - began


def _percentiles(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {f"p{p}": round(ordered[min(len(ordered) - 1, len(ordered) * p // 100)] * 1000, 3) for p in (50, 99)}


def measure_size(folder: Path, n: int) -> dict[str, Any]:
    """Import, search, export, import again."""
    table, again = folder / "a.jsonl", folder / "b.jsonl"
    write_table(table, n)
    rng = random.Random(1)
    with open_store(folder / "a.db") as store, open_store(folder / "b.db") as other:
        catalogue, copy = Catalogue([store]), Catalogue([other])
        seconds = {"import": _timed(lambda: catalogue.import_file(table))}
        store.compact()
        size = store.info().bytes
        titles = [record.texts["de"].title or "" for record in catalogue]
        queries = [" ".join(rng.choice(titles).split()[: rng.randint(1, 2)]) for _ in range(1000)]
        words = [_processor(lambda q=q: store.catalogue.search(q, 20)) for q in queries]  # type: ignore[misc]
        searches = [_processor(lambda q=q: catalogue.search(q)) for q in queries]  # type: ignore[misc]
        rows = [_processor(lambda i=i: catalogue.info(f"Place {i}", ("pl",))) for i in rng.choices(range(n), k=1000)]  # type: ignore[misc]
        seconds["export"] = _timed(lambda: catalogue.export_file(again))
        seconds["import again"] = _timed(lambda: copy.import_file(again))
        equal = [r.as_json() for r in catalogue] == [r.as_json() for r in copy]
        seconds["verify"] = _timed(store.verify)
    return {
        "landmarks": n,
        "languages": len(LANGUAGES),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "equal after export and import": equal,
        "search, ms of processor": _percentiles(words),
        "search and 20 whole records, ms of processor": _percentiles(searches),
        "row of an answer, ms of processor": _percentiles(rows),
        "bytes a landmark": round(size / n),
    }


def _state(path: Path) -> tuple[int, str]:
    with Store.open(path, mode="ro") as store:
        problems = store.verify()
        if problems:
            return -1, str(problems[0])
        rows = json.dumps([r.as_json() for r in Catalogue([store])], sort_keys=True)
        return store.info().schema_version, rows


def kill(folder: Path, n: int, seed: int = 0) -> dict[str, Any]:
    """Kill n processes in each operation; those after which the file is neither as before nor as after are lost."""
    rng = random.Random(seed)
    table = folder / "k.jsonl"
    write_table(table, 60, seed=2)
    old = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "schema_1" / "places.sqlite"
    start = folder / "start.db"
    with open_store(start) as store:
        Catalogue([store]).import_file(table)
    empty = folder / "empty.db"
    open_store(empty).close()

    def do_import(path: Path) -> None:
        with Store.open(path) as store:
            Catalogue([store]).import_file(table)

    def do_merge(path: Path) -> None:
        with Store.open(path) as store:
            Catalogue([store]).merge("place-1", "place-2", prefer="old")

    def do_migrate(path: Path) -> None:
        Store.open(path).close()

    found: dict[str, Any] = {}
    for name, source, act in (("import", empty, do_import), ("merge", start, do_merge), ("migration", old, do_migrate)):
        whole = folder / "whole.db"
        shutil.copy(source, whole)
        usual = _timed(lambda act=act, whole=whole: act(whole))  # type: ignore[misc]
        allowed = {_state(source): "before", _state(whole): "after"}
        counts = {"before": 0, "after": 0, "lost or wrong": 0}
        for i in range(n):
            path = folder / f"{name}-{i}.db"
            shutil.copy(source, path)
            pid = os.fork()
            if pid == 0:
                act(path)
                os._exit(0)
            time.sleep(rng.uniform(0, 1.2 * usual))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            counts[allowed.get(_state(path), "lost or wrong")] += 1
            for file in folder.glob(f"{name}-{i}.db*"):
                file.unlink()
        found[name] = {"kills": n, **counts}
    return found


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--landmarks", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/catalogue.json"))
    options = parser.parse_args()
    result: dict[str, Any] = {"command": "python -m benchmarks.catalogue", "environment": environment()}
    with tempfile.TemporaryDirectory() as folder:
        if options.landmarks:
            result["size"] = measure_size(Path(folder), options.landmarks)
        if options.kills:
            result["kill -9"] = kill(Path(folder), options.kills)
    print(json.dumps(result, indent=1, ensure_ascii=False))
    write_atomically(options.out, (json.dumps(result, indent=1, ensure_ascii=False) + "\n").encode())


if __name__ == "__main__":
    main()
