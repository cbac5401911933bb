"""Test-time augmentation: a picture looked at in several sizes, and mirrored."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, get_args

import numpy as np
import torch
from torch import Tensor

from det_coco import BatchShape, Resize, default_buckets, make_batch
from det_coco.mask_windows import mirrored
from det_heads import Branch, CascadeMaskHeads, MaskHead, TwoStageDetector
from det_models.background import background
from det_models.changes import with_size
from det_models.detections import Detections
from det_models.detector_config import DetectorConfig
from det_models.errors import OptionError, whole_number
from det_models.fusion import Boxes, fused
from det_models.images import Loaded, load, sample_of
from det_models.inference import plain_tensors
from det_models.merging import best, together
from det_ops import batched_nms

if TYPE_CHECKING:
    from det_models.predictor import Predictor

__all__ = ["View", "Views", "in_views"]

_SIZES = tuple(number / 8 for number in range(4, 13))
"""detectron2's 400, 500, ..., 1200 for detectors of images of 800 pixels."""


Merge = Literal["nms", "weighted"]


class View(NamedTuple):
    """One look at a picture.

    Attributes:
        resize: What it is resized by.
        flip: Whether left and right are exchanged.
    """

    resize: Resize
    flip: bool


@dataclass(frozen=True, kw_only=True)
class Views:
    """How a picture is looked at several times (test-time augmentation).

    A two-stage detector takes the boxes of all views, suppresses as in one, and takes the mean over the views of the
    masks of what is left: detectron2's `GeneralizedRCNNWithTTA`. YOLACT, whose masks belong to a view, keeps the best.

    Attributes:
        sizes: Lengths of the shorter side, in pixels; by default from half of the detector's to one and a half.
        longest: Limit of the longer side; by default 10 / 3 of the largest size.
        flip: Look at each mirrored too.
        merge: How boxes of an object in several views become one: `nms` keeps the best, `weighted` takes a mean of
            two-stage detectors' (:func:`det_models.fusion.fused`), with the detector's threshold.

    Raises:
        OptionError: A length is not positive, or there is no such way to merge.
    """

    sizes: tuple[int, ...] = ()
    longest: int | None = None
    flip: bool = True
    merge: Merge = "nms"

    def __post_init__(self) -> None:
        if self.merge not in get_args(Merge):
            raise OptionError(f"merge must be one of {', '.join(get_args(Merge))}, got {self.merge!r}.")
        for size in self.sizes:
            whole_number("sizes", size)
        if self.longest is not None:
            whole_number("longest", self.longest)

    def of(self, resize: Resize) -> list[View]:
        """The views for a detector, each size as it is and then mirrored.

        Args:
            resize: What the detector's images are resized by.
        """
        sizes = self.sizes or tuple(round(resize.shortest[-1] * factor) for factor in _SIZES)
        views = []
        for size in sizes:
            longest = size if resize.rule == "yolact" else self.longest or max(sizes) * 10 // 3
            scaled = Resize(shortest=(size,), longest=longest, rule=resize.rule)
            views += [View(scaled, flip) for flip in ((False, True) if self.flip else (False,))]
        return views


def in_views(detector: "Predictor", images: Iterable[Any], views: Views, min_score: float) -> Iterator[Detections]:
    """What a detector finds in pictures that it looks at several times.

    Args:
        detector: A two-stage detector of boxes and masks, or YOLACT.
        images: Pictures of any kind that :func:`det_models.images.load` knows; read ahead in a thread.
        views: The looks.
        min_score: Leave out what has a lower score.

    Raises:
        OptionError: It finds more than boxes and masks, or a size is too small for it.
    """
    several = views.of(detector.config.resize)
    network = detector.network
    if isinstance(network, TwoStageDetector):
        if not all(isinstance(branch, MaskHead | CascadeMaskHeads) for branch in network.branches):
            raise OptionError("Test-time augmentation is for boxes and masks; this detector finds more. Leave out tta.")
        look = partial(_two_stage, merge=_fused if views.merge == "weighted" else _merged)
    else:
        if views.merge != "nms":
            raise OptionError("Masks of this detector belong to a view, so boxes of several cannot be fused. Use nms.")
        for view in several:
            with_size(detector.config, view.resize.shortest[-1])  # refuses one that is too small
        look = _each
    for picture in background(map(load, images)):
        found = look(detector, picture, several)
        yield replace(found[found.scores >= min_score], image=picture.pixels, source=picture.source)


def _batch(detector: "Predictor", picture: Loaded, view: View) -> dict[str, Tensor]:
    """A picture as a batch of one, as it looks in a view."""
    with plain_tensors():
        sample = sample_of(picture.pixels, view.resize)
        if view.flip:
            sample = replace(sample, image=sample.image.flip(-1))
        shape = BatchShape(buckets=default_buckets(view.resize), masks="none", tight=detector.shape.tight)
        return make_batch([sample], shape, ground_truth=False)


def _each(detector: "Predictor", picture: Loaded, views: Sequence[View]) -> Detections:
    """The best of all views, each with its own mask."""
    parts = []
    for view in views:
        batch = _batch(detector, picture, view)
        (found,) = detector.detect(batch, [picture.size])
        parts.append(_unflipped(found) if view.flip else found)
    threshold = detector.config.detector.nms_threshold  # type: ignore[union-attr]
    return best(together(parts), "iou", threshold)[: detector.max_detections or detector.config.max_detections]


def _unflipped(found: Detections) -> Detections:
    """The detections of a mirrored picture in that picture."""
    x1, y1, x2, y2 = found.boxes.T
    boxes = np.stack([found.size[1] - x2, y1, found.size[1] - x1, y2], axis=1)
    return replace(found, boxes=boxes, rle=None if found.rle is None else [mirrored(rle) for rle in found.rle])


def _two_stage(
    detector: "Predictor", picture: Loaded, views: Sequence[View], merge: Callable[..., dict[str, Tensor]]
) -> Detections:
    """Boxes of all views, merged, and the mean of their masks."""
    network = cast(TwoStageDetector, detector.network)
    with torch.inference_mode(), plain_tensors(), detector.autocast():
        looks = [_Look(detector, network, picture, view) for view in views]
        found = merge([look.boxes() for look in looks], picture.size, detector, network)
        for branch in network.branches:
            found["masks"] = torch.stack([look.masks(branch, found) for look in looks]).mean(0)
        (reported,) = network.to_image(found, torch.ones(1, 2), [picture.size])
    return detector.reported(reported, picture.size)


class _Look:
    """A view of a picture, from which the network's boxes and masks come; features are made anew for each."""

    def __init__(self, detector: "Predictor", network: TwoStageDetector, picture: Loaded, view: View) -> None:
        self.network, self.flip = network, view.flip
        batch = _batch(detector, picture, view)
        self.batch = {name: batch[name].to(detector.device) for name in ("images", "image_sizes")}
        y, x = batch["scales"][0].tolist()
        self.scale = torch.tensor([x, y, x, y], device=detector.device)
        self.width = int(batch["image_sizes"][0, 1])

    def boxes(self) -> dict[str, Tensor]:
        """Detected `boxes [1, N, 4]` in pixels of the picture, `scores`, `labels` and `valid [1, N]`."""
        found = self.network.detect_boxes(self._features(), self.batch)
        return {**found, "boxes": self._mirrored(found["boxes"]) / self.scale}

    def masks(self, branch: Branch, found: Mapping[str, Tensor]) -> Tensor:
        """Masks `[1, K, S, S]` of `boxes [1, K, 4]` in pixels of the picture, as the picture shows them."""
        boxes = self._mirrored(found["boxes"] * self.scale)
        masks = branch.detect(self._features(), {**found, "boxes": boxes})["masks"]
        return masks.flip(-1) if self.flip else masks

    def _features(self) -> Sequence[Tensor]:
        return self.network.backbone(self.network.normalize(self.batch))

    def _mirrored(self, boxes: Tensor) -> Tensor:
        """Boxes [..., 4] of the view, mirrored if it is, and the reverse."""
        if not self.flip:
            return boxes
        x1, y1, x2, y2 = boxes.unbind(-1)
        right = self.width - self.network.rpn.coder.offset
        return torch.stack([right - x2, y1, right - x1, y2], -1)


def _merged(
    parts: Sequence[Mapping[str, Tensor]], size: tuple[int, int], detector: "Predictor", network: TwoStageDetector
) -> dict[str, Tensor]:
    """The best of the boxes of all views, `[1, K, ...]`."""
    config, coder = cast(DetectorConfig, detector.config.detector).box, network.boxes.coder
    every = {name: torch.cat([part[name] for part in parts], 1) for name in parts[0]}
    boxes = coder.clip(every["boxes"], torch.tensor([size], device=detector.device))
    index, valid = batched_nms(
        boxes,
        every["scores"],
        every["labels"],
        config.nms_threshold,
        max_output=config.max_detections,
        valid=every["valid"],
        offset=coder.offset,
    )
    return {
        "boxes": torch.where(valid[..., None], boxes.gather(1, index[..., None].expand(-1, -1, 4)), 0.0),
        "scores": torch.where(valid, every["scores"].gather(1, index), 0.0),
        "labels": torch.where(valid, every["labels"].gather(1, index), 0),
        "valid": valid,
    }


def _fused(
    parts: Sequence[Mapping[str, Tensor]], size: tuple[int, int], detector: "Predictor", network: TwoStageDetector
) -> dict[str, Tensor]:
    """Means of the boxes of all views, `[1, K, ...]`."""
    config, coder = cast(DetectorConfig, detector.config.detector).box, network.boxes.coder
    limits = torch.tensor([size], device=detector.device)
    looks = []
    for part in parts:
        valid = part["valid"][0]
        clipped = coder.clip(part["boxes"], limits)[0][valid]
        looks.append(
            Boxes(*(value.cpu().numpy() for value in (clipped, part["scores"][0][valid], part["labels"][0][valid])))
        )
    means = fused(looks, config.nms_threshold)
    count, most = min(len(means.scores), config.max_detections), config.max_detections

    def padded(values: np.ndarray, like: Tensor) -> Tensor:
        given = torch.from_numpy(values[:count]).to(like)
        return torch.cat([given, given.new_zeros(most - count, *given.shape[1:])])[None]

    found = {name: padded(getattr(means, name), parts[0][name]) for name in ("boxes", "scores", "labels")}
    return {**found, "valid": torch.arange(most, device=detector.device)[None] < count}
