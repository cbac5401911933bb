import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from det_heads import MaskHeadConfig
from det_models import (
    detectron2_cascade_config,
    detectron2_config,
    maskrcnn_benchmark_config,
    mmdetection_cascade_config,
    mmdetection_config,
    torchvision_config,
    torchvision_v2_config,
)
from det_models.checkpoints import (
    TARGETS,
    CheckpointError,
    as_run_by,
    differences,
    from_reference,
    leftover,
    settings,
    tensors_in,
    to_checkpoint,
    torchvision_labels,
    with_leftover,
    write_checkpoint,
)

PLAIN = {
    "detectron2": detectron2_config,
    "torchvision": torchvision_config,
    "torchvision_v2": torchvision_v2_config,
    "maskrcnn_benchmark": maskrcnn_benchmark_config,
    "mmdetection": mmdetection_config,
}
COCO_LIKE = {1: "person", 2: "bicycle", 4: "bus"}


def plain_state(make_detector, make_config, system="detectron2", **options):
    return make_detector(make_config(system, **options)).state_dict()


@pytest.fixture
def state(make_detector, make_config):
    """Heads of a small detector; the stand-in backbone, which nobody else has, is left out."""
    found = plain_state(make_detector, make_config)
    body = {"backbone.body.conv1.weight": torch.rand(4, 3, 7, 7), "backbone.body.bn1.weight": torch.rand(4)}
    body |= {"backbone.body.bn1.running_var": torch.rand(4) * 1e-4, "backbone.body.bn1.running_mean": torch.rand(4)}
    return body | {name: tensor for name, tensor in found.items() if not name.startswith("backbone.")}


def same(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


@pytest.mark.parametrize("system", TARGETS)
def test_there_and_back(state, make_config, system, tmp_path):
    """Every bit comes back from the container of another system."""
    config = replace(make_config("detectron2"), pixels=torchvision_config().pixels)
    path = tmp_path / "there.pth"
    write_checkpoint(path, to_checkpoint(state, config, system, categories={7: "a", 8: "b", 9: "c"}))
    content = torch.load(path, weights_only=True)
    assert set(content) == {
        "detectron2": {"model", "__author__", "categories"},
        "mmdetection": {"meta", "state_dict"},
    }.get(system, set(content))
    found = from_reference(tensors_in(content), "torchvision" if system == "torchvision" else system)
    counters = {name for name in found if name.endswith("num_batches_tracked")}
    assert bool(counters) == (system == "mmdetection")
    same({name: tensor for name, tensor in found.items() if name not in counters}, state)


def test_group_normalisation_of_mmdetection(state, make_config):
    """It is called `gn` there, and counts nothing."""
    group = {name: tensor for name, tensor in state.items() if ".bn1.running" not in name}
    group["backbone.fpn.output_norm.0.bias"] = torch.rand(4)
    found = to_checkpoint(group, make_config("detectron2"), "mmdetection")["state_dict"]
    assert {name for name in found if "gn" in name} == {"backbone.gn1.weight", "neck.fpn_convs.0.gn.bias"}
    assert not any(name.endswith("num_batches_tracked") for name in found)
    same(from_reference(found), group)


def test_containers(state, make_config, tmp_path):
    config = make_config("detectron2")
    categories = {7: "a", 8: "b", 9: "c"}
    meta = to_checkpoint(state, config, "mmdetection", categories=categories)["meta"]
    assert meta["CLASSES"] == meta["dataset_meta"]["classes"] == ("a", "b", "c")
    detectron2 = to_checkpoint(state, config, "detectron2", categories=categories)
    assert detectron2["categories"][1] == {"id": 8, "name": "b"}
    write_checkpoint(tmp_path / "zoo.pkl", detectron2)
    zoo = pickle.loads((tmp_path / "zoo.pkl").read_bytes())
    assert zoo["__author__"].startswith("det-heads")
    assert (zoo["model"]["roi_heads.box_head.fc1.bias"] == state["box_head.fc1.bias"].numpy()).all()
    with pytest.raises(CheckpointError, match=r"must not end in \.pkl: only detectron2"):
        write_checkpoint(tmp_path / "other.pkl", to_checkpoint(state, config, "mmdetection"))


def test_nothing_is_written_over_or_left_half(state, make_config, tmp_path, monkeypatch):
    path = tmp_path / "there.pth"
    path.write_bytes(b"mine")
    content = to_checkpoint(state, make_config("detectron2"), "detectron2")
    with pytest.raises(CheckpointError, match="exists already"):
        write_checkpoint(path, content)
    assert path.read_bytes() == b"mine"

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        write_checkpoint(tmp_path / "new.pth", content)
    assert [entry.name for entry in tmp_path.iterdir()] == ["there.pth"]


def test_classes_of_torchvision_are_categories(state, make_config):
    """COCO's ids have gaps: 91 outputs for 80 classes, of which those between never win."""
    config = replace(make_config("detectron2"), pixels=torchvision_config().pixels)
    tensors = to_checkpoint(state, config, "torchvision", categories=COCO_LIKE)
    scores, bias = (tensors[f"roi_heads.box_predictor.cls_score.{kind}"] for kind in ("weight", "bias"))
    assert len(bias) == 5
    assert torch.equal(scores[[1, 2, 4, 0]], state["box_head.cls_score.weight"])
    probabilities = bias.softmax(0)
    assert torch.equal(probabilities[[1, 2, 4, 0]], state["box_head.cls_score.bias"].softmax(0))
    assert probabilities[3] == 0
    boxes = tensors["roi_heads.box_predictor.bbox_pred.bias"].view(5, 4)
    assert torch.equal(boxes[[1, 2, 4]].flatten(), state["box_head.bbox_pred.bias"])
    assert torch.equal(
        tensors["roi_heads.mask_predictor.mask_fcn_logits.weight"][[1, 2, 4]], state["mask_head.predictor.weight"]
    )
    same(from_reference(tensors, "torchvision"), state)


@pytest.mark.parametrize(
    ("ids", "labels"),
    [([1, 2, 4], [1, 2, 4]), ([0, 1, 2], [1, 2, 3]), ([1, 2, 300], [1, 2, 3]), ([2, 1, 3], [1, 2, 3]), ([5], [1])],
)
def test_labels_of_torchvision(ids, labels):
    assert torchvision_labels(ids) == labels


def test_first_convolution_is_turned_for_torchvision_alone(state, make_config):
    config, name = make_config("detectron2"), "backbone.body.conv1.weight"
    assert config.pixels.order == "bgr"
    assert torch.equal(to_checkpoint(state, config, "torchvision")[name], state[name].flip(1))
    other = to_checkpoint(state, config, "mmdetection")["state_dict"]
    assert torch.equal(other["backbone.conv1.weight"], state[name])
    run = as_run_by(config, "torchvision").pixels
    assert (run.order, run.scale) == ("rgb", 255.0)
    assert run.mean == pytest.approx((0.485, 0.456, 0.406))
    assert run.std == pytest.approx((1 / 255,) * 3)


def test_detectron2_has_one_epsilon(state, make_config):
    """The scale of a layer that was computed with another epsilon changes, also where the variance is smaller."""
    found = to_checkpoint(state, make_config("detectron2"), "detectron2", norm_eps=0.0)["model"]
    for kind in ("running_mean", "running_var"):
        assert torch.equal(found[f"backbone.bottom_up.stem.conv1.norm.{kind}"], state[f"backbone.body.bn1.{kind}"])
    variance = state["backbone.body.bn1.running_var"]
    torch.testing.assert_close(
        found["backbone.bottom_up.stem.conv1.norm.weight"] * (variance + 1e-5).rsqrt(),
        state["backbone.body.bn1.weight"] * variance.rsqrt(),
    )


def test_a_file_only_converted_comes_back_bit_by_bit(state, make_config):
    """The background's boxes and masks, and what is ignored, are kept beside the tensors that we have."""
    config = replace(make_config("detectron2"), pixels=torchvision_config().pixels)
    original = to_checkpoint(state, config, "torchvision")
    original["roi_heads.box_predictor.bbox_pred.weight"][:4] = 3.0
    original["rpn.anchor_generator.cell_anchors.0"] = torch.rand(3, 4)
    spelling = {name.replace("rpn.head.conv.0.0.", "rpn.head.conv."): tensor for name, tensor in original.items()}
    content = to_checkpoint(from_reference(spelling, "torchvision"), config, "torchvision")
    rest = leftover(content, spelling, "torchvision")
    assert set(rest) == {"roi_heads.box_predictor.bbox_pred.weight", "rpn.anchor_generator.cell_anchors.0"}
    same(with_leftover(content, rest), original)


@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("system", [system for system in PLAIN if system != "maskrcnn_benchmark"])
def test_own_system_needs_no_settings(system, mask):
    """A published detector in its own system: no rule differs and nothing is to be set but classes and heads."""
    config = PLAIN[system](mask=mask)
    target = system.removesuffix("_v2")
    run = as_run_by(config, target)
    assert run == config
    assert differences(config, run) == {}
    assert settings(run, target) == []


def test_settings_and_rules():
    config = torchvision_v2_config(7)
    run = as_run_by(config, "detectron2")
    lines = settings(run, "detectron2")
    assert "INPUT.FORMAT: RGB" in lines
    assert "MODEL.PIXEL_MEAN: [123.675, 116.28, 103.53]" in lines
    assert "MODEL.RPN.CONV_DIMS: [-1, -1]" in lines
    assert "MODEL.ROI_BOX_HEAD.POOLER_TYPE: ROIAlign" in lines
    assert 'MODEL.ROI_MASK_HEAD.NORM: "BN"' in lines
    rules = differences(config, run)
    assert rules["rpn.anchors.rounding"] == ("round", "none")
    assert not any(name.startswith("pixels") for name in rules)
    lines = settings(as_run_by(detectron2_config(5), "mmdetection"), "mmdetection")
    assert lines[0] == "model.roi_head.bbox_head.num_classes = 5  # and of mask_head"
    assert "bgr_to_rgb=False" in lines[1]
    assert settings(as_run_by(detectron2_config(5), "torchvision"), "torchvision")[:2] == [
        "num_classes=6",
        "image_mean=[0.485, 0.456, 0.406], image_std=[0.003921569, 0.003921569, 0.003921569]",
    ]
    cascade = replace(
        mmdetection_cascade_config(3, mask=False), box=replace(mmdetection_cascade_config().box, channels=8)
    )
    assert "MODEL.ROI_BOX_HEAD.FC_DIM: 8" in settings(as_run_by(cascade, "detectron2"), "detectron2")
    assert differences(cascade, as_run_by(cascade, "detectron2"))["cascade.scores"] == (
        "mean_logit",
        "mean_probability",
    )


@pytest.mark.parametrize(
    ("config", "system", "message"),
    [
        (detectron2_cascade_config(3), "torchvision", "torchvision has no cascades"),
        (mmdetection_cascade_config(3), "detectron2", "one mask head for all stages, and this one has a mask head per"),
        (detectron2_cascade_config(3), "mmdetection", "a mask head per stage, and this one has one mask head for all"),
        (
            replace(detectron2_config(3), box=replace(detectron2_config(3).box, layers=1)),
            "torchvision",
            "two linear layers in the box head and one convolution in the RPN, or",
        ),
        (
            replace(detectron2_config(3), mask=MaskHeadConfig(norm="bn")),
            "torchvision",
            "mask head is normalised like the box head",
        ),
        (
            replace(detectron2_config(3), mask=MaskHeadConfig(norm="ln")),
            "mmdetection",
            "layer normalisation in heads can be written as ours alone",
        ),
    ],
)
def test_what_cannot_be_expressed(state, config, system, message):
    with pytest.raises(CheckpointError, match=message):
        to_checkpoint(state, config, system)


def test_wrong_use(state, make_config):
    config = make_config("detectron2")
    with pytest.raises(CheckpointError, match="must be one of detectron2, mmdetection, torchvision, got 'keras'"):
        to_checkpoint(state, config, "keras")
    with pytest.raises(CheckpointError, match="3 classes need as many categories, got 1"):
        to_checkpoint(state, config, "detectron2", categories={1: "a"})
    with pytest.raises(CheckpointError, match=r"detectron2 has no counterpart of head\.classes\.weight"):
        to_checkpoint({"head.classes.weight": torch.zeros(1)}, config, "detectron2")
