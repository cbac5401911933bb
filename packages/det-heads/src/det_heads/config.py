"""Every decision in which two-stage detectors differ, as typed fields.

The defaults are the modern ones (detectron2); `det_models.conventions` holds one complete set per reference system.
Sources in the docstrings: `d2` is facebookresearch/detectron2, `mrb` facebookresearch/maskrcnn-benchmark (and
mlcommons Mask R-CNN, which is the same model), `tv` torchvision.models.detection, `mm` open-mmlab/mmdetection 2.13.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from det_backbones import PixelConfig
from det_heads._require import require
from det_heads.classification_config import ClassificationConfig

__all__ = [
    "AnchorConfig",
    "BoxCodingConfig",
    "BoxHeadConfig",
    "CascadeConfig",
    "ClassificationConfig",
    "PixelConfig",
    "PoolConfig",
    "RPNConfig",
]

BoxLoss = Literal["smooth_l1", "giou", "diou", "ciou"]
"""Loss of box regression: smooth L1 between deltas, or 1 less an overlap of boxes."""

MOST_CONVS = 100
"""Convolutions in a row that a head may have: more come from a damaged file, not from a person."""


def require_box_loss(kind: str, name: str) -> None:
    """Refuse what is no :data:`~det_heads.box_regression.BoxLoss`, of the field of that name."""
    kinds = ("smooth_l1", "giou", "diou", "ciou")
    require(kind in kinds, name, "smooth_l1, giou, diou or ciou", kind)


@dataclass(frozen=True, kw_only=True, slots=True)
class AnchorConfig:
    """Anchor boxes of the pyramid.

    Attributes:
        sizes: Square roots of the anchor areas in pixels, one tuple per pyramid level.
        ratios: Height divided by width.
        rounding: `none`: exact (d2, mm); `round`: corners rounded to integers around the cell origin (tv);
            `legacy`: Faster R-CNN's integer windows of inclusive pixels centred on ``(stride - 1) / 2`` (mrb);
            `legacy_round`: the same of exact size, corners rounded (mmdetection 1).
        grid: `stride`: cells are the backbone's strides apart (d2, mrb, mm); `image`: padded image size divided by grid
            size, rounded down, which is 61 and not 64 for P6 of an image 800 pixels high (tv anchor_utils.py).
        straddle: Anchors reaching more than this many pixels over the image's border take no part in the RPN loss
            (mrb, mm: 0). None keeps all (d2 BOUNDARY_THRESH -1, tv).
        match_straddling: Such anchors are matched all the same, and can be an object's best (mrb); else its best is
            one that takes part (mm).
    """

    sizes: tuple[tuple[float, ...], ...] = ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,))
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    rounding: Literal["none", "round", "legacy", "legacy_round"] = "none"
    grid: Literal["stride", "image"] = "stride"
    straddle: float | None = None
    match_straddling: bool = True

    def __post_init__(self) -> None:
        counts = {len(s) for s in self.sizes}
        require(
            len(counts) == 1 and 0 not in counts, "anchors.sizes", "equally many per level, at least one", self.sizes
        )
        require(len(self.ratios) > 0 and min(self.ratios) > 0, "anchors.ratios", "positive, at least one", self.ratios)
        roundings = ("none", "round", "legacy", "legacy_round")
        require(self.rounding in roundings, "anchors.rounding", "none, round, legacy or legacy_round", self.rounding)
        require(self.grid in ("stride", "image"), "anchors.grid", "stride or image", self.grid)

    @property
    def per_cell(self) -> int:
        """Anchors per grid cell."""
        return len(self.sizes[0]) * len(self.ratios)


@dataclass(frozen=True, kw_only=True, slots=True)
class BoxCodingConfig:
    """Box regression coding (R-CNN, appendix C).

    Attributes:
        weights: Multipliers of dx, dy, dw, dh: 1 in the RPN, (10, 10, 5, 5) in the box head, in all systems.
        max_log_scale: Upper clamp of dw and dh before the exponential.
        clamp_below: Clamp dw and dh from below too (mm).
    """

    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    max_log_scale: float = math.log(1000.0 / 16.0)
    clamp_below: bool = False


_MOST_SAMPLES = 128
"""Of a region along one side: several times what any system takes, and still pooled in a moment."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolConfig:
    """RoIAlign over the pyramid.

    Attributes:
        size: Output height and width.
        sampling_ratio: Samples per bin and axis; 0 = adaptive, ``ceil(RoI / size)`` (d2, mm); 2 (mrb, tv).
        aligned: Half-pixel shift and no minimum RoI size (d2 "ROIAlignV2", mm); False: mrb, tv.
        levels: How many of the finest levels are pooled from (P2..P5).
        level_epsilon: 1e-8 (d2) or 1e-6 (mrb, tv, mm) in ``floor(4 + log2(sqrt(area) / 224))``.
        level_epsilon_inside_log: Added to the argument of log2 (d2, mrb, mm) or to its result (tv poolers.py).
        finest_size: 56 in ``floor(log2(sqrt(area) / 56 + 1e-6))``, counted from the finest level (mm finest_scale);
            None: by the formula above, counted from stride 1.
    """

    size: int = 7
    sampling_ratio: int = 0
    aligned: bool = True
    levels: int = 4
    level_epsilon: float = 1e-8
    level_epsilon_inside_log: bool = True
    finest_size: float | None = None

    def __post_init__(self) -> None:
        require(self.size >= 1, "size", "at least 1", self.size)
        require(self.sampling_ratio >= 0, "sampling_ratio", "0 (adaptive) or positive", self.sampling_ratio)
        samples = self.size * max(1, self.sampling_ratio)
        require(samples <= _MOST_SAMPLES, "size times sampling_ratio", f"at most {_MOST_SAMPLES}", samples)
        require(self.levels >= 1, "levels", "at least 1", self.levels)


@dataclass(frozen=True, kw_only=True, slots=True)
class RPNConfig:
    """Region proposal network (Faster R-CNN, section 3.1).

    Attributes:
        anchors: Anchor boxes.
        convs: Number of 3x3 convolutions before the predictors: 1, or 2 (tv v2, d2's LSJ baselines).
        coding: Box coding.
        positive_iou: Anchors at or above this IoU are positive.
        negative_iou: Anchors below this IoU are negative, between the two they are ignored.
        low_quality_matches: The best anchors of each object are positive although their IoU is smaller.
        low_quality_iou: But not below this IoU: 0 (d2, mrb, tv) or 0.3 (mm min_pos_iou).
        reassign_low_quality: They then stand for that object (mm gt_max_assign_all), else for the one of largest IoU.
        samples: Anchors per image in the loss.
        positive_fraction: Largest share of positives among them.
        beta: Where smooth L1 becomes linear: 0, plain L1 (d2); 1/9 (mrb, tv, mm).
        box_loss: `smooth_l1` of deltas, or by the overlap of boxes: `giou` (d2 BBOX_REG_LOSS_TYPE), `diou`, `ciou`.
        box_loss_weight: Factor of the box loss.
        normalizer: Both losses are divided by `configured`: ``samples`` times images (d2), or `sampled`: the number of
            anchors actually sampled (mrb, tv, mm).
        pre_nms_train: Best anchors kept per level before NMS, in training.
        pre_nms_test: The same at inference.
        post_nms_train: Proposals kept after NMS over all levels, in training; see ``post_nms_train_scope``.
        post_nms_test: Proposals kept per image at inference.
        post_nms_train_scope: `image` (d2, tv, mm), or `batch`: the best ``post_nms_train`` proposals of all images of
            the process together (mrb FPN_POST_NMS_PER_BATCH, Detectron's behaviour).
        post_nms_train_images: Images per process that ``post_nms_train`` is meant for under scope `batch`; with others
            it grows in proportion, as NVIDIA's 12000 for 12 images instead of mrb's 2000 for 2. None: it never does
            (mrb's code).
        nms_threshold: IoU above which a proposal of the same level is suppressed.
        min_size: Smallest side of a clipped proposal in pixels (measured with the detector's ``offset``).
        min_size_inclusive: Proposals of exactly ``min_size`` stay (mrb >= 0, tv >= 1e-3) or go (d2, mm > 0).
        pre_nms_scores: Rank before NMS by `logit` (d2, tv) or `sigmoid` (mrb, mm; large logits become ties).
        nms_scores: Rank in NMS and after it by `logit` (d2) or `sigmoid` (mrb, tv, mm).
    """

    anchors: AnchorConfig = field(default_factory=AnchorConfig)
    convs: int = 1
    coding: BoxCodingConfig = field(default_factory=BoxCodingConfig)
    positive_iou: float = 0.7
    negative_iou: float = 0.3
    low_quality_matches: bool = True
    low_quality_iou: float = 0.0
    reassign_low_quality: bool = False
    samples: int = 256
    positive_fraction: float = 0.5
    beta: float = 0.0
    box_loss: BoxLoss = "smooth_l1"
    box_loss_weight: float = 1.0
    normalizer: Literal["configured", "sampled"] = "configured"
    pre_nms_train: int = 2000
    pre_nms_test: int = 1000
    post_nms_train: int = 1000
    post_nms_test: int = 1000
    post_nms_train_scope: Literal["image", "batch"] = "image"
    post_nms_train_images: int | None = None
    nms_threshold: float = 0.7
    min_size: float = 0.0
    min_size_inclusive: bool = False
    pre_nms_scores: Literal["logit", "sigmoid"] = "logit"
    nms_scores: Literal["logit", "sigmoid"] = "logit"

    def __post_init__(self) -> None:
        require_box_loss(self.box_loss, "rpn.box_loss")
        for name in ("convs", "samples", "pre_nms_train", "pre_nms_test", "post_nms_train", "post_nms_test"):
            require(getattr(self, name) > 0, f"rpn.{name}", "positive", getattr(self, name))
        require(self.convs <= MOST_CONVS, "rpn.convs", f"1 to {MOST_CONVS}", self.convs)
        require(self.negative_iou <= self.positive_iou, "rpn.negative_iou", "at most positive_iou", self.negative_iou)
        require(
            self.normalizer in ("configured", "sampled"), "rpn.normalizer", "configured or sampled", self.normalizer
        )
        require(
            self.post_nms_train_scope in ("image", "batch"),
            "rpn.post_nms_train_scope",
            "image or batch",
            self.post_nms_train_scope,
        )
        per = self.post_nms_train_images
        require(per is None or per > 0, "rpn.post_nms_train_images", "positive or None", per)
        for name in ("pre_nms_scores", "nms_scores"):
            require(getattr(self, name) in ("logit", "sigmoid"), f"rpn.{name}", "logit or sigmoid", getattr(self, name))


@dataclass(frozen=True, kw_only=True, slots=True)
class BoxHeadConfig:
    """Second stage: classification and box refinement of proposals (Fast R-CNN).

    Attributes:
        pool: RoIAlign.
        coding: Box coding.
        convs: 3x3 convolutions before the linear layers: 0, or 4 (tv v2, d2 and mm "4conv1fc").
        conv_channels: Their width.
        norm: Normalisation of the convolutions, which then have no bias: `bn` (tv v2), `gn`: groups of channels (d2,
            mm), `ln`: all channels of each place (d2's ViTDet), or None. Batch statistics are those of the sampled
            boxes of one process.
        layers: Hidden linear layers: 2, or 1 after convolutions.
        channels: Their width.
        positive_iou: Proposals at or above this IoU are positive, all others are background. (tv and mrb have two
            thresholds, both 0.5: no proposal is ever ignored.)
        reassign_best: The best positive proposals of an object stand for it, even where they overlap another one more
            (mm Mask R-CNN, match_low_quality).
        samples: Proposals per image in the loss.
        positive_fraction: Largest share of positives among them.
        add_truth: Append the true boxes to the proposals in training (all systems).
        class_agnostic: One box per proposal instead of one per class (Cascade).
        beta: Where smooth L1 becomes linear: 0, plain L1 (d2, mm); 1 (mrb, mm cascades); 1/9 (tv).
        box_loss: As of the RPN; mm's GIoU recipes weigh it by 10.
        box_loss_weight: Factor of the box loss.
        classification: The loss of the classes, and with it what their probabilities are.
        label_smoothing: Share of the classification target spread evenly over all classes and background. 0 in every
            reference.
        score_threshold: Detections need a larger probability.
        nms_threshold: IoU above which a detection of the same class is suppressed.
        nms: `hard`, or soft-NMS: a detection that overlaps a better one loses score instead, `linear` with its IoU
            above ``nms_threshold``, or `gaussian` (Bodla et al., arXiv:1704.04503).
        soft_nms_sigma: Width of the Gaussian.
        nms_across_classes: Detections of all classes suppress each other, for objects that have one class only.
        max_detections: Best detections kept per image. (mrb cuts at the score of the last one, so that exact ties
            could give more than this many; here ties are cut.)
        min_size: Smallest side of a clipped detection in pixels: 1e-2, inclusive (tv); None: no filter (d2, mrb, mm).
    """

    pool: PoolConfig = field(default_factory=PoolConfig)
    coding: BoxCodingConfig = field(default_factory=lambda: BoxCodingConfig(weights=(10.0, 10.0, 5.0, 5.0)))
    convs: int = 0
    conv_channels: int = 256
    norm: Literal["bn", "gn", "ln"] | None = None
    layers: int = 2
    channels: int = 1024
    positive_iou: float = 0.5
    reassign_best: bool = False
    samples: int = 512
    positive_fraction: float = 0.25
    add_truth: bool = True
    class_agnostic: bool = False
    beta: float = 0.0
    box_loss: BoxLoss = "smooth_l1"
    box_loss_weight: float = 1.0
    classification: ClassificationConfig = field(default_factory=ClassificationConfig)
    label_smoothing: float = 0.0
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    nms: Literal["hard", "linear", "gaussian"] = "hard"
    soft_nms_sigma: float = 0.5
    nms_across_classes: bool = False
    max_detections: int = 100
    min_size: float | None = None

    def __post_init__(self) -> None:
        for name in ("conv_channels", "layers", "channels", "samples", "max_detections"):
            require(getattr(self, name) > 0, f"box.{name}", "positive", getattr(self, name))
        require(0 <= self.convs <= MOST_CONVS, "box.convs", f"0 to {MOST_CONVS}", self.convs)
        require(self.norm in (None, "bn", "gn", "ln"), "box.norm", "bn, gn, ln or None", self.norm)
        require(0 <= self.label_smoothing < 1, "box.label_smoothing", "in [0, 1)", self.label_smoothing)
        require(0 <= self.score_threshold < 1, "box.score_threshold", "in [0, 1)", self.score_threshold)
        require(self.nms in ("hard", "linear", "gaussian"), "box.nms", "hard, linear or gaussian", self.nms)
        require(self.soft_nms_sigma > 0, "box.soft_nms_sigma", "positive", self.soft_nms_sigma)
        require_box_loss(self.box_loss, "box.box_loss")


@dataclass(frozen=True, kw_only=True, slots=True)
class CascadeConfig:
    """Box heads in a row, each refining the boxes of the one before (Cascade R-CNN, section 4).

    Attributes:
        positive_ious: IoU from which a box is positive, per stage; takes the place of ``BoxHeadConfig.positive_iou``.
        coding_weights: Weights of the box coding, per stage; take the place of those in ``BoxHeadConfig.coding``.
            mm spells them as standard deviations, 0.033 and 0.067 in the last stage, which are not quite 1/30 and 1/15.
        resample: Draw samples anew at each stage, from the boxes refined by the one before and the truth (mm); else
            the samples of the first stage stay, refined and labelled again (d2).
        loss_weights: Of the losses of each stage: 1 (d2) or 1, 1/2, 1/4 (mm).
        gradient_scale: Of the gradient that reaches the pyramid from every box head: one over the number of stages
            (d2) or 1 (mm).
        scores: Detections are scored by the mean over the stages of the probability (d2) or of the logits (mm).
        mask_heads: `one`, trained on the samples of the first stage (d2), or one `per_stage`, trained on its samples,
            whose mean probability is the mask (mm).
    """

    positive_ious: tuple[float, ...] = (0.5, 0.6, 0.7)
    coding_weights: tuple[tuple[float, float, float, float], ...] = (
        (10.0, 10.0, 5.0, 5.0),
        (20.0, 20.0, 10.0, 10.0),
        (30.0, 30.0, 15.0, 15.0),
    )
    resample: bool = False
    loss_weights: tuple[float, ...] = (1.0, 1.0, 1.0)
    gradient_scale: float = 1 / 3
    scores: Literal["mean_probability", "mean_logit"] = "mean_probability"
    mask_heads: Literal["one", "per_stage"] = "one"

    def __post_init__(self) -> None:
        stages = len(self.positive_ious)
        require(stages > 0, "cascade.positive_ious", "one per stage, at least one", self.positive_ious)
        for name in ("coding_weights", "loss_weights"):
            value = getattr(self, name)
            require(len(value) == stages, f"cascade.{name}", f"one entry for each of {stages} stages", value)
        require(
            self.scores in ("mean_probability", "mean_logit"),
            "cascade.scores",
            "mean_probability or mean_logit",
            self.scores,
        )
        require(self.mask_heads in ("one", "per_stage"), "cascade.mask_heads", "one or per_stage", self.mask_heads)
        # Samples that stay from stage to stage are not sorted, and a mask head learns from the first ones.
        require(
            self.resample or self.mask_heads == "one", "cascade.mask_heads", "one without resample", self.mask_heads
        )

    def stages(self, box: BoxHeadConfig) -> tuple[BoxHeadConfig, ...]:
        """The box head's configuration at each stage."""
        return tuple(
            replace(box, positive_iou=iou, coding=replace(box.coding, weights=weights))
            for iou, weights in zip(self.positive_ious, self.coding_weights, strict=True)
        )
