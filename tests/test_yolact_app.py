"""YOLACT's recipes and commands; training until eight photographs are learnt by heart is in test_overfit.py."""

import json
from dataclasses import replace

import pytest
import torch

from apps.common.config import from_dict, to_dict
from apps.yolact.config import RECIPES, SquareConfig, YolactRecipe, yolact_base
from det_engine.cli import UsageError
from det_heads.yolact.heads import MaskIoUNet
from det_heads.yolact.priors import Priors
from det_models import build
from testing.command_line import call, small

PUBLISHED = [name for name in RECIPES if name != "tiny"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_constants(name):
    recipe = RECIPES[name]()
    solver, data, backbone = recipe.solver, recipe.data, recipe.backbone
    assert (solver.base_lr, solver.momentum, solver.weight_decay, solver.gamma) == (1e-3, 0.9, 5e-4, 0.1)
    assert solver.norm_weight_decay is None
    assert solver.bias_weight_decay is None
    assert (solver.warmup_steps, solver.warmup_factor * solver.base_lr) == (500, 1e-4)
    assert solver.milestones == (280_000, 600_000, 700_000, 750_000)
    assert (solver.steps, solver.reference_batch, data.batch) == (800_000, 8, 8)
    assert solver.clip_norm is None
    assert (data.photometric, data.expand, data.crop, data.flip, data.enforce_overlap) == (True, True, True, 0.5, False)
    assert (backbone.norm, backbone.freeze_norm_below, backbone.freeze_at, backbone.stride_in_1x1) == (
        "bn",
        6,
        0,
        False,
    )
    assert backbone.pyramid_channels == 256
    size = {"yolact_im400": 400, "yolact_im700": 700}.get(name, 550)
    assert data.size == size
    shape = recipe.batch_shape()
    assert shape.buckets == ((size, size),)
    assert (
        shape.bitmap_sizes
        == {
            400: ((100, 100), (50, 50)),
            550: ((138, 138), (69, 69)),
            700: ((176, 176), (88, 88)),
        }[size]
    )


def test_backbones():
    found = {name: RECIPES[name]().backbone for name in PUBLISHED}
    assert {name: b.weights for name, b in found.items()} == {
        "yolact_base": "resnet101_reducedfc.pth",
        "yolact_im400": "resnet101_reducedfc.pth",
        "yolact_im700": "resnet101_reducedfc.pth",
        "yolact_resnet50": "resnet50-19c8e357.pth",
        "yolact_darknet53": "darknet53.pth",
        "yolact_plus_base": "resnet101_reducedfc.pth",
        "yolact_plus_resnet50": "resnet50-19c8e357.pth",
    }
    deformable = {
        name: (b.deformable_blocks, b.deformable_interval) for name, b in found.items() if any(b.deformable_blocks)
    }
    assert deformable == {
        "yolact_plus_base": ((0, 4, 23, 3), 3),
        "yolact_plus_resnet50": ((0, 4, 6, 3), 1),
    }


def test_rate_and_steps_follow_the_batch_as_the_original_scales_them():
    scaled, line = yolact_base().scaled_to_batch(64)
    assert scaled.base_lr == pytest.approx(8e-3)
    assert (scaled.steps, scaled.milestones) == (100_000, (35_000, 75_000, 87_500, 93_750))
    assert (scaled.warmup_steps, scaled.warmup_factor * scaled.base_lr) == (500, pytest.approx(1e-4))
    assert "learning rate 0.001 -> 0.008" in line
    assert "warm-up" not in line


def test_batch_norm_is_frozen_where_a_device_has_few_images():
    recipe = yolact_base()
    assert recipe.resolved().backbone.norm == "bn"
    few = replace(recipe, data=replace(recipe.data, batch=5)).resolved()
    assert few.backbone.norm == "frozen_bn"
    assert RECIPES["tiny"]().backbone.freeze_norm_below == 0


def test_wrong_sizes():
    with pytest.raises(ValueError, match="size must be at least 1"):
        SquareConfig(size=0)


@pytest.mark.parametrize("name", ["yolact_plus_base", "yolact_plus_resnet50"])
def test_images_too_small_for_the_mask_iou_network(name):
    recipe = RECIPES[name]()
    with pytest.raises(UsageError, match=r"--data\.size must be at least 249"):
        replace(recipe, data=replace(recipe.data, size=248))
    size, _ = replace(recipe, data=replace(recipe.data, size=249)).batch_shape().bitmap_sizes
    assert MaskIoUNet(80, recipe.detector.mask_iou)(torch.zeros(1, *size), torch.tensor(1)).shape == (1, 80)


def test_one_small_image_is_too_little_for_batch_norm():
    recipe = RECIPES["tiny"]()
    with pytest.raises(UsageError, match=r"--data\.size"):
        replace(recipe, data=replace(recipe.data, batch=1, size=32)).resolved()
    assert replace(recipe, data=replace(recipe.data, batch=1, size=33)).resolved().backbone.norm == "bn"


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_priors_are_the_originals(name):
    """Their number, the sum of their widths and of their heights, and a sum that depends on every place and order."""
    recipe = RECIPES[name]()
    side = recipe.data.size
    shapes = [(-(-side // stride),) * 2 for stride in (8, 16, 32, 64, 128)]
    low, high = Priors(recipe.detector.priors)(shapes, (side, side), torch.device("cpu")).double().split(2, 1)
    priors = torch.cat(((low + high) / 2, high - low), 1)
    count = len(priors)
    place = torch.arange(1, count + 1).double() / count @ (priors @ torch.arange(1, 5).double())
    found = (count, *priors[:, 2:].sum(0).tolist(), place.item())
    expected = {400: (10_077, 676.4369, 676.4369, 11_617.2945), 700: (30_963, 2035.7965, 2035.7965, 35_404.6486)}.get(
        side, (19_248, 1301.4203, 1301.4203, 22_160.0817)
    )
    if "plus" in name:
        expected = (57_744, 5006.9832, 5006.9832, 71_407.0224)
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_its_own_copy_after_json(name):
    recipe = RECIPES[name]()
    assert recipe.name == name
    assert from_dict(json.loads(json.dumps(to_dict(recipe))), YolactRecipe) == recipe


@pytest.mark.parametrize("name", RECIPES)
def test_the_network_of_every_recipe_can_be_built(name):
    with torch.device("meta"):
        model = build(RECIPES[name]().model())
    assert model.backbone.strides == (8, 16, 32, 64, 128)


def test_a_run_tells_of_every_loss(yolact_run):
    losses = [json.loads(line) for line in (yolact_run / "metrics.jsonl").read_text().splitlines()]
    names = {key for line in losses for key in line if key.startswith("loss_")}
    assert len(names) == 4
    assert all(line[name] >= 0 for line in losses for name in names if name in line)


def test_pictures_and_speed(yolact_run, shapes, tmp_path, capsys):
    weights = yolact_run / "checkpoints" / "last.pt"
    picture = sorted((shapes / "val").iterdir())[0]
    assert call("yolact", "predict", "--weights", weights, "--output", tmp_path / "out", picture) == 0
    assert (tmp_path / "out" / "pictures" / f"00001-{picture.stem}.png").is_file()
    assert call("yolact", "benchmark", "--data", shapes, "--steps", 1, "--warmup", 0, *small("yolact")) == 0
    assert "frame by frame" in capsys.readouterr().out
