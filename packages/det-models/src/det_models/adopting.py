"""What a recipe takes from a checkpoint of another system, so that the tensors mean what they meant there."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from det_coco import Resize, default_buckets
from det_coco.resize import SizeRule
from det_heads import OneStageConfig, PixelConfig, YolactConfig
from det_models.checkpoints import Checkpoint, CheckpointError
from det_models.config import BackboneConfig, ModelConfig, OneStageBackboneConfig, YolactBackboneConfig
from det_models.detector_config import DetectorConfig

C = TypeVar("C")
_RANKS = ("pre_nms_scores", "nms_scores")


def conventions_of(recipe: DetectorConfig, theirs: DetectorConfig) -> DetectorConfig:
    """The heads of a recipe under the conventions on which the meaning of tensors depends.

    Sizes of layers, sampling, losses, thresholds and numbers of candidates stay the recipe's.

    Args:
        recipe: The recipe's heads.
        theirs: The checkpoint's.

    Raises:
        CheckpointError: One has a branch or a cascade, and the other has not.
    """
    mine_has, theirs_has = _parts(recipe), _parts(theirs)
    for holder, other, parts in (
        ("recipe", "checkpoint", mine_has - theirs_has),
        ("checkpoint", "recipe", theirs_has - mine_has),
    ):
        if parts:
            raise CheckpointError(f"the {holder} has a {min(parts)} and the {other} has not; choose another recipe")
    mine = recipe.rpn
    straddle = {name: getattr(mine.anchors, name) for name in ("straddle", "match_straddling")}
    cascade = recipe.cascade
    branches: dict[str, Any] = {
        name: _with(branch, theirs.branches[name], *branch.conventions) for name, branch in recipe.branches.items()
    }
    if cascade is not None and theirs.cascade is not None:
        # A mask head per stage learns from that stage's samples.
        cascade = _with(cascade, theirs.cascade, "positive_ious", "coding_weights", "scores", "mask_heads", "resample")
    return replace(
        recipe,
        pixels=theirs.pixels,
        rpn=replace(
            _with(
                mine, theirs.rpn, "convs", "coding", "min_size", "min_size_inclusive", "pre_nms_scores", "nms_scores"
            ),
            anchors=replace(theirs.rpn.anchors, **straddle),
        ),
        box=_with(recipe.box, theirs.box, "pool", "coding", "convs", "norm", "layers", "class_agnostic", "min_size"),
        cascade=cascade,
        offset=theirs.offset,
        **branches,
    )


def _parts(config: DetectorConfig) -> set[str]:
    """What not every detector has."""
    cascade = set() if config.cascade is None else {"cascade"}
    return cascade | {branch.module.replace("_", " ") for branch in config.branches.values()}


# Whose images a detector gets, by the first word of its system's name.
_RULES: dict[str, SizeRule] = {
    "caffe2": "maskrcnn_benchmark",
    "detectron2": "detectron2",
    "maskrcnn": "maskrcnn_benchmark",
    "mmdetection": "mmdetection",
    "torchvision": "torchvision",
}


def backbone_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """The fields of a recipe's backbone, as the checkpoint has them."""
    backbone = checkpoint.backbone
    names = (
        "depth", "width", "groups", "width_per_group", "stride_in_1x1", "norm", "norm_eps", "pyramid_channels",
        "pyramid_norm", "deformable_blocks", "deformable_interval",
    )  # fmt: skip
    trained = backbone.norm in ("bn", "gn")
    body = {"name": "resnet", "freeze_at": 0 if trained else 2, **{name: getattr(backbone, name) for name in names}}
    if isinstance(checkpoint.detector, OneStageConfig):
        # The channels that P6 sees are those of what it is made of.
        seen, c5 = (checkpoint.tensors[f"backbone.fpn.{name}.weight"].shape[1] for name in ("strided.0", "lateral.2"))
        body["p6_input"] = "body" if seen == c5 else "pyramid"
        body["p7_activation"] = not checkpoint.system.startswith("mmdetection")
    return body


def one_stage_under(recipe: OneStageConfig, theirs: OneStageConfig) -> OneStageConfig:
    """A one-stage recipe's head under the conventions on which the meaning of tensors depends.

    Args:
        recipe: The recipe's; sizes, losses and thresholds stay as they are.
        theirs: The checkpoint's.

    Raises:
        CheckpointError: One is a RetinaNet and the other an FCOS.
    """
    if recipe.title != theirs.title:
        raise CheckpointError(
            f"the recipe is a {recipe.title} and the checkpoint a {theirs.title}; choose another recipe"
        )
    return _with(recipe, theirs, "pixels", "anchors", "norm", "norm_bias", "coding", "clip")


def model_of(checkpoint: Checkpoint) -> ModelConfig:
    """The whole network of another system's checkpoint, on images as that system takes them.

    The size of YOLACT's images, and with it of its priors, no file tells: it is that of `yolact_base`, 550 pixels.
    """
    detector, body = checkpoint.detector, backbone_of(checkpoint)
    if isinstance(detector, YolactConfig):
        body |= {"freeze_at": 0, "norm": "bn"}
        backbone: BackboneConfig = YolactBackboneConfig(
            kind="darknet53" if checkpoint.backbone.name == "darknet53" else "resnet", **body
        )
        resize = Resize(shortest=(550,), longest=550, rule="yolact")
    else:
        kind = OneStageBackboneConfig if isinstance(detector, OneStageConfig) else BackboneConfig
        backbone = kind(**body)
        resize = Resize(rule=_RULES[checkpoint.system.partition("-")[0]])
    return ModelConfig(backbone=backbone, detector=detector, resize=resize, buckets=default_buckets(resize))


def changes(before: Any, after: Any) -> list[str]:
    """Fields that differ between two configurations, with both values."""
    new = dict(_leaves(after))
    return [
        f"{name} {_text(new.get(name))} (recipe: {_text(value)})"
        for name, value in _leaves(before)
        if new.get(name) != value
    ]


def _with(mine: C, theirs: C, *names: str) -> C:
    return replace(mine, **{name: getattr(theirs, name) for name in names})  # type: ignore[type-var]


def _leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for field in fields(config):
        value, name = getattr(config, field.name), prefix + field.name
        if is_dataclass(value) and not isinstance(value, PixelConfig):
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value


def _text(value: Any) -> str:
    if isinstance(value, PixelConfig):
        return f"{value.order.upper()} / {value.scale:g}, mean {value.mean}, std {value.std}"
    return f"{value:g}" if isinstance(value, float) else str(value)
