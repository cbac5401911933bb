"""Training steps of our apps, for `python -m det_ops.npu_check tests.npu_steps:mask_rcnn`; $SHAPES may name data."""

import dataclasses
import os
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

import torch

from apps.common.app import with_classes
from apps.common.data import training_batches
from apps.common.splits import open_splits
from det_engine.step import TrainStep
from det_models import build


def build_step(app: str, device: torch.device, backbone: str = "resnet") -> Callable[[], None]:
    """The recipe `tiny` with two images in a batch and one bucket, by the steps that `train` makes."""
    recipe = import_module(f"apps.{app}.config").RECIPES["tiny"]()
    recipe = dataclasses.replace(recipe, backbone=dataclasses.replace(recipe.backbone, name=backbone))
    # One bucket: images of another orientation would be further shapes, each looked up once.
    bucket = {} if app == "yolact" else {"buckets": ((256, 256),) if app == "retinanet" else ((192, 192),)}
    recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, batch=2, workers=0, **bucket))
    data = os.environ.get("SHAPES")
    splits = open_splits(None if data is None else Path(data), recipe)
    recipe = with_classes(recipe, splits.train.num_classes).resolved()
    torch.manual_seed(0)
    model = build(recipe.model())
    train = TrainStep(model, recipe.solver, recipe.train, device)
    batches = enumerate(training_batches(recipe, splits.train, 0, pin_memory=False))

    def step() -> None:
        number, batch = next(batches)
        train({name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}, number, lr=0.001)

    return step


mask_rcnn = partial(build_step, "mask_rcnn")
faster_rcnn = partial(build_step, "faster_rcnn")
cascade_rcnn = partial(build_step, "cascade_rcnn")
yolact = partial(build_step, "yolact")
retinanet = partial(build_step, "retinanet")
convnext = partial(build_step, "mask_rcnn", backbone="timm/convnextv2_atto")
resnet_d = partial(build_step, "mask_rcnn", backbone="timm/resnet10t")
mobilenet = partial(build_step, "faster_rcnn", backbone="timm/mobilenetv3_small_050")
swin = partial(build_step, "cascade_rcnn", backbone="timm/swin_tiny_patch4_window7_224")
