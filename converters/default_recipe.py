"""How the default bundle's network was trained: `python -m converters.default_recipe --data DATA --out build/default`.

DATA is a folder with `train.csv` and `train_small.csv` (columns path, place). Places, attention, the global descriptor
and the correspondences between two warps of a photo are learnt together from ImageNet weights, for half of an 800-step
schedule: longer runs knew the training places better and others worse. The result is averaged half and half
with the ImageNet weights. A killed run resumes.

The places in `HELD_OUT` are never shown to the network: score, probability and threshold are fitted on them
(`benchmarks.calibrate`). The figures of the run are in `converters/default_training.jsonl`.

The probability was then fitted on a bundle packed without `--probability`, and its `calibration` packed with it::

    python -m benchmarks.calibrate DATA --bundle DIR --only porto/camara sfm/british_museum sfm/nle_tower \\
        sfm/sceaux_castle vietnam/hochiminh_mausoleum wonders7/petra \\
        --weights '{"votes": 4, "similarity": 1, "inliers": 1, "floor": 7, "expansion": 8, "alpha": 1}'
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .photos import Photo, from_csv
from .training import TrainOptions, interpolate, train

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


def training_photos(data: Path) -> list[Photo]:
    """The training list: photos of places twice as often as their number says, indoor clips half as often."""

    def weight(photo: Photo) -> float:
        return 0.8 if photo.place.startswith("small/") else 0.5 if photo.place.startswith("indoor") else 2.0

    photos = from_csv(data / "train.csv") + from_csv(data / "train_small.csv")
    return [Photo(p.path, SAME_PLACE.get(p.place, p.place), weight(p)) for p in photos if p.place not in HELD_OUT]


def main() -> None:
    """Train and average; the result is OUT/network.pt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.csv and train_small.csv")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints")
    args = parser.parse_args()
    trained = train(training_photos(args.data), args.out / "run", OPTIONS, stop=STOP)
    print(interpolate(trained, WEIGHT, args.out / "network.pt"))


if __name__ == "__main__":
    main()
