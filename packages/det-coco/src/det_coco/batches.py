"""Static batches: every shape follows from configuration.

`B` images, `H x W` bucket, `M` instance slots, `V` line segments, `Q` polygons, `J` keypoints.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch.utils.data import get_worker_info

from det_coco.errors import DataError
from det_coco.mask_codec import ImageEdges, bitmap_names
from det_coco.resize import Resize

MaskForm = Literal["none", "polygons", "bitmaps"]
Batch = dict[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchShape:
    """The shapes a batch may have.

    Attributes:
        buckets: (height, width) of padded images; a batch takes the smallest one that holds all its images.
        masks: form of the instance masks; "none" for box detectors.
        max_instances: M, instance slots per image, crowd regions included.
        max_edges: V, line segments per image over all its masks.
        max_polygons: Q, polygons per image over all its masks.
        bitmap_sizes: (height, width) that bitmaps are reduced to, for detectors that learn masks of the whole image at
            sizes of their own, a fraction of the image's; none: bitmaps as large as the bucket.
        keypoints: J, keypoints per instance; 0 for detectors without them.
        drop_excess: leave out the smallest instances of an image that has more than fits, and say how many, instead
            of refusing the data.
        tight: pad images of a batch to the next multiple of 32 of their size, as the reference systems do, rather than
            to the bucket, which then only bounds it. What a network computes near the right and lower border depends on
            the padding; shapes then depend on the data.
    """

    buckets: tuple[tuple[int, int], ...] = ((800, 1344), (1344, 800))
    masks: MaskForm = "polygons"
    max_instances: int = 128
    max_edges: int = 8192
    max_polygons: int = 512
    bitmap_sizes: tuple[tuple[int, int], ...] = ()
    keypoints: int = 0
    drop_excess: bool = False
    tight: bool = False

    def __post_init__(self) -> None:
        if not self.buckets or min(min(bucket) for bucket in self.buckets) < 1:
            raise ValueError(f"buckets must be one or more (height, width) pairs, got {self.buckets}.")
        if self.masks not in ("none", "polygons", "bitmaps"):
            raise ValueError(f"masks must be none, polygons or bitmaps, got {self.masks!r}.")
        for name in ("max_instances", "max_edges", "max_polygons"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.keypoints < 0:
            raise ValueError(f"keypoints must be a number of keypoints, 0 for none, got {self.keypoints}.")

    def bucket(self, height: int, width: int) -> tuple[int, int]:
        """Find the padded size of an image: the smallest bucket that holds it, or what `tight` makes of that.

        Args:
            height: of the image in pixels.
            width: of the image in pixels.

        Returns:
            (height, width).

        Raises:
            DataError: there is none.
        """
        fitting = [bucket for bucket in self.buckets if bucket[0] >= height and bucket[1] >= width]
        if not fitting:
            raise DataError(
                f"No bucket holds images of {height} x {width} pixels (height x width): the buckets are "
                f"{', '.join(f'{h} x {w}' for h, w in self.buckets)}. Add one of at least {_up(height)} x "
                f"{_up(width)}, or resize to less."
            )
        bucket = min(fitting, key=lambda bucket: (bucket[0] * bucket[1], bucket))
        return (min(_up(height), bucket[0]), min(_up(width), bucket[1])) if self.tight else bucket


def default_buckets(resize: Resize, divisor: int = 32) -> tuple[tuple[int, int], ...]:
    """Choose the two buckets, landscape and portrait, that hold every image a resize makes.

    maskrcnn-benchmark's rule can pass its limit, by half the aspect ratio at most; room is left for a ratio of 16.
    YOLACT's images all have one size, which is the bucket as it is.

    Args:
        resize: the resize.
        divisor: both sides are rounded up to a multiple of it, as feature pyramids want.

    Returns:
        one bucket if it is square, else two.
    """
    if resize.rule == "yolact":
        return ((max(resize.shortest),) * 2,)
    long = _up(resize.longest + (8 if resize.rule == "maskrcnn_benchmark" else 0), divisor)
    short = min(_up(max(resize.shortest), divisor), long)
    return ((short, long),) if short == long else ((short, long), (long, short))


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One image with its ground truth, before padding: `M` objects, as many as the image has; `h, w` its resized size.

    Attributes:
        image: uint8 or float32 `[3, h, w]`, RGB, 0..255.
        image_id: the data set's own id.
        scale: (y, x) resized / original size.
        boxes: float32 `[M, 4]` x1, y1, x2, y2 in resized pixels.
        labels: int64 `[M]`, contiguous classes 0 .. C - 1.
        crowd: bool `[M]`, which objects are crowd regions.
        edges: masks as outlines, or None.
        bitmaps: masks as uint8 `[M, h, w]` of 0 and 1, under each of `bitmap_names`, of that bitmap's size `h, w`;
            empty where no object has a mask; or None.
        keypoints: float32 `[M, J, 3]` x, y in resized pixels, and visibility (0 not labelled, 1 hidden, 2 visible); or
            None.
    """

    image: torch.Tensor
    image_id: int
    scale: tuple[float, float]
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    edges: ImageEdges | None = None
    bitmaps: dict[str, np.ndarray] | None = None
    keypoints: np.ndarray | None = None


def make_batch(
    samples: Sequence[Sample], shape: BatchShape, batch_size: int | None = None, *, ground_truth: bool = True
) -> Batch:
    """Pad samples to a static batch.

    Args:
        samples: one or more images.
        shape: the shapes allowed.
        batch_size: B; slots beyond the samples get image id -1, a black image of full bucket size and no objects.
        ground_truth: include ground truth.

    Returns:
        the batch: `images` uint8 or float32 `[B, 3, H, W]`, `image_sizes` int32 `[B, 2]` height, width, `scales`
        float32 `[B, 2]` y, x, `image_ids` int64 `[B]`; with ground truth `boxes` float32 `[B, M, 4]` x1, y1, x2, y2 in
        resized pixels, `labels` int64 `[B, M]`, `valid` and `crowd` bool `[B, M]`, and what was asked for of
        `mask_edges` float32 `[B, V, 4]`, `mask_polygons` int32 `[B, Q + 1]`, `mask_instances` int32 `[B, M + 1]`;
        `mask_bitmaps` uint8 `[B, M, H, W]`, or one `mask_bitmaps_<h>x<w>` uint8 `[B, M, h, w]` per reduced size;
        `keypoints` float32 `[B, M, J, 3]`.

    Raises:
        DataError: an image does not fit the shapes.
    """
    size = len(samples) if batch_size is None else batch_size
    height, width = shape.bucket(
        max(sample.image.shape[1] for sample in samples), max(sample.image.shape[2] for sample in samples)
    )
    batch: Batch = {
        "images": _zeros((size, 3, height, width), samples[0].image.dtype),
        "image_sizes": torch.tensor([[height, width]], dtype=torch.int32).repeat(size, 1),
        "scales": torch.ones((size, 2), dtype=torch.float32),
        "image_ids": torch.full((size,), -1, dtype=torch.int64),
    }
    for b, sample in enumerate(samples):
        _, h, w = sample.image.shape
        batch["images"][b, :, :h, :w] = sample.image
        batch["image_sizes"][b] = torch.tensor([h, w], dtype=torch.int32)
        batch["scales"][b] = torch.tensor(sample.scale, dtype=torch.float32)
        batch["image_ids"][b] = sample.image_id
    if ground_truth:
        batch |= _boxes(samples, shape, size)
        if shape.masks == "polygons":
            batch |= _edges(samples, shape, size)
        elif shape.masks == "bitmaps":
            batch |= _bitmaps(samples, shape, size, (height, width))
        if shape.keypoints:
            batch["keypoints"] = _keypoints(samples, shape, size)
    return batch


def _zeros(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Make zeros; in a worker process in shared memory, so that the main process gets them without a copy."""
    if get_worker_info() is None:
        return torch.zeros(shape, dtype=dtype)
    memory = torch.UntypedStorage._new_shared(math.prod(shape) * dtype.itemsize)
    return torch.empty(0, dtype=dtype).set_(memory).view(shape).zero_()


def _boxes(samples: Sequence[Sample], shape: BatchShape, size: int) -> Batch:
    slots = shape.max_instances
    boxes = np.zeros((size, slots, 4), dtype=np.float32)
    labels = np.zeros((size, slots), dtype=np.int64)
    valid = np.zeros((size, slots), dtype=bool)
    crowd = np.zeros((size, slots), dtype=bool)
    for b, sample in enumerate(samples):
        n = len(sample.labels)
        _check(sample, n, slots, "instances", "max_instances")
        boxes[b, :n], labels[b, :n], valid[b, :n], crowd[b, :n] = sample.boxes, sample.labels, True, sample.crowd
    arrays = {"boxes": boxes, "labels": labels, "valid": valid, "crowd": crowd}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _edges(samples: Sequence[Sample], shape: BatchShape, size: int) -> Batch:
    edges = np.zeros((size, shape.max_edges, 4), dtype=np.float32)
    polygons = np.zeros((size, shape.max_polygons + 1), dtype=np.int32)
    instances = np.zeros((size, shape.max_instances + 1), dtype=np.int32)
    for b, sample in enumerate(samples):
        masks = sample.edges
        if masks is None:
            raise ValueError("Polygon masks were asked for, but a sample has none.")
        count = len(masks.edges)
        _check(sample, count, shape.max_edges, "mask edges", "max_edges")
        _check(sample, len(masks.polygon_edges), shape.max_polygons, "mask polygons", "max_polygons")
        edges[b, :count] = masks.edges
        _fill_offsets(polygons[b], masks.polygon_edges)
        _fill_offsets(instances[b], masks.instance_polygons)
    arrays = {"mask_edges": edges, "mask_polygons": polygons, "mask_instances": instances}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _bitmaps(samples: Sequence[Sample], shape: BatchShape, size: int, bucket: tuple[int, int]) -> Batch:
    batch: Batch = {}
    for name, area in zip(bitmap_names(shape.bitmap_sizes), shape.bitmap_sizes or [bucket], strict=True):
        batch[name] = _zeros((size, shape.max_instances, *area), torch.uint8)
        for b, sample in enumerate(samples):
            if sample.bitmaps is None:
                raise ValueError("Bitmap masks were asked for, but a sample has none.")
            if name in sample.bitmaps:
                n, h, w = sample.bitmaps[name].shape
                batch[name][b, :n, :h, :w] = torch.from_numpy(sample.bitmaps[name])
    return batch


def _keypoints(samples: Sequence[Sample], shape: BatchShape, size: int) -> torch.Tensor:
    keypoints = torch.zeros((size, shape.max_instances, shape.keypoints, 3), dtype=torch.float32)  # [B, M, J, 3]
    for b, sample in enumerate(samples):
        if sample.keypoints is None:
            raise ValueError("Keypoints were asked for, but a sample has none.")
        keypoints[b, : len(sample.keypoints)] = torch.from_numpy(sample.keypoints)
    return keypoints


def _fill_offsets(out: np.ndarray, counts: np.ndarray) -> None:
    """Write running sums behind the leading 0 and repeat the last one to the end."""
    total = np.cumsum(counts)
    out[1 : len(total) + 1] = total
    out[len(total) + 1 :] = total[-1] if len(total) else 0


def _check(sample: Sample, count: int, limit: int, what: str, option: str) -> None:
    if count > limit:
        raise DataError(
            f"Image {sample.image_id} has {count} {what}, more than the {limit} that {option} allows. Raise {option} "
            f"to {count} or more."
        )


def _up(length: int, divisor: int = 32) -> int:
    return -(-length // divisor) * divisor
