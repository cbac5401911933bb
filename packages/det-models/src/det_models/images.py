"""Images of every kind a user may have, as samples of a batch."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from det_coco import Batch, BatchShape, Resize, Sample, load_image, make_batch
from det_coco.images import upright_rgb
from det_models.errors import OptionError

__all__ = ["Loaded", "batches_of", "is_image", "load", "sample_of", "unknown_kind"]

NO_OBJECTS: dict[str, Any] = {
    "boxes": np.zeros((0, 4), dtype=np.float32),
    "labels": np.zeros(0, dtype=np.int64),
    "crowd": np.zeros(0, dtype=bool),
}


@dataclass(frozen=True, eq=False)
class Loaded:
    """An image as it was given.

    Attributes:
        pixels: uint8 [H, W, 3] RGB.
        source: Its file, or an empty text.
    """

    pixels: np.ndarray
    source: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.pixels.shape[0], self.pixels.shape[1]


def is_image(value: object) -> bool:
    """Whether a value is one image rather than several: a picture, an array, a tensor, or the path of a file.

    Raises:
        OptionError: It is an empty text, which as a path would be the current folder.
    """
    if isinstance(value, str) and not value:
        raise OptionError("An image must have a path, got an empty text.")
    return isinstance(value, Image.Image | np.ndarray | torch.Tensor) or (
        isinstance(value, str | Path) and not Path(value).is_dir()
    )


def load(value: Any) -> Loaded:
    """The pixels of an image.

    Args:
        value: Path of a picture, PIL image (both are turned upright as their EXIF orientation says), array uint8
            [H, W, 3] RGB, or tensor uint8 [3, H, W] RGB of any device. What is loaded already stays as it is.

    Raises:
        DataError: The file is no picture.
        OptionError: It is something else, or of another type or shape, or has no pixels.
    """
    loaded = _load(value)
    if not loaded.pixels.size:
        raise OptionError(f"An image must have pixels, got one of height {loaded.size[0]} and width {loaded.size[1]}.")
    return loaded


def unknown_kind(value: object) -> OptionError:
    """The error for what is no image."""
    return OptionError(f"An image must be a path, a PIL image, an array or a tensor, got {type(value).__name__}.")


def _load(value: Any) -> Loaded:
    if isinstance(value, Loaded):
        return value
    if isinstance(value, str | Path):
        return Loaded(load_image(value), str(value))
    if isinstance(value, Image.Image):
        source = str(getattr(value, "filename", ""))
        return Loaded(upright_rgb(value, source or "given"), source)
    if isinstance(value, torch.Tensor):
        if value.dtype != torch.uint8 or value.ndim != 3 or value.shape[0] != 3:
            raise OptionError(f"An image as a tensor must be uint8 [3, H, W], got {_form(value)}. {_advice(value)}")
        return Loaded(np.array(value.detach().cpu().permute(1, 2, 0).numpy(), order="C"))
    if isinstance(value, np.ndarray):
        if value.dtype != np.uint8 or value.ndim != 3 or value.shape[2] != 3:
            raise OptionError(f"An image as an array must be uint8 [H, W, 3], got {_form(value)}. {_advice(value)}")
        # A copy: images are read ahead, and a caller may fill one array again.
        return Loaded(np.array(value, order="C"))
    raise unknown_kind(value)


def _form(value: Any) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"


def _advice(value: np.ndarray | torch.Tensor) -> str:
    if value.ndim == 4:
        return "Give several images as a list."
    if str(value.dtype).removeprefix("torch.") != "uint8":
        return "Scale its values to whole numbers from 0 to 255, and convert them to uint8."
    return "Turn its axes, or make a picture of it that Pillow turns into RGB: Image.fromarray(array)."


def sample_of(pixels: np.ndarray, resize: Resize) -> Sample:
    """An image, uint8 [H, W, 3] RGB, resized for a batch, without ground truth."""
    height, width = resize.output_size(*pixels.shape[:2])
    if not pixels.flags.writeable:
        pixels = pixels.copy()  # torch warns of memory that it must not write to
    return Sample(
        image=resize.apply(pixels, height, width),
        image_id=0,
        scale=(height / pixels.shape[0], width / pixels.shape[1]),
        **NO_OBJECTS,
    )


def batches_of(
    images: Iterable[Any], resize: Resize, shape: BatchShape, batch_size: int
) -> Iterator[tuple[list[Loaded], Batch]]:
    """Batches of at most `batch_size` images that follow each other and have the same padded shape.

    Args:
        images: Of any kind that :func:`load` knows; read as far as the next batch needs.
        resize: What is done to each.
        shape: Padded shapes.
        batch_size: The most images of a batch.
    """
    waiting: list[tuple[Loaded, Sample]] = []
    bucket = (0, 0)
    iterator = iter(images)
    while True:
        try:
            loaded = load(next(iterator))
            sample = sample_of(loaded.pixels, resize)
        except StopIteration:
            break
        except Exception:
            if waiting:  # what came before the one that cannot be read
                yield _batch(waiting, shape)
            raise
        own = shape.bucket(*sample.image.shape[1:])
        if waiting and own != bucket:
            yield _batch(waiting, shape)
            waiting = []
        bucket = own
        waiting.append((loaded, sample))
        if len(waiting) == batch_size:
            yield _batch(waiting, shape)
            waiting = []
    if waiting:
        yield _batch(waiting, shape)


def _batch(waiting: list[tuple[Loaded, Sample]], shape: BatchShape) -> tuple[list[Loaded], Batch]:
    batch = make_batch([sample for _, sample in waiting], shape, ground_truth=False)
    return [loaded for loaded, _ in waiting], batch
