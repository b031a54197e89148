"""Files of the official release into numpy's and back: `.datum` and `.npy`, `.delf` and `.npz`. Needs no PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from delf_edge.converters.official import protobuf
from delf_edge.types import Features

FILES = (".datum", ".delf", ".npy", ".npz")  # what `convert_file` reads


def convert_file(source: Path, out: Path) -> dict[str, Any]:
    """A `.datum` file as .npy, or a `.delf` file as .npz (keypoints (x, y), scales, scores, descriptors); and back.

    Raises:
        OfficialFormatError: not such a file.
    """
    if source.suffix == ".datum":
        array = protobuf.read_datum(source)
        np.save(out, array)
    elif source.suffix == ".npy":
        array = np.load(source, allow_pickle=False).astype(np.float32)
        protobuf.write_datum(array, out)
    else:
        return _convert_features(source, out)
    return {"shape": list(array.shape), "file": str(out)}


def _convert_features(source: Path, out: Path) -> dict[str, Any]:
    names = ("keypoints", "scales", "scores", "descriptors")
    if source.suffix == ".delf":
        features = protobuf.read_features(source)
        np.savez(out, **{name: getattr(features, name) for name in names})
    else:
        with np.load(source, allow_pickle=False) as stored:
            if missing := sorted(set(names) - set(stored.files)):
                raise protobuf.OfficialFormatError(f"{source} has no {', '.join(missing)}; expected {', '.join(names)}")
            arrays = {name: np.ascontiguousarray(stored[name], np.float32) for name in names}
        features = Features(**arrays, global_descriptor=np.zeros(0, np.float32), image_size=(0, 0))
        protobuf.write_features(features, out)
    return {"features": len(features), "dimension": int(features.descriptors.shape[1]), "file": str(out)}
