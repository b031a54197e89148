"""The training list of the default bundle."""

import csv
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs PyTorch: make test-converters")
pytestmark = pytest.mark.torch

from delf_edge.converters.training.default_recipe import HELD_OUT, training_photos, write_codebook_list  # noqa: E402


def test_held_out_places_are_absent_and_one_place_has_one_name(tmp_path: Path) -> None:
    places = ["porto/clerigos", *HELD_OUT]
    (tmp_path / "train.csv").write_text("path,place\n" + "".join(f"a/{i}.jpg,{p}\n" for i, p in enumerate(places)))
    (tmp_path / "train_small.csv").write_text("path,place\ns/1.jpg,small/colosseum\ns/2.jpg,small/big_ben\n")
    photos = training_photos(tmp_path)
    assert [(p.place, p.weight) for p in photos] == [
        ("porto/clerigos", 2.0),
        ("wonders7/colosseum", 0.8),
        ("small/big_ben", 0.8),
    ]
    assert photos[0].path == tmp_path / "a/0.jpg"


def test_the_codebook_sees_no_held_out_place(tmp_path: Path) -> None:
    places = ["porto/clerigos", *HELD_OUT]
    (tmp_path / "train.csv").write_text("path,place\n" + "".join(f"a/{i}.jpg,{p}\n" for i, p in enumerate(places)))
    with write_codebook_list(tmp_path, tmp_path / "out").open(newline="") as f:
        assert list(csv.reader(f)) == [["path", "place"], [str(tmp_path / "a/0.jpg"), "porto/clerigos"]]
