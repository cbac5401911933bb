"""Reading pictures as RGB arrays."""

import io
import logging
import os
import stat
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from det_coco._beginnings import recognised
from det_coco._bit_depth import check_upper_bits, to_8_bits
from det_coco._describe import counted, some
from det_coco.errors import DataError

_log = logging.getLogger("det_coco")

# Pictures, as opposed to all that Pillow opens: what needs another program to be drawn (EPS, WMF), what is data or
# video, and what hardly anybody has is kept from decoders that hardly anybody looks at. HEIF comes with a plug-in.
_FORMATS = (
    "AVIF", "BMP", "DDS", "DIB", "GIF", "HEIF", "ICNS", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "PSD",
    "QOI", "SGI", "TGA", "TIFF", "WEBP", "XBM", "XPM",
)  # fmt: skip
_ORIENTATION = 0x0112  # EXIF tag
_FIRST_QUARTER_TURN = 5  # 5 to 8 are turned by a quarter
# How files begin that are no pictures for Pillow: (place, bytes, what it is and what to do).
_OTHERS = (
    (4, b"ftyphei", "it is a HEIC picture; convert it to JPEG or PNG"),
    (4, b"ftyphev", "it is a HEIC picture; convert it to JPEG or PNG"),
    (4, b"ftypmif1", "it is a HEIF picture; convert it to JPEG or PNG"),
    (4, b"ftypavif", "it is an AVIF picture, which this Pillow does not read; convert it, or install a newer Pillow"),
    (4, b"ftyp", "it is a video; extract its frames"),
    (128, b"DICM", "it is a DICOM file; export its frames as PNG"),
    (0, b"%!PS", "it is a PostScript file; export it as PNG"),
    (0, b"%PDF", "it is a PDF file; export its pages as PNG"),
    (0, b"<svg", "it is an SVG drawing; export it as PNG"),
)


def load_image(path: str | Path, *, size: tuple[int, int] | None = None, exif: bool = True) -> np.ndarray:
    """Read a picture as 8-bit RGB, turned upright as its EXIF orientation says.

    A file whose content is none of the usual picture formats, and what is no regular file, is not handed to a decoder;
    nor is a picture of another size than `size`.

    Grey, CMYK and palette pictures become RGB, transparency is dropped. Grey values of more than 8 bits are divided by
    16 where all values of the picture fit 12 bits, by 256 where they fit 16; floating-point values from 0 to 1 are
    multiplied by 255; what fits 8 bits stays as it is. Of colours of 16 bits the upper 8 are read, and a picture that
    has nothing there is refused. A warning says so once for each folder. Pictures of more than
    179 megapixels are refused unless the environment variable `DET_MAX_PIXELS` allows them.

    Args:
        path: the file.
        size: (height, width) in pixels that the picture must have.
        exif: False leaves the picture as it is stored, for data that were annotated so.

    Returns:
        uint8 `[h, w, 3]` RGB.

    Raises:
        DataError: the file is missing, is no picture, is truncated, has values of unknown range or does not have
            `size`.
    """
    path = Path(path)
    return decode_image(_read(path), path, size=size, exif=exif)


def decode_image(
    data: bytes, path: str | Path, *, size: tuple[int, int] | None = None, exif: bool = True
) -> np.ndarray:
    """Read the content of a picture file as `load_image` does.

    Args:
        data: the content.
        path: what messages call it.
        size: (height, width) in pixels that the picture must have.
        exif: as for `load_image`.

    Returns:
        uint8 `[h, w, 3]` RGB.

    Raises:
        DataError: as for `load_image`.
    """
    path = Path(path)
    if not data:
        raise DataError(f"The image {path} is an empty file. Copy or download it again.")
    if "DET_MAX_PIXELS" in os.environ:
        Image.MAX_IMAGE_PIXELS = _max_pixels()
    try:
        with _open(io.BytesIO(data)) as image:
            if size is not None:
                _check_size(image, path, tuple(size), exif=exif)
            return upright_rgb(image, path, exif=exif)
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


def upright_rgb(image: Image.Image, path: str | Path = "given", *, exif: bool = True) -> np.ndarray:
    """Give the pixels of an opened picture as `load_image` does.

    Args:
        image: of any mode; it is not changed.
        path: its file, which messages name.
        exif: False leaves it as it is stored.

    Returns:
        uint8 `[h, w, 3]` RGB, turned upright as its EXIF orientation says.

    Raises:
        DataError: its values are of unknown range.
    """
    deep = _of_16_bits_a_colour(image)
    image.load()  # some formats have their EXIF behind their pixels
    # Where there is nothing to turn, Pillow would copy the picture.
    image = ImageOps.exif_transpose(image) if exif and image.getexif().get(_ORIENTATION, 1) != 1 else image
    if image.mode == "F" or image.mode.startswith("I"):
        return np.repeat(to_8_bits(Path(path), np.asarray(image))[:, :, None], 3, axis=2)
    if image.mode == "P" and "transparency" in image.info:
        return np.array(image.convert("RGBA").convert("RGB"))
    pixels = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    if deep:
        check_upper_bits(Path(path), pixels)
    return pixels


def image_size(path: str | Path, *, exif: bool = True) -> tuple[int, int]:
    """Read the size of a picture without its pixels.

    Args:
        path: the file.
        exif: as for `load_image`.

    Returns:
        (height, width) in pixels, as `load_image` would give them.

    Raises:
        DataError: the file is missing or is no picture.
    """
    path = Path(path)
    try:
        if path.is_file():  # to open a pipe would wait for a writer
            with path.open("rb") as stream:
                return header_size(stream, exif=exif)
    except Exception as error:
        # Whatever is wrong shows when all of it is read, and is said there.
        _log.debug("%s: %s", path, error)
    height, width = load_image(path, exif=exif).shape[:2]
    return height, width


def header_size(stream: IO[bytes], *, exif: bool = True) -> tuple[int, int]:
    """Read (height, width) in pixels from the header of a picture file, turned upright; raises what Pillow raises."""
    with _open(stream) as image:
        return _size(image, exif=exif)


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
    """Suffixes of the picture formats that are read here, in lower case, with their dot."""
    Image.init()
    readable = {name for name in _FORMATS if name in Image.OPEN}
    return frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in readable)


def _files_are(count: int) -> str:
    return f"{counted(count, 'file')} {'is' if count == 1 else 'are'}"


def _read(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            what = "a folder" if path.is_dir() else "a pipe, a device or the like"
            raise DataError(f"The image {path} cannot be read: it is {what}, not a file.")
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"The image {path} does not exist.") from None
    except OSError as error:
        raise DataError(f"The image {path} cannot be read: {error.strerror or error}.") from None


def _open(file: IO[bytes]) -> Image.Image:
    Image.init()
    with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
        return Image.open(file, formats=[name for name in _FORMATS if name in Image.OPEN])


def _of_16_bits_a_colour(image: Image.Image) -> bool:
    """Tell pictures of which Pillow reads the upper 8 of 16 bits, which only their file's layout says."""
    return image.mode in ("RGB", "RGBA", "LA") and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def _size(image: Image.Image, *, exif: bool) -> tuple[int, int]:
    """Height and width of a picture whose pixels need not have been read."""
    turned = exif and image.getexif().get(_ORIENTATION, 1) >= _FIRST_QUARTER_TURN
    return (image.width, image.height) if turned else (image.height, image.width)


def _check_size(image: Image.Image, path: Path, size: tuple[int, int], *, exif: bool) -> None:
    found = image.height, image.width
    # To look for the orientation may mean to decode the picture.
    if sorted(found) == sorted(size):
        found = _size(image, exif=exif)
    if found != size:
        raise DataError(_size_message(path, found, size, turned=found != (image.height, image.width)))


def _max_pixels() -> int:
    text = os.environ["DET_MAX_PIXELS"]
    if not text.isdecimal():
        raise DataError(f"The environment variable DET_MAX_PIXELS must be a number of pixels, got {text!r}.")
    return int(text)


def _reason(data: bytes, error: Exception) -> str:
    for place, begin, what in _OTHERS:
        if data[place : place + len(begin)] == begin:
            return what
    what = recognised(data[:300])
    if what is not None and isinstance(error, UnidentifiedImageError):
        return f"it is {what}"
    # An unknown format is reported with the address of the buffer, which tells nobody anything.
    unknown = isinstance(error, UnidentifiedImageError)
    reason = f"it is in none of the formats that are read ({', '.join(_FORMATS)})" if unknown else error
    return f"{reason}. It is damaged, truncated or no picture; copy or download it again"


def _size_message(path: Path, shape: tuple[int, int], size: tuple[int, int], *, turned: bool) -> str:
    message = (
        f"The image {path} is {shape[1]} x {shape[0]} pixels (width x height, turned upright), but the annotation file "
        f"says {size[1]} x {size[0]}."
    )
    if (shape[1], shape[0]) == tuple(size):
        if turned:
            return (
                message + " It is turned by a quarter: its EXIF orientation was ignored when it was annotated. Read "
                "pictures as they are stored by exif=False, or remove the EXIF orientation from the file."
            )
        return message + " Its height and width look swapped in the annotation file; correct them there."
    return message + " The boxes would be wrong; use the picture that was annotated, or correct the annotation file."
