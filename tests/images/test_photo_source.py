"""What people pass as a photo: files that are open, Pillow images, arrays with transparency, and what is none."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from delf_edge.errors import ImageDecodeError, ImageError, ImageTooLargeError, OptionError
from delf_edge.images.decode import content_hash, load_image
from delf_edge.images.limits import ImageLimits
from delf_edge.images.photo_source import read_source


def scene() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (12, 20, 3)).astype(np.uint8)


def png() -> bytes:
    return cv2.imencode(".png", scene()[..., ::-1])[1].tobytes()


def test_an_open_file_is_read_from_where_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"head" + png())
    with file.open("rb") as f:
        f.seek(4)
        np.testing.assert_array_equal(load_image(f).pixels, scene())
        assert f.read() == b""
    assert content_hash(io.BytesIO(png())) == content_hash(png())
    with pytest.raises(ImageTooLargeError, match="cap"):
        load_image(io.BytesIO(png()), limits=ImageLimits(max_bytes=100))
    with pytest.raises(ImageDecodeError, match="empty"):
        load_image(io.BytesIO(b""))


def test_a_file_that_gives_little_at_a_time_is_read_to_its_end() -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(7, size or 0))

    np.testing.assert_array_equal(load_image(Slow(png())).pixels, scene())


def test_a_file_open_as_text_or_closed_is_an_error_that_says_so() -> None:
    with pytest.raises(ImageError, match="mode 'rb'"):
        load_image(io.StringIO("no photo"))  # type: ignore[arg-type]
    closed = io.BytesIO(png())
    closed.close()
    with pytest.raises(ImageError, match="cannot be read"):
        load_image(closed)


def test_transparency_of_arrays_is_dropped_and_one_channel_is_grey() -> None:
    rgba = np.dstack([scene(), np.arange(240, dtype=np.uint8).reshape(12, 20)])
    np.testing.assert_array_equal(load_image(rgba, channel_order="RGB").pixels, scene())
    np.testing.assert_array_equal(load_image(rgba[..., [2, 1, 0, 3]], channel_order="BGR").pixels, scene())
    assert content_hash(rgba, channel_order="RGB") == content_hash(scene(), channel_order="RGB")
    grey = scene()[..., :1]
    np.testing.assert_array_equal(load_image(grey).pixels, load_image(grey[..., 0]).pixels)
    assert content_hash(grey) == content_hash(grey[..., 0])


def test_what_cv2_reads_is_accepted_and_what_it_cannot_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(png())
    np.testing.assert_array_equal(load_image(cv2.imread(str(file)), channel_order="BGR").pixels, scene())
    with pytest.raises(ImageError, match=r"cv2\.imread gives None"):
        load_image(cv2.imread(str(tmp_path / "none.png")))
    with pytest.raises(ImageError, match=r"cv2\.imread gives None"):
        load_image(None, channel_order="BGR")


@pytest.mark.parametrize("wrong", [3, 2.5, [1, 2], {"a": 1}, object()])
def test_anything_else_is_named(wrong: Any) -> None:
    with pytest.raises(ImageError, match=type(wrong).__name__):
        load_image(wrong)


Pillow = pytest.importorskip("PIL.Image")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr", "HSV", "RGBX"])
def test_pillow_images_of_every_mode(mode: str) -> None:
    image = Pillow.fromarray(scene()).convert(mode)
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(load_image(image).pixels, expected)
    assert content_hash(image) == content_hash(expected, channel_order="RGB")


def test_a_pillow_image_of_16_bit_is_scaled_and_one_without_a_range_is_refused() -> None:
    wide = Pillow.fromarray(scene()[..., 0].astype(np.uint16) * 257)
    np.testing.assert_array_equal(load_image(wide).pixels[..., 1], scene()[..., 0])
    for mode in ("I", "F"):
        with pytest.raises(ImageError, match=f"mode {mode}"):
            load_image(Pillow.fromarray(scene()).convert(mode))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_pillow_image_is_upright_as_its_file_would_be(orientation: int) -> None:
    exif = Pillow.Exif()
    exif[274] = orientation
    file = io.BytesIO()
    Pillow.fromarray(scene()).save(file, "PNG", exif=exif)
    file.seek(0)
    image = load_image(Pillow.open(file))
    np.testing.assert_array_equal(image.pixels, load_image(file.getvalue()).pixels)


def test_a_pillow_image_obeys_the_limits_and_knows_its_own_order() -> None:
    image = Pillow.fromarray(scene())
    with pytest.raises(ImageTooLargeError, match="20 x 12"):
        load_image(image, limits=ImageLimits(max_pixels=100))
    with pytest.raises(OptionError, match="Pillow image knows its own"):
        load_image(image, channel_order="RGB")
    with pytest.raises(ImageError, match="0 x 0"):
        load_image(Pillow.new("RGB", (0, 0)))
    cut = Pillow.open(io.BytesIO(png()[:200]))
    with pytest.raises(ImageError, match="Pillow cannot read"):
        load_image(cut)


def test_what_is_read_once_can_be_hashed_and_decoded() -> None:
    for source in (png(), io.BytesIO(png()), Pillow.fromarray(scene())):
        photo, order = read_source(source)
        np.testing.assert_array_equal(load_image(photo, channel_order=order).pixels, scene())
        assert len(content_hash(photo, channel_order=order)) == 32
