"""The proof as a picture: query and stored photo side by side, a line for each inlier, and the located outline."""

from __future__ import annotations

import os
import struct
import unicodedata
import zlib
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from delf_edge.errors import ImageError, OptionError
from delf_edge.files import write_atomically
from delf_edge.images.decode import content_hash, load_image
from delf_edge.images.photo_source import read_photo
from delf_edge.query.pipeline import Explanation
from delf_edge.types import Float64Array, UInt8Array

PANEL_HEIGHT = 480  # pixels; both photos are scaled to it
MAX_LINES = 120  # more than that hide the photos; every inlier keeps its dot
CAPTION_HEIGHT = 28  # pixels, above the photos
_GAP = 8
_INK, _PAPER, _EMPTY = (235, 235, 235), (24, 24, 24), (60, 60, 60)
_OUTLINE = (64, 224, 96)
_MARK = b"delf-edge: a picture of matched points"
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw(explanation: Explanation) -> UInt8Array:
    """Draw an explanation.

    The outline on the query is the frame of the stored photo, mapped by the transform that the inliers agree with;
    the outline on the stored photo is the frame of the query. An unknown photo gets no outline: nothing was located.
    Where the stored photo's file is gone, or has changed since it was stored, its points are drawn on an empty canvas
    and the caption says so.

    Returns:
        uint8 (H, W, 3), RGB.
    """
    answer = explanation.answer
    query = _to_panel(explanation.image.pixels)
    stored, note = _stored_panel(explanation)
    query_points = _scaled(explanation.query_keypoints, explanation.image.size, query)
    stored_points = _scaled(explanation.stored_keypoints, _stored_size(explanation), stored)
    _draw_outlines(explanation, query, stored)

    left = query.shape[1] + _GAP
    canvas = np.full((PANEL_HEIGHT + CAPTION_HEIGHT, left + stored.shape[1], 3), _PAPER, np.uint8)
    canvas[CAPTION_HEIGHT:, : query.shape[1]] = query
    canvas[CAPTION_HEIGHT:, left:] = stored
    _draw_lines(canvas, query_points + np.array([0, CAPTION_HEIGHT]), stored_points + np.array([left, CAPTION_HEIGHT]))
    name = answer.landmark or "unknown"
    write_caption(canvas, f"{name}  {answer.n_inliers} inliers, probability {answer.probability:.2f}", 0, left - _GAP)
    write_caption(canvas, note, left, canvas.shape[1])
    return canvas


def save_picture(picture: UInt8Array, path: str | os.PathLike[str]) -> None:
    """Write an RGB picture as .png or .jpg, with a mark by which `is_own_picture` knows it.

    It is written aside and renamed: a full disk leaves what was there before.

    Raises:
        OptionError: another suffix, or the folder does not exist, is full, or cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise OptionError(f"{path}: pictures are written as .png or .jpg, not as {path.suffix or 'a name without one'}")
    _, data = cv2.imencode(path.suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    try:
        write_atomically(path, _marked(data.tobytes()))
    except OSError as e:
        raise OptionError(f"{path}: cannot be written ({e.strerror})") from e


def is_own_picture(path: str | os.PathLike[str]) -> bool:
    """Whether `save_picture` made a file, so that nothing is lost if it does so again."""
    try:
        with open(path, "rb") as file:
            return _MARK in file.read(200)
    except OSError:
        return False


def _marked(data: bytes) -> bytes:
    """A PNG or JPEG with `_MARK` as its comment, at the place where such a file may have one."""
    if data.startswith(b"\x89PNG"):
        chunk = b"tEXt" + b"Software\0" + _MARK
        at = 33  # after the signature (8 bytes) and the first chunk (25)
        comment = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    else:
        at = 2  # after the mark of the start
        comment = b"\xff\xfe" + struct.pack(">H", len(_MARK) + 2) + _MARK
    return data[:at] + comment + data[at:]


def _to_panel(pixels: UInt8Array) -> UInt8Array:
    """A copy at `PANEL_HEIGHT`, at most twice as wide as high."""
    height, width = pixels.shape[:2]
    panel_width = min(max(round(width * PANEL_HEIGHT / height), 1), 2 * PANEL_HEIGHT)
    smaller = height > PANEL_HEIGHT
    resized = cv2.resize(
        pixels, (panel_width, PANEL_HEIGHT), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    )
    return np.ascontiguousarray(resized, np.uint8)


def _stored_size(explanation: Explanation) -> tuple[int, int]:
    """(width, height) that the stored keypoints refer to; (1, 1) where there is no stored photo."""
    return (1, 1) if explanation.stored is None else explanation.stored.size


def _stored_panel(explanation: Explanation) -> tuple[UInt8Array, str]:
    """The stored photo, or an empty canvas of its shape, and the caption above it."""
    stored = explanation.stored
    if stored is None:
        return np.full((PANEL_HEIGHT, PANEL_HEIGHT, 3), _EMPTY, np.uint8), "no stored photo to compare with"
    path = stored.metadata.get("path")
    if isinstance(path, str):
        try:
            data = read_photo(path)
            if content_hash(data) == stored.content_hash:
                return _to_panel(load_image(data).pixels), stored.name
            note = f"{stored.name} (its file has changed since it was stored)"
        except ImageError:
            note = f"{stored.name} (its file is gone)"
    else:
        note = f"{stored.name} (its file is not recorded)"
    width, height = stored.size
    panel_width = min(max(round(width * PANEL_HEIGHT / max(height, 1)), 1), 2 * PANEL_HEIGHT)
    return np.full((PANEL_HEIGHT, panel_width, 3), _EMPTY, np.uint8), note


def _scaled(points: NDArray[np.floating], size: tuple[int, int], panel: UInt8Array) -> Float64Array:
    """Points (P, 2) in pixels of an image of `size` (w, h), in pixels of the panel."""
    factor = np.array([panel.shape[1], panel.shape[0]]) / np.maximum(size, 1)
    return np.asarray((np.asarray(points, np.float64) + 0.5) * factor - 0.5)


def _draw_outlines(explanation: Explanation, query: UInt8Array, stored: UInt8Array) -> None:
    """The frame of either photo on the other, where a place was found."""
    verification = explanation.answer.verification
    if not explanation.answer.found or verification is None or not np.isfinite(verification.transform).all():
        return
    forward = np.vstack([verification.transform, [0, 0, 1]])
    if abs(np.linalg.det(forward)) < 1e-12:
        return
    sizes = explanation.image.size, _stored_size(explanation)
    for matrix, frame, other, panel in (
        (forward, sizes[0], sizes[1], stored),
        (np.linalg.inv(forward), sizes[1], sizes[0], query),
    ):
        width, height = frame
        corners = np.array([[0, 0, 1], [width - 1, 0, 1], [width - 1, height - 1, 1], [0, height - 1, 1]], np.float64)
        outline = _scaled((corners @ matrix.T)[:, :2], other, panel)
        outline = np.clip(outline, -30_000, 30_000)  # what OpenCV's fixed-point coordinates can hold
        cv2.polylines(panel, [np.rint(outline).astype(np.int32)], True, _OUTLINE, 3, cv2.LINE_AA)


def _draw_lines(canvas: UInt8Array, query: Float64Array, stored: Float64Array) -> None:
    """A dot at both ends of every inlier, and a line for up to `MAX_LINES` of them, evenly chosen."""
    ends = np.rint(np.hstack([query, stored])).astype(np.int32)
    colours = cv2.applyColorMap(np.linspace(0, 255, max(len(ends), 1)).astype(np.uint8)[:, None], cv2.COLORMAP_HSV)
    shown = set(np.linspace(0, len(ends) - 1, min(len(ends), MAX_LINES)).astype(int).tolist())
    for i, (x0, y0, x1, y1) in enumerate(ends.tolist()):
        colour = colours[i, 0].tolist()
        if i in shown:
            cv2.line(canvas, (x0, y0), (x1, y1), colour, 1, cv2.LINE_AA)
        cv2.circle(canvas, (x0, y0), 3, colour, -1, cv2.LINE_AA)
        cv2.circle(canvas, (x1, y1), 3, colour, -1, cv2.LINE_AA)


def write_caption(canvas: UInt8Array, text: str, left: int, right: int, baseline: int = 19) -> None:
    """A caption, shrunk to fit between two columns; OpenCV's font is sure to have ASCII letters only."""
    plain = (letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    text = "".join(plain).encode("ascii", "replace").decode()
    (width, _), _ = cv2.getTextSize(text, _FONT, 0.55, 1)
    scale = 0.55 * min(1.0, (right - left - 8) / max(width, 1))
    cv2.putText(canvas, text, (left + 4, baseline), _FONT, scale, _INK, 1, cv2.LINE_AA)
