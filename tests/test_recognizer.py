"""The whole path on the tiny bundle: random weights, so it knows a photo again but not a place."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from delf_edge import (
    AddError,
    AddItem,
    AddResult,
    Bundle,
    BundleMismatchError,
    IdentifyOptions,
    ImageDecodeError,
    NotFoundError,
    OptionError,
    ReadOnlyError,
    Recognizer,
)
from delf_edge.bundle.calibration import Calibration
from delf_edge.errors import BundleError, ImageError, NameTakenError
from delf_edge.geo import Near
from delf_edge.images.decode import load_image
from delf_edge.query.ranking import CandidateRanking
from delf_edge.types import Candidate, Features, Match, Verification
from testing.paths import TINY_BUNDLE


def scene(seed: int) -> np.ndarray:
    """uint8 (240, 320, 3): blocks of random colours, different for each seed."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (12, 16, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(blocks, (320, 240), interpolation=cv2.INTER_NEAREST))


def encoded(seed: int) -> bytes:
    return cv2.imencode(".png", scene(seed))[1].tobytes()


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load(TINY_BUNDLE)


@pytest.fixture
def recognizer(tmp_path: Path, bundle: Bundle) -> Iterator[Recognizer]:
    with Recognizer.open(tmp_path / "places.db", bundle=bundle) as opened:
        yield opened


def test_an_added_photo_is_ranked_first_with_its_points_as_proof(recognizer: Recognizer) -> None:
    for seed in range(5):
        result = recognizer.add(encoded(seed), landmark=f"place {seed}", name=f"{seed}.png")
        assert (result.status, result.name) == ("added", f"{seed}.png")
        assert result.n_features > 10
    proof = recognizer.explain(encoded(3))
    best = proof.answer.results[0]
    assert (best.name, best.landmark) == ("3.png", "place 3")
    assert best.n_inliers >= 10
    assert proof.stored is not None
    assert proof.stored.name == "3.png"
    assert len(proof.query_keypoints) == best.n_inliers
    np.testing.assert_allclose(proof.query_keypoints, proof.stored_keypoints, atol=7)
    assert {"decode", "candidates", "verify", "total"} <= set(proof.answer.milliseconds)
    assert recognizer.search(encoded(3), 2)[0].name == "3.png"
    assert len(recognizer.search(encoded(3), 2)) == 2


def test_many_photos_are_answered_in_order_and_one_at_a_time(recognizer: Recognizer) -> None:
    recognizer.pipeline.calibration = Calibration(threshold=0.0)
    for seed in range(3):
        recognizer.add(encoded(seed), landmark=f"place {seed}", name=f"{seed}.png")
    asked = []

    def photos() -> Iterator[bytes]:
        for photo in (encoded(2), encoded(1), b"no photo"):
            asked.append(photo)
            yield photo

    answers = recognizer.identify_many(photos(), options=IdentifyOptions(without=frozenset({"place 1"})))
    assert next(answers).landmark == "place 2"
    assert len(asked) == 1
    assert next(answers).landmark != "place 1"
    with pytest.raises(ImageError):
        next(answers)
    arrays = recognizer.identify_many([scene(2), scene(0)], channel_order="BGR", top=1)
    assert [(a.landmark, len(a.results)) for a in arrays] == [("place 2", 1), ("place 0", 1)]
    with pytest.raises(OptionError, match="channel_order"):
        next(recognizer.identify_many([scene(0)]))


def test_the_threshold_of_the_bundle_decides_between_name_and_unknown(recognizer: Recognizer) -> None:
    recognizer.add(encoded(0), landmark="here", name="0.png")
    recognizer.pipeline.calibration = Calibration(threshold=0.0)
    named = recognizer.identify(encoded(0))
    assert (named.landmark, named.image, named.found) == ("here", "0.png", True)
    recognizer.pipeline.calibration = Calibration(threshold=1.1)
    unknown = recognizer.identify(encoded(0))
    assert (unknown.landmark, unknown.image, unknown.found) == (None, None, False)
    assert unknown.results[0].name == "0.png"
    assert "below the threshold" in unknown.reason
    recognizer.pipeline.calibration = Calibration(threshold=0.0)
    strict = recognizer.identify(encoded(0), options=IdentifyOptions(min_inliers=10_000))
    assert strict.landmark is None
    assert "10000 points are needed" in strict.reason


def test_empty_is_ordinary(recognizer: Recognizer) -> None:
    black = np.zeros((120, 160, 3), np.uint8)
    assert recognizer.identify(encoded(0)).landmark is None  # an empty database
    answer = recognizer.identify(encoded(0))
    assert answer.results == ()
    assert answer.matches is answer.results  # its name in 0.1
    result = recognizer.add(black, landmark="dark room", channel_order="RGB")
    assert result.n_features == 0
    answer = recognizer.identify(black, channel_order="RGB")
    assert answer.landmark is None
    assert answer.reason == "the photo has no features"
    assert recognizer.search(black, channel_order="RGB") == []


def test_the_same_photo_twice_is_one_image(recognizer: Recognizer) -> None:
    first = recognizer.add(encoded(0), landmark="here", name="a.png")
    again = recognizer.add(encoded(0), landmark="here", name="a.png")
    moved = recognizer.add(encoded(0), landmark="there", name="b.png")
    with pytest.raises(NameTakenError, match="another photo has this name, of there"):
        recognizer.add(encoded(1), landmark="there", name="b.png")
    other = recognizer.add(encoded(1), landmark="there", name="b.png", replace=True)
    assert [r.status for r in (first, again, moved, other)] == ["added", "unchanged", "updated", "replaced"]
    assert first.image_id == again.image_id == moved.image_id != other.image_id
    assert recognizer.info().n_images == 1


def test_a_name_of_another_photo_is_refused(recognizer: Recognizer, tmp_path: Path) -> None:
    """Only the same file may take its own name with new content."""
    photo = tmp_path / "a.png"
    photo.write_bytes(encoded(0))
    recognizer.add(photo, landmark="here")
    photo.write_bytes(encoded(1))
    assert recognizer.add(photo, landmark="here").status == "replaced"
    with pytest.raises(NameTakenError):
        recognizer.add(encoded(2), landmark="here", name=str(photo))
    recognizer.add(encoded(3), landmark="here", name="b.png", metadata={"path": "/elsewhere/b.png"})
    (tmp_path / "b.png").write_bytes(encoded(2))
    with contextlib.chdir(tmp_path), pytest.raises(NameTakenError, match="another photo has this name, of here"):
        recognizer.add("b.png", landmark="there")
    items = [AddItem(encoded(4), "there", "b.png"), AddItem(encoded(4), "there", "b.png", replace=True)]
    refused, replaced = recognizer.add_many(items, on_error="collect")
    assert isinstance(refused, AddError)
    assert isinstance(replaced, AddResult)
    assert replaced.status == "replaced"
    assert recognizer.info().n_images == 2


def test_changes_take_effect_at_once_for_a_reader_with_the_file_open(tmp_path: Path, bundle: Bundle) -> None:
    with Recognizer.open(tmp_path / "p.db", bundle=bundle) as writer:
        writer.add(encoded(0), landmark="old name", name="0.png")
        with Recognizer.open(tmp_path / "p.db", bundle=bundle, read_only=True) as reader:
            assert reader.search(encoded(0))[0].landmark == "old name"
            writer.relabel("0.png", "new name")
            assert reader.search(encoded(0))[0].landmark == "new name"
            added = writer.add(encoded(1), landmark="other", name="1.png")
            assert reader.search(encoded(1))[0].name == "1.png"
            writer.remove(added.image_id)
            assert [m.name for m in reader.search(encoded(1))] in ([], ["0.png"])
            assert writer.remove_landmark("new name") != []
            assert reader.search(encoded(0)) == []
            with pytest.raises(ReadOnlyError):
                reader.add(encoded(2), landmark="x")
            for change in (lambda: writer.remove("0.png"), lambda: writer.remove_landmark("new name")):
                with pytest.raises(NotFoundError):
                    change()


def test_a_bad_photo_is_one_reported_item_and_the_rest_goes_in(recognizer: Recognizer, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"not a photo")
    items = [
        AddItem(encoded(0), "here", name="0.png"),
        AddItem(tmp_path / "bad.jpg", "here"),
        AddItem(encoded(1), "here", name="1.png"),
    ]
    results = list(recognizer.add_many(items, on_error="collect"))
    assert [type(r) for r in results] == [AddResult, AddError, AddResult]
    assert isinstance(results[1], AddError)
    assert results[1].name.endswith("bad.jpg")
    with pytest.raises(ImageDecodeError):
        list(recognizer.add_many(items))
    with pytest.raises(OptionError, match="on_error"):
        list(recognizer.add_many(items, on_error="ignore"))  # type: ignore[arg-type]
    assert recognizer.info().n_images == 2


def test_a_thumbnail_is_kept_where_it_is_asked_for(recognizer: Recognizer) -> None:
    plain = recognizer.add(encoded(0), landmark="here", name="0.png")
    assert recognizer.store.thumbnail(plain.image_id) is None
    again = recognizer.add(encoded(0), landmark="here", name="0.png", thumbnail=True)
    assert (again.image_id, again.status) == (plain.image_id, "updated")
    small = load_image(recognizer.store.thumbnail(plain.image_id) or b"")
    assert small.size == (320, 240)
    assert np.abs(small.pixels.astype(int) - scene(0)[..., ::-1]).mean() < 20
    assert recognizer.add(encoded(0), landmark="here", name="0.png", thumbnail=True).status == "unchanged"
    recognizer.add(encoded(0), landmark="there", name="0.png")  # what is not said stays
    assert recognizer.store.thumbnail(plain.image_id) is not None
    large = recognizer.add(np.zeros((100, 3000, 3), np.uint8), landmark="dark", channel_order="RGB", thumbnail=True)
    assert load_image(recognizer.store.thumbnail(large.image_id) or b"").size == (480, 16)
    recognizer.remove(large.image_id)
    assert recognizer.store.thumbnail(large.image_id) is None
    assert recognizer.verify() == []


def test_a_position_and_names_rule_landmarks_out(recognizer: Recognizer) -> None:
    for seed in range(3):
        recognizer.add(encoded(seed), landmark=f"place {seed}", name=f"{seed}.png")
    recognizer.store.set_landmark("place 0", latitude=48.8584, longitude=2.2945)
    recognizer.store.set_landmark("place 1", latitude=41.8902, longitude=12.4922)
    paris = IdentifyOptions(near=Near(48.86, 2.29, 5000))
    assert {m.landmark for m in recognizer.identify(encoded(1), options=paris).results} == {"place 0", "place 2"}
    assert recognizer.identify(encoded(0), options=paris).results[0].landmark == "place 0"
    others = IdentifyOptions(without=frozenset({"place 0", "nowhere"}))
    assert {m.landmark for m in recognizer.identify(encoded(0), options=others).results} == {"place 1", "place 2"}


def test_two_places_in_one_photo_are_proven_by_different_parts_of_it(tmp_path: Path, bundle: Bundle) -> None:
    with Recognizer.open(tmp_path / "places.db", bundle=bundle, preset="accurate") as recognizer:
        for seed in range(3):
            recognizer.add(encoded(seed), landmark=f"place {seed}", name=f"{seed}.png")
        recognizer.pipeline.calibration = Calibration(threshold=0.0)
        both = np.hstack([scene(0), scene(1)])
        found = recognizer.explain_all(both, channel_order="BGR", options=IdentifyOptions(min_inliers=15))
        assert [e.answer.landmark for e in found] == ["place 0", "place 1"]
        assert (found[0].query_keypoints[:, 0] < 320).mean() > 0.8
        assert (found[1].query_keypoints[:, 0] < 320).mean() < 0.2
        assert len(recognizer.explain_all(both, channel_order="BGR", limit=1)) == 1
        black = recognizer.explain_all(np.zeros((90, 90, 3), np.uint8), channel_order="RGB")
        assert [e.answer.landmark for e in black] == [None]


def test_a_deadline_cuts_the_check_and_says_so(recognizer: Recognizer) -> None:
    for seed in range(4):
        recognizer.add(encoded(seed), landmark=f"place {seed}", name=f"{seed}.png")
    cut = recognizer.identify(encoded(2), deadline_ms=0.0)
    assert "cut short by the deadline" in cut.reason
    whole = recognizer.identify(encoded(2))
    assert "cut short" not in whole.reason
    assert whole.results[0].name == "2.png"


def test_a_match_list_that_ends_early_is_the_beginning_of_the_whole(recognizer: Recognizer) -> None:
    for seed in range(40):
        recognizer.add(encoded(seed), landmark=f"place {seed // 2}", name=f"{seed}.png")
    recognizer.pipeline.index.refresh(recognizer.store)
    features = recognizer.extract(encoded(7))
    candidates = recognizer.pipeline.candidates(features, IdentifyOptions(), 40)
    ranking = CandidateRanking(recognizer.pipeline.calibration, recognizer.combined, features, candidates)
    for candidate, verification in recognizer.pipeline.verified(features, candidates[:5], IdentifyOptions()):
        ranking.add(candidate, verification)
    whole, early = ranking.results(), ranking.results(1)
    assert len(early) < len(whole)
    assert [vars_of(m) for m in early] == [vars_of(m) for m in whole[: len(early)]]


def test_a_ranking_checks_more_candidates_than_an_answer(
    recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(30):
        recognizer.add(encoded(seed), landmark=f"place {seed}", name=f"{seed}.png")
    lengths = []
    verified = recognizer.pipeline.verified

    def counted(features: Features, candidates: Sequence[Candidate], options: IdentifyOptions) -> Any:
        lengths.append(len(candidates))
        return verified(features, candidates, options)

    monkeypatch.setattr(recognizer.pipeline, "verified", counted)
    recognizer.identify(encoded(7))
    recognizer.search(encoded(7))
    recognizer.search(encoded(7), options=IdentifyOptions(verify=3))
    assert lengths == [20, 30, 3]


def vars_of(match: Match) -> tuple[object, ...]:
    return tuple(getattr(match, name) for name in match.__dataclass_fields__)


def test_certain_is_what_no_unchecked_image_of_another_landmark_comes_near(recognizer: Recognizer) -> None:
    """Two images of one place, then one of another: the rival is the other place, wherever it stands in the list."""
    ids = [recognizer.add(encoded(i), landmark="b" if i == 2 else "a", name=f"{i}.png").image_id for i in range(3)]
    calibration = Calibration(votes=0.0, similarity=1.0, inliers=0.0, bias=0.0, slope=0.0, margin_slope=10.0)

    def ask(scores: list[float], n_checked: int, n_inliers: int = 18) -> bool:
        proof = Verification(
            0, np.zeros((n_inliers, 2), np.int32), np.ones(n_inliers, np.bool_), np.zeros((2, 3), np.float64)
        )
        candidates = [Candidate(i, 0.0, 0.0, score) for i, score in zip(ids, scores, strict=True)]
        ranking = CandidateRanking(calibration, recognizer.combined, Features.empty(8), candidates)
        for candidate in candidates[:n_checked]:
            ranking.add(candidate, proof)
        return ranking.is_certain(0.99, 6)

    assert ask([3.0, 2.9, 1.0], n_checked=1)  # the second image shows the same place: it is no rival
    assert not ask([3.0, 1.0, 2.9], n_checked=1)  # the third one is, unchecked
    assert not ask([3.0, 1.0, 2.9], n_checked=3)  # and checked
    assert not ask([2.9, 3.0, 1.0], n_checked=1)  # an image left scores higher
    assert not ask([3.0, 2.9, 1.0], n_checked=1, n_inliers=17)
    recognizer.store.remove("2.png")
    assert ask([3.0, 1.0, 2.9], n_checked=1)  # gone since it was found


def test_threads_share_a_recognizer_and_get_the_answers_of_one(recognizer: Recognizer) -> None:
    for seed in range(4):
        recognizer.add(encoded(seed), landmark=f"place {seed}", name=f"{seed}.png")
    alone = [recognizer.identify(encoded(seed)) for seed in range(4)]
    found: dict[int, str] = {}

    def ask(seed: int) -> None:
        answer = recognizer.identify(encoded(seed))
        found[seed] = f"{answer.results[0].name} {answer.n_inliers}"

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert found == {seed: f"{a.results[0].name} {a.n_inliers}" for seed, a in enumerate(alone)}


def test_a_database_of_another_bundle_is_refused_by_both_ids(tmp_path: Path, bundle: Bundle) -> None:
    import json
    import shutil

    Recognizer.open(tmp_path / "p.db", bundle=bundle).close()
    other = tmp_path / "other"
    shutil.copytree(TINY_BUNDLE, other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["version"] = "something else"
    (other / "manifest.json").write_text(json.dumps(manifest))
    changed = Bundle.load(other)
    with pytest.raises(BundleMismatchError, match=rf"{bundle.id}.*{changed.id}"):
        Recognizer.open(tmp_path / "p.db", bundle=changed)


def test_calibration_refuses_unknown_names_and_numbers() -> None:
    assert Calibration.from_mapping({"votes": 2, "expansion": 3}) == Calibration(votes=2.0, expansion=3)
    for bad in ({"vote": 1.0}, {"votes": "1"}, {"votes": True}, {"votes": float("nan")}):
        with pytest.raises(BundleError, match="vote"):
            Calibration.from_mapping(bad)


def test_score_counts_only_inliers_above_the_floor_and_probability_is_monotonic() -> None:
    c = Calibration(votes=1.0, similarity=1.0, inliers=1.0, floor=8.0)
    assert c.score(0.25, 0.5, 0) == c.score(0.25, 0.5, 8) == 1.0
    assert c.score(0.25, 0.5, 17) == pytest.approx(1.0 + np.log(2.0))
    leads = [c.margin(2.0, r) for r in (-np.inf, 0.0, 0.35, 0.5)]
    assert leads == [1.65, 1.65, 1.65, 1.5]  # a lead over nothing is none
    p = [c.probability(s, m) for s, m in [(-1e6, 0), (0, 0), (1, 0), (1, 1), (1e6, 0)]]
    assert p == sorted(p)
    assert (p[0], p[-1]) == (0.0, 1.0)


def test_the_names_of_0_1_stay_with_a_warning(recognizer: Recognizer) -> None:
    with pytest.warns(DeprecationWarning, match=r"Recognizer\.pipeline"):
        assert recognizer.asker is recognizer.pipeline
    with pytest.warns(DeprecationWarning, match=r"Recognizer\.combined"):
        assert recognizer.shelf is recognizer.combined


@pytest.mark.parametrize(
    "wrong", [6347, 2.5, True, None, b"Petra", np.int64(3), ["Petra"], "", "  ", "a\udcffb", "a\0b"]
)
def test_a_name_that_is_no_text_is_refused_before_anything_is_stored(recognizer: Recognizer, wrong: Any) -> None:
    with pytest.raises(OptionError, match="landmark"):
        recognizer.add(encoded(0), landmark=wrong)
    if wrong is not None:
        with pytest.raises(OptionError, match="name"):
            recognizer.add(encoded(0), landmark="Petra", name=wrong)
    assert len(recognizer.store) == 0
    items = [AddItem(encoded(0), wrong), AddItem(encoded(1), "Petra", "b.png")]
    first, second = recognizer.add_many(items, on_error="collect")
    assert isinstance(first, AddError)
    assert isinstance(second, AddResult)
    with pytest.raises(OptionError):
        recognizer.relabel("b.png", wrong)
    with pytest.raises(OptionError):
        recognizer.store.set_landmark(wrong, latitude=1.0, longitude=1.0)
    assert recognizer.verify() == []


@pytest.mark.parametrize("wrong", [True, None, 1.0, b"a.png", ["a.png"]])
def test_an_image_is_known_by_its_name_or_id_alone(recognizer: Recognizer, wrong: Any) -> None:
    assert recognizer.add(encoded(1), landmark="A", name="a.png").image_id == 1  # what True equals
    for change in (recognizer.remove, recognizer.remove_landmark, recognizer.store.image):
        with pytest.raises(OptionError, match=f"of type {type(wrong).__name__}"):
            change(wrong)
    with pytest.raises(OptionError, match=f"of type {type(wrong).__name__}"):
        recognizer.relabel(wrong, "B")
    assert [(i.name, i.landmark) for i in recognizer.store.images()] == [("a.png", "A")]
    assert recognizer.remove(np.int64(1)) == 1  # type: ignore[arg-type]


def test_what_is_no_number_or_no_item_is_refused(recognizer: Recognizer, bundle: Bundle, tmp_path: Path) -> None:
    wrong: Any = "2"
    with pytest.raises(OptionError, match="deadline_ms is '2'"):
        recognizer.identify(encoded(1), deadline_ms=wrong)
    with pytest.raises(OptionError, match="num_threads is '2'"):
        Recognizer.open(tmp_path / "p.db", bundle=bundle, num_threads=wrong)
    (result,) = recognizer.add_many([wrong], on_error="collect")
    assert isinstance(result, AddError)
    assert "pass AddItem" in str(result.error)


def test_a_text_of_numpy_is_a_name_like_any_other(recognizer: Recognizer) -> None:
    recognizer.add(encoded(0), landmark=np.str_("Petra"), name=np.str_("a"))
    assert type(recognizer.store.image("a").landmark) is str
    assert recognizer.add(encoded(0), landmark="Petra", name="a").status == "unchanged"


@pytest.mark.parametrize(
    "wrong", [{1: "a", "1": "b"}, {"a": {2: 3}}, {"a": [{None: 1}]}, {"a": float("nan")}, {"a": b"x"}, {"a": "\udcff"}]
)
def test_metadata_that_json_would_change_or_refuse_are_refused(recognizer: Recognizer, wrong: Any) -> None:
    with pytest.raises(OptionError, match="metadata"):
        recognizer.add(encoded(0), landmark="Petra", metadata=wrong)
    assert len(recognizer.store) == 0


def test_metadata_with_tuples_are_the_same_again(recognizer: Recognizer) -> None:
    for expected in ("added", "unchanged"):
        result = recognizer.add(encoded(0), landmark="Petra", name="a", metadata={"size": (3, 4), "deep": {"x": ()}})
        assert result.status == expected
    nested: dict[str, Any] = {}
    for _ in range(5000):
        nested = {"a": nested}
    with pytest.raises(OptionError, match="metadata"):
        recognizer.add(encoded(1), landmark="Petra", metadata=nested)


def test_what_cv2_reads_can_be_asked_for_as_it_is(recognizer: Recognizer, tmp_path: Path) -> None:
    """The type checker of a user's program passes this, too: it runs over this file."""
    file = tmp_path / "a.png"
    file.write_bytes(encoded(0))
    recognizer.add(cv2.imread(str(file)), landmark="here", name="a", channel_order="BGR")
    assert recognizer.identify(cv2.imread(str(file)), channel_order="BGR").results[0].name == "a"
    with file.open("rb") as opened:
        assert recognizer.identify(opened).results[0].name == "a"
    with pytest.raises(ImageError, match=r"cv2\.imread gives None"):
        recognizer.identify(cv2.imread(str(tmp_path / "none.png")), channel_order="BGR")
