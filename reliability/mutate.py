"""Seeded mutations of bytes: flips, interesting numbers, cuts, repeats, and pieces of other inputs."""

from __future__ import annotations

import zlib

import numpy as np

INTERESTING = (0, 1, 2, 7, 8, 15, 16, 31, 63, 64, 127, 128, 255, 256, 1000, 4095, 4096, 32767, 32768, 65535)
LARGE = (1 << 16, (1 << 24) - 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)


def mutate(data: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    """One to six changes."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 7))):
        if not out:
            break
        at, kind = int(rng.integers(len(out))), int(rng.integers(8))
        if kind <= 1:
            out[at] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            out[at] = int(rng.integers(256))
        elif kind == 3:  # a number of 1, 2 or 4 bytes, in either order
            size = (1, 2, 4)[int(rng.integers(3))]
            values = INTERESTING if size < 4 else (*INTERESTING, *LARGE)
            value = int(rng.choice(values)) & ((1 << 8 * size) - 1)
            out[at : at + size] = value.to_bytes(size, ("little", "big")[int(rng.integers(2))])
        elif kind == 4:
            del out[at : at + int(rng.integers(1, 64))]
        elif kind == 5:
            piece = out[at : at + int(rng.integers(1, 64))]
            out[at:at] = piece * int(rng.integers(1, 4))
        elif kind == 6:
            other = others[int(rng.integers(len(others)))]
            start = int(rng.integers(len(other)))
            piece = bytearray(other[start : start + int(rng.integers(1, 128))])
            out[at : at + len(piece)] = piece
        elif rng.random() < 0.3:
            del out[at:]
    return bytes(out)


def with_png_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have the checksum of what they hold, so that a mutant reaches the decoder."""
    out, at = bytearray(data), 8
    while at + 12 <= len(out):
        size = int.from_bytes(out[at : at + 4], "big")
        end = at + 8 + size
        if end + 4 > len(out):
            break
        out[end : end + 4] = zlib.crc32(out[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(out)
