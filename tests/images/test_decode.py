"""Photos of every kind come out upright, 8-bit RGB; everything else is refused with a clear error."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from delf_edge.errors import ImageDecodeError, ImageError, ImageTooLargeError, OptionError
from delf_edge.images.decode import ImageLimits, content_hash, load_image, read_photo
from delf_edge.images.headers import probe_size
from testing.paths import FIXTURES

# 8 x 6 px, uniform C = M = Y = K = 100 of 255, saved by Pillow with an Adobe marker (inverted inks).
CMYK = (FIXTURES / "cmyk.jpg").read_bytes()


def scene(width: int = 96, height: int = 64) -> np.ndarray:
    """RGB whose four corners differ: red, green, blue, white."""
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[: height // 2, : width // 2] = (220, 30, 30)
    rgb[: height // 2, width // 2 :] = (30, 220, 30)
    rgb[height // 2 :, : width // 2] = (30, 30, 220)
    rgb[height // 2 :, width // 2 :] = (230, 230, 230)
    return rgb


def encode(rgb: np.ndarray, ext: str, *params: int) -> bytes:
    ok, data = cv2.imencode(ext, rgb[..., ::-1] if rgb.ndim == 3 and rgb.shape[2] == 3 else rgb, list(params))
    assert ok
    return bytes(data)


def exif_tiff(orientation: int) -> bytes:
    return b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 274, 3, 1, orientation, 0, 0)


def with_exif(jpeg: bytes, orientation: int) -> bytes:
    block = b"Exif\0\0" + exif_tiff(orientation)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]


def as_stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """How a camera stores what looks like `upright` (EXIF: row 0 and column 0 are these sides of the scene)."""
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),  # shown after turning it 90 degrees clockwise
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    return np.ascontiguousarray(stored)


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def huge_png(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    idat = png_chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + idat + png_chunk(b"IEND", b"")


FORMATS = {".jpg": "JPEG", ".png": "PNG", ".webp": "WebP", ".bmp": "BMP", ".tiff": "TIFF"}


@pytest.mark.parametrize(("ext", "name"), FORMATS.items())
def test_every_format_is_probed_and_decoded_to_rgb(ext: str, name: str) -> None:
    data = encode(scene(), ext)
    assert probe_size(data) == (96, 64, name)
    image = load_image(data)
    assert image.pixels.dtype == np.uint8
    assert image.size == image.original_size == (96, 64)
    assert np.abs(image.pixels.astype(int) - scene()).mean() < 6
    assert not image.pixels.flags.writeable


@pytest.mark.parametrize("lossless", [75, 101])
def test_webp_headers_of_both_kinds(lossless: int) -> None:
    assert probe_size(encode(scene(90, 50), ".webp", cv2.IMWRITE_WEBP_QUALITY, lossless)) == (90, 50, "WebP")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(orientation: int) -> None:
    stored = as_stored(scene(), orientation)
    image = load_image(with_exif(encode(stored, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 98), orientation))
    assert image.size == image.original_size == (96, 64)
    assert np.abs(image.pixels.astype(int) - scene()).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once_when_decoding_at_reduced_size(orientation: int) -> None:
    stored = as_stored(scene(960, 640), orientation)
    image = load_image(with_exif(encode(stored, ".jpg"), orientation), limits=ImageLimits(decode_max_side=400))
    assert image.size == (480, 320)
    assert image.original_size == (960, 640)
    assert np.abs(image.pixels.astype(int) - scene(480, 320)).mean() < 4


def test_exif_orientation_of_png_and_webp() -> None:
    stored = as_stored(scene(), 6)
    png = encode(stored, ".png")
    at = 8 + 25  # behind IHDR
    image = load_image(png[:at] + png_chunk(b"eXIf", exif_tiff(6)) + png[at:])
    np.testing.assert_array_equal(image.pixels, scene())
    vp8l = encode(stored, ".webp", cv2.IMWRITE_WEBP_QUALITY, 101)[12:]
    height, width = stored.shape[:2]
    vp8x = (
        b"VP8X" + struct.pack("<IB3x", 10, 8) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    )
    body = b"WEBP" + vp8x + vp8l + b"EXIF" + struct.pack("<I", len(exif_tiff(6))) + exif_tiff(6)
    image = load_image(b"RIFF" + struct.pack("<I", len(body)) + body)
    np.testing.assert_array_equal(image.pixels, scene())


def test_damaged_exif_is_ignored() -> None:
    jpeg = with_exif(encode(scene(), ".jpg"), 6)
    damaged = jpeg.replace(exif_tiff(6)[:8], b"II*\0\xff\xff\xff\x7f")
    assert damaged != jpeg
    assert load_image(damaged).size == (96, 64)
    assert load_image(with_exif(encode(scene(), ".jpg"), 77)).size == (96, 64)


@pytest.mark.parametrize(
    ("side", "expected"), [(1279, 1279), (2559, 2559), (2560, 1280), (5119, 2560), (5120, 1280), (10240, 1280)]
)
def test_large_jpegs_decode_at_reduced_size_but_never_below_the_wanted_side(side: int, expected: int) -> None:
    image = load_image(encode(np.full((16, side, 3), 90, np.uint8), ".jpg"))
    assert image.size[0] == expected
    assert image.original_size == (side, 16)


def test_grey_palette_and_alpha() -> None:
    grey = scene()[..., 0]
    np.testing.assert_array_equal(load_image(encode(grey, ".png")).pixels, np.repeat(grey[..., None], 3, 2))
    bgra = np.dstack([scene()[..., ::-1], np.zeros((64, 96), np.uint8)])
    np.testing.assert_array_equal(load_image(encode(bgra, ".png")).pixels, scene())  # transparency is ignored
    assert load_image(encode(grey, ".jpg")).pixels.shape == (64, 96, 3)


@pytest.mark.parametrize("ext", [".png", ".tiff"])
def test_16_bit_becomes_8_bit(ext: str) -> None:
    image = load_image(encode(scene().astype(np.uint16) * 257, ext))
    np.testing.assert_array_equal(image.pixels, scene())
    assert load_image(encode(scene()[..., 0].astype(np.uint16) * 257, ext)).pixels.dtype == np.uint8


def test_cmyk_jpeg() -> None:
    assert probe_size(CMYK) == (8, 6, "JPEG")
    image = load_image(CMYK)
    expected = (255 - 100) * (255 - 100) / 255
    assert image.size == (8, 6)
    assert np.abs(image.pixels.astype(float) - expected).max() < 6


@pytest.mark.parametrize("ext", FORMATS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_files_are_refused_in_silence(ext: str, share: float, capfd: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    data = encode(rng.integers(0, 255, (64, 96, 3), dtype=np.uint8), ext)
    with pytest.raises(ImageDecodeError):
        load_image(data[: int(len(data) * share)])
    assert capfd.readouterr() == ("", "")


def test_truncated_jpeg_with_a_complete_thumbnail_is_refused() -> None:
    thumbnail = encode(scene(16, 16), ".jpg")
    block = b"Exif\0\0" + exif_tiff(1) + thumbnail
    jpeg = encode(scene(), ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    jpeg = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]
    assert load_image(jpeg).size == (96, 64)
    with pytest.raises(ImageDecodeError, match="cut off"):
        load_image(jpeg[:-200])


def test_bytes_behind_the_end_do_no_harm() -> None:
    assert load_image(encode(scene(), ".jpg") + b"trailer of a phone").size == (96, 64)


def test_png_with_a_flipped_bit_is_refused_in_silence(capfd: pytest.CaptureFixture[str]) -> None:
    data = bytearray(encode(scene(), ".png"))
    data[len(data) // 2] ^= 1
    with pytest.raises(ImageDecodeError, match="checksum"):
        load_image(bytes(data))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"hello, this is a text file\n" * 10, "text, beginning with 'hello"),
        (b"GIF89a" + bytes(20), "GIF"),
        (b"\0\0\0\x18ftypheic" + bytes(20), "heic"),
        (b"%PDF-1.7", "PDF"),
        (bytes(range(256)), "not an image"),
        (b"\xff\xd8\xff", "no frame header"),
        (b"\x89PNG\r\n\x1a\n", "header is cut off"),
        (b"RIFF\0\0\0\0WAVEfmt ", "not a WebP"),
        (b"BM", "cut off"),
        (b"II*\0\x08\0\0\0", "cut off"),
        (b"II*\0\x08\0\0\0\0\0", "0 x 0"),
    ],
)
def test_other_files_are_named_and_refused(data: bytes, message: str) -> None:
    with pytest.raises(ImageDecodeError, match=message):
        load_image(data)


def test_a_header_that_declares_too_much_is_refused_without_decoding() -> None:
    with pytest.raises(ImageTooLargeError, match="30000 x 30000"):
        load_image(huge_png(30000, 30000))
    # The same file below the cap is decoded, and found to be cut off: so it was the header that refused it.
    with pytest.raises(ImageDecodeError):
        load_image(huge_png(300, 300))
    with pytest.raises(ImageTooLargeError, match="raise ImageLimits"):
        load_image(encode(scene(), ".jpg"), limits=ImageLimits(max_pixels=96 * 64 - 1))
    with pytest.raises(ImageTooLargeError, match="bytes"):
        load_image(encode(scene(), ".jpg"), limits=ImageLimits(max_bytes=100))


@pytest.mark.parametrize("ext", FORMATS)
def test_one_pixel(ext: str) -> None:
    image = load_image(encode(np.full((1, 1, 3), 77, np.uint8), ext))
    assert image.pixels.shape == (1, 1, 3)
    assert np.abs(image.pixels.astype(int) - 77).max() < 4


def test_arrays() -> None:
    rgb = scene()
    image = load_image(rgb, channel_order="RGB")
    np.testing.assert_array_equal(load_image(rgb[..., ::-1], channel_order="BGR").pixels, rgb)
    np.testing.assert_array_equal(load_image(rgb[..., 1]).pixels[..., 2], rgb[..., 1])
    rgb[:] = 0  # the caller's array stays writable, and is not ours
    assert image.pixels.max() == 230
    assert rgb.flags.writeable


@pytest.mark.parametrize(
    ("array", "order", "error"),
    [
        (np.zeros((4, 4, 3), np.uint8), None, OptionError),
        (np.zeros((4, 4, 3), np.uint8), "GBR", OptionError),
        (np.zeros((4, 4), np.uint8), "RGB", OptionError),
        (np.zeros((4, 4, 3), np.float32), "RGB", ImageError),
        (np.zeros((4, 4, 4), np.uint8), "RGB", ImageError),
        (np.zeros((0, 4, 3), np.uint8), "RGB", ImageError),
        (np.zeros(4, np.uint8), None, ImageError),
        (b"\xff\xd8\xff", "RGB", OptionError),
        (17, None, ImageError),
    ],
)
def test_unusable_arrays(array: object, order: str | None, error: type[Exception]) -> None:
    with pytest.raises(error):
        load_image(array, channel_order=order)  # type: ignore[arg-type]


def test_paths(tmp_path: Path) -> None:
    photo = tmp_path / "grüße.jpg"
    photo.write_bytes(encode(scene(), ".jpg"))
    assert load_image(photo).size == load_image(str(photo)).size == (96, 64)
    assert read_photo(photo) == photo.read_bytes()
    with pytest.raises(ImageError, match="does not exist"):
        load_image(tmp_path / "absent.jpg")
    with pytest.raises(ImageError, match="is a folder"):
        load_image(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match="device or pipe"):
        load_image(tmp_path / "pipe")
    with pytest.raises(ImageError, match="cannot be read"):
        load_image("a\0b")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"text")
    with pytest.raises(ImageDecodeError, match=r"broken\.jpg"):
        load_image(broken)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_forbidden_path(tmp_path: Path) -> None:
    photo = tmp_path / "a.jpg"
    photo.write_bytes(b"x")
    photo.chmod(0)
    with pytest.raises(ImageError, match="permissions"):
        load_image(photo)


def test_content_hash(tmp_path: Path) -> None:
    data = encode(scene(), ".jpg")
    (tmp_path / "a.jpg").write_bytes(data)
    assert content_hash(tmp_path / "a.jpg") == content_hash(data)
    assert len(content_hash(data)) == 32
    rgb = content_hash(scene(), channel_order="RGB")
    assert rgb == content_hash(np.asfortranarray(scene()), channel_order="RGB")
    assert rgb != content_hash(scene(), channel_order="BGR")
    assert content_hash(np.zeros((2, 8), np.uint8)) != content_hash(np.zeros((4, 4), np.uint8))
    with pytest.raises(OptionError):
        content_hash(scene())


def test_limits_are_checked() -> None:
    with pytest.raises(OptionError, match="decode_max_side"):
        ImageLimits(decode_max_side=0)
