"""A trained detector in an exported file, shown images as any other."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from det_coco import BatchShape
from det_heads import ImageDetections
from det_heads.postprocess import Original, to_image
from det_models.builders import build
from det_models.config import ModelConfig
from det_models.detections import Detections
from det_models.errors import OptionError
from det_models.exported.fitting import FittingResize
from det_models.exported.runtimes import Run, open_runtime
from det_models.predictor import Output, Predictor, device_of
from det_models.views import Views
from det_ops import encode_rle

__all__ = ["ExportedPredictor"]

Shape = tuple[int, int]


class ExportedPredictor(Predictor):
    """A detector in one or several exported files, of a shape each, run by the runtime that they are for.

    It is what :func:`det_models.load` makes of such a file, and gives the same :class:`~det_models.Detections`.

    Args:
        files: By (height, width) of their images.
        card: What they say of themselves, see :func:`det_models.export`.
        config: The detector.
        categories: Name by id, in the order of the labels.
        device: Where to run.
        batch_size: Images at a time; those of a file with a fixed number are filled up.
        max_detections: The most detections of an image, after the choice of classes.
        classes: Names or ids of the categories to report; all by default.
        limbs: What pictures join.
        source: The file's name, for `repr`.

    Raises:
        OptionError: A value is none that it can have.
    """

    def __init__(
        self,
        files: Mapping[Shape, Path],
        card: Mapping[str, Any],
        config: ModelConfig,
        categories: Mapping[int, str | None],
        *,
        device: str | torch.device = "auto",
        batch_size: int = 1,
        max_detections: int | None = None,
        classes: Iterable[str | int] | None = None,
        limbs: Sequence[tuple[int, int]] = (),
        source: str = "",
    ) -> None:
        shapes = tuple(files)
        self.device = device_of("cpu" if device == "auto" else device)
        self.config = replace(config, resize=FittingResize.of(config.resize, shapes), buckets=shapes)
        self.precision = str(card["precision"])
        fixed = card["batch"]
        self._report(
            categories,
            batch_size=batch_size if fixed == "dynamic" else int(fixed),
            max_detections=max_detections,
            classes=classes,
            limbs=limbs,
            source=source,
        )
        self.shape = BatchShape(buckets=shapes, masks="none")
        self.files, self.card = dict(files), dict(card)
        # Of which no value is needed: it says how detections get to the original image.
        with torch.device("meta"):
            self.network = build(config)
        self._loaded: dict[Shape, Run] = {}

    @property
    def tasks(self) -> tuple[str, ...]:
        """What it finds, without masks where it was exported so."""
        return tuple(task for task in self.config.tasks if task != "segm" or "masks" in self.card["outputs"])

    def forward(self, batch: Mapping[str, Tensor], *, features: bool = False) -> Output:
        """What the network says of a batch; see :meth:`Predictor.forward`.

        Raises:
            OptionError: Features are asked for, which an exported file does not give.
        """
        if features:
            raise OptionError(f"features cannot be had of {self.source}, which gives detections alone.")
        shape = (batch["images"].shape[2], batch["images"].shape[3])
        if shape not in self._loaded:
            self._loaded[shape] = open_runtime(self.files[shape], self.card, self.device)
        images, sizes = self._pixels(batch), batch["image_sizes"].cpu().to(torch.int32)
        count, fixed = len(images), self.card["batch"]
        step = count if fixed == "dynamic" else int(fixed)
        parts = []
        for start in range(0, count, step):
            some = [_filled(values[start : start + step], step) for values in (images, sizes)]
            parts.append(self._loaded[shape](*(values.numpy() for values in some)))
        found = {
            name: torch.from_numpy(np.concatenate([part[name] for part in parts])[:count])
            for name in self.card["outputs"]
        }
        return Output(found, ())

    def _in_views(self, images: Iterable[Any], views: Views, min_score: float) -> Iterator[Detections]:  # noqa: ARG002
        raise OptionError(
            f"{self.source} was exported for its own sizes of images; leave out tta, or give the checkpoint."
        )

    def _pixels(self, batch: Mapping[str, Tensor]) -> Tensor:
        images = batch["images"].cpu().to(self.config.resize.dtype)
        if self.card["preprocessing"] == "in":
            return images.contiguous()
        pixels = self.config.detector.pixels
        if pixels.order == "bgr":
            images = images.flip(1)
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (pixels.mean, pixels.std))
        inside = [
            torch.arange(side) < batch["image_sizes"].cpu()[:, axis, None] for axis, side in enumerate(images.shape[2:])
        ]
        normalised = (images.float() / pixels.scale - mean) / std
        return (normalised * (inside[0][:, None, :, None] & inside[1][:, None, None, :])).contiguous()

    def _to_image(
        self, detections: Mapping[str, Tensor], scales: Tensor, sizes: Sequence[Shape]
    ) -> list[ImageDetections]:
        detections, offset = dict(detections), getattr(self.config.detector, "offset", 0.0)
        if offset:  # which the file has added, and the branches expect without
            low, high = detections["boxes"].split(2, -1)
            detections["boxes"] = torch.cat((low, high - offset), -1)
        if "masks" not in detections:
            return to_image(detections, scales, sizes, offset=offset)
        if self.card["masks"] == "full":
            return to_image(detections, scales, sizes, offset=offset, branches=[_full_masks])
        return self.network.to_image(detections, scales, sizes)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def _filled(values: Tensor, count: int) -> Tensor:
    """The values with their last one repeated, `count` of them."""
    missing = count - len(values)
    return values if not missing else torch.cat((values, values[-1:].expand(missing, *values.shape[1:])))


def _full_masks(found: Mapping[str, Tensor], boxes: Tensor, original: Original) -> dict[str, Any]:  # noqa: ARG001
    """Masks [N, H, W] of the network's input as run lengths at the original size, by the nearest pixel."""
    masks = found["masks"].numpy()
    x, y = original.scale.tolist()
    rows = np.clip(((np.arange(original.height) + 0.5) * y).astype(int), 0, masks.shape[1] - 1)
    columns = np.clip(((np.arange(original.width) + 0.5) * x).astype(int), 0, masks.shape[2] - 1)
    drawn = [encode_rle(torch.from_numpy(mask[rows][:, columns])) for mask in masks]
    scores = {"mask_scores": found["mask_scores"]} if "mask_scores" in found else {}
    return {"masks": drawn, **scores}
