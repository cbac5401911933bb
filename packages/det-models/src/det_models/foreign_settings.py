"""What the user of another system must configure so that a file which we wrote computes what it computes here."""

from det_backbones import Norm
from det_coco import Resize
from det_heads import OneStageConfig
from det_models.checkpoints import settings
from det_models.config import BackboneConfig, ModelConfig
from det_models.detector_config import DetectorConfig


def foreign_settings(config: ModelConfig, system: str) -> list[str]:
    """Settings of `system` that are not those of its published ResNet-50-FPN detectors.

    Args:
        config: As the system runs it, from :func:`det_models.checkpoints.as_run_by`.
        system: detectron2, mmdetection or torchvision.
    """
    body = {"detectron2": _detectron2, "mmdetection": _mmdetection, "torchvision": _torchvision}[system]
    assert isinstance(config.detector, DetectorConfig | OneStageConfig)
    return [*body(config.backbone), *_sizes(config.resize, system), *settings(config.detector, system)]


def _sizes(resize: Resize, system: str) -> list[str]:
    (short,), long = resize.shortest, resize.longest
    if (short, long) == (800, 1333):
        return []
    return {
        "detectron2": [f"INPUT.MIN_SIZE_TEST: {short}", f"INPUT.MAX_SIZE_TEST: {long}"],
        "mmdetection": [f"test_pipeline: dict(type='Resize', scale=({long}, {short}), keep_ratio=True)"],
        "torchvision": [f"min_size={short}, max_size={long}"],
    }[system]


def _detectron2(backbone: BackboneConfig) -> list[str]:
    """Beside Base-RCNN-FPN.yaml."""
    lines = [f"MODEL.RESNETS.DEPTH: {backbone.depth}"]
    norm = _DETECTRON2_NORMS[backbone.norm]
    if norm != "FrozenBN":
        lines.append(f'MODEL.RESNETS.NORM: "{norm}"')
    if not backbone.stride_in_1x1:
        lines.append("MODEL.RESNETS.STRIDE_IN_1X1: False")
    if backbone.groups != 1:
        lines += [
            f"MODEL.RESNETS.NUM_GROUPS: {backbone.groups}",
            f"MODEL.RESNETS.WIDTH_PER_GROUP: {backbone.width_per_group}",
        ]
    if backbone.width != 64:
        lines.append(f"MODEL.RESNETS.STEM_OUT_CHANNELS: {backbone.width}")
    outputs = backbone.width * (4 if backbone.depth >= 50 else 1)
    if outputs != 256:
        lines.append(f"MODEL.RESNETS.RES2_OUT_CHANNELS: {outputs}")
    if backbone.pyramid_channels != 256:
        lines.append(f"MODEL.FPN.OUT_CHANNELS: {backbone.pyramid_channels}")
    if backbone.pyramid_norm is not None:
        lines.append(f'MODEL.FPN.NORM: "{_DETECTRON2_NORMS[backbone.pyramid_norm]}"')
    return lines


_DETECTRON2_NORMS = {
    "frozen_bn": "FrozenBN",
    "frozen_statistics_bn": "FrozenBN",
    "bn": "BN",
    "sync_bn": "SyncBN",
    "gn": "GN",
}


_GN, _BN = "dict(type='GN', num_groups=32, requires_grad=True)", "dict(type='BN', requires_grad=True)"


def _mmdetection(backbone: BackboneConfig) -> list[str]:
    """Beside _base_/models/*_rcnn_r50_fpn.py."""
    lines = [] if backbone.depth == 50 else [f"model.backbone.depth = {backbone.depth}"]
    if backbone.stride_in_1x1:
        lines.append("model.backbone.style = 'caffe'")
    if backbone.norm == "gn":
        lines.append(f"model.backbone.norm_cfg = {_GN}")
    elif backbone.norm_eps != 1e-5:
        lines.append(f"model.backbone.norm_cfg = dict(type='BN', eps={backbone.norm_eps}, requires_grad=True)")
    if backbone.groups != 1:
        lines.append(f"model.backbone: type='ResNeXt', groups={backbone.groups}, base_width={backbone.width_per_group}")
    if backbone.width != 64:
        lines.append(f"model.backbone: stem_channels={backbone.width}, base_channels={backbone.width}")
    outputs = [backbone.width * 2**stage * (4 if backbone.depth >= 50 else 1) for stage in range(4)]
    if outputs[0] != 256:
        lines.append(f"model.neck.in_channels = {outputs}")
    if backbone.pyramid_channels != 256:
        lines.append(f"model.neck.out_channels = {backbone.pyramid_channels}  # and in_channels of all heads")
    if backbone.pyramid_norm is not None:
        lines.append(f"model.neck.norm_cfg = {_GN if backbone.pyramid_norm == 'gn' else _BN}")
    return lines


def _torchvision(backbone: BackboneConfig) -> list[str]:
    """Beside {faster,mask}rcnn_resnet50_fpn{,_v2}(weights=None, weights_backbone=None)."""
    body = f"resnet{backbone.depth}" if backbone.groups == 1 else _resnext(backbone)
    lines = [f"backbone: {body}(norm_layer={_torchvision_norm(backbone.norm, backbone.norm_eps)}), in BackboneWithFPN"]
    if backbone.stride_in_1x1 and backbone.depth >= 50:
        lines += [
            "for layer in (body.layer2, body.layer3, body.layer4):",
            "    layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)",
        ]
    if backbone.width != 64:
        lines.append(f"a ResNet whose stem has {backbone.width} channels, where torchvision's always has 64")
    if backbone.pyramid_channels != 256:
        lines.append(f"BackboneWithFPN(..., out_channels={backbone.pyramid_channels})")
    if backbone.pyramid_norm is not None:
        norm = _torchvision_norm(backbone.pyramid_norm, backbone.norm_eps)
        lines.append(f"BackboneWithFPN(..., norm_layer={norm})")
    return lines


def _torchvision_norm(kind: Norm, eps: float) -> str:
    if kind == "gn":
        return "partial(GroupNorm, 32)"
    return f"partial({'FrozenBatchNorm2d' if kind.startswith('frozen') else 'BatchNorm2d'}, eps={eps})"


def _resnext(backbone: BackboneConfig) -> str:
    return f"resnext{backbone.depth}_{backbone.groups}x{backbone.width_per_group}d"
