"""Export to TFLite and quantise; what that costs is measured in `parity`.

::

    DelfNetwork ── convert ──> float32 ──┬── to_float16 ───────> float16        weights halved, float32 arithmetic
                                         ├── to_dynamic_range ─> dynamic_range  int8 weights, float32 activations
                                         └── to_int8 ──────────> int8           int8 throughout, calibrated on photos

All variants keep a dynamic height and width, float32 input and output, and NHWC layout. Both networks have one
signature, `serving_default`: the local network maps `image` to `features` and `attention` (the logit), the tail
maps `features` to `global_map`.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from delf_edge.converters.networks.delf import INPUT_MEAN, INPUT_SCALE, BackboneSpec, DelfNetwork
from delf_edge.types import Float32Array, UInt8Array

SIGNATURE = "serving_default"
VARIANTS = ("float32", "float16", "dynamic_range", "int8")
_MAX_SIDE = 4096  # px; bound of the dynamic dimensions, only used by the exporter's shape checks


class LocalModule(nn.Module):
    """The local network as a device sees it: NHWC in, NHWC out, named outputs."""

    def __init__(self, network: DelfNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Normalised photo float32 (1, H, W, 3) to `features` (1, h, w, C) and `attention` logit (1, h, w, 1)."""
        features, attention = self.network(image.permute(0, 3, 1, 2))
        return {"features": features.permute(0, 2, 3, 1), "attention": attention.permute(0, 2, 3, 1)}


class TailModule(nn.Module):
    """The tail of the global descriptor, NHWC in, NHWC out."""

    def __init__(self, network: DelfNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Map float32 (1, h, w, C) to the non-negative `global_map` (1, h', w', Cg)."""
        return {"global_map": self.network.tail(features.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)}


def receptive_field(spec: BackboneSpec) -> int:
    """Side in pixels of the square that one cell of the stride-16 map can see.

    r grows by (k - 1) * j per layer, where j is the distance in pixels between neighbouring inputs of that layer.
    """
    size, jump = 1 + 2, 2  # stem: 3x3, stride 2
    for block in spec.blocks[: spec.tap + 1]:
        size += (block.kernel - 1) * jump
        jump *= block.stride
    return size


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter and the quantiser print progress and warn about their own internals; keep stdout ours."""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


def _convert(module: nn.Module, name: str, shape: tuple[int, int, int, int]) -> bytes:
    with _quiet():
        import litert_torch
        from litert_torch import _config as settings

        settings.config.show_progress = False
        # The tracer specialises where a strided layer would see a single cell; TFLite itself has no such bound.
        smallest = 64 if shape[3] == 3 else 3
        dims = {i: torch.export.Dim(n, min=smallest, max=_MAX_SIDE) for i, n in ((1, "H"), (2, "W"))}
        converter = litert_torch.signature(
            SIGNATURE, module.eval(), sample_kwargs={name: torch.zeros(shape)}, dynamic_shapes={name: dims}
        )
        return bytes(converter.convert().model_content())


def convert_local(network: DelfNetwork) -> bytes:
    """The local network (trunk and attention) as a float32 TFLite model with dynamic H and W."""
    return _convert(LocalModule(network), "image", (1, 224, 320, 3))


def convert_tail(network: DelfNetwork) -> bytes:
    """The tail as a float32 TFLite model with dynamic h and w."""
    return _convert(TailModule(network), "features", (1, 14, 20, network.channels))


def _quantizer(model: bytes) -> Any:
    from ai_edge_quantizer import quantizer

    return quantizer.Quantizer(bytearray(model))


def to_float16(model: bytes) -> bytes:
    """Store the weights as float16. XNNPACK expands them once, when the model is loaded: the speed is float32's."""
    with _quiet():
        from ai_edge_quantizer import qtyping
        from ai_edge_quantizer.algorithm_manager import AlgorithmName

        quantizer = _quantizer(model)
        quantizer.add_weight_only_config(
            ".*", qtyping.TFLOperationName.ALL_SUPPORTED, num_bits=16, algorithm_key=AlgorithmName.FLOAT_CASTING
        )
        return bytes(quantizer.quantize().quantized_model)


def to_dynamic_range(model: bytes) -> bytes:
    """int8 weights; activations stay float32 and are quantised on the fly."""
    with _quiet():
        from ai_edge_quantizer import recipe

        quantizer = _quantizer(model)
        quantizer.load_quantization_recipe(recipe.dynamic_wi8_afp32())
        return bytes(quantizer.quantize().quantized_model)


def to_int8(model: bytes, samples: Iterable[Float32Array], *, input_name: str = "image", threads: int = 1) -> bytes:
    """int8 weights (per channel) and activations (per tensor), float32 input and output.

    Args:
        model: float32 TFLite model.
        samples: calibration inputs, float32 (1, H, W, C), of any sizes; ranges are a moving average over them, so
            hundreds of photos are better than a few.
        input_name: name of the signature's input.
        threads: threads of the calibration.

    Raises:
        ValueError: no sample was given.
    """
    batch = [{input_name: np.ascontiguousarray(s, np.float32)} for s in samples]
    if not batch:
        raise ValueError("int8 needs calibration inputs, got none; give at least a few dozen photos")
    with _quiet():
        from ai_edge_quantizer import qtyping, recipe
        from ai_edge_quantizer.algorithm_manager import AlgorithmName

        quantizer = _quantizer(model)
        quantizer.load_quantization_recipe(recipe.static_wi8_ai8())
        for border in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
            quantizer.update_quantization_recipe(".*", border, algorithm_key=AlgorithmName.NO_QUANTIZE)
        ranges = quantizer.calibrate({SIGNATURE: batch}, num_threads=threads)
        return bytes(quantizer.quantize(ranges).quantized_model)


def normalise(pixels: UInt8Array, mean: float = INPUT_MEAN, scale: float = INPUT_SCALE) -> Float32Array:
    """uint8 RGB (H, W, 3) to the network's input float32 (1, H, W, 3)."""
    return ((pixels.astype(np.float32) - np.float32(mean)) / np.float32(scale))[None]


def quantise(
    model: bytes, variant: str, samples: Callable[[], Iterable[Float32Array]], *, input_name: str = "image"
) -> bytes:
    """One variant of a float32 model; `samples` is called for int8 only.

    Raises:
        ValueError: an unknown variant, or int8 without samples.
    """
    match variant:
        case "float32":
            return model
        case "float16":
            return to_float16(model)
        case "dynamic_range":
            return to_dynamic_range(model)
        case "int8":
            return to_int8(model, samples(), input_name=input_name)
    raise ValueError(f"unknown variant {variant!r}; choose from {', '.join(VARIANTS)}")


def operators(model: bytes) -> dict[str, int]:
    """How often each TFLite operator occurs in a model, before any delegate rewrites the graph."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=model, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    return dict(Counter(str(op["op_name"]) for op in interpreter._get_ops_details()))
