"""Reading pictures as RGB arrays."""

import io
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from det_coco._describe import counted, some
from det_coco.errors import DataError

_log = logging.getLogger("det_coco")

# What Pillow opens without being able to draw it, or draws with another program's help alone.
_NO_PICTURES = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"})
_ORIENTATION = 0x0112  # EXIF tag; 5 to 8 are turned by a quarter
# How files begin that are no pictures for Pillow: (place, bytes, what it is and what to do).
_OTHERS = (
    (4, b"ftyphei", "it is a HEIC picture; convert it to JPEG or PNG"),
    (4, b"ftyphev", "it is a HEIC picture; convert it to JPEG or PNG"),
    (4, b"ftypmif1", "it is a HEIF picture; convert it to JPEG or PNG"),
    (4, b"ftypavif", "it is an AVIF picture, which this Pillow does not read; convert it, or install a newer Pillow"),
    (4, b"ftyp", "it is a video; extract its frames"),
    (128, b"DICM", "it is a DICOM file; export its frames as PNG"),
    (0, b"%PDF", "it is a PDF file; export its pages as PNG"),
    (0, b"version https://git-lfs", "it is a pointer of Git LFS; run `git lfs pull` in its repository"),
    (0, b"<!DOCTYPE", "it is a web page, so its download failed; download it again"),
    (0, b"<html", "it is a web page, so its download failed; download it again"),
    (0, b"<svg", "it is an SVG drawing; export it as PNG"),
)


def load_image(path: str | Path, *, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read a picture as 8-bit RGB, turned upright as its EXIF orientation says.

    Grey, CMYK and palette pictures become RGB, transparency is dropped. Grey values of more than 8 bits are divided by
    16 where all values of the picture fit 12 bits, by 256 where they fit 16; floating-point values from 0 to 1 are
    multiplied by 255; what fits 8 bits stays as it is. A warning says so once for each folder. Pictures of more than
    179 megapixels are refused unless the environment variable `DET_MAX_PIXELS` allows them.

    Args:
        path: the file.
        size: (height, width) in pixels that the picture must have.

    Returns:
        uint8 `[h, w, 3]` RGB.

    Raises:
        DataError: the file is missing, is no picture, is truncated, has values of unknown range or does not have
            `size`.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"The image {path} does not exist.") from None
    except OSError as error:
        raise DataError(f"The image {path} cannot be read: {error.strerror or error}.") from None
    return decode_image(data, path, size=size)


def decode_image(data: bytes, path: str | Path, *, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read the content of a picture file as `load_image` does.

    Args:
        data: the content.
        path: what messages call it.
        size: (height, width) in pixels that the picture must have.

    Returns:
        uint8 `[h, w, 3]` RGB.

    Raises:
        DataError: as for `load_image`.
    """
    path = Path(path)
    if not data:
        raise DataError(f"The image {path} is an empty file. Copy or download it again.")
    image, orientation = _decode(path, data)
    if size is not None and image.shape[:2] != tuple(size):
        raise DataError(_size_message(path, image.shape, size, turned=orientation >= 5))
    return image


def upright_rgb(image: Image.Image, path: str | Path = "given") -> np.ndarray:
    """Give the pixels of an opened picture as `load_image` does.

    Args:
        image: of any mode; it is not changed.
        path: its file, which messages name.

    Returns:
        uint8 `[h, w, 3]` RGB, turned upright as its EXIF orientation says.

    Raises:
        DataError: its values are of unknown range.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):
        return np.repeat(_to_8_bits(Path(path), np.asarray(image))[:, :, None], 3, axis=2)
    if image.mode == "P" and "transparency" in image.info:
        return np.array(image.convert("RGBA").convert("RGB"))
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def image_size(path: str | Path) -> tuple[int, int]:
    """Read the size of a picture turned upright, without its pixels.

    Args:
        path: the file.

    Returns:
        (height, width) in pixels, as `load_image` would give them.

    Raises:
        DataError: the file is missing or is no picture.
    """
    try:
        with Path(path).open("rb") as stream:
            return header_size(stream)
    except (FileNotFoundError, IsADirectoryError):
        raise DataError(f"The image {path} does not exist.") from None
    except Exception:
        # Says what is wrong, as the header alone may not.
        height, width = load_image(path).shape[:2]
        return height, width


def header_size(stream: IO[bytes]) -> tuple[int, int]:
    """Read (height, width) in pixels, turned upright, from the header of a picture file; raises what Pillow raises."""
    with Image.open(stream) as image:
        turned = image.getexif().get(_ORIENTATION, 1) >= 5
        return (image.width, image.height) if turned else (image.height, image.width)


def image_sizes(paths: Sequence[Path]) -> list[tuple[int, int]]:
    """Read the sizes of many pictures at once, see `image_size`.

    Args:
        paths: the files.

    Returns:
        (height, width) in pixels of each.

    Raises:
        DataError: a file is missing or is no picture.
    """
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(image_size, paths))


def list_images(path: str | Path) -> list[Path]:
    """List the pictures a path stands for: itself, or those in a folder, sorted by name.

    A picture is what has the suffix of a format that Pillow reads; a warning names the files of a folder that are
    skipped. Hidden files are skipped silently.

    Args:
        path: a picture or a folder (not searched below its first level).

    Returns:
        one or more paths.

    Raises:
        DataError: the path does not exist, or the folder holds no picture.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.name[0] != "." and p.is_file())
        found = [file for file in files if file.suffix.lower() in picture_suffixes()]
        if not found:
            raise DataError(f"The folder {path} holds no picture ({', '.join(sorted(picture_suffixes()))}).")
        skipped = [file.name for file in files if file.suffix.lower() not in picture_suffixes()]
        if skipped:
            _log.warning("%s: %s no picture and skipped (%s).", path, _files_are(len(skipped)), some(skipped))
        return found
    if not path.exists():
        raise DataError(f"{path} does not exist. Give a picture or a folder of pictures.")
    return [path]


@lru_cache(maxsize=1)
def picture_suffixes() -> frozenset[str]:
    """Suffixes of the formats that Pillow reads, in lower case, with their dot."""
    Image.init()
    readable = set(Image.OPEN) - _NO_PICTURES
    return frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in readable)


def _files_are(count: int) -> str:
    return f"{counted(count, 'file')} {'is' if count == 1 else 'are'}"


def _decode(path: Path, data: bytes) -> tuple[np.ndarray, int]:
    """Read a picture and the EXIF orientation that it was turned by."""
    if "DET_MAX_PIXELS" in os.environ:
        Image.MAX_IMAGE_PIXELS = _max_pixels()
    try:
        with Image.open(io.BytesIO(data)) as image:
            return upright_rgb(image, path), image.getexif().get(_ORIENTATION, 1)
    except DataError:
        raise
    except Image.DecompressionBombError:
        raise DataError(
            f"The image {path} has more pixels than Pillow opens, as a protection against files that fill the memory. "
            "Make it smaller, or set the environment variable DET_MAX_PIXELS to the number of pixels to allow."
        ) from None
    except Exception as error:
        # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more for broken files.
        raise DataError(f"The image {path} cannot be read: {_reason(data, error)}.") from None


def _max_pixels() -> int:
    text = os.environ["DET_MAX_PIXELS"]
    if not text.isdecimal():
        raise DataError(f"The environment variable DET_MAX_PIXELS must be a number of pixels, got {text!r}.")
    return int(text)


def _reason(data: bytes, error: Exception) -> str:
    for place, begin, what in _OTHERS:
        if data[place : place + len(begin)] == begin:
            return what
    # An unknown format is reported with the address of the buffer, which tells nobody anything.
    reason = "its format is unknown" if isinstance(error, UnidentifiedImageError) else error
    return f"{reason}. It is damaged, truncated or no picture; copy or download it again"


def _to_8_bits(path: Path, values: np.ndarray) -> np.ndarray:
    """Scale grey values to 8 bits by the range they use, see `load_image`.

    Args:
        path: the file.
        values: integer or floating-point `[h, w]`.

    Returns:
        uint8 `[h, w]`.

    Raises:
        DataError: values are negative, not finite or too large.
    """
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high < 1 << 16):
        raise DataError(
            f"The image {path} has grey values from {low:g} to {high:g}, whose meaning is not known. Convert it to 8 "
            "or 16 bits."
        )
    if values.dtype.kind == "f" and high <= 1:
        _say_once(path.parent, "floating-point values from 0 to 1, which are multiplied by 255")
        return (values * 255 + 0.5).astype(np.uint8)
    bits = next(bits for bits in (8, 12, 16) if high < 1 << bits)
    factor = 1 << (bits - 8)
    done = f"are divided by {factor}" if factor > 1 else "stay as they are"
    _say_once(path.parent, f"values of {bits} bits in a wider format, which {done}")
    return (values / factor).astype(np.uint8)


@lru_cache(maxsize=1024)
def _say_once(folder: Path, what: str) -> None:
    _log.warning("%s: some grey pictures have %s.", folder, what)


def _size_message(path: Path, shape: tuple[int, ...], size: tuple[int, int], *, turned: bool) -> str:
    message = (
        f"The image {path} is {shape[1]} x {shape[0]} pixels (width x height, turned upright), but the annotation file "
        f"says {size[1]} x {size[0]}."
    )
    if (shape[1], shape[0]) == tuple(size):
        if turned:
            return (
                message + " It is turned by a quarter: its EXIF orientation was ignored when it was annotated. Remove "
                "the EXIF orientation from the file, or annotate the upright picture."
            )
        return message + " Its height and width look swapped in the annotation file; correct them there."
    return message + " The boxes would be wrong; use the picture that was annotated, or correct the annotation file."
