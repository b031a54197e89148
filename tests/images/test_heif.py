"""HEIC and AVIF: what phones make goes through the same door as every other photo, with all its limits."""

from __future__ import annotations

import io
import struct
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from delf_edge.errors import ImageDecodeError, ImageTooLargeError
from delf_edge.images.decode import content_hash, load_image
from delf_edge.images.headers import probe_size
from delf_edge.images.limits import ImageLimits

PIL = pytest.importorskip("PIL.Image")
pillow_heif = pytest.importorskip("pillow_heif")


def picture(width: int = 160, height: int = 96) -> np.ndarray:
    """RGB, red at the left, blue at the right, brighter downwards."""
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[:, : width // 2, 0] = rgb[:, width // 2 :, 2] = np.linspace(90, 250, height).astype(np.uint8)[:, None]
    return rgb


def heic(rgb: np.ndarray, **options: object) -> bytes:
    out = io.BytesIO()
    pillow_heif.from_pillow(PIL.fromarray(rgb)).save(out, quality=90, **options)
    return out.getvalue()


def avif(rgb: np.ndarray, **options: object) -> bytes:
    out = io.BytesIO()
    PIL.fromarray(rgb).save(out, "AVIF", quality=90, **options)
    return out.getvalue()


@pytest.mark.parametrize(("make", "kind"), [(heic, "HEIC"), (avif, "AVIF")])
def test_it_is_probed_without_a_decoder_and_decoded_to_rgb(make: object, kind: str, tmp_path: Path) -> None:
    data = make(picture())  # type: ignore[operator]
    assert probe_size(data) == (160, 96, kind)
    image = load_image(data)
    assert image.original_size == (160, 96)
    assert np.abs(image.pixels.astype(int) - picture()).mean() < 6
    file = tmp_path / "IMG_0001.HEIC"
    file.write_bytes(data)
    assert np.array_equal(load_image(file).pixels, image.pixels)
    assert content_hash(file) == content_hash(data)


def test_a_grid_of_tiles_has_the_size_of_the_whole() -> None:
    """As phones make them: 512-pixel tiles under one picture."""
    data = heic(picture(1200, 700), tile_size=512)
    assert probe_size(data)[:2] == (1200, 700)
    assert load_image(data).size == (1200, 700)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("make", [heic, avif])
def test_a_turned_photo_comes_out_upright_once(make: object, orientation: int) -> None:
    exif = PIL.Exif()
    exif[274] = orientation
    image = load_image(make(picture(), exif=exif.tobytes()))  # type: ignore[operator]
    expected = PIL.fromarray(picture())
    turned = {3: 3, 6: 4, 8: 2, 2: 0, 4: 1, 5: 5, 7: 6}.get(orientation)
    if turned is not None:
        method = {3: PIL.Transpose.ROTATE_180, 4: PIL.Transpose.ROTATE_270, 2: PIL.Transpose.ROTATE_90}
        method |= {0: PIL.Transpose.FLIP_LEFT_RIGHT, 1: PIL.Transpose.FLIP_TOP_BOTTOM}
        method |= {5: PIL.Transpose.TRANSPOSE, 6: PIL.Transpose.TRANSVERSE}
        expected = expected.transpose(method[turned])
    assert image.size == expected.size
    assert np.abs(image.pixels.astype(int) - np.asarray(expected)).mean() < 8


def test_grey_transparent_and_ten_bit_become_rgb() -> None:
    grey = load_image(heic(picture()[..., 0]))
    assert grey.pixels.shape == (96, 160, 3)
    assert np.array_equal(grey.pixels[..., 0], grey.pixels[..., 2])
    rgba = np.dstack([picture(), np.full((96, 160), 40, np.uint8)])
    for make in (heic, avif):
        assert np.abs(load_image(make(rgba)).pixels.astype(int) - picture()).mean() < 8
    deep = pillow_heif.from_bytes("RGB;16", (160, 96), (picture().astype(np.uint16) * 257).tobytes())
    out = io.BytesIO()
    deep.save(out, quality=90)
    assert np.abs(load_image(out.getvalue()).pixels.astype(int) - picture()).mean() < 8


@pytest.mark.parametrize("make", [heic, avif])
def test_all_limits_hold_before_it_is_decoded(make: object) -> None:
    data = make(picture())  # type: ignore[operator]
    with pytest.raises(ImageTooLargeError, match="160 x 96"):
        load_image(data, limits=ImageLimits(max_pixels=160 * 96 - 1))
    with pytest.raises(ImageTooLargeError, match="bytes"):
        load_image(data, limits=ImageLimits(max_bytes=len(data) - 1))
    at = data.index(b"ispe") + 8
    huge = data[:at] + struct.pack(">II", 30_000, 30_000) + data[at + 8 :]
    with pytest.raises(ImageTooLargeError, match="30000 x 30000"):
        load_image(huge)
    dense = data[:at] + struct.pack(">II", 8_000, 8_000) + data[at + 8 :]
    with pytest.raises(ImageTooLargeError, match="a byte"):
        load_image(dense)


@pytest.mark.parametrize("make", [heic, avif])
def test_a_file_cut_short_or_damaged_is_refused_in_silence(make: object, capfd: pytest.CaptureFixture[str]) -> None:
    data = make(picture())  # type: ignore[operator]
    for share in (0.05, 0.3, 0.6, 0.95):
        with pytest.raises(ImageDecodeError):
            load_image(data[: int(len(data) * share)])
    with pytest.raises(ImageDecodeError):
        load_image(data[:-1])
    rng = np.random.default_rng(0)
    for _ in range(60):
        bad = bytearray(data)
        for at in rng.integers(0, len(bad), 8):
            bad[at] ^= 1 << int(rng.integers(8))
        with suppress(ImageDecodeError, ImageTooLargeError):
            load_image(bytes(bad))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("make", "package"), [(heic, "pillow_heif"), (avif, "PIL")])
def test_without_the_extra_the_error_says_what_to_install(
    make: object, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make(picture())  # type: ignore[operator]
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImageDecodeError, match=r"delf-edge\[heif\]"):
        load_image(data)


def test_a_video_and_a_raw_picture_in_the_same_container_are_named() -> None:
    box = struct.pack(">I4s4sI4s", 20, b"ftyp", b"isom", 0, b"mp41")
    with pytest.raises(ImageDecodeError, match="a video; JPEG, PNG"):
        load_image(box + bytes(40))
    with pytest.raises(ImageDecodeError, match="a camera's RAW picture"):
        load_image(struct.pack(">I4s4sI4s", 20, b"ftyp", b"crx ", 0, b"isom") + bytes(40))
