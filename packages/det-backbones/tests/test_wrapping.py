"""Weights as training frameworks write them: each form gives the same arrays, and says what was around them."""

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from det_backbones import WeightsError, load_imagenet_weights, read_weights, resnet, write_weights
from det_backbones.wrapping import unwrap


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


STATE = network().state_dict()


def prefixed(prefix):
    return {prefix + name: value for name, value in STATE.items()}


@pytest.mark.parametrize(
    ("content", "stripped"),
    [
        (STATE, ()),
        ({"model": STATE, "epoch": 3}, ()),
        ({"state_dict": STATE}, ()),
        ({"model_state_dict": STATE, "optimizer_state_dict": {"state": {}}}, ("model_state_dict",)),
        ({"net": STATE}, ("net",)),
        ({"weights": STATE, "weights_version": 3}, ("weights",)),
        ({"state_dict": {"model": STATE}}, ()),
        (prefixed("module."), ("module.",)),
        (prefixed("_orig_mod."), ("_orig_mod.",)),
        (prefixed("module._orig_mod."), ("_orig_mod.", "module.")),
        (prefixed("_orig_mod.module."), ("_orig_mod.", "module.")),
        (prefixed("_fsdp_wrapped_module."), ("_fsdp_wrapped_module.",)),
        (
            {name.replace(".", "._fsdp_wrapped_module.", 1): value for name, value in STATE.items()},
            ("_fsdp_wrapped_module.",),
        ),
        ({"state_dict": prefixed("model."), "pytorch-lightning_version": "2.5"}, ("model.",)),
        (
            {
                "state_dict": prefixed("model._orig_mod.") | {"loss.weight": torch.ones(2)},
                "pytorch-lightning_version": "2.5",
            },
            ("_orig_mod.", "model."),
        ),
    ],
)
def test_what_is_wrapped_around_names_is_stripped_and_said(tmp_path, content, stripped):
    torch.save(content, tmp_path / "x.pth")
    file = read_weights(tmp_path / "x.pth")
    assert file.arrays.keys() == STATE.keys()
    assert all(torch.equal(file.arrays[name], value) for name, value in STATE.items())
    assert file.unwrapped == stripped


def test_what_pytorch_itself_wraps(tmp_path, tmp_path_factory):
    """The real wrappers, not names typed by hand."""
    store = torch.distributed.FileStore(str(tmp_path_factory.mktemp("store") / "s"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        inner = network()
        wrapped = torch.compile(DistributedDataParallel(inner))
        torch.save(wrapped.state_dict(), tmp_path / "x")
    finally:
        torch.distributed.destroy_process_group()
    file = read_weights(tmp_path / "x")
    assert file.arrays.keys() == STATE.keys()
    assert file.unwrapped == ("_orig_mod.", "module.")


def test_averaged_models(tmp_path):
    inner = network()
    averaged = AveragedModel(inner)
    averaged.update_parameters(inner)
    torch.save(averaged.state_dict(), tmp_path / "x")
    file = read_weights(tmp_path / "x")
    assert file.arrays.keys() == STATE.keys()
    assert file.unwrapped == ("n_averaged", "module.")


@pytest.mark.parametrize("name", ["model_ema", "ema", "ema_model", "state_dict_ema"])
def test_an_average_is_taken_before_the_model_beside_it(tmp_path, name):
    """It has no buffers, which come from the model."""
    average = {"module." + key: value + 1 for key, value in STATE.items() if "running" not in key}
    torch.save({"model": STATE, name: average, "epoch": 3, "meta": {"a": 1}}, tmp_path / "x")
    file = read_weights(tmp_path / "x")
    assert file.unwrapped == (f"{name}, the moving average, and not model beside it", "module.")
    assert torch.equal(file.arrays["0.weight"], STATE["0.weight"] + 1)
    assert torch.equal(file.arrays["1.running_var"], STATE["1.running_var"])
    assert file.metadata == {"epoch": 3, "meta": {"a": 1}}


def test_an_average_in_a_container_of_its_own(tmp_path):
    torch.save({"model": STATE, "ema": {"module": prefixed("module."), "updates": 7}}, tmp_path / "x")
    assert read_weights(tmp_path / "x").arrays.keys() == STATE.keys()


def test_settings_are_no_average(tmp_path):
    torch.save({"model": STATE, "ema": {"decay": 0.9}, "weights": {"bbox": 2.0}}, tmp_path / "x")
    file = read_weights(tmp_path / "x")
    assert file.unwrapped == ()
    assert file.metadata == {"ema": {"decay": 0.9}, "weights": {"bbox": 2.0}}


def test_two_networks_in_one_file_stay_apart(tmp_path):
    content = STATE | prefixed("_orig_mod.")
    torch.save(content, tmp_path / "x")
    assert read_weights(tmp_path / "x").arrays.keys() == content.keys()


def test_the_report_says_it_in_one_line(tmp_path):
    body = resnet(18, width=16)
    torch.save({"net": {f"module.{name}": value for name, value in body.state_dict().items()}}, tmp_path / "x")
    report = load_imagenet_weights(resnet(18, width=16), tmp_path / "x")
    assert str(report) == f"torchvision, {len(body.state_dict())} tensors; stripped net, module."


def test_safetensors_are_written_and_read(tmp_path):
    shared = torch.randn(4, 6)
    arrays = {"a": shared, "b": shared[1:3], "c": shared.t(), "d": torch.arange(3), "e": shared.bfloat16()}
    write_weights(tmp_path / "x.safetensors", arrays, {"recipe": "tiny"})
    file = read_weights(tmp_path / "x.safetensors")
    assert file.metadata == {"recipe": "tiny"}
    assert file.arrays.keys() == arrays.keys()
    assert all(torch.equal(file.arrays[name], value) for name, value in arrays.items())
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]
    # Others read it too.
    assert np.array_equal(safetensors.torch.load_file(tmp_path / "x.safetensors")["c"].numpy(), shared.t().numpy())


def test_safetensors_of_a_compiled_model(tmp_path):
    safetensors.torch.save_file(prefixed("_orig_mod."), tmp_path / "x")
    file = read_weights(tmp_path / "x")
    assert file.arrays.keys() == STATE.keys()
    assert file.unwrapped == ("_orig_mod.",)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated_safetensors(tmp_path, share):
    write_weights(tmp_path / "x", {"a": torch.rand(1000)})
    content = (tmp_path / "x").read_bytes()
    (tmp_path / "x").write_bytes(content[: int(share * len(content))])
    with pytest.raises(WeightsError, match="truncated or damaged"):
        read_weights(tmp_path / "x")


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(WeightsError, match="cannot be written"):
        write_weights(tmp_path / "nowhere" / "x", {"a": torch.zeros(1)})


def test_bodies_of_self_supervised_learning():
    """MoCo's and DINO's files: the encoder that they are about, without its double, queue and heads."""
    weight = torch.rand(2, 3)
    moco = {"state_dict": {
        "module.encoder_q.conv1.weight": weight, "module.encoder_q.fc.0.bias": weight,
        "module.encoder_k.conv1.weight": weight + 1, "module.queue": weight,
    }}  # fmt: skip
    named, _, notes = unwrap(moco)
    assert named.keys() == {"conv1.weight", "fc.0.bias"}
    assert named["conv1.weight"] is weight
    assert "module.encoder_q." in notes
    dino = {"student": {"module.backbone.conv1.weight": weight + 1}, "epoch": 3,
            "teacher": {"backbone.conv1.weight": weight, "head.mlp.0.bias": weight}}  # fmt: skip
    named, beside, _ = unwrap(dino)
    assert named == {"conv1.weight": weight}
    assert beside["epoch"] == 3
