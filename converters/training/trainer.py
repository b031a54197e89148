"""Train the network on photos of places.

One loop serves the paper's two stages and what goes beyond them; `TrainOptions` says which parts learn:

* Classification of places (paper, section 3): y = W sum_n a(f_n) f_n, softmax cross-entropy. f is L2-normalised,
  the sum too, and y is a cosine times `logit_scale`.
* The same for the global descriptor: GeM over the tail's map.
* InfoNCE between cells of two views of one surface: two warps of one photo, or crops of two photos of a place that
  were verified geometrically (`training.pairs`). Where a surface cannot be found again, attention learns to be low.

Batch norm stays frozen at its ImageNet statistics. Every batch is a pure function of (seed, step), so a run that is
killed and resumed from its checkpoint continues as if nothing had happened.
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from delf_edge.converters.networks.delf import (
    INPUT_MEAN,
    INPUT_SCALE,
    SPECS,
    STRIDE,
    DelfNetwork,
    gem,
    load_checkpoint,
    load_imagenet,
)
from delf_edge.converters.training.augment import CropOptions, degrade, draw_crop, relight, warp
from delf_edge.converters.training.photos import Photo


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What is trained, on what, for how long.

    Attributes:
        spec: backbone, a key of `delf_edge.converters.networks.delf.SPECS`.
        steps: optimiser steps in all.
        batch: photos a step; each gives two views.
        sizes: sides of the square views in pixels; one is drawn for each step.
        first_block: blocks before this one (and the stem) stay at their ImageNet weights.
        train_trunk: False freezes the descriptors (the paper's stage 2: attention alone).
        lr, lr_tail, lr_heads: AdamW step sizes of the trunk, the tail and the new layers.
        weight_decay: AdamW's.
        warmup: steps of linear warm-up; a cosine decay to 2 % follows.
        logit_scale: factor on the cosines.
        w_classify: weight of the local classification loss.
        w_global: weight of the global classification loss.
        global_to_trunk: whether the global loss trains the trunk too, or the tail alone.
        w_local: weight of InfoNCE; 0 also draws every view from another photo.
        w_repeat: share of InfoNCE's gradient that reaches the attention.
        temperature: of InfoNCE.
        anchors: cells a view that InfoNCE asks for.
        relight: probability that a view is shown under another light.
        min_side: least side of a crop, as a share of the photo's shorter side.
        pair_share: probability that a photo with verified pairs is shown with one of its partners.
        ema: decay of the averaged weights, which are what is saved for use.
        max_side: photos are held in memory at this longer side.
        balance: places are drawn with probability n ** balance (times the weight of their photos).
        margin: angle in radians by which a photo's place must win in the global classification (ArcFace).
        centres: of a place in the global classification; the nearest counts (sub-centre ArcFace).
        w_match: weight of what attention learns from matchability: whether a cell's partner is nearer than all others.
        lookalike: share of a batch drawn from the places that look most like the others in it.
        seed: of everything.
        save_every: steps between checkpoints.
    """

    spec: str = "efficientnet-lite0"
    steps: int = 3000
    batch: int = 24
    sizes: tuple[int, ...] = (128, 160, 192)
    first_block: int = 5
    train_trunk: bool = True
    lr: float = 2e-4
    lr_tail: float = 1e-4
    lr_heads: float = 2e-3
    weight_decay: float = 1e-4
    warmup: int = 100
    logit_scale: float = 20.0
    w_classify: float = 1.0
    w_global: float = 1.0
    global_to_trunk: bool = True
    w_local: float = 1.0
    w_repeat: float = 0.2
    temperature: float = 0.07
    anchors: int = 16
    relight: float = 0.0
    min_side: float = 0.4
    pair_share: float = 0.5
    ema: float = 0.998
    max_side: int = 640
    balance: float = 0.5
    margin: float = 0.0
    centres: int = 1
    w_match: float = 0.0
    lookalike: float = 0.0
    seed: int = 0
    save_every: int = 100


@dataclass(frozen=True, slots=True)
class Pairs:
    """Geometrically verified pairs of photos.

    Attributes:
        index: int32 (P, 2), photos of a pair, indices into the training list.
        affine: float64 (P, 2, 3), from pixels of the first photo to pixels of the second (as held in memory).
        centre: float64 (P, 2), mean inlier in the first photo.
        side: float64 (P,), extent of the inliers in the first photo, pixels.
        points: float32 (T, 4), matched points (x, y) of the first and (x, y) of the second photo, all pairs in one
            table; a pair that has some is followed from point to point instead of by its affine map, which holds
            for a plane only.
        starts: int64 (P + 1,), pair p has points[starts[p]:starts[p + 1]].
    """

    index: NDArray[np.int32]
    affine: NDArray[np.float64]
    centre: NDArray[np.float64]
    side: NDArray[np.float64]
    points: NDArray[np.float32]
    starts: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's input. `views` uint8 (2 B, S, S, 3): B first views, then their partners."""

    views: NDArray[np.uint8]
    places: NDArray[np.int64]  # (2 B,), of each view
    targets: NDArray[np.float32]  # (B, cells, 2), see `cell_targets`; empty without InfoNCE


def load_photo(path: Path, max_side: int) -> NDArray[np.uint8]:
    """Decode to RGB uint8 (H, W, 3) with the longer side at most `max_side`."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"{path}: cannot be decoded; remove it from the training list")
    h, w = image.shape[:2]
    scale = max_side / max(h, w)
    if scale < 1:
        image = cv2.resize(image, (max(1, round(w * scale)), max(1, round(h * scale))), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(image[:, :, ::-1])


class Sampler:
    """Draws batches; `batch(step)` depends on the seed and the step only."""

    def __init__(
        self,
        photos: Sequence[Photo],
        options: TrainOptions,
        pairs: Pairs | None = None,
        alike: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._options = options
        self.places = sorted({p.place for p in photos})
        number = {name: i for i, name in enumerate(self.places)}
        self._place = np.array([number[p.place] for p in photos], np.int64)
        self._pixels = [load_photo(photo.path, options.max_side) for photo in photos]
        counts = Counter(self._place.tolist())
        weight = np.array([p.weight * counts[number[p.place]] ** (options.balance - 1.0) for p in photos])
        self._weight = weight / weight.sum()
        self._alike = [[number[a] for a in (alike or {}).get(name, ()) if a in number] for name in self.places]
        self._pairs = pairs
        self._partners: dict[int, list[tuple[int, bool]]] = defaultdict(list)
        if pairs is not None:
            for k, (i, j) in enumerate(pairs.index.tolist()):
                self._partners[i].append((k, False))
                self._partners[j].append((k, True))

    def batch(self, step: int) -> Batch:
        """The batch of a step, always the same for the same seed."""
        o = self._options
        rng = np.random.default_rng((o.seed, step))
        size = int(rng.choice(o.sizes))
        if not o.w_local:
            return self._unpaired(rng, size)
        chosen = self._choose(rng, o.batch)
        views = np.empty((2 * o.batch, size, size, 3), np.uint8)
        targets = np.empty((o.batch, len(cell_centres(size)), 2), np.float32)
        crop = CropOptions(min_side=o.min_side)
        for b, i in enumerate(chosen.tolist()):
            pair = self._partner(rng, i)
            photo, other = self._pixels[i], self._pixels[pair.photo]
            first, centre, side = draw_crop(rng, photo.shape[1::-1], size, crop, pair.centre, pair.side)
            c = pair.affine @ [*centre, 1.0]
            scale = float(np.sqrt(abs(np.linalg.det(pair.affine[:, :2]))))
            second, _, _ = draw_crop(rng, other.shape[1::-1], size, crop, c, side * scale)
            views[b] = self._show(rng, photo, first, size)
            views[o.batch + b] = self._show(rng, other, second, size)
            targets[b] = cell_targets(first, second, pair.affine, pair.points, size)
        return Batch(views, np.tile(self._place[chosen], 2), targets)

    def _choose(self, rng: np.random.Generator, n: int) -> NDArray[np.int64]:
        """Photos of a batch: some by weight, the others from places that look like theirs, one each."""
        share = self._options.lookalike if any(self._alike) else 0.0
        first = n - round(share * n)
        total = len(self._pixels)
        chosen = rng.choice(total, first, replace=first > total, p=self._weight).tolist()
        for k in range(n - first):
            alike = self._alike[self._place[chosen[k % first]]]
            weight = self._weight * (self._place == alike[int(rng.integers(len(alike)))]) if alike else self._weight
            chosen.append(int(rng.choice(total, p=weight / weight.sum())))
        return np.array(chosen, np.int64)

    def _show(
        self, rng: np.random.Generator, photo: NDArray[np.uint8], homography: NDArray[np.float64], size: int
    ) -> NDArray[np.uint8]:
        """A view of a photo as some camera may see it on some day."""
        view = warp(photo, homography, size)
        if rng.random() < self._options.relight:
            view = relight(rng, view, self._pixels[int(rng.integers(len(self._pixels)))])
        return degrade(rng, view)

    def _unpaired(self, rng: np.random.Generator, size: int) -> Batch:
        """Without InfoNCE no view needs a partner: twice as many photos."""
        n = 2 * self._options.batch
        chosen = self._choose(rng, n)
        views = np.empty((n, size, size, 3), np.uint8)
        for b, i in enumerate(chosen.tolist()):
            photo = self._pixels[i]
            homography, _, _ = draw_crop(rng, photo.shape[1::-1], size, CropOptions(min_side=self._options.min_side))
            views[b] = self._show(rng, photo, homography, size)
        return Batch(views, self._place[chosen], np.zeros((0, 0, 2), np.float32))

    def _partner(self, rng: np.random.Generator, i: int) -> _Partner:
        """What is shown as the second view of photo i."""
        partners = self._partners.get(i)
        if self._pairs is None or not partners or rng.random() >= self._options.pair_share:
            return _Partner(i, np.eye(2, 3), None, None, None)
        k, backwards = partners[int(rng.integers(len(partners)))]
        affine, centre, side = self._pairs.affine[k], self._pairs.centre[k], float(self._pairs.side[k])
        points = self._pairs.points[self._pairs.starts[k] : self._pairs.starts[k + 1]]
        other = int(self._pairs.index[k, 0 if backwards else 1])
        if backwards:
            inverse = np.linalg.inv(np.vstack([affine, [0.0, 0.0, 1.0]]))[:2]
            scale = float(np.sqrt(abs(np.linalg.det(affine[:, :2]))))
            affine, centre, side, points = inverse, affine @ [*centre, 1.0], side * scale, points[:, [2, 3, 0, 1]]
        if not len(points):
            return _Partner(other, affine, centre, side, None)
        # Around one of the points, so that every part that both photos show has its turn.
        return _Partner(other, affine, points[int(rng.integers(len(points))), :2].astype(np.float64), side, points)


@dataclass(frozen=True, slots=True)
class _Partner:
    """The photo of a second view, the affine map to it, where to look in the first, and matched points (T, 4)."""

    photo: int
    affine: NDArray[np.float64]
    centre: NDArray[np.float64] | None
    side: float | None
    points: NDArray[np.float32] | None


OUTSIDE = -1e4  # coordinate of a cell that the second view does not show


def cell_centres(size: int) -> NDArray[np.float64]:
    """Centres of the cells of a square view: float64 (cells, 2), (x, y) in pixels, row by row."""
    n = -(-size // STRIDE)
    ys, xs = np.mgrid[:n, :n]
    return np.asarray(np.stack([xs, ys], axis=-1).reshape(-1, 2) * STRIDE, np.float64)


def _apply(homography: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (N, 2) through a (3, 3) map; `OUTSIDE` where they fall behind the viewer."""
    mapped = np.column_stack([points, np.ones(len(points))]) @ homography.T
    good = mapped[:, 2] > 1e-6
    return np.where(good[:, None], mapped[:, :2] / np.where(good, mapped[:, 2], 1.0)[:, None], OUTSIDE)


def cell_targets(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    affine: NDArray[np.float64],
    points: NDArray[np.float32] | None,
    size: int,
) -> NDArray[np.float32]:
    """Where the cells of a first view lie in the second.

    Args:
        first, second: (3, 3), from a photo's pixels to its view's.
        affine: (2, 3), from pixels of the first photo to pixels of the second.
        points: (T, 4), matched points of the photos, or None where the affine map holds everywhere. With points, a
            cell is followed from the nearest point within three quarters of a cell; others are `OUTSIDE`.
        size: side of the views in pixels.

    Returns:
        float32 (cells, 2), pixels of the second view.
    """
    cells = cell_centres(size)
    here = _apply(np.asarray(np.linalg.inv(first), np.float64), cells)
    if points is None:
        there = here @ affine[:, :2].T + affine[:, 2]
        return _apply(second, there).astype(np.float32)
    seen = _apply(first, np.asarray(points[:, :2], np.float64))
    apart = np.linalg.norm(cells[:, None] - seen[None], axis=-1)
    nearest = apart.argmin(axis=1)
    there = points[nearest, 2:] + (here - points[nearest, :2]) @ affine[:, :2].T
    target = _apply(second, np.asarray(there, np.float64))
    target[apart.min(axis=1) > 0.75 * STRIDE] = OUTSIDE
    return target.astype(np.float32)


def prefetch(make: Callable[[int], Batch], start: int, stop: int, depth: int = 4) -> Iterator[Batch]:
    """Batches start..stop-1 in order, made by one background thread."""
    ready: queue.Queue[Batch | BaseException] = queue.Queue(depth)
    ended = threading.Event()

    def put(item: Batch | BaseException) -> None:
        while not ended.is_set():
            try:
                return ready.put(item, timeout=0.5)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for step in range(start, stop):
                if ended.is_set():
                    return
                put(make(step))
        except BaseException as e:  # handed to the consumer, which raises it
            put(e)

    threading.Thread(target=work, daemon=True).start()
    try:
        for _ in range(start, stop):
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        ended.set()


class Heads(nn.Module):
    """Classifiers that exist only while training."""

    def __init__(self, channels: int, global_channels: int, places: int, centres: int = 1) -> None:
        super().__init__()
        self.local = nn.Linear(channels, places, bias=False)
        self.glob = nn.Linear(global_channels, places * centres, bias=False)


def cosine_logits(x: Tensor, head: nn.Linear, scale: float) -> Tensor:
    """scale * cos(x, w_k): (B, C) to (B, places)."""
    return scale * F.linear(F.normalize(x, dim=1), F.normalize(head.weight, dim=1))


def angular_logits(x: Tensor, head: nn.Linear, places: Tensor, options: TrainOptions) -> tuple[Tensor, Tensor]:
    """Logits for training with an angular margin on the right place, and without it: (B, places) each.

    Deng et al., CVPR 2019 (ArcFace) and ECCV 2020 (sub-centres). `margin` 0 and one centre are `cosine_logits`.
    """
    cosines = cosine_logits(x, head, 1.0)
    cosines = cosines.reshape(len(x), -1, options.centres).amax(dim=2)
    plain = options.logit_scale * cosines
    if not options.margin:
        return plain, plain
    right = cosines.gather(1, places[:, None]).clamp(-1 + 1e-6, 1 - 1e-6)
    turned = torch.cos((torch.acos(right) + options.margin).clamp(max=float(np.pi)))
    return options.logit_scale * cosines.scatter(1, places[:, None], turned.to(cosines.dtype)), plain


def attention_pool(features: Tensor, score: Tensor) -> Tensor:
    """sum_n a(f_n) f_n over L2-normalised f: (B, C, h, w), (B, 1, h, w) to (B, C)."""
    return (F.normalize(features, dim=1) * score).sum(dim=(2, 3))


def correspondence_loss(
    features: Tensor, score: Tensor, target: Tensor, size: int, places: Tensor, options: TrainOptions, seed: int
) -> tuple[Tensor, Tensor]:
    """InfoNCE from cells of the first views to where they lie in the second views.

    Args:
        features: (2 B, C, h, w) maps, first views then second views.
        score: (2 B, 1, h, w), softplus attention.
        target: (B, h w, 2), where the cells of the first views lie in the second, pixels (`cell_targets`).
        size: side of a view in pixels.
        places: (B,), place of each photo; cells of other photos of the same place are no negatives.
        options: temperature, anchors, w_repeat.
        seed: of the choice of anchors.

    Returns:
        The loss, and the share of anchors whose nearest cell is the right one (detached).
    """
    n, c, h, w = features.shape
    b = n // 2
    unit = F.normalize(features, dim=1)
    device = features.device
    ys, xs = torch.meshgrid(torch.arange(h, device=device), torch.arange(w, device=device), indexing="ij")
    cells = torch.stack([xs, ys], dim=-1).reshape(-1, 2).to(features.dtype) * STRIDE  # (h w, 2), (x, y)
    edge = size - 1.0
    valid = ((target >= 0) & (target <= edge)).all(dim=-1)  # (B, h w)

    # Gumbel top-k: anchors drawn without replacement, attended cells more often.
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same anchors on every device
    flat_score = score[:b].reshape(b, h * w)
    with torch.no_grad():
        share = flat_score / flat_score.mean(dim=1, keepdim=True).clamp(min=1e-6)
        gumbel = -torch.log(-torch.log(torch.rand(b, h * w, generator=generator).clamp(1e-6, 1 - 1e-6)))
        priority = (torch.log(share + 0.2) + gumbel.to(device)).masked_fill(~valid, -1e9)
        k = min(options.anchors, h * w)
        picked = priority.topk(k, dim=1).indices  # (B, k)
        ok = valid.gather(1, picked)
    anchor = unit[:b].flatten(2).transpose(1, 2).gather(1, picked[..., None].expand(-1, -1, c))  # (B, k, C)
    goal = target.gather(1, picked[..., None].expand(-1, -1, 2))  # (B, k, 2) pixels
    grid = goal / STRIDE / torch.tensor([max(w - 1, 1), max(h - 1, 1)], device=device) * 2 - 1
    positive = F.grid_sample(unit[b:], grid[:, :, None], align_corners=True, padding_mode="border")[..., 0]
    positive = F.normalize(positive, dim=1).transpose(1, 2)  # (B, k, C)

    keys = unit[b:].flatten(2).transpose(1, 2).reshape(-1, c)  # (B h w, C)
    similar = anchor.reshape(-1, c) @ keys.T / options.temperature  # (B k, B h w)
    owner = torch.arange(b, device=device).repeat_interleave(h * w)
    row = torch.arange(b, device=device).repeat_interleave(k)
    same_place = places[row][:, None] == places[owner][None, :]
    same_photo = row[:, None] == owner[None, :]
    far = ((cells[None, :, :] - goal.reshape(-1, 1, 2)).abs().amax(dim=-1) > 1.5 * STRIDE).repeat(1, b)
    negative = (~same_place) | (same_photo & far)
    similar = similar.masked_fill(~negative, -1e4)
    hit = (anchor * positive).sum(dim=-1).reshape(-1, 1) / options.temperature
    each = F.cross_entropy(
        torch.cat([hit, similar], dim=1), torch.zeros(len(similar), dtype=torch.long, device=device), reduction="none"
    )
    good = ok.reshape(-1).to(each.dtype)
    total = good.sum().clamp(min=1)
    weight = flat_score.gather(1, picked).reshape(-1)
    weight = weight / ((weight * good).sum() / total).clamp(min=1e-6)
    loss = (each * weight.detach() * good).sum() / total
    repeat = (each.detach() * weight * good).sum() / total
    won = (hit[:, 0] > similar.amax(dim=1)).to(each.dtype).detach()
    if options.w_match:
        loss = loss + options.w_match * _matchability(flat_score, picked, won.reshape(b, k), ok, target)
    return loss + options.w_repeat * repeat, (won * good).sum() / total


def _matchability(score: Tensor, picked: Tensor, won: Tensor, ok: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of attention as a prediction of what can be found again.

    Args:
        score: (B, h w), softplus attention; 1 - exp(-softplus(z)) is the sigmoid of z.
        picked: (B, k), anchor cells; ok: (B, k), whether they have a partner; won: (B, k), whether it was nearest.
        target: (B, h w, 2); cells at `OUTSIDE` show nothing that the other photo has by the teacher's word, which
            is sparse: they count a fifth.
    """
    found = (-torch.expm1(-score)).clamp(1e-6, 1 - 1e-6)
    anchors = found.gather(1, picked)
    asked = ok.to(score.dtype)
    each = F.binary_cross_entropy(anchors, won, reduction="none") * asked
    lost = (target <= OUTSIDE).all(dim=-1).to(score.dtype)
    share = lost.mean(dim=1, keepdim=True) / lost.sum(dim=1, keepdim=True).clamp(min=1)  # a photo counts once
    nothing = (-torch.log1p(-found) * lost * share).sum() / (lost.amax(dim=1)).sum().clamp(min=1)
    return each.sum() / asked.sum().clamp(min=1) + 0.2 * nothing


def to_input(views: NDArray[np.uint8]) -> Tensor:
    """uint8 (B, H, W, 3) RGB to normalised float32 (B, 3, H, W), channels last in memory."""
    x = torch.from_numpy(views).permute(0, 3, 1, 2).float()
    return ((x - INPUT_MEAN) / INPUT_SCALE).contiguous(memory_format=torch.channels_last)


def choose_device(name: str) -> torch.device:
    """The device of a name; "auto" is the first GPU, else the CPU.

    Raises:
        ValueError: there is no such device here; the message says what there is.
    """
    n = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if n else "cpu")
    known = ["cpu", *(["cuda"] if n else []), *(f"cuda:{i}" for i in range(n))]
    if name not in known:
        raise ValueError(f"device is {name!r}; this machine has {', '.join(known)}, or say auto")
    return torch.device(name)


class Trainer:
    """The state of one run: network, heads, averaged weights, optimiser, step."""

    def __init__(
        self,
        sampler: Sampler,
        options: TrainOptions,
        start: DelfNetwork | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.options, self.sampler, self.device = options, sampler, torch.device(device)
        torch.manual_seed(options.seed)
        self.network = start if start is not None else load_imagenet(SPECS[options.spec])
        self.network = self.network.eval().to(self.device, memory_format=torch.channels_last)
        channels, whole = self.network.channels, self.network.spec.head
        self.heads = Heads(channels, whole, len(sampler.places), options.centres).to(self.device)
        tap = self.network.spec.tap
        if not 0 <= options.first_block <= tap + 1:
            raise ValueError(f"first_block={options.first_block}: the trunk of {options.spec} has blocks 0..{tap}")
        trunk = [p for block in self.network._blocks[options.first_block : tap + 1] for p in block.parameters()]
        tail = [p for block in self.network._blocks[tap + 1 :] for p in block.parameters()]
        tail += [*self.network._conv_head.parameters(), *self.network._bn1.parameters()]
        new = [*self.heads.parameters()]
        if options.w_classify or options.w_local:
            new += self.network.attention.parameters()
        for p in self.network.parameters():
            p.requires_grad_(False)
        groups = [(tail, options.lr_tail if options.w_global else 0.0), (new, options.lr_heads)]
        if options.train_trunk:
            groups.append((trunk, options.lr))
        self._groups = [(params, lr) for params, lr in groups if lr > 0]
        for params, _ in self._groups:
            for p in params:
                p.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(
            [{"params": params, "lr": lr} for params, lr in self._groups], weight_decay=options.weight_decay
        )
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.step = 0

    def learning_rate_factor(self) -> float:
        """Linear warm-up, then cosine decay to 2 %."""
        o = self.options
        if self.step < o.warmup:
            return (self.step + 1) / o.warmup
        t = (self.step - o.warmup) / max(1, o.steps - o.warmup)
        return float(0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * min(1.0, t))))

    def _features(self, x: Tensor) -> Tensor:
        """The trunk, with a graph only from the first trained block on."""
        network, first = self.network, self.options.first_block
        with torch.no_grad():
            x = F.relu6(network._bn0(network._conv_stem(x)))
            for block in network._blocks[:first]:
                x = block(x)
        with torch.set_grad_enabled(self.options.train_trunk):
            for block in network._blocks[first : network.spec.tap + 1]:
                x = block(x)
        return x

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One optimiser step; returns the figures to log."""
        o = self.options
        factor = self.learning_rate_factor()
        for group, (_, lr) in zip(self.optimizer.param_groups, self._groups, strict=True):
            group["lr"] = lr * factor
        places = torch.from_numpy(batch.places).to(self.device)
        features = self._features(to_input(batch.views).to(self.device))
        figures: dict[str, Tensor] = {}
        loss = torch.zeros((), device=self.device)
        score = F.softplus(self.network.attention(features))
        if o.w_classify:
            logits = cosine_logits(attention_pool(features, score), self.heads.local, o.logit_scale)
            classify = F.cross_entropy(logits, places)
            loss = loss + o.w_classify * classify
            figures |= {"local": classify, "top1": (logits.argmax(1) == places).float().mean()}
        if o.w_local:
            targets = torch.from_numpy(batch.targets).to(self.device)
            info, right = correspondence_loss(
                features, score, targets, batch.views.shape[1], places[: o.batch], o, self.step
            )
            loss = loss + o.w_local * info
            figures |= {"nce": info, "cells": right}
        if o.w_global:
            pooled = gem(self.network.tail(features if o.global_to_trunk else features.detach()))
            harder, logits = angular_logits(pooled, self.heads.glob, places, o)
            whole = F.cross_entropy(harder, places)
            loss = loss + o.w_global * whole
            figures |= {"global": whole, "gtop1": (logits.argmax(1) == places).float().mean()}
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([p for params, _ in self._groups for p in params], 5.0)
        self.optimizer.step()
        self.step += 1
        decay = min(o.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for k, v in self.network.state_dict().items():
                if v.dtype.is_floating_point:
                    self.average[k].lerp_(v, 1 - decay)
        return {k: float(v.detach()) for k, v in figures.items()}

    def save(self, folder: Path) -> None:
        """Write `last.pt` (to resume) and `network.pt` (averaged weights, to use), each by atomic rename."""
        spec, hidden = self.network.spec.name, int(self.network.attention[0].weight.shape[0])
        whole = {
            "options": dataclasses.asdict(self.options),
            "step": self.step,
            "network": self.network.state_dict(),
            "heads": self.heads.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "places": self.sampler.places,
        }
        light = {"spec": spec, "attention_hidden": hidden, "network": self.average, "step": self.step}
        for name, content in (("last.pt", whole), ("network.pt", light)):
            torch.save(content, folder / (name + ".part"))
            os.replace(folder / (name + ".part"), folder / name)

    def take_heads(self, folder: Path) -> None:
        """Take the classifiers of an earlier run (its `last.pt`) where it knew the same places."""
        saved: dict[str, Any] = torch.load(folder / "last.pt", map_location="cpu", weights_only=True)
        if saved["places"] == self.sampler.places and self.options.centres == saved["options"].get("centres", 1):
            self.heads.load_state_dict(saved["heads"])

    def resume(self, folder: Path) -> None:
        """Continue from `last.pt`.

        Raises:
            ValueError: the checkpoint was made with other places or other options.
        """
        saved: dict[str, Any] = torch.load(folder / "last.pt", map_location="cpu", weights_only=True)
        ours = json.loads(json.dumps(dataclasses.asdict(self.options)))
        # Options that are younger than the checkpoint had their defaults then.
        theirs = json.loads(json.dumps(dataclasses.asdict(TrainOptions()) | saved["options"]))
        different = sorted(k for k in ours if ours[k] != theirs.get(k) and k != "save_every")
        if different or saved["places"] != self.sampler.places:
            what = ", ".join(f"{k} {theirs.get(k)} -> {ours[k]}" for k in different) or "the list of places"
            raise ValueError(f"{folder}: the checkpoint differs in {what}; use the same options or another folder")
        self.network.load_state_dict(saved["network"])
        self.heads.load_state_dict(saved["heads"])
        self.average = {k: v.to(self.device) for k, v in saved["average"].items()}
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step = saved["step"]


def interpolate(trained: Path, weight: float, out: Path, *, tail_only: bool = False) -> Path:
    """Average trained weights with the ImageNet ones they began from, the attention head left as trained.

    Keeps what both know: fewer places of the training list by heart, more of all others (Wortsman et al., CVPR 2022).

    Args:
        trained: a `network.pt`.
        weight: share of the trained weights, 0..1.
        out: where the averaged `network.pt` goes.
        tail_only: average the layers of the global descriptor alone.
    """
    saved: dict[str, Any] = torch.load(trained, map_location="cpu", weights_only=True)
    spec = SPECS[saved["spec"]]
    begin = load_imagenet(spec).state_dict()
    tail = ("_conv_head.", "_bn1.", *(f"_blocks.{i}." for i in range(spec.tap + 1, len(spec.blocks))))
    for name, value in saved["network"].items():
        chosen = name.startswith(tail) if tail_only else not name.startswith("attention.")
        if chosen and value.dtype.is_floating_point:
            saved["network"][name] = weight * value + (1 - weight) * begin[name]
    torch.save(saved, out)
    return out


def soup(networks: Sequence[tuple[Path, float]], out: Path) -> Path:
    """Average several runs that began from the same weights (Wortsman et al., ICML 2022).

    Batch norms are folded into their convolutions first, so that a network restored from a bundle, which has them
    folded already, can be one of them. Attention heads began at random and have no common basis: that of the first
    network is taken, and should be trained on.

    Args:
        networks: each a `network.pt` and its share; shares are scaled to 1.
        out: where the averaged `network.pt` goes.

    Raises:
        ValueError: the backbones differ, or there is no network.
    """
    saved = [torch.load(path, map_location="cpu", weights_only=True) for path, _ in networks]
    if len({s["spec"] for s in saved}) != 1:
        raise ValueError(f"one backbone is needed, there are {sorted({s['spec'] for s in saved})}")
    total = sum(share for _, share in networks)
    states = [_folded(load_checkpoint(path).state_dict()) for path, _ in networks]
    average = dict(states[0])
    for name, value in states[0].items():
        if value.dtype.is_floating_point and not name.startswith("attention."):
            parts = [s[name] * (share / total) for s, (_, share) in zip(states, networks, strict=True)]
            average[name] = torch.stack(parts).sum(0)
    torch.save({**saved[0], "network": average}, out)
    return out


_NORMS = {
    "_conv_stem": "_bn0",
    "_conv_head": "_bn1",
    "_expand_conv": "_bn0",
    "_depthwise_conv": "_bn1",
    "_project_conv": "_bn2",
}
_NORM_EPS = 1e-3


def _folded(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same function with batch norms that only add: their scale is in the convolution before them."""
    out = dict(state)
    for name in state:
        prefix, dot, conv = name.removesuffix(".weight").rpartition(".")
        if conv not in _NORMS:
            continue
        norm = prefix + dot + _NORMS[conv]
        mean, var = state[norm + ".running_mean"], state[norm + ".running_var"]
        factor = state[norm + ".weight"] / torch.sqrt(var + _NORM_EPS)
        out[name] = state[name] * factor[:, None, None, None]
        out[norm + ".bias"] = state[norm + ".bias"] - mean * factor
        out[norm + ".weight"] = torch.ones_like(mean)
        out[norm + ".running_mean"] = torch.zeros_like(mean)
        out[norm + ".running_var"] = torch.full_like(var, 1.0 - _NORM_EPS)
    return out


def train(
    photos: Sequence[Photo],
    out: str | Path,
    options: TrainOptions | None = None,
    *,
    pairs: Pairs | None = None,
    alike: Mapping[str, Sequence[str]] | None = None,
    start: DelfNetwork | Path | None = None,
    stop: int | None = None,
    device: str = "auto",
    report: Callable[[str], None] = print,
) -> Path:
    """Train, resuming from `out/last.pt` when it is there.

    Args:
        photos: the training list.
        out: folder for `last.pt`, `network.pt` and `log.jsonl`.
        options: what to train.
        pairs: geometrically verified pairs of `photos`.
        alike: of each place, the places that look most like it (`delf_edge.converters.training.pairs.places_alike`).
        start: network to start from, or the folder of an earlier run; default: ImageNet weights.
        stop: step to stop at before the schedule ends; a later call without it goes on.
        device: "cpu", "cuda", "cuda:1", ...; "auto" takes a GPU when there is one (`choose_device`).
        report: called with one line of figures now and then.

    Returns:
        Path of the averaged weights, `out/network.pt`.
    """
    options = options or TrainOptions()
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    network = load_checkpoint(start / "network.pt") if isinstance(start, Path) else start
    trainer = Trainer(Sampler(photos, options, pairs, alike), options, network, choose_device(device))
    if isinstance(start, Path):
        trainer.take_heads(start)
    if (folder / "last.pt").exists():
        trainer.resume(folder)
    sums: Counter[str] = Counter()
    since, began = trainer.step, time.perf_counter()
    last = options.steps if stop is None else min(stop, options.steps)
    batches = prefetch(trainer.sampler.batch, trainer.step, last)
    for batch in batches:
        sums.update(trainer.train_step(batch))
        done = trainer.step
        if done % 25 == 0 or done == last:
            n = done - since
            line = {k: round(v / n, 4) for k, v in sums.items()}
            record = {"step": done, "seconds_per_step": round((time.perf_counter() - began) / n, 3), **line}
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(record) + "\n")
            report(json.dumps(record))
            sums.clear()
            since, began = done, time.perf_counter()
        if done % options.save_every == 0 or done == last:
            trainer.save(folder)
    return folder / "network.pt"
