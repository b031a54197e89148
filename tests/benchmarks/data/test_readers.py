"""A miniature of every public format, and pickles that want to do something."""

from __future__ import annotations

import contextlib
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.data import readers
from benchmarks.data.datasets import DatasetError, read_json
from benchmarks.data.safe_pickle import UnsafePickleError, loads
from benchmarks.metrics.protocols import score_rankings


def photos(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


# ---------------------------------------------------------------------------------------------------------- JSON


def test_json(tmp_path: Path) -> None:
    path = tmp_path / "mini.json"
    path.write_text(
        '{"queries": [{"query": "q.jpg", "place": "tower", "positives": ["a.jpg"], "junk": ["b.jpg"]},'
        ' {"query": "c.jpg", "positives": ["a.jpg"]}], "database": ["a.jpg", "b.jpg", "c.jpg"]}'
    )
    d = read_json(path)
    assert d.queries[0].graded("positive") == {0}
    assert d.queries[0].graded("junk") == {1}
    assert d.queries[1].graded("junk") == {2}  # the query itself is in the database
    assert d.places == ("tower", None, None)
    assert d.missing() == ["a.jpg", "b.jpg", "c.jpg", "q.jpg"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "not a benchmark file"),
        ("{", "not a benchmark file"),
        ('{"queries": [{"query": "q", "positives": ["x"]}], "database": ["a"]}', "x is not in the database"),
        ('{"queries": [], "database": ["a", "a"]}', "names a photo twice"),
    ],
)
def test_json_that_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mini.json"
    path.write_text(text)
    with pytest.raises(DatasetError, match=message):
        read_json(path)


def test_subset_and_head_renumber(tmp_path: Path) -> None:
    path = tmp_path / "mini.json"
    path.write_text('{"queries": [{"query": "q", "positives": ["c", "e"]}], "database": ["a", "b", "c", "d", "e"]}')
    d = read_json(path)
    small = d.subset([1, 4])
    assert small.database == ("b", "e")
    assert small.queries[0].graded("positive") == {1}
    head = d.head(1, 3)
    assert len(head.database) == 3
    assert {head.database[i] for i in head.queries[0].graded("positive")} == {"c", "e"}


# ------------------------------------------------------------------------------------------------- Oxford and Paris


def oxford(tmp_path: Path) -> tuple[Path, Path]:
    images = photos(tmp_path / "jpg", *(f"all_souls_00000{i}.jpg" for i in range(5)))
    gt = tmp_path / "gt"
    gt.mkdir()
    (gt / "all_souls_1_query.txt").write_text("oxc1_all_souls_000000 136.5 34.1 648.5 955.7\n")
    (gt / "all_souls_1_good.txt").write_text("all_souls_000001\n")
    (gt / "all_souls_1_ok.txt").write_text("all_souls_000002\n")
    (gt / "all_souls_1_junk.txt").write_text("all_souls_000003\n")
    return gt, images


def test_oxford(tmp_path: Path) -> None:
    gt, images = oxford(tmp_path)
    d = readers.read(gt, images)
    (q,) = d.queries
    assert q.name == "all_souls_000000.jpg"
    assert q.box == (136.5, 34.1, 648.5, 955.7)
    assert q.place == "all_souls"
    assert q.graded("good", "ok") == {1, 2}
    assert q.graded("junk") == {3}
    assert d.places == (None, "all_souls", "all_souls", None, None)
    assert score_rankings(d, [np.array([3, 1, 2, 0, 4])])["map"].map == 1.0


def test_paris_keeps_its_photos_in_folders_and_has_no_prefix(tmp_path: Path) -> None:
    images = photos(tmp_path / "jpg", "defense/paris_defense_000605.jpg", "eiffel/paris_eiffel_000001.jpg")
    gt = tmp_path / "gt"
    gt.mkdir()
    for grade, text in (
        ("query", "paris_defense_000605 1 2 3 4"),
        ("good", "paris_eiffel_000001"),
        ("ok", ""),
        ("junk", ""),
    ):
        (gt / f"defense_1_{grade}.txt").write_text(text)
    d = readers.read_oxford(gt, images)
    assert d.queries[0].name == "defense/paris_defense_000605.jpg"
    assert d.queries[0].graded("good") == {1}


def test_oxford_that_is_wrong(tmp_path: Path) -> None:
    gt, images = oxford(tmp_path)
    with pytest.raises(DatasetError, match="--images"):
        readers.read(gt)
    (gt / "all_souls_1_ok.txt").write_text("all_souls_999999\n")
    with pytest.raises(DatasetError, match=r"all_souls_999999.*not in"):
        readers.read(gt, images)
    (gt / "all_souls_1_ok.txt").unlink()
    with pytest.raises(DatasetError, match="is missing"):
        readers.read(gt, images)
    (gt / "all_souls_1_query.txt").write_text("oxc1_all_souls_000000 136.5\n")
    with pytest.raises(DatasetError, match="four numbers"):
        readers.read(gt, images)
    (gt / "all_souls_1_query.txt").unlink()
    with pytest.raises(DatasetError, match=r"no \*_query.txt"):
        readers.read(gt, images)


def test_distractors_are_added_behind(tmp_path: Path) -> None:
    gt, images = oxford(tmp_path)
    more = photos(tmp_path / "more", "z.jpg")
    d = readers.with_distractors(readers.read(gt, images), more)
    assert len(d.database) == 6
    assert d.path(d.database[5]) == more / "z.jpg"
    assert d.places[5] is None


# ------------------------------------------------------------------------------------------------ Revisited (pickle)

GND: dict[str, Any] = {
    "imlist": ["a_1", "a_2", "a_3"],
    "qimlist": ["q_1"],
    "gnd": [{"bbx": [1.0, 2.0, 30.5, 40.25], "easy": np.array([0]), "hard": np.array([2], np.int32), "junk": []}],
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_revisited_of_every_pickle_protocol(tmp_path: Path, protocol: int) -> None:
    images = photos(tmp_path / "jpg", "a_1.jpg", "a_2.jpg", "a_3.jpg", "q_1.jpg")
    path = tmp_path / "gnd_roxford5k.pkl"
    path.write_bytes(pickle.dumps(GND, protocol))
    d = readers.read(path, images)
    (q,) = d.queries
    assert q.box == (1.0, 2.0, 30.5, 40.25)
    assert [q.graded(g) for g in ("easy", "hard", "junk")] == [{0}, {2}, set()]
    assert [s.name for s in d.settings] == ["easy", "medium", "hard"]


def test_the_same_authors_old_ground_truth(tmp_path: Path) -> None:
    images = photos(tmp_path / "jpg", "a_1.jpg", "q_1.jpg")
    path = tmp_path / "gnd_oxford5k.pkl"
    raw = {"imlist": ["a_1"], "qimlist": ["q_1"], "gnd": [{"bbx": (0, 0, 1, 1), "ok": [0], "junk": []}]}
    path.write_bytes(pickle.dumps(raw))
    assert readers.read(path, images).queries[0].graded("ok") == {0}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, -2, 2**70, 1.5, None, True, "ü", b"\x00\xff"], "t": (1, (2, 3), (), (1, 2, 3, 4)), "s": {1, 2}},
        [np.arange(6, dtype=np.int64).reshape(2, 3), np.float32(2.5), np.array([True, False]), np.zeros((0, 4), "<f8")],
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(3, dtype=">i4"),
        frozenset({"x"}),
    ],
)
def test_plain_data_comes_back(value: Any, protocol: int) -> None:
    np.testing.assert_equal(loads(pickle.dumps(value, protocol)), value)


def test_a_pickle_written_by_python_2() -> None:
    data = b"(dp0\nS'imlist'\np1\n(lp2\nS'a_1'\np3\nasS'n'\nI5\ns."  # protocol 0, byte strings
    assert loads(data) == {"imlist": ["a_1"], "n": 5}
    assert loads(b"\x80\x02}q\x00U\x03abcq\x01K\x07s.") == {"abc": 7}  # protocol 2, short binary string


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.witness),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_malicious_pickle_is_refused_and_does_nothing(tmp_path: Path, protocol: int) -> None:
    witness = tmp_path / "executed"
    path = tmp_path / "gnd_evil.pkl"
    path.write_bytes(pickle.dumps({"gnd": [Malicious(witness)], "imlist": [], "qimlist": []}, protocol))
    with pytest.raises(DatasetError, match="only plain data"):
        readers.read(path, photos(tmp_path / "jpg", "a.jpg"))
    assert not witness.exists()
    pickle.loads(path.read_bytes())  # the real reader would have run it
    assert witness.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"cbuiltins\neval\n(V1\ntR.",
        b"cnumpy\nload\n(Vx\ntR.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cbuiltins\nexec\n(I0\ntVb\ntR.",
        b"(Vls\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nVls\no.",  # OBJ
        b"\x80\x02cnumpy\nndarray\n)\x81.",  # NEWOBJ
        b"\x82\x01.",  # extension registry
        b"Vx\nQ.",  # persistent id
        b"cnumpy\nndarray\n.",  # a name as the value
        b"cnumpy\nndarray\n(tR.",  # a call of numpy.ndarray itself
        b"ccollections\nOrderedDict\n)R.",
        pickle.dumps(OrderedDict(a=1)),
        pickle.dumps(np.array([object], dtype=object)),
        pickle.dumps(np.zeros(2, "datetime64[s]")),
        b"",
        b".",
        b"K\x01K\x02.",
        b"}K\x01s.",
        b"t.",
        b"g7\n.",
        b"}]K\x01s.",
        b"]]a}Vx\n(K\x01es.",
    ],
)
def test_everything_else_is_refused(data: bytes) -> None:
    with pytest.raises(UnsafePickleError):
        loads(data)


def test_a_bomb_of_references_stays_small() -> None:
    data = (
        b"]q\x00" + b"".join(b"](h" + bytes([i]) + b"h" + bytes([i]) + b"eq" + bytes([i + 1]) for i in range(40)) + b"."
    )
    with pytest.raises(UnsafePickleError, match="one value"):
        loads(data)
    nested = (
        b"]q\x00"
        + b"".join(b"0](h" + bytes([i]) + b"h" + bytes([i]) + b"eq" + bytes([i + 1]) for i in range(40))
        + b"."
    )
    value = loads(nested)  # 2^40 leaves, 41 lists
    for _ in range(40):
        assert value[0] is value[1]
        value = value[0]
    with pytest.raises(UnsafePickleError, match="deeper"):
        loads(b"]" * 60 + b"a" * 59 + b".")


@given(st.binary(max_size=60))
def test_random_bytes_never_do_anything_but_fail(data: bytes) -> None:
    with contextlib.suppress(UnsafePickleError):
        loads(data)


@given(st.data())
def test_a_damaged_pickle_fails_cleanly(data: st.DataObject) -> None:
    whole = bytearray(pickle.dumps(GND, data.draw(st.integers(0, pickle.HIGHEST_PROTOCOL))))
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(UnsafePickleError):
        loads(bytes(whole))


def test_a_pickle_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(DatasetError, match="expected gnd, imlist and qimlist"):
        readers.read(path, photos(tmp_path / "jpg", "a.jpg"))


# ------------------------------------------------------------------------------------------------ Google Landmarks


def test_landmarks_retrieval(tmp_path: Path) -> None:
    images = photos(
        tmp_path / "img", "index/0/0/a/00a.jpg", "index/0/0/b/00b.jpg", "test/0/1/q/01q.jpg", "test/0/2/i/02i.jpg"
    )
    (tmp_path / "index.csv").write_text("id\n00a\n00b\n")
    (tmp_path / "retrieval_solution_v2.1.csv").write_text("id,images,Usage\n01q,00b,Public\n02i,,Ignored\n")
    d = readers.read(tmp_path / "retrieval_solution_v2.1.csv", images, tmp_path / "index.csv")
    assert [q.name for q in d.queries] == ["test/0/1/q/01q.jpg"]
    assert d.queries[0].graded("positive") == {1}
    assert score_rankings(d, [np.array([0, 1])])["map@100"].map == 0.5


def test_landmarks_recognition(tmp_path: Path) -> None:
    images = photos(tmp_path / "img", "00a.jpg", "00b.jpg", "00c.jpg", "01q.jpg", "02n.jpg")
    (tmp_path / "train.csv").write_text("id,url,landmark_id\n00a,http://x,7\n00b,http://x,8\n00c,http://x,7\n")
    (tmp_path / "recognition_solution_v2.1.csv").write_text("id,landmarks,Usage\n01q,7 9,Private\n02n,,Public\n")
    d = readers.read(tmp_path / "recognition_solution_v2.1.csv", images, tmp_path / "train.csv")
    assert d.queries[0].graded("positive") == {0, 2}
    assert d.queries[0].place == "7"
    assert d.queries[1].graded("positive") == frozenset()
    assert d.queries[1].place is None
    assert d.places == ("7", "8", "7")


def test_landmarks_that_are_wrong(tmp_path: Path) -> None:
    images = photos(tmp_path / "img", "00a.jpg", "01q.jpg")
    index, solution = tmp_path / "index.csv", tmp_path / "solution.csv"
    index.write_text("id\n00a\n")
    solution.write_text("id,images\n01q,zzz\n")
    with pytest.raises(DatasetError, match="--index"):
        readers.read(solution, images)
    with pytest.raises(DatasetError, match="zzz is not in"):
        readers.read(solution, images, index)
    solution.write_text("id,landmarks\n01q,7\n")
    with pytest.raises(DatasetError, match="landmark_id"):
        readers.read(solution, images, index)
    solution.write_text("id,other\n01q,7\n")
    with pytest.raises(DatasetError, match="neither"):
        readers.read(solution, images, index)
    index.write_text("name\n00a\n")
    with pytest.raises(DatasetError, match="no column 'id'"):
        readers.read(solution, images, index)


@pytest.mark.parametrize("name", ["absent.json", "file.xml"])
def test_an_unknown_source(tmp_path: Path, name: str) -> None:
    if name == "file.xml":
        (tmp_path / name).write_text("")
    with pytest.raises(DatasetError):
        readers.read(tmp_path / name, tmp_path)
