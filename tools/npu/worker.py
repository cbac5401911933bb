"""The steps of the apps' networks on one kind of NPU: `__main__.py` runs it, with the stand-in loaded."""

import copy
import importlib
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import det_ops
from apps.cascade_rcnn.config import RECIPES as CASCADE_RCNN
from apps.common.config import Recipe, TwoStageRecipe
from apps.common.data import training_batches
from apps.faster_rcnn.config import RECIPES as FASTER_RCNN
from apps.mask_rcnn.config import RECIPES as MASK_RCNN
from apps.retinanet.config import RECIPES as RETINANET
from apps.retinanet.config import OneStageRecipe
from apps.yolact.config import RECIPES as YOLACT
from apps.yolact.config import YolactRecipe
from det_coco import CocoIndex
from det_engine.settings import PrecisionName
from det_engine.step import TrainStep
from det_heads import BoxHead, OneStageDetector, Yolact
from det_models import Detector, build
from det_models.inference import optimize_for_inference
from tools.npu.emulation import Emulation, deprecated
from tools.npu.self_test import unnoticed

TIMM = (
    "convnextv2_atto",
    "resnet10t",
    "mobilenetv3_small_050",
    "swin_tiny_patch4_window7_224",
    "vit_tiny_patch16_224",
)


def on_timm(name: str) -> Recipe:
    """The smallest Mask R-CNN on a network of timm."""
    recipe = MASK_RCNN["tiny"]()
    return replace(recipe, backbone=replace(recipe.backbone, name=name))


# The networks that differ in more than depth and schedule.
RECIPES: dict[str, Callable[[], Recipe]] = {
    "faster_rcnn/tiny": FASTER_RCNN["tiny"],
    "faster_rcnn/faster_rcnn_r50_fpn_1x": FASTER_RCNN["faster_rcnn_r50_fpn_1x"],
    "mask_rcnn/tiny": MASK_RCNN["tiny"],
    "mask_rcnn/mask_rcnn_r50_fpn_1x": MASK_RCNN["mask_rcnn_r50_fpn_1x"],
    "mask_rcnn/mask_rcnn_r50_fpn_1x_mlperf": MASK_RCNN["mask_rcnn_r50_fpn_1x_mlperf"],
    "cascade_rcnn/tiny": CASCADE_RCNN["tiny"],
    "cascade_rcnn/cascade_mask_rcnn_r50_fpn_1x": CASCADE_RCNN["cascade_mask_rcnn_r50_fpn_1x"],
    "cascade_rcnn/cascade_mask_rcnn_r50_fpn_1x_mmdet": CASCADE_RCNN["cascade_mask_rcnn_r50_fpn_1x_mmdet"],
    "retinanet/tiny": RETINANET["tiny"],
    "retinanet/retinanet_r50_fpn_1x": RETINANET["retinanet_r50_fpn_1x"],
    "retinanet/fcos_r50_fpn_1x": RETINANET["fcos_r50_fpn_1x"],
    "yolact/tiny": YOLACT["tiny"],
    "yolact/yolact_resnet50": YOLACT["yolact_resnet50"],
    "yolact/yolact_darknet53": YOLACT["yolact_darknet53"],
    "yolact/yolact_plus_resnet50": YOLACT["yolact_plus_resnet50"],
}
RECIPES |= {f"timm/{name}": partial(on_timm, f"timm/{name}") for name in TIMM}
OBJECTS = (6, 3)
"""Objects of the two images."""


@dataclass(frozen=True)
class Outcome:
    """What two training steps and one inference gave, on the CPU."""

    losses: list[Tensor]
    gradients: list[Tensor]
    weights: list[Tensor]
    detections: dict[str, Tensor]


def small(recipe: Recipe) -> Recipe:
    """The recipe's network with two small images, and as few proposals as that needs."""
    if isinstance(recipe, YolactRecipe):
        size = 96 if recipe.detector.mask_iou is None else 288
        data = replace(recipe.data, batch=2, size=size, expand=False, crop=False, max_instances=8, workers=0)
        detector = replace(recipe.detector, num_classes=3, nms_top_k=30, max_detections=20)
        return replace(recipe, data=data, detector=detector).resolved()
    assert isinstance(recipe, OneStageRecipe | TwoStageRecipe)
    data = replace(
        recipe.data, batch=2, train_sizes=(96,), test_size=96, max_size=128, buckets=(), max_instances=8,
        max_polygons=8, max_edges=64, workers=0,
    )  # fmt: skip
    if isinstance(recipe, OneStageRecipe):
        detector = replace(recipe.detector, num_classes=3, candidates=60, max_detections=10)
        return replace(recipe, data=data, detector=detector).resolved()
    counts = {"samples": 64, "pre_nms_train": 90, "pre_nms_test": 80, "post_nms_train": 40, "post_nms_test": 30}
    detector = replace(
        recipe.detector,
        num_classes=3,
        rpn=replace(recipe.detector.rpn, **counts),
        box=replace(recipe.detector.box, samples=16, max_detections=10),
    )
    return replace(recipe, data=data, detector=detector).resolved()


def write_images(root: Path) -> CocoIndex:
    """Two images of random rectangles."""
    random = np.random.default_rng(0)
    images, annotations = [], []
    for number, (objects, (height, width)) in enumerate(zip(OBJECTS, ((96, 128), (90, 120)), strict=True), start=1):
        Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(root / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
        for _ in range(objects):
            w, h = (int(value) for value in random.integers(12, 60, 2))
            x, y = int(random.integers(0, width - w)), int(random.integers(0, height - h))
            annotations.append({
                "id": len(annotations) + 1, "image_id": number, "category_id": int(random.integers(1, 4)), "iscrowd": 0,
                "bbox": [x, y, w, h], "area": w * h, "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
            })  # fmt: skip
    categories = [{"id": number, "name": str(number)} for number in (1, 2, 3)]
    (root / "instances.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return CocoIndex.load(root / "instances.json", root, require_objects=False)


def network(recipe: Recipe) -> Detector:
    """Random weights, the same each time, with which activations do not grow from block to block."""
    torch.manual_seed(0)
    model = build(recipe.model())
    for name, tensor in model.state_dict().items():
        if name.endswith("bn3.weight"):
            tensor.mul_(0.2)
    return model


@torch.no_grad()
def sharpen(model: Detector) -> None:
    """Make a network with random weights find something."""
    for module in model.modules():
        if isinstance(module, BoxHead):
            module.cls_score.weight.mul_(30)
            module.cls_score.bias[-1] = -100  # of the background
    if isinstance(model, OneStageDetector | Yolact):
        model.head.classes.weight.mul_(30)


@torch.no_grad()
def moved(model: Detector) -> Detector:
    """A copy whose weights lie one rounding up or down."""
    made = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    for parameter in made.parameters():
        up = torch.randint(0, 2, parameter.shape, generator=generator, dtype=torch.bool)
        parameter.copy_(torch.where(up, parameter.nextafter(torch.tensor(torch.inf)), parameter * (1 - 2**-23)))
    return made


def run(
    model: Detector,
    recipe: Recipe,
    batch: dict[str, Tensor],
    device: str,
    precision: PrecisionName,
    emulation: Emulation | None,
    *,
    capture: bool = False,
) -> tuple[Outcome, dict[str, list[str]]]:
    """Two training steps and one inference; what their operators were, of the second step and the second inference."""
    place = torch.device(device)
    # The dynamic scale begins where gradients overflow, as it should; these are to be compared.
    scale = 128.0 if precision == "fp16" else None
    settings = replace(recipe.train, precision=precision, loss_scale=scale, seed=0, capture=capture)
    step = TrainStep(copy.deepcopy(model).train(), recipe.solver, settings, place)
    inputs = {name: value.to(place) for name, value in batch.items()}
    lines: dict[str, list[str]] = {}

    def record(name: str, function: Callable[[], Any]) -> Any:
        if emulation is None:
            return function()
        with emulation.recorded():
            out = function()
        lines[name] = emulation.lines
        for fault in emulation.faults:
            lines.setdefault("faults", []).append(f"{name}: {fault}")
        return out

    lr = recipe.solver.base_lr / 10
    losses = [step(inputs, 0, lr).cpu()]
    gradients = [_flat(parameter.grad) for parameter in step.model.parameters() if parameter.grad is not None]
    # Caches and the optimizer's state are made in the first step.
    losses.append(record("training step", lambda: step(inputs, 1, lr)).cpu())
    weights = [_flat(parameter) for parameter in step.model.parameters()]
    detector = copy.deepcopy(model)
    sharpen(detector)
    detector = optimize_for_inference(detector, place)
    images = {name: inputs[name] for name in ("images", "image_sizes")}
    with torch.inference_mode(), step.precision.autocast():
        detector(images)
        found = record("inference", lambda: detector(images))
    return Outcome(losses, gradients, weights, {name: value.cpu() for name, value in found.items()}), lines


def differences(ours: Outcome, cpu: Outcome) -> dict[str, float]:
    """Relative differences; detections must be as many, of the same classes."""
    if not torch.equal(ours.detections["valid"], cpu.detections["valid"]):
        raise AssertionError("another number of detections than on the CPU")
    if not torch.equal(ours.detections["labels"], cpu.detections["labels"]):
        raise AssertionError("other classes than on the CPU")
    if not cpu.detections["valid"].any():
        raise AssertionError("nothing is detected, which proves little")
    floating = [name for name, value in cpu.detections.items() if value.is_floating_point()]
    found, expected = ([outcome.detections[name] for name in floating] for outcome in (ours, cpu))
    return training_differences(ours, cpu) | {"detections": _difference(found, expected)}


def training_differences(ours: Outcome, cpu: Outcome) -> dict[str, float]:
    """Relative differences of what the two training steps gave."""
    names = ("losses", "gradients", "weights")
    return {name: _difference(getattr(ours, name), getattr(cpu, name)) for name in names}


def loss_difference(ours: Outcome, cpu: Outcome) -> dict[str, float]:
    """Relative difference of the losses."""
    return {"losses": _difference(ours.losses, cpu.losses)}


def _difference(ours: list[Tensor], others: list[Tensor]) -> float:
    """The largest difference of a tensor, relative to its norm, or to a thousandth of the largest if that is more."""
    least = max(float(other.double().norm()) for other in others) / 1000
    worst = 0.0
    for one, other in zip(ours, others, strict=True):
        if not one.isfinite().all():
            return float("inf")
        norm = float(other.double().norm())
        worst = max(worst, float((one.double() - other.double()).norm()) / max(norm, least, 1e-12))
    return worst


def _flat(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().flatten()


def main() -> None:
    """Arguments: recipes and precisions (or `captured`), as `yolact/tiny:fp32`; prints a JSON object a line."""
    importlib.import_module("torch_npu")

    emulation = Emulation()
    wrong = unnoticed(emulation, torch.get_device_module("npu").get_device_name(0))
    known = deprecated()
    if wrong:
        raise SystemExit("\n".join(("the check itself does not work:", *wrong)))
    out = sys.stdout
    with tempfile.TemporaryDirectory() as folder:
        index = write_images(Path(folder))
        for argument in sys.argv[1:]:
            name, _, kind = argument.partition(":")
            captured = kind == "captured"
            precision = cast(PrecisionName, "fp32" if captured else kind)
            recipe = small(RECIPES[name]())
            model = network(recipe)
            batch = next(training_batches(recipe, index, 0, pin_memory=False))
            with det_ops.kernels("reference"):  # of other rounding, a random network makes other choices
                cpu, _ = run(model, recipe, batch, "cpu", precision, None)
            emulation.forget_graphs()
            with torch.autograd.set_multithreading_enabled(False), emulation:
                npu, lines = run(model, recipe, batch, "npu:0", precision, emulation, capture=captured)
            faults = lines.pop("faults", [])
            # How far rounding alone goes: other kernels of the CPU, or for half precision full precision.
            with det_ops.kernels("reference"), torch.backends.mkldnn.flags(enabled=precision != "fp32"):
                again, _ = run(model, recipe, batch, "cpu", "fp32", None)
                other, _ = run(moved(model), recipe, batch, "cpu", "fp32", None)
            # In half precision NPU and CPU round different operators: a random network then makes other choices.
            compare = differences if precision == "fp32" else loss_difference
            compared, noise = compare(npu, cpu), compare(again, cpu)
            if precision == "fp32":
                # Processors differ in how much of it their kernels show.
                noise |= {name: max(noise[name], more) for name, more in training_differences(other, cpu).items()}
            faults += [f"deprecated: {operator}" for operator in sorted(deprecated() - known)]
            if captured:
                del compared["gradients"]  # are zero again after a captured step
                faults += [*emulation.captured, *([] if emulation.replays else ["no graph was replayed"])]
            if not all(gradient.isfinite().all() for gradient in npu.gradients):
                faults.append("a gradient is not finite")
            result = {"differences": compared, "noise": noise, "faults": faults, "lines": lines}
            print(json.dumps(result), file=out, flush=True)


if __name__ == "__main__":
    main()
