"""Coverage-guided fuzzing at the doors: `python -m reliability.guided DOOR [--seconds N]`, beside the seeded `fuzz`.

atheris counts the edges of our own Python code that an input reaches and keeps the inputs that reach new ones. It sees
nothing inside OpenCV, SQLite and NumPy. Anything but an answer or an error of our own tree is a finding: its input is
kept in out/reliability/guided/DOOR, and the run goes on with the next seed.

atheris is no dependency (its wheels are for x86-64 and a few versions of Python): python -m pip install atheris
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "out" / "reliability" / "guided"
NAMES = ("image", "database", "pack", "service")
_HANG = 60  # seconds for one input


class Door(NamedTuple):
    """What is tried, and what to begin with."""

    attempt: Callable[[bytes], object]
    seeds: list[bytes]
    longest: int  # bytes of an input
    close: Callable[[], None] = lambda: None


def _longest(seeds: list[bytes]) -> int:
    return max(map(len, seeds)) + 4096


def image_door(folder: Path) -> Door:
    """The bytes of a photo."""
    from delf_edge.images.decode import load_image
    from delf_edge.images.limits import ImageLimits
    from reliability import doors
    from testing.paths import FIXTURES

    limits = ImageLimits(max_pixels=4_000_000)  # a larger one only takes longer
    seeds = [*doors.encoded(0), (FIXTURES / "cmyk.jpg").read_bytes(), *_phone_photos(doors.encoded(0)[3])]
    seeds += [b"II+\0\x08\0\0\0" + (16).to_bytes(8, "little") + bytes(64)]  # BigTIFF, which OpenCV does not write
    return Door(lambda data: load_image(data, limits=limits), seeds, _longest(seeds))


def _phone_photos(png: bytes) -> list[bytes]:
    """The photo as HEIC and AVIF, where the extra is installed."""
    try:
        import pillow_heif
        from PIL import Image
    except ImportError:
        return []
    picture, files = Image.open(io.BytesIO(png)), [io.BytesIO(), io.BytesIO()]
    pillow_heif.from_pillow(picture).save(files[0], quality=50)
    picture.save(files[1], "AVIF", quality=50)
    return [file.getvalue() for file in files]


def database_door(folder: Path) -> Door:
    """A database; the first byte says whether its rows are given right checksums, as a stranger would.

    Every one is verified and read, and one in eight asked for a place.
    """
    import zlib
    from collections import deque
    from itertools import chain

    import numpy as np

    from delf_edge.files import remove_database
    from delf_edge.storage.store import Store
    from reliability import doors

    doors.places_file(folder / "whole.db")
    whole = (folder / "whole.db").read_bytes()
    path = folder / "mutant.db"

    def attempt(data: bytes) -> None:
        remove_database(path)
        path.write_bytes(data[1:])
        if data[:1] > b"\x7f":
            doors.right_checksums(path)
        with Store.open(path, mode="ro") as store:
            store.verify()
            if zlib.crc32(data) % 8 == 0:  # the rest takes ten times as long
                doors.asked(store, np.random.default_rng(len(data)), hostile=True)
            else:
                deque(chain(store.images(), store.code_batches(), store.landmarks()), maxlen=0)

    seeds = [b"\0" + whole, b"\xff" + whole]
    return Door(attempt, seeds, _longest(seeds))


def pack_door(folder: Path) -> Door:
    """A pack, its manifest, a delta as it is and a delta before it was packed, by the first byte."""
    import zlib

    import numpy as np

    from delf_edge.files import remove_database
    from delf_edge.packs.manifest import manifest_path, open_pack
    from delf_edge.updates.delta import apply_delta
    from reliability import doors
    from reliability.pack_door import Source, described_anew

    source = Source(folder)
    pack, paper = source.packs[0].read_bytes(), manifest_path(source.packs[0]).read_bytes()
    packed = source.delta.read_bytes()
    inside = zlib.decompress(packed)
    mutant, delta = folder / "mutant.pack", folder / "delta.mutant"

    def attempt(data: bytes) -> None:
        kind, data = data[:1], data[1:]
        remove_database(mutant)
        if kind < b"\x80":
            mutant.write_bytes(data if kind < b"\x40" else pack)
            if kind < b"\x40":
                described_anew(mutant, source.manifests[0])
            else:
                manifest_path(mutant).write_bytes(data)
        else:
            delta.write_bytes(data if kind < b"\xc0" else zlib.compress(data, 1))
            size = len(inside) if kind < b"\xc0" else len(data)
            apply_delta(source.packs[0], delta, mutant, source.manifests[1], size)
        with open_pack(mutant) as store:
            doors.asked(store, np.random.default_rng(len(data)), hostile=True)

    seeds = [b"\0" + pack, b"\x40" + paper, b"\x80" + packed, b"\xc0" + inside]
    return Door(attempt, seeds, _longest(seeds))


def service_door(folder: Path) -> Door:
    """A request: lines with method, path, query and a header's name and value; then, behind an empty line, the body."""
    from reliability import doors, world

    ask = doors.Requests(folder)
    photo = world.photo(1)
    seeds = [
        b"POST\n/v1/identify\n\nx-a\nb\n\n" + photo,
        b"POST\n/v1/images\nlandmark=x&name=y&replace=true\naccept-language\nde\n\n" + photo,
        b"POST\n/v1/images\n\ncontent-type\nmultipart/form-data; boundary=b\n\n"
        b'--b\r\nContent-Disposition: form-data; name="landmark"\r\n\r\nx\r\n--b\r\n'
        b'Content-Disposition: form-data; name="photo"; filename="a.png"\r\n\r\n' + photo + b"\r\n--b--\r\n",
        b"POST\n/v1/quality\nlandmark=l1\nx-a\nb\n\n" + photo,
        b"GET\n/v1/landmarks/l1\n\naccept-language\nde-AT, en;q=0.5\n\n",
        b"GET\n/v1/images/1/thumbnail\n\nif-none-match\n*\n\n",
        b"DELETE\n/v1/images\nlandmark=l1\norigin\nhttp://localhost\n\n",
    ]

    def attempt(data: bytes) -> None:
        head, _, body = data.partition(b"\n\n")
        method, path, query, name, value, *_ = [*head.split(b"\n"), b"", b"", b"", b"", b""]
        headers = [(b"host", b"127.0.0.1"), (b"authorization", b"Bearer secret-0123456789")]
        if name.strip().lower() not in (b"", b"host", b"authorization"):
            headers.append((name.strip().lower(), value))
        status = ask(method.decode("latin-1"), path.decode("latin-1"), query, headers, body)
        if status >= 500 and status not in (503, 507):
            raise RuntimeError(f"status {status}")

    return Door(attempt, seeds, _longest(seeds), ask.close)


def inside(name: str, arguments: list[str]) -> None:
    """The fuzzer itself, in a process of its own."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["delf_edge"]):
        from delf_edge.errors import DelfEdgeError

        folder = Path(tempfile.mkdtemp(prefix="delf-edge-guided-"))
        door: Door = globals()[f"{name}_door"](folder)

    def attempt(data: bytes) -> None:
        try:
            door.attempt(data)
        except (DelfEdgeError, MemoryError):
            return

    corpus = KEPT / name / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(door.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    options = [f"-max_len={door.longest}", f"-timeout={_HANG}", "-rss_limit_mb=4096", "-print_final_stats=1"]
    artifacts = f"-artifact_prefix={KEPT / name}/"
    atheris.Setup([sys.argv[0], *options, artifacts, *arguments, str(corpus)], attempt)
    atheris.Fuzz()


def run(name: str, seconds: float) -> dict[str, Any]:
    """Fuzz a door for so long: executions, edges, and what was found."""
    memory = Path("/dev/shm")  # nothing there has to survive, and a disk waits at every flush
    place = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="delf-edge-guided-", dir=place) as scratch:
        return _run(name, seconds, {**os.environ, "TMPDIR": scratch})


def _run(name: str, seconds: float, environment: dict[str, str]) -> dict[str, Any]:
    (KEPT / name).mkdir(parents=True, exist_ok=True)
    until, seed = time.monotonic() + seconds, 1
    executions, edges, features, found = 0, 0, 0, []
    while (left := until - time.monotonic()) > 1:
        words = ["-m", "reliability.guided", name, "--inside", "--", f"-max_total_time={left:.0f}", f"-seed={seed}"]
        ran = subprocess.run(
            [sys.executable, *words],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,  # where atheris writes the traceback of a finding
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        said = ran.stdout
        (KEPT / f"{name}.log").write_text(said)
        counts = re.findall(r"^#(\d+)\s.*cov: (\d+) ft: (\d+)", said, re.MULTILINE)
        if not counts:
            raise RuntimeError(f"{name}: the fuzzer did not begin: {said[-2000:]}")
        total = re.findall(r"stat::number_of_executed_units:\s*(\d+)", said)
        executions += int(total[-1]) if total else int(counts[-1][0])
        edges, features = max(edges, int(counts[-1][1])), max(features, int(counts[-1][2]))
        if ran.returncode:
            lines = [line for line in said.splitlines() if "Error" in line or "ERROR" in line or "Test unit" in line]
            found.append(f"seed {seed}: {' | '.join(lines)[:1000]}")
        seed += 1
    facts = {"seconds": round(seconds), "executions": executions, "edges": edges, "features": features}
    corpus = len(list((KEPT / name / "corpus").iterdir()))
    return facts | {"corpus": corpus, "lost or wrong": len(found), "found": found}


def main() -> int:
    """The command; exit code 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="DOOR", help=f"of {', '.join(NAMES)}; default: all")
    parser.add_argument("--seconds", type=float, default=600, help="for each door")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options, more = parser.parse_known_args()
    names = [name for name in options.names or NAMES if not name.startswith("-")]
    if unknown := set(names) - set(NAMES):
        parser.error(f"no door is called {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    if options.inside:
        inside(names[0], [word for word in [*options.names, *more] if word.startswith("-") and word != "--"])
        return 0
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    results = {name: run(name, options.seconds) for name in names}
    print(json.dumps(results, indent=1))
    return 1 if any(result["lost or wrong"] for result in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
