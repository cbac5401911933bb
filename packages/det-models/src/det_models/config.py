"""What a whole detector is: its backbone, its heads, and the images it gets."""

from dataclasses import dataclass
from typing import Literal

from det_backbones.depth import Depth
from det_coco.resize import Resize
from det_heads import BoxHeadConfig, OneStageConfig, YolactConfig
from det_models.detector_config import DetectorConfig

__all__ = ["BackboneConfig", "ModelConfig", "OneStageBackboneConfig", "YolactBackboneConfig"]


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """A body with a feature pyramid."""

    name: str = "resnet"
    """`resnet`, or a network of timm such as `timm/convnextv2_atto` or `timm/vit_small_patch16_dinov3`. For those,
    `depth`, `width`, `norm_eps`, `stride_in_1x1`, `groups`, `width_per_group` and `deformable_blocks` mean nothing."""
    depth: Depth = 50
    """Number of layers of the ResNet."""
    width: int = 64
    """Channels of the stem; the stages scale with it."""
    norm: Literal["frozen_bn", "frozen_statistics_bn", "bn", "sync_bn", "gn"] = "frozen_bn"
    """Normalisation: batch norm that is frozen, has frozen statistics only, is trained, or is trained over all
    processes; or group norm."""
    norm_eps: float = 1e-5
    """Epsilon of the normalisation."""
    stride_in_1x1: bool = True
    """Stride in the first 1x1 convolution (MSRA, Caffe2) or in the 3x3 one (torchvision)."""
    groups: int = 1
    """Groups of the 3x3 convolutions (ResNeXt: 32)."""
    width_per_group: int = 64
    """Channels of each group in the first stage (ResNeXt: 8)."""
    deformable_blocks: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Number of blocks at the end of each stage that may have deformable convolutions (DCNv2: all of the last three
    stages in mmdetection's `dconv_c3-c5`, some in YOLACT++)."""
    deformable_interval: int = 1
    """Every how many of these blocks has one."""
    drop_path: float = 0.0
    """Largest probability that a training image skips a block of a timm network (stochastic depth)."""
    freeze_at: int = 2
    """Number of frozen parts, counted from the stem: 0 none, 1 stem, 2 stem and first stage (stride 4), ..."""
    recompute: bool = False
    """Compute the stages of a ResNet again in the backward pass instead of keeping their maps (mmdetection's
    `with_cp`): less memory, a longer step, the same numbers."""
    pyramid_channels: int = 256
    """Channels of each level of the pyramid."""
    pyramid_init: Literal["caffe2_xavier", "xavier"] = "caffe2_xavier"
    """Random start of the pyramid: by fan-in (Caffe2), or by fan-in and fan-out (mmdetection)."""
    pyramid_norm: Literal["bn", "sync_bn", "gn"] | None = None
    """Normalisation after the pyramid's convolutions (torchvision v2), which then have no bias."""
    weights: str = "none"
    """Name of the ImageNet weights that the recipe starts from; `none`: it starts from scratch."""

    def __post_init__(self) -> None:
        if self.name != "resnet" and not self.name.startswith("timm/"):
            raise ValueError(f"backbone.name must be resnet or a network of timm, timm/NAME, got {self.name!r}")
        if self.drop_path and self.name == "resnet":
            raise ValueError(f"drop_path is of networks of timm alone, got {self.drop_path} with backbone.name resnet")
        if self.recompute and self.name != "resnet":
            raise ValueError(f"recompute is of backbone.name resnet alone, got {self.name}")
        if any(self.deformable_blocks) and self.name != "resnet":
            raise ValueError(f"deformable_blocks are of backbone.name resnet alone, got {self.name}")
        if self.pyramid_channels < 1:
            raise ValueError(f"pyramid_channels must be at least 1, got {self.pyramid_channels}")


@dataclass(frozen=True, kw_only=True)
class OneStageBackboneConfig(BackboneConfig):
    """A body and the pyramid of RetinaNet and FCOS, from stride 8 to 128."""

    p6_input: Literal["body", "pyramid"] = "body"
    """What P6 is made of: the coarsest map of the body, C5, or of the pyramid, P5 (FCOS, torchvision's RetinaNet)."""
    p7_activation: bool = True
    """Whether a ReLU stands between P6 and P7; mmdetection has none."""


@dataclass(frozen=True, kw_only=True)
class YolactBackboneConfig(BackboneConfig):
    """A residual network or DarkNet-53, and YOLACT's pyramid from stride 8 to 128."""

    kind: Literal["resnet", "darknet53"] = "resnet"
    """DarkNet-53 has one depth; `depth` and what follows it concern the residual network."""
    norm: Literal["frozen_bn", "frozen_statistics_bn", "bn", "sync_bn", "gn"] = "bn"
    freeze_norm_below: int = 6
    """Batch norm is frozen where a device has fewer images of a step than this."""
    stride_in_1x1: bool = False
    freeze_at: int = 0
    pyramid_init: Literal["caffe2_xavier", "xavier"] = "xavier"


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A whole detector, ready to be built.

    Attributes:
        backbone: Body and pyramid.
        detector: Heads and conventions.
        resize: What is done to an image before the network sees it.
        buckets: Padded shapes (height, width), the smallest that holds an image is taken.
    """

    backbone: BackboneConfig
    detector: DetectorConfig | OneStageConfig | YolactConfig
    resize: Resize
    buckets: tuple[tuple[int, int], ...]

    @property
    def tasks(self) -> tuple[str, ...]:
        """What it finds, as COCO's evaluation calls it: `bbox`, and perhaps more, such as `segm`."""
        if isinstance(self.detector, YolactConfig):
            return ("bbox", "segm")
        branches = self.detector.branches.values() if isinstance(self.detector, DetectorConfig) else ()
        return ("bbox", *(branch.task for branch in branches if branch.task))

    @property
    def max_detections(self) -> int:
        """The most detections of an image."""
        return self.selection.max_detections

    @property
    def selection(self) -> BoxHeadConfig | OneStageConfig | YolactConfig:
        """What says which boxes become detections: score threshold, suppression, number."""
        return self.detector.box if isinstance(self.detector, DetectorConfig) else self.detector
