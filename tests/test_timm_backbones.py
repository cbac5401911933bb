"""Detectors on networks of timm, from the command line: trained, saved, evaluated, resumed; optimized for inference.

The static contract is in `test_static.py`, the operators for NPUs in `test_npu_check.py`.
"""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from apps.common.recipes import tiny
from det_backbones import TimmBody, fold_report
from det_engine import checkpoint
from det_heads import TwoStageDetector
from det_models import build
from det_models.inference import optimize_for_inference
from det_ops import Conv2d
from testing.command_line import call, train

NAMES = ("convnextv2_atto", "resnet10t", "mobilenetv3_small_050", "swin_tiny_patch4_window7_224")


def test_a_run_from_weights_in_a_file_to_its_evaluation(shapes: Path, tmp_path: Path, capsys) -> None:
    torch.manual_seed(3)
    weights = tmp_path / "weights.pth"
    source = timm.create_model("mobilenetv3_small_050").state_dict()
    torch.save({"state_dict": {f"module.{name}": value for name, value in source.items()}}, weights)
    options = (
        "--backbone.name", "timm/mobilenetv3_small_050", "--backbone.freeze-at", 5, "--solver.steps", 2,
        "--solver.layer-decay", 0.9, "--pictures", 0,
    )  # fmt: skip
    assert train("faster_rcnn", shapes, tmp_path / "run", "--weights", weights, *options) == 0
    assert f"Weights: backbone from {weights} (timm, " in capsys.readouterr().out
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    saved = checkpoint.load(last)["model"]
    assert torch.equal(saved["backbone.body.network.conv_stem.weight"], source["conv_stem.weight"])
    assert call("faster_rcnn", "eval", "--weights", last, "--data", shapes) == 0


def test_a_plain_transformer_is_trained_and_evaluated(shapes: Path, tmp_path: Path, capsys) -> None:
    torch.manual_seed(3)
    source = timm.create_model("vit_tiny_patch16_224").state_dict()
    torch.save(source, tmp_path / "vit.pth")
    options = (
        "--backbone.name", "timm/vit_tiny_patch16_224", "--backbone.drop-path", 0.1, "--solver.steps", 2,
        "--solver.optimizer", "adamw", "--solver.layer-decay", 0.8, "--solver.no-decay", "*pos_embed", "--pictures", 0,
    )  # fmt: skip
    assert train("mask_rcnn", shapes, tmp_path / "run", "--weights", tmp_path / "vit.pth", *options) == 0
    assert "(timm, 148 tensors" in capsys.readouterr().out
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    assert call("mask_rcnn", "eval", "--weights", last, "--data", shapes) == 0
    assert call("mask_rcnn", "convert", tmp_path / "x.pth", "--weights", last, "--to", "detectron2") == 2
    assert "a network of timm can be written as ours alone" in capsys.readouterr().err
    for app in ("retinanet", "yolact"):
        assert train(app, shapes, tmp_path / app, *options) == 2
        assert "pyramid needs stages of strides 8, 16 and 32" in capsys.readouterr().err


def test_stages_of_a_two_stage_detector_can_be_deformable(shapes: Path, tmp_path: Path, capsys) -> None:
    options = ("--backbone.depth", 50, "--backbone.width", 16, "--backbone.deformable-blocks", 0, 1, 0, 2)
    options += ("--solver.steps", 2, "--pictures", 0)
    assert train("faster_rcnn", shapes, tmp_path / "run", *options) == 0
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    names = [name for name in checkpoint.load(last)["model"] if name.endswith("offset_mask.weight")]
    assert [name.split(".")[2] for name in names] == ["layer2", "layer4", "layer4"], names
    assert call("faster_rcnn", "eval", "--weights", last, "--data", shapes) == 0
    assert call("faster_rcnn", "convert", tmp_path / "x.pth", "--weights", last, "--to", "detectron2") == 2
    assert "deformable convolutions can be written as ours alone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm/vit_small_patch32_224", "gives features of strides 32, 32, 32"),
        ("timm/nothing", "has no network 'nothing'"),
        ("convnextv2_atto", "must be resnet or a network of timm, timm/NAME"),
    ],
)
def test_other_networks_are_refused_by_name(name: str, message: str, shapes: Path, tmp_path: Path, capsys) -> None:
    assert train("faster_rcnn", shapes, tmp_path / "run", "--backbone.name", name) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def detector(name: str) -> TwoStageDetector:
    """The network of the recipe `tiny` on another body, with batch norms that are not the identity."""
    recipe = tiny(mask=True)
    torch.manual_seed(0)
    model = build(replace(recipe, backbone=replace(recipe.backbone, name=f"timm/{name}")).model())
    assert isinstance(model, TwoStageDetector)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.8, 1.2)
    return model.eval()


@pytest.mark.parametrize("name", NAMES)
def test_optimized_for_inference_it_computes_the_same(name: str) -> None:
    model = detector(name)
    made = optimize_for_inference(model, torch.device("cpu"))
    norms = [module for module in model.backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(fold_report(model.backbone).folded) == len(norms)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in made.backbone.modules())
    images = torch.randn(2, 3, 96, 128)
    with torch.inference_mode():
        for found, expected in zip(made.backbone(images), model.backbone(images), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize(("name", "some"), [("resnet10t", True), ("convnextv2_atto", False)])
def test_plain_convolutions_of_3x3_are_converted(name: str, some: bool) -> None:
    body = detector(name).backbone.body
    assert isinstance(body, TimmBody)
    assert any(isinstance(module, Conv2d) for module in body.modules()) == some


def test_masks_of_windows_are_made_once_and_serve_training_after_inference() -> None:
    body = detector("swin_tiny_patch4_window7_224").backbone.body
    images = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        expected = body(images)
    (masks,) = {
        id(block.get_attn_mask.masks): block.get_attn_mask.masks
        for block in body.modules()
        if hasattr(block, "get_attn_mask")
    }.values()
    made = dict(masks)
    assert any(mask is not None for mask in made.values())
    body.train()
    features = body(images)
    sum(feature.sum() for feature in features).backward()
    assert masks.keys() == made.keys()
    twin = copy.deepcopy(body).eval()
    for found, wanted in zip(twin(images), expected, strict=True):
        torch.testing.assert_close(found, wanted)
    assert all(block.get_attn_mask.block is block for block in twin.modules() if hasattr(block, "get_attn_mask"))
