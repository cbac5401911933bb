import io
import logging
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from det_coco import DataError, list_images, load_image
from det_coco.images import image_size


@pytest.fixture
def picture() -> Image.Image:
    y, x = np.mgrid[0:48, 0:64]
    return Image.fromarray(np.stack((x * 4, y * 5, (x + y) * 2), axis=2).astype(np.uint8))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_modes(tmp_path, picture, mode):
    path = tmp_path / "x.jpg"
    picture.convert(mode).save(path, quality=90)
    np.testing.assert_array_equal(load_image(path), np.asarray(Image.open(path).convert("RGB")))


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1"])
def test_png_modes(tmp_path, picture, mode):
    path = tmp_path / "x.png"
    picture.convert(mode).save(path)
    image = load_image(path)
    assert image.shape == (48, 64, 3)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, np.asarray(Image.open(path).convert("RGB")))


def test_sixteen_bit_grey_is_not_clipped(tmp_path):
    grey = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    Image.fromarray(grey).save(tmp_path / "x.png")
    np.testing.assert_array_equal(load_image(tmp_path / "x.png")[:, :, 1], np.arange(256).reshape(16, 16))


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, picture, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"x.{suffix}"
    picture.save(path, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    np.testing.assert_array_equal(load_image(path), expected)
    assert expected.shape[0] == (64 if orientation >= 5 else 48)


def test_size_differs_from_the_annotation_file(tmp_path, picture):
    path = tmp_path / "x.jpg"
    picture.save(path)
    assert load_image(path, size=(48, 64)).shape == (48, 64, 3)
    with pytest.raises(DataError, match=r"x.jpg is 64 x 48 pixels .* says 50 x 40"):
        load_image(path, size=(40, 50))
    with pytest.raises(DataError, match="Its height and width look swapped in the annotation file"):
        load_image(path, size=(64, 48))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(path, exif=exif)
    assert load_image(path, size=(64, 48)).shape == (64, 48, 3)
    with pytest.raises(DataError, match="turned by a quarter: its EXIF orientation was ignored"):
        load_image(path, size=(48, 64))


GREY = np.arange(0, 256, 4).reshape(8, 8)


@pytest.mark.parametrize(
    ("values", "expected", "said"),
    [
        (GREY.astype(np.uint16), GREY, "8 bits in a wider format, which stay as they are"),
        ((GREY * 16 + 7).astype(np.uint16), GREY, "12 bits in a wider format, which are divided by 16"),
        ((GREY * 256 + 99).astype(np.uint16), GREY, "values of 16 bits, which are divided by 256"),
        ((GREY * 16).astype(np.int32), GREY, "12 bits"),
        ((GREY * 256).astype(np.int32), GREY, "16 bits"),
        (GREY.astype(np.float32) / 255, GREY, "floating-point values from 0 to 1"),
        (GREY.astype(np.float32), GREY, "8 bits"),
    ],
)
def test_other_bit_depths_are_scaled_and_said_once(tmp_path, caplog, values, expected, said):
    for name in ("a.tif", "b.tif"):
        Image.fromarray(values).save(tmp_path / name)
    with caplog.at_level(logging.WARNING, "det_coco"):
        for name in ("a.tif", "b.tif"):
            np.testing.assert_array_equal(load_image(tmp_path / name), np.repeat(expected[:, :, None], 3, axis=2))
    assert len(caplog.records) == 1
    assert said in caplog.text


def test_twelve_bits_in_a_png_of_sixteen(tmp_path):
    Image.fromarray((GREY * 16).astype(np.uint16)).save(tmp_path / "x.png")
    np.testing.assert_array_equal(load_image(tmp_path / "x.png")[:, :, 0], GREY)


@pytest.mark.parametrize("value", [-1, 1 << 16, float("nan"), float("inf")])
def test_values_of_unknown_range_are_refused(tmp_path, value):
    kind = np.int32 if isinstance(value, int) else np.float32
    Image.fromarray(np.array([[0, value]], dtype=kind)).save(tmp_path / "x.tif")
    with pytest.raises(DataError, match=r"x.tif has grey values from .* Convert it to 8 or 16 bits"):
        load_image(tmp_path / "x.tif")


def test_more_pixels_than_pillow_opens(tmp_path, monkeypatch):
    Image.new("1", (14000, 14000)).save(tmp_path / "x.png")
    with pytest.raises(DataError, match=r"has more pixels than Pillow opens.*DET_MAX_PIXELS"):
        load_image(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    Image.new("L", (40, 40)).save(tmp_path / "y.png")
    with pytest.raises(DataError, match="DET_MAX_PIXELS"):
        load_image(tmp_path / "y.png")
    monkeypatch.setenv("DET_MAX_PIXELS", "1600")
    assert load_image(tmp_path / "y.png").shape == (40, 40, 3)
    monkeypatch.setenv("DET_MAX_PIXELS", "many")
    with pytest.raises(DataError, match="DET_MAX_PIXELS must be a number of pixels, got 'many'"):
        load_image(tmp_path / "y.png")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0", "it is a HEIC picture; convert it"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", "it is a video"),
        (b"\0" * 128 + b"DICM", "it is a DICOM file"),
        (b"%PDF-1.7", "it is a PDF file"),
        (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS; run `git lfs pull`"),
        (b"<!DOCTYPE html><html>404</html>", "a web page, so its download failed"),
    ],
)
def test_the_true_reason_is_said(tmp_path, data, message):
    (tmp_path / "x.jpg").write_bytes(data)
    with pytest.raises(DataError, match=message):
        load_image(tmp_path / "x.jpg")


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.6, 0.98])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_truncated(tmp_path, picture, kind, share):
    data = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(data, kind)
    path = tmp_path / "broken.jpg"
    path.write_bytes(data.getvalue()[: int(share * len(data.getvalue()))])
    with pytest.raises(DataError, match=r"broken.jpg"):
        load_image(path)


def test_no_picture(tmp_path):
    (tmp_path / "x.jpg").write_text("hello")
    with pytest.raises(DataError, match=r"x.jpg cannot be read: .*damaged, truncated or no picture"):
        load_image(tmp_path / "x.jpg")
    with pytest.raises(DataError, match="does not exist"):
        load_image(tmp_path / "y.jpg")
    with pytest.raises(DataError, match="cannot be read"):
        load_image(tmp_path)


def test_list_images(tmp_path, caplog):
    with pytest.raises(DataError, match="does not exist"):
        list_images(tmp_path / "no")
    with pytest.raises(DataError, match="holds no picture"):
        list_images(tmp_path)
    for name in ("b.JPG", "a.png", "c.txt", "._d.jpg"):
        (tmp_path / name).touch()
    with caplog.at_level(logging.WARNING, "det_coco"):
        assert [p.name for p in list_images(tmp_path)] == ["a.png", "b.JPG"]
    assert "1 file is no picture and skipped (c.txt)" in caplog.text
    for name in ("e.jfif", "f.jp2", "g.TGA", "h.webp", "i.mpg", "j.json"):
        (tmp_path / name).touch()
    names = [p.name for p in list_images(tmp_path)]
    assert names == ["a.png", "b.JPG", "e.jfif", "f.jp2", "g.TGA", "h.webp"]
    assert list_images(tmp_path / "c.txt") == [tmp_path / "c.txt"]


def test_photographs_equal_pillow(coco_mini):
    for path in sorted((coco_mini / "val2017").glob("*.jpg"))[::6]:
        np.testing.assert_array_equal(load_image(path), np.asarray(Image.open(path).convert("RGB")))


def test_what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(DataError, match=r"x.png cannot be read: it is a pipe, a device or the like, not a file"):
        load_image(tmp_path / "x.png")
    with pytest.raises(DataError, match="it is a folder, not a file"):
        load_image(tmp_path)
    (tmp_path / "y.png").touch()
    assert list_images(tmp_path) == [tmp_path / "y.png"]
    with pytest.raises(DataError, match="it is a pipe"):
        image_size(tmp_path / "x.png")


def test_content_that_is_none_of_the_picture_formats_is_not_decoded(tmp_path, monkeypatch):
    """Whatever its name is; a decoder that was called would fail the test."""
    for name in ("EPS", "SPIDER", "FITS"):
        monkeypatch.setitem(Image.OPEN, name, (lambda *_: pytest.fail("opened"), lambda _: True))
    (tmp_path / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(DataError, match="it is a PostScript file"):
        load_image(tmp_path / "x.png")
    (tmp_path / "y.png").write_bytes(b"SIMPLE  =                    T")
    with pytest.raises(DataError, match=r"in none of the formats that are read \(AVIF, BMP, .*PNG"):
        load_image(tmp_path / "y.png")


def test_a_picture_of_another_size_is_refused_before_it_is_decoded(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(noise).save(data, "PNG")
    (tmp_path / "x.png").write_bytes(data.getvalue()[: len(data.getvalue()) // 2])
    with pytest.raises(DataError, match=r"is 64 x 48 pixels .* says 9 x 7"):
        load_image(tmp_path / "x.png", size=(7, 9))


def test_the_exif_orientation_may_be_ignored(tmp_path, picture):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "x.png", exif=exif)
    stored = np.asarray(picture)
    np.testing.assert_array_equal(load_image(tmp_path / "x.png", size=(48, 64), exif=False), stored)
    assert load_image(tmp_path / "x.png", size=(64, 48)).shape == (64, 48, 3)
    assert image_size(tmp_path / "x.png") == (64, 48)
    assert image_size(tmp_path / "x.png", exif=False) == (48, 64)


def _png_of_16_bits(path, pixels):
    """Write `[h, w, 3]` as colours of 16 bits, which Pillow cannot."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    return path


def test_colours_of_16_bits(tmp_path):
    """Pillow gives their upper 8 bits, in which 12-bit values leave nothing."""
    colours = np.arange(4 * 5 * 3).reshape(4, 5, 3) * 4 + 1
    assert np.array_equal(load_image(_png_of_16_bits(tmp_path / "16.png", colours * 256 + 7)), colours)
    with pytest.raises(DataError, match=r"12\.png has colours of 16 bits, but values of at most 12"):
        load_image(_png_of_16_bits(tmp_path / "12.png", colours * 16))
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(tmp_path / "black.png")
    assert load_image(tmp_path / "black.png").max() == 0
