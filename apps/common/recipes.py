"""Recipes of Faster and Mask R-CNN: the published systems, and two that train from scratch on a CPU.

Both apps offer the same training recipes with and without the mask branch, so they are made here once.
"""

from dataclasses import replace

from apps.common.augmentation import AugmentConfig
from apps.common.config import DataConfig, TwoStageRecipe
from det_backbones import TORCHVISION_PIXELS
from det_backbones.depth import Depth
from det_engine import SolverConfig, TrainSettings
from det_heads import AnchorConfig, BoxHeadConfig, MaskHeadConfig, PoolConfig, RPNConfig
from det_models import (
    BackboneConfig,
    DetectorConfig,
    detectron2_config,
    maskrcnn_benchmark_config,
    mmdetection_config,
)


def detectron2(name: str, summary: str, *, mask: bool, depth: Depth = 50, schedule: int = 1) -> TwoStageRecipe:
    """detectron2's Base-RCNN-FPN: multi-scale 640-800, frozen batch norm, MSRA weights, `schedule` times 90k steps."""
    one = SolverConfig(
        base_lr=0.02,
        reference_batch=16,
        weight_decay=1e-4,
        norm_weight_decay=0.0,
        warmup_steps=1000,
        warmup_factor=1 / 1000,
        milestones=(60_000, 80_000),
        steps=90_000,
    )
    return TwoStageRecipe(
        name=name,
        summary=summary,
        backbone=BackboneConfig(depth=depth, stride_in_1x1=True, freeze_at=2, weights=f"R-{depth}.pkl"),
        detector=detectron2_config(mask=mask),
        data=DataConfig(batch=16),
        solver=one if schedule == 1 else replace(one, milestones=(210_000, 250_000), steps=270_000),
        train=TrainSettings(log_interval=20, checkpoint_interval=5000, evaluation_interval=5000),
    )


def resnext101(recipe: TwoStageRecipe) -> TwoStageRecipe:
    """ResNeXt-101-32x8d in place of the ResNet, with torchvision's ImageNet weights and therefore its pixels."""
    return replace(
        recipe,
        backbone=replace(
            recipe.backbone,
            depth=101,
            groups=32,
            width_per_group=8,
            stride_in_1x1=False,
            weights="resnext101_32x8d-8ba56ff5.pth",
        ),
        detector=replace(recipe.detector, pixels=TORCHVISION_PIXELS),
    )


def maskrcnn_benchmark(name: str, summary: str, *, mask: bool) -> TwoStageRecipe:
    """e2e_{mask,faster}_rcnn_R_50_FPN_1x of mlcommons / maskrcnn-benchmark, legacy conventions included."""
    detector = maskrcnn_benchmark_config(mask=mask)
    return TwoStageRecipe(
        name=name,
        summary=summary,
        backbone=BackboneConfig(depth=50, norm_eps=0.0, stride_in_1x1=True, freeze_at=2, weights="R-50.pkl"),
        # The 2000 proposals of a batch are those of 2 images: the published runs have 16 on 8 devices.
        detector=replace(detector, rpn=replace(detector.rpn, post_nms_train_images=2)),
        data=DataConfig(batch=16, train_sizes=(800,), rounding="maskrcnn_benchmark"),
        solver=SolverConfig(
            base_lr=0.02,
            reference_batch=16,
            weight_decay=1e-4,
            norm_weight_decay=None,
            bias_lr_factor=2.0,
            bias_weight_decay=0.0,
            warmup_steps=500,
            warmup_factor=1 / 3,
            milestones=(60_000, 80_000),
            steps=90_000,
        ),
        train=TrainSettings(log_interval=20, checkpoint_interval=2500, evaluation_interval=10_000),
    )


def swin_tiny(name: str, summary: str, *, schedule: int) -> TwoStageRecipe:
    """Mmdetection's `mask_rcnn_swin-t-p4-w7_fpn`, on timm's network and its weights, which a file has to bring.

    timm's features lack the norm after each stage that mmdetection's have.
    """
    epoch = 7330  # steps of 16 of the 117,266 images with objects
    ends = {1: (8, 11, 12), 3: (27, 33, 36)}[schedule]
    return TwoStageRecipe(
        name=name,
        summary=summary,
        backbone=BackboneConfig(
            name="timm/swin_tiny_patch4_window7_224", drop_path=0.2, freeze_at=0, pyramid_init="xavier"
        ),
        detector=replace(mmdetection_config(), pixels=TORCHVISION_PIXELS),
        data=DataConfig(
            batch=16,
            train_sizes=(800,) if schedule == 1 else tuple(range(480, 801, 32)),
            rounding="mmdetection",
            augment=AugmentConfig(ms_crop=schedule == 3),
        ),
        solver=SolverConfig(
            optimizer="adamw",
            base_lr=1e-4,
            reference_batch=16,
            weight_decay=0.05,
            norm_weight_decay=0.0,
            no_decay=("*relative_position_bias_table",),
            warmup_steps=1000,
            warmup_factor=1 / 1000,
            milestones=(ends[0] * epoch, ends[1] * epoch),
            steps=ends[2] * epoch,
        ),
        train=TrainSettings(log_interval=50, checkpoint_interval=epoch, evaluation_interval=epoch),
    )


def vitdet_base(name: str, summary: str) -> TwoStageRecipe:
    """detectron2's `projects/ViTDet/configs/COCO/mask_rcnn_vitdet_b_100ep.py`, on timm's network of the same kind.

    That is SAM's encoder: windows of 14 x 14 patches, four blocks that look at the whole image, relative positions. Its
    weights a file has to bring: timm's or SAM's own; detectron2 starts from a masked autoencoder's.
    """
    detector = detectron2_config()
    assert detector.mask is not None
    box = replace(detector.box, convs=4, layers=1, norm="ln")
    return TwoStageRecipe(
        name=name,
        summary=summary,
        backbone=BackboneConfig(name="timm/samvit_base_patch16", drop_path=0.1, freeze_at=0),
        detector=replace(
            detector,
            pixels=TORCHVISION_PIXELS,
            rpn=replace(detector.rpn, convs=2),
            box=box,
            mask=replace(detector.mask, norm="ln"),
        ),
        data=DataConfig(
            batch=64,
            train_sizes=(1024,),
            test_size=1024,
            max_size=1024,
            augment=AugmentConfig(scale_jitter=(0.1, 2.0)),
        ),
        solver=SolverConfig(
            optimizer="adamw",
            base_lr=1e-4,
            reference_batch=64,
            weight_decay=0.1,
            norm_weight_decay=0.0,
            no_decay=("*pos_embed",),
            layer_decay=0.7,
            warmup_steps=250,
            warmup_factor=1 / 1000,
            milestones=(163_889, 177_546),
            steps=184_375,
        ),
        train=TrainSettings(log_interval=20, checkpoint_interval=5000, evaluation_interval=5000, precision="bf16"),
    )


def tiny(*, mask: bool) -> TwoStageRecipe:
    """The embedded default: four million parameters, for the synthetic scenes, minutes on a CPU."""
    pool = PoolConfig(size=7, sampling_ratio=2)
    return TwoStageRecipe(
        name="tiny",
        summary="small network for the embedded data set, from scratch, minutes on two CPU cores",
        backbone=BackboneConfig(
            depth=18, width=32, norm="bn", stride_in_1x1=False, freeze_at=0, pyramid_channels=64, weights="none"
        ),
        detector=DetectorConfig(
            num_classes=80,
            pixels=TORCHVISION_PIXELS,
            rpn=RPNConfig(
                anchors=AnchorConfig(sizes=((12.0,), (24.0,), (48.0,), (96.0,), (160.0,))),
                samples=128,
                pre_nms_train=300,
                pre_nms_test=300,
                post_nms_train=200,
                post_nms_test=200,
            ),
            box=BoxHeadConfig(pool=pool, channels=256, samples=64, max_detections=50),
            mask=MaskHeadConfig(pool=replace(pool, size=14), channels=64) if mask else None,
        ),
        data=DataConfig(
            batch=8,
            train_sizes=(112, 128, 144),
            test_size=128,
            max_size=192,
            max_instances=32,
            max_polygons=128,
            max_edges=4096,
            filter_empty=False,
            workers=0,
        ),
        solver=SolverConfig(
            base_lr=0.04,
            reference_batch=8,
            weight_decay=1e-4,
            warmup_steps=100,
            warmup_factor=0.01,
            milestones=(550, 680),
            steps=750,
            clip_norm=10.0,
        ),
        train=TrainSettings(log_interval=10, checkpoint_interval=250, evaluation_interval=250),
    )


def scratch_small(*, mask: bool) -> TwoStageRecipe:
    """A few hundred real photographs from scratch on a CPU: ResNet-18 with group norm, half width, 192 pixels."""
    recipe = tiny(mask=mask)
    pool = PoolConfig(size=7, sampling_ratio=2)
    return replace(
        recipe,
        name="scratch_small",
        summary="real photographs from scratch on two CPU cores in under 30 minutes (Penn-Fudan: see benchmarks/)",
        backbone=replace(recipe.backbone, norm="gn", pyramid_channels=128),
        detector=replace(
            recipe.detector,
            rpn=RPNConfig(
                anchors=AnchorConfig(sizes=((16.0,), (32.0,), (64.0,), (128.0,), (256.0,))),
                samples=128,
                pre_nms_train=500,
                pre_nms_test=500,
                post_nms_train=300,
                post_nms_test=300,
            ),
            box=BoxHeadConfig(pool=pool, channels=512, samples=64),
            # Of few photographs, the covered share of a pixel teaches more than whether it is covered.
            mask=MaskHeadConfig(pool=replace(pool, size=14), channels=128, target="bitmap", bitmap_threshold=None)
            if mask
            else None,
            init="maskrcnn_benchmark",  # detectron2's mask predictor starts too small for 800 steps
        ),
        data=replace(
            recipe.data,
            batch=4,
            train_sizes=(160, 176, 192, 208, 224),
            test_size=192,
            max_size=320,
            max_instances=64,
            max_polygons=256,
            max_edges=16384,
            workers=1,
        ),
        solver=SolverConfig(
            base_lr=0.02,
            reference_batch=4,
            weight_decay=1e-4,
            warmup_steps=100,
            warmup_factor=0.01,
            milestones=(600, 720),
            steps=800,
            clip_norm=10.0,
        ),
        train=TrainSettings(log_interval=20, checkpoint_interval=200, evaluation_interval=200),
    )
