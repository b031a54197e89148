"""Decompression bombs (`python -m reliability bombs`): small files that declare or contain far too much.

Each is refused in a process of its own; recorded are the largest memory of that process and the processor time that
refusing took (the machine may be shared). What is not refused must decode within the same memory. A fork begins with
the memory of its parent, so the whole runs from a fresh interpreter whoever asks.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import struct
import time
import zlib
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

from delf_edge.errors import ImageError
from delf_edge.images.decode import load_image, load_opencv
from reliability import world

MOST_MB = 200


def png(width: int, height: int, *, rows: int, colour: int = 2, depth: int = 8, extra: bytes = b"") -> bytes:
    """A PNG of zeros that declares `height` rows and holds `rows` of them."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    channels = {0: 1, 2: 3, 6: 4}[colour]
    line = bytes(1 + width * channels * depth // 8)
    packer = zlib.compressobj(9)
    data = b"".join([*(packer.compress(line) for _ in range(rows)), packer.flush()])
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """A small PNG with a text that unpacks to 200 MB."""
    packer = zlib.compressobj(9)
    data = b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(200)), packer.flush()])
    body = b"zTXt" + b"Comment\0\0" + data
    extra = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return png(64, 64, rows=64, extra=extra)


def tiff(width: int, height: int, *, rows_per_strip: int, compression: int, data: bytes, extra: int = 0) -> bytes:
    """A TIFF with one strip."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, compression), (262, 3, 1), (273, 4, 8)]
    tags += [(277, 3, 1), (278, 4, rows_per_strip), (279, 4, len(data) + extra)]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", t, k, 1, v) for t, k, v in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + bytes(4)


def corpus() -> dict[str, bytes]:
    """Name -> bytes."""
    import cv2

    black = np.zeros((4096, 4096), np.uint8)
    jpeg = bytearray(cv2.imencode(".jpg", black, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes())
    at = jpeg.index(b"\xff\xc2") + 5
    big = bytes(jpeg[:at]) + struct.pack(">HH", 65500, 65500) + bytes(jpeg[at + 4 :])
    under = bytes(jpeg[:at]) + struct.pack(">HH", 10900, 10900) + bytes(jpeg[at + 4 :])
    webp = bytearray(
        cv2.imencode(".webp", np.zeros((64, 64, 3), np.uint8), [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()
    )
    webp_max = bytes(webp[:21]) + struct.pack("<I", (16383 - 1) | (16383 - 1) << 14) + bytes(webp[25:])
    canvas = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (2**24 - 1).to_bytes(3, "little") * 2
    riff = b"WEBP" + canvas + bytes(webp[12:])
    bmp = bytearray(cv2.imencode(".bmp", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    bmp_big = bytes(bmp[:18]) + struct.pack("<ii", 10900, 10900) + bytes(bmp[26:])
    bmp_negative = bytes(bmp[:18]) + struct.pack("<ii", 2**31 - 1, -(2**31)) + bytes(bmp[26:])
    deflated = zlib.compress(bytes(10_000_000), 9)
    return {
        "PNG, 30000 x 30000": png(30000, 30000, rows=100),
        "PNG, 10900 x 10900, all rows there": png(10900, 10900, rows=10900),
        "PNG, 10900 x 10900, grey, 1 bit": png(10900, 10900, rows=10900, colour=0, depth=1),
        "PNG, 10900 x 10900, 16 bit with alpha": png(10900, 10900, rows=200, colour=6, depth=16),
        "PNG, 119000000 x 1": png(119_000_000, 1, rows=1),
        "PNG, 200 MB of text": text_bomb(),
        "JPEG, progressive, 65500 x 65500": big,
        "JPEG, progressive, 10900 x 10900": under,
        "WebP, 16383 x 16383": webp_max,
        "WebP, canvas of 2^24": b"RIFF" + struct.pack("<I", len(riff)) + riff,
        "BMP, 10900 x 10900": bmp_big,
        "BMP, 2^31": bmp_negative,
        "TIFF, 10900 x 10900, deflated": tiff(10900, 10900, rows_per_strip=10900, compression=8, data=deflated),
        "TIFF, 2^31 rows a strip": tiff(4000, 4000, rows_per_strip=2**31, compression=8, data=deflated),
        "TIFF, strip of 4 GB": tiff(4000, 4000, rows_per_strip=4000, compression=1, data=bytes(100), extra=2**32 - 200),
        "GIF": b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(100),
        "zeros": bytes(1 << 20),
    }


def measure(data: bytes) -> dict[str, Any]:
    """What became of a file in a process of its own; memory in MB, time in milliseconds."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            began, wall = time.process_time(), time.perf_counter()
            try:
                pixels = load_image(data).pixels.shape
                what = f"decoded {pixels}"
            except ImageError as e:
                what = f"refused: {type(e).__name__}"
            cpu, wall = (time.process_time() - began) * 1000, (time.perf_counter() - wall) * 1000
            os.write(writing, f"{cpu:.2f}\n{wall:.2f}\n{what}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read().decode().split("\n")
    _, status, usage = os.wait4(pid, 0)
    died = status != 0 or len(text) < 3
    return {
        "bytes": len(data),
        "most MB": round(usage.ru_maxrss / 1024, 1),
        "cpu ms": float(text[0]) if not died else -1,
        "wall ms": float(text[1]) if not died else -1,
        "outcome": "DIED" if died else text[2],
    }


def batch(seed: int, n: int) -> dict[str, Any]:
    """The whole corpus, once."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
        return fresh.submit(_batch, n).result()


def _batch(n: int) -> dict[str, Any]:
    load_image(world.photo(0))  # what every process has loaded anyway
    load_opencv()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    results = {name: measure(data) for name, data in corpus().items()}
    heavy = [name for name, r in results.items() if r["most MB"] > MOST_MB or r["outcome"] == "DIED"]
    refused = [r for r in results.values() if r["outcome"].startswith("refused")]
    return {
        "n": n,
        "files": results,
        "MB of the process before": round(before, 1),
        "most MB of one": max(r["most MB"] for r in results.values()),
        "most cpu ms to refuse one": max(r["cpu ms"] for r in refused),
        "lost or wrong": len(heavy),
        "found": heavy,
    }
