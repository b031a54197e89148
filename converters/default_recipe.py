"""How the default bundle's network was trained: `python -m converters.default_recipe --data DATA --out build/default`.

DATA is a folder with `train.csv` and `train_small.csv` (columns path, place). Two rounds, each resumable:

1. Places, attention and warps of single photos, from ImageNet weights.
2. The same with pairs of photos that the network of round 1 matched and RANSAC confirmed, on larger views.

The places in `HELD_OUT` are never shown to the network: score, probability and threshold are fitted on them. The
figures of the run are in `converters/default_training.jsonl`; on two CPU cores both rounds took about 75 minutes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .network import load_checkpoint
from .pairs import load_pairs, mine_pairs, save_pairs
from .photos import Photo, from_csv
from .training import TrainOptions, train

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
ROUND_1 = TrainOptions(steps=800, pair_share=0.0)
ROUND_2 = TrainOptions(steps=2100, warmup=50, lr_heads=1e-3, sizes=(144, 176, 208), save_every=150, seed=1)


def training_photos(data: Path) -> list[Photo]:
    """The training list: photos of places twice as often as their number says, indoor clips half as often."""

    def weight(photo: Photo) -> float:
        return 0.8 if photo.place.startswith("small/") else 0.5 if photo.place.startswith("indoor") else 2.0

    photos = from_csv(data / "train.csv") + from_csv(data / "train_small.csv")
    return [Photo(p.path, SAME_PLACE.get(p.place, p.place), weight(p)) for p in photos if p.place not in HELD_OUT]


def main() -> None:
    """Run both rounds; the result is OUT/round2/network.pt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.csv and train_small.csv")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints")
    args = parser.parse_args()
    photos, out = training_photos(args.data), args.out
    first = train(photos, out / "round1", ROUND_1)
    kept = out / "pairs.npz"
    if not kept.exists():
        network = load_checkpoint(first)
        save_pairs(mine_pairs(network, photos, scales=(0.45, 0.7), top=350, per_place=300, min_inliers=18), kept)
    print(train(photos, out / "round2", ROUND_2, pairs=load_pairs(kept), start=out / "round1"))


if __name__ == "__main__":
    main()
