import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from det_coco import DataError, list_images, load_image


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
    with pytest.raises(DataError, match=r"turned by a quarter: its EXIF orientation"):
        load_image(path, size=(64, 48))


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


def test_list_images(tmp_path, picture):
    with pytest.raises(DataError, match="does not exist"):
        list_images(tmp_path / "no")
    with pytest.raises(DataError, match="holds no picture"):
        list_images(tmp_path)
    for name in ("b.JPG", "a.png", "c.txt", "._d.jpg"):
        (tmp_path / name).touch()
    assert [p.name for p in list_images(tmp_path)] == ["a.png", "b.JPG"]
    assert list_images(tmp_path / "c.txt") == [tmp_path / "c.txt"]


def test_photographs_equal_pillow(coco_mini):
    for path in sorted((coco_mini / "val2017").glob("*.jpg"))[::6]:
        np.testing.assert_array_equal(load_image(path), np.asarray(Image.open(path).convert("RGB")))
