"""Reading each picture once, with the masks of its annotations; this runs in other processes."""

import hashlib
import io
import logging
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from det_coco.doctor.mask_facts import MaskFacts, measure_masks
from det_coco.errors import DataError
from det_coco.images import decode_image

THUMB = 32
"""Side of the grey thumbnail by which pictures are compared."""
CROP = 8
"""Side of the small picture of an object by which objects are compared."""
_ORIENTATION = 0x0112  # EXIF tag
_CHUNK = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One picture and the `M` annotations in it.

    Attributes:
        path: the picture; empty where it is missing.
        picture: the bytes of its file where it lies in no folder.
        size: (height, width) that the file says, or zeros.
        boxes: float64 `[M, 4]` x, y, width, height as in the file, or NaN.
        segmentations: M values as in the file, None where there is none.
    """

    path: str
    picture: bytes | None
    size: tuple[int, int]
    boxes: np.ndarray
    segmentations: Sequence[Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What a picture is.

    Attributes:
        error: why it cannot be read, or nothing.
        size: (height, width) in pixels, upright; zeros where it cannot be read.
        orientation: EXIF orientation, 1 where there is none; 5 to 8 turn by a quarter.
        mode: Pillow's name of its pixels, such as RGB.
        format: Pillow's name of its format, such as JPEG.
        frames: how many it has.
        transparent: whether a pixel is.
        grey: whether all pixels are.
        spread: highest minus lowest value of a channel, the most of the three.
        digest: hash of the upright pixels.
        thumb: uint8 `[S, S]` grey values, S = `THUMB`.
        masks: the masks of its annotations.
        crops: uint8 `[M, 8, 8, 3]` what is in each box; 0 where there is no box.
    """

    error: str = ""
    size: tuple[int, int] = (0, 0)
    orientation: int = 1
    mode: str = ""
    format: str = ""
    frames: int = 1
    transparent: bool = False
    grey: bool = False
    spread: int = 255
    digest: bytes = b""
    thumb: np.ndarray = field(default_factory=lambda: np.zeros((THUMB, THUMB), dtype=np.uint8), repr=False)
    masks: MaskFacts
    crops: np.ndarray = field(repr=False)


def inspect_all(jobs: Sequence[Job], workers: int) -> list[Seen]:
    """Read pictures in parallel, with a progress bar where there is a terminal.

    Args:
        jobs: what to read.
        workers: processes; 0 reads in this one.

    Returns:
        what was seen, in the order of the jobs.

    Raises:
        DataError: a process was ended from outside.
    """
    if not workers:
        return list(_with_bar(map(inspect, jobs), len(jobs)))
    try:
        with ProcessPoolExecutor(workers) as pool:
            return list(_with_bar(_submitted(pool, jobs), len(jobs)))
    except BrokenProcessPool:
        raise DataError(
            "A process that reads pictures was ended from outside, probably because the memory was full. "
            "Take fewer workers."
        ) from None


def inspect(job: Job) -> Seen:
    """Read a picture and the masks of its annotations."""
    crops = np.zeros((len(job.boxes), CROP, CROP, 3), dtype=np.uint8)
    try:
        with _quiet():
            data = job.picture or Path(job.path).read_bytes()
            pixels = decode_image(data, job.path)
    except OSError as error:
        return Seen(error=f"cannot be read: {error.strerror}", masks=_masks(job, job.size), crops=crops)
    except DataError as error:
        return Seen(error=_reason(str(error), job.path), masks=_masks(job, job.size), crops=crops)
    size = (pixels.shape[0], pixels.shape[1])
    picture = Image.fromarray(pixels)
    for n, box in enumerate(job.boxes):
        crops[n] = _crop(picture, box)
    header, extrema = _header(data), cast("Sequence[tuple[int, int]]", picture.getextrema())
    thumb = picture.convert("L").resize((THUMB, THUMB), Image.Resampling.BOX)
    return Seen(
        size=size,
        grey=_is_grey(pixels[::16, ::16]) and _is_grey(pixels),
        spread=max(high - low for low, high in extrema),
        digest=hashlib.blake2b(pixels.tobytes() + repr(size).encode(), digest_size=16).digest(),
        thumb=np.asarray(thumb),
        masks=_masks(job, annotated_size(job.size, size, header["orientation"])),
        crops=crops,
        **header,
    )


def annotated_size(said: tuple[int, int], size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Find the size that annotations go by, or one that holds them either way.

    Args:
        said: (height, width) that the file says, or zeros.
        size: (height, width) of the upright picture, or zeros.
        orientation: its EXIF orientation.

    Returns:
        the file's; the picture's where the file says none, or has height and width swapped by mistake; where the two
        are simply different, the larger of each side.
    """
    if not all(size) or (said == size[::-1] and orientation >= 5):
        return said
    if not all(said) or said == size[::-1]:
        return size
    return max(said[0], size[0]), max(said[1], size[1])


def _submitted(pool: Executor, jobs: Sequence[Job]) -> Iterator[Seen]:
    return pool.map(inspect, jobs, chunksize=_CHUNK)


def _masks(job: Job, size: tuple[int, int]) -> MaskFacts:
    return measure_masks(job.segmentations, size, job.boxes, said=job.size)


def _header(data: bytes) -> dict[str, Any]:
    """What a picture says of itself."""
    with Image.open(io.BytesIO(data)) as image:
        return {
            "orientation": image.getexif().get(_ORIENTATION, 1),
            "mode": image.mode,
            "format": image.format or "",
            "frames": getattr(image, "n_frames", 1),
            "transparent": _is_transparent(image),
        }


def _is_grey(pixels: np.ndarray) -> bool:
    return bool((pixels == pixels[..., :1]).all())


def _is_transparent(image: Image.Image) -> bool:
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return False
    return bool((np.asarray(image.convert("RGBA"))[..., 3] < 255).any())


def _crop(picture: Image.Image, box: np.ndarray) -> np.ndarray:
    """A small picture of what is in a box: uint8 `[8, 8, 3]`."""
    x1, y1 = np.clip(box[:2], 0, picture.size)
    x2, y2 = np.clip(box[:2] + box[2:], 0, picture.size)
    if not (x2 - x1 >= 1 and y2 - y1 >= 1):  # also where the box is NaN
        return np.zeros((CROP, CROP, 3), dtype=np.uint8)
    return np.asarray(picture.resize((CROP, CROP), Image.Resampling.BOX, box=(x1, y1, x2, y2)))


def _reason(message: str, path: str) -> str:
    """The message of the reader without the name of the file, which a case has."""
    return message.removeprefix(f"The image {path} ").rstrip(".")


@contextmanager
def _quiet() -> Generator[None]:
    """Keep the reader from saying what the check says."""
    log = logging.getLogger("det_coco")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def _with_bar(items: Iterator[Seen], count: int) -> Iterator[Seen]:
    """Show on a terminal how far it is."""
    shown, began = sys.stderr.isatty(), time.monotonic()
    last = began
    for number, item in enumerate(items, start=1):
        now = time.monotonic()
        if shown and (now - last > 0.2 or number == count):
            last = now
            left = (now - began) * (count - number) / number
            done = "#" * (30 * number // count)
            end = "\n" if number == count else ""
            sys.stderr.write(f"\rReading pictures |{done:<30}| {number:,} of {count:,}, {left:.0f} s left {end}")
            sys.stderr.flush()
        yield item
