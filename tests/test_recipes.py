"""The recipes hold the published constants, and survive being written, read and fitted to another batch."""

import json
from dataclasses import replace

import pytest

from apps.common.app import App
from apps.common.config import from_dict, to_dict
from apps.common.data import grouping
from apps.common.train import _parse
from apps.faster_rcnn.config import RECIPES as FASTER
from apps.mask_rcnn.config import RECIPES as MASK
from det_engine.cli import UsageError
from det_engine.options import option_names

APPS = {
    "faster_rcnn": App(name="faster_rcnn", recipes=FASTER),
    "mask_rcnn": App(name="mask_rcnn", recipes=MASK),
}
ALL = [
    pytest.param(recipe, id=f"{app}-{name}") for app, found in APPS.items() for name, recipe in found.recipes.items()
]

# (field, detectron2, mlcommons / maskrcnn-benchmark), beyond what det_heads' own tests hold of the detector.
CONSTANTS = [
    ("backbone.depth", 50, 50),
    ("backbone.norm", "frozen_bn", "frozen_bn"),
    ("backbone.norm_eps", 1e-5, 0),
    ("backbone.stride_in_1x1", True, True),
    ("backbone.freeze_at", 2, 2),
    ("backbone.pyramid_channels", 256, 256),
    ("backbone.weights", "R-50.pkl", "R-50.pkl"),
    ("detector.pixels.mean", (103.53, 116.28, 123.675), (102.9801, 115.9465, 122.7717)),
    ("detector.pixels.std", (1, 1, 1), (1, 1, 1)),
    ("detector.rpn.post_nms_train_images", None, 2),
    ("detector.box.label_smoothing", 0, 0),
    ("data.batch", 16, 16),
    ("data.train_sizes", (640, 672, 704, 736, 768, 800), (800,)),
    ("data.test_size", 800, 800),
    ("data.max_size", 1333, 1333),
    ("data.flip", 0.5, 0.5),
    ("data.rounding", "detectron2", "maskrcnn_benchmark"),
    ("data.filter_empty", True, True),
    ("solver.base_lr", 0.02, 0.02),
    ("solver.momentum", 0.9, 0.9),
    ("solver.weight_decay", 1e-4, 1e-4),
    ("solver.norm_weight_decay", 0, None),
    ("solver.bias_lr_factor", 1, 2),
    ("solver.bias_weight_decay", None, 0),
    ("solver.warmup_steps", 1000, 500),
    ("solver.warmup_factor", 1 / 1000, 1 / 3),
    ("solver.milestones", (60_000, 80_000), (60_000, 80_000)),
    ("solver.gamma", 0.1, 0.1),
    ("solver.steps", 90_000, 90_000),
    ("solver.clip_norm", None, None),
    ("train.precision", "fp32", "fp32"),
    ("train.checkpoint_interval", 5000, 2500),
]


def field_of(recipe, path):
    for name in path.split("."):
        recipe = getattr(recipe, name)
    return recipe


@pytest.mark.parametrize(("path", "detectron2", "mlperf"), CONSTANTS, ids=[row[0] for row in CONSTANTS])
def test_constants_are_the_published_ones(path, detectron2, mlperf):
    assert field_of(MASK["mask_rcnn_r50_fpn_1x"](), path) == detectron2
    assert field_of(FASTER["faster_rcnn_r50_fpn_1x"](), path) == detectron2
    assert field_of(MASK["mask_rcnn_r50_fpn_1x_mlperf"](), path) == mlperf


@pytest.mark.parametrize("recipe", ALL)
def test_a_recipe_is_its_own_copy_after_json(recipe):
    assert from_dict(json.loads(json.dumps(to_dict(recipe()))), type(recipe())) == recipe()


@pytest.mark.parametrize("app", APPS.values(), ids=APPS)
def test_recipes_carry_the_name_they_are_found_by(app):
    assert all(name == recipe().name and recipe().summary for name, recipe in app.recipes.items())
    assert next(iter(app.recipes)) == "tiny"


def test_deeper_and_longer_variants():
    assert MASK["mask_rcnn_r101_fpn_3x"]().backbone.weights == "R-101.pkl"
    assert FASTER["faster_rcnn_r101_fpn_1x"]().backbone.depth == 101
    for recipe in (MASK["mask_rcnn_r50_fpn_3x"](), FASTER["faster_rcnn_x101_fpn_3x"]()):
        assert (recipe.solver.milestones, recipe.solver.steps) == ((210_000, 250_000), 270_000)
    x101 = FASTER["faster_rcnn_x101_fpn_3x"]()
    assert (x101.backbone.groups, x101.backbone.width_per_group, x101.backbone.stride_in_1x1) == (32, 8, False)
    assert x101.detector.pixels.order == "rgb"
    assert FASTER["faster_rcnn_r50_fpn_1x_smooth"]().detector.box.label_smoothing == 0.1


def test_rates_steps_and_intervals_follow_the_batch_and_explicit_options_win():
    # The mlcommons reference on one device: batch 2, rate 0.0025, 720k steps, 480k/640k.
    app, recipe = APPS["mask_rcnn"], MASK["mask_rcnn_r50_fpn_1x_mlperf"]()
    _, fitted, line = _parse(app, recipe, None, ["--data.batch", "2"], resumed=False)
    assert fitted.solver.base_lr == pytest.approx(0.0025)
    assert (fitted.solver.milestones, fitted.solver.steps) == ((480_000, 640_000), 720_000)
    assert (fitted.train.checkpoint_interval, fitted.train.evaluation_interval) == (20_000, 80_000)
    assert fitted.detector == recipe.detector
    assert "0.02 -> 0.0025" in line
    arguments = ["--data.batch", "2", "--solver.steps", "7", "--train.evaluation-interval", "3"]
    _, chosen, line = _parse(app, recipe, None, arguments, resumed=False)
    assert (chosen.solver.steps, chosen.train.evaluation_interval) == (7, 3)
    assert "7 steps" in line
    # A run that goes on has its batch in the recipe already.
    _, again, _ = _parse(app, fitted, None, [], resumed=True)
    assert again == fitted


def test_what_a_recipe_says_of_itself_is_no_option():
    names = option_names(MASK["tiny"]())
    assert "--name" not in names
    assert "--summary" not in names
    assert "--train.seed" in names
    with pytest.raises(UsageError, match="number of classes"):
        _parse(APPS["mask_rcnn"], MASK["tiny"](), None, ["--detector.num-classes", "3"], resumed=False)


@pytest.mark.parametrize(
    ("buckets", "expected"),
    [
        ((), "orientation"),
        (((800, 1344), (1344, 800)), "orientation"),
        (((800, 1088), (800, 1344), (1088, 800), (1344, 800)), "bucket"),
    ],
)
def test_several_buckets_of_an_orientation_keep_aspects_together(buckets, expected):
    recipe = MASK["mask_rcnn_r50_fpn_1x"]()
    recipe = replace(recipe, data=replace(recipe.data, buckets=buckets))
    assert grouping(recipe.test_resize(), recipe.batch_shape().buckets) == expected
