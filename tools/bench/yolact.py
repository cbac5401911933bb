"""YOLACT beside the original's PyTorch code: one picture with its masks, and the training step.

    hatch run bench yolact --original PATH [--recipes yolact_resnet50 ...] [--batch 4]

PATH is a checkout of github.com/dbolya/yolact whose CUDA calls were made optional; what it imports must be installed
(opencv-python). Both sides have the same weights and objects, and frozen batch norm, as the original has it below 6
images a device. A picture: from the normalised 550 x 550 input (ours: from its bytes) to a mask of the picture's size
for every detection, without drawing; ours are run lengths already.
"""

import argparse
import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import torch
from measuring import add_options, append, take_turns
from scenes import Batch, make_scene, with_reduced_masks

from apps.yolact.config import RECIPES, YolactRecipe
from det_engine import TrainStep
from det_heads import ImageDetections, Yolact
from det_models import build
from det_models.checkpoints import load_reference
from det_models.inference import optimize_for_inference

PICTURE = (480, 640)


def original(path: Path, recipe: YolactRecipe) -> SimpleNamespace:
    """The original's network and what goes with it; modules of its checkout are imported by their own names."""
    sys.path.insert(0, str(path))
    config = importlib.import_module("data").cfg
    importlib.import_module("data").set_cfg(f"{recipe.name}_config")
    config.freeze_bn, config.mask_proto_debug = True, False  # as its scripts set them
    # Under another name than its own, which is this file's.
    spec = importlib.util.spec_from_file_location("original_yolact", path / "yolact.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    net = module.Yolact()
    net.detect.use_fast_nms = True
    loss = importlib.import_module("layers.modules").MultiBoxLoss(
        config.num_classes, config.positive_iou_threshold, config.negative_iou_threshold, config.ohem_negpos_ratio
    )
    postprocess = importlib.import_module("layers.output_utils").postprocess
    return SimpleNamespace(net=net, loss=loss, postprocess=postprocess)


def original_picture(theirs: SimpleNamespace, pixels: torch.Tensor) -> Callable[[], object]:
    """Detections and masks of a picture, as its `eval.py --benchmark` has them."""

    @torch.no_grad()
    def run() -> object:
        theirs.net.eval()
        found = theirs.net(pixels)
        return [part.numpy() for part in theirs.postprocess(found, PICTURE[1], PICTURE[0])]

    return run


def our_picture(ours: Yolact, batch: Batch) -> Callable[[], list[ImageDetections]]:
    """The same of ours, as `apps/yolact benchmark` has it frame by frame."""
    ours = optimize_for_inference(ours, torch.device("cpu"))
    height, width = batch["images"].shape[-2:]
    scales = torch.tensor([[height / PICTURE[0], width / PICTURE[1]]])

    @torch.inference_mode()
    def run() -> list[ImageDetections]:
        found = ours({name: batch[name] for name in ("images", "image_sizes")})
        return ours.to_image(found, scales, [PICTURE])

    return run


def original_step(theirs: SimpleNamespace, pixels: torch.Tensor, batch: Batch, recipe: YolactRecipe) -> Callable:
    """A step as its `train.py` makes it, on the same batch every time."""
    solver = recipe.solver
    optimizer = torch.optim.SGD(
        theirs.net.parameters(), lr=solver.base_lr, momentum=solver.momentum, weight_decay=solver.weight_decay
    )
    side = batch["images"].shape[-1]
    targets = [
        torch.cat((boxes / side, labels[:, None].float()), 1)
        for boxes, labels in zip(batch["boxes"], batch["labels"], strict=True)
    ]
    masks = [bitmaps.float() for bitmaps in batch["mask_bitmaps"]]

    def run() -> object:
        theirs.net.train()  # returns nothing there
        optimizer.zero_grad()
        losses = theirs.loss(theirs.net, theirs.net(pixels), targets, list(masks), [0] * len(masks))
        loss = torch.stack(list(losses.values())).sum()
        loss.backward()
        if torch.isfinite(loss).item():
            optimizer.step()
        return loss

    return run


def our_step(ours: Yolact, batch: Batch, recipe: YolactRecipe) -> Callable[[], object]:
    """The step of every training."""
    make = TrainStep(ours, recipe.solver, recipe.train, torch.device("cpu"))
    reduced = with_reduced_masks(batch, recipe.batch_shape().bitmap_sizes)
    step = 0

    def run() -> object:
        nonlocal step
        step += 1
        ours.train()
        return make(reduced, step, recipe.solver.base_lr)

    return run


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--original", type=Path, required=True, help="checkout of the original")
    names = sorted(name for name in RECIPES if name != "tiny")
    parser.add_argument("--recipes", nargs="+", default=["yolact_resnet50"], choices=names)
    parser.add_argument("--batch", type=int, default=4, help="images a training step")
    add_options(parser)
    options = parser.parse_args(args)
    if options.device != "cpu":
        parser.error("the comparison is of CPUs")
    torch.set_num_threads(options.threads)

    rows = []
    print(f"{'':<22} {'work':<14} {'ours':>9} {'original':>10} {'ratio':>6}")
    for name in options.recipes:
        torch.manual_seed(0)
        recipe = RECIPES[name]()
        recipe = replace(
            recipe,
            data=replace(recipe.data, batch=options.batch),
            backbone=replace(recipe.backbone, norm="frozen_bn"),
        )
        theirs, ours = original(options.original, recipe), cast("Yolact", build(recipe.model()))
        with torch.no_grad():
            # Initial weights see nothing at all, and time nothing.
            theirs.net.prediction_layers[0].conf_layer.weight.mul_(100)
        load_reference(ours, theirs.net.state_dict(), "yolact")
        side = recipe.data.size
        batch = make_scene(options.batch, side, side, classes=recipe.detector.num_classes)
        pixels = ours.normalize(batch).contiguous()
        first = {key: value[:1] for key, value in batch.items()}
        picture = our_picture(ours, first)
        works = {
            "picture": {"ours": picture, "original": original_picture(theirs, pixels[:1])},
            "training step": {
                "ours": our_step(ours, batch, recipe),
                "original": original_step(theirs, pixels, batch, recipe),
            },
        }
        print(f"{name}: {len(picture()[0].boxes)} detections")
        for work, sides in works.items():
            seconds = take_turns(sides, options)
            mine, peer = seconds["ours"], seconds["original"]
            print(f"{'':<22} {work:<14} {mine * 1e3:6.0f} ms {peer * 1e3:7.0f} ms {peer / mine:5.2f}x", flush=True)
            size = options.batch if work == "training step" else 1
            rows.append({"bench": "yolact", "model": name, "work": work, "batch": size, "seconds": seconds})
    append(rows, options)


if __name__ == "__main__":
    main()
