"""What the systems that we write for can be told about a detector, and what they always do in their own way.

A file of tensors says nothing of pixels, anchors or RoIAlign: whoever loads it must configure the other system
accordingly. The tables below name, for each of our fields that decide what is detected, the setting over there. A field
without one keeps the value that the system's own preset has.
"""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from det_heads import OneStageConfig
from det_heads.config import PixelConfig
from det_models.checkpoints._one_stage_targets import ONE_STAGE_TARGETS, one_stage_obstacle
from det_models.checkpoints._registry import SYSTEMS
from det_models.checkpoints._settings import (
    Target,
    detectron2_pixels,
    mmdetection_pixels,
    stds,
    torchvision_pixels,
    yaml,
)
from det_models.conventions import (
    detectron2_cascade_config,
    detectron2_config,
    mmdetection_cascade_config,
    mmdetection_config,
    torchvision_config,
    torchvision_v2_config,
)
from det_models.detector_config import DetectorConfig

__all__ = ["TARGETS", "as_run_by", "differences", "obstacle", "settings"]

C = TypeVar("C", bound=DetectorConfig | OneStageConfig)

# What decides about training alone.
_TRAINING = frozenset(
    {
        "init",
        "rpn.positive_iou", "rpn.negative_iou", "rpn.low_quality_matches", "rpn.low_quality_iou",
        "rpn.reassign_low_quality", "rpn.samples", "rpn.positive_fraction", "rpn.beta", "rpn.normalizer",
        "rpn.pre_nms_train", "rpn.post_nms_train", "rpn.post_nms_train_scope", "rpn.post_nms_train_images",
        "rpn.anchors.straddle", "rpn.anchors.match_straddling",
        "box.positive_iou", "box.reassign_best", "box.samples", "box.positive_fraction", "box.add_truth", "box.beta",
        "box.label_smoothing", "box.box_loss", "box.box_loss_weight", "rpn.box_loss", "rpn.box_loss_weight",
        "box.classification.focal_alpha", "box.classification.focal_gamma", "box.classification.seesaw_p",
        "box.classification.seesaw_q", "box.classification.class_balance", "box.classification.federated",
        "box.classification.object_counts", "box.classification.image_counts",
        "mask.target", "mask.bitmap_aligned", "mask.bitmap_threshold",
        "cascade.positive_ious", "cascade.resample", "cascade.loss_weights", "cascade.gradient_scale",
        "positive_iou", "negative_iou", "reassign_low_quality", "focal_alpha", "focal_gamma", "box_loss", "beta",
        "normalizer", "locations.radius", "locations.reach",
        "anchors.straddle", "anchors.match_straddling",
    }
)  # fmt: skip


_DETECTRON2 = {
    "num_classes": "MODEL.ROI_HEADS.NUM_CLASSES: {}",
    "pixels": detectron2_pixels,
    "rpn.anchors.sizes": "MODEL.ANCHOR_GENERATOR.SIZES: {}",
    "rpn.anchors.ratios": lambda ratios: f"MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS: [{yaml(ratios)}]",
    "rpn.convs": lambda convs: f"MODEL.RPN.CONV_DIMS: {[-1] * convs}",
    "rpn.coding.weights": "MODEL.RPN.BBOX_REG_WEIGHTS: {}",
    "rpn.pre_nms_test": "MODEL.RPN.PRE_NMS_TOPK_TEST: {}",
    "rpn.post_nms_test": "MODEL.RPN.POST_NMS_TOPK_TEST: {}",
    "rpn.nms_threshold": "MODEL.RPN.NMS_THRESH: {}",
    "box.convs": "MODEL.ROI_BOX_HEAD.NUM_CONV: {}",
    "box.conv_channels": "MODEL.ROI_BOX_HEAD.CONV_DIM: {}",
    "box.norm": lambda norm: f'MODEL.ROI_BOX_HEAD.NORM: "{(norm or "").upper()}"',
    "box.layers": "MODEL.ROI_BOX_HEAD.NUM_FC: {}",
    "box.channels": "MODEL.ROI_BOX_HEAD.FC_DIM: {}",
    "box.coding.weights": "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS: {}",
    "box.class_agnostic": "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG: {}",
    "box.score_threshold": "MODEL.ROI_HEADS.SCORE_THRESH_TEST: {}",
    "box.nms_threshold": "MODEL.ROI_HEADS.NMS_THRESH_TEST: {}",
    "box.max_detections": "TEST.DETECTIONS_PER_IMAGE: {}",
    "mask.convs": "MODEL.ROI_MASK_HEAD.NUM_CONV: {}",
    "mask.channels": "MODEL.ROI_MASK_HEAD.CONV_DIM: {}",
    "mask.norm": lambda norm: f'MODEL.ROI_MASK_HEAD.NORM: "{(norm or "").upper()}"',
    "cascade.coding_weights": "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS: {}",
    **{
        f"{head}.pool.{name}": f"MODEL.ROI_{head.upper()}_HEAD.{setting}"
        for head in ("box", "mask")
        for name, setting in (("size", "POOLER_RESOLUTION: {}"), ("sampling_ratio", "POOLER_SAMPLING_RATIO: {}"))
    },
    "box.pool.aligned": lambda aligned: f"MODEL.ROI_BOX_HEAD.POOLER_TYPE: ROIAlign{'V2' * aligned}",
    "mask.pool.aligned": lambda aligned: f"MODEL.ROI_MASK_HEAD.POOLER_TYPE: ROIAlign{'V2' * aligned}",
}

_MMDETECTION = {
    "num_classes": "model.roi_head.bbox_head.num_classes = {0}  # and of mask_head",
    "pixels": mmdetection_pixels,
    "rpn.anchors.sizes": lambda sizes: (
        f"model.rpn_head.anchor_generator.base_sizes = {yaml(tuple(s[0] for s in sizes))}, "
        f"scales = {yaml(tuple(size / sizes[0][0] for size in sizes[0]))}"
    ),
    "rpn.anchors.ratios": "model.rpn_head.anchor_generator.ratios = {}",
    "rpn.convs": "model.rpn_head.num_convs = {}",
    "rpn.coding.weights": lambda weights: f"model.rpn_head.bbox_coder.target_stds = {stds(weights)}",
    "rpn.pre_nms_test": "model.test_cfg.rpn.nms_pre = {}",
    "rpn.post_nms_test": "model.test_cfg.rpn.max_per_img = {}",
    "rpn.nms_threshold": "model.test_cfg.rpn.nms.iou_threshold = {}",
    "box.convs": "model.roi_head.bbox_head.num_shared_convs = {}  # type='ConvFCBBoxHead'",
    "box.conv_channels": "model.roi_head.bbox_head.conv_out_channels = {}",
    "box.norm": lambda norm: f"model.roi_head.bbox_head.norm_cfg = {_norm_cfg(norm)}",
    "box.layers": "model.roi_head.bbox_head.num_shared_fcs = {}",
    "box.channels": "model.roi_head.bbox_head.fc_out_channels = {}",
    "box.coding.weights": lambda weights: f"model.roi_head.bbox_head.bbox_coder.target_stds = {stds(weights)}",
    "box.class_agnostic": "model.roi_head.bbox_head.reg_class_agnostic = {}",
    "box.score_threshold": "model.test_cfg.rcnn.score_thr = {}",
    "box.nms_threshold": "model.test_cfg.rcnn.nms.iou_threshold = {}",
    "box.max_detections": "model.test_cfg.rcnn.max_per_img = {}",
    "mask.convs": "model.roi_head.mask_head.num_convs = {}",
    "mask.channels": "model.roi_head.mask_head.conv_out_channels = {}",
    "mask.norm": lambda norm: f"model.roi_head.mask_head.norm_cfg = {_norm_cfg(norm)}",
    "mask.paste_threshold": "model.test_cfg.rcnn.mask_thr_binary = {}",
    "cascade.coding_weights": lambda stages: "\n".join(
        f"model.roi_head.bbox_head[{stage}].bbox_coder.target_stds = {stds(weights)}"
        for stage, weights in enumerate(stages)
    ),
    **{
        f"{head}.pool.{name}": f"model.roi_head.{module}_roi_extractor.{setting} = {{}}"
        for head, module in (("box", "bbox"), ("mask", "mask"))
        for name, setting in (
            ("size", "roi_layer.output_size"),
            ("sampling_ratio", "roi_layer.sampling_ratio"),
            ("aligned", "roi_layer.aligned"),
        )
    },
}


def _norm_cfg(norm: str | None) -> str:
    return {None: "None", "bn": "dict(type='BN')", "gn": "dict(type='GN', num_groups=32)"}[norm]


_TORCHVISION = {
    "num_classes": lambda classes: f"num_classes={classes + 1}",
    "pixels": torchvision_pixels,
    "rpn.anchors.sizes": lambda sizes: f"rpn_anchor_generator=AnchorGenerator(sizes={sizes}, aspect_ratios=...)",
    "rpn.anchors.ratios": lambda ratios: (
        f"rpn_anchor_generator=AnchorGenerator(sizes=..., aspect_ratios=({ratios},) * 5)"
    ),
    "rpn.convs": lambda convs: f"rpn_head=RPNHead(channels, anchors, conv_depth={convs})",
    "rpn.pre_nms_test": "rpn_pre_nms_top_n_test={}",
    "rpn.post_nms_test": "rpn_post_nms_top_n_test={}",
    "rpn.nms_threshold": "rpn_nms_thresh={}",
    "box.conv_channels": "box_head=FastRCNNConvFCHead((channels, size, size), [{0}] * 4, ...)",
    "box.channels": "box_head=TwoMLPHead(channels * size**2, {0})",
    "box.coding.weights": lambda weights: f"bbox_reg_weights={weights}",
    "box.score_threshold": "box_score_thresh={}",
    "box.nms_threshold": "box_nms_thresh={}",
    "box.max_detections": "box_detections_per_img={}",
    "mask.convs": "mask_head=MaskRCNNHeads(channels, (width,) * {}, 1)",
    "mask.channels": "mask_head=MaskRCNNHeads(channels, ({},) * convs, 1), mask_predictor=MaskRCNNPredictor",
    "mask.paste_threshold": "masks > {}",
    "box.pool.size": 'box_roi_pool=MultiScaleRoIAlign(["0", "1", "2", "3"], output_size={}, sampling_ratio=...)',
    "mask.pool.size": 'mask_roi_pool=MultiScaleRoIAlign(["0", "1", "2", "3"], output_size={}, sampling_ratio=...)',
    "box.pool.sampling_ratio": "box_roi_pool=MultiScaleRoIAlign(..., sampling_ratio={})",
    "mask.pool.sampling_ratio": "mask_roi_pool=MultiScaleRoIAlign(..., sampling_ratio={})",
}


def _torchvision_preset(config: DetectorConfig) -> DetectorConfig:
    return (torchvision_v2_config if config.box.convs else torchvision_config)(mask=config.mask is not None)


TARGETS: dict[str, Target] = {
    "detectron2": Target(
        lambda config: (detectron2_config if config.cascade is None else detectron2_cascade_config)(
            mask=config.mask is not None
        ),
        _DETECTRON2,
    ),
    "mmdetection": Target(
        lambda config: (mmdetection_config if config.cascade is None else mmdetection_cascade_config)(
            mask=config.mask is not None
        ),
        _MMDETECTION,
    ),
    "torchvision": Target(_torchvision_preset, _TORCHVISION),
}
"""By name; what `convert --to` takes besides ours."""


def _target(config: DetectorConfig | OneStageConfig, system: str) -> Target:
    return (ONE_STAGE_TARGETS if isinstance(config, OneStageConfig) else TARGETS)[system]


def obstacle(config: DetectorConfig | OneStageConfig, system: str) -> str | None:
    """Why a detector cannot be expressed in a system at all, or None."""
    if isinstance(config, OneStageConfig):
        return one_stage_obstacle(config, system)
    cascade, mask = config.cascade, config.mask
    for branch in config.branches.values():
        if not any(rule.ours.text.startswith(branch.module) for rule in SYSTEMS[system].rules):
            return f"{system} has no {branch.module.replace('_', ' ')} like this detector's"
    if "ln" in (config.box.norm, mask.norm if mask else None):
        return "layer normalisation in heads can be written as ours alone"
    if system == "torchvision":
        if cascade is not None:
            return "torchvision has no cascades"
        if len(config.branches) > 1:
            return f"torchvision has no {config.title}, only detectors with one branch beside the box head"
        if config.box.class_agnostic:
            return "torchvision's box head has a box for every class, and this one has one for all"
        heads = (config.rpn.convs > 1, config.box.convs, config.box.layers, config.box.norm)
        if heads not in ((False, 0, 2, None), (True, 4, 1, "bn")):
            return (
                "torchvision's detectors have two linear layers in the box head and one convolution in the RPN, or "
                "(v2) four normalised convolutions, one linear layer and more than one convolution in the RPN"
            )
        if mask is not None and mask.norm not in (None, config.box.norm):
            return "torchvision's mask head is normalised like the box head"
    if cascade is not None and mask is not None and system != "torchvision":
        needed = {"detectron2": "one", "mmdetection": "per_stage"}[system]
        if cascade.mask_heads != needed:
            has = {"one": "one mask head for all stages", "per_stage": "a mask head per stage"}
            return f"{system}'s cascades have {has[needed]}, and this one has {has[cascade.mask_heads]}"
    return None


def as_run_by(config: C, system: str) -> C:
    """The detector as `system` runs it, told everything that it can be told.

    Args:
        config: The detector.
        system: One of :data:`TARGETS`.
    """
    target = _target(config, system)
    preset, known = target.preset(config), frozenset(target.names)
    pixels = config.pixels
    order = "rgb" if system == "torchvision" else pixels.order
    turned = order != pixels.order
    scale = preset.pixels.scale
    values: dict[str, Any] = {"mean": pixels.mean, "std": pixels.std}
    for name, value in values.items():
        numbers = tuple(number * pixels.scale / scale for number in value)
        values[name] = numbers[::-1] if turned else numbers
    if scale == pixels.scale and not turned:
        values = {"mean": pixels.mean, "std": pixels.std}
    merged = _merge(config, preset, known | {"cascade.mask_heads"})
    return replace(merged, pixels=PixelConfig(order=order, scale=scale, **values))


def _merge(config: Any, preset: Any, known: frozenset[str], prefix: str = "") -> Any:
    """`config` with the values of `preset` in all fields that are neither known nor of training."""
    changed = {}
    for field in fields(config):
        name, own, theirs = prefix + field.name, getattr(config, field.name), getattr(preset, field.name)
        if name == "pixels" or name in known or name in _TRAINING:
            continue
        changed[field.name] = _merge(own, theirs, known, f"{name}.") if is_dataclass(own) else theirs
    return replace(config, **changed)


def differences(config: C, other: C) -> dict[str, tuple[Any, Any]]:
    """Fields that decide what is detected and are not the same: dotted name -> both values."""
    ours, theirs = dict(_leaves(config)), dict(_leaves(other))
    return {
        name: (value, theirs.get(name))
        for name, value in ours.items()
        if value != theirs.get(name) and name not in _TRAINING and not name.startswith("pixels.")
    }


def settings(config: DetectorConfig | OneStageConfig, system: str) -> list[str]:
    """What to set in `system` for a detector which :func:`as_run_by` returned, where its preset has other values."""
    target = _target(config, system)
    published = target.preset(config)
    ours, preset = dict(_leaves(config)), dict(_leaves(published))
    ours |= {"pixels": config.pixels}
    preset |= {"pixels": published.pixels}
    lines = []
    for name, setting in target.names.items():
        if name in ours and ours[name] != preset.get(name):
            value = ours[name]
            text = setting.format(yaml(value)) if isinstance(setting, str) else setting(value)
            lines += text.splitlines()
    return lines


def _leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            yield from _leaves(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, value
