"""`--weights` with the files of other systems: any depth, width and number of classes, in every command."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from apps.common.app import App
from apps.common.config import Recipe
from apps.common.detecting import loading_of
from apps.common.detecting_options import DetectorOptions
from apps.common.weights import describe
from det_backbones import read_weights
from det_engine import checkpoint
from det_models import (
    Weights,
    detectron2_cascade_config,
    detectron2_config,
    maskrcnn_benchmark_config,
    mmdetection_cascade_config,
    mmdetection_config,
    mmdetection_v1_cascade_config,
    mmdetection_v1_config,
    open_weights,
    torchvision_config,
    torchvision_v2_config,
)
from det_models.checkpoints import read
from testing.command_line import APPS, call, small
from testing.command_line import read as read_json
from testing.foreign_files import CLASSES, CONFIG, theirs, write

PLAIN = {
    "detectron2": detectron2_config,
    "detectron2 zoo": detectron2_config,
    "caffe2": maskrcnn_benchmark_config,
    "maskrcnn-benchmark": maskrcnn_benchmark_config,
    "torchvision": torchvision_config,
    "torchvision-v2": torchvision_v2_config,
    "mmdetection": mmdetection_config,
    "mmdetection-1": mmdetection_v1_config,
}
CASCADES = {
    "detectron2": detectron2_cascade_config,
    "mmdetection": mmdetection_cascade_config,
    "mmdetection-1": mmdetection_v1_cascade_config,
}
NORMS = {"mmdetection": "frozen_statistics_bn", "mmdetection-1": "frozen_statistics_bn", "torchvision-v2": "bn"}
WITHOUT_EPSILON = ("caffe2", "maskrcnn-benchmark", "torchvision")
IN_1X1 = ("detectron2", "detectron2 zoo", "caffe2", "maskrcnn-benchmark")


def recipe_of(system: str, classes: int = 3, *, mask: bool = True, cascade: bool = False, **backbone: Any) -> Recipe:
    """A narrow network under the conventions of a system."""
    detector = (CASCADES if cascade else PLAIN)[system](classes, mask=mask)
    detector = replace(
        detector,
        box=replace(detector.box, channels=24, conv_channels=16 if detector.box.convs else 256),
        mask=None if detector.mask is None else replace(detector.mask, channels=16),
    )
    body = {
        "depth": 18, "width": 8, "pyramid_channels": 16, "norm": NORMS.get(system, "frozen_bn"),
        "norm_eps": 0.0 if system in WITHOUT_EPSILON else 1e-5, "freeze_at": 0 if system == "torchvision-v2" else 2,
        "pyramid_norm": "bn" if system == "torchvision-v2" else None,
    } | backbone  # fmt: skip
    body["stride_in_1x1"] = body["depth"] >= 50 and system in IN_1X1 and body.get("groups", 1) == 1
    recipe = APPS["mask_rcnn"].recipes["tiny"]()
    return replace(recipe, backbone=replace(recipe.backbone, **body), detector=detector)


def app_of(recipe: Recipe) -> App:
    name = "mask_rcnn" if recipe.detector.mask is not None else "faster_rcnn"
    return APPS["cascade_rcnn" if recipe.detector.cascade is not None else name]


def random_model(recipe: Recipe) -> nn.Module:
    torch.manual_seed(0)
    model = app_of(recipe).network(recipe)
    for name, tensor in model.state_dict().items():
        if name.endswith(("running_mean", "running_var", "bn1.weight", "bias")):
            tensor.uniform_(0.5, 1.5)
    return model


def file_of(system: str, path: Path, recipe: Recipe, **metadata: Any) -> tuple[Path, dict[str, Tensor]]:
    """The file, and the state that a model has once it is read."""
    ours = random_model(recipe).state_dict()
    if system == "caffe2":
        for name, tensor in ours.items():
            if name.endswith("running_mean"):
                tensor.zero_()
            elif name.endswith("running_var"):
                tensor.fill_(1.0)
    return write(path, system, theirs(system, ours), **metadata), ours


def assert_same(weights: Weights, recipe: Recipe, ours: dict[str, Tensor]) -> None:
    found, model = weights.build().state_dict(), weights.network()
    assert found.keys() == ours.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in ours.items())
    assert model.detector == recipe.detector
    mine, other = model.backbone, recipe.backbone
    for name in ("depth", "width", "groups", "width_per_group", "norm", "norm_eps", "pyramid_channels", "pyramid_norm"):
        assert getattr(mine, name) == getattr(other, name), name
    if other.depth >= 50:
        assert mine.stride_in_1x1 == other.stride_in_1x1


@pytest.mark.parametrize("options", [{}, {"mask": False, "classes": 1}], ids=["3 classes", "boxes of 1 class"])
@pytest.mark.parametrize("system", PLAIN)
def test_network_and_conventions_follow_from_the_file(system: str, options: dict[str, Any], tmp_path: Path) -> None:
    options = {"depth": 50 if system == "caffe2" else 18} | options
    recipe = recipe_of(system, **options)
    path, ours = file_of(system, tmp_path / "weights.any", recipe)
    assert_same(open_weights(path), recipe, ours)


@pytest.mark.parametrize("system", CASCADES)
def test_cascades(system: str, tmp_path: Path) -> None:
    recipe = recipe_of(system, cascade=True)
    path, ours = file_of(system, tmp_path / "weights.any", recipe)
    assert_same(open_weights(path), recipe, ours)


@pytest.mark.parametrize(
    ("system", "backbone"),
    [
        ("maskrcnn-benchmark", {"depth": 101}),
        ("torchvision", {"depth": 50, "groups": 4, "width_per_group": 16}),
        ("mmdetection", {"depth": 34}),
        ("detectron2", {"depth": 50, "norm": "gn"}),
    ],
)
def test_other_backbones(system: str, backbone: dict[str, Any], tmp_path: Path) -> None:
    recipe = recipe_of(system, **backbone)
    if backbone.get("norm") == "gn":
        recipe = replace(recipe, backbone=replace(recipe.backbone, stride_in_1x1=False))
    path, ours = file_of(system, tmp_path / "weights.any", recipe)
    assert_same(open_weights(path), recipe, ours)


def test_what_a_file_says_of_itself(tmp_path: Path) -> None:
    """mmdetection's configuration and classes, detectron2's pixels and categories."""
    recipe = recipe_of("mmdetection", depth=50)
    path, _ = file_of("mmdetection", tmp_path / "a", recipe, config=CONFIG, CLASSES=CLASSES[:3])
    trained = open_weights(path)
    assert trained.network().backbone.stride_in_1x1
    pixels = trained.network().detector.pixels
    assert (pixels.order, pixels.mean, pixels.std) == ("bgr", (103.53, 116.28, 123.675), (1.0, 1.0, 1.0))
    assert trained.categories == {1: "disc", 2: "square", 3: "triangle"}
    assert not trained.assumed
    recipe = recipe_of("detectron2")
    ours = theirs("detectron2", random_model(recipe).state_dict())
    ours |= {"pixel_mean": torch.tensor([1.0, 2.0, 3.0])[:, None, None], "pixel_std": torch.full((3, 1, 1), 57.0)}
    categories = [{"id": i, "name": name} for i, name in ((2, "a"), (5, "b"), (9, "c"))]
    trained = open_weights(write(tmp_path / "b", "detectron2", ours, categories=categories))
    assert trained.network().detector.pixels.mean == (1.0, 2.0, 3.0)
    assert trained.network().detector.pixels.std == (57.0, 57.0, 57.0)
    assert trained.categories == {2: "a", 5: "b", 9: "c"}


def test_coco_is_recognised_by_its_counts(tmp_path: Path) -> None:
    """80 classes, or torchvision's 90, ten of which stand for nothing and are never reported."""
    recipe = recipe_of("torchvision", classes=90, mask=False)
    trained = open_weights(file_of("torchvision", tmp_path / "a", recipe)[0])
    assert trained.network().detector.num_classes == len(trained.categories) == 90
    assert sum(name is None for name in trained.categories.values()) == 10
    assert (trained.categories[12], trained.categories[90]) == (None, "toothbrush")
    recipe = recipe_of("detectron2", classes=80, mask=False)
    trained = open_weights(file_of("detectron2", tmp_path / "b", recipe)[0])
    assert (len(trained.categories), list(trained.categories)[11], trained.categories[13]) == (80, 13, "stop sign")


@pytest.fixture(scope="module")
def zoo_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detectron2 pickle with as many classes as the data set has."""
    path = tmp_path_factory.mktemp("zoo") / "model_final.pkl"
    return file_of("detectron2 zoo", path, recipe_of("detectron2", classes=len(CLASSES)))[0]


def test_commands_without_a_recipe(zoo_file: Path, shapes: Path, tmp_path: Path, capsys: Any) -> None:
    """`eval` takes the categories of the data, where the file has none; `predict` numbers them."""
    weights = ("--weights", zoo_file, "--recipe", "tiny")
    assert call("mask_rcnn", "eval", *weights, "--data", shapes, "--output", tmp_path / "eval", "--pictures", 0) == 0
    output = capsys.readouterr().out
    assert f"{zoo_file} (detectron2, Mask R-CNN, ResNet-18, 6 classes)" in output
    assert "matched  ignored  missed" in output
    assert {"bbox", "segm"} < set(read_json(tmp_path / "eval" / "results.json"))
    picture = next((shapes / "val").iterdir())
    assert call("mask_rcnn", "predict", *weights[:2], "--output", tmp_path / "predict", picture) == 0
    for row in json.loads((tmp_path / "predict" / "predictions.json").read_text()):
        assert 1 <= row["category_id"] <= 6
    benchmark = ("benchmark", *weights[:2], "--data", shapes, "--steps", 1, "--warmup", 0)
    sizes = ["--data.train-sizes", "64", "--data.test-size", "64", "--data.max-size", "96", "--data.workers", "0"]
    assert call("mask_rcnn", *benchmark, *sizes) == 0


def test_a_detector_of_another_app(zoo_file: Path, shapes: Path, capsys: Any) -> None:
    assert call("faster_rcnn", "eval", "--weights", zoo_file, "--data", shapes) == 2
    assert "is a detector for apps/mask_rcnn (detectron2, Mask R-CNN, ResNet-18, 6 classes)" in capsys.readouterr().err
    assert call("faster_rcnn", "train", "--weights", zoo_file, "--data", shapes) == 2
    assert "apps/mask_rcnn" in capsys.readouterr().err


def test_other_categories_are_refused(shapes: Path, tmp_path: Path, capsys: Any) -> None:
    path, _ = file_of("mmdetection", tmp_path / "a", recipe_of("mmdetection"), CLASSES=("cat", "dog", "cow"))
    assert call("mask_rcnn", "eval", "--weights", path, "--data", shapes) == 2
    assert "does not know 6 of the 6 categories" in capsys.readouterr().err


SIZES = ["--backbone.depth", "18", "--backbone.norm", "frozen_bn", "--detector.box.channels", "24"]


def train(weights: Path, shapes: Path, output: Path, *options: object) -> int:
    steps = ("--solver.steps", 1, "--train.log-interval", 1, "--pictures", 0)
    files = ("--weights", weights, "--data", shapes, "--output", output)
    return call("mask_rcnn", "train", *files, *small("mask_rcnn"), *SIZES, *steps, *options)


def test_training_takes_the_conventions(shapes: Path, tmp_path: Path, capsys: Any) -> None:
    """Conventions come from the file, sizes and training from the recipe, and options win over both."""
    path, _ = file_of("maskrcnn-benchmark", tmp_path / "a", recipe_of("maskrcnn-benchmark", classes=6))
    assert train(path, shapes, tmp_path / "run", "--detector.rpn.min-size", 2.0) == 0
    output = capsys.readouterr().out
    assert "From the weights, unless an option says otherwise: " in output
    assert "detector.offset 1 (recipe: 0)" in output
    config = read_json(tmp_path / "run" / "config.json")["recipe"]
    detector, file = config["detector"], maskrcnn_benchmark_config()
    assert (detector["offset"], detector["pixels"]["order"], config["backbone"]["norm_eps"]) == (1.0, "bgr", 0.0)
    assert detector["rpn"]["anchors"]["rounding"] == "legacy"
    assert (detector["rpn"]["min_size"], file.rpn.min_size) == (2.0, 0.0)
    assert (detector["rpn"]["samples"], detector["rpn"]["post_nms_train"]) == (32, 200)
    assert config["data"]["test_size"] == 64


def test_another_number_of_classes(shapes: Path, tmp_path: Path, capsys: Any) -> None:
    path, ours = file_of("torchvision", tmp_path / "a", recipe_of("torchvision", classes=90))
    assert train(path, shapes, tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert "--drop-class-head True" in error
    assert "(7, 24)" in error
    assert "(91, 24)" in error
    assert not (tmp_path / "run").exists()
    assert train(path, shapes, tmp_path / "run", "--drop-class-head", "True", "--solver.base-lr", 1e-9) == 0
    assert "dropped, at random instead: box_head.cls_score.weight" in capsys.readouterr().out
    trained = open_weights(tmp_path / "run" / "checkpoints" / "last.pt").build().state_dict()
    torch.testing.assert_close(trained["box_head.fc1.weight"], ours["box_head.fc1.weight"])
    assert trained["box_head.cls_score.weight"].shape == (7, 24)


def test_a_run_of_ours_with_other_classes(shapes: Path, tmp_path: Path, capsys: Any) -> None:
    recipe, path = recipe_of("detectron2"), tmp_path / "ours.pt"
    config = describe(APPS["mask_rcnn"], recipe, {1: "cat", 2: "dog", 3: "cow"})
    checkpoint.save(path, {"model": random_model(recipe).state_dict(), "config": config})
    assert train(path, shapes, tmp_path / "run") == 2
    assert "--drop-class-head True" in capsys.readouterr().err
    assert train(path, shapes, tmp_path / "run", "--drop-class-head", "True") == 0
    assert "dropped, at random instead: box_head.cls_score.weight" in capsys.readouterr().out


@pytest.fixture(scope="module")
def other_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detectron2 pickle of numbers that no network begins with."""
    ours = random_model(recipe_of("detectron2", classes=len(CLASSES))).state_dict()
    ours = {name: 1.5 * tensor if tensor.is_floating_point() else tensor for name, tensor in ours.items()}
    path = tmp_path_factory.mktemp("other") / "model_final.pkl"
    return write(path, "detectron2 zoo", theirs("detectron2 zoo", ours))


def unlearned(path: Path, start: dict[str, Tensor]) -> set[str]:
    """First parts of the names of the tensors that a run at a rate of nearly zero still has from where it started."""
    trained = open_weights(path / "checkpoints" / "last.pt").build().state_dict()
    names = [name for name in trained if name in start and trained[name].shape == start[name].shape]
    same = [name for name in names if torch.allclose(trained[name], start[name], rtol=1e-5, atol=1e-6)]
    return {".".join(name.split(".")[: 2 if name.startswith("backbone") else 1]) for name in same}


def start_from(app: str, weights: Path, shapes: Path, output: Path, *options: object) -> int:
    command = ("train", "--weights", weights, "--data", shapes, "--output", output, *small(app), *SIZES)
    return call(app, *command, "--solver.steps", 1, "--solver.base-lr", 1e-9, "--pictures", 0, *options)


def test_some_parts_of_the_detector_of_another_app(other_file: Path, shapes: Path, tmp_path: Path, capsys: Any) -> None:
    """Mask R-CNN's into Faster and Cascade R-CNN, with its conventions."""
    start = open_weights(other_file).build().state_dict()
    parts = ["--weights-parts", "backbone", "pyramid", "region-proposals"]
    assert start_from("faster_rcnn", other_file, shapes, tmp_path / "faster", *parts) == 0
    assert "ignored" in capsys.readouterr().out
    taken = {"backbone.body", "backbone.fpn", "rpn"}
    assert unlearned(tmp_path / "faster", start) == taken
    assert read_json(tmp_path / "faster" / "config.json")["recipe"]["detector"]["pixels"]["order"] == "bgr"
    assert start_from("cascade_rcnn", other_file, shapes, tmp_path / "cascade", "--weights-parts", "backbone") == 0
    assert unlearned(tmp_path / "cascade", start) == {"backbone.body"}
    assert start_from("faster_rcnn", other_file, shapes, tmp_path / "all", "--drop-mismatched", "True") == 0
    assert unlearned(tmp_path / "all", start) == {*taken, "box_head"}  # all but the mask head


def test_a_part_that_is_not_there(other_file: Path, shapes: Path, tmp_path: Path, capsys: Any) -> None:
    assert start_from("mask_rcnn", other_file, shapes, tmp_path / "run", "--weights-parts", "bones") == 2
    error = capsys.readouterr().err
    assert f"{other_file}: there is no part 'bones'; parts are backbone, pyramid, region-proposals, box-head" in error
    assert not (tmp_path / "run").exists()


def test_what_fits_into_a_network_with_other_anchors(
    other_file: Path, shapes: Path, tmp_path: Path, capsys: Any
) -> None:
    start = open_weights(other_file).build().state_dict()
    one = ["--detector.rpn.anchors.ratios", "1.0"]
    assert start_from("mask_rcnn", other_file, shapes, tmp_path / "run", *one) == 2
    error = capsys.readouterr().err
    assert "another architecture" in error
    assert "--drop-mismatched True" in error
    assert start_from("mask_rcnn", other_file, shapes, tmp_path / "run", *one, "--drop-mismatched", "True") == 0
    report = capsys.readouterr().out
    assert re.search(r"^region proposals +2 +0 +4$", report, re.MULTILINE)
    trained = open_weights(tmp_path / "run" / "checkpoints" / "last.pt").build().state_dict()
    assert trained["rpn.objectness.weight"].shape[0] == 1
    assert unlearned(tmp_path / "run", start) == {"backbone.body", "backbone.fpn", "rpn", "box_head", "mask_head"}


def test_another_architecture_names_the_first_mismatches(shapes: Path, tmp_path: Path, capsys: Any) -> None:
    path, _ = file_of("detectron2", tmp_path / "a", recipe_of("detectron2", classes=6, pyramid_channels=24))
    assert train(path, shapes, tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert "another architecture" in error
    assert "(16, 8, 1, 1), the checkpoint's (24, 8, 1, 1)" in error
    assert str(path) in error


def test_files_that_are_no_weights(shapes: Path, tmp_path: Path, capsys: Any) -> None:
    path, _ = file_of("detectron2", tmp_path / "a", recipe_of("detectron2", mask=False))
    content = path.read_bytes()
    cut, text, other = tmp_path / "cut", tmp_path / "text", tmp_path / "other"
    cut.write_bytes(content[: len(content) // 2])
    text.write_text("no weights")
    torch.save({"fc.weight": torch.zeros(3, 3)}, other)
    for file, says in ((cut, "truncated or damaged"), (text, "not a weights file"), (other, "no detector")):
        assert call("faster_rcnn", "eval", "--weights", file, "--data", shapes) == 2
        error = capsys.readouterr().err
        assert says in error
        assert str(file) in error
        assert error.count("\n") == 1


class Runs:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_nothing_in_a_file_is_run(form: str, shapes: Path, tmp_path: Path, capsys: Any) -> None:
    recipe, target = recipe_of("detectron2", mask=False), tmp_path / "ran"
    system = "detectron2 zoo" if form == "pickle" else "detectron2"
    path, _ = file_of(system, tmp_path / "a", recipe, hooks=[Runs(f"touch {target}")])
    assert call("faster_rcnn", "eval", "--weights", path, "--data", shapes) == 2
    assert re.search(r"loading it would run (posix|nt)\.system\. It was not loaded", capsys.readouterr().err)
    assert not target.exists()


def test_reading_is_by_content(tmp_path: Path) -> None:
    """The same record from any name of the file."""
    recipe = recipe_of("mmdetection")
    one, two = (file_of("mmdetection", tmp_path / name, recipe)[0] for name in ("model.pkl", "R-50.pth"))
    files = [read_weights(path) for path in (one, two)]
    first, second = (read(file.arrays, file.metadata) for file in files)
    assert (first.system, first.detector, first.backbone) == (second.system, second.detector, second.backbone)


def test_the_named_recipe_says_how_images_are_loaded(tmp_path: Path) -> None:
    """Of another system's file, which says nothing of it."""
    options = DetectorOptions(weights=tmp_path / "theirs.pth", recipe="tiny")
    torch.save(theirs("detectron2", random_model(recipe_of("detectron2")).state_dict()), options.weights)
    app = APPS["mask_rcnn"]
    data = app.recipes["tiny"]().data
    assert (data.batch, data.workers) != (2, 2)
    assert loading_of(app, options, open_weights(options.weights)) == (data.batch, data.workers)
    assert loading_of(app, replace(options, recipe=None), open_weights(options.weights)) == (2, 2)
