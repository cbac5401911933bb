"""Data sets that are in Python: pictures or their paths, boxes, labels and masks, without any file."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from det_coco._describe import counted, describe
from det_coco.annotations import CocoIndex
from det_coco.errors import DataError
from det_coco.formats.content import ContentBuilder, Segmentation, common_folder, mask_code, numbered
from det_coco.formats.registry import ContentSplit
from det_coco.images import image_size, upright_rgb
from det_coco.memory import picture_file

Sample = Sequence[Any]


def from_samples(samples: Iterable[Sample], class_names: Sequence[str], *, name: str = "samples") -> CocoIndex:
    """Make an index of a data set in Python, with all checks of a COCO file.

    Args:
        samples: one tuple for each image: picture, boxes, labels and, if any, masks. The picture is a path, a PIL
            image, or uint8 `[h, w, 3]` RGB or `[h, w]`, which is kept in memory. Boxes are `[N, 4]` x1, y1, x2, y2 in
            pixels, labels `[N]` numbers of classes from 0. Masks are one for each object: a bitmap `[h, w]`, a polygon
            `[P, 2]` x, y, a list of polygons, a run-length code, or None.
        class_names: C names by label.
        name: what messages call the data set.

    Returns:
        the index; images have the ids 1, 2, ..., classes as well.

    Raises:
        DataError: a sample is wrong; names its number, from 0.
    """
    return split_of_samples(samples, class_names, name=name).load()


def split_of_samples(samples: Iterable[Sample], class_names: Sequence[str], *, name: str = "samples") -> ContentSplit:
    """Make a split of a data set in Python, which `convert_data` writes to a folder.

    Args:
        samples: as for `from_samples`; they are gone through once.
        class_names: C names by label.
        name: what messages call the data set.

    Returns:
        the split.

    Raises:
        DataError: as for `from_samples`.
    """
    chosen = [_checked(f"{name}: sample {k}", sample, len(class_names)) for k, sample in enumerate(samples)]
    paths = [picture for picture, *_ in chosen if isinstance(picture, Path)]
    folder = common_folder(paths) if paths else Path(name)
    builder = ContentBuilder(numbered(class_names))
    for k, (picture, size, boxes, labels, masks) in enumerate(chosen):
        if isinstance(picture, Path):
            image_id = builder.add_image(picture.relative_to(folder).as_posix(), size)
        else:
            image_id = builder.add_image(f"{k:06d}.bmp", size, picture=picture)
        for n, (box, label, mask) in enumerate(zip(boxes, labels, masks, strict=True)):
            x1, y1, x2, y2 = box
            place = f"{n} of sample {k}"
            builder.add_object(place, image_id, label + 1, box=[x1, y1, x2 - x1, y2 - y1], segmentation=mask)
    return ContentSplit(source=Path(name), image_folder=folder, read=builder.content)


Checked = tuple[
    Path | bytes, tuple[int, int], list[list[float]], list[int], list[Segmentation | None]
]  # picture, (height, width), boxes, labels, masks


def _checked(name: str, sample: Sample, classes: int) -> Checked:
    if not isinstance(sample, Sequence) or len(sample) not in (3, 4):
        raise DataError(f"{name} must be (picture, boxes, labels) or (picture, boxes, labels, masks).")
    picture, size = _picture(name, sample[0])
    boxes, labels = np.asarray(sample[1], dtype=np.float64), np.asarray(sample[2])
    boxes = boxes.reshape(-1, 4) if boxes.size == 0 else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise DataError(f"{name}: boxes must be [N, 4] x1, y1, x2, y2, got the shape {list(boxes.shape)}.")
    if labels.shape != (len(boxes),):
        raise DataError(f"{name}: labels must be [{len(boxes)}], one for each box, got {list(labels.shape)}.")
    if labels.size and (labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= classes):
        raise DataError(f"{name}: labels must be numbers from 0 to {classes - 1}, got {describe(labels.tolist())}.")
    given = sample[3] if len(sample) == 4 else None
    masks: list[Segmentation | None] = (
        [None] * len(boxes) if given is None else [_mask(name, mask, size) for mask in given]
    )
    if len(masks) != len(boxes):
        raise DataError(f"{name} has {counted(len(masks), 'mask')} for {len(boxes)} boxes; None stands for no mask.")
    return picture, size, boxes.tolist(), labels.tolist(), masks


def _picture(name: str, picture: Any) -> tuple[Path | bytes, tuple[int, int]]:
    if isinstance(picture, str | Path):
        path = Path(picture).absolute()
        return path, image_size(path)
    pixels = upright_rgb(picture, name) if isinstance(picture, Image.Image) else np.asarray(picture)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise DataError(
            f"{name}: the picture must be a path, a PIL image, or an array uint8 [h, w, 3] or [h, w], got "
            f"{pixels.dtype} {list(pixels.shape)}."
        )
    return picture_file(pixels), (pixels.shape[0], pixels.shape[1])


def _mask(name: str, mask: Any, size: tuple[int, int]) -> Segmentation | None:
    if mask is None:
        return None
    if isinstance(mask, Mapping):
        counts = mask.get("counts")
        return dict(mask) | {"counts": counts.decode("ascii")} if isinstance(counts, bytes) else dict(mask)
    if isinstance(mask, list | tuple):
        arrays = [np.asarray(part) for part in mask]
        if arrays and all(array.shape == (2,) for array in arrays):
            arrays = [np.stack(arrays)]
        # COCO writes polygons flat: x, y, x, y, ...
        arrays = [a.reshape(-1, 2) if a.ndim == 1 and a.size >= 6 and a.size % 2 == 0 else a for a in arrays]
    else:
        arrays = [np.asarray(mask)]
        if arrays[0].shape == size:
            return mask_code(arrays[0])
    if not all(array.ndim == 2 and array.shape[1] == 2 for array in arrays):
        raise DataError(
            f"{name}: a mask must be a bitmap {list(size)} as its picture, a polygon [P, 2], a list of polygons, or a "
            f"run-length code, got the shape {list(next(a for a in arrays if a.ndim != 2 or a.shape[1] != 2).shape)}."
        )
    return [array.astype(np.float64).ravel().tolist() for array in arrays]
