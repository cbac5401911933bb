"""The command `convert`: files of other systems written, certified, and read again; nothing is lost on the way."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from apps.common.weights import describe
from det_backbones import TORCHVISION_PIXELS, PixelConfig
from det_engine import checkpoint
from det_models import DetectorConfig, build, open_weights
from det_models.checkpoints import to_checkpoint
from det_models.torchvision_peer import TorchvisionOutputs, torchvision_network
from testing.command_line import APPS, call
from testing.comparing import assert_same
from testing.trained import small_model
from tests.parity.reference import reference
from tests.parity.systems import DETECTRON2_CASCADE, MMDETECTION_CASCADE, Case


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "noise.png"
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((160, 120)).save(path)
    return path


def run_of(
    path: Path,
    app: str = "mask_rcnn",
    ids: tuple[int, ...] = (1, 2, 3),
    width: int = 8,
    pixels: PixelConfig = TORCHVISION_PIXELS,
) -> Path:
    """A checkpoint as a run leaves it, of a small network with random weights."""
    recipe = APPS[app].recipes["tiny"]()
    small = replace(recipe.backbone, width=width, pyramid_channels=16)
    recipe = replace(recipe, backbone=small, detector=replace(recipe.detector, num_classes=len(ids), pixels=pixels))
    torch.manual_seed(0)
    model = APPS[app].network(recipe)
    for name, parameter in model.named_parameters():
        # Logits of about 1: larger ones saturate, and equal scores are ordered as rounding has it.
        if "cls_score" in name:
            nn.init.normal_(parameter, std=0.05)
        if "objectness" in name:
            nn.init.normal_(parameter, std=0.3)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            nn.init.uniform_(buffer, 0.5, 1.5)
    content = {
        "model": model.state_dict(),
        "config": describe(APPS[app], recipe, {identifier: f"class {identifier}" for identifier in ids}),
    }
    checkpoint.save(path, content)
    return path


def weights(path: Path) -> dict[str, Tensor]:
    return open_weights(path).build().state_dict()


@pytest.mark.parametrize(
    ("system", "app"),
    [
        ("mmdetection", "mask_rcnn"),
        ("torchvision", "faster_rcnn"),
        ("detectron2", "cascade_rcnn"),
    ],
)
def test_ours_there_and_back(
    system: str, app: str, tmp_path: Path, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Categories and every bit come back through the command; the certificate passes on the way."""
    source = run_of(tmp_path / "run.pt", app, ids=(1, 2, 4))
    there, back = tmp_path / "there.pth", tmp_path / "back.pt"
    assert call(app, "convert", "--weights", source, "--to", system, there, "--certify", picture) == 0
    text = capsys.readouterr().out
    assert "Parity certificate: run.pt and there.pth, read back (1 image)" in text
    assert "PASSED" in text
    assert "FAILED" not in text
    assert call(app, "convert", "--weights", there, "--to", "ours", back) == 0
    assert_same(weights(source), weights(back))
    one, other = open_weights(source), open_weights(back)
    if system == "torchvision":  # whose files are tensors alone
        assert len(other.categories) == 3
    else:
        assert other.categories == one.categories
        assert other.model == one.model
        assert other.description["recipe"] == one.description["recipe"]


@pytest.mark.slow
def test_torchvision_itself_is_asked(tmp_path: Path, picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where torchvision has such a network, it runs on the file: conventions, classes with gaps and BGR included."""
    pixels = PixelConfig(order="bgr", std=(57.0, 57.0, 58.0))
    source = run_of(tmp_path / "run.pt", ids=(1, 2, 4), width=64, pixels=pixels)
    out = tmp_path / "out.pth"
    assert call("mask_rcnn", "convert", "--weights", source, "--to", "torchvision", out, "--certify", picture) == 0
    text = capsys.readouterr().out
    assert "num_classes=5" in text
    assert "The first convolution now reads RGB" in text
    assert "Parity certificate: out.pth here and in torchvision" in text
    assert "PASSED: the same layers and" in text[text.index("here and in torchvision") :]


@pytest.mark.slow
@pytest.mark.parametrize("version", [1, 2])
def test_torchvision_there_and_back(version: int, tmp_path: Path) -> None:
    """A state dict of torchvision, to ours and back: every name, shape and bit, rows of the background included."""
    app = "faster_rcnn" if version == 1 else "mask_rcnn"
    torch.manual_seed(0)
    if version == 1:
        body = resnet_fpn_backbone(backbone_name="resnet34", weights=None)
        model = detection.FasterRCNN(body, num_classes=4)
    else:
        model = detection.maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=4)
    for key, tensor in model.state_dict().items():
        if key.endswith("num_batches_tracked"):
            tensor.fill_(7)
    source, ours, back = (tmp_path / file for file in ("theirs.pth", "ours.pt", "back.pth"))
    torch.save(model.state_dict(), source)
    assert call(app, "convert", "--weights", source, "--to", "ours", ours) == 0
    assert call(app, "convert", "--weights", ours, "--to", "torchvision", back) == 0
    written = torch.load(back, weights_only=True)
    assert_same(dict(model.state_dict()), written)
    model.load_state_dict(written)


@pytest.mark.slow
def test_keypoints_of_torchvision_there_and_back(
    tmp_path: Path, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """torchvision's network, to ours and back: every bit, and what both compute of the file that was written."""
    torch.manual_seed(0)
    model = detection.keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    source, ours, back = (tmp_path / file for file in ("theirs.pth", "ours.pt", "back.pth"))
    torch.save(model.state_dict(), source)
    assert call("mask_rcnn", "convert", "--weights", source, "--to", "ours", ours) == 0
    opened = open_weights(ours)
    assert (opened.network().tasks, opened.network().detector.title) == (("bbox", "keypoints"), "Keypoint R-CNN")
    capsys.readouterr()
    assert call("mask_rcnn", "convert", "--weights", ours, "--to", "torchvision", back, "--certify", picture) == 0
    text = capsys.readouterr().out
    certificate = text[text.index("here and in torchvision") :]
    assert "keypoint head" in certificate
    assert "PASSED: the same layers and" in certificate
    assert_same(dict(model.state_dict()), torch.load(back, weights_only=True))


def test_a_certificate_looks_at_the_keypoint_head() -> None:
    """torchvision's computes what ours does, and a number that is changed shows."""
    config = small_model(keypoints=True)
    config = replace(config, backbone=replace(config.backbone, width=64, norm="frozen_bn"))
    network = build(config).eval()
    assert isinstance(config.detector, DetectorConfig)
    state = to_checkpoint(network.state_dict(), config.detector, "torchvision")
    peer = torchvision_network(config, state)
    assert peer is not None
    outputs, head = TorchvisionOutputs(peer, [1, 2, 3]), network.get_submodule("keypoint_head")
    inputs = (torch.randn(3, 16, 14, 14), torch.tensor(2))
    with torch.inference_mode():
        torch.testing.assert_close(outputs.layer("keypoint head", inputs, {}), head(*inputs))
        peer.roi_heads.keypoint_head[14].bias += 1  # type: ignore[index, union-attr]
        assert not torch.allclose(outputs.layer("keypoint head", inputs, {}), head(*inputs))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "system"),
    [(DETECTRON2_CASCADE, "detectron2"), (MMDETECTION_CASCADE, "mmdetection")],
    ids=str,
)
def test_references_there_and_back(case: Case, system: str, tmp_path: Path) -> None:
    """The same of the state dicts that the reference systems themselves have."""
    shapes = reference(case.data).json("meta/state_dict_shapes")
    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.tensor(5) if name.endswith("num_batches_tracked") else torch.rand(shape, generator=generator)
        for name, shape in shapes.items()
    }
    source, ours, back = (tmp_path / file for file in ("theirs.pth", "ours.pt", "back.pth"))
    key = "model" if system == "detectron2" else "state_dict"
    torch.save({key: state}, source)
    assert call("cascade_rcnn", "convert", "--weights", source, "--to", "ours", ours) == 0
    assert call("cascade_rcnn", "convert", "--weights", ours, "--to", system, back) == 0
    assert_same(state, torch.load(back, weights_only=True)[key])


@pytest.mark.parametrize("system", ["ours", "detectron2", "mmdetection", "torchvision"])
def test_safetensors_by_their_suffix(system: str, tmp_path: Path) -> None:
    """They say as much of the network as the other container, and hold the same tensors."""
    source = run_of(tmp_path / "run.pt")
    plain, safe = tmp_path / "x.pth", tmp_path / "new" / "x.safetensors"
    for out in (plain, safe):
        assert call("mask_rcnn", "convert", "--weights", source, "--to", system, out) == 0
    assert safe.read_bytes()[8:9] == b"{"
    one, other = open_weights(plain), open_weights(safe)
    assert (other.kind, other.model, other.categories) == (one.kind, one.model, one.categories)
    assert_same(one.build().state_dict(), other.build().state_dict())
    assert call("mask_rcnn", "convert", "--weights", safe, "--to", "ours", tmp_path / "back.pt") == 0


@pytest.mark.parametrize(("system", "name"), [("ours", "x.safetensors"), ("detectron2", "x.pkl")])
def test_a_flipped_bit_in_what_was_written_is_noticed(
    system: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = run_of(tmp_path / "run.pt"), tmp_path / name
    assert call("mask_rcnn", "convert", "--weights", source, "--to", system, out) == 0
    content = bytearray(out.read_bytes())
    content[len(content) // 2] ^= 1
    out.write_bytes(content)
    assert call("mask_rcnn", "convert", "--weights", out, "--to", "ours", tmp_path / "back.pt") == 2
    assert "its content does not match its checksum" in capsys.readouterr().err
    assert not (tmp_path / "back.pt").exists()


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = run_of(tmp_path / "run.pt")
    there = tmp_path / "there.pth"
    there.touch()
    for arguments, message in (
        (("--weights", source, "--to", "detectron2", there), "exists already; name another file"),
        (("--weights", source, "--to", "detectron3", tmp_path / "x"), "detectron3"),
        (("--weights", source, "--to", "detectron2", tmp_path / "x", "--certify", tmp_path / "none"), "none"),
        (("--weights", source, "--to", "mmdetection", tmp_path / "x.pkl"), "only detectron2 reads pickles"),
    ):
        assert call("mask_rcnn", "convert", *arguments) == 2
        assert message in capsys.readouterr().err
    cascade = run_of(tmp_path / "cascade.pt", "cascade_rcnn")
    assert call("cascade_rcnn", "convert", "--weights", cascade, "--to", "torchvision", tmp_path / "x") == 2
    assert "torchvision has no cascades" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cascade.pt", "run.pt", "there.pth"]
