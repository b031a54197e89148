"""Files of the official release into numpy's and back: `.datum` and `.npy`, `.delf` and `.npz`. Needs no PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from delf_edge.converters.official import protobuf
from delf_edge.errors import OptionError
from delf_edge.files import replacing
from delf_edge.types import Features

FILES = {".datum": ".npy", ".npy": ".datum", ".delf": ".npz", ".npz": ".delf"}  # what `convert_file` makes of what


def convert_file(source: Path, out: Path) -> dict[str, Any]:
    """A `.datum` file as .npy, or a `.delf` file as .npz (keypoints (x, y), scales, scores, descriptors); and back.

    Args:
        source: the file, known by its suffix.
        out: the file to write; its suffix must be the one that belongs to `source`.

    Raises:
        OfficialFormatError: not such a file.
        OptionError: `out` has another suffix, so that something else could be lost.
    """
    if out.suffix != FILES[source.suffix] or out.is_dir():
        raise OptionError(f"{out}: a {source.suffix} file becomes a {FILES[source.suffix]} file; name OUT so")
    with replacing(out) as partial:
        told = _write(source, partial)
    return {**told, "file": str(out)}


def _write(source: Path, out: Path) -> dict[str, Any]:
    if source.suffix == ".datum":
        array = protobuf.read_datum(source)
        with out.open("wb") as file:
            np.save(file, array)
    elif source.suffix == ".npy":
        array = np.load(source, allow_pickle=False).astype(np.float32)
        protobuf.write_datum(array, out)
    else:
        return _convert_features(source, out)
    return {"shape": list(array.shape)}


def _convert_features(source: Path, out: Path) -> dict[str, Any]:
    names = ("keypoints", "scales", "scores", "descriptors")
    if source.suffix == ".delf":
        features = protobuf.read_features(source)
        with out.open("wb") as file:
            np.savez(file, **{name: getattr(features, name) for name in names})
    else:
        with np.load(source, allow_pickle=False) as stored:
            if missing := sorted(set(names) - set(stored.files)):
                raise protobuf.OfficialFormatError(f"{source} has no {', '.join(missing)}; expected {', '.join(names)}")
            arrays = {name: np.ascontiguousarray(stored[name], np.float32) for name in names}
        features = Features(**arrays, global_descriptor=np.zeros(0, np.float32), image_size=(0, 0))
        protobuf.write_features(features, out)
    return {"features": len(features), "dimension": int(features.descriptors.shape[1])}
