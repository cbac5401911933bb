"""The recipes and commands of RetinaNet and FCOS."""

import json

import pytest
import torch

from apps.common.app import app_of
from apps.common.config import from_dict, to_dict
from apps.common.like import alike
from apps.retinanet.config import RECIPES, OneStageRecipe
from det_models import load, open_weights
from testing.command_line import STEPS, call, read, small, train
from testing.foreign_files import theirs, write
from testing.trained import random_network, small_model


def test_recipes_have_detectron2s_constants():
    recipe = RECIPES["retinanet_r50_fpn_1x"]()
    assert (recipe.solver.base_lr, recipe.solver.steps, recipe.solver.milestones) == (0.01, 90_000, (60_000, 80_000))
    sizes = recipe.detector.anchors.sizes
    assert [level[0] for level in sizes] == [32, 64, 128, 256, 512]
    assert sizes[0][1:] == pytest.approx((32 * 2 ** (1 / 3), 32 * 2 ** (2 / 3)))
    assert RECIPES["retinanet_r101_fpn_3x"]().solver.steps == 270_000
    fcos = RECIPES["fcos_r50_fpn_1x"]()
    assert (fcos.detector.score_threshold, fcos.detector.nms_threshold) == (0.2, 0.6)
    assert (recipe.backbone.p6_input, fcos.backbone.p6_input) == ("body", "pyramid")


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_survive_json(name):
    recipe = RECIPES[name]()
    assert from_dict(json.loads(json.dumps(to_dict(recipe))), OneStageRecipe) == recipe
    assert app_of(recipe.detector) == "retinanet"


def test_recipes_of_other_systems_are_found():
    assert alike("COCO-Detection/retinanet_R_101_FPN_3x.yaml").recipe == "retinanet_r101_fpn_3x"
    found = alike("retinanet/retinanet_r50_fpn_1x_coco.py")
    assert (found.app, found.recipe, found.same) == ("retinanet", "retinanet_r50_fpn_1x", False)
    assert alike("retinanet_resnet50_fpn_v2") is None


def test_a_run_tells_of_every_loss_and_is_used(retinanet_run, shapes, tmp_path, capsys):
    lines = [json.loads(line) for line in (retinanet_run / "metrics.jsonl").read_text().splitlines()]
    assert all({"loss_cls", "loss_box"} <= line.keys() for line in lines if "loss" in line)
    weights = retinanet_run / "checkpoints" / "last.pt"
    assert call("retinanet", "eval", "--weights", weights, "--data", shapes, "--output", tmp_path / "eval") == 0
    assert "bbox" in capsys.readouterr().out
    picture = next((shapes / "val").iterdir())
    assert call("retinanet", "predict", "--weights", weights, "--output", tmp_path / "out", picture) == 0
    assert call("retinanet", "benchmark", "--data", shapes, "--steps", 1, "--warmup", 0, *small("retinanet")) == 0
    assert load(retinanet_run, device="cpu").tasks == ("bbox",)


def test_a_resumed_run_is_the_same(retinanet_run, shapes, tmp_path):
    output = tmp_path / "run"
    assert train("retinanet", shapes, output, "--train.checkpoint-interval", 2) == 0
    (output / "checkpoints" / "last.pt").unlink()
    assert call("retinanet", "train", "--resume", output) == 0
    states = [
        torch.load(run / "checkpoints" / "last.pt", weights_only=True)["model"] for run in (retinanet_run, output)
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_fcos_trains(shapes, tmp_path):
    where = ["--data", shapes, "--output", tmp_path / "fcos", "--recipe", "fcos_r50_fpn_1x", "--weights", "none"]
    narrow = ["--backbone.depth", 18, "--backbone.norm", "bn", "--backbone.freeze-at", 0, "--data.workers", 0]
    assert call("retinanet", "train", *where, *small("retinanet"), *narrow, *STEPS) == 0
    losses = (tmp_path / "fcos" / "metrics.jsonl").read_text()
    assert "loss_centerness" in losses
    assert read(tmp_path / "fcos" / "config.json")["recipe"]["detector"]["locations"] is not None


@pytest.mark.parametrize("layout", ["detectron2-retinanet", "torchvision-retinanet"])
def test_training_starts_from_another_systems_file(layout, shapes, tmp_path):
    state = random_network(small_model(layout)).state_dict()
    path = write(tmp_path / "theirs.pth", layout.split("-")[0], theirs(layout, state))
    options = ["--weights", path, "--drop-class-head", True, "--backbone.depth", 18, "--detector.convs", 4]
    narrow = ["--backbone.norm", "frozen_bn", "--data.workers", 0, "--recipe", "retinanet_r50_fpn_1x"]
    assert train("retinanet", shapes, tmp_path / "run", *options, *narrow) == 0
    trained, theirs_model = open_weights(tmp_path / "run").network(), open_weights(path).network()
    assert trained.detector.anchors == theirs_model.detector.anchors
    assert trained.backbone.p6_input == theirs_model.backbone.p6_input
    assert trained.detector.num_classes == 6


def test_a_file_of_another_family_is_refused(shapes, tmp_path, capsys):
    state = random_network(small_model("detectron2")).state_dict()
    path = write(tmp_path / "theirs.pth", "detectron2", theirs("detectron2", state))
    assert train("retinanet", shapes, tmp_path / "run", "--weights", path) != 0
    assert "is a detector for apps/mask_rcnn" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["retinanet_resnet50_fpn", "retinanet_resnet50_fpn_v2", "fcos_resnet50_fpn"])
def test_torchvision_runs_what_is_written_for_it(name, shapes, tmp_path, capsys):
    """Their file becomes ours and theirs again, and their network computes on it what ours does."""
    from torchvision.models import detection

    torch.manual_seed(0)
    network = getattr(detection, name)(weights=None, weights_backbone=None, num_classes=4)
    torch.save(network.state_dict(), tmp_path / "a.pth")
    picture = next((shapes / "val").iterdir())
    convert = ["convert", tmp_path / "b.pth", "--weights", tmp_path / "a.pth", "--to", "torchvision"]
    assert call("retinanet", *convert, "--certify", picture) == 0
    out = capsys.readouterr().out
    assert out.count("PASSED") == 2, out
