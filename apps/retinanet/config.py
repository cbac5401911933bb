"""The recipes of RetinaNet and FCOS, each a function that returns the whole configuration of a run.

Constants: facebookresearch/detectron2 `configs/Base-RetinaNet.yaml`, `configs/COCO-Detection/{retinanet,fcos}_*`.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from apps.common.config import BucketRecipe, DataConfig
from det_backbones import TORCHVISION_PIXELS
from det_backbones.depth import Depth
from det_engine import SolverConfig, TrainSettings
from det_heads import AnchorConfig, OneStageConfig
from det_models import OneStageBackboneConfig, detectron2_fcos_config, detectron2_retinanet_config
from det_models.errors import CheckpointError

if TYPE_CHECKING:
    from det_models.checkpoints import Checkpoint


@dataclass(frozen=True, kw_only=True)
class OneStageRecipe(BucketRecipe):
    """A recipe of a RetinaNet or FCOS."""

    backbone: OneStageBackboneConfig
    detector: OneStageConfig

    def under(self, checkpoint: "Checkpoint") -> Self:
        """Pixels, strides, epsilon, anchors, coding, norms of the towers; sizes and training stay the recipe's."""
        from det_models.adopting import backbone_of, one_stage_under

        theirs, body = checkpoint.detector, backbone_of(checkpoint)
        if not isinstance(theirs, OneStageConfig):
            raise CheckpointError(f"this is no one-stage detector of boxes: {checkpoint}")
        taken = {name: body[name] for name in ("stride_in_1x1", "norm_eps", "p6_input", "p7_activation")}
        detector = one_stage_under(self.detector, theirs)
        return replace(self, backbone=replace(self.backbone, **taken), detector=detector)


def tiny() -> OneStageRecipe:
    """``hatch run apps/retinanet train``: the embedded data set from scratch, in minutes; aims at box AP50 0.6."""
    sizes = tuple(tuple(size * 2 ** (half / 2) for half in range(2)) for size in (16.0, 32.0, 64.0, 96.0, 128.0))
    return OneStageRecipe(
        name="tiny",
        summary="small RetinaNet for the embedded data set, from scratch, minutes on two CPU cores",
        backbone=OneStageBackboneConfig(
            depth=18, width=32, norm="bn", stride_in_1x1=False, freeze_at=0, pyramid_channels=64
        ),
        detector=OneStageConfig(
            pixels=TORCHVISION_PIXELS,
            anchors=AnchorConfig(sizes=sizes, ratios=(1.0,)),
            convs=2,
            norm="gn",
            box_loss="giou",
            candidates=300,
            max_detections=50,
        ),
        data=DataConfig(
            batch=8,
            train_sizes=(144, 160, 176),
            test_size=160,
            max_size=240,
            max_instances=32,
            filter_empty=False,
            workers=0,
        ),
        solver=SolverConfig(
            base_lr=0.04,
            reference_batch=8,
            weight_decay=1e-4,
            warmup_steps=100,
            warmup_factor=0.01,
            milestones=(700, 900),
            steps=1000,
            clip_norm=10.0,
        ),
        train=TrainSettings(log_interval=10, checkpoint_interval=250, evaluation_interval=250),
    )


def retinanet_r50_fpn_1x() -> OneStageRecipe:
    """detectron2 COCO-Detection/retinanet_R_50_FPN_1x: 37.4 box AP on val2017."""
    return _detectron2("retinanet_r50_fpn_1x", "detectron2, 12 epochs: 37.4 box AP")


def retinanet_r50_fpn_3x() -> OneStageRecipe:
    """detectron2 retinanet_R_50_FPN_3x: 38.7 box AP."""
    return _detectron2("retinanet_r50_fpn_3x", "detectron2, 37 epochs: 38.7 box AP", schedule=3)


def retinanet_r101_fpn_3x() -> OneStageRecipe:
    """detectron2 retinanet_R_101_FPN_3x: 40.4 box AP."""
    return _detectron2("retinanet_r101_fpn_3x", "detectron2, 37 epochs: 40.4 box AP", depth=101, schedule=3)


def fcos_r50_fpn_1x() -> OneStageRecipe:
    """detectron2 COCO-Detection/fcos_R_50_FPN_1x (no published figure)."""
    recipe = _detectron2("fcos_r50_fpn_1x", "FCOS by detectron2's 1x schedule; no published figure")
    backbone = replace(recipe.backbone, p6_input="pyramid")
    return replace(recipe, backbone=backbone, detector=detectron2_fcos_config())


def _detectron2(name: str, summary: str, *, depth: Depth = 50, schedule: int = 1) -> OneStageRecipe:
    """detectron2's Base-RetinaNet: multi-scale 640-800, frozen batch norm, MSRA weights, `schedule` times 90k steps."""
    one = SolverConfig(
        base_lr=0.01,
        reference_batch=16,
        weight_decay=1e-4,
        norm_weight_decay=0.0,
        warmup_steps=1000,
        warmup_factor=1 / 1000,
        milestones=(60_000, 80_000),
        steps=90_000,
    )
    return OneStageRecipe(
        name=name,
        summary=summary,
        backbone=OneStageBackboneConfig(depth=depth, weights=f"R-{depth}.pkl"),
        detector=detectron2_retinanet_config(),
        data=DataConfig(batch=16),
        solver=one if schedule == 1 else replace(one, milestones=(210_000, 250_000), steps=270_000),
        train=TrainSettings(log_interval=20, checkpoint_interval=5000, evaluation_interval=5000),
    )


RECIPES = {
    recipe.__name__: recipe
    for recipe in (tiny, retinanet_r50_fpn_1x, retinanet_r50_fpn_3x, retinanet_r101_fpn_3x, fcos_r50_fpn_1x)
}
