"""Reading pictures as RGB arrays."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from det_coco.errors import DataError

_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".jpe", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def load_image(path: str | Path, *, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read a picture as 8-bit RGB, turned upright as its EXIF orientation says.

    Grey, CMYK, palette and 16-bit pictures become RGB, transparency is dropped.

    Args:
        path: the file.
        size: (height, width) in pixels that the picture must have.

    Returns:
        uint8 `[height, width, 3]`.

    Raises:
        DataError: the file is missing, is no picture, is truncated, or does not have `size`.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"The image {path} does not exist.") from None
    except OSError as error:
        raise DataError(f"The image {path} cannot be read: {error.strerror or error}.") from None
    if not data:
        raise DataError(f"The image {path} is an empty file. Copy or download it again.")
    image = _decode(path, data)
    if size is not None and image.shape[:2] != tuple(size):
        raise DataError(_size_message(path, image.shape, size))
    return image


def upright_rgb(image: Image.Image) -> np.ndarray:
    """Give the pixels of an opened picture as `load_image` does.

    Args:
        image: of any mode; stays as it is.

    Returns:
        uint8 `[height, width, 3]`, turned upright as its EXIF orientation says.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        # Pillow clips 16-bit grey at 255; the high byte is the picture.
        grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "P" and "transparency" in image.info:
        return np.array(image.convert("RGBA").convert("RGB"))
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def list_images(path: str | Path) -> list[Path]:
    """List the pictures a path stands for: itself, or those in a folder, sorted by name.

    Args:
        path: a picture or a folder (not searched below its first level).

    Returns:
        one or more paths.

    Raises:
        DataError: the path does not exist, or the folder holds no picture.
    """
    path = Path(path)
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in _SUFFIXES and p.name[0] != "." and p.is_file())
        if not found:
            raise DataError(f"The folder {path} holds no picture ({', '.join(sorted(_SUFFIXES))}).")
        return found
    if not path.exists():
        raise DataError(f"{path} does not exist. Give a picture or a folder of pictures.")
    return [path]


def _decode(path: Path, data: bytes) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return upright_rgb(image)
    except Exception as error:
        # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more for broken files.
        # An unknown format is reported with the address of the buffer, which tells nobody anything.
        reason = "its format is unknown" if isinstance(error, UnidentifiedImageError) else error
        raise DataError(
            f"The image {path} cannot be read: {reason}. It is damaged, truncated or no picture; copy or download it "
            "again."
        ) from None


def _size_message(path: Path, shape: tuple[int, ...], size: tuple[int, int]) -> str:
    message = (
        f"The image {path} is {shape[1]} x {shape[0]} pixels (width x height, turned upright), but the annotation file "
        f"says {size[1]} x {size[0]}."
    )
    if (shape[1], shape[0]) == tuple(size):
        return (
            message + " It is turned by a quarter: its EXIF orientation was ignored when it was annotated. Remove the "
            "EXIF orientation from the file, or annotate the upright picture."
        )
    return message + " The boxes would be wrong; use the picture that was annotated, or correct the annotation file."
