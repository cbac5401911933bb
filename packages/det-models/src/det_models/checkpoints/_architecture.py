"""The network that a checkpoint is of, from its tensors and its system."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

from torch import Tensor

from det_backbones import DARKNET_PIXELS, DETECTRON2_RESNEXT_PIXELS, BackboneSpec, PixelConfig
from det_backbones.residual import BLOCKS
from det_heads import MaskHeadConfig, OneStageConfig
from det_heads.yolact.config import MaskIoUConfig, YolactConfig, yolact_config, yolact_plus_config
from det_models.checkpoints._exchange import is_counter
from det_models.checkpoints._metadata import Metadata
from det_models.checkpoints._registry import library
from det_models.conventions import (
    detectron2_cascade_config,
    detectron2_config,
    maskrcnn_benchmark_config,
    mmdetection_cascade_config,
    mmdetection_config,
    mmdetection_v1_cascade_config,
    mmdetection_v1_config,
    torchvision_config,
)
from det_models.detector_config import DetectorConfig
from det_models.errors import CheckpointError
from det_models.retinanet import (
    detectron2_fcos_config,
    detectron2_retinanet_config,
    mmdetection_retinanet_config,
    torchvision_fcos_config,
    torchvision_retinanet_config,
)

Tensors = Mapping[str, Tensor]
Preset = Callable[..., DetectorConfig]

_PRESETS: dict[str, tuple[Preset, Preset | None]] = {
    "detectron2": (detectron2_config, detectron2_cascade_config),
    "caffe2": (maskrcnn_benchmark_config, None),
    "maskrcnn-benchmark": (maskrcnn_benchmark_config, None),
    "torchvision": (torchvision_config, None),
    "torchvision-v2": (torchvision_config, None),  # what its heads have more is seen in the tensors
    "mmdetection": (mmdetection_config, mmdetection_cascade_config),
    "mmdetection-1": (mmdetection_v1_config, mmdetection_v1_cascade_config),
}

_ONE_STAGE: dict[str, Callable[[int], OneStageConfig]] = {
    "detectron2-retinanet": detectron2_retinanet_config,
    "detectron2-fcos": detectron2_fcos_config,
    "torchvision-retinanet": torchvision_retinanet_config,
    "torchvision-fcos": torchvision_fcos_config,
    "mmdetection-retinanet": mmdetection_retinanet_config,
}

_DEPTHS: dict[tuple[bool, tuple[int, ...]], int] = {(depth >= 50, blocks): depth for depth, blocks in BLOCKS.items()}
"""Whether the blocks are bottlenecks, and how many each stage has."""


def describe_backbone(tensors: Tensors, system: str, metadata: Metadata) -> BackboneSpec:
    """The backbone that has these tensors (by our names).

    Raises:
        CheckpointError: It is no network that we know.
    """
    lateral = tensors.get("backbone.fpn.lateral.0.weight")
    if lateral is None:
        raise CheckpointError(f"the {system} checkpoint has no feature pyramid; only detectors with one can be read")
    darknet = "backbone.body.stem.conv.weight" in tensors
    norm = _norm(tensors, system)
    # torchvision's FCOS keeps the epsilon, which its other published detectors set to 0.
    folded = norm == "frozen_bn" and (
        system in ("caffe2", "maskrcnn-benchmark", "torchvision", "torchvision-retinanet")
    )
    facts = dict.fromkeys(("groups", "deformable_interval"), 1) | {"depth": 50, "width": 64, "width_per_group": 64}
    blocks = (0, 0, 0, 0)
    stride = False
    if not darknet:
        facts |= _residual(tensors, system)
        blocks, facts["deformable_interval"] = _deformable(tensors, _blocks(tensors))
        caffe2 = library(system) in ("detectron2", "caffe2", "maskrcnn-benchmark") and facts["depth"] >= 50
        # Of their published networks, those with groups and those with group normalisation have it in the 3 x 3.
        stride = caffe2 and facts["groups"] == 1 and norm != "gn"
        if metadata.stride_in_1x1 is not None:
            stride = metadata.stride_in_1x1
    return BackboneSpec(
        name="darknet53" if darknet else "resnet",
        stride_in_1x1=stride,
        norm=norm,
        norm_eps=0.0 if folded else 1e-5,
        deformable_blocks=blocks,
        pyramid_channels=len(lateral),
        pyramid_norm=_head_norm(tensors, "backbone.fpn.lateral_norm"),
        **facts,  # type: ignore[arg-type]
    )


def _norm(tensors: Tensors, system: str) -> Literal["frozen_bn", "frozen_statistics_bn", "bn", "gn"]:
    body = [name for name in tensors if name.startswith("backbone.body.")]
    if not any(name.endswith(".running_var") for name in body):
        return "gn"
    counters = [tensors[name] for name in body if is_counter(name)]
    if system.startswith("mmdetection"):
        # It counts in every normalisation, but only where statistics are trained.
        trained = any(not counter.is_meta and bool(counter.any()) for counter in counters)
        return "bn" if trained else "frozen_statistics_bn"
    return "bn" if counters else "frozen_bn"


def _blocks(tensors: Tensors) -> tuple[int, ...]:
    numbers = [re.match(r"backbone\.body\.layer([1-4])\.(\d+)\.", name) for name in tensors]
    found = {(int(match[1]), int(match[2])) for match in numbers if match is not None}
    return tuple(sum(stage == index for index, _ in found) for stage in range(1, 5))


def _residual(tensors: Tensors, system: str) -> dict[str, int]:
    blocks = _blocks(tensors)
    bottleneck = "backbone.body.layer1.0.conv3.weight" in tensors
    stem, conv = (tensors.get(f"backbone.body.{name}.weight") for name in ("conv1", "layer1.0.conv2"))
    depth = _DEPTHS.get((bottleneck, blocks))
    if depth is None or stem is None or conv is None:
        raise CheckpointError(
            f"the {system} checkpoint has a backbone of {', '.join(map(str, blocks))} "
            f"{'bottlenecks' if bottleneck else 'basic blocks'} per stage, which is none of ResNet-18, 34, 50, 101, 152"
        )
    width, groups = len(stem), 1
    if bottleneck:
        groups = len(conv) // conv.shape[1]
    per_group = len(conv) * 64 // (width * groups)
    return {"depth": depth, "width": width, "groups": groups, "width_per_group": per_group}


def _deformable(tensors: Tensors, blocks: tuple[int, ...]) -> tuple[tuple[int, int, int, int], int]:
    """How :class:`det_backbones.Deformable` spells which blocks are deformable."""
    numbers = [re.match(r"backbone\.body\.layer(\d)\.(\d+)\.conv2\.offset_mask\.weight", name) for name in tensors]
    bent = sorted((int(match[1]) - 1, int(match[2])) for match in numbers if match is not None)
    first = [min((block for at, block in bent if at == stage), default=count) for stage, count in enumerate(blocks)]
    for interval in range(1, max(blocks) + 1):
        regular = [
            (stage, block)
            for stage, count in enumerate(blocks)
            for block in range(first[stage], count)
            if block % interval == 0
        ]
        if regular == bent:
            a, b, c, d = (count - start for count, start in zip(blocks, first, strict=True))
            return (a, b, c, d), interval
    raise CheckpointError(f"the checkpoint has deformable convolutions in no regular places: {bent}")


def describe_detector(
    tensors: Tensors, system: str, backbone: BackboneSpec, metadata: Metadata
) -> DetectorConfig | OneStageConfig | YolactConfig:
    """The heads that have these tensors (by our names), under the conventions of their system.

    Raises:
        CheckpointError: They are not of a kind that we have.
    """
    try:
        if system == "yolact":
            return _yolact(tensors, backbone)
        one_stage = system in _ONE_STAGE
        config = _dense(tensors, system) if one_stage else _two_stage(tensors, system, backbone)
    except KeyError as error:
        raise CheckpointError(f"the {system} checkpoint has no {error.args[0]}, which every detector has") from error
    except ValueError as error:
        raise CheckpointError(f"the {system} checkpoint is of a detector that cannot be built here: {error}") from error
    pixels = metadata.pixels or config.pixels
    if metadata.pixels is None and library(system) == "detectron2" and backbone.groups > 1:
        pixels = DETECTRON2_RESNEXT_PIXELS
    return replace(config, pixels=pixels)


def _two_stage(tensors: Tensors, system: str, backbone: BackboneSpec) -> DetectorConfig:
    stages = _count(tensors, "box_heads")
    plain, cascade = _PRESETS[system]
    box_name, mask_name = ("box_heads.0", "mask_heads.0") if stages else ("box_head", "mask_head")
    if f"{mask_name}.predictor.weight" not in tensors:
        mask_name = "mask_head"
    preset = cascade if stages else plain
    if preset is None:
        raise ValueError(f"{system} has no cascades")
    classes = len(tensors[f"{box_name}.cls_score.weight"]) - 1
    config = preset(classes, mask=f"{mask_name}.predictor.weight" in tensors)
    if config.cascade is not None:
        if stages != len(config.cascade.positive_ious):
            raise ValueError(f"its cascade has {stages} stages; {len(config.cascade.positive_ious)} are published")
        if config.mask is not None:
            kind = "one" if mask_name == "mask_head" else "per_stage"
            config = replace(config, cascade=replace(config.cascade, mask_heads=kind))
    plain = replace(
        config,
        rpn=replace(config.rpn, convs=_count(tensors, "rpn.convs") or 1),
        box=_box(tensors, box_name, config, backbone),
        mask=None if config.mask is None else _mask(tensors, mask_name, config.mask),
    )
    return next((found for kind in DetectorConfig.kinds() if (found := kind.of_tensors(plain, tensors))), plain)


def _box(tensors: Tensors, name: str, config: DetectorConfig, backbone: BackboneSpec):
    fc, rows = tensors[f"{name}.fc1.weight"], len(tensors[f"{name}.bbox_pred.weight"])
    convs = _count(tensors, f"{name}.convs")
    width = len(tensors[f"{name}.convs.0.weight"]) if convs else config.box.conv_channels
    return replace(
        config.box,
        pool=replace(config.box.pool, size=math.isqrt(fc.shape[1] // (width if convs else backbone.pyramid_channels))),
        convs=convs,
        conv_channels=width,
        norm=_head_norm(tensors, f"{name}.norms"),
        layers=sum(re.fullmatch(rf"{re.escape(name)}\.fc\d+\.weight", key) is not None for key in tensors),
        channels=len(fc),
        # With one class both kinds are the same.
        class_agnostic=rows == 4 and (config.num_classes > 1 or config.cascade is not None),
    )


def _mask(tensors: Tensors, name: str, config: MaskHeadConfig) -> MaskHeadConfig:
    return replace(
        config,
        convs=_count(tensors, f"{name}.convs"),
        channels=tensors[f"{name}.deconv.weight"].shape[1],
        norm=_head_norm(tensors, f"{name}.norms"),
    )


def _dense(tensors: Tensors, system: str) -> OneStageConfig:
    config = _ONE_STAGE[system](1)
    cells, fcos = len(tensors["head.boxes.bias"]) // 4, "head.centerness.bias" in tensors
    if fcos != (config.locations is not None):
        raise ValueError("it has group normalisation without a prediction of centredness, which none published has")
    if cells != config.anchors.per_cell:
        raise ValueError(f"it has {cells} anchors per cell; {config.anchors.per_cell} are published")
    norm = _head_norm(tensors, "head.class_norms")
    if norm == "bn":
        raise ValueError("its head has batch normalisation, which none published has")
    return replace(
        config,
        num_classes=len(tensors["head.classes.bias"]) // cells,
        convs=_count(tensors, "head.class_convs"),
        norm=norm,
        norm_bias="head.class_convs.0.bias" in tensors,
        # What torchvision's second version trains by; no tensor says it.
        box_loss="giou" if norm else config.box_loss,
    )


def _yolact(tensors: Tensors, backbone: BackboneSpec) -> YolactConfig:
    per_cell = len(tensors["head.boxes.bias"]) // 4
    classes = len(tensors["head.classes.bias"]) // per_cell - 1
    # The two published kinds of priors: three squares per cell, or three sizes of three shapes (YOLACT++).
    plus = per_cell == yolact_plus_config().priors.per_cell
    config = yolact_plus_config(classes) if plus else yolact_config(classes)
    scores = [f"mask_iou.convs.{layer}.weight" for layer in range(_count(tensors, "mask_iou.convs"))]
    mask_iou = config.mask_iou or MaskIoUConfig()
    return replace(
        config,
        pixels=DARKNET_PIXELS if backbone.name == "darknet53" else config.pixels,
        prototypes=len(tensors["head.coefficients.bias"]) // per_cell,
        channels=len(tensors["head.feature.bias"]),
        mask_iou=replace(mask_iou, channels=tuple(len(tensors[name]) for name in scores)) if scores else None,
    )


def _count(tensors: Tensors, prefix: str) -> int:
    """Modules in a list."""
    return len({name.removeprefix(f"{prefix}.").split(".")[0] for name in tensors if name.startswith(f"{prefix}.")})


def _head_norm(tensors: Tensors, prefix: str) -> Literal["bn", "gn"] | None:
    names = [name for name in tensors if name.startswith(f"{prefix}.")]
    if not names:
        return None
    return "bn" if any(name.endswith(".running_var") for name in names) else "gn"


def pixels_of(state: Tensors, config: PixelConfig) -> PixelConfig | None:
    """The input that detectron2's older files hold as buffers."""
    mean, std = (state.get(name) for name in ("pixel_mean", "pixel_std"))
    if mean is None or std is None or mean.numel() != 3 or std.numel() != 3:
        return None
    values = [tuple(float(v) for v in tensor.flatten()) for tensor in (mean, std)]
    return replace(config, mean=values[0], std=values[1])  # type: ignore[arg-type]
