import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from det_heads import Yolact, yolact_plus_config
from det_models.checkpoints import (
    SYSTEMS,
    CheckpointError,
    ClassCountError,
    detect_system,
    from_reference,
    load_reference,
    reference_names,
    to_reference,
)
from det_models.checkpoints._rules import Template

CLASSES = 3
BACKGROUND_FIRST = ("torchvision", "maskrcnn-benchmark", "mmdetection-1")


def our_shapes(blocks=(3, 4, 6, 3), classes=CLASSES, mask=True):
    """Names of a two-stage detector, with tiny shapes."""
    shapes = {"backbone.body.conv1.weight": (2, 3, 7, 7), "backbone.body.bn1.running_mean": (2,)}
    for stage, count in enumerate(blocks, 1):
        for block in range(count):
            prefix = f"backbone.body.layer{stage}.{block}"
            for conv in (1, 2, 3):
                shapes[f"{prefix}.conv{conv}.weight"] = (2, 2, 1, 1)
                shapes[f"{prefix}.bn{conv}.running_var"] = (2,)
        shapes[f"backbone.body.layer{stage}.0.downsample.0.weight"] = (2, 2, 1, 1)
        shapes[f"backbone.body.layer{stage}.0.downsample.1.bias"] = (2,)
    for level in range(4):
        shapes[f"backbone.fpn.lateral.{level}.weight"] = (2, 2, 1, 1)
        shapes[f"backbone.fpn.output.{level}.bias"] = (2,)
    for name in ("rpn.conv", "rpn.objectness", "rpn.deltas", "box_head.fc1", "box_head.fc2"):
        shapes |= {f"{name}.weight": (2, 2), f"{name}.bias": (2,)}
    heads = {"box_head.cls_score": classes + 1, "box_head.bbox_pred": 4 * classes}
    if mask:
        heads |= {f"mask_head.convs.{i}": 2 for i in range(4)} | {"mask_head.deconv": 2, "mask_head.predictor": classes}
    for name, rows in heads.items():
        shapes |= {f"{name}.weight": (rows, 2), f"{name}.bias": (rows,)}
    return shapes


def our_state(**options):
    generator = torch.Generator().manual_seed(0)
    return {name: torch.rand(shape, generator=generator) for name, shape in our_shapes(**options).items()}


class Model(nn.Module):
    """A model with nothing but a state dict."""

    def __init__(self, state):
        super().__init__()
        self.state = state

    def state_dict(self):
        return dict(self.state)

    def load_state_dict(self, state, strict=True):
        self.state |= {name: tensor for name, tensor in state.items() if name in self.state}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


ONE_STAGE = ("yolact", *(system for system in SYSTEMS if system.endswith(("-retinanet", "-fcos"))))
TWO_STAGE = [system for system in SYSTEMS if system not in (*ONE_STAGE, "torchvision-v2", "caffe2")]


@pytest.mark.parametrize("system", TWO_STAGE)
@pytest.mark.parametrize("options", [{}, {"mask": False}, {"blocks": (3, 4, 23, 3), "classes": 1}, {"classes": 20}])
def test_there_and_back(system, options):
    state = our_state(**options)
    theirs = to_reference(state, system)
    assert detect_system(theirs) == system
    assert len(theirs) == len(state)
    assert equal(from_reference(theirs), state)


@pytest.mark.parametrize("system", ["torchvision-v2", "detectron2", "mmdetection"])
def test_heads_with_normalised_convolutions(system):
    """torchvision's second detectors, the LSJ baselines of detectron2, and `4conv1fc` of mmdetection."""
    state = our_state()
    for kind in ("weight", "bias"):
        state[f"rpn.convs.0.{kind}"], state[f"rpn.convs.1.{kind}"] = state.pop(f"rpn.conv.{kind}"), torch.rand(2)
        del state[f"box_head.fc2.{kind}"]
    for layer in range(4):
        state[f"box_head.convs.{layer}.weight"] = torch.rand(2)
        for head in ("box_head", "mask_head"):
            state[f"{head}.norms.{layer}.running_mean"] = torch.rand(2)
            state[f"{head}.norms.{layer}.num_batches_tracked"] = torch.tensor(3)
    for level in range(4):
        state[f"backbone.fpn.lateral_norm.{level}.weight"] = torch.rand(2)
        state[f"backbone.fpn.output_norm.{level}.weight"] = torch.rand(2)
    theirs = to_reference(state, system)
    assert detect_system(theirs) == system
    assert equal(from_reference(theirs), state)


@pytest.mark.parametrize("system", TWO_STAGE)
def test_background_is_last(system):
    theirs = to_reference(our_state(), system)
    names = reference_names(our_shapes(), system)
    first = system in BACKGROUND_FIRST
    for kind in ("weight", "bias"):
        scores = theirs[names[f"box_head.cls_score.{kind}"]]
        boxes = theirs[names[f"box_head.bbox_pred.{kind}"]]
        masks = theirs[names[f"mask_head.predictor.{kind}"]]
        assert len(boxes) == 4 * (CLASSES + first)
        assert len(masks) == CLASSES + first
        scores[0 if first else -1] = 7.0
        if first:
            boxes[:4], masks[0] = 7.0, 7.0
        boxes[-4:], masks[-1] = 5.0, 5.0
    ours = from_reference(theirs, system)
    for kind in ("weight", "bias"):
        assert (ours[f"box_head.cls_score.{kind}"][CLASSES] == 7.0).all()
        assert len(ours[f"box_head.bbox_pred.{kind}"]) == 4 * CLASSES
        assert len(ours[f"mask_head.predictor.{kind}"]) == CLASSES
        for name in ("bbox_pred", "predictor"):
            tensor = ours[f"{'mask' if name == 'predictor' else 'box'}_head.{name}.{kind}"]
            assert (tensor[-1] == 5.0).all()
            assert not (tensor == 7.0).any()


def test_91_outputs_are_90_foreground_classes():
    ours = from_reference(to_reference(our_state(classes=90), "torchvision"))
    assert ours["box_head.cls_score.weight"].shape[0] == 91
    assert ours["box_head.bbox_pred.weight"].shape[0] == 360
    assert ours["mask_head.predictor.weight"].shape[0] == 90


def test_old_torchvision_names():
    state = our_state()
    theirs = {}
    for name, tensor in to_reference(state, "torchvision").items():
        for new, old in (
            ("rpn.head.conv.0.0.", "rpn.head.conv."),
            *((f"blocks.{i}.0.", f"blocks.{i}.") for i in range(4)),
            *((f"mask_head.{i}.0.", f"mask_head.mask_fcn{i + 1}.") for i in range(4)),
        ):
            name = name.replace(new, old)
        theirs[name] = tensor
    assert equal(from_reference(theirs), state)


def test_anchors_are_ignored_and_parallel_prefix_left_out():
    state = our_state()
    theirs = {f"module.{name}": tensor.numpy() for name, tensor in to_reference(state, "maskrcnn-benchmark").items()}
    theirs["module.rpn.anchor_generator.cell_anchors.0"] = torch.zeros(3, 4).numpy()
    model = Model({name: torch.zeros_like(tensor) for name, tensor in state.items()})
    report = load_reference(model, theirs)
    assert equal(model.state, state)
    assert report.system == "maskrcnn-benchmark"
    assert report.ignored == ("rpn.anchor_generator.cell_anchors.0",)
    assert report.missing == ()
    assert report.matched["box_head.fc1.weight"] == "roi_heads.box.feature_extractor.fc6.weight"
    assert re.search(r"^region proposals +6 +1 +0$", str(report), flags=re.MULTILINE)
    assert "ignored: rpn.anchor_generator" in str(report)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ({"classes": 5}, r"box_head.cls_score.weight .*is \(4, 2\), the checkpoint's \(6, 2\)"),
        ({"blocks": (3, 4, 23, 3)}, r"102 mismatches.*the model has no backbone.body.layer3.6"),
        ({"blocks": (2, 4, 6, 3)}, "the checkpoint has no backbone.body.layer1.2.conv1.weight"),
        ({"mask": False}, "the checkpoint has no mask_head.convs.0"),
    ],
)
def test_other_architecture(file, message):
    model = Model(our_state())
    with pytest.raises(CheckpointError, match=message):
        load_reference(model, to_reference(our_state(**file), "detectron2"))
    assert equal(model.state, our_state())


def test_another_number_of_classes():
    """Refused, with the option's name; with the option all else is loaded."""
    theirs = to_reference(our_state(classes=80), "maskrcnn-benchmark")
    model = Model(our_state())
    with pytest.raises(ClassCountError, match=r"cls_score.weight .*is \(4, 2\), .* \(81, 2\); drop_class_head leaves"):
        load_reference(model, theirs)
    assert equal(model.state, our_state())
    model = Model({name: torch.full_like(tensor, 7.0) for name, tensor in our_state().items()})
    report = load_reference(model, theirs, drop_class_head=True)
    layers = ("box_head.cls_score", "box_head.bbox_pred", "mask_head.predictor")
    assert set(report.dropped) == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    assert set(report.missing) == set(report.dropped)
    assert "dropped, at random instead: " in str(report)
    for name, tensor in our_state(classes=80).items():
        assert name in report.dropped or torch.equal(model.state[name], tensor)
    assert all((model.state[name] == 7).all() for name in report.dropped)
    with pytest.raises(CheckpointError, match="another architecture"):
        load_reference(
            model, to_reference(our_state(blocks=(3, 4, 23, 3), classes=80), "detectron2"), drop_class_head=True
        )


def test_unknown_names():
    theirs = to_reference(our_state(), "torchvision")
    with pytest.raises(CheckpointError, match=r"torchvision has no roi_heads\.depth_head\.0\.weight"):
        from_reference(theirs | {"roi_heads.depth_head.0.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"no counterpart of neck\.weight"):
        to_reference({"neck.weight": torch.zeros(1)}, "detectron2")
    with pytest.raises(CheckpointError, match=r"its tensors are fc.weight, fc.bias"):
        detect_system(["fc.weight", "fc.bias"])
    with pytest.raises(CheckpointError, match=r"must be one of detectron2, .*, got 'darknet'"):
        from_reference(theirs, "darknet")


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from(["weight", "bias", "running_mean"]))
def test_template_inverts(stage, block, tensor):
    template = Template("res{stage+2}.{block}.norm.{tensor}")
    name = template.write({"stage": stage, "block": block, "tensor": tensor})
    assert name == f"res{stage + 2}.{block}.norm.{tensor}"
    assert template.read(name) == {"stage": stage, "block": block, "tensor": tensor}
    assert template.read(f"{name}.more") is None
    assert template.read(f"x{name}") is None


def test_yolact_names_of_the_original_and_back():
    with torch.device("meta"):
        model = Yolact(YolactPyramid(), yolact_plus_config(3))
    state = {name: value for name, value in model.state_dict().items() if "backbone" not in name}
    theirs = to_reference(state, "yolact")
    assert "prediction_layers.0.conf_layer.weight" in theirs
    back = from_reference(theirs | {"backbone.layer1.0.conv1.weight": torch.zeros(1)})
    assert back.keys() == state.keys()
    assert sorted(theirs) == sorted(to_reference(back, "yolact"))


class YolactPyramid(nn.Identity):
    """What YOLACT asks of a pyramid when it is built."""

    out_channels, strides = 256, (8, 16, 32, 64, 128)
