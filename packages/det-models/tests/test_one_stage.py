"""RetinaNet and FCOS as whole detectors: other systems' files in and out, prediction, export, certificates."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from det_heads import OneStageDetector
from det_models import (
    CheckpointError,
    OptionError,
    build,
    describe,
    fcos_r50_fpn,
    load,
    open_weights,
    retinanet_r50_fpn,
)
from det_models.certificate import compare
from det_models.checkpoints import detect_system, read, to_reference
from det_models.conversion import convert
from det_models.description import read_description
from det_models.exporting.program import Program, exported_program, inputs_of
from testing.foreign_files import theirs, write
from testing.trained import NAMES, random_network, small_model, write_model

LAYOUTS = (
    "detectron2-retinanet",
    "detectron2-fcos",
    "torchvision-retinanet",
    "torchvision-fcos",
    "mmdetection-retinanet",
)
SYSTEMS = ("detectron2", "torchvision", "mmdetection")


def pictures(count: int = 2) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    small = torch.from_numpy(random.integers(0, 256, (count, 3, 6, 9))).float()
    return list(torch.nn.functional.interpolate(small, (48, 72), mode="bilinear").byte().permute(0, 2, 3, 1).numpy())


def foreign(path, layout: str, **metadata):
    """A file as its system writes it."""
    state = random_network(small_model(layout)).state_dict()
    return write(path, layout.split("-")[0], theirs(layout, state), **metadata)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_of_another_system_is_the_same_network(layout, tmp_path):
    model = small_model(layout)
    network = random_network(model)
    state = network.state_dict()
    reference = theirs(layout, state)
    assert detect_system(reference) == layout
    checkpoint = read(reference)
    assert all(torch.equal(tensor, state[name]) for name, tensor in checkpoint.tensors.items() if name in state)
    weights = open_weights(foreign(tmp_path / "weights.pth", layout))
    found = weights.network()
    assert found.detector == model.detector
    assert found.backbone == replace(model.backbone, freeze_at=found.backbone.freeze_at, pyramid_init="caffe2_xavier")
    again = weights.build().state_dict()
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], state[name]) for name in state)


@pytest.mark.parametrize("convs", [1, 2, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_towers_of_any_length_are_recognised(layout, convs):
    model = small_model(layout)
    model = replace(model, detector=replace(model.detector, convs=convs))
    reference = to_reference(build(model).state_dict(), layout)
    assert detect_system(reference) == layout
    assert read(reference).detector.convs == convs


def test_torchvisions_background_is_a_class_that_never_wins():
    state = random_network(small_model("torchvision-retinanet")).state_dict()
    reference = to_reference(state, "torchvision-retinanet")
    bias = reference["head.classification_head.cls_logits.bias"].view(9, 4)
    assert (bias[:, 0] == -1000).all()
    assert torch.equal(bias[:, 1:], state["head.classes.bias"].view(9, 3))


def test_mmdetection_counts_anchors_by_ratio_and_then_by_size():
    state = random_network(small_model("mmdetection-retinanet")).state_dict()
    reference = to_reference(state, "mmdetection-retinanet")
    for size in range(3):
        for ratio in range(3):
            ours = state["head.boxes.weight"].unflatten(0, (9, 4))[3 * size + ratio]
            assert torch.equal(reference["bbox_head.retina_reg.weight"].unflatten(0, (9, 4))[3 * ratio + size], ours)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_prediction_and_the_same_from_our_own_file(layout, tmp_path):
    detector = load(foreign(tmp_path / "theirs.pth", layout), device="cpu", size=(64, 96))
    found = detector.predict(pictures())
    assert all(len(one) > 5 for one in found)
    assert detector.tasks == ("bbox",)
    assert ("FCOS" if "fcos" in layout else "RetinaNet") in repr(detector)
    model = small_model(layout)
    model = replace(model, resize=detector.config.resize, buckets=detector.config.buckets)
    own = load(write_model(tmp_path / "ours.pt", model), device="cpu").predict(pictures())
    for one, other in zip(found, own, strict=True):
        np.testing.assert_array_equal(one.boxes, other.boxes)
        np.testing.assert_array_equal(one.scores, other.scores)


def test_limits(tmp_path):
    path = write_model(tmp_path / "ours.pt", small_model("detectron2-retinanet"))
    assert len(load(path, device="cpu", max_detections=3).predict(pictures()[0])) == 3
    few = load(path, device="cpu", nms_iou=0.1).predict(pictures()[0])
    assert len(few) <= len(load(path, device="cpu", nms_iou=0.9).predict(pictures()[0]))
    with pytest.raises(OptionError, match="at most 5000"):
        load(path, device="cpu", max_detections=6000)
    assert len(load(path, device="cpu").predict(pictures()[0], tta=True)) > 5


def test_a_description_is_read_again():
    for layout in LAYOUTS:
        model = small_model(layout)
        assert read_description(describe(model, NAMES))[0] == model


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["detectron2-retinanet", "torchvision-fcos"])
def test_an_exported_program_detects_the_same(layout):
    model = small_model(layout)
    program = Program(random_network(model), model).eval()
    exported = exported_program(program, (64, 96), "dynamic")
    images, sizes = inputs_of(program, (64, 96), 3)
    with torch.no_grad():
        expected, found = program(images, sizes), exported.module()(images, sizes)
    assert expected["valid"].any()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_conversion(layout, system, tmp_path):
    source = open_weights(foreign(tmp_path / "source.pth", layout))
    if (system == "mmdetection") != (layout == "mmdetection-retinanet"):
        with pytest.raises(CheckpointError, match="whose P7 is made in another way"):
            convert(source, system)
        return
    converted = convert(source, system)
    converted.write(tmp_path / "out.pth")
    network = converted.read_back(tmp_path / "out.pth")
    assert isinstance(network, OneStageDetector)
    images = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    batch = {"images": images, "image_sizes": torch.tensor([[64, 96]])}
    certificate = compare("", converted.network, network, [batch])
    assert certificate.same_layers
    assert {"pyramid", "predictions"} <= certificate.layers.keys()
    if layout.startswith(system):
        assert certificate.lonely == 0
        assert converted.rules() == []


def test_what_a_system_does_not_have_is_said(tmp_path):
    model = small_model("detectron2-retinanet")
    few = replace(model, detector=replace(model.detector, convs=2))
    with pytest.raises(CheckpointError, match="four convolutions, and this one has 2"):
        convert(open_weights(write_model(tmp_path / "few.pt", few)), "torchvision")
    with pytest.raises(CheckpointError, match="whose P7"):
        convert(open_weights(write_model(tmp_path / "relu.pt", model)), "mmdetection")
    normed = replace(model, detector=replace(model.detector, norm="gn", norm_bias=False))
    with pytest.raises(CheckpointError, match="biases beside their norms"):
        convert(open_weights(write_model(tmp_path / "normed.pt", normed)), "detectron2")


def test_categories_with_gaps_become_torchvisions_labels(tmp_path):
    path = write_model(tmp_path / "ours.pt", small_model("torchvision-retinanet"), names={1: "a", 2: "b", 5: "c"})
    converted = convert(open_weights(path), "torchvision")
    assert len(converted.content["head.classification_head.cls_logits.bias"]) == 9 * 6
    converted.write(tmp_path / "theirs.pth")
    again = open_weights(tmp_path / "theirs.pth")
    assert list(again.categories) == [1, 2, 5]
    own = open_weights(path)
    found, expected = (
        weights.predictor(device="cpu").predict(pictures()[0]) for weights in (again.on_images_of(own.network()), own)
    )
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    np.testing.assert_array_equal(found.category_ids, expected.category_ids)


@pytest.mark.parametrize("conventions", ["detectron2", "torchvision", "torchvision_v2", "mmdetection"])
def test_retinanets_by_name(conventions):
    with torch.device("meta"):
        model = retinanet_r50_fpn(5, conventions)
    assert len(model.state_dict()["head.classes.bias"]) == 45


def test_fcos_by_name():
    for conventions in ("detectron2", "torchvision"):
        with torch.device("meta"):
            model = fcos_r50_fpn(5, conventions)
        assert len(model.state_dict()["head.classes.bias"]) == 5
    with pytest.raises(ValueError, match="detectron2, torchvision, got 'mmdetection'"):
        fcos_r50_fpn(conventions="mmdetection")
