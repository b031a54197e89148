"""The official DELF and DELG networks (ResNet-50 to conv4, attention 512-BN-ReLU-1), for import only.

::

    v1    tf-slim graph: the stride sits in the last unit of a block, explicit symmetric padding, stride 32
    DELG  Keras model:   the stride sits in the first unit, "same" padding, stride 32 by subsampling (or 16),
                         local descriptors optionally reduced to 128 channels by the first half of an autoencoder

Batch norms are folded into the convolutions when the variables are taken over. Where TensorFlow's "same" padding
depends on whether a side is even, the padding here is that of even sides; odd ones see the map shifted by up to half
a cell of that layer. The paddings also make every map ceil(side / stride) cells long.

Sources: Noh et al., ICCV 2017, section 3; Cao et al., ECCV 2020 (DELG), section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from delf_edge.converters.official.protobuf import OfficialFormatError
from delf_edge.types import Float32Array

Variables = Mapping[str, Float32Array]
_UNITS = (3, 4, 6)
_KERAS = "/.ATTRIBUTES/VARIABLE_VALUE"


@dataclass(frozen=True, slots=True)
class ResNetSpec:
    """Geometry of an imported network.

    Attributes:
        name: "delf-v1" or "delg".
        slim: the tf-slim form.
        stride: pixels between neighbouring cells.
        offset: cell i is centred on pixel stride * i + offset.
        receptive_field: side of the square that a cell sees, pixels.
        channels: C of the local descriptors.
        head: channels of the map that the global descriptor pools.
    """

    name: str
    slim: bool
    stride: int
    offset: float
    receptive_field: int
    channels: int
    head: int


class Unit(nn.Module):
    """A bottleneck: 1x1, 3x3, 1x1 convolutions, and a shortcut."""

    def __init__(self, c_in: int, width: int, stride: int, slim: bool) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(c_in, width, 1, 1 if slim else stride)
        self.conv2 = nn.Conv2d(width, width, 3, stride if slim else 1, 1)
        self.conv3 = nn.Conv2d(width, 4 * width, 1)
        self.shortcut = nn.Conv2d(c_in, 4 * width, 1, stride) if c_in != 4 * width else None

    def forward(self, x: Tensor) -> Tensor:
        """Map to map."""
        y = self.conv3(F.relu(self.conv2(F.relu(self.conv1(x)))))
        if self.shortcut is not None:
            x = self.shortcut(x)
        elif self.stride != 1:
            x = F.max_pool2d(x, 1, self.stride)
        return F.relu(x + y)


class OfficialDelf(nn.Module):
    """ResNet-50 to conv4 with the official attention; the same outputs as `DelfNetwork`."""

    def __init__(self, spec: ResNetSpec, reduced: int = 0) -> None:
        super().__init__()
        self.spec = spec
        # "Same" padding of an even side is 2 before and 4 behind. The exporter cannot pad an input of unknown size
        # unevenly, so the 7x7 kernel of DELG is the lower right part of a 9x9 one that is padded by 4 all round.
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3) if spec.slim else nn.Conv2d(3, 64, 9, 2, 4)
        blocks, c_in = [], 64
        for i, n in enumerate(_UNITS):
            width = 64 << i
            strided = n - 1 if spec.slim else 0
            stride = 2 if spec.slim or i > 0 else 1
            units = []
            for j in range(n):
                units.append(Unit(c_in, width, stride if j == strided else 1, spec.slim))
                c_in = 4 * width
            blocks.append(nn.ModuleList(units))
        self.blocks = nn.ModuleList(blocks)
        self.attention = nn.Sequential(nn.Conv2d(1024, 512, 1), nn.ReLU(), nn.Conv2d(512, 1, 1))
        self.reduce = nn.Conv2d(1024, reduced, 1) if reduced else None
        self.expand = nn.Conv2d(reduced, 1024, 1) if reduced else None

    @property
    def channels(self) -> int:
        """C, channels of the local map."""
        return self.spec.channels

    def trunk(self, x: Tensor) -> Tensor:
        """Photo float32 (B, 3, H, W), (RGB - 128) / 128, to the map of conv4 (B, 1024, h, w)."""
        x = F.relu(self.conv1(x))
        x = F.max_pool2d(F.pad(x, (0, 2, 0, 2)), 3, 2)
        for block in self.blocks:
            for unit in block:
                x = unit(x)
        if not self.spec.slim and self.spec.stride == 32:
            x = F.max_pool2d(x, 1, 2)
        return x

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Photo to (local map, attention logit)."""
        features = self.trunk(x)
        if self.reduce is None or self.expand is None:
            return features, self.attention(features)
        short = self.reduce(features)
        return short, self.attention(F.relu(self.expand(short)))


def _take(variables: Variables, name: str) -> Float32Array:
    if name not in variables:
        raise OfficialFormatError(f"the SavedModel has no variable {name!r}: it is no DELF v1 or DELG model")
    return variables[name]


def _set(conv: nn.Conv2d, kernel: Float32Array, scale: Float32Array, bias: Float32Array, name: str) -> None:
    """Kernel (h, w, in, out) times `scale` (out,), and bias, into a convolution."""
    weight = np.transpose(kernel * scale, (3, 2, 0, 1))
    if weight.shape != tuple(conv.weight.shape):
        raise OfficialFormatError(
            f"{name} has shape {kernel.shape}; DELF's is {tuple(conv.weight.shape)} (out, in, h, w)"
        )
    with torch.no_grad():
        conv.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight)))
        if conv.bias is not None:
            conv.bias.copy_(torch.from_numpy(np.ascontiguousarray(bias)))


def _slim(conv: nn.Conv2d, variables: Variables, scope: str) -> None:
    kernel = _take(variables, f"{scope}/weights")
    mean, variance = (_take(variables, f"{scope}/BatchNorm/moving_{n}") for n in ("mean", "variance"))
    gamma = variables.get(f"{scope}/BatchNorm/gamma", np.ones_like(mean))
    scale = (gamma / np.sqrt(variance + np.float32(1e-5))).astype(np.float32, copy=False)
    _set(conv, kernel, scale, _take(variables, f"{scope}/BatchNorm/beta") - mean * scale, scope)


def _keras(conv: nn.Conv2d, variables: Variables, scope: str, norm: str | None) -> None:
    kernel, bias = (_take(variables, f"{scope}/{n}{_KERAS}") for n in ("kernel", "bias"))
    scale = np.ones_like(bias)
    if norm is not None:
        gamma, beta, mean, variance = (
            _take(variables, f"{norm}/{n}{_KERAS}") for n in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        scale = (gamma / np.sqrt(variance + np.float32(1e-3))).astype(np.float32, copy=False)
        bias = beta + (bias - mean) * scale
    _set(conv, kernel, scale, bias, scope)


def _from_slim(variables: Variables) -> OfficialDelf:
    # Convolution 1 pads 3 and centres on 2 i; the pool's window of cells 2 i .. 2 i + 2 on 2 (2 i + 1).
    spec = ResNetSpec("delf-v1", True, 32, 2.0, 291, 1024, 1024)
    network = OfficialDelf(spec)
    _slim(network.conv1, variables, "resnet_v1_50/conv1")
    for i, block in enumerate(network.blocks):
        for j, unit in enumerate(block):
            scope = f"resnet_v1_50/block{i + 1}/unit_{j + 1}/bottleneck_v1"
            for name in ("conv1", "conv2", "conv3", *(["shortcut"] if unit.shortcut is not None else [])):
                _slim(getattr(unit, name), variables, f"{scope}/{name}")
    scope = "attention_block/attention/compute"
    _slim(network.attention[0], variables, f"{scope}/conv1")
    kernel, bias = (_take(variables, f"{scope}/conv2/{n}") for n in ("weights", "biases"))
    _set(network.attention[2], kernel, np.ones_like(bias), bias, f"{scope}/conv2")
    return network


def _from_keras(variables: Variables, root: str, stride: int) -> OfficialDelf:
    reduced = variables.get(f"{root}autoencoder/conv1/bias{_KERAS}", np.zeros(0)).size
    # Convolution 1 pads 2 before the first pixel and centres on 2 i + 1, the pool on 2 (2 i + 1) + 1.
    spec = ResNetSpec("delg", False, stride, 3.0, 291, reduced or 1024, reduced or 1024)
    network = OfficialDelf(spec, reduced)
    backbone = f"{root}backbone/"
    first = f"{backbone}conv1/kernel{_KERAS}"
    variables = {**variables, first: np.pad(_take(variables, first), ((2, 0), (2, 0), (0, 0), (0, 0)))}
    _keras(network.conv1, variables, f"{backbone}conv1", f"{backbone}bn_conv1")
    for i, block in enumerate(network.blocks):
        for j, unit in enumerate(block):
            scope = f"{backbone}l{i + 2}{'abcdef'[j]}"
            for ours, theirs in (("conv1", "2a"), ("conv2", "2b"), ("conv3", "2c")):
                _keras(getattr(unit, ours), variables, f"{scope}/conv{theirs}", f"{scope}/bn{theirs}")
            if unit.shortcut is not None:
                _keras(unit.shortcut, variables, f"{scope}/conv_shortcut", f"{scope}/bn_shortcut")
    _keras(network.attention[0], variables, f"{root}attention/conv1", f"{root}attention/bn_conv1")
    _keras(network.attention[2], variables, f"{root}attention/conv2", None)
    if reduced:
        _keras(_conv(network.reduce), variables, f"{root}autoencoder/conv1", None)
        _keras(_conv(network.expand), variables, f"{root}autoencoder/conv2", None)
    return network


def _conv(module: Any) -> nn.Conv2d:
    return module


def from_variables(variables: Variables, *, stride: int = 32) -> OfficialDelf:
    """The network of a DELF v1 or DELG SavedModel, in eval mode.

    Args:
        variables: `savedmodel.read_variables` of it.
        stride: 32, or 16 for a DELG model exported without strides in block 3 (the variables do not tell).

    Raises:
        OfficialFormatError: a variable is missing or has another shape; the message names it.
    """
    if "resnet_v1_50/conv1/weights" in variables:
        return _from_slim(variables).eval()
    variables = {n.replace(f"/_kernel{_KERAS}", f"/kernel{_KERAS}"): v for n, v in variables.items()}  # Keras 3
    ending = f"backbone/conv1/kernel{_KERAS}"
    root = next((name[: -len(ending)] for name in variables if name.endswith(ending)), None)
    if root is None:
        some = ", ".join(sorted(variables)[:3]) or "none at all"
        raise OfficialFormatError(f"the SavedModel is neither DELF v1 nor DELG: its variables are {some}, ...")
    return _from_keras(variables, root, stride).eval()
