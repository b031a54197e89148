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
from delf_edge.images.decode import content_hash, load_image
from delf_edge.images.headers import is_streamed, probe_size
from delf_edge.images.limits import DEFAULT_LIMITS, ImageLimits, check_header
from delf_edge.images.photo_source import read_photo
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


def png_chunk(name: bytes, content: bytes, checksum: int | None = None) -> bytes:
    sound = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", sound if checksum is None else checksum)


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
        (b"\0\0\0\x18ftypheic" + bytes(20), "HEIC holds no still picture"),
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
        (np.zeros((4, 4, 5), np.uint8), "RGB", ImageError),
        (np.zeros((4, 4, 2), np.uint8), "RGB", ImageError),
        (np.zeros((4, 4, 4), np.uint8), None, OptionError),
        (np.zeros((4, 4, 1), np.uint8), "RGB", OptionError),
        (None, None, ImageError),
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


@pytest.mark.parametrize("name", [b"tEXt", b"eXIf", b"iCCP", b"tIME", b"zTXt", b"acTL", b"prVt"])
def test_a_png_whose_comment_is_damaged_is_read_without_it(name: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    sound = encode(scene(), ".png")
    content = b"Comment\0made on a bad day" if name != b"eXIf" else exif_tiff(6)
    damaged = sound[:33] + png_chunk(name, content, 0xBAD) + sound[33:]
    np.testing.assert_array_equal(load_image(damaged).pixels, scene())
    at_the_end = sound[:-12] + png_chunk(name, content, 0xBAD) + sound[-12:]
    np.testing.assert_array_equal(load_image(at_the_end).pixels, scene())
    assert capfd.readouterr().err == ""


def test_a_png_whose_picture_is_damaged_is_refused_as_before() -> None:
    sound = encode(scene(), ".png")
    at = sound.index(b"IDAT")
    with pytest.raises(ImageDecodeError, match="IDAT"):
        load_image(sound[: at + 20] + bytes([sound[at + 20] ^ 1]) + sound[at + 21 :])


def tiff(bits: int, sample_format: int, order: str = "<", *, big: bool = False, **more: int) -> bytes:
    """A TIFF of 4 x 2 grey samples, zeros."""
    mark = {"<": b"II", ">": b"MM"}[order]
    tags = {256: 4, 257: 2, 258: bits, 259: 1, 262: 1, 273: 0, 277: 1, 278: 2, 279: bits, 339: sample_format}
    tags |= {int(k.removeprefix("t")): v for k, v in more.items()}
    size = (16 + 8 + 20 * len(tags) + 8) if big else (8 + 2 + 12 * len(tags) + 4)
    tags[273] = size
    if big:
        head = mark + struct.pack(order + "HHHQQ", 43, 8, 0, 16, len(tags))
        rows = [struct.pack(order + "HHQHHI", k, 3, 1, v, 0, 0) for k, v in sorted(tags.items())]
        return head + b"".join(rows) + bytes(8) + bytes(bits)
    head = mark + struct.pack(order + "HIH", 42, 8, len(tags))
    rows = [struct.pack(order + "HHIHH", k, 3, 1, v, 0) for k, v in sorted(tags.items())]
    return head + b"".join(rows) + bytes(4) + bytes(bits)


@pytest.mark.parametrize("where", [1 << 20, 1 << 31, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_a_big_tiff_whose_directory_lies_nowhere(where: int) -> None:
    """Found by atheris: an offset of more than 63 bits was an OverflowError."""
    data = b"II+\0\x08\0\0\0" + struct.pack("<Q", where) + bytes(64)
    with pytest.raises(ImageDecodeError, match="the header is cut off after 80 bytes"):
        load_image(data)
    jpeg = encode(scene(), ".jpg")
    exif = b"Exif\0\0" + data
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    assert load_image(jpeg[:2] + segment + jpeg[2:]).size == load_image(jpeg).size


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_tiff_and_big_tiff_of_both_byte_orders(order: str, big: bool) -> None:
    data = tiff(8, 1, order, big=big)
    assert probe_size(data) == (4, 2, "TIFF")
    assert load_image(data).pixels.shape == (2, 4, 3)
    with pytest.raises(ImageTooLargeError, match="4 x 2"):
        load_image(data, limits=ImageLimits(max_pixels=7))
    with pytest.raises(ImageDecodeError):
        probe_size(data[:30])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_whose_numbers_cannot_be_colours_says_so(
    order: str, big: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ImageDecodeError, match=r"TIFF holds 32-bit floating-point numbers; .*save it again"):
        load_image(tiff(32, 3, order, big=big))
    with pytest.raises(ImageDecodeError, match="32 bits a colour"):
        load_image(tiff(32, 1, order, big=big))
    assert capfd.readouterr().err == ""
    colours = cv2.imencode(".tif", scene().astype(np.float32))[1].tobytes()  # three numbers a tag, not one
    with pytest.raises(ImageDecodeError, match="32-bit floating-point"):
        load_image(colours)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "a JPEG 2000"),
        (b"\xff\x4f\xff\x51" + bytes(40), "a JPEG 2000"),
        (b"\xff\x0a" + bytes(40), "a JPEG XL"),
        (b"FUJIFILMCCD-RAW " + bytes(40), "a camera's RAW picture"),
        (b"IIU\0" + bytes(40), "a camera's RAW picture"),
        (tiff(8, 1, t50706=1), "a camera's RAW picture"),
        (tiff(8, 1, t254=1, t330=8), "a camera's RAW picture"),
        (b"II*\0\x10\0\0\0CR\x02\0" + bytes(40), "a camera's RAW picture"),
        (b"8BPS" + bytes(40), "a Photoshop picture"),
        (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"GIF89a" + bytes(40), "a GIF"),
        (b"PK\x03\x04" + bytes(40), "a ZIP archive"),
    ],
)
def test_pictures_that_are_not_read_are_named_with_what_to_do(data: bytes, name: str) -> None:
    with pytest.raises(ImageDecodeError, match=rf"^the photo: {name}; .*convert it to JPEG"):
        load_image(data)


def test_an_ordinary_tiff_with_a_preview_is_no_raw_picture() -> None:
    assert load_image(tiff(8, 1, t330=8)).size == (4, 2)


def blank_jpeg(width: int, height: int, *, progressive: bool = False, size: int = 10_000_000) -> bytes:
    """The header of a JPEG with enough bytes behind it, so that only its pixels are too many."""
    small = encode(scene(), ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive))
    at = small.index(b"\xff\xc2" if progressive else b"\xff\xc0") + 5
    return small[:at] + struct.pack(">HH", height, width) + small[at + 4 :] + bytes(size)


def test_a_jpeg_that_is_decoded_reduced_may_have_four_times_as_many_pixels() -> None:
    large = scene(3000, 2000)
    data = encode(large, ".jpg")
    image = load_image(data, limits=ImageLimits(max_pixels=1_500_000, decode_max_side=700))
    assert (image.size, image.original_size) == ((750, 500), (3000, 2000))
    with pytest.raises(ImageTooLargeError, match=r"the cap is 5\.9"):
        load_image(data, limits=ImageLimits(max_pixels=1_499_999 - 20_000, decode_max_side=700))
    with pytest.raises(ImageTooLargeError, match="--max-megapixels"):  # it would be decoded whole
        load_image(data, limits=ImageLimits(max_pixels=1_500_000, decode_max_side=3000))
    for kept_whole in (encode(large, ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1), encode(large, ".png")):
        with pytest.raises(ImageTooLargeError, match=r"the cap is 1\.5"):
            load_image(kept_whole, limits=ImageLimits(max_pixels=1_500_000, decode_max_side=700))


def test_photos_of_200_megapixels_and_panoramas_pass_the_caps_and_bombs_do_not() -> None:
    for width, height in ((16320, 12240), (30000, 5000), (27000, 17000)):
        assert check_header(blank_jpeg(width, height), "x", DEFAULT_LIMITS) == (width, height, "JPEG")
    for data in (blank_jpeg(27000, 18000), blank_jpeg(16320, 12240, progressive=True)):
        with pytest.raises(ImageTooLargeError, match="the cap is"):
            check_header(data, "x", DEFAULT_LIMITS)
    progressive = blank_jpeg(16320, 12240, progressive=True)
    with pytest.raises(ImageTooLargeError, match=r"jpegtran .* \(--max-megapixels 200\)"):
        check_header(progressive, "x", DEFAULT_LIMITS)
    assert check_header(progressive, "x", ImageLimits(max_pixels=200_000_000)).width == 16320
    with pytest.raises(ImageTooLargeError, match="a byte"):
        check_header(blank_jpeg(16320, 12240, size=1_000_000), "x", DEFAULT_LIMITS)


def test_a_jpeg_that_codes_each_colour_by_itself_is_kept_whole_and_counted_so() -> None:
    data = bytearray(encode(scene(), ".jpg"))
    assert is_streamed(bytes(data))
    data[data.index(b"\xff\xda") + 4] = 1
    assert not is_streamed(bytes(data))
    assert not is_streamed(b"")
    assert not is_streamed(encode(scene(), ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1))
    assert is_streamed(encode(scene()[..., 0], ".jpg"))


@pytest.mark.parametrize("wrong", [0, -1, 2.5, True, "12", None])
def test_limits_are_whole_numbers(wrong: object) -> None:
    with pytest.raises(OptionError, match="max_pixels"):
        ImageLimits(max_pixels=wrong)  # type: ignore[arg-type]
