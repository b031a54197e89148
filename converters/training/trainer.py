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
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from delf_edge.converters.networks.delf import SPECS, DelfNetwork, gem, load_checkpoint, load_imagenet, to_input
from delf_edge.converters.training.batches import Batch, Pairs, prefetch
from delf_edge.converters.training.losses import (
    Heads,
    angular_logits,
    attention_pool,
    correspondence_loss,
    cosine_logits,
)
from delf_edge.converters.training.options import TrainOptions
from delf_edge.converters.training.photos import Photo
from delf_edge.converters.training.sampler import Sampler


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
