"""A PyTorch network from the TFLite models of a bundle, for a bundle whose checkpoint is not at hand.

The exporter folds each batch norm into the convolution before it and keeps the order of the layers, so the n-th
convolution of the model is the n-th of the network, with a bias that the batch norm behind it takes over. Weights come
back as they are stored: float32, float16, or int8 with a scale per channel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from delf_edge.converters.networks.delf import BackboneSpec, DelfNetwork
from delf_edge.errors import BundleError
from delf_edge.types import Float32Array

PREFERRED = ("float32", "float16")  # variants of the local network that keep what training gave


def from_tflite(local: bytes, tail: bytes | None, spec: BackboneSpec) -> DelfNetwork:
    """The network whose export these models are, in eval mode.

    Args:
        local: a float32 or float16 local network.
        tail: a tail of any variant but int8 (whose activations are quantised too); None leaves it random.
        spec: the backbone.

    Raises:
        BundleError: the models are not an export of that backbone.
    """
    weights = list(_convolutions(local))
    network = DelfNetwork(spec, attention_hidden=len(weights[-2][1])) if len(weights) > 1 else DelfNetwork(spec)
    trunk = [(network._conv_stem, network._bn0), *_blocks(network, 0, spec.tap + 1)]
    layers = [*trunk, *((layer, None) for layer in network.attention if isinstance(layer, nn.Conv2d))]
    _fill(layers, weights, spec)
    if tail is not None:
        rest = [*_blocks(network, spec.tap + 1, len(spec.blocks)), (network._conv_head, network._bn1)]
        _fill(rest, list(_convolutions(tail)), spec)
    return network.eval()


def _blocks(network: DelfNetwork, start: int, stop: int) -> Iterator[tuple[Any, Any]]:
    """Convolutions and their batch norms, in the order of `InvertedResidual.forward`."""
    for block in network._blocks[start:stop]:
        if block.has_expand:
            yield block._expand_conv, block._bn0
        yield block._depthwise_conv, block._bn1
        yield block._project_conv, block._bn2


def _fill(layers: list[tuple[Any, Any]], weights: list[tuple[Float32Array, Float32Array]], spec: BackboneSpec) -> None:
    shapes = [tuple(conv.weight.shape) for conv, _ in layers]
    if shapes != [kernel.shape for kernel, _ in weights]:
        raise BundleError(
            f"the model has {len(weights)} convolutions, {spec.name} {len(layers)}, or their shapes differ; "
            "name the backbone of this bundle with --backbone, or its checkpoint with --checkpoint"
        )
    with torch.no_grad():
        for (conv, norm), (kernel, bias) in zip(layers, weights, strict=True):
            conv.weight.copy_(torch.from_numpy(kernel))
            if norm is None:
                conv.bias.copy_(torch.from_numpy(bias))
                continue
            norm.weight.fill_(1.0)
            norm.bias.copy_(torch.from_numpy(bias))
            norm.running_mean.zero_()
            norm.running_var.fill_(1.0 - norm.eps)


def _convolutions(model: bytes) -> Iterator[tuple[Float32Array, Float32Array]]:
    """Kernels (out, in, h, w) and biases (out,) of a model's convolutions, in order."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=model, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    tensors = {int(d["index"]): d for d in interpreter.get_tensor_details()}
    made_from: dict[int, int] = {}
    for op in interpreter._get_ops_details():
        inputs = [int(i) for i in op["inputs"]]
        match op["op_name"]:
            case "DEQUANTIZE":
                made_from[int(op["outputs"][0])] = inputs[0]
            case "CONV_2D" | "DEPTHWISE_CONV_2D" as kind:
                kernel = made_from.get(inputs[1], inputs[1])
                values = _dequantised(interpreter.get_tensor(kernel), tensors[kernel])
                bias = np.asarray(interpreter.get_tensor(inputs[2]), np.float32)
                # CONV_2D has (out, h, w, in), DEPTHWISE_CONV_2D (1, h, w, out).
                order = (0, 3, 1, 2) if kind == "CONV_2D" else (3, 0, 1, 2)
                yield np.ascontiguousarray(values.transpose(order)), bias


def _dequantised(values: Any, tensor: Mapping[str, Any]) -> Float32Array:
    if values.dtype != np.int8:
        return np.asarray(values, np.float32)
    parameters = tensor["quantization_parameters"]
    shape = [1] * values.ndim
    shape[int(parameters["quantized_dimension"])] = -1
    result: Float32Array = values.astype(np.float32) * parameters["scales"].astype(np.float32).reshape(shape)
    return result
