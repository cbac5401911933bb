"""The contract of every model: shapes and operators follow from the configuration, never from the data.

Two batches that have as little in common as batches of one bucket can (nothing but crowds and empty images; dozens of
objects) run through the recipes of the two-stage apps, narrowed so that it takes seconds. Every operator is written
down with the shapes and types of its tensors; the two lists must be equal, and nothing may be read back to the host.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import det_ops
from apps.cascade_rcnn.config import RECIPES as CASCADE_RCNN
from apps.common.app import with_classes
from apps.common.config import Recipe, TwoStageRecipe
from apps.common.data import training_batches
from apps.faster_rcnn.config import RECIPES as FASTER_RCNN
from apps.mask_rcnn.config import RECIPES as MASK_RCNN
from apps.retinanet.config import RECIPES as RETINANET
from apps.retinanet.config import OneStageRecipe
from apps.yolact.config import RECIPES as YOLACT
from apps.yolact.config import YolactRecipe
from det_coco import CocoIndex
from det_engine import Precision, build_optimizer
from det_heads import BoxHead, ClassificationConfig, OneStageDetector, Yolact
from det_models import Detector, backbone, build, one_stage, two_stage, yolact
from testing.operators import StaticRecorder, assert_equal_calls, no_host_reads

RECIPES = {
    f"{app}/{name}": make
    for app, recipes in (("mask_rcnn", MASK_RCNN), ("faster_rcnn", FASTER_RCNN), ("cascade_rcnn", CASCADE_RCNN))
    for name, make in recipes.items()
}
ONE_STAGE = {f"retinanet/{name}": make for name, make in RETINANET.items()}
YOLACTS = {f"yolact/{name}": make for name, make in YOLACT.items()}
TIMMS = {
    f"mask_rcnn/tiny on timm/{name}": name
    for name in (
        "convnextv2_atto",
        "resnet10t",
        "mobilenetv3_small_050",
        "swin_tiny_patch4_window7_224",
        "vit_tiny_patch16_224",
    )
}
COUNTS = {"object_counts": (9, 3, 1), "image_counts": (5, 2, 1)}
TAILS = {
    "mask_rcnn/tiny by seesaw loss, GIoU and soft-NMS": {
        "classification": ClassificationConfig(kind="seesaw", **COUNTS), "box_loss": "giou", "nms": "gaussian",
    },
    "mask_rcnn/tiny by federated, class-balanced focal loss and CIoU": {
        "classification": ClassificationConfig(kind="focal", federated=2, class_balance=0.99, **COUNTS),
        "box_loss": "ciou", "nms": "linear", "nms_across_classes": True,
    },
}  # fmt: skip
# The others differ from these in depth and schedule alone.
CONVENTIONS = [
    *TIMMS,
    *TAILS,
    "mask_rcnn/tiny",
    "mask_rcnn/scratch_small",
    "mask_rcnn/mask_rcnn_r50_fpn_1x",
    "mask_rcnn/mask_rcnn_r50_fpn_1x_mlperf",
    "faster_rcnn/tiny",
    "faster_rcnn/faster_rcnn_r50_fpn_1x",
    "faster_rcnn/faster_rcnn_r50_fpn_1x_smooth",
    "faster_rcnn/faster_rcnn_x101_fpn_3x",
    "cascade_rcnn/tiny",
    "cascade_rcnn/cascade_rcnn_r50_fpn_1x",
    "cascade_rcnn/cascade_mask_rcnn_r50_fpn_1x",
    "cascade_rcnn/cascade_mask_rcnn_r50_fpn_1x_mmdet",
    "retinanet/tiny",
    "retinanet/retinanet_r50_fpn_1x",
    "retinanet/fcos_r50_fpn_1x",
    "yolact/tiny",
    "yolact/yolact_resnet50",
    "yolact/yolact_plus_resnet50",
]


def narrowed(name: str) -> tuple[Recipe, Detector]:
    """A recipe, and its network, with the conventions of a published one and fewer of everything."""
    torch.manual_seed(0)
    if name in YOLACTS:
        recipe = narrow_yolact(YOLACTS[name]())
        return recipe, build(recipe.model())
    if name in ONE_STAGE:
        recipe = narrow_one_stage(ONE_STAGE[name]())
        return recipe, build(recipe.model())
    recipe = narrow(RECIPES["mask_rcnn/tiny" if name in (*TIMMS, *TAILS) else name]())
    if name in TIMMS:
        recipe = replace(recipe, backbone=replace(recipe.backbone, name=f"timm/{TIMMS[name]}"))
    if name in TAILS:
        box = replace(recipe.detector.box, **TAILS[name])
        recipe = replace(recipe, detector=replace(recipe.detector, box=box))
    return recipe, build(recipe.model())


def narrow(recipe: TwoStageRecipe) -> TwoStageRecipe:
    """Two images of at most 96 x 128."""
    detector = recipe.detector
    counts = {"samples": 64, "pre_nms_train": 90, "pre_nms_test": 80, "post_nms_train": 60, "post_nms_test": 50}
    return replace(
        recipe,
        backbone=replace(
            recipe.backbone,
            width=8,
            depth=18 if recipe.backbone.depth == 18 else 50,
            groups=min(recipe.backbone.groups, 2),
            pyramid_channels=16,
        ),
        detector=replace(
            detector,
            num_classes=3,
            rpn=replace(detector.rpn, **counts),
            box=replace(detector.box, channels=32, samples=48, max_detections=20),
            mask=None if detector.mask is None else replace(detector.mask, channels=16),
        ),
        data=replace(
            recipe.data,
            batch=2,
            train_sizes=(96,),
            test_size=96,
            max_size=128,
            max_instances=64,
            max_polygons=96,
            max_edges=1024,
            filter_empty=False,
            workers=0,
        ),
    ).resolved()


def narrow_one_stage(recipe: OneStageRecipe) -> OneStageRecipe:
    """Two images of at most 96 x 128."""
    depth = 18 if recipe.backbone.depth == 18 else 50
    data = {"batch": 2, "train_sizes": (96,), "test_size": 96, "max_size": 128, "max_instances": 64}
    return replace(
        recipe,
        backbone=replace(recipe.backbone, width=8, depth=depth, pyramid_channels=16),
        detector=replace(recipe.detector, num_classes=3, candidates=60, max_detections=20),
        data=replace(recipe.data, **data, filter_empty=False, workers=0),
    ).resolved()


def narrow_yolact(recipe: YolactRecipe) -> YolactRecipe:
    """Two images of 96 x 96, not cut, so that no object is lost."""
    mask_iou = recipe.detector.mask_iou
    return replace(
        recipe,
        backbone=replace(
            recipe.backbone, width=8, depth=18 if recipe.backbone.depth == 18 else 50, pyramid_channels=16
        ),
        detector=replace(
            recipe.detector,
            num_classes=3,
            channels=16,
            prototypes=8,
            mask_iou=None if mask_iou is None else replace(mask_iou, channels=(4, 4)),
            nms_top_k=30,
            max_detections=20,
        ),
        data=replace(
            recipe.data,
            batch=2,
            size=96,
            max_instances=64,
            expand=False,
            crop=False,
            filter_empty=False,
            workers=0,
        ),
    ).resolved()


def write_images(root: Path, objects: list[list[bool]], sizes: list[tuple[int, int]], seed: int) -> CocoIndex:
    """A split of random rectangles; for each image one flag per object: whether it is a crowd region."""
    random = np.random.default_rng(seed)
    images, annotations = [], []
    for number, (flags, (height, width)) in enumerate(zip(objects, sizes, strict=True), start=1):
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels if flags else pixels * 0).save(root / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
        for crowd in flags:
            w, h = (int(v) for v in random.integers(4, 40, 2))
            x, y = int(random.integers(0, width - w)), int(random.integers(0, height - h))
            before = x * height + y
            runs = [before, h, *([height - h, h] * (w - 1)), height * width - before - height * (w - 1) - h]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(random.integers(1, 4)),
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": int(crowd),
                    "segmentation": {"size": [height, width], "counts": runs}
                    if crowd
                    else [[x, y, x + w, y, x + w, y + h, x, y + h]],
                }
            )
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": str(i)} for i in (1, 2, 3)],
    }
    (root / "instances.json").write_text(json.dumps(content))
    return CocoIndex.load(root / "instances.json", root, require_objects=False)


@pytest.fixture(scope="module")
def splits(tmp_path_factory) -> tuple[CocoIndex, CocoIndex]:
    """(an empty image and one with crowds alone; two images with 40 and 55 objects), of different sizes."""
    crowded, bare = tmp_path_factory.mktemp("crowded"), tmp_path_factory.mktemp("bare")
    return (
        write_images(bare, [[], [True, True, True]], [(60, 128), (96, 97)], seed=1),
        write_images(crowded, [[False] * 40, [False] * 50 + [True] * 5], [(96, 128), (90, 120)], seed=2),
    )


def batches(recipe: Recipe, splits: tuple[CocoIndex, CocoIndex]) -> list[dict[str, Tensor]]:
    bare, crowded = (next(training_batches(recipe, index, 0, pin_memory=False)) for index in splits)
    used = [(batch["valid"] & ~batch["crowd"]).sum().item() for batch in (bare, crowded)]
    assert used == [0, 90]
    assert bare["crowd"].sum() == 3
    assert bare["images"].shape == crowded["images"].shape
    return [bare, crowded]


def training_step(model, optimizer, precision, batch, clip: float | None) -> None:
    """What det_engine does between two log lines."""
    optimizer.zero_grad(set_to_none=True)
    with precision.autocast():
        losses = model(batch)
    precision.backward(torch.stack([loss.float() for loss in losses.values()]).sum())
    precision.step(optimizer, clip)


@pytest.mark.parametrize("kernels", ["auto", "reference"])
@pytest.mark.parametrize("name", CONVENTIONS)
def test_the_operators_of_a_training_step_do_not_depend_on_the_data(name, kernels, splits, monkeypatch):
    recipe, model = narrowed(name)
    model.train()
    optimizer = build_optimizer(model, recipe.solver)
    precision = Precision("fp32", torch.device("cpu"))
    both = batches(recipe, splits)
    recorded = []
    with det_ops.kernels(kernels):
        training_step(model, optimizer, precision, both[0], recipe.solver.clip_norm)  # anchors are made once per shape
        for batch in both:
            with StaticRecorder() as recorder:
                if kernels == "reference":
                    with no_host_reads(monkeypatch):
                        training_step(model, optimizer, precision, batch, recipe.solver.clip_norm)
                else:
                    training_step(model, optimizer, precision, batch, recipe.solver.clip_norm)
            recorded.append(recorder.calls)
    assert_equal_calls(*recorded, least=300)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("kernels", ["auto", "reference"])
@pytest.mark.parametrize("name", CONVENTIONS)
def test_the_operators_of_inference_do_not_depend_on_the_data(name, kernels, splits, monkeypatch):
    recipe, model = narrowed(name)
    model.eval()
    with torch.no_grad():
        for head in (module for module in model.modules() if isinstance(module, BoxHead)):
            head.cls_score.weight.mul_(30)
            head.cls_score.bias[-1] = -100  # against the background, so that there is something to detect
        if isinstance(model, OneStageDetector | Yolact):
            model.head.classes.weight.mul_(30)
    recorded, found = [], []
    with det_ops.kernels(kernels), torch.inference_mode():
        inputs = [{key: batch[key] for key in ("images", "image_sizes")} for batch in batches(recipe, splits)]
        model(inputs[0])
        for batch in inputs:
            with StaticRecorder() as recorder:
                if kernels == "reference":
                    with no_host_reads(monkeypatch):
                        out = model(batch)
                else:
                    out = model(batch)
            recorded.append(recorder.calls)
            found.append(int(out["valid"].sum()))
    assert sum(found) > 0, "nothing is detected, which proves little"
    assert_equal_calls(*recorded, least=300)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        # But for networks of timm, which compute with numbers while they are built.
        *((name, 2) for name in sorted(RECIPES) if not RECIPES[name]().backbone.name.startswith("timm/")),
        # One of each convention.
        ("faster_rcnn/faster_rcnn_r50_fpn_1x", 16),
        ("mask_rcnn/mask_rcnn_r50_fpn_1x", 16),
        ("mask_rcnn/mask_rcnn_r50_fpn_1x_mlperf", 16),
        ("cascade_rcnn/cascade_mask_rcnn_r50_fpn_1x", 16),
        ("cascade_rcnn/cascade_mask_rcnn_r50_fpn_1x_mmdet", 16),
    ],
)
def test_a_full_size_step_of_every_recipe_has_shapes_from_the_configuration(name, size):
    """A batch in the largest bucket, without memory or arithmetic: fake tensors know nothing but shapes."""
    recipe = with_classes(RECIPES[name](), 80).resolved()
    recipe = replace(recipe, data=replace(recipe.data, batch=size))
    shape = recipe.batch_shape()
    height, width = max(shape.buckets)
    if "fpn" in name:
        assert (800, 1344) in shape.buckets  # what COCO's pictures become
    m = shape.max_instances
    with FakeTensorMode():
        # Without build's change to NHWC, for which fake parameters would have to be swapped.
        model = two_stage(backbone(recipe.backbone), recipe.detector).train()
        batch = {
            "images": torch.zeros(size, 3, height, width, dtype=torch.uint8),
            "image_sizes": torch.zeros(size, 2, dtype=torch.int32),
            "scales": torch.ones(size, 2),
            "boxes": torch.zeros(size, m, 4),
            "labels": torch.zeros(size, m, dtype=torch.int64),
            "valid": torch.zeros(size, m, dtype=torch.bool),
            "crowd": torch.zeros(size, m, dtype=torch.bool),
            "mask_edges": torch.zeros(size, shape.max_edges, 4),
            "mask_polygons": torch.zeros(size, shape.max_polygons + 1, dtype=torch.int32),
            "mask_instances": torch.zeros(size, m + 1, dtype=torch.int32),
            "keypoints": torch.zeros(size, m, shape.keypoints, 3),
        }
        if recipe.detector.mask is not None and recipe.detector.mask.target == "bitmap":
            batch["mask_bitmaps"] = torch.zeros(size, m, height, width, dtype=torch.uint8)
        losses = model(batch)
        sum(losses.values()).backward()
        with torch.no_grad():
            found = model.eval()({"images": batch["images"], "image_sizes": batch["image_sizes"]})
    trained = [p for p in model.parameters() if p.requires_grad]
    assert trained
    assert all(p.grad is not None and p.grad.shape == p.shape for p in trained)
    k = recipe.detector.box.max_detections
    shapes = {"boxes": (size, k, 4), "scores": (size, k), "labels": (size, k), "valid": (size, k)}
    if recipe.detector.mask is not None:
        shapes["masks"] = (size, k, 28, 28)
    if "keypoints" in recipe.model().tasks:
        shapes["heatmaps"] = (size, k, shape.keypoints, 56, 56)
    assert {key: tuple(value.shape) for key, value in found.items()} == shapes


@pytest.mark.parametrize(
    ("name", "size"), [*((name, 2) for name in ONE_STAGE), *((name, 16) for name in ONE_STAGE if "1x" in name)]
)
def test_a_full_size_step_of_one_stage_has_shapes_from_the_configuration(name, size):
    recipe = with_classes(ONE_STAGE[name](), 80).resolved()
    height, width = max(recipe.data.buckets)
    m, k = recipe.data.max_instances, recipe.detector.max_detections
    with FakeTensorMode():
        model = one_stage(backbone(recipe.backbone), recipe.detector).train()
        batch = {
            "images": torch.zeros(size, 3, height, width, dtype=torch.uint8),
            "image_sizes": torch.zeros(size, 2, dtype=torch.int32),
            "boxes": torch.zeros(size, m, 4),
            "labels": torch.zeros(size, m, dtype=torch.int64),
            "valid": torch.zeros(size, m, dtype=torch.bool),
            "crowd": torch.zeros(size, m, dtype=torch.bool),
        }
        losses = model(batch)
        assert len(losses) == (2 if recipe.detector.locations is None else 3)
        sum(losses.values()).backward()
        with torch.no_grad():
            found = model.eval()({"images": batch["images"], "image_sizes": batch["image_sizes"]})
    assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters() if p.requires_grad)
    shapes = {"boxes": (size, k, 4), "scores": (size, k), "labels": (size, k), "valid": (size, k)}
    assert {key: tuple(value.shape) for key, value in found.items()} == shapes


# The others differ from these in size or depth alone.
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("yolact/tiny", 2),
        ("yolact/yolact_im700", 2),
        ("yolact/yolact_darknet53", 2),
        ("yolact/yolact_plus_base", 2),
        ("yolact/yolact_plus_base", 16),
    ],
)
def test_a_full_size_step_of_yolact_has_shapes_from_the_configuration(name, count):
    recipe = YOLACTS[name]()
    shape, size, m = recipe.batch_shape(), recipe.data.size, recipe.data.max_instances
    with FakeTensorMode():
        model = yolact(recipe.backbone, recipe.detector).train()
        batch = {
            "images": torch.zeros(count, 3, size, size, dtype=torch.uint8),
            "image_sizes": torch.zeros(count, 2, dtype=torch.int32),
            "boxes": torch.zeros(count, m, 4),
            "labels": torch.zeros(count, m, dtype=torch.int64),
            "valid": torch.zeros(count, m, dtype=torch.bool),
            "crowd": torch.zeros(count, m, dtype=torch.bool),
            **{f"mask_bitmaps_{h}x{w}": torch.zeros(count, m, h, w, dtype=torch.uint8) for h, w in shape.bitmap_sizes},
        }
        losses = model(batch)
        sum(losses.values()).backward()
        with torch.no_grad():
            found = model.eval()({"images": batch["images"], "image_sizes": batch["image_sizes"]})
    assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters())
    k, masks = recipe.detector.max_detections, shape.bitmap_sizes[0]
    shapes = {
        "boxes": (count, k, 4),
        "scores": (count, k),
        "labels": (count, k),
        "valid": (count, k),
        "masks": (count, k, *masks),
    }
    if recipe.detector.mask_iou is not None:
        shapes["mask_scores"] = (count, k)
    assert {key: tuple(value.shape) for key, value in found.items()} == shapes


@pytest.mark.parametrize(
    "broken",
    [
        lambda x: int(x[0]),
        lambda x: x[x > 1],
        lambda x: x.nonzero(),
        lambda x: x.unique(),
        lambda x: torch.randperm(4),
        lambda x: bool((x > 1).any()),
        lambda x: x.repeat_interleave(x),
        lambda x: x.masked_select(x > 1),
        lambda x: x * torch.tensor([1, 2, 3, 4]),
    ],
)
def test_the_recorder_refuses_what_depends_on_values(broken):
    with pytest.raises(AssertionError), StaticRecorder():
        broken(torch.arange(4))


def test_reads_inside_references_are_refused(monkeypatch):
    with no_host_reads(monkeypatch):
        for read in (Tensor.tolist, Tensor.item, Tensor.numpy, Tensor.cpu, Tensor.nonzero, bool, int, float):
            with pytest.raises(AssertionError, match="in the step"):
                read(torch.tensor(1))
