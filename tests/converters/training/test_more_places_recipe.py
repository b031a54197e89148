"""The training list with the places of issue 18."""

import csv
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs PyTorch: make test-converters")
pytestmark = pytest.mark.torch

from delf_edge.converters.training.default_recipe import HELD_OUT  # noqa: E402
from delf_edge.converters.training.more_places_recipe import training_photos, write_codebook_list  # noqa: E402


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Manifests like those of the research photos, without photos."""
    places = ["porto/clerigos", *HELD_OUT]
    (tmp_path / "train.csv").write_text("path,place\n" + "".join(f"a/{i}.jpg,{p}\n" for i, p in enumerate(places)))
    (tmp_path / "train_small.csv").write_text("path,place\ns/1.jpg,small/colosseum\ns/2.jpg,small/big_ben\n")
    (tmp_path / "train_more.csv").write_text(
        "path,place,split,same_as\nm/1.jpg,more/colosseum,train,colosseum\nm/2.jpg,more/charminar,val,\n"
        "m/3.jpg,more/lotus_temple,train,\n"
    )
    (tmp_path / "train_more_small.csv").write_text("path,place,same_as\nt/1.jpg,more/ind_aga_khan_palace,\n")
    return tmp_path


def test_held_out_and_val_places_are_absent_and_one_place_has_one_name(data: Path) -> None:
    photos = training_photos(data)
    assert [(p.path.relative_to(data).as_posix(), p.place, p.weight) for p in photos] == [
        ("a/0.jpg", "porto/clerigos", 2.0),
        ("m/1.jpg", "wonders7/colosseum", 2.0),
        ("m/3.jpg", "more/lotus_temple", 2.0),
        ("s/1.jpg", "wonders7/colosseum", 0.4),
        ("s/2.jpg", "small/big_ben", 0.4),
        ("t/1.jpg", "more/ind_aga_khan_palace", 0.4),
    ]


def test_the_codebook_sees_neither_held_out_nor_val_nor_tiny_photos(data: Path) -> None:
    with write_codebook_list(data, data / "out").open(newline="") as f:
        assert list(csv.reader(f)) == [
            ["path", "place"],
            [str(data / "a/0.jpg"), "porto/clerigos"],
            [str(data / "m/1.jpg"), "wonders7/colosseum"],
            [str(data / "m/3.jpg"), "more/lotus_temple"],
        ]
