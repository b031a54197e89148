"""Take the demo photographs out of Debian's `gcompris-qt-data` and write NOTICE.

::

    apt-get download gcompris-qt-data && dpkg -x gcompris-qt-data_*_all.deb unpacked
    python assets/demo/make_demo.py unpacked/usr/share/gcompris-qt/rcc

The photos are copied byte for byte. Author, licence and source of each are those of the README files that lie beside
them in the package; a photo without such an entry ends the run, nothing is guessed.
"""

from __future__ import annotations

import csv
import struct
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
MONUMENTS = "gcompris/src/activities/explore_monuments/resource/"
QUERIES = "gcompris/src/activities/categorization/resource/images/monuments/"
PACKAGE = "gcompris-qt-data 3.1-2 (Debian 12)"

LANDMARKS = {
    "egypt/bentPyramid": "Bent Pyramid",
    "egypt/greatPyramidOfGiza": "Great Pyramid of Giza",
    "egypt/meidumPyramid": "Meidum Pyramid",
    "egypt/redPyramid": "Red Pyramid",
    "france/arlesAmphitheater": "Arles Amphitheatre",
    "france/chateaudeChambord": "Château de Chambord",
    "france/chateaudeChenonceau": "Château de Chenonceau",
    "france/citedeCarcassonne": "Cité de Carcassonne",
    "france/eiffelTower": "Eiffel Tower",
    "france/montStMichel": "Mont-Saint-Michel",
    "france/palaisdesPapes": "Palais des Papes",
    "france/pontduGard": "Pont du Gard",
    "france/reimsCathedral": "Reims Cathedral",
    "france/rocamadour": "Rocamadour",
    "germany/aulaPalatina": "Aula Palatina",
    "germany/berlinCathedral": "Berlin Cathedral",
    "germany/brandenburgGate": "Brandenburg Gate",
    "germany/neuschwansteinCastle": "Neuschwanstein Castle",
    "germany/schwerinPalace": "Schwerin Palace",
    "germany/trierImperialBaths": "Trier Imperial Baths",
    "germany/wormsCathedral": "Worms Cathedral",
    "india/ajantaCave": "Ajanta Caves",
    "india/charminar": "Charminar",
    "india/gatewayofIndia": "Gateway of India",
    "india/goldenTemple": "Golden Temple",
    "india/greatStupa": "Great Stupa at Sanchi",
    "india/hawaMahal": "Hawa Mahal",
    "india/konarkSunTemple": "Konark Sun Temple",
    "india/mysorePalace": "Mysore Palace",
    "india/qutubMinar": "Qutub Minar",
    "india/rangGhar": "Rang Ghar",
    "india/victoriaMemorial": "Victoria Memorial, Kolkata",
    "usa/cabrillo": "Cabrillo National Monument",
    "usa/canyondeChelly": "Canyon de Chelly",
    "usa/castillodeSanMarcos": "Castillo de San Marcos",
    "usa/castleClinton": "Castle Clinton",
    "usa/fortSumter": "Fort Sumter",
    "usa/georgeWashingtonBirthplace": "George Washington Birthplace",
    "usa/lincolnMemorial": "Lincoln Memorial",
    "usa/mountRushmore": "Mount Rushmore",
    "usa/navajo": "Navajo National Monument",
    "usa/statueofLiberty": "Statue of Liberty",
    "wonders/chichenItza": "Chichen Itza",
    "wonders/christTheRedeemer": "Christ the Redeemer",
    "wonders/colosseum": "Colosseum",
    "wonders/greatWallofChina": "Great Wall of China",
    "wonders/machuPicchu": "Machu Picchu",
    "wonders/petra": "Petra",
    "wonders/tajMahal": "Taj Mahal",
}

# What each query shows: a landmark of the references, or "" for a place that is in none of them. The package's
# 27th photo, the Victoria Memorial in London, is left out: a reference of another building bears the same name.
SHOWN = {
    "brandenburgGate": "Brandenburg Gate",
    "christTheRedeemer": "Christ the Redeemer",
    "colosseum": "Colosseum",
    "eiffelTower": "Eiffel Tower",
    "greatPyramid": "Great Pyramid of Giza",
    "greatWall": "Great Wall of China",
    "kutubMinar": "Qutub Minar",
    "mountRushmore": "Mount Rushmore",
    "statueOfLiberty": "Statue of Liberty",
    "tajMahal": "Taj Mahal",
    "IndiaGate": "",
    "arcDeTriomphe": "",
    "bayterek": "",
    "burj": "",
    "cathedral": "",
    "empireState": "",
    "jucheTower": "",
    "leMusee": "",
    "leaningTowerOfPisa": "",
    "monument1": "",
    "monument2": "",
    "monument3": "",
    "operaHouse": "",
    "parthenon": "",
    "usCapitol": "",
    "zimniPalace": "",
}
# The same photo as its reference at 320 px instead of 1024 px: the README files name one source for both.
SAME_PHOTO = {"brandenburgGate", "colosseum", "greatPyramid"}
MISSPELT = {"germany/audaPalatina.webp": "germany/aulaPalatina.webp"}  # in the package's README, not on its files

NOTICE_HEAD = f"""\
NOTICE of the demo photographs
==============================

The photographs in this folder are not covered by the licence of delf-edge. They come from the Debian package
{PACKAGE}, which took them from Wikimedia Commons and MaxPixel and scaled them; make_demo.py copied them
unaltered. Author, licence and source are those of the README files beside the photos in that package; the package's
own debian/copyright still names the .jpg photos that these replaced.

Public Domain   released by the author or free of copyright by law
CC0-1.0         https://creativecommons.org/publicdomain/zero/1.0/
CC-BY-SA 4.0    https://creativecommons.org/licenses/by-sa/4.0/

file | author | licence | source
"""


class RccError(ValueError):
    """The bytes are not a Qt resource file that this reader understands."""


def read_rcc(blob: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield (path inside the resource, content) of every file of a Qt binary resource.

    Layout, every number big-endian: the magic `qres`, then u32 version and the u32 offsets of the tree, the data and
    the names. A tree node has 14 bytes, 22 from version 2 on: u32 offset of its name, u16 flags; then for a folder u32
    number of children and u32 index of the first child, for a file u16 country, u16 language and u32 offset of its
    data. A name is u16 length, u32 hash and that many UTF-16 units. Data is u32 size and the bytes; a packed
    entry's bytes start with u32 unpacked size, followed by a zlib stream.

    Raises:
        RccError: not a .rcc file, a newer version, cut off, or an entry packed with Zstandard.
    """
    try:
        yield from _walk(blob)
    except (struct.error, zlib.error, UnicodeDecodeError) as error:
        raise RccError(f"the resource file is damaged or cut off: {error}") from error


def _walk(blob: bytes) -> Iterator[tuple[str, bytes]]:
    """Visit the tree from its root; `read_rcc` names what goes wrong."""
    if blob[:4] != b"qres":
        raise RccError(f"a .rcc file starts with b'qres', this one with {blob[:4]!r}")
    version, tree, data, names = struct.unpack_from(">4I", blob, 4)
    if version not in (1, 2, 3):
        raise RccError(f"this .rcc file has format version {version}, this reader knows 1 to 3")
    node_size = 14 if version == 1 else 22
    todo = [(0, "")]
    while todo:
        index, folder = todo.pop()
        at = tree + index * node_size
        name_at, flags = struct.unpack_from(">IH", blob, at)
        path = folder
        if index:  # the root has no name
            (length,) = struct.unpack_from(">H", blob, names + name_at)
            start = names + name_at + 6
            path = f"{folder}/{blob[start : start + 2 * length].decode('utf-16-be')}".lstrip("/")
        if flags & 2:  # a folder
            count, first = struct.unpack_from(">II", blob, at + 6)
            todo += [(child, path) for child in reversed(range(first, first + count))]
        else:
            (offset,) = struct.unpack_from(">I", blob, at + 10)
            yield path, _content(blob, data + offset, flags, path)


def _content(blob: bytes, at: int, flags: int, path: str) -> bytes:
    """The unpacked bytes of the entry at `at`."""
    (size,) = struct.unpack_from(">I", blob, at)
    content = blob[at + 4 : at + 4 + size]
    if len(content) != size:
        raise RccError(f"{path} declares {size} bytes, the file holds {len(content)} of them")
    if flags & 4:
        raise RccError(f"{path} is packed with Zstandard, this reader knows zlib only")
    return zlib.decompress(content[4:]) if flags & 1 else content


@dataclass(frozen=True, slots=True)
class Credit:
    """Who made a photo, what it may be used for, and where it comes from."""

    author: str
    licence: str
    source: str


def read_credits(readme: str) -> dict[str, Credit]:
    """Photo path -> its credit, from a README of the package.

    Blank lines part the entries. An entry has the lines Copyright, License, often Source, and Files with one path
    a line below it.
    """
    table: dict[str, Credit] = {}
    for entry in readme.replace("\r", "").split("\n\n"):
        head, _, files = entry.partition("Files:")
        fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in head.splitlines())}
        for file in filter(None, (line.strip() for line in files.splitlines())):
            table[MISSPELT.get(file, file)] = Credit(fields["Copyright"], fields["License"], fields.get("Source", ""))
    return table


def read_photos(rcc: Path, folder: str) -> tuple[dict[str, bytes], dict[str, Credit]]:
    """The photos (name without suffix -> bytes) and the credits in one folder of a resource file."""
    content = {path[len(folder) :]: data for path, data in read_rcc(rcc.read_bytes()) if path.startswith(folder)}
    credits = read_credits(content["README"].decode())
    photos = {name.removesuffix(".webp"): data for name, data in content.items() if name.endswith(".webp")}
    return photos, credits


def main(rcc_folder: Path) -> None:
    """Write references/, queries/, queries.csv and NOTICE beside this file."""
    rows: list[tuple[str, Credit]] = []
    photos, credits = read_photos(rcc_folder / "explore_monuments.rcc", MONUMENTS)
    for name, landmark in LANDMARKS.items():
        target = HERE / "references" / landmark / "photo.webp"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(photos[name])
        rows.append((target.relative_to(HERE).as_posix(), credits[f"{name}.webp"]))

    photos, credits = read_photos(rcc_folder / "categorization.rcc", QUERIES)
    (HERE / "queries").mkdir(exist_ok=True)
    with (HERE / "queries.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["file", "landmark", "same_photo"])
        for name, landmark in SHOWN.items():
            target = HERE / "queries" / f"{name}.webp"
            target.write_bytes(photos[name])
            table.writerow([target.name, landmark, "yes" if name in SAME_PHOTO else "no"])
            rows.append((target.relative_to(HERE).as_posix(), credits[f"{name}.webp"]))

    lines = [f"{path} | {credit.author} | {credit.licence} | {credit.source}\n" for path, credit in rows]
    (HERE / "NOTICE").write_text(NOTICE_HEAD + "".join(lines), encoding="utf-8")
    print(f"{len(LANDMARKS)} references and {len(SHOWN)} queries written below {HERE}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: make_demo.py FOLDER_WITH_RCC_FILES")
    main(Path(sys.argv[1]))
