"""Averages of trained weights: with those that they began from, and of several runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from delf_edge.converters.networks.delf import SPECS, load_checkpoint, load_imagenet

_NORMS = {
    "_conv_stem": "_bn0",
    "_conv_head": "_bn1",
    "_expand_conv": "_bn0",
    "_depthwise_conv": "_bn1",
    "_project_conv": "_bn2",
}
_NORM_EPS = 1e-3


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
