"""Learning on real photographs: our Mask R-CNN beside torchvision's, same backbone, data, sizes, schedule and seeds.

    hatch run bench learn --data DIR [--recipe scratch_small] [--seeds 3] [--steps N] [--json FILE]
    hatch run bench learn --data DIR --sides ours augmented   # large-scale jitter and copy-paste beside ours alone

Our and torchvision's models get the same batches (order, resize, flip), the same solver and the same backbone module
with the same random start; each has its own heads, losses, sampling, operators and post-processing. Steps are timed
without loading.
Prints box and mask AP per seed and the seconds per step, and their ratio.
"""

import argparse
import copy
import json
import statistics
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from apps.common.app import with_classes
from apps.common.augmentation import AugmentConfig
from apps.common.config import TwoStageRecipe
from apps.common.data import evaluation_loader, training_batches
from apps.common.splits import open_splits
from apps.mask_rcnn.config import RECIPES
from det_backbones import ResNetFPN
from det_coco import CocoIndex, evaluate, to_results
from det_engine import build_optimizer, lr_at, seed_all
from det_models import backbone, build

SIDES = ("ours", "torchvision", "augmented")
AUGMENTED = AugmentConfig(scale_jitter=(0.1, 2.0), copy_paste=0.5)
"""Simple Copy-Paste's, in place of the recipe's resize and mirror."""

Batch = dict[str, Tensor]
Target = dict[str, Tensor] | None
Detections = Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]]


class NamedLevels(nn.Module):
    """Our pyramid under torchvision's names; its P6 takes the place of torchvision's pooled level."""

    def __init__(self, pyramid: ResNetFPN) -> None:
        super().__init__()
        self.pyramid = pyramid
        self.out_channels = pyramid.out_channels

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        return OrderedDict(zip(("0", "1", "2", "3", "pool"), self.pyramid(x), strict=True))


class KeepSize(GeneralizedRCNNTransform):
    """Our batches are resized already, in training and in evaluation; torchvision's own switch is for training only."""

    def resize(self, image: Tensor, target: Target = None) -> tuple[Tensor, Target]:
        return image, target


class Torchvision(nn.Module):
    """torchvision's MaskRCNN with the recipe's sizes, fed from our batches."""

    def __init__(self, recipe: TwoStageRecipe) -> None:
        super().__init__()
        rpn, box, mask, pixels = recipe.detector.rpn, recipe.detector.box, recipe.detector.mask, recipe.detector.pixels
        assert mask is not None
        levels, classes = NamedLevels(backbone(recipe.backbone)), recipe.detector.num_classes + 1
        self.model = MaskRCNN(
            levels,
            rpn_anchor_generator=AnchorGenerator(rpn.anchors.sizes, (rpn.anchors.ratios,) * len(rpn.anchors.sizes)),
            rpn_pre_nms_top_n_train=rpn.pre_nms_train,
            rpn_pre_nms_top_n_test=rpn.pre_nms_test,
            rpn_post_nms_top_n_train=rpn.post_nms_train,
            rpn_post_nms_top_n_test=rpn.post_nms_test,
            rpn_batch_size_per_image=rpn.samples,
            box_batch_size_per_image=box.samples,
            box_detections_per_img=box.max_detections,
            box_head=TwoMLPHead(levels.out_channels * 49, box.channels),
            box_predictor=FastRCNNPredictor(box.channels, classes),
            mask_head=MaskRCNNHeads(levels.out_channels, [mask.channels] * mask.convs, 1),
            mask_predictor=MaskRCNNPredictor(mask.channels, mask.channels, classes),
        )
        self.transform = KeepSize(1, 1, list(pixels.mean), list(pixels.std))
        self.model.transform = self.transform

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        targets = []
        for b, (height, width) in enumerate(batch["image_sizes"].tolist()):
            used = batch["valid"][b] & ~batch["crowd"][b]
            targets.append(
                {
                    "boxes": batch["boxes"][b][used],
                    "labels": batch["labels"][b][used] + 1,
                    "masks": batch["mask_bitmaps"][b][used][:, :height, :width],
                }
            )
        return self.model(_images(batch), targets)

    def detect(self, batch: Batch, sizes: list[tuple[int, int]]) -> Detections:
        images, _ = self.transform(_images(batch))
        features = self.model.backbone(images.tensors)
        proposals, _ = self.model.rpn(images, features)
        found, _ = self.model.roi_heads(features, proposals, images.image_sizes)
        for identifier, one in zip(
            batch["image_ids"].tolist(), self.transform.postprocess(found, images.image_sizes, sizes), strict=True
        ):
            masks = (one["masks"][:, 0] >= 0.5).numpy().astype(np.uint8)
            rles = [dict(coco_mask.encode(np.asfortranarray(mask))) for mask in masks]
            yield identifier, one["boxes"].numpy(), one["scores"].numpy(), one["labels"].numpy() - 1, rles


class Ours(nn.Module):
    """Our detector behind the same two calls."""

    def __init__(self, recipe: TwoStageRecipe) -> None:
        super().__init__()
        self.model = build(recipe.model())

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return self.model(batch)

    def detect(self, batch: Batch, sizes: list[tuple[int, int]]) -> Detections:
        for identifier, one in zip(
            batch["image_ids"].tolist(), self.model.to_image(self.model(batch), batch["scales"], sizes), strict=True
        ):
            yield identifier, one.boxes.numpy(), one.scores.numpy(), one.labels.numpy(), one.masks or []


def _images(batch: Batch) -> list[Tensor]:
    sizes = batch["image_sizes"].tolist()
    return [
        image[:, :height, :width].float() / 255 for image, (height, width) in zip(batch["images"], sizes, strict=True)
    ]


def fit(model: nn.Module, recipe: TwoStageRecipe, index: CocoIndex) -> list[float]:
    """Train; returns the seconds of every step."""
    optimizer = build_optimizer(model, recipe.solver)
    parameters = [p for p in model.parameters() if p.requires_grad]
    stream = training_batches(recipe, index, 0, pin_memory=False)
    model.train()
    seconds = []
    for step in range(recipe.solver.steps):
        batch = next(stream)
        began = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = lr_at(recipe.solver, step) * group.get("lr_factor", 1.0)
        optimizer.zero_grad(set_to_none=True)
        loss = torch.stack(list(model(batch).values())).sum()
        loss.backward()
        if recipe.solver.clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, recipe.solver.clip_norm)
        optimizer.step()
        seconds.append(time.perf_counter() - began)
    return seconds


@torch.inference_mode()
def score(model: Ours | Torchvision, recipe: TwoStageRecipe, index: CocoIndex) -> dict[str, float]:
    """Box and mask AP on a split."""
    model.eval()
    rows: list[dict[str, Any]] = []
    for batch in evaluation_loader(recipe.model(), index, batch=recipe.data.batch, workers=recipe.data.workers):
        sizes = [index.image_size(i) if i >= 0 else (8, 8) for i in batch["image_ids"].tolist()]
        for identifier, boxes, scores, labels, rles in model.detect(batch, sizes):
            if identifier >= 0:
                rows += to_results(index, identifier, boxes, scores, labels, rles)
    metrics = evaluate(index, rows)
    return {f"{task} {name}": metrics[task][name] for task in ("bbox", "segm") for name in ("AP", "AP50")}


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="data set in the COCO layout")
    parser.add_argument("--recipe", default="scratch_small", choices=sorted(RECIPES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="shorten the schedule to this many steps")
    parser.add_argument("--sides", nargs="+", default=["ours", "torchvision"], choices=SIDES, help="what is compared")
    parser.add_argument("--json", type=Path, help="append a line per run to this file")
    options = parser.parse_args(args)

    recipe = RECIPES[options.recipe]()
    if options.steps:
        share = options.steps / recipe.solver.steps
        solver = replace(
            recipe.solver,
            steps=options.steps,
            milestones=tuple(round(m * share) for m in recipe.solver.milestones),
            warmup_steps=round(recipe.solver.warmup_steps * share),
        )
        recipe = replace(recipe, solver=solver)
    splits = open_splits(options.data, recipe)
    recipe = with_classes(recipe, splits.train.num_classes)
    augmented = replace(recipe, data=replace(recipe.data, augment=AUGMENTED)).resolved()
    recipe = recipe.resolved()
    assert recipe.detector.mask is not None
    bitmaps = replace(recipe.detector, mask=replace(recipe.detector.mask, target="bitmap"))
    makers: dict[str, tuple[Callable[[TwoStageRecipe], Ours | Torchvision], TwoStageRecipe]] = {
        "ours": (Ours, recipe),
        "torchvision": (Torchvision, replace(recipe, detector=bitmaps)),
        "augmented": (Ours, augmented),
    }
    makers = {name: makers[name] for name in options.sides}
    print(f"{options.recipe}, {recipe.solver.steps} steps of {recipe.data.batch}, {torch.get_num_threads()} threads")
    print(f"{'':<12} seed  box AP  AP50   mask AP  AP50   s/step")
    table: dict[str, list[dict[str, float]]] = {name: [] for name in makers}
    for seed in range(options.seeds):
        for name, (make, own) in makers.items():
            own = replace(own, train=replace(own.train, seed=seed))
            seed_all(seed)
            start = copy.deepcopy(backbone(own.backbone).state_dict())
            model = make(own)
            pyramid = model.model.backbone
            (pyramid.pyramid if isinstance(pyramid, NamedLevels) else pyramid).load_state_dict(start)
            taken = fit(model, own, splits.train)
            row = {**score(model, own, splits.val), "s/step": statistics.median(taken)}
            table[name].append(row)
            print(f"{name:<12} {seed:4d}  " + _cells(row), flush=True)
            if options.json:
                with options.json.open("a") as file:
                    file.write(
                        json.dumps({"bench": "learn", "model": name, "seed": seed, "steps": len(taken), **row}) + "\n"
                    )
    means = {name: {key: statistics.mean(r[key] for r in rows) for key in rows[0]} for name, rows in table.items()}
    for name, row in means.items():
        print(f"{name:<12} mean  {_cells(row)}")
    if {"ours", "torchvision"} <= means.keys():
        print(f"speed: {means['torchvision']['s/step'] / means['ours']['s/step']:.2f}x torchvision")


def _cells(row: dict[str, float]) -> str:
    box, mask = (f"{row[f'{task} AP']:.3f}  {row[f'{task} AP50']:.3f}" for task in ("bbox", "segm"))
    return f"{box}    {mask}   {row['s/step']:.3f}"


if __name__ == "__main__":
    main()
