"""Exported files find what their checkpoint finds, say what they are, and run where they are for."""

import json
import pickle
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from det_models import CheckpointError, OptionError, build, export, load, open_weights
from det_models.certificate import Certificate, pair_up
from det_models.exported.fitting import FittingResize
from det_models.exported.runtimes import open_runtime
from det_models.exporting import DTYPES, _fed
from det_models.exporting.certifying import _with_extent, certify, passes
from det_models.exporting.half import HALVED, halve
from det_models.exporting.int8 import Trial, _search, overlap, parts_of, quantize
from det_models.exporting.openvino import write_openvino
from det_models.exporting.program import Program
from det_models.exporting.settings import Settings, sees_padding, shapes_of
from det_models.exporting.torch_archives import write_pt2
from det_models.inference import optimize_for_inference
from det_ops import paste_masks
from testing.comparing import assert_same
from testing.trained import random_network, small_model, write_model, write_trained

FAMILIES = {
    "faster_rcnn": {"mask": False},
    "mask_rcnn": {},
    "cascade_rcnn": {"mask": False, "cascade": True},
    "cascade_mask_rcnn": {"cascade": True},
    "retinanet": {"system": "detectron2-retinanet"},
    "fcos": {"system": "torchvision-fcos"},
    "yolact": {"system": "yolact"},
    "yolact++": {"system": "yolact++"},
}
FORBIDDEN = {"NonZero", "Loop", "If", "Scan", "NonMaxSuppression"}


def pictures(count=3):
    random = np.random.default_rng(0)
    noise = [Image.fromarray(random.integers(0, 256, (6, 9, 3), dtype=np.uint8)) for _ in range(count)]
    return [
        np.asarray(one.resize(size)) for one, size in zip(noise, [(144, 96), (96, 144), (120, 100)] * 9, strict=False)
    ]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_trained(tmp_path_factory.mktemp("checkpoint") / "mask_rcnn.pt")


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory, checkpoint):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    return export(checkpoint, tmp_path_factory.mktemp("onnx") / "mask_rcnn.onnx")[0]


@pytest.fixture(scope="module")
def pt2_file(tmp_path_factory, checkpoint):
    return export(checkpoint, tmp_path_factory.mktemp("pt2") / "mask_rcnn.pt2", "pt2")[0]


@pytest.fixture(scope="module")
def openvino_file(tmp_path_factory, checkpoint):
    pytest.importorskip("onnxscript")
    pytest.importorskip("openvino")
    return export(checkpoint, tmp_path_factory.mktemp("openvino") / "mask_rcnn.xml", "openvino")[0]


@pytest.fixture(scope="module")
def aoti_file(tmp_path_factory, checkpoint):
    return export(checkpoint, tmp_path_factory.mktemp("aoti") / "mask_rcnn.pt2", "aoti", batch=1)[0]


@pytest.fixture(scope="module")
def executorch_file(tmp_path_factory, checkpoint):
    pytest.importorskip("executorch")
    return export(checkpoint, tmp_path_factory.mktemp("executorch") / "mask_rcnn.pte", "executorch")[0]


def assert_passes(checkpoint, file, precision="fp32"):
    certificate = certify(open_weights(checkpoint), open_weights(file).predictor(), pictures())
    assert certificate.counts[0] > 10
    passed, verdict = passes(certificate, precision)
    assert passed, f"{certificate}\n{verdict}"
    return certificate


def assert_any_batch(checkpoint, file):
    """The same detections of one, two and five images at once."""
    network, exported = open_weights(checkpoint).build(), open_weights(file).predictor()
    height, width = exported.config.buckets[0]
    for count in (1, 2, 5):
        spots = torch.randint(0, 256, (count, 3, 6, 9)).float()  # in plain noise a random network finds near equals
        images = F.interpolate(spots, (height, width), mode="bilinear").round().to(exported.config.resize.dtype)
        batch = {"images": images, "image_sizes": torch.tensor([[height, width]] * count, dtype=torch.int32)}
        with torch.no_grad():
            expected = network(batch)
        found = exported.forward(batch).detections
        assert found.keys() == expected.keys()
        certificate = Certificate(f"{count} images")
        pair_up(certificate, _with_extent(expected), _with_extent(found))
        assert min(certificate.counts) > 0
        passed, verdict = passes(certificate, "fp32")
        assert passed, f"{certificate}\n{verdict}"


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "mask_rcnn"])
def test_every_family_in_onnx(tmp_path, name):
    pytest.importorskip("onnxruntime")
    model = small_model(**FAMILIES[name])
    checkpoint = write_model(tmp_path / "weights.pt", model)
    file = export(checkpoint, tmp_path / "detector.onnx")[0]
    assert_any_batch(checkpoint, file)
    assert_passes(checkpoint, file)


def test_onnx_of_any_batch(checkpoint, onnx_file):
    assert_any_batch(checkpoint, onnx_file)
    certificate = assert_passes(checkpoint, onnx_file)
    assert certificate.detections["boxes"].absolute < 0.01


def test_onnx_is_of_the_standard_domain_alone(onnx_file):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(onnx_file)
    onnx.checker.check_model(model, full_check=True)
    assert not {node.op_type for node in model.graph.node} & FORBIDDEN
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions


def test_a_file_says_what_it_is(onnx_file):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
    inside = json.loads(session.get_modelmeta().custom_metadata_map["det"])
    card = json.loads(onnx_file.with_name("mask_rcnn.onnx.json").read_text())
    beside = {name: card[name] for name in ("files", "sha256")}
    assert {**inside, **beside} == card
    assert [entry["name"] for entry in card["categories"]] == ["disc", "square", "triangle"]
    assert list(card["outputs"]) == [one.name for one in session.get_outputs()]
    assert card["inputs"]["images"]["shape"] == ["B", 3, 96, 96]
    assert card["outputs"]["masks"]["shape"] == ["B", 100, 28, 28]
    assert (card["max_detections"], card["nms_iou"], card["score_threshold"]) == (100, 0.5, 0.05)


@pytest.mark.parametrize(
    "runtime",
    ["onnx", "openvino", "pt2", *(pytest.param(name, marks=pytest.mark.slow) for name in ("aoti", "executorch"))],
)
def test_its_example_runs(runtime, request, tmp_path):
    file = request.getfixturevalue(f"{runtime}_file")
    picture = pictures()[0]
    np.save(tmp_path / "picture.npy", picture)
    command = [sys.executable, f"{file}.py", str(tmp_path / "picture.npy"), "0.4"]
    done = subprocess.run(command, cwd=file.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [re.fullmatch(r"(\w+) (0\.\d+) \[(.*)\]", line).groups() for line in done.stdout.splitlines()]
    found = load(file).predict(picture, min_score=0.4)
    assert len(rows) >= len(found) > 0  # it leaves out what has no extent
    best = [float(number) for number in rows[0][2].split(",")]
    assert rows[0][0] == found.names[0]
    assert best == pytest.approx(found.boxes[0].tolist(), abs=2)  # Pillow resizes with antialiasing


def test_an_exported_file_predicts_like_its_checkpoint(checkpoint, onnx_file):
    exported = load(onnx_file)
    shape = exported.shape
    plain = load(checkpoint)
    plain.shape = shape  # the padding of the file
    for picture in pictures():
        mine, theirs = plain.predict(picture), exported.predict(picture)
        np.testing.assert_allclose(theirs.boxes, mine.boxes, atol=0.02)
        np.testing.assert_array_equal(theirs.category_ids, mine.category_ids)
        assert np.mean(theirs.masks != mine.masks) < 1e-3
    assert "Mask R-CNN" in repr(exported)
    assert exported.tasks == ("bbox", "segm")


def test_several_threads_and_a_pickle(onnx_file):
    exported = load(onnx_file)
    expected = [exported.predict(picture).boxes for picture in pictures()]
    with ThreadPoolExecutor(4) as pool:
        for found, boxes in zip(pool.map(exported.predict, pictures()), expected, strict=True):
            np.testing.assert_array_equal(found.boxes, boxes)
    again = pickle.loads(pickle.dumps(exported))
    np.testing.assert_array_equal(again.predict(pictures()[0]).boxes, expected[0])


def test_openvino(checkpoint, openvino_file):
    assert_any_batch(checkpoint, openvino_file)
    assert_passes(checkpoint, openvino_file)
    card = json.loads(openvino_file.with_name("mask_rcnn.xml.json").read_text())
    with pytest.raises(CheckpointError, match="runs on the CPU alone"):
        open_runtime(openvino_file, card, torch.device("cuda"))


def test_fp16(checkpoint, onnx_file, openvino_file, tmp_path):
    onnx_ir = pytest.importorskip("onnx_ir")
    model = onnx_ir.load(onnx_file)
    halve(model)
    halved = [node for node in model.graph if node.op_type in HALVED]
    kinds = {value.dtype for node in halved for value in (*node.inputs, *node.outputs) if value is not None}
    assert len(halved) > 20
    assert kinds == {onnx_ir.DataType.FLOAT16}
    card = json.loads(model.metadata_props["det"]) | {"precision": "fp16"}
    model.metadata_props["det"] = json.dumps(card)
    onnx_ir.save(model, tmp_path / "half.onnx")
    pytest.importorskip("onnx").checker.check_model(tmp_path / "half.onnx", full_check=True)
    assert_passes(checkpoint, tmp_path / "half.onnx", "fp16")
    assert (tmp_path / "half.onnx").stat().st_size < onnx_file.stat().st_size - 400_000
    write_openvino(tmp_path / "half.onnx", tmp_path / "half.xml", metadata=card | {"to": "openvino"})
    assert_passes(checkpoint, tmp_path / "half.xml", "fp16")
    small, large = (file.with_suffix(".bin").stat().st_size for file in (tmp_path / "half.xml", openvino_file))
    assert small < 0.65 * large


def test_big_pictures_in_tiles(checkpoint, onnx_file):
    exported, plain = load(onnx_file), load(checkpoint)
    plain.shape = exported.shape  # the padding of the file
    picture = np.asarray(Image.fromarray(pictures()[0]).resize((300, 200)))
    one, other = (detector.predict(picture, tile=128, overlap=0.25) for detector in (plain, exported))
    assert len(one) > len(plain.predict(picture)) // 2 > 10
    np.testing.assert_allclose(other.boxes, one.boxes, atol=0.05)
    np.testing.assert_array_equal(other.labels, one.labels)
    assert np.mean(other.masks != one.masks) < 1e-3
    with pytest.raises(OptionError, match="was exported for its own sizes of images; leave out tta"):
        exported.predict(picture, tta=True)


def test_pt2_of_any_batch(checkpoint, pt2_file):
    assert_any_batch(checkpoint, pt2_file)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_pt2_in_half_precision(checkpoint, pt2_file, tmp_path, precision):
    """Its numbers are those of the network under autocast, which are others than in float32."""
    file = export(checkpoint, tmp_path / "half.pt2", "pt2", batch=1, precision=precision)[0]
    network = optimize_for_inference(open_weights(checkpoint).build(), torch.device("cpu"))
    half, full = (open_weights(one).predictor() for one in (file, pt2_file))
    height, width = half.config.buckets[0]
    spots = torch.randint(0, 256, (1, 3, 6, 9)).float()
    images = F.interpolate(spots, (height, width), mode="bilinear").round().to(torch.uint8)
    batch = {"images": images, "image_sizes": torch.tensor([[height, width]], dtype=torch.int32)}
    with torch.inference_mode(), torch.autocast("cpu", dtype=DTYPES[precision]):
        expected = network(batch)
    found = half.forward(batch).detections
    assert found["valid"].sum() > 10
    assert found["boxes"].dtype == torch.float32
    torch.testing.assert_close(found["boxes"], expected["boxes"], rtol=0, atol=0)
    torch.testing.assert_close(found["scores"], expected["scores"], rtol=0, atol=0)
    assert not torch.equal(found["scores"], full.forward(batch).detections["scores"])


def test_masks_and_preprocessing(checkpoint, tmp_path):
    weights = open_weights(checkpoint)
    network, model = weights.build(), weights.network()
    images = torch.randint(0, 256, (1, 3, 96, 96), dtype=torch.uint8)
    sizes = torch.tensor([[96, 96]], dtype=torch.int32)
    with torch.no_grad():
        plain = Program(network, model)(images, sizes)
        normalised = network.normalize({"images": images, "image_sizes": sizes})
        assert_same(Program(network, model, preprocessing="out")(normalised, sizes), plain)
        full = Program(network, model, masks="full")(images, sizes)["masks"]
        assert "masks" not in Program(network, model, masks="none")(images, sizes)
    pasted = paste_masks(plain["masks"][0], plain["boxes"][0], 96, 96)
    assert torch.equal(full[0], pasted & plain["valid"][0, :, None, None])
    file = export(weights, tmp_path / "full.pt2", "pt2", masks="full", preprocessing="out")[0]
    mine, theirs = load(checkpoint), load(file)
    mine.shape = theirs.shape
    one, other = (detector.predict(pictures()[0]) for detector in (mine, theirs))
    np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-3)
    assert one.masks.shape == other.masks.shape
    assert np.mean(one.masks == other.masks) > 0.8  # which noise draws pixel by pixel, and one of them in larger ones


def test_inclusive_boxes_end_outside(tmp_path):
    model = small_model("maskrcnn-benchmark")
    checkpoint = write_model(tmp_path / "weights.pt", model)
    file = export(checkpoint, tmp_path / "detector.pt2", "pt2")[0]
    mine, theirs = load(checkpoint), load(file)
    mine.shape = theirs.shape
    one, other = (detector.predict(pictures()[0]) for detector in (mine, theirs))
    np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-3)
    assert one.rle == other.rle


@pytest.mark.slow
def test_aoti(checkpoint, aoti_file):
    assert_passes(checkpoint, aoti_file)


@pytest.mark.slow
def test_executorch(checkpoint, executorch_file):
    certificate = assert_passes(checkpoint, executorch_file)
    assert certificate.detections["boxes"].absolute < 0.01
    content = executorch_file.read_bytes()
    assert b"XnnpackBackend" in content
    card = json.loads(executorch_file.with_name("mask_rcnn.pte.json").read_text())
    assert card["inputs"]["images"]["shape"] == [1, 3, 96, 96]
    with pytest.raises(CheckpointError, match="runs on the CPU alone"):
        open_runtime(executorch_file, card, torch.device("cuda"))


@pytest.mark.slow
def test_ascend(tmp_path):
    onnx = pytest.importorskip("onnx")
    from det_models.exporting.ascend import OPERATORS

    checkpoint = write_model(tmp_path / "weights.pt", small_model(mask=False))
    file, *_ = written = export(checkpoint, tmp_path / "detector.onnx", batch=1, ascend=True)
    model = onnx.shape_inference.infer_shapes(onnx.load(file))
    assert {node.op_type for node in model.graph.node} <= OPERATORS
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    wide = [
        node.op_type
        for node in model.graph.node
        if node.op_type in ("Add", "Sub", "Mul", "Div", "Mod", "Where")
        and types.get(node.output[0]) == onnx.TensorProto.INT64
    ]
    assert not wide
    assert_passes(checkpoint, file)
    assert "images:1,3,96,96" in next(one for one in written if one.name == "detector.atc.sh").read_text()


def test_int8(checkpoint, onnx_file, tmp_path, monkeypatch):
    parts = parts_of(onnx_file)
    assert {"backbone.body.layer1", "backbone.fpn", "rpn", "box_head", "mask_head"} <= parts.keys()
    two = {name: parts[name] for name in ("backbone.fpn", "rpn")}  # a random network never finds enough
    monkeypatch.setattr("det_models.exporting.int8.parts_of", lambda _: two)
    monkeypatch.setattr("det_models.exporting.int8.MOST_LEFT", 1)
    shape = (1, 3, 96, 96)
    random = np.random.default_rng(0)
    feeds = [
        {"images": random.integers(0, 256, shape, dtype=np.uint8), "image_sizes": np.array([[96, 96]], np.int32)}
        for _ in range(2)
    ]
    told = []
    trials = quantize(onnx_file, tmp_path / "int8.onnx", feeds, told.append)
    assert told[0].endswith("overlap with the objects in float32, with nothing in float.")
    assert [line.rsplit("with ", 1)[1] for line in told[1:3]] == [f"{name} alone in 8 bits." for name in two]
    assert sorted(told) == sorted(f"int8: {trial}." for trial in trials)
    whole = [trial for trial in trials if not trial.alone]
    assert trials[-1].overlap == max(trial.overlap for trial in whole)
    assert [trial.alone for trial in trials if trial.alone] == [*two]
    onnx = pytest.importorskip("onnx")
    kinds = [node.op_type for node in onnx.load(tmp_path / "int8.onnx").graph.node]
    assert kinds.count("DequantizeLinear") > 2
    assert load(tmp_path / "int8.onnx").predict(pictures()[0]).boxes.shape[1] == 4


def test_the_search_leaves_what_hurts_most_in_float():
    harm = {"stem": 0.01, "rpn": 0.2, "head": 0.15}

    def trial(left, alone=""):
        return Trial(left, 1 - sum(value for name, value in harm.items() if name not in left), alone)

    trials = _search(trial, tuple(harm))
    assert trials[-1].left == ("rpn", "head")
    assert trials[-1].overlap == pytest.approx(0.99)
    assert [one.alone for one in trials[:3]] == ["stem", "rpn", "head"]
    assert [one.left for one in trials[3:]] == [(), ("rpn",), ("rpn", "head")]
    harm = {"stem": 0.01, "rpn": 0.02}
    assert [one.left for one in _search(trial, tuple(harm))] == [()]


def test_the_search_writes_the_best_that_it_has_seen():
    """Noise of one part may hide that of another."""
    overlaps = {(): 0.8, ("a",): 0.7, ("a", "b"): 0.6, ("b",): 0.5}
    trials = _search(lambda left, alone="": Trial(left, overlaps[left], alone), ("b", "a"))
    assert trials[-1] == trials[2] == Trial((), 0.8)


def test_overlap():
    mask = torch.zeros(4, 4)
    mask[:, :2] = 1
    one = {
        "boxes": torch.tensor([[[0.0, 0, 10, 10], [20, 20, 30, 30], [0, 0, 10, 10]]]),
        "scores": torch.tensor([[0.9, 0.8, 0.1]]),
        "labels": torch.tensor([[0, 1, 1]]),
        "valid": torch.tensor([[True, True, True]]),
        "masks": mask.expand(1, 3, 4, 4),
    }
    assert overlap([one], [one]) == 1
    half = {**one, "boxes": torch.tensor([[[0.0, 0, 10, 5], [20, 20, 30, 30], [0, 0, 10, 10]]])}
    assert overlap([one], [half]) == overlap([half], [one]) == pytest.approx(0.75)
    assert overlap([one], [{**half, "masks": half["masks"].flip(-1)}]) == 0
    assert overlap([one], [{**one, "labels": torch.tensor([[2, 1, 1]])}]) == pytest.approx(0.5)
    none = {**one, "valid": torch.zeros(1, 3, dtype=torch.bool)}
    assert overlap([one], [none]) == overlap([none], [one]) == 0
    assert overlap([none], [none]) == 1


def test_a_larger_picture_is_made_to_fit():
    resize = FittingResize.of(small_model().resize, ((64, 96),))
    assert resize.output_size(64, 96) == (64, 96)
    assert resize.output_size(96, 64) == (64, 42)
    both = FittingResize.of(small_model().resize, ((64, 96), (96, 64)))
    assert both.output_size(96, 64) == (96, 64)


def test_a_network_that_sees_its_padding_is_exported_in_every_shape(tmp_path):
    model = small_model("torchvision-fcos")
    checkpoint = write_model(tmp_path / "fcos.pt", model)
    written = export(checkpoint, tmp_path / "two.pt2", "pt2")
    assert [file.name for file in written] == ["two-64x96.pt2", "two-96x64.pt2", "two.pt2.py", "two.pt2.json"]
    found = load(tmp_path / "two.pt2")  # the name that was asked for
    assert tuple(found.files) == model.buckets
    assert_passes(checkpoint, tmp_path / "two.pt2")
    random = np.random.default_rng(0)
    for shape in model.buckets:
        picture = random.integers(0, 256, (*shape, 3), dtype=np.uint8)  # as large as the input: nothing resizes it
        np.save(tmp_path / "picture.npy", picture)
        command = [sys.executable, "two.pt2.py", "picture.npy", "0.01"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        best = found.predict(picture, min_score=0.01)
        name, _, corners = re.fullmatch(r"(\w+) (0\.\d+) \[(.*)\]", done.stdout.splitlines()[0]).groups()
        assert name == best.names[0]
        assert [float(corner) for corner in corners.split(",")] == pytest.approx(best.boxes[0].tolist(), abs=0.1)


def test_what_sees_its_padding():
    assert sees_padding(build(small_model("torchvision-fcos")))
    assert not sees_padding(build(small_model()))
    with_norm = small_model()
    assert sees_padding(build(replace(with_norm, backbone=replace(with_norm.backbone, norm="gn"))))


def test_pictures_calibrate_the_file_that_they_are_for():
    model = small_model()
    program = Program(build(model).eval(), model)
    wide, high, _ = pictures()
    fed = _fed(program, model, Settings(), model.buckets, [wide, high, wide])
    assert {shape: [feed["images"].shape for feed in feeds] for shape, feeds in fed.items()} == {
        (64, 96): [(1, 3, 64, 96)] * 2,
        (96, 64): [(1, 3, 96, 64)],
    }
    alone = _fed(program, model, Settings(), model.buckets, [wide])
    assert [feed["images"].shape for feed in alone[96, 64]] == [(1, 3, 96, 64)]
    assert alone[96, 64][0]["image_sizes"].tolist() == [[42, 64]]


def test_shapes():
    model = small_model()
    assert shapes_of(model) == ((96, 96),)
    assert shapes_of(model, buckets=True) == model.buckets == ((64, 96), (96, 64))
    assert shapes_of(model, (64, 128)) == ((64, 128),)
    for size in ((60, 64), (0, 64)):
        with pytest.raises(OptionError, match="size must be"):
            shapes_of(model, size)
    with pytest.raises(OptionError, match="size must be 64 and 64"):
        shapes_of(small_model("yolact"), (96, 96))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"to": "tflite"}, "to must be one of onnx, openvino, pt2, aoti, executorch"),
        ({"to": "executorch"}, "batch must be a number for executorch"),
        ({"to": "executorch", "batch": 1, "precision": "fp16"}, "fp32 for executorch"),
        ({"precision": "bf16"}, "fp32, fp16, int8 for onnx"),
        ({"to": "pt2", "precision": "int8"}, "fp32, fp16, bf16 for pt2"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"ascend": True}, "batch must be a number"),
        ({"ascend": True, "batch": 1, "to": "pt2"}, "reads onnx"),
        ({"masks": "14"}, "masks must be one of"),
    ],
)
def test_what_cannot_be_had_is_refused(values, words):
    with pytest.raises(OptionError, match=re.escape(words)):
        Settings(**values)


def test_what_was_settled_is_refused(onnx_file, pt2_file, tmp_path):
    for name, value in (("size", 64), ("nms_iou", 0.3), ("precision", "bf16")):
        with pytest.raises(OptionError, match=f"{name} is settled"):
            load(onnx_file, **{name: value})
    with pytest.raises(OptionError, match="max_detections must be at most 100"):
        load(onnx_file, max_detections=101)
    with pytest.raises(OptionError, match="features cannot be had"):
        load(onnx_file).predict(pictures()[0], features=True)
    assert len(load(onnx_file, max_detections=3, classes=["disc"]).predict(pictures()[0])) <= 3
    with pytest.raises(CheckpointError, match="can only be run"):
        open_weights(pt2_file).report()
    (tmp_path / "broken.onnx").write_bytes(onnx_file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(tmp_path / "broken.onnx")
    with pytest.raises(OptionError, match=re.escape("must end with .xml")):
        export(open_weights(pt2_file), tmp_path / "a.onnx", "openvino")


def test_other_weights_do_not_pass(onnx_file, tmp_path):
    torch.manual_seed(7)
    model = small_model()
    network = random_network(model)
    with torch.no_grad():
        network.boxes.bbox_pred.bias.add_(0.5)
    other = write_model(tmp_path / "other.pt", model, network)
    certificate = certify(open_weights(other), open_weights(onnx_file).predictor(), pictures())
    assert passes(certificate, "fp32") == (False, "FAILED: other detections.")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_does_not_end_the_process():
    """torch's own writer of archives does, where it writes the file itself."""
    program = torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),))
    with pytest.raises(OSError, match="No space left on device"):
        write_pt2(program, Path("/dev/full"), metadata={})


@pytest.mark.parametrize("name", ["onnx_file", "openvino_file", "pt2_file"])
def test_a_flipped_bit_is_noticed(name, request, tmp_path):
    file = request.getfixturevalue(name)
    for part in file.parent.iterdir():
        shutil.copy(part, tmp_path)
    card = tmp_path / f"{file.name}.json"
    for damaged in [tmp_path / part for part in json.loads(card.read_text())["sha256"]]:
        content = damaged.read_bytes()
        flipped = bytearray(content)
        flipped[len(flipped) // 2] ^= 1
        damaged.write_bytes(flipped)
        for named in (card, tmp_path / file.name):
            with pytest.raises(CheckpointError, match=rf"{damaged.name} is damaged, or was changed"):
                open_weights(named)
        damaged.write_bytes(content)
    assert open_weights(card).network() == open_weights(tmp_path / file.name).network()


def test_a_flipped_bit_in_an_archive_without_its_card_is_noticed(pt2_file, tmp_path):
    content = bytearray(pt2_file.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "x.pt2").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.pt2 cannot be read: .* does not match its checksum"):
        open_weights(tmp_path / "x.pt2")


@pytest.mark.parametrize(
    "change",
    [
        {"version": "x"}, {"files": [[1]]}, {"files": 5}, {"files": [[96, 96, "../x.onnx"]]}, {"to": "paper"},
        {"to": []}, {"outputs": 5}, {"masks": 3}, {"batch": "x"}, {"det": 3}, {"sha256": [1]},
    ],
)  # fmt: skip
def test_a_card_that_was_damaged_is_one_message(pt2_file, tmp_path, change):
    card = json.loads(pt2_file.with_name(f"{pt2_file.name}.json").read_text())
    shutil.copy(pt2_file, tmp_path)
    path = tmp_path / "card.json"
    path.write_text(json.dumps(card | change))
    if "sha256" in change:
        assert open_weights(path).network()
        return
    with pytest.raises(CheckpointError, match=r"card\.json(:| is damaged)"):
        open_weights(path)
    path.write_text("{")
    with pytest.raises(CheckpointError, match=r"card\.json is damaged, .* Name the exported file itself"):
        open_weights(path)
