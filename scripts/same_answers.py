"""Does another state of the code give the same answers, to the bit?

usage: same_answers.py OLD NEW [--dev DEV.json] [--queries N] [--photos N] [--save FILE] [--out FILE]

OLD and NEW are checkouts, each with its compiled loops where it has them; OLD may also be what `--save` wrote of it.
The same questions go to both, in processes of their own: the whole demo; a part of a benchmark (`--dev`); features of
the golden picture; the bundle's id; the content of a small build; exit code and `--json` of every command. Compared is
every number as it is printed, to the last digit. Left out are times, dates, random ids, versions, the machine, and the
paths of the two checkouts. Exit code 0: nothing differs, or only keys that NEW adds to an object.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

VOLATILE = re.compile(
    r"(^|[ _])(ms|milliseconds|seconds|times?|date|uuid|created|rss|peak|load|keyid|machine|versions?)($|[ _])|_mb$"
    r"|^added_at$|^(content|manifest)_sha256$"  # the bytes of a pack hold the time when a photo was added
)
MEASURED = re.compile(r"\d+(\.\d+)? ms")
RENAMED = {"matches": "results"}  # attributes of an answer that have a new name beside the old one
LAUNCH = """
try:
    from delf_edge.cli.main import main
except ModuleNotFoundError:
    from delf_edge.cli import main
main()
"""
DEMO = Path("assets/demo")
MORE = 4  # queries of the demo that are also asked in other ways
# One line a command; `@` stands for the checkout's folder. The order matters: later ones use what earlier ones made.
COMMANDS = """
index places.db photos --thumbnails
index places.db photos
identify places.db query.webp stranger.webp
identify places.db query.webp --near 41.89,12.49,5000
identify places.db missing.jpg query.webp
explain places.db query.webp --out proof.png
relabel places.db Petra/photo.webp Elsewhere
locate places.db Colosseum --at 41.89,12.49
info places.db
lint places.db
snapshot places.db copy.db
remove copy.db --landmark Elsewhere
remove copy.db Colosseum/photo.webp
verify copy.db
seal copy.db
verify copy.db
export places.db exported
import imported.db exported
info imported.db
pack places.db cut.pack --version 1 --name cut
identify empty.db query.webp --pack cut.pack
publish channel cut.pack --keys keys --new
update channel device --root channel/metadata/1.root.json
build photos.csv built --workers 1 --shard-size 8 --bundle @/tests/fixtures/tiny_bundle
fit-codebook photos.csv fitted --workers 1 --photos 12 --words 64 --bundle @/tests/fixtures/tiny_bundle
doctor
bench places.db --runs 1
serve missing.db --port nonsense
""".strip().splitlines()
MONUMENTS = ("Colosseum", "Petra", "Taj Mahal", "Eiffel Tower", "Brandenburg Gate", "Pont du Gard")


# ------------------------------------------------------------------ asking one checkout


def digest(*arrays: Any) -> str:
    """SHA-256 over the bytes of arrays."""
    whole = hashlib.sha256()
    for array in arrays:
        whole.update(np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()


def features_digest(features: Any) -> str:
    """SHA-256 of everything that was extracted from a photo."""
    names = ("keypoints", "scales", "scores", "descriptors", "global_descriptor")
    return digest(*(getattr(features, name) for name in names))


def plain(value: Any) -> Any:
    """An answer as JSON: dataclasses as objects, arrays as digests."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        return digest(value)
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.generic):
        return value.item()
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def demo(checkout: Path, work: Path) -> dict[str, Any]:
    """All references, all queries, with features, answers and the whole ranking."""
    from delf_edge import Recognizer

    found: dict[str, Any] = {}
    with Recognizer.open(work / "demo.db") as recognizer:
        for photo in sorted((checkout / DEMO / "references").glob("*/*.webp")):
            recognizer.add(photo, landmark=photo.parent.name, name=f"{photo.parent.name}/{photo.name}")
        for number, photo in enumerate(sorted((checkout / DEMO / "queries").glob("*.webp"))):
            features = recognizer.extract(photo)
            found[photo.name] = {
                "features": features_digest(features),
                "answer": plain(recognizer.identify(photo)),
                "ranking": plain(recognizer.rank(features, 50)),
            }
            if number < MORE:
                found[photo.name]["search"] = plain(recognizer.search(photo, 10))
                found[photo.name]["all landmarks"] = plain(recognizer.explain_all(photo))
    return found


def benchmark(dev: Path, queries: int, photos: int, work: Path) -> dict[str, Any]:
    """A part of a benchmark: its first queries, what they are positive for, and others."""
    from delf_edge import Recognizer

    raw = json.loads(dev.read_text(encoding="utf-8"))
    step = max(1, len(raw["queries"]) // queries)
    asked = raw["queries"][::step][:queries]
    stored = dict.fromkeys(name for entry in asked for name in entry["positives"][:4])
    stored |= dict.fromkeys(raw["database"][:: max(1, len(raw["database"]) // photos)])
    with Recognizer.open(work / "dev.db") as recognizer:
        for name in list(stored)[:photos]:
            recognizer.add(dev.parent / name, landmark=str(Path(name).parent), name=name)
        return {
            entry["query"]: {
                "answer": plain(recognizer.identify(dev.parent / entry["query"])),
                "ranking": plain(recognizer.rank(recognizer.extract(dev.parent / entry["query"]), 100)),
            }
            for entry in asked
        }


def golden() -> dict[str, Any]:
    """The bundle's id, and what its network makes of the golden picture at every preset."""
    from delf_edge import Bundle, Recognizer, default_bundle_path

    bundle = Bundle.load(default_bundle_path())
    with np.load(io.BytesIO(bundle.golden)) as archive:
        pixels = archive["image"]
    found: dict[str, Any] = {"bundle id": bundle.id}
    with tempfile.TemporaryDirectory() as folder:
        for preset in sorted(bundle.presets):
            with Recognizer.open(Path(folder) / f"{preset}.db", bundle=bundle, preset=preset) as recognizer:
                found[preset] = features_digest(recognizer.extract(pixels, channel_order="RGB"))
    return found


def commands(checkout: Path, work: Path) -> dict[str, Any]:
    """Exit code and JSON of every command, in the order of `COMMANDS`."""
    for monument in MONUMENTS:
        source = checkout / DEMO / "references" / monument / "photo.webp"
        target = work / "photos" / monument / "photo.webp"
        target.parent.mkdir(parents=True)
        target.write_bytes(source.read_bytes())
    rows = [f"photos/{monument}/photo.webp,{monument}" for monument in MONUMENTS]
    (work / "photos.csv").write_text("\n".join(["path,landmark", *rows, ""]), encoding="utf-8")
    for name, source in (("query", "colosseum"), ("stranger", "zimniPalace")):
        (work / f"{name}.webp").write_bytes((checkout / DEMO / "queries" / f"{source}.webp").read_bytes())
    found = {}
    for number, line in enumerate(COMMANDS):
        words = [word.replace("@", str(checkout)) for word in line.split()]
        ran = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", LAUNCH, *words, "--json"], cwd=work, capture_output=True, check=False
        )
        text = ran.stdout.decode(errors="replace")
        try:
            said = json.loads(text)
        except ValueError:
            said = text
        if words[0] == "pack" and isinstance(said, dict):
            said.get("manifest", {}).pop("sha256", None)
        found[f"{number:02} {line}"] = {"exit": ran.returncode, "json": said}
    for name in ("places.db", "imported.db", "copy.db"):
        found[f"content of {name}"] = content(work / name)
    return found


def content(database: Path) -> dict[str, Any]:
    """Every image and landmark of a database, with its codes."""
    from delf_edge import Recognizer

    with Recognizer.open(database, read_only=True) as recognizer:
        store = recognizer.store
        images = sorted(store.images(), key=lambda image: image.name)
        codes = store.codes([image.image_id for image in images])
        return {
            image.name: [image.landmark, image.content_hash.hex(), *_codes(codes[image.image_id])] for image in images
        }


def _codes(codes: Any) -> list[str]:
    return [digest(getattr(codes, name)) for name in ("keypoints", "words", "codes", "global_code")]


# ------------------------------------------------------------------ comparing two


def masked(value: Any, folders: Sequence[str]) -> Any:
    """Without what may differ: times, dates, random ids, and the folders that things lie in."""
    if isinstance(value, dict):
        return {RENAMED.get(k, k): masked(v, folders) for k, v in value.items() if not VOLATILE.search(k)}
    if isinstance(value, list):
        return [masked(v, folders) for v in value]
    if isinstance(value, str):
        for folder in folders:
            value = value.replace(folder, "FOLDER")
        return MEASURED.sub("MS", value).replace("FOLDER/delf_edge/assets", "FOLDER/assets")  # a link to it
    return value


def differences(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """One line for each place where they are not equal; a key that only `new` has begins with "+"."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if key not in new:
                yield f"{where}/{key}: gone"
            elif key not in old:
                yield f"+ {where}/{key}: {json.dumps(new[key])[:80]}"
            else:
                yield from differences(old[key], new[key], f"{where}/{key}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, (a, b) in enumerate(zip(old, new, strict=True)):
            yield from differences(a, b, f"{where}[{i}]")
    elif type(old) is not type(new) or old != new:
        yield f"{where}: {json.dumps(old)[:200]} -> {json.dumps(new)[:200]}"


def numbers(value: Any) -> int:
    """How many values were compared."""
    if isinstance(value, dict | list):
        return sum(numbers(v) for v in (value.values() if isinstance(value, dict) else value))
    return 1


def asked(checkout: Path, options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """What a checkout says, from a process of its own."""
    work.mkdir()
    out = work / "answers.json"
    words = [sys.executable, "-W", "ignore", __file__, str(checkout), str(work), "--probe", str(out)]
    words += ["--queries", str(options.queries), "--photos", str(options.photos)]
    words += ["--dev", str(options.dev.resolve())] if options.dev else []
    subprocess.run(words, env={**os.environ, "PYTHONPATH": str(checkout)}, cwd=work, check=True)
    folders = (str(work.resolve()), str(checkout.resolve()))
    said: dict[str, Any] = masked(json.loads(out.read_text(encoding="utf-8")), folders)
    return said


def main() -> int:
    """Compare, or with `--probe` ask one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, metavar="OLD")
    parser.add_argument("new", type=Path, metavar="NEW")
    parser.add_argument("--dev", type=Path, help="a benchmark: JSON of queries, positives and database")
    parser.add_argument("--queries", type=int, default=12, help="of the benchmark; default 12")
    parser.add_argument("--photos", type=int, default=100, help="of the benchmark; default 100")
    parser.add_argument("--out", type=Path, help="file for what was found")
    parser.add_argument("--save", type=Path, help="file for the answers of OLD, to be given in its place another time")
    parser.add_argument("--probe", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.probe:
        checkout, work = options.old, options.new
        said = {"golden": golden(), "demo": demo(checkout, work), "commands": commands(checkout, work)}
        if options.dev:
            said["benchmark"] = benchmark(options.dev, options.queries, options.photos, work)
        options.probe.write_text(json.dumps(said), encoding="utf-8")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        if options.old.is_file():
            old = masked(json.loads(options.old.read_text(encoding="utf-8")), ())
        else:
            old = asked(options.old.resolve(), options, Path(folder) / "old")
        if options.save:
            options.save.write_text(json.dumps(old), encoding="utf-8")
        new = asked(options.new.resolve(), options, Path(folder) / "new")
    found = list(differences(old, new))
    lost = [line for line in found if not line.startswith("+ ")]
    print("\n".join(found))
    print(f"{numbers(old)} values compared, {len(lost)} differ, {len(found) - len(lost)} are new")
    if options.out:
        report = {"values": numbers(old), "differ": lost, "new": [line for line in found if line not in lost]}
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
