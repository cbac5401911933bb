"""Every decision in which one-stage detectors differ, as typed fields; the defaults are detectron2's RetinaNet.

Sources in the docstrings: `d2` is facebookresearch/detectron2, `tv` torchvision.models.detection, `mm`
open-mmlab/mmdetection 3.
"""

from dataclasses import dataclass, field
from typing import Literal

from det_backbones import PixelConfig
from det_heads._require import require
from det_heads.config import MOST_CONVS, AnchorConfig, BoxCodingConfig, BoxLoss, require_box_loss

__all__ = ["LocationConfig", "OneStageConfig", "octaves"]


def octaves(*, whole: bool = False) -> tuple[tuple[float, ...], ...]:
    """Sizes of RetinaNet's anchors: on each level three that divide an octave.

    Args:
        whole: Whole pixels (tv).
    """
    sizes = [[size * 2 ** (third / 3) for third in range(3)] for size in (32, 64, 128, 256, 512)]
    return tuple(tuple(float(int(size)) if whole else float(size) for size in level) for level in sizes)


@dataclass(frozen=True, kw_only=True, slots=True)
class LocationConfig:
    """What makes a detector FCOS: cells learn the objects that they lie in.

    Attributes:
        radius: A cell is positive within so many strides of an object's centre ("centre sampling").
        reach: On its level, if the farthest side of the object is between so many strides away; the finest level has
            no lower bound and the coarsest no upper one.
    """

    radius: float = 1.5
    reach: tuple[float, float] = (4.0, 8.0)

    def __post_init__(self) -> None:
        require(self.radius > 0, "locations.radius", "positive", self.radius)
        require(0 < self.reach[0] < self.reach[1], "locations.reach", "two rising numbers", self.reach)


@dataclass(frozen=True, kw_only=True, slots=True)
class OneStageConfig:
    """A RetinaNet, or with `locations` an FCOS, without its backbone.

    Attributes:
        num_classes: Object classes, background not counted.
        pixels: Input normalisation.
        anchors: Anchor boxes; of FCOS a square of one stride per cell, which distances are measured in.
        locations: FCOS: no matching by IoU, distances instead of deltas, and a prediction of centredness. None:
            RetinaNet.
        convs: 3x3 convolutions of each tower.
        norm: Group normalisation after each of them (d2's and tv's FCOS, tv v2), or None.
        norm_bias: Whether they have a bias beside it (d2's and tv's FCOS), or not (tv v2).
        coding: Box coding of RetinaNet.
        positive_iou: Anchors at or above this IoU are positive, as is each object's best anchor.
        negative_iou: Anchors below this IoU are negative, between the two they are ignored.
        reassign_low_quality: Best anchors stand for that object (mm gt_max_assign_all), else for the one of largest
            IoU.
        ignore_iof: Share of an anchor or cell in a crowd or ignored region from which on it is neither object nor
            background, for training on annotations of which some are unsure; None: it is background (all systems).
        focal_alpha: Weight of a positive in the focal loss, 1 - alpha that of the others; -1: none.
        focal_gamma: How much what is classified well counts less.
        box_loss: `smooth_l1` of deltas, or by the overlap of boxes: `giou` (tv v2, FCOS), `diou`, `ciou`.
        beta: Where smooth L1 becomes linear: 0, plain L1, in all systems.
        normalizer: Losses are divided by the number of positives of the whole `batch` (the paper, mm, FCOS), or of
            each `image`, and the mean is taken (tv's RetinaNet). d2 divides by a running mean of the number in the
            images of one process, since that swings; here it is the number in those of all processes.
        candidates: Best scores kept per level before NMS.
        score_threshold: Detections need a larger score.
        clip: Boxes are cut at the image's border `before` NMS (tv, mm) or `after` it (d2).
        nms_threshold: IoU above which a detection of the same class is suppressed.
        max_detections: Best detections kept per image.
    """

    num_classes: int = 80
    pixels: PixelConfig = field(default_factory=PixelConfig)
    anchors: AnchorConfig = field(default_factory=lambda: AnchorConfig(sizes=octaves()))
    locations: LocationConfig | None = None
    convs: int = 4
    norm: Literal["gn"] | None = None
    norm_bias: bool = True
    coding: BoxCodingConfig = field(default_factory=BoxCodingConfig)
    positive_iou: float = 0.5
    negative_iou: float = 0.4
    reassign_low_quality: bool = False
    ignore_iof: float | None = None
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    box_loss: BoxLoss = "smooth_l1"
    beta: float = 0.0
    normalizer: Literal["batch", "image"] = "batch"
    candidates: int = 1000
    score_threshold: float = 0.05
    clip: Literal["before", "after"] = "after"
    nms_threshold: float = 0.5
    max_detections: int = 100

    def __post_init__(self) -> None:
        require_box_loss(self.box_loss, "box_loss")
        for name in ("num_classes", "candidates", "max_detections"):
            require(getattr(self, name) > 0, name, "positive", getattr(self, name))
        require(0 <= self.convs <= MOST_CONVS, "convs", f"0 to {MOST_CONVS}", self.convs)
        require(self.norm in (None, "gn"), "norm", "gn or None", self.norm)
        require(self.negative_iou <= self.positive_iou, "negative_iou", "at most positive_iou", self.negative_iou)
        valid = self.ignore_iof is None or 0 < self.ignore_iof <= 1
        require(valid, "ignore_iof", "more than 0 and at most 1, or None", self.ignore_iof)
        require(self.normalizer in ("batch", "image"), "normalizer", "batch or image", self.normalizer)
        require(0 <= self.score_threshold < 1, "score_threshold", "in [0, 1)", self.score_threshold)
        require(self.clip in ("before", "after"), "clip", "before or after", self.clip)
        if self.locations is not None:
            squares = self.anchors.per_cell == 1 and self.anchors.ratios == (1.0,)
            require(squares, "anchors", "one square per cell with locations", self.anchors)
            require(self.box_loss != "smooth_l1", "box_loss", "an overlap with locations", self.box_loss)

    @property
    def title(self) -> str:
        """What its architecture is called."""
        return "RetinaNet" if self.locations is None else "FCOS"
