"""A trained detector that is shown images."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from io import IOBase
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from det_coco import Batch, BatchShape, list_images
from det_heads import ImageDetections, PoolConfig, YolactConfig
from det_heads.pooling import RoIPool
from det_models.background import background
from det_models.builders import Detector
from det_models.changes import labels_of
from det_models.config import ModelConfig
from det_models.detections import Detections, Features
from det_models.errors import OptionError, whole_number
from det_models.images import Loaded, batches_of, is_image, unknown_kind
from det_models.inference import optimize_for_inference, plain_tensors
from det_models.tiling import Tiling, in_tiles
from det_models.views import Views, in_views
from det_ops import Conv2d

__all__ = ["PRECISIONS", "Predictor"]

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Number formats of the forward pass, and what autocast computes convolutions and products in."""


class Output(NamedTuple):
    """What a network says of a batch.

    Attributes:
        detections: By name, see :class:`det_heads.TwoStageDetector` and :class:`det_heads.Yolact`.
        pyramid: Per level [B, C, H, W], or nothing.
    """

    detections: dict[str, Tensor]
    pyramid: tuple[Tensor, ...]


class Predictor:
    """A detector for inference: its norms are folded into the convolutions and its weights transformed in advance.

    It can be pickled, copied and used by several threads at once; it keeps nothing of the images that it saw and
    changes no setting of the process. Made by :func:`det_models.load`.

    Args:
        network: With trained weights. It is copied, and stays as it is.
        config: Its configuration, and the images that it gets.
        categories: Name by id, in the order of the labels; None for a label that is never reported.
        device: Where to run, `auto` for the first accelerator that there is, or else the CPU.
        precision: One of :data:`PRECISIONS`.
        batch_size: Images at a time, where several are given.
        max_detections: The most detections of an image, after the choice of classes.
        classes: Names or ids of the categories to report; all by default.
        limbs: What pictures join, see :attr:`Detections.limbs`.
        source: Where the weights are from, for `repr`.

    Raises:
        OptionError: A value is none that it can have; the message names those that it can.
    """

    def __init__(
        self,
        network: Detector,
        config: ModelConfig,
        categories: Mapping[int, str | None],
        *,
        device: str | torch.device = "auto",
        precision: str = "fp32",
        batch_size: int = 1,
        max_detections: int | None = None,
        classes: Iterable[str | int] | None = None,
        limbs: Sequence[tuple[int, int]] = (),
        source: str = "",
    ) -> None:
        if precision not in PRECISIONS:
            raise OptionError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}.")
        self.device = device_of(device)
        with plain_tensors():
            self.network = optimize_for_inference(network, self.device, PRECISIONS[precision])
        self.config = config
        self.precision = precision
        self._report(
            categories,
            batch_size=batch_size,
            max_detections=max_detections,
            classes=classes,
            limbs=limbs,
            source=source,
        )
        # An NPU compiles for every shape.
        self.shape = BatchShape(buckets=config.buckets, masks="none", tight=self.device.type != "npu")

    def _report(
        self,
        categories: Mapping[int, str | None],
        *,
        batch_size: int,
        max_detections: int | None,
        classes: Iterable[str | int] | None,
        limbs: Sequence[tuple[int, int]],
        source: str,
    ) -> None:
        """Take what says how results are reported."""
        self.batch_size = whole_number("batch_size", batch_size)
        self.max_detections = None if max_detections is None else whole_number("max_detections", max_detections)
        self.limbs = tuple(limbs)
        self.source = source
        self.names = tuple(categories.values())
        self.ids = tuple(categories)
        labels = range(len(categories)) if classes is None else labels_of(categories, classes)
        self.labels = tuple(label for label in sorted(labels) if self.names[label] is not None)

    @property
    def categories(self) -> dict[int, str]:
        """Name by id of the categories that it reports."""
        return {self.ids[label]: str(self.names[label]) for label in self.labels}

    @property
    def tasks(self) -> tuple[str, ...]:
        """What it finds, see :attr:`ModelConfig.tasks`."""
        return self.config.tasks

    def predict(
        self,
        images: Any,
        *,
        min_score: float = 0.0,
        batch_size: int | None = None,
        features: bool = False,
        tile: int | tuple[int, int] | Tiling | None = None,
        overlap: float = 0.2,
        tta: bool | Views = False,
    ) -> Any:
        """Detect objects.

        Args:
            images: One image: the path of a picture, a PIL image, an array uint8 [H, W, 3] RGB or a tensor
                uint8 [3, H, W] RGB. Or several: a list or tuple of images, the path of a folder, or an
                iterable, which is read ahead by a few batches in a thread.
            min_score: Leave out what has a lower score.
            batch_size: Images at a time; by default the predictor's.
            features: Add the feature maps of the pyramid and those of each detection, see
                :class:`~det_models.detections.Features`.
            tile: Look at big pictures in tiles of this side, or (height, width), in pixels; a :class:`Tiling` says
                more of them.
            overlap: Share of such a tile that the next one shows too.
            tta: Test-time augmentation: look at each picture in several sizes, and mirrored. :class:`Views` says in
                which.

        Returns:
            :class:`Detections` of one image; a list of them for a list or tuple; for a folder or an iterable an
            iterator, which detects as it is asked.

        Raises:
            DataError: A file is no picture, or a folder holds none.
            OptionError: An image is of another type or shape, or an argument is out of range.
        """
        if not 0 <= min_score <= 1:
            raise OptionError(f"min_score must be between 0 and 1, got {min_score:g}.")
        count = self.batch_size if batch_size is None else whole_number("batch_size", batch_size)
        look = partial(self._stream, batch_size=count, min_score=min_score, features=features)
        special = [name for name, asked in (("features", features), ("tile", tile is not None), ("tta", tta)) if asked]
        if len(special) > 1:
            raise OptionError(f"{special[0]} cannot be had together with {special[1]}; leave out one of them.")
        if tile is not None:
            tiling = Tiling.of(tile, overlap)
            look = partial(in_tiles, look, tiling=tiling, max_detections=self.max_detections)
        elif tta:
            views = tta if isinstance(tta, Views) else Views()
            look = partial(self._in_views, views=views, min_score=min_score)
        if is_image(images) and tile is None and not tta:
            with plain_tensors():
                ((loaded, batch),) = batches_of([images], self.config.resize, self.shape, 1)
            return self._finish(loaded, batch, self.forward(batch, features=features), min_score)[0]
        if is_image(images):
            (found,) = look([images])
            return found
        if isinstance(images, str | Path):
            return look(list_images(images))
        if isinstance(images, list | tuple):
            return list(look(images))
        if not isinstance(images, Iterable) or isinstance(images, bytes | bytearray | Mapping | IOBase):
            raise unknown_kind(images)
        return look(images)

    def detect(self, batch: Batch, sizes: Sequence[tuple[int, int]]) -> list[Detections]:
        """The detections of a batch that a loader of det_coco made.

        Args:
            batch: ``images`` [B, 3, H, W], ``image_sizes`` [B, 2] and ``scales`` [B, 2].
            sizes: B original (height, width).
        """
        return self._results(self.forward(batch), batch, sizes, 0.0)

    def forward(self, batch: Mapping[str, Tensor], *, features: bool = False) -> Output:
        """What the network says of a batch.

        Args:
            batch: ``images`` [B, 3, H, W] and ``image_sizes`` [B, 2], on any device.
            features: Keep the pyramid.
        """
        inputs = {name: batch[name].to(self.device, non_blocking=True) for name in ("images", "image_sizes")}
        with torch.inference_mode(), plain_tensors(), self.autocast():
            if not features:  # called as a whole, which hooks see: a training's watchdog is one
                return Output(self.network(inputs), ())
            pyramid = self.network.backbone(self.network.normalize(inputs))
            return Output(self.network.from_features(pyramid, inputs), tuple(pyramid))

    def autocast(self) -> torch.autocast:
        """A context in which convolutions and products are computed in the number format of the precision."""
        dtype = PRECISIONS[self.precision]
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)

    def _stream(self, images: Iterable[Any], batch_size: int, min_score: float, features: bool) -> Iterator[Detections]:
        """Reading, the network, and masks with whatever the caller does, each in a thread of its own."""
        batches = background(batches_of(images, self.config.resize, self.shape, batch_size))
        outputs = background((loaded, batch, self.forward(batch, features=features)) for loaded, batch in batches)
        for loaded, batch, output in outputs:
            yield from self._finish(loaded, batch, output, min_score)

    def _in_views(self, images: Iterable[Any], views: Views, min_score: float) -> Iterator[Detections]:
        return in_views(self, images, views, min_score)

    def _finish(self, loaded: Sequence[Loaded], batch: Batch, output: Output, min_score: float) -> list[Detections]:
        found = self._results(output, batch, [image.size for image in loaded], min_score)
        return [replace(one, image=image.pixels, source=image.source) for one, image in zip(found, loaded, strict=True)]

    def _results(
        self, output: Output, batch: Batch, sizes: Sequence[tuple[int, int]], min_score: float
    ) -> list[Detections]:
        with torch.inference_mode(), plain_tensors():
            found = self._to_image(output.detections, batch["scales"], sizes)
        results = [self.reported(one, size, min_score) for one, size in zip(found, sizes, strict=True)]
        if not output.pyramid:
            return results
        return [
            replace(one, features=self._features(one, output.pyramid, batch, number))
            for number, one in enumerate(results)
        ]

    def _to_image(
        self, detections: Mapping[str, Tensor], scales: Tensor, sizes: Sequence[tuple[int, int]]
    ) -> list[ImageDetections]:
        return self.network.to_image(detections, scales, sizes)

    def reported(self, found: ImageDetections, size: tuple[int, int], min_score: float = 0.0) -> Detections:
        """What the network found in an image, as it is reported.

        Args:
            found: N detections, best first.
            size: (height, width) of the image.
            min_score: Leave out what has a lower score.
        """
        scores, labels = found.scores.numpy(), found.labels.numpy()
        rows = np.flatnonzero((scores >= min_score) & np.isin(labels, self.labels))[: self.max_detections]
        return Detections(
            boxes=found.boxes.numpy()[rows],
            scores=scores[rows],
            labels=labels[rows],
            categories=self.categories,
            category_ids=np.array(self.ids, dtype=np.int64)[labels[rows]],
            size=size,
            rle=None if found.masks is None else [found.masks[row] for row in rows],
            mask_scores=None if found.mask_scores is None else found.mask_scores.numpy()[rows],
            extra={name: np.asarray(values)[rows] for name, values in found.extra.items()},
            limbs=self.limbs,
        )

    def _features(self, found: Detections, pyramid: Sequence[Tensor], batch: Batch, number: int) -> Features:
        """The features of the image of that number in the batch."""
        strides = tuple(int(stride) for stride in self.network.backbone.strides)  # type: ignore[union-attr]
        height, width = batch["image_sizes"][number].tolist()
        y, x = batch["scales"][number].tolist()
        levels = [level[number : number + 1].float() for level in pyramid]  # [1, C, H, W]
        boxes = torch.from_numpy(found.boxes).to(self.device) * torch.tensor([x, y, x, y], device=self.device)
        with torch.inference_mode():
            first = torch.zeros(len(boxes), dtype=torch.int64, device=self.device)
            regions = RoIPool(PoolConfig(), strides)(levels, boxes, first, first == 0)
        return Features(
            pyramid=tuple(
                level[0, :, : -(-height // stride), : -(-width // stride)].cpu().numpy()
                for level, stride in zip(levels, strides, strict=True)
            ),
            strides=strides,
            scale=(y, x),
            regions=regions.cpu().numpy(),
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        # Transformed weights belong to the tensors that they were made of, and a copy has others.
        Conv2d.prepack(self.network)

    def __repr__(self) -> str:
        names = [str(self.names[label]) for label in self.labels]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        resize = self.config.resize
        size = f"{resize.shortest[-1]} to {resize.longest}" if resize.rule != "yolact" else f"{resize.longest}"
        source = f" from {self.source}" if self.source else ""
        return (
            f"{kind_of(self.config)}{source}: {len(names)} classes ({', '.join(names[:3])}{more}), images of {size} "
            f"pixels, {self.precision} on {self.device}"
        )


def kind_of(config: ModelConfig) -> str:
    """The name of an architecture, such as Mask R-CNN."""
    detector = config.detector
    if isinstance(detector, YolactConfig):
        return "YOLACT" if detector.mask_iou is None else "YOLACT++"
    return detector.title


def device_of(name: str | torch.device) -> torch.device:
    """The device of a name, of which `auto` is the first accelerator that there is, or else the CPU.

    Raises:
        OptionError: There is none of that name.
    """
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return torch.device("cpu") if accelerator is None else torch.zeros(1, device=accelerator).device
    try:
        probe = torch.zeros(1, device=torch.device(name))
        probe.cpu()  # a device may have a name here without being there
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise OptionError(f"device {str(name)!r} cannot be used: {reason}. Give auto, cpu, cuda or npu.") from error
    return probe.device  # with its index: every thread has a current device of its own
