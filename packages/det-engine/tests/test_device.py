import json
import os
import socket
import sys
import types

import pytest
import torch

from det_engine import EngineError, Precision, describe_environment, resolve_device
from det_engine.device import npu_advice, peak_memory_mib


@pytest.fixture
def no_accelerator(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delattr(torch, "npu", raising=False)


def test_cpu():
    assert resolve_device("cpu") == torch.device("cpu")


def test_auto_ends_at_the_cpu(no_accelerator):
    assert resolve_device("auto") == torch.device("cpu")


def test_auto_takes_an_npu_where_there_is_no_cuda(no_accelerator, monkeypatch, capsys):
    chosen = []
    module = types.SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: 4,
        current_device=lambda: 1,
        get_device_name=lambda device: "Ascend910B3",
    )
    monkeypatch.setattr("det_engine.device._ADVISED", set())
    monkeypatch.setenv("TASK_QUEUE_ENABLE", "2")
    monkeypatch.setattr(torch, "npu", module, raising=False)
    monkeypatch.setattr(torch.accelerator, "set_device_index", chosen.append)
    # A stock torch does not know the device type npu by name.
    monkeypatch.setattr(torch, "device", lambda kind, index: types.SimpleNamespace(type=kind, index=index))
    assert resolve_device("auto").type == "npu"
    assert resolve_device("npu:3").index == 3
    assert chosen == [1, 3]
    assert capsys.readouterr().err.count("Advice for Ascend910B3: PYTORCH_ALLOC_CONF=expandable_segments:True") == 1


def test_advice_for_an_npu():
    good = {"PYTORCH_ALLOC_CONF": "expandable_segments:True", "TASK_QUEUE_ENABLE": "2"}
    assert npu_advice("Ascend910B3", good) == npu_advice("Ascend910_9391", good) == []
    (compile_mode,) = npu_advice("Ascend910ProB", good)
    assert "jit_compile=False" in compile_mode
    (blocking,) = npu_advice("Ascend910B1", {**good, "ASCEND_LAUNCH_BLOCKING": "1"})
    assert "ASCEND_LAUNCH_BLOCKING" in blocking
    assert len(npu_advice("Ascend910B1", {})) == 2


@pytest.mark.parametrize(("chip", "first"), [("Ascend910ProB", True), ("Ascend910B", True), ("Ascend910B1", False)])
def test_bfloat16_begins_with_910b(chip, first, monkeypatch):
    monkeypatch.setattr(
        torch, "get_device_module", lambda device: types.SimpleNamespace(get_device_name=lambda _: chip)
    )
    device = types.SimpleNamespace(type="npu")
    if first:
        with pytest.raises(EngineError, match=f"{chip} has no bfloat16, .* use precision fp16"):
            Precision("bf16", device)
    else:
        assert Precision("bf16", device).name == "bf16"


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cpu:1", "auto:0", ""])
def test_names_that_mean_nothing(name):
    with pytest.raises(EngineError, match=r"must be auto, cpu, cuda\[:index\] or npu\[:index\]"):
        resolve_device(name)


def test_cuda_without_driver(no_accelerator, monkeypatch):
    def fail():
        raise RuntimeError("Found no NVIDIA driver on your system. Please check ...\nmore")

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "init", fail)
    with pytest.raises(EngineError, match=r"'cuda' is not there: no usable NVIDIA driver .*Use --device cpu"):
        resolve_device("cuda")


def test_torch_without_cuda(no_accelerator, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    with pytest.raises(EngineError, match=r"this torch \(.*\) was built without CUDA"):
        resolve_device("cuda:0")


def test_cuda_hidden(no_accelerator, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    with pytest.raises(EngineError, match="CUDA_VISIBLE_DEVICES may hide it"):
        resolve_device("cuda")


def test_an_index_beyond_the_last(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(EngineError, match=r"'cuda:2' is not there: this machine shows 2 \(0 to 1\)"):
        resolve_device("cuda:2")


def test_npu_without_torch_npu(no_accelerator, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EngineError, match="torch_npu is not installed"):
        resolve_device("npu")


def test_npu_without_cann(no_accelerator, monkeypatch, tmp_path, capsys):
    (tmp_path / "torch_npu.py").write_text("raise ImportError('libhccl.so: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(EngineError, match=r"CANN is probably missing .*set_env\.sh.*libhccl\.so"):
        resolve_device("npu:0")
    assert "torch_npu" not in sys.modules
    assert resolve_device("auto").type == "cpu"
    assert "Device auto is the CPU: torch_npu does not load, CANN is probably missing" in capsys.readouterr().err


def test_npu_with_a_cuda_build_of_torch(no_accelerator, monkeypatch, tmp_path):
    (tmp_path / "torch_npu.py").write_text("import os; os.abort()")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(EngineError, match="is a CUDA build, with which torch_npu does not load"):
        resolve_device("npu")


def test_npu_not_visible(no_accelerator, monkeypatch):
    monkeypatch.setattr(torch, "npu", types.SimpleNamespace(is_available=lambda: False), raising=False)
    with pytest.raises(EngineError, match="no NPU is visible"):
        resolve_device("npu")


def test_environment_is_json_and_names_nobody():
    environment = describe_environment(torch.device("cpu"), packages=["rich", "not-a-package"])
    text = json.dumps(environment)
    assert {"torch", "numpy", "det-engine", "rich"} <= environment["versions"].keys()
    assert "not-a-package" not in environment["versions"]
    assert environment["device"] == "cpu"
    assert environment["threads"] >= 1
    for private in (socket.gethostname(), os.path.expanduser("~"), os.getcwd(), sys.prefix):  # noqa: PTH109, PTH111
        assert len(private) < 4 or private not in text


def test_peak_memory_of_this_process():
    assert 10 < peak_memory_mib(torch.device("cpu")) < 1e6
