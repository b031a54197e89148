"""How the default bundle's network was trained.

    python -m delf_edge.converters.training.default_recipe --data DATA --out build/default

DATA is a folder with `train.csv` and `train_small.csv` (columns path, place). A killed run resumes. Two rounds:

1. Places, attention, the global descriptor and the correspondences between two warps of a photo are learnt together
   from ImageNet weights, for half of an 800-step schedule: longer runs knew the training places better and others
   worse. The result is averaged half and half with the ImageNet weights.
2. The trunk and the attention stay; the tail learns the places again under other light (`augment.relight`), for half
   of a 500-step schedule, and is averaged 0.6 to 0.4 with the ImageNet weights.

The committed network came from these rounds with one difference: the tail of its round 2 began with that of a run of
550 steps of `OTHER_LIGHT`, averaged half and half, whose trunk was no better than round 1's while its global descriptor
was.

The places in `HELD_OUT` are never shown to the network: probability and threshold are fitted on them
(`benchmarks.calibrate`); the weights of the score were chosen on DEV. The figures of all runs are in
`converters/training/default_training.jsonl`.

Words, codes and projections are fitted on the training photos without the held-out places: a whitening that has seen a
place flattens what tells its photos from others (held-out places, global descriptor alone: mAP 0.81 seen, 0.91 not
seen), so that the probability would be fitted on places that are harder than new ones. `codebook.csv` lists the
photos; `assets/default/MODEL_CARD_OF_NETWORKS.md` has the command. Since 0.2 the projections alone are of that fit:
words, codes and probability came later (`assets/default/MODEL_CARD.md`).

The probability of 0.1 was fitted on a bundle packed without `--probability`, and its `calibration` packed with it::

    python -m benchmarks.calibrate DATA --bundle DIR --only porto/camara sfm/british_museum sfm/nle_tower \\
        sfm/sceaux_castle vietnam/hochiminh_mausoleum wonders7/petra \\
        --weights '{"votes": 4, "similarity": 1.2, "inliers": 0.6, "floor": 7, "expansion": 8, "alpha": 1, \\
                    "support": 8}'
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from delf_edge.converters.networks.delf import load_checkpoint
from delf_edge.converters.training.averaging import interpolate
from delf_edge.converters.training.options import TrainOptions
from delf_edge.converters.training.photos import Photo, from_csv
from delf_edge.converters.training.trainer import train

HELD_OUT = (
    "porto/camara",
    "sfm/british_museum",
    "sfm/ettlingen_fountain",
    "sfm/nle_tower",
    "sfm/sceaux_castle",
    "stitching/NISwGSP-denny",
    "vietnam/hochiminh_mausoleum",
    "wonders7/petra",
)
SAME_PLACE = {
    "small/colosseum": "wonders7/colosseum",
    "small/machu_picchu": "wonders7/machu_picchu",
    "small/taj_mahal": "wonders7/taj_mahal",
}
OPTIONS = TrainOptions(steps=800, pair_share=0.0)
STOP = 400
WEIGHT = 0.5
TAIL = TrainOptions(
    steps=500,
    batch=14,
    sizes=(224, 256, 288),
    train_trunk=False,
    w_local=0.0,
    w_classify=0.0,
    global_to_trunk=False,
    relight=0.6,
    min_side=0.55,
    lr_tail=1.5e-4,
    warmup=50,
    pair_share=0.0,
    ema=0.99,
    seed=2,
)
TAIL_STOP = 250
TAIL_WEIGHT = 0.6
OTHER_LIGHT = TrainOptions(
    steps=1600,
    batch=20,
    sizes=(160, 192, 224),
    w_classify=0.3,
    relight=0.6,
    min_side=0.5,
    anchors=24,
    w_repeat=0.3,
    pair_share=0.0,
    seed=1,
)


def training_photos(data: Path) -> list[Photo]:
    """The training list: photos of places twice as often as their number says, indoor clips half as often."""

    def weight(photo: Photo) -> float:
        return 0.8 if photo.place.startswith("small/") else 0.5 if photo.place.startswith("indoor") else 2.0

    photos = from_csv(data / "train.csv") + from_csv(data / "train_small.csv")
    return [Photo(p.path, SAME_PLACE.get(p.place, p.place), weight(p)) for p in photos if p.place not in HELD_OUT]


def write_codebook_list(data: Path, out: Path) -> Path:
    """`codebook.csv` below `out`: path and place of the photos that the codebook is fitted on."""
    out.mkdir(parents=True, exist_ok=True)
    photos = [p for p in from_csv(data / "train.csv") if p.place not in HELD_OUT]
    with (out / "codebook.csv").open("w", newline="", encoding="utf-8") as f:
        rows = csv.writer(f)
        rows.writerow(["path", "place"])
        rows.writerows([str(p.path.resolve()), p.place] for p in photos)
    return out / "codebook.csv"


def main() -> None:
    """Train and average; the results are OUT/network.pt and OUT/codebook.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.csv and train_small.csv")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints")
    args = parser.parse_args()
    print(write_codebook_list(args.data, args.out))
    photos = training_photos(args.data)
    places = interpolate(train(photos, args.out / "places", OPTIONS, stop=STOP), WEIGHT, args.out / "places.pt")
    tail = train(photos, args.out / "tail", TAIL, start=load_checkpoint(places), stop=TAIL_STOP)
    print(interpolate(tail, TAIL_WEIGHT, args.out / "network.pt", tail_only=True))


if __name__ == "__main__":
    main()
