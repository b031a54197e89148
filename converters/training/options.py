"""What is trained, on what, for how long."""

from __future__ import annotations

from dataclasses import dataclass


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
