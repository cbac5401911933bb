"""What the files of training frameworks carry beside their tensors: known, restored as nothing, and never run."""

import argparse
import datetime as dt
import hashlib
import os
import pickle
import sys
import types
import zipfile
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from det_backbones import WeightsError, read_weights, write_weights

ARRAY = torch.arange(6.0).reshape(2, 3)


class HistoryBuffer:
    """As mmengine's logs: arrays, and methods named by getattr."""

    def __init__(self):
        self._log_history = np.arange(4.0)
        self._statistics_methods = {"min": self.smallest}

    def smallest(self):
        """The method."""


class ConfigDict(dict):
    """As mmengine's and mmcv's: items and attributes."""

    def __init__(self, **items):
        super().__init__(**items)
        self.hidden = 1


@pytest.fixture
def frameworks(monkeypatch):
    """Classes under the names of their frameworks, which are not there when the file is read."""
    for path, kind in (("mmengine.logging.history_buffer", HistoryBuffer), ("mmengine.config.config", ConfigDict)):
        module = types.ModuleType(path)
        setattr(module, kind.__name__, kind)
        monkeypatch.setattr(kind, "__module__", path)
        monkeypatch.setitem(sys.modules, path, module)
    for path in ("mmengine", "mmengine.logging", "mmengine.config"):
        monkeypatch.setitem(sys.modules, path, types.ModuleType(path))


def metadata():
    return {
        "meta": {
            "cfg": "model = dict(type='MaskRCNN')",
            "dataset_meta": ConfigDict(classes=("cat", "dog"), palette=[(1, 2, 3)]),
            "time": dt.datetime(2026, 1, 2),
            "work_dir": Path("/tmp/x"),
            "seed": np.int64(3),
            "lr": np.float32(0.5),
            "mean": np.array([1.0, 2.0]),
            "arguments": argparse.Namespace(a=1),
        },
        "message_hub": {"log_scalars": OrderedDict(loss=HistoryBuffer()), "counts": defaultdict(list, a=[1])},
        "optimizer": {"state": {0: {"momentum_buffer": ARRAY, "step": np.float64(2)}}, "param_groups": [{"lr": 0.1}]},
        "param_schedulers": [{"milestones": Counter({8: 1, 11: 1}), "_last_lr": [np.float64(0.02)]}],
        "iteration": 7,
    }


@pytest.mark.usefixtures("frameworks")
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("inside", ["state_dict", "model"])
def test_training_checkpoints(tmp_path, monkeypatch, inside, zipped):
    path = tmp_path / "x"
    torch.save({inside: {"a.weight": ARRAY}, **metadata()}, path, _use_new_zipfile_serialization=zipped)
    for module in [name for name in sys.modules if name.startswith("mmengine")]:
        monkeypatch.delitem(sys.modules, module)
    file = read_weights(path)
    assert file.arrays.keys() == {"a.weight"}
    assert torch.equal(file.arrays["a.weight"], ARRAY)
    meta = file.metadata["meta"]
    assert meta["cfg"] == "model = dict(type='MaskRCNN')"
    assert meta["dataset_meta"]["classes"] == ("cat", "dog")
    assert not isinstance(meta["time"], dt.datetime)
    assert file.metadata["iteration"] == 7
    assert not any(name.startswith("mmengine") for name in sys.modules)


@pytest.mark.usefixtures("frameworks")
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickles(tmp_path, protocol):
    content = {"model": {"a.weight": ARRAY.numpy()}, "__author__": "someone", "matching_heuristics": True}
    beside = metadata()
    del beside["optimizer"]  # torch's tensors are no part of such files
    (tmp_path / "x").write_bytes(pickle.dumps({**content, **beside}, protocol=protocol))
    file = read_weights(tmp_path / "x")
    assert torch.equal(file.arrays["a.weight"], ARRAY)
    assert file.metadata["__author__"] == "someone"
    assert file.metadata["meta"]["dataset_meta"]["classes"] == ("cat", "dog")


class Runs:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("where", ["model", "meta", "optimizer"])
def test_code_is_named_and_not_run(tmp_path, form, where):
    """`os.system`, wherever it hides; the message is one sentence with its name."""
    target, path = tmp_path / "ran", tmp_path / "x"
    content = {"model": {"a.weight": ARRAY.numpy() if form == "pickle" else ARRAY}, "meta": {}, "optimizer": {}}
    content[where]["b"] = Runs(os.system, f"touch {target}")
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(WeightsError, match=r"would run (posix|nt|os)\.system\. It was not loaded"):
        read_weights(path)
    assert not target.exists()


def test_what_is_known_does_nothing(tmp_path):
    """The names on the list are stand-ins: `getattr` looks nothing up."""
    target = tmp_path / "ran"
    (tmp_path / "x").write_bytes(
        pickle.dumps({"a": ARRAY.numpy(), "b": Runs(getattr, Path(str(target)), "touch"), "c": Runs(set, [1])})
    )
    assert read_weights(tmp_path / "x").arrays.keys() == {"a"}
    assert not target.exists()


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_truncated(tmp_path, share):
    torch.save({"state_dict": {"a": torch.rand(1000)}, "meta": {"epoch": 3}}, tmp_path / "x")
    content = (tmp_path / "x").read_bytes()
    (tmp_path / "x").write_bytes(content[: int(share * len(content))])
    with pytest.raises(WeightsError, match="truncated or damaged"):
        read_weights(tmp_path / "x")


def test_a_sealed_file_is_checked_in_the_one_time_it_is_opened(tmp_path, monkeypatch):
    path = tmp_path / "sealed.pt"
    torch.save({"format": "det-engine checkpoint", "model": {"weight": torch.arange(3.0)}}, path)
    content = path.read_bytes()
    sealed = content + b"det-engine sha256:" + hashlib.sha256(content).digest()
    path.write_bytes(sealed)
    opened = []
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *args: opened.append(self) or real(self, *args))
    assert read_weights(path).arrays["weight"].tolist() == [0, 1, 2]
    assert opened == [path]
    monkeypatch.undo()
    position = content.index(torch.arange(3.0).numpy().tobytes())
    path.write_bytes(sealed[:position] + b"\x01" + sealed[position + 1 :])
    with pytest.raises(WeightsError, match=r"sealed\.pt is damaged: its content does not match its checksum"):
        read_weights(path)


@pytest.mark.parametrize("tail", [b"", b"\0", b"det-engine sha256:"])
def test_a_flipped_bit_in_an_archive_is_noticed(tmp_path, tail):
    weight = torch.rand(1000)
    path = tmp_path / "model.pth"
    torch.save({"model": {"a.weight": weight}, "meta": {"epoch": 3}}, path)
    content = path.read_bytes() + tail
    path.write_bytes(content)
    assert torch.equal(read_weights(path).arrays["a.weight"], weight)
    for wanted in (weight.numpy().tobytes(), b"a.weight", b"epoch"):
        flipped = bytearray(content)
        flipped[content.index(wanted) + 2] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(WeightsError, match="does not match its checksum"):
            read_weights(path)


def test_a_flipped_bit_in_what_is_written_is_noticed(tmp_path):
    path = tmp_path / "x.safetensors"
    write_weights(path, {"a.weight": torch.rand(100), "half": torch.rand(3).half()}, {"det": '{"threshold": 0.5}'})
    content = path.read_bytes()
    file = read_weights(path)
    assert set(file.arrays) == {"a.weight", "half"}
    assert file.metadata == {"det": {"threshold": 0.5}}
    for position in (3, content.index(b"0.5"), content.index(b"a.weight"), content.index(b"F32"), -1, -300, -415):
        flipped = bytearray(content)
        flipped[position] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(WeightsError, match=r"is truncated or damaged|is not a weights file"):
            read_weights(path)


def test_safetensors_whose_header_is_as_long_as_a_pickle_begins(tmp_path):
    path, begins = tmp_path / "x.safetensors", set()
    for count in range(0, 256, 8):
        safetensors.torch.save_file({"a": ARRAY}, path, {"text": count * "x"})
        begins.add(path.read_bytes()[:1])
        assert torch.equal(read_weights(path).arrays["a"], ARRAY)
    assert {b"\x80", b"("} <= begins


def test_safetensors_of_others_have_no_checksum(tmp_path):
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file({"a": ARRAY}, path, {"format": "pt"})
    assert torch.equal(read_weights(path).arrays["a"], ARRAY)


def test_an_archive_without_checksums_is_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": ARRAY}, tmp_path / "x")
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(read_weights(tmp_path / "x").arrays["a"], ARRAY)


def doubled(times, pair=lambda value: (value, value)):
    value = ("a",)
    for _ in range(times):
        value = pair(value)
    return value


@pytest.mark.parametrize("form", ["zip", "legacy", 0, 2, 4])
@pytest.mark.parametrize(
    "bomb",
    [
        {doubled(25): 1},
        frozenset([doubled(25)]),
        [doubled(60)],
        doubled(40, lambda value: [value, value]),
        doubled(40, lambda value: {"a": value, "b": value}),
        doubled(5000, lambda value: (value,)),
    ],
    ids=["key", "set", "tuples", "lists", "dictionaries", "deep"],
)
def test_what_would_take_for_ever_is_refused_at_once(tmp_path, form, bomb):
    path = tmp_path / "x"
    content = {"model": {"a": ARRAY if isinstance(form, str) else ARRAY.numpy()}, "meta": bomb}
    recursion = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)
    try:
        if isinstance(form, str):
            torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
        else:
            path.write_bytes(pickle.dumps(content, protocol=form))
    finally:
        sys.setrecursionlimit(recursion)
    with pytest.raises(WeightsError, match="its objects contain each other too often"):
        read_weights(path)


def shared(form, times):
    """Many arrays that are the same megabyte."""
    array = torch.ones(1 << 18) if form == "torch" else np.ones(1 << 18, np.float32)
    return {f"a{number}": array[:] for number in range(times)}


@pytest.mark.parametrize(
    "content",
    [
        {"a": torch.zeros(1).expand(10**13)},
        {"a": ARRAY, "average": {"a": torch.zeros(1, 1).expand(10**7, 10**7)}},
        [{"b": torch.zeros(1).expand(10**13)}, {"a": ARRAY}],
        shared("torch", 40),
    ],
    ids=["one number", "in the metadata", "in a list", "shared memory"],
)
def test_tensors_much_larger_than_their_file_are_refused(tmp_path, content):
    torch.save({"model": {"a": ARRAY}, "more": content}, tmp_path / "x")
    with pytest.raises(WeightsError, match=r"x is truncated or damaged \(its \d+ bytes declare tensors of \d+ bytes\)"):
        read_weights(tmp_path / "x")


def test_weights_that_are_tied_are_read(tmp_path):
    torch.save(shared("torch", 3), tmp_path / "x")
    assert len(read_weights(tmp_path / "x").arrays) == 3


def test_an_archive_that_unpacks_to_much_more_is_refused(tmp_path):
    torch.save({"a": torch.zeros(1 << 20)}, tmp_path / "plain")
    with zipfile.ZipFile(tmp_path / "plain") as plain, zipfile.ZipFile(tmp_path / "x", "w") as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name), zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightsError, match="x is damaged"):
        read_weights(tmp_path / "x")
