"""The recipes of YOLACT and YOLACT++, each a function that returns the whole configuration of a run.

Constants: dbolya/yolact `data/config.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import det_coco
from apps.common.config import LoadingConfig, Recipe
from det_engine import SolverConfig, TrainSettings, launching, scaled_to_batch
from det_engine.cli import UsageError
from det_heads import PriorConfig, YolactConfig, yolact_config, yolact_plus_config
from det_heads.yolact.config import bitmap_sizes
from det_models import CheckpointError, YolactBackboneConfig

if TYPE_CHECKING:
    from det_coco import BatchShape, Resize
    from det_coco.transforms import Transform
    from det_models.checkpoints import Checkpoint


@dataclass(frozen=True, kw_only=True)
class SquareConfig(LoadingConfig):
    """How images become static batches of squares, by SSD's augmentation."""

    batch: int = 8
    size: int = 550
    """Both sides of every image; the aspect ratio is not kept. Prior boxes keep their pixels, whatever it is."""
    photometric: bool = True
    """Change brightness, contrast, saturation and hue."""
    expand: bool = True
    """Place half of the pictures on a larger canvas."""
    crop: bool = True
    """Cut a window that holds the centre of an object."""
    enforce_overlap: bool = False
    """Let the window overlap an object by as much as was drawn for it; YOLACT draws, and accepts all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size < 1:
            raise ValueError(f"size must be at least 1, got {self.size}")


@dataclass(frozen=True, kw_only=True)
class YolactRecipe(Recipe):
    """A recipe of YOLACT."""

    backbone: YolactBackboneConfig
    detector: YolactConfig
    data: SquareConfig

    def __post_init__(self) -> None:
        estimator, size = self.detector.mask_iou, self.data.size
        if estimator is not None and bitmap_sizes(size, size)[0][0] < estimator.min_side:
            cells = (estimator.min_side + 1) // 2  # of P3, of which the prototypes have two
            raise UsageError(
                f"--data.size must be at least {8 * (cells - 1) + 1} for YOLACT++, got {size}: its mask-IoU network "
                f"looks at masks of {estimator.min_side} pixels and more. Give a larger --data.size, or another recipe."
            )

    def batch_shape(self) -> BatchShape:
        """One square, and masks at the sizes of the two losses that learn them."""
        data = self.data
        return det_coco.BatchShape(
            buckets=((data.size, data.size),),
            masks="bitmaps",
            max_instances=data.max_instances,
            bitmap_sizes=bitmap_sizes(data.size, data.size),
            drop_excess=data.drop_excess,
        )

    def training_transform(self) -> Transform:
        """SSD's augmentation, and what else is asked for."""
        data = self.data
        ssd = det_coco.SSDAugmentation(
            resize=self.test_resize(),
            photometric=data.photometric,
            expand=data.expand,
            crop=data.crop,
            flip=data.flip,
            enforce_overlap=data.enforce_overlap,
        )
        return data.augment.transform(ssd, size=data.size, flip=data.flip)

    def test_resize(self) -> Resize:
        """The square."""
        return det_coco.Resize(shortest=(self.data.size,), longest=self.data.size, rule="yolact")

    def resolved(self) -> YolactRecipe:
        """The recipe with batch norm frozen where a device has too few images for it."""
        images = self.data.batch // launching.world_size()
        if self.backbone.norm != "bn":
            return self
        if images < self.backbone.freeze_norm_below:
            return replace(self, backbone=replace(self.backbone, norm="frozen_bn"))
        if images == 1 and self.data.size <= 32:
            raise UsageError(
                f"Batch norm has nothing to average over in one image of {self.data.size} pixels. Give a larger "
                "--data.size, a larger --data.batch, or --backbone.freeze-norm-below 6."
            )
        return self

    def scaled_to_batch(self, batch: int) -> tuple[SolverConfig, str]:
        """The original's autoscale: its warm-up has 500 steps from a rate of 1e-4 whatever the batch."""
        return scaled_to_batch(self.solver, batch, keep_warmup=True)

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self:
        """The whole network is the checkpoint's; the size of its images, and with it of its priors, no file tells."""
        from det_models.adopting import model_of

        detector, model = _yolact(checkpoint), model_of(checkpoint)
        assert isinstance(model.backbone, YolactBackboneConfig)
        return cls(
            name=checkpoint.system,
            summary=str(checkpoint),
            backbone=model.backbone,
            detector=detector,
            data=SquareConfig(batch=2),
            solver=SolverConfig(base_lr=1e-3, reference_batch=8),
            train=TrainSettings(),
        )

    def under(self, checkpoint: Checkpoint) -> Self:
        """Pixels; all else that is not a size is the same in all of YOLACT's networks of a recipe."""
        return replace(self, detector=replace(self.detector, pixels=_yolact(checkpoint).pixels))


def _yolact(checkpoint: Checkpoint) -> YolactConfig:
    if not isinstance(checkpoint.detector, YolactConfig):
        raise CheckpointError(f"this is no YOLACT: {checkpoint}")
    return checkpoint.detector


RESNET50 = YolactBackboneConfig(depth=50, weights="resnet50-19c8e357.pth")
RESNET101 = YolactBackboneConfig(depth=101, weights="resnet101_reducedfc.pth")


def tiny() -> YolactRecipe:
    """``hatch run apps/yolact train``: the embedded data set from scratch, in minutes; aims at mask AP50 0.55."""
    sizes = tuple((size, size * 2 ** (1 / 3), size * 2 ** (2 / 3)) for size in (16.0, 32.0, 64.0, 96.0, 128.0))
    return YolactRecipe(
        name="tiny",
        summary="small network for the embedded data set, from scratch, minutes on two CPU cores",
        backbone=YolactBackboneConfig(depth=18, width=32, freeze_norm_below=0, pyramid_channels=64),
        detector=YolactConfig(priors=PriorConfig(sizes=sizes, ratios=(1.0,)), channels=64, prototypes=16),
        # On a canvas of four times the size most shapes would be smaller than a cell of the finest level.
        data=SquareConfig(size=160, expand=False, max_instances=32, workers=0),
        solver=SolverConfig(
            base_lr=0.02,
            reference_batch=8,
            weight_decay=5e-4,
            norm_weight_decay=None,
            warmup_steps=100,
            warmup_factor=0.1,
            milestones=(900, 1100),
            steps=1200,
            clip_norm=10.0,
        ),
        train=TrainSettings(log_interval=10, checkpoint_interval=300, evaluation_interval=300),
    )


def yolact_base() -> YolactRecipe:
    """yolact_base_config: ResNet-101 at 550 pixels, 29.8 mask AP on test-dev."""
    return _published("yolact_base", "R-101 at 550 pixels: 29.8 mask AP", RESNET101, yolact_config())


def yolact_im400() -> YolactRecipe:
    """yolact_im400_config: 24.9 mask AP."""
    return _published("yolact_im400", "R-101 at 400 pixels: 24.9 mask AP", RESNET101, yolact_config(size=400), size=400)


def yolact_im700() -> YolactRecipe:
    """yolact_im700_config: 31.2 mask AP."""
    return _published("yolact_im700", "R-101 at 700 pixels: 31.2 mask AP", RESNET101, yolact_config(size=700), size=700)


def yolact_resnet50() -> YolactRecipe:
    """yolact_resnet50_config: 28.2 mask AP."""
    return _published("yolact_resnet50", "R-50 at 550 pixels: 28.2 mask AP", RESNET50, yolact_config())


def yolact_darknet53() -> YolactRecipe:
    """yolact_darknet53_config: 28.7 mask AP."""
    backbone = YolactBackboneConfig(kind="darknet53", weights="darknet53.pth")
    return _published(
        "yolact_darknet53", "DarkNet-53 at 550 pixels: 28.7 mask AP", backbone, yolact_config(darknet=True)
    )


def yolact_plus_base() -> YolactRecipe:
    """yolact_plus_base_config: every third block of C3 to C5 deformable, 34.6 mask AP."""
    backbone = replace(RESNET101, deformable_blocks=(0, 4, 23, 3), deformable_interval=3)
    return _published("yolact_plus_base", "YOLACT++, R-101 at 550 pixels: 34.6 mask AP", backbone, yolact_plus_config())


def yolact_plus_resnet50() -> YolactRecipe:
    """yolact_plus_resnet50_config: every block of C3 to C5 deformable, 34.1 mask AP."""
    backbone = replace(RESNET50, deformable_blocks=(0, 4, 6, 3))
    return _published(
        "yolact_plus_resnet50", "YOLACT++, R-50 at 550 pixels: 34.1 mask AP", backbone, yolact_plus_config()
    )


def _published(
    name: str, summary: str, backbone: YolactBackboneConfig, detector: YolactConfig, size: int = 550
) -> YolactRecipe:
    """The data and the schedule that all published configurations share: 800 thousand steps of 8 images."""
    return YolactRecipe(
        name=name,
        summary=summary,
        backbone=backbone,
        detector=detector,
        data=SquareConfig(size=size, workers=4),
        solver=SolverConfig(
            base_lr=1e-3,
            reference_batch=8,
            weight_decay=5e-4,
            norm_weight_decay=None,
            warmup_steps=500,
            warmup_factor=0.1,
            milestones=(280_000, 600_000, 700_000, 750_000),
            steps=800_000,
        ),
        train=TrainSettings(log_interval=10, checkpoint_interval=10_000, evaluation_interval=30_000),
    )


RECIPES = {
    recipe.__name__: recipe
    for recipe in (
        tiny,
        yolact_base,
        yolact_im400,
        yolact_im700,
        yolact_resnet50,
        yolact_darknet53,
        yolact_plus_base,
        yolact_plus_resnet50,
    )
}
