"""torchvision's own network on a file that we wrote for it."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import resnet
from torchvision.models.detection import FCOS, FasterRCNN, KeypointRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from det_backbones import Norm, make_norm
from det_backbones.residual import BLOCKS
from det_coco import Batch
from det_heads import BoxHeadConfig, KeypointHeadConfig, MaskHeadConfig, OneStageConfig
from det_heads.config import PoolConfig
from det_models.certificate import Detections, Outputs
from det_models.config import BackboneConfig, ModelConfig
from det_models.detector_config import DetectorConfig


def torchvision_network(model: ModelConfig, state: Mapping[str, Tensor]) -> nn.Module | None:
    """Torchvision's detector for a configuration as torchvision runs it, with the weights of a file.

    Returns:
        None where torchvision has no such body: its ResNets have 64 channels in the stem.
    """
    backbone, config = model.backbone, model.detector
    if backbone.width != 64:
        return None
    if isinstance(config, OneStageConfig):
        return _one_stage(backbone, config, state)
    assert isinstance(config, DetectorConfig)
    body = _body(backbone)
    channels = backbone.pyramid_channels
    inputs = [body.inplanes // 8 * 2**stage for stage in range(4)]
    pyramid = BackboneWithFPN(
        body,
        {f"layer{stage + 1}": str(stage) for stage in range(4)},
        inputs,
        channels,
        norm_layer=_pyramid_norm(backbone),
    )
    return _two_stage(pyramid, config, state)


def _body(backbone: BackboneConfig) -> resnet.ResNet:
    norm = _norm(backbone.norm, backbone.norm_eps)
    body = resnet.ResNet(
        cast("Any", resnet.Bottleneck if backbone.depth >= 50 else resnet.BasicBlock),
        list(BLOCKS[backbone.depth]),
        groups=backbone.groups,
        width_per_group=backbone.width_per_group,
        norm_layer=norm,
    )
    if backbone.stride_in_1x1 and backbone.depth >= 50:
        for layer in (body.layer2, body.layer3, body.layer4):
            first = cast("resnet.Bottleneck", layer[0])
            first.conv1.stride, first.conv2.stride = (2, 2), (1, 1)
    return body


def _pyramid_norm(backbone: BackboneConfig) -> Callable[[int], nn.Module] | None:
    return _norm(backbone.pyramid_norm, backbone.norm_eps) if backbone.pyramid_norm else None


def _one_stage(backbone: BackboneConfig, config: OneStageConfig, state: Mapping[str, Tensor]) -> nn.Module:
    body, channels = _body(backbone), backbone.pyramid_channels
    inputs = [body.inplanes // 8 * 2**stage for stage in range(1, 4)]
    p6 = state["backbone.fpn.extra_blocks.p6.weight"].shape[1]
    pyramid = BackboneWithFPN(
        body,
        {f"layer{stage + 1}": str(stage - 1) for stage in range(1, 4)},
        inputs,
        channels,
        extra_blocks=LastLevelP6P7(p6, channels),
        norm_layer=_pyramid_norm(backbone),
    )
    anchors, fcos = config.anchors, config.locations is not None
    classes = len(state["head.classification_head.cls_logits.bias"]) // anchors.per_cell
    options: dict[str, Any] = {
        "image_mean": config.pixels.mean,
        "image_std": config.pixels.std,
        "anchor_generator": AnchorGenerator(anchors.sizes, (anchors.ratios,) * len(anchors.sizes)),
        "topk_candidates": config.candidates,
        "score_thresh": config.score_threshold,
        "nms_thresh": config.nms_threshold,
        "detections_per_img": config.max_detections,
    }
    if config.norm and not fcos:
        groups = partial(nn.GroupNorm, 32)
        options["head"] = RetinaNetHead(channels, anchors.per_cell, classes, norm_layer=groups)
    network = (FCOS if fcos else RetinaNet)(pyramid, classes, **options)
    network.load_state_dict(dict(state))
    return network.eval()


def _two_stage(pyramid: nn.Module, config: DetectorConfig, state: Mapping[str, Tensor]) -> FasterRCNN:
    channels = int(pyramid.out_channels)  # type: ignore[arg-type]
    rpn, box = config.rpn, config.box
    outputs = len(state["roi_heads.box_predictor.cls_score.bias"])
    options: dict[str, Any] = {
        "image_mean": config.pixels.mean,
        "image_std": config.pixels.std,
        "rpn_anchor_generator": AnchorGenerator(rpn.anchors.sizes, (rpn.anchors.ratios,) * len(rpn.anchors.sizes)),
        "rpn_head": RPNHead(channels, rpn.anchors.per_cell, conv_depth=rpn.convs),
        "rpn_pre_nms_top_n_test": rpn.pre_nms_test,
        "rpn_post_nms_top_n_test": rpn.post_nms_test,
        "rpn_nms_thresh": rpn.nms_threshold,
        "box_roi_pool": _pool(box.pool),
        "box_head": _box_head(channels, box),
        "box_predictor": FastRCNNPredictor(box.channels, outputs),
        "box_score_thresh": box.score_threshold,
        "box_nms_thresh": box.nms_threshold,
        "box_detections_per_img": box.max_detections,
        "bbox_reg_weights": box.coding.weights,
    }
    kind = FasterRCNN
    for branch in config.branches.values():
        if isinstance(branch, MaskHeadConfig):
            kind = MaskRCNN
            options |= _mask_options(channels, branch, outputs)
        elif isinstance(branch, KeypointHeadConfig):
            kind = KeypointRCNN
            options |= _keypoint_options(channels, branch)
    network = kind(pyramid, **options)
    network.load_state_dict(dict(state))
    return network.eval()


def version() -> str:
    """The version of torchvision that is installed."""
    return torchvision.__version__


def _norm(kind: Norm, eps: float) -> Callable[[int], nn.Module]:
    if kind in ("frozen_bn", "frozen_statistics_bn"):
        return partial(FrozenBatchNorm2d, eps=eps)
    return partial(nn.BatchNorm2d, eps=eps) if kind in ("bn", "sync_bn") else partial(make_norm, "gn", eps=eps)


def _pool(config: PoolConfig) -> MultiScaleRoIAlign:
    names = [str(level) for level in range(config.levels)]
    return MultiScaleRoIAlign(names, output_size=config.size, sampling_ratio=config.sampling_ratio)


def _box_head(channels: int, config: BoxHeadConfig) -> nn.Module:
    size = config.pool.size
    if not config.convs:
        return TwoMLPHead(channels * size**2, config.channels)
    widths = [config.conv_channels] * config.convs
    return FastRCNNConvFCHead((channels, size, size), widths, [config.channels], norm_layer=nn.BatchNorm2d)


def _mask_options(channels: int, config: MaskHeadConfig, outputs: int) -> dict[str, Any]:
    norm = nn.BatchNorm2d if config.norm else None
    return {
        "mask_roi_pool": _pool(config.pool),
        "mask_head": MaskRCNNHeads(channels, [config.channels] * config.convs, 1, norm_layer=norm),
        "mask_predictor": MaskRCNNPredictor(config.channels, config.channels, outputs),
    }


def _keypoint_options(channels: int, config: KeypointHeadConfig) -> dict[str, Any]:
    return {
        "keypoint_roi_pool": _pool(config.pool),
        "keypoint_head": KeypointRCNNHeads(channels, [config.channels] * config.convs),
        "keypoint_predictor": KeypointRCNNPredictor(config.channels, config.num_keypoints),
    }


class TorchvisionOutputs(Outputs):
    """What torchvision computes.

    Args:
        model: From :func:`torchvision_network`.
        labels: torchvision's label of each of our classes.
    """

    def __init__(self, model: nn.Module, labels: Sequence[int]) -> None:
        self.model: Any = model
        self.labels = torch.tensor(labels)

    def layer(self, group: str, inputs: tuple[Any, ...], batch: Batch) -> Any:
        """Outputs of a group of layers, in our order of classes; see :meth:`Outputs.layer`."""
        model = self.model
        body, kind = model.backbone.body, group.partition(" ")[0]
        if group == "stem":
            images = model.transform(self._images(batch))[0].tensors
            return body.maxpool(body.relu(body.bn1(body.conv1(images))))
        if kind == "stage":
            return body[f"layer{int(group[-1]) - 1}"](*inputs)
        if kind == "pyramid":
            levels = len(model.backbone.fpn.inner_blocks)
            maps = dict(zip("0123", inputs[0][-levels:], strict=False))
            return list(model.backbone.fpn(maps).values())
        if kind == "predictions":
            return self._dense(inputs[0])
        if kind == "proposals":
            return model.rpn.head(inputs[0])
        heads = model.roi_heads
        if kind == "box":
            logits, deltas = heads.box_predictor(heads.box_head(inputs[0]))
            order = torch.cat((self.labels, self.labels.new_zeros(1)))  # background last
            return logits[:, order], deltas.unflatten(1, (-1, 4))[:, self.labels].flatten(1)
        if kind == "keypoint":
            pooled, count = inputs
            logits = heads.keypoint_predictor(heads.keypoint_head(pooled))  # [R, J, 4P, 4P]
            used = (torch.arange(len(pooled)) < count)[:, None, None, None]
            return torch.where(used, logits, heads.keypoint_predictor.kps_score_lowres.bias[:, None, None])
        pooled, labels, count = inputs
        logits = heads.mask_predictor(heads.mask_head(pooled))[torch.arange(len(pooled)), self.labels[labels]]
        # Beyond `count` are rows without a box, of which ours says nothing.
        used = (torch.arange(len(pooled)) < count)[:, None, None]
        padding = heads.mask_predictor.mask_fcn_logits.bias[self.labels[labels]][:, None, None]
        return torch.where(used, logits, padding)

    def _dense(self, features: Sequence[Tensor]) -> list[list[Tensor]]:
        """Maps [1, ...] of a one-stage head, level by level, with our classes alone."""
        outputs = [self.model.head([feature]) for feature in features]
        regression = self.model.head.regression_head
        if hasattr(regression, "bbox_ctrness"):  # FCOS's distances, which it rectifies within the head, before that
            for output, feature in zip(outputs, features, strict=True):
                deltas = regression.bbox_reg(regression.conv(feature))
                output["bbox_regression"] = deltas.permute(0, 2, 3, 1).reshape(1, -1, 4)
        found = []
        for name in ("cls_logits", "bbox_regression", "bbox_ctrness"):
            if name in outputs[0]:
                rows = [output[name] for output in outputs]
                rows = [part[..., self.labels] for part in rows] if name == "cls_logits" else rows
                pairs = zip(rows, features, strict=True)
                found.append([_as_map(part, map_) for part, map_ in pairs])
        return found

    def detections(self, batch: Batch) -> Detections:
        """Detections of a batch, with masks before they are pasted; see :meth:`Outputs.detections`."""
        kept: list[Tensor] = []
        heads = getattr(self.model, "roi_heads", None)
        hooks = []
        if heads is not None and heads.has_mask():
            hooks.append(heads.mask_predictor.register_forward_hook(lambda _m, _i, output: kept.append(output)))
        (found,) = self.model(self._images(batch))
        for hook in hooks:
            hook.remove()
        result = {
            "boxes": found["boxes"],
            "scores": found["scores"],
            "labels": (found["labels"][:, None] == self.labels).int().argmax(1),
            # Its one-stage detectors may find a class 0, which is no category's.
            "valid": (found["labels"][:, None] == self.labels).any(1),
        }
        if kept:
            result["masks"] = kept[0].sigmoid()[torch.arange(len(found["labels"])), found["labels"]]
        return {name: tensor[None] for name, tensor in result.items()}

    def _images(self, batch: Batch) -> list[Tensor]:
        """The resized image as torchvision takes it, in 0..1 and without padding, to be left in its size."""
        height, width = batch["image_sizes"][0].tolist()
        self.model.transform.min_size, self.model.transform.max_size = (min(height, width),), max(height, width)
        return [batch["images"][0, :, :height, :width].float() / 255]


def _as_map(rows: Tensor, like: Tensor) -> Tensor:
    """Rows [B, H * W * A, K] as a map [B, A * K, H, W] of the cells of another."""
    return rows.unflatten(1, (*like.shape[2:], -1)).flatten(3).permute(0, 3, 1, 2)
