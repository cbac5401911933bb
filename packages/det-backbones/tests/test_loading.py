import importlib.util
import os
import pickle
import re
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from det_backbones import CAFFE2_PIXELS, TORCHVISION_PIXELS, WeightsError, load_imagenet_weights, resnet

_spec = importlib.util.spec_from_file_location("python2_pickle", Path(__file__).with_name("python2_pickle.py"))
python2_pickle = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(python2_pickle)


def caffe2_arrays(body, *, statistics=False):
    """What Caffe2 would call the tensors of `body`, classifier and momenta included."""
    arrays = OrderedDict()
    for name, value in body.state_dict().items():
        owner, kind = name.rsplit(".", 1)
        suffix = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"}[kind]
        if match := re.fullmatch(r"(conv|bn)1", owner):
            key = "conv1_w" if match[1] == "conv" else f"res_conv1_bn_{suffix}"
        else:
            stage, block, layer = re.fullmatch(r"layer(\d)\.(\d+)\.(.+)", owner).groups()
            branch = "1" if layer.startswith("downsample") else "2" + "abc"[int(layer[-1]) - 1]
            is_norm = layer.startswith("bn") or layer == "downsample.1"
            key = f"res{int(stage) + 1}_{block}_branch{branch}_" + (f"bn_{suffix}" if is_norm else "w")
        if suffix in ("rm", "riv") and not statistics:
            continue
        arrays[key] = value.numpy().copy()
        arrays[key + "_momentum"] = np.zeros_like(arrays[key])
    arrays["conv1_b"] = np.zeros(len(arrays["conv1_w"]), np.float32)
    arrays["fc1000_w"], arrays["fc1000_b"] = np.ones((10, 5), np.float32), np.ones(10, np.float32)
    return arrays


def write(path, data):
    path.write_bytes(data)
    return path


def state(body):
    return {name: value.clone() for name, value in body.state_dict().items()}


def assert_unchanged(body, before):
    for name, value in body.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.fixture
def small():
    return resnet(50, width=16, stride_in_1x1=True)


@pytest.fixture
def source(randomize):
    return randomize(resnet(50, width=16, stride_in_1x1=True))


WRAPPINGS = {
    "python 2": lambda arrays: python2_pickle.dumps(dict(arrays)),
    "python 2 blobs": lambda arrays: python2_pickle.dumps({"blobs": dict(arrays), "cfg": "MODEL: {}\n"}),
    "python 3 protocol 2": lambda arrays: pickle.dumps(dict(arrays), protocol=2),
    "python 3 protocol 5": lambda arrays: pickle.dumps(arrays, protocol=5),
    "detectron2": lambda arrays: pickle.dumps({"model": arrays, "__author__": "x", "matching_heuristics": True}),
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("eps", [1e-5, 0.0])
def test_caffe2_affine_only(tmp_path, source, wrapping, eps):
    arrays = caffe2_arrays(source)
    # The name says nothing: content decides.
    path = write(tmp_path / "weights.pth", WRAPPINGS[wrapping](arrays))
    body = resnet(50, width=16, stride_in_1x1=True, norm_eps=eps)
    report = load_imagenet_weights(body, path)
    for name, value in body.state_dict().items():
        if name.endswith(("weight", "bias")):
            assert torch.equal(value, source.state_dict()[name]), name
    for module in body.modules():
        if hasattr(module, "running_var"):
            assert torch.equal((module.running_var + module.eps).rsqrt(), torch.ones_like(module.running_var))
            assert not module.running_mean.any()
    assert report.format == "caffe2"
    assert report.pixels == CAFFE2_PIXELS
    assert report.stride_in_1x1 is True
    assert set(report.ignored) == {"conv1_b", "fc1000_w", "fc1000_b"}
    assert len(report.missing) == 2 * 53
    assert set(report.matched) | set(report.missing) == set(body.state_dict())


def test_caffe2_with_statistics(tmp_path, source, small):
    path = write(tmp_path / "x", python2_pickle.dumps(dict(caffe2_arrays(source, statistics=True))))
    assert load_imagenet_weights(small, path).missing == ()
    assert_unchanged(small, state(source))


def test_caffe2_big_endian_and_float64_arrays(tmp_path, source, small):
    arrays = {key: value.astype(">f8") for key, value in caffe2_arrays(source).items()}
    load_imagenet_weights(small, write(tmp_path / "x", pickle.dumps(arrays)))
    assert torch.equal(small.conv1.weight, source.conv1.weight)


def test_caffe2_basic_blocks(tmp_path, randomize):
    source, body = randomize(resnet(18, width=16)), resnet(18, width=16)
    load_imagenet_weights(body, write(tmp_path / "x", python2_pickle.dumps(dict(caffe2_arrays(source)))))
    assert torch.equal(body.layer4[1].conv2.weight, source.layer4[1].conv2.weight)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("form", ["zip", "legacy", "state_dict", "data parallel"])
def test_torchvision(tmp_path, randomize, name, form):
    peer = randomize(torchvision.models.get_model(name)).eval()
    content = peer.state_dict()
    if form == "state_dict":
        content = {"state_dict": content, "epoch": 3}
    if form == "data parallel":
        content = {"module." + key: value for key, value in content.items()}
    path = tmp_path / "R-50.pkl"
    torch.save(content, path, _use_new_zipfile_serialization=form != "legacy")
    body = resnet(int(name[6:]))
    report = load_imagenet_weights(body, path)
    for key, value in body.state_dict().items():
        assert torch.equal(value, peer.state_dict()[key])
    assert report.format == "torchvision"
    assert report.pixels == TORCHVISION_PIXELS
    assert report.missing == ()
    assert {key.removeprefix("module.") for key in report.ignored} >= {"fc.weight", "fc.bias"}


def detectron2_name(name):
    name = re.sub(r"^(conv1|bn1)\.", r"stem.\1.", name)
    name = re.sub(r"layer(\d)", lambda m: f"res{int(m[1]) + 1}", name)
    name = re.sub(r"bn(\d)", r"conv\1.norm", name)
    return name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")


@pytest.mark.parametrize("prefix", ["", "backbone.bottom_up."])
def test_detectron2_names(tmp_path, source, small, prefix):
    arrays = {prefix + detectron2_name(name): value.numpy() for name, value in source.state_dict().items()}
    arrays["proposal_generator.rpn_head.conv.weight"] = np.zeros((1, 1), np.float32)
    report = load_imagenet_weights(small, write(tmp_path / "x", pickle.dumps({"model": arrays})))
    assert report.format == "detectron2"
    assert_unchanged(small, state(source))
    assert report.ignored == ("proposal_generator.rpn_head.conv.weight",)


def test_live_batch_norm_body(tmp_path, source):
    body = resnet(50, width=16, norm="bn", freeze_at=0).double()
    load_imagenet_weights(body, write(tmp_path / "x", pickle.dumps(dict(caffe2_arrays(source)))))
    assert body.conv1.weight.dtype == torch.float64
    assert torch.equal(body.layer4[0].bn1.running_var, torch.full((128,), 1 - 1e-5, dtype=torch.float64))


def expect_error(body, path, *fragments):
    before = state(body)
    with pytest.raises(WeightsError) as caught:
        load_imagenet_weights(body, path)
    assert_unchanged(body, before)
    for fragment in fragments:
        assert fragment in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_depth_names_first_mismatches(tmp_path, source):
    path = write(tmp_path / "x", pickle.dumps(dict(caffe2_arrays(source))))
    expect_error(
        resnet(101, width=16), path, "ResNet-50 of width 16", "ResNet-101", "more differ",
        "layer3.6.conv1.weight is absent in the file and 64x256x1x1 in the network",
    )  # fmt: skip
    expect_error(
        resnet(18, width=16), path, "layer1.0.conv1.weight is 16x16x1x1 in the file and 16x16x3x3 in the network"
    )
    expect_error(
        resnet(50, width=32), path, "of width 16", "of width 32", "conv1.weight is 16x3x7x7 in the file and 32x3x7x7"
    )


def test_shallower_network_than_the_file(tmp_path, randomize, small):
    deeper = resnet(101, width=16)
    path = write(tmp_path / "x", pickle.dumps(dict(caffe2_arrays(deeper))))
    expect_error(small, path, "ResNet-101", "layer3.6.conv1.weight is 64x256x1x1 in the file and absent in the network")


def test_group_normalised_network(tmp_path, source):
    group = resnet(50, width=16, norm="gn")
    torch.save(source.state_dict(), tmp_path / "x")
    expect_error(group, tmp_path / "x", "one with batch normalisation, while this one has group normalisation")
    arrays = caffe2_arrays(source)
    expect_error(group, write(tmp_path / "y", pickle.dumps(arrays)), "one with batch normalisation")
    arrays = {name.replace("_bn_", "_gn_").replace("res_conv1", "conv1"): value for name, value in arrays.items()}
    path = write(tmp_path / "z", pickle.dumps(arrays))
    expect_error(source, path, "one with group normalisation, while this one has batch normalisation")
    report = load_imagenet_weights(group, path)
    assert report.missing == ()
    assert torch.equal(group.layer4[2].bn3.weight, source.layer4[2].bn3.weight)


def test_not_finite(tmp_path, source, small):
    arrays = caffe2_arrays(source)
    arrays["res3_1_branch2b_w"][0, 0, 0, 0] = np.nan
    expect_error(small, write(tmp_path / "x", pickle.dumps(dict(arrays))), "not finite", "res3_1_branch2b_w")


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_truncated(tmp_path, source, small, kept):
    data = python2_pickle.dumps(dict(caffe2_arrays(source)))
    expect_error(small, write(tmp_path / "x", data[: int(len(data) * kept)]), "truncated or damaged", str(tmp_path))
    for zipped in (True, False):
        torch.save(source.state_dict(), tmp_path / "y", _use_new_zipfile_serialization=zipped)
        data = (tmp_path / "y").read_bytes()
        expect_error(small, write(tmp_path / "y", data[: int(len(data) * kept)]), "truncated or damaged")


def test_damaged_bytes_never_escape(tmp_path, small):
    data = python2_pickle.dumps({"conv1_w": np.zeros((2, 3), np.float32), "conv1_b": np.zeros(2, np.float32)})
    generator = np.random.default_rng(0)
    for _ in range(400):
        broken = bytearray(data)
        for position in generator.integers(2, len(data), 3):
            broken[position] = generator.integers(256)
        with pytest.raises(WeightsError):
            load_imagenet_weights(small, write(tmp_path / "x", bytes(broken)))


@pytest.mark.parametrize(
    ("data", "fragment"),
    [
        (b"", "is empty"),
        (b"<html><body>403 Forbidden</body></html>", "is not a weights file: it starts with b'<html>"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer of Git LFS"),
        (pickle.dumps({"lr": 0.1}), "holds no weights"),
        (pickle.dumps([np.zeros(3)]), "holds no weights"),
        (pickle.dumps({"features.0.weight": np.zeros(3)}), "is not the weights of a backbone"),
    ],
)
def test_other_content(tmp_path, small, data, fragment):
    expect_error(small, write(tmp_path / "R-50.pkl", data), fragment, "R-50.pkl")


def test_missing_file(tmp_path, small):
    expect_error(small, tmp_path / "gone.pkl", "gone.pkl cannot be read (No such file or directory)")
    expect_error(small, tmp_path, "cannot be read (Is a directory)")


class Runs:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "writer",
    [pickle.dumps, lambda value: pickle.dumps(value, protocol=2), lambda value: pickle.dumps(value, protocol=0)],
)
def test_code_in_pickles_does_not_run(tmp_path, small, writer):
    target = tmp_path / "ran"
    path = write(tmp_path / "x", writer({"conv1_w": Runs(os.mkdir, str(target))}))
    expect_error(small, path, "mkdir", "was not loaded")
    path = write(tmp_path / "x", writer({"conv1_w": Runs(eval, "1")}))
    expect_error(small, path, "eval", "was not loaded")
    assert not target.exists()


def test_code_in_torch_files_does_not_run(tmp_path, small):
    target = tmp_path / "ran"
    for zipped in (True, False):
        torch.save({"conv1.weight": Runs(os.mkdir, str(target))}, tmp_path / "x", _use_new_zipfile_serialization=zipped)
        expect_error(small, tmp_path / "x", "mkdir", "was not loaded")
    assert not target.exists()
