"""Options of the commands that detect."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import tyro

import det_coco
import det_models
from apps.common.config import at_least

DraftFormat = Literal["coco", "yolo", "label-studio"]


def check_score(min_score: float) -> None:
    """Refuse a least score that no detection, or every one, has.

    Raises:
        ValueError: it is not between 0 and 1.
    """
    if not 0 <= min_score <= 1:
        raise ValueError(f"min_score must be between 0 and 1, got {min_score:g}")


@dataclass(frozen=True, kw_only=True)
class DetectorOptions:
    """What `eval` and `predict` may be told of the detector."""

    weights: Path
    """A checkpoint, the folder of a run (its checkpoints/best.pt), a detector of another system, or the name of a
    published one, such as detectron2/mask_rcnn_R_50_FPN_3x; `weights` lists them."""
    recipe: str | None = None
    """For a file of another system: the recipe that resizes its images; by default they are resized as that system
    does it."""
    size: tuple[int, ...] = ()
    """Pixels of an image's shorter side and, if you like, the limit of its longer side; for YOLACT, the side of a
    square. By default as in the run's own evaluation, or as the other system does it."""
    classes: tuple[str, ...] = ()
    """Names or ids of the categories to detect; by default all."""
    max_detections: int | None = None
    """The most detections in an image; by default as in the run, or in the other system."""
    nms_iou: float | None = None
    """Non-maximum suppression drops a box whose IoU with a better one is larger than this; by default as in the run."""
    batch: int | None = None
    """Images that go through the network at a time."""
    exif: bool | None = None
    """Turn pictures upright as their EXIF orientation says; by default as in the run, which does unless told not to."""
    device: str = "auto"
    """auto, cpu, cuda or npu."""
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    """Number format of the forward pass."""
    tile: tuple[int, ...] = ()
    """Look at big pictures in tiles with this side, or with this height and width, in pixels."""
    overlap: float | None = None
    """Share of a tile that the next one shows too; by default 0.2."""
    tile_whole: bool | None = None
    """With tiles, also look at the whole picture, for objects larger than a tile; by default True."""
    tile_merge: Literal["nms", "join"] | None = None
    """How detections of one object in several tiles are merged: nms keeps the best (default), join joins their boxes
    and masks."""
    tile_match: Literal["ios", "iou"] | None = None
    """The overlap that tells whether they are one object: ios, intersection over the smaller area (default), or iou."""

    tta: bool = False
    """Test-time augmentation: look at each picture in several sizes, as it is and mirrored."""
    tta_sizes: tuple[int, ...] = ()
    """Lengths of the shorter side for --tta, in pixels; by default nine, from half of the usual length to one and a
    half times it."""
    tta_merge: Literal["nms", "weighted"] = "nms"
    """How boxes of one object in several views are merged: nms keeps the best; weighted takes their mean, weighted by
    scores (weighted boxes fusion; two-stage detectors only)."""

    @property
    def looks(self) -> dict[str, Any]:
        """How pictures are looked at, if not once each: arguments of :meth:`Predictor.predict`.

        Raises:
            OptionError, ValueError: the options make no sense.
        """
        if self.tta_sizes and not self.tta:
            raise ValueError("tta_sizes are of test-time augmentation, which tta asks for")
        if min(self.tta_sizes, default=1) < 1:
            raise ValueError(f"tta_sizes must be at least 1, got {min(self.tta_sizes)}")
        if self.tta_merge != "nms" and not self.tta:
            raise ValueError("tta_merge is of test-time augmentation, which tta asks for")
        views, tiling = det_models.Views(sizes=self.tta_sizes, merge=self.tta_merge) if self.tta else None, self.tiling
        if views and tiling:
            raise ValueError("tta cannot be had together with tile")
        return {"tta": views} if views else {"tile": tiling} if tiling else {}

    @property
    def tiling(self) -> det_models.Tiling | None:
        """The tiles, where there are some.

        Raises:
            OptionError: their options make no sense.
        """
        named = {"overlap": self.overlap, "whole": self.tile_whole, "merge": self.tile_merge, "match": self.tile_match}
        given: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
        if self.tile:
            return det_models.Tiling(
                size=self.tile[0] if len(self.tile) == 1 else cast("tuple[int, int]", self.tile), **given
            )
        if given:
            name = next(iter(given))
            raise ValueError(f"{name if name == 'overlap' else f'tile_{name}'} is of tiles, whose size tile says")
        return None

    def __post_init__(self) -> None:
        self.looks  # noqa: B018 - refuses what makes no sense
        for name in ("batch", "max_detections"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if len(self.size) > 2:
            raise ValueError(f"size takes one length or two, got {len(self.size)}")


@dataclass(frozen=True, kw_only=True)
class EvalOptions(DetectorOptions):
    """Options of `eval`."""

    min_score: float = 0.0
    """Leave out detections with a lower score. This lowers AP, which counts all of them, best first."""
    max_detections: int | None = None
    """The most detections in an image, all of which the metrics count; by default as in the run, or in the other
    system. Metrics count at least 100 detections of each class, as COCO's do."""
    iou_thresholds: tuple[float, ...] = ()
    """IoU thresholds whose mean is AP; by default COCO's, 0.5 to 0.95."""
    area_ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Size ranges with an AP of their own, each as name, smallest and largest area in square pixels, such as
    `tiny 0 256 rest 256 1e10`; by default COCO's s, m and l."""
    images: tuple[int, ...] = ()
    """Ids of the images to evaluate on; by default all of the split."""
    per_class: bool = False
    """Also print the AP of each class."""
    data: Path | None = None
    """Data set: a folder or an annotation file, in COCO's or another format; by default the run's own."""
    split: str | None = None
    """Split to evaluate on; by default val2017, else val, valid, validation or test, else the only one."""
    output: Path | None = None
    """Folder for results, predictions and pictures; by default runs/<app>/eval-<time>."""
    nproc: int = 1
    """Processes on this machine that share the images, each with its own device."""
    hang_seconds: float = 900.0
    """If no process shows a sign of life for this long, the evaluation ends and names the one that hangs."""
    pictures: int = 8
    """Images drawn beside the truth."""

    def __post_init__(self) -> None:
        DetectorOptions.__post_init__(self)
        check_score(self.min_score)
        at_least(self, pictures=0, hang_seconds=1)
        if self.iou_thresholds or self.area_ranges:
            self.protocol()

    def protocol(self) -> det_coco.Protocol:
        """Thresholds and sizes.

        Raises:
            ValueError: they make no sense.
        """
        given: dict[str, Any] = {"area_ranges": self.area_ranges, "iou_thresholds": self.iou_thresholds}
        return det_coco.Protocol(**{name: value for name, value in given.items() if value})


@dataclass(frozen=True, kw_only=True)
class PredictOptions(DetectorOptions):
    """Options of `predict`."""

    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Pictures, folders of pictures, video files."""
    data: Path | None = None
    """Instead of pictures: a data set, with or without ground truth; the results have its image ids."""
    split: str | None = None
    """Split of the data set; by default val2017, else val, valid, validation or test, else the only one."""
    output: Path | None = None
    """Folder for predictions.json, pictures and videos; by default runs/<app>/predict-<time>."""
    min_score: float = 0.5
    """Detections with a lower score are written but not drawn."""
    show: tuple[Literal["masks", "boxes", "scores", "fps"], ...] = ("masks", "boxes", "scores", "fps")
    """What to draw; fps, the frames per second of the whole pipeline, is drawn on videos only."""
    as_annotations: DraftFormat | None = None
    """Also write a data set of the detections with `min_score` or better, with links to the pictures, to correct in a
    labelling tool or to train on: coco, yolo, or label-studio for its import of predictions."""
    unsure_score: float | None = None
    """With --as-annotations coco: detections from this score up to `min_score` become regions that training ignores."""
    strict: bool = False
    """Stop at the first file that cannot be read; by default such files are named and skipped."""

    def __post_init__(self) -> None:
        DetectorOptions.__post_init__(self)
        check_score(self.min_score)
        if self.unsure_score is not None:
            if self.as_annotations != "coco":
                raise ValueError("unsure_score is for as_annotations coco, whose files can leave regions out")
            if not 0 <= self.unsure_score <= self.min_score:
                raise ValueError(f"unsure_score must be between 0 and min_score, got {self.unsure_score}")
        if self.data is not None and self.inputs:
            raise ValueError("data stands for the pictures of a data set; leave out the others")
        if self.data is None and self.split is not None:
            raise ValueError("split is one of a data set, which data names")


@dataclass(frozen=True, kw_only=True)
class BenchmarkFilesOptions:
    """Options of `benchmark` for several files, or one that was exported."""

    weights: tuple[Path, ...]
    """Checkpoints, and files that `export` wrote."""
    data: Path | None = None
    """Data set with the pictures, for which AP is computed; by default the run's own."""
    split: str | None = None
    """Split of the data set; by default val2017, else val, valid, validation or test, else the only one."""
    device: str = "auto"
    """auto, cpu, cuda or npu; exported files run on the CPU unless you name a device."""
    steps: int = 20
    """Number of timed pictures."""
    warmup: int = 3
    """Number of pictures before the timing."""

    def __post_init__(self) -> None:
        at_least(self, steps=1, warmup=0)
