"""The training loop on a tiny network and synthetic places."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: make test-converters")
pytestmark = pytest.mark.torch

from delf_edge.converters.networks.delf import TINY, DelfNetwork, load_checkpoint  # noqa: E402
from delf_edge.converters.training.averaging import interpolate, soup  # noqa: E402
from delf_edge.converters.training.batches import OUTSIDE, Pairs, cell_centres, cell_targets  # noqa: E402
from delf_edge.converters.training.losses import angular_logits, correspondence_loss  # noqa: E402
from delf_edge.converters.training.options import TrainOptions  # noqa: E402
from delf_edge.converters.training.pairs import mine_pairs, places_alike, verify_pair  # noqa: E402
from delf_edge.converters.training.photos import Photo  # noqa: E402
from delf_edge.converters.training.sampler import Sampler  # noqa: E402
from delf_edge.converters.training.trainer import Trainer, choose_device, train  # noqa: E402

OPTIONS = TrainOptions(
    spec="tiny", steps=6, batch=4, sizes=(64,), first_block=0, warmup=2, anchors=8, max_side=160, save_every=3
)


@pytest.fixture
def photos(tmp_path: Path) -> list[Photo]:
    """Four places of two photos: smooth noise, the second one shifted by (10, 4)."""
    out = []
    for place in range(4):
        rng = np.random.default_rng(place)
        scene = cv2.GaussianBlur(rng.integers(0, 256, (200, 240, 3)).astype(np.float32), (0, 0), 3)
        scene = np.clip((scene - scene.mean()) * 6 + 128, 0, 255).astype(np.uint8)
        for view, (x, y) in enumerate([(0, 0), (10, 4)]):
            path = tmp_path / f"place{place}" / f"{view}.png"
            path.parent.mkdir(exist_ok=True)
            cv2.imwrite(str(path), scene[y : y + 120, x : x + 160])
            out.append(Photo(path, f"place{place}"))
    return out


def start() -> DelfNetwork:
    torch.manual_seed(0)
    return DelfNetwork(TINY, attention_hidden=8)


def test_a_killed_run_resumes_to_the_same_weights(photos: list[Photo], tmp_path: Path) -> None:
    whole = train(photos, tmp_path / "whole", OPTIONS, start=start(), report=lambda _: None)
    trainer = Trainer(Sampler(photos, OPTIONS), OPTIONS, start())
    (tmp_path / "cut").mkdir()
    for _ in range(3):  # killed after its third step
        trainer.train_step(trainer.sampler.batch(trainer.step))
    trainer.save(tmp_path / "cut")
    resumed = train(photos, tmp_path / "cut", OPTIONS, start=start(), report=lambda _: None)
    a, b = load_checkpoint(whole).state_dict(), load_checkpoint(resumed).state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    untrained = start().state_dict()
    assert not torch.equal(a["_blocks.3._project_conv.weight"], untrained["_blocks.3._project_conv.weight"])


def test_a_stopped_run_goes_on_and_interpolation_moves_all_but_attention(
    photos: list[Photo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load_checkpoint(train(photos, tmp_path / "whole", OPTIONS, start=start(), report=lambda _: None))
    train(photos, tmp_path / "cut", OPTIONS, start=start(), stop=2, report=lambda _: None)
    went_on = train(photos, tmp_path / "cut", OPTIONS, start=start(), report=lambda _: None)
    a, b = whole.state_dict(), load_checkpoint(went_on).state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    monkeypatch.setattr("delf_edge.converters.training.averaging.load_imagenet", lambda spec: start())
    half = load_checkpoint(interpolate(went_on, 0.5, tmp_path / "half.pt")).state_dict()
    name = "_blocks.2._project_conv.weight"
    torch.testing.assert_close(half[name], (a[name] + start().state_dict()[name]) / 2)
    assert torch.equal(half["attention.0.weight"], a["attention.0.weight"])
    tail = load_checkpoint(interpolate(went_on, 0.5, tmp_path / "tail.pt", tail_only=True)).state_dict()
    assert torch.equal(tail[name], a[name])
    assert torch.equal(tail["_conv_head.weight"], half["_conv_head.weight"])


def test_resuming_with_other_options_is_refused(photos: list[Photo], tmp_path: Path) -> None:
    train(photos, tmp_path, OPTIONS, start=start(), report=lambda _: None)
    other = TrainOptions(**{**{k: getattr(OPTIONS, k) for k in OPTIONS.__slots__}, "lr": 1e-5})
    with pytest.raises(ValueError, match=r"lr 0.0002 -> 1e-05"):
        train(photos, tmp_path, other, start=start(), report=lambda _: None)


def test_frozen_descriptors_do_not_move_while_attention_learns(photos: list[Photo], tmp_path: Path) -> None:
    options = TrainOptions(
        spec="tiny",
        steps=3,
        batch=4,
        sizes=(64,),
        first_block=0,
        train_trunk=False,
        w_global=0.0,
        max_side=160,
        warmup=1,
    )
    before = start().state_dict()
    after = load_checkpoint(train(photos, tmp_path, options, start=start(), report=lambda _: None)).state_dict()
    moved = {k for k in before if not torch.equal(before[k], after[k])}
    assert moved
    assert all(k.startswith("attention.") for k in moved)


def test_correspondence_loss_rewards_the_right_cell() -> None:
    torch.manual_seed(0)
    one = torch.randn(2, 16, 4, 4)
    same = torch.cat([one, one])
    shuffled = torch.cat([one, one.flip(-1)])
    score = torch.ones(4, 1, 4, 4)
    here = torch.from_numpy(cell_centres(64)).float().repeat(2, 1, 1)
    places = torch.tensor([0, 1])
    good, right = correspondence_loss(same, score, here, 64, places, OPTIONS, 0)
    bad, wrong = correspondence_loss(shuffled, score, here, 64, places, OPTIONS, 0)
    assert float(right) == 1.0
    assert float(wrong) < 0.5
    assert float(good) < float(bad)


def test_pairs_map_between_photos_in_both_directions(photos: list[Photo]) -> None:
    shift = np.array([[[1.0, 0, -10], [0, 1, -4]]])
    none = np.zeros((0, 4), np.float32)
    pairs = Pairs(
        np.array([[0, 1]], np.int32), shift, np.array([[80.0, 60.0]]), np.array([90.0]), none, np.zeros(2, np.int64)
    )
    sampler = Sampler(photos, TrainOptions(spec="tiny", batch=2, sizes=(64,), max_side=160, pair_share=1.0), pairs)
    rng = np.random.default_rng(0)
    there = sampler.partner(rng, 0)
    assert (there.photo, there.side) == (1, 90.0)
    np.testing.assert_allclose(there.affine @ [80, 60, 1], [70, 56])
    back = sampler.partner(rng, 1)
    assert back.photo == 0
    assert back.centre is not None
    np.testing.assert_allclose(back.centre, [70, 56])
    np.testing.assert_allclose(back.affine @ [70, 56, 1], [80, 60], atol=1e-9)


def test_cells_follow_the_affine_map_or_the_nearest_matched_point() -> None:
    eye, shift = np.eye(3), np.array([[1.0, 0, 8], [0, 1, -4]])
    cells = cell_centres(64)
    np.testing.assert_allclose(cell_targets(eye, eye, shift, None, 64), cells + np.array([8, -4]), atol=1e-4)
    # Two matched points that the affine map does not explain, near cells (16, 16) and (48, 32).
    points = np.array([[18, 15, 40, 41], [48, 30, 5, 6]], np.float32)
    found = cell_targets(eye, eye, shift, points, 64)
    near = {(16.0, 16.0): (38.0, 42.0), (48.0, 32.0): (5.0, 8.0)}
    for cell, target in zip(cells, found, strict=True):
        expected = near.get((float(cell[0]), float(cell[1])), (OUTSIDE, OUTSIDE))
        np.testing.assert_allclose(target, expected, atol=1e-4)


def test_the_global_descriptor_alone_can_be_trained(photos: list[Photo], tmp_path: Path) -> None:
    options = TrainOptions(
        spec="tiny", steps=2, batch=2, sizes=(64,), first_block=0, train_trunk=False, w_classify=0.0, w_local=0.0,
        global_to_trunk=False, relight=1.0, max_side=160, warmup=1,
    )  # fmt: skip
    before = start().state_dict()
    after = load_checkpoint(train(photos, tmp_path, options, start=start(), report=lambda _: None)).state_dict()
    moved = {k for k in before if not torch.equal(before[k], after[k])}
    assert moved
    assert all(k.startswith(("_blocks.4", "_conv_head", "_bn1")) for k in moved)


def test_a_margin_makes_the_right_place_harder_and_the_nearest_centre_counts() -> None:
    options = TrainOptions(margin=0.3, centres=2, logit_scale=10.0)
    head = torch.nn.Linear(2, 4, bias=False)
    head.weight.data = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    x = torch.tensor([[-2.0, 0.0]])
    harder, plain = angular_logits(x, head, torch.tensor([0]), options)
    torch.testing.assert_close(plain, torch.tensor([[10.0, 0.0]]))
    torch.testing.assert_close(harder, torch.tensor([[10.0 * float(np.cos(0.3)), 0.0]]), atol=0.01, rtol=0)


def test_look_alikes_share_a_batch(photos: list[Photo]) -> None:
    options = dataclasses.replace(OPTIONS, lookalike=0.5, w_local=0.0, batch=2)
    alike = {f"place{i}": [f"place{(i + 1) % 4}"] for i in range(4)}
    sampler = Sampler(photos, options, alike=alike)
    for step in range(5):
        places = sampler.batch(step).places
        assert places[2:].tolist() == [(p + 1) % 4 for p in places[:2].tolist()]


def test_attention_learns_what_can_be_found_again() -> None:
    torch.manual_seed(0)
    features = torch.randn(1, 16, 8, 8).repeat(2, 1, 1, 1)
    features[1, :, :, 4:] = torch.randn(16, 8, 4)  # the right half shows something else in the second view
    target = torch.from_numpy(cell_centres(128).astype(np.float32))[None]
    logit = torch.zeros(2, 1, 8, 8, requires_grad=True)
    options = TrainOptions(anchors=64, w_match=1.0, w_repeat=0.0)
    score = torch.nn.functional.softplus(logit)
    loss, _ = correspondence_loss(features, score, target, 128, torch.zeros(1), options, 0)
    loss.backward()
    assert logit.grad is not None
    assert (logit.grad[0, 0, :, :4] < 0).all()
    assert (logit.grad[0, 0, :, 4:] > 0).float().mean() > 0.9


def test_places_that_look_alike_are_named(photos: list[Photo], tmp_path: Path) -> None:
    twin = cv2.imread(str(photos[0].path))
    assert twin is not None
    cv2.imwrite(str(tmp_path / "twin.png"), twin[2:])
    more = [*photos, Photo(tmp_path / "twin.png", "twin"), Photo(tmp_path / "twin.png", "indoor/clip")]
    alike = places_alike(start(), more, neighbours=1, side=160)
    assert alike["twin"] == ["place0"]
    assert "indoor/clip" not in alike


def test_a_soup_of_one_network_is_that_network_and_of_two_lies_between(tmp_path: Path) -> None:
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for seed in (0, 1):
        torch.manual_seed(seed)
        network = DelfNetwork(TINY, attention_hidden=8).eval()
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
                torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
        light = {"spec": "tiny", "attention_hidden": 8, "network": network.state_dict(), "step": 1}
        torch.save(light, tmp_path / f"{seed}.pt")
    first = load_checkpoint(tmp_path / "0.pt")
    same = load_checkpoint(soup([(tmp_path / "0.pt", 1.0), (tmp_path / "1.pt", 0.0)], tmp_path / "soup.pt"))
    for a, b in zip(first(x), same(x), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(first.tail(first.trunk(x)), same.tail(same.trunk(x)), atol=1e-4, rtol=1e-4)
    both = load_checkpoint(soup([(tmp_path / "0.pt", 2.0), (tmp_path / "1.pt", 2.0)], tmp_path / "soup.pt"))
    ends = [load_checkpoint(soup([(tmp_path / f"{i}.pt", 1.0)], tmp_path / f"f{i}.pt")) for i in (0, 1)]
    weights = [n.state_dict()["_blocks.2._project_conv.weight"] for n in (both, *ends)]
    torch.testing.assert_close(weights[0], (weights[1] + weights[2]) / 2)
    torch.testing.assert_close(both.attention[0].weight, first.attention[0].weight)


def test_verify_pair_finds_a_known_affine_and_nothing_in_noise(photos: list[Photo]) -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 600, (60, 2)).astype(np.float32)
    descriptors = rng.normal(size=(60, 16)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    moved = (points @ np.array([[0.9, 0.1], [-0.1, 0.9]]) + [30, -5]).astype(np.float32)
    result = verify_pair((points, descriptors), (moved, descriptors))
    assert result is not None
    affine, inliers, _ = result
    assert inliers.sum() == 60
    np.testing.assert_allclose(affine, [[0.9, -0.1, 30], [0.1, 0.9, -5]], atol=1e-3)
    assert mine_pairs(start(), photos[:2], max_side=160, min_inliers=1000, report=lambda _: None).index.shape == (0, 2)


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match=r"'cuda'; this machine has cpu, or say auto"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == torch.device("cuda")
    with pytest.raises(ValueError, match=r"'cuda:2'; this machine has cpu, cuda, cuda:0, cuda:1"):
        choose_device("cuda:2")


def test_the_loss_stays_on_the_device_of_its_input() -> None:
    # "meta" holds shapes only, and like a GPU it refuses to be mixed with tensors of the CPU.
    features, score = torch.zeros(4, 16, 4, 4, device="meta"), torch.ones(4, 1, 4, 4, device="meta")
    targets, places = torch.zeros(2, 16, 2, device="meta"), torch.zeros(2, dtype=torch.long, device="meta")
    loss, right = correspondence_loss(features, score, targets, 64, places, OPTIONS, 0)
    assert loss.device.type == right.device.type == "meta"
    with pytest.raises(RuntimeError):
        correspondence_loss(features, score, torch.zeros(2, 16, 2), 64, places, OPTIONS, 0)
