"""Every constant of YOLACT, as typed fields. The defaults are those of `yolact_base` (`data/config.py` there)."""

from dataclasses import dataclass, field
from typing import Literal

from det_backbones import DARKNET_PIXELS, YOLACT_PIXELS, PixelConfig

__all__ = [
    "MaskIoUConfig",
    "PriorConfig",
    "YolactConfig",
    "YolactLossConfig",
    "bitmap_sizes",
    "yolact_config",
    "yolact_plus_config",
]

_SIZES = (24.0, 48.0, 96.0, 192.0, 384.0)


def _require(condition: bool, name: str, expected: str, got: object) -> None:
    if not condition:
        raise ValueError(f"{name} must be {expected}, got {got!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class PriorConfig:
    """Prior boxes around the cells of P3, ..., P7.

    Attributes:
        sizes: Pixels of the network's input, several per level, one tuple per level.
        ratios: Width divided by height; the area stays that of the size.
        square: Replace the height by the width (YOLACT's priors, by a slip that its weights have learnt): three
            squares instead of three shapes. YOLACT++ has it corrected.
    """

    sizes: tuple[tuple[float, ...], ...] = tuple((size,) for size in _SIZES)
    ratios: tuple[float, ...] = (1.0, 0.5, 2.0)
    square: bool = True

    def __post_init__(self) -> None:
        counts = {len(sizes) for sizes in self.sizes}
        _require(len(counts) == 1 and 0 not in counts, "priors.sizes", "equally many per level", self.sizes)
        _require(all(s > 0 for sizes in self.sizes for s in sizes), "priors.sizes", "positive", self.sizes)
        _require(len(self.ratios) > 0 and min(self.ratios) > 0, "priors.ratios", "positive, at least one", self.ratios)

    @property
    def per_cell(self) -> int:
        """Priors of a cell."""
        return len(self.sizes[0]) * len(self.ratios)


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskIoUConfig:
    """The network of YOLACT++ that estimates how good a mask is.

    Attributes:
        channels: Of its 3 x 3 convolutions of stride 2.
        weight: Of its loss.
        min_area: It learns from true masks of more pixels than this at the prototypes' size.
    """

    channels: tuple[int, ...] = (8, 16, 32, 64, 128)
    weight: float = 25.0
    min_area: float = 25.0

    def __post_init__(self) -> None:
        _require(len(self.channels) > 0, "mask_iou.channels", "at least one number", self.channels)

    @property
    def min_side(self) -> int:
        """The smallest masks it can look at: no convolution has a border."""
        return 2 ** (len(self.channels) + 1) - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class YolactLossConfig:
    """Matching, sampling and the weights of the losses.

    Attributes:
        positive_iou: A prior is positive from this IoU with an object; so is each object's best prior.
        negative_iou: A prior is negative below this IoU; between the two it is neutral.
        crowd_iou: Not positive priors of which a larger part than this lies in a crowd region are neutral.
        negatives: So many negatives for each positive train the classifier, the hardest ones.
        masks: At most so many positives of an image train the masks; they are drawn at random and weigh more.
        box: Weight of the box loss.
        classification: Weight of the classification loss.
        mask: Weight of the mask loss.
        semantic: Weight of the semantic loss.
    """

    positive_iou: float = 0.5
    negative_iou: float = 0.4
    crowd_iou: float = 0.7
    negatives: int = 3
    masks: int = 100
    box: float = 1.5
    classification: float = 1.0
    mask: float = 6.125
    semantic: float = 1.0

    def __post_init__(self) -> None:
        ordered = 0 <= self.negative_iou <= self.positive_iou
        _require(ordered, "loss.negative_iou", f"between 0 and {self.positive_iou}", self.negative_iou)
        _require(self.negatives >= 0, "loss.negatives", "not negative", self.negatives)
        _require(self.masks > 0, "loss.masks", "positive", self.masks)


@dataclass(frozen=True, kw_only=True, slots=True)
class YolactConfig:
    """A YOLACT.

    Attributes:
        num_classes: Without background.
        pixels: What the backbone's weights expect.
        priors: Prior boxes.
        prototypes: Number of prototypes, and of coefficients of each prior.
        channels: Of the prediction head's and the protonet's convolutions.
        mask_iou: The mask-IoU network, whose estimate multiplies the scores of masks (YOLACT++), or None.
        loss: Training.
        score_threshold: Priors whose best class has no larger score are dropped.
        nms: `fast`: Fast NMS per class; `cross_class`: Fast NMS of each prior's best class, over all classes;
            `traditional`: greedy per class, with the inclusive widths of the original's.
        nms_threshold: IoU above which a box goes.
        nms_top_k: Fast NMS looks at so many boxes per class.
        max_detections: Of an image (`cross_class` keeps up to `nms_top_k`, as the original).
    """

    num_classes: int = 80
    pixels: PixelConfig = YOLACT_PIXELS
    priors: PriorConfig = field(default_factory=PriorConfig)
    prototypes: int = 32
    channels: int = 256
    mask_iou: MaskIoUConfig | None = None
    loss: YolactLossConfig = field(default_factory=YolactLossConfig)
    score_threshold: float = 0.05
    nms: Literal["fast", "cross_class", "traditional"] = "fast"
    nms_threshold: float = 0.5
    nms_top_k: int = 200
    max_detections: int = 100

    def __post_init__(self) -> None:
        _require(self.num_classes > 0, "num_classes", "positive", self.num_classes)
        _require(self.prototypes > 0, "prototypes", "positive", self.prototypes)
        kinds = ("fast", "cross_class", "traditional")
        _require(self.nms in kinds, "nms", f"one of {', '.join(kinds)}", self.nms)
        _require(0 < self.score_threshold < 1, "score_threshold", "between 0 and 1", self.score_threshold)


def yolact_config(num_classes: int = 80, *, size: int = 550, darknet: bool = False) -> YolactConfig:
    """YOLACT for images of `size` x `size`: `yolact_base` and its relatives.

    Args:
        num_classes: Without background.
        size: Side of the input; priors scale with it, to whole pixels, and 700 trains on 300 masks (`yolact_im700`).
        darknet: Pixels of the DarkNet-53.
    """
    return YolactConfig(
        num_classes=num_classes,
        pixels=DARKNET_PIXELS if darknet else YOLACT_PIXELS,
        priors=PriorConfig(sizes=tuple((float(int(s / 550 * size)),) for s in _SIZES)),
        loss=YolactLossConfig(masks=300 if size >= 700 else 100),
    )


def yolact_plus_config(num_classes: int = 80) -> YolactConfig:
    """YOLACT++: three sizes per level, true shapes, and masks scored by the mask-IoU network."""
    sizes = tuple(tuple(s * 2 ** (j / 3) for j in range(3)) for s in _SIZES)
    return YolactConfig(
        num_classes=num_classes, priors=PriorConfig(sizes=sizes, square=False), mask_iou=MaskIoUConfig()
    )


def bitmap_sizes(height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Sizes of the prototypes and of P3 for images of a size: what training needs bitmaps of."""
    for _ in range(3):
        height, width = (height + 1) // 2, (width + 1) // 2
    return (2 * height, 2 * width), (height, width)
