import hashlib
import os
import pickle
import zipfile

import pytest
import torch
from torch import nn

from det_engine import EngineError, SolverConfig, build_optimizer, checkpoint
from det_engine.optim import load_optimizer


def state(value=1.0):
    return {"model": {"weight": torch.full((1000,), value)}, "step": 3, "rng": ("MT19937", [1, 2], None, 0.5, True)}


def test_what_is_saved_is_loaded(tmp_path):
    path = tmp_path / "deep" / "a.pt"
    checkpoint.save(path, state())
    loaded = checkpoint.load(path)
    assert torch.equal(loaded["model"]["weight"], state()["model"]["weight"])
    assert loaded["rng"] == state()["rng"]
    assert [entry.name for entry in path.parent.iterdir()] == ["a.pt"]


def test_torch_reads_the_file_too(tmp_path):
    checkpoint.save(tmp_path / "a.pt", state())
    assert torch.load(tmp_path / "a.pt", weights_only=True)["step"] == 3


def test_the_file_before_is_kept(tmp_path):
    last, previous = tmp_path / "last.pt", tmp_path / "previous.pt"
    for value in (1.0, 2.0, 3.0):
        checkpoint.save(last, state(value), keep=previous)
    assert checkpoint.load(last)["model"]["weight"][0] == 3
    assert checkpoint.load(previous)["model"]["weight"][0] == 2


def test_link_falls_back_to_a_copy(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    checkpoint.save(tmp_path / "a.pt", state())
    checkpoint.link(tmp_path / "a.pt", tmp_path / "b.pt")
    assert checkpoint.load(tmp_path / "b.pt")["step"] == 3


@pytest.mark.parametrize("allowed", [0, 1500, 5500])
def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, monkeypatch, allowed):
    path = tmp_path / "last.pt"
    checkpoint.save(path, state(1.0))
    original = checkpoint.SealingWriter.write
    written = 0

    class FullDisk:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            nonlocal written
            written += len(data)
            if written > allowed:
                raise OSError(28, "No space left on device")
            return self.file.write(data)

        def flush(self):
            self.file.flush()

    def write(self, data):
        if not isinstance(self._file, FullDisk):
            self._file = FullDisk(self._file)
        return original(self, data)

    monkeypatch.setattr(checkpoint.SealingWriter, "write", write)
    with pytest.raises(EngineError, match=r"last\.pt: No space left on device; .* is intact"):
        checkpoint.save(path, state(2.0))
    assert checkpoint.load(path)["model"]["weight"][0] == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.pt"]


def test_a_disk_that_fails_to_sync_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    checkpoint.save(path, state(1.0))

    def fail(_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(EngineError, match="Input/output error"):
        checkpoint.save(path, state(2.0))
    assert checkpoint.load(path)["model"]["weight"][0] == 1


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(EngineError, match=r"Cannot write the checkpoint .*no checkpoint was written"):
        checkpoint.save(tmp_path / "file" / "a.pt", state())


def test_a_missing_file(tmp_path):
    with pytest.raises(EngineError, match=r"a\.pt is not there"):
        checkpoint.load(tmp_path / "a.pt")
    with pytest.raises(EngineError, match="it is a folder"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file(tmp_path, part):
    path = tmp_path / "a.pt"
    checkpoint.save(path, state())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(EngineError, match=r"a\.pt is truncated"):
        checkpoint.load(path)


def test_a_flipped_bit(tmp_path):
    path = tmp_path / "a.pt"
    checkpoint.save(path, state())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(EngineError, match="does not match its checksum"):
        checkpoint.load(path)


@pytest.mark.parametrize("around", ["a byte more", "no seal", "half a seal"])
def test_a_flipped_bit_is_seen_whatever_surrounds_the_content(tmp_path, around):
    path = tmp_path / "a.pt"
    checkpoint.save(path, state())
    whole = path.read_bytes()
    seal = len(whole) - whole.rindex(b"det-engine sha256:")
    content = {"a byte more": whole + b"\0", "no seal": whole[:-seal], "half a seal": whole[:-9]}[around]
    path.write_bytes(content)
    assert checkpoint.load(path)["step"] == 3  # what surrounds it is no damage
    start = content.index(state()["model"]["weight"].numpy().tobytes()[:64])
    for position in (start, start + 1999, start + 3999):
        flipped = bytearray(content)
        flipped[position] ^= 4
        path.write_bytes(flipped)
        with pytest.raises(EngineError, match="does not match its checksum"):
            checkpoint.load(path)


def test_files_without_checksums_are_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"format": checkpoint.FORMAT, "version": 1, "step": 3}, tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert checkpoint.load(tmp_path / "a.pt")["step"] == 3


def test_a_later_version_is_named(tmp_path):
    checkpoint.save(tmp_path / "a.pt", {"version": 2, "written_by": "det-engine 9.1", **state()})
    with pytest.raises(EngineError, match=r"a\.pt has version 2 .*, written by det-engine 9\.1; .* up to 1\. Update"):
        checkpoint.load(tmp_path / "a.pt")
    for version in (None, "1", -1, 1.5, True):
        checkpoint.save(tmp_path / "a.pt", {**state(), "version": version})
        with pytest.raises(EngineError, match="does not say of which version"):
            checkpoint.load(tmp_path / "a.pt")


def test_a_temporary_name_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "letter").write_text("dear")
    (tmp_path / "a.pt.writing").symlink_to(tmp_path / "letter")
    checkpoint.save(tmp_path / "a.pt", state())
    assert (tmp_path / "letter").read_text() == "dear"
    assert checkpoint.load(tmp_path / "a.pt")["step"] == 3


def test_of_two_who_write_a_file_one_is_refused_and_the_other_is_whole(tmp_path, monkeypatch):
    sync, path = os.fsync, tmp_path / "a.pt"

    def other_process(descriptor):
        monkeypatch.setattr(os, "fsync", sync)
        checkpoint.save(path, state(2.0))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", other_process)
    with pytest.raises(EngineError, match=r"a\.pt is being written by another process too"):
        checkpoint.save(path, state(1.0))
    assert checkpoint.load(path)["model"]["weight"][0] == 2
    assert list(tmp_path.iterdir()) == [path]


def test_foreign_files(tmp_path):
    torch.save({"state_dict": {}, "epoch": 1}, tmp_path / "other.pt")
    with pytest.raises(EngineError, match="is no checkpoint of det-engine: it holds keys state_dict, epoch"):
        checkpoint.load(tmp_path / "other.pt")
    torch.save([1], tmp_path / "list.pt")
    with pytest.raises(EngineError, match="it holds list"):
        checkpoint.load(tmp_path / "list.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(EngineError, match="no checkpoint at all"):
        checkpoint.load(tmp_path / "text.pt")


def test_our_files_are_recognised_by_content(tmp_path):
    checkpoint.save(tmp_path / "ours.bin", state())
    torch.save(torch.load(tmp_path / "ours.bin", weights_only=True), tmp_path / "again.pt")
    torch.save({"model": {}}, tmp_path / "other.pt")
    (tmp_path / "text.pt").write_text("hello")
    found = [
        checkpoint.is_checkpoint(tmp_path / name) for name in ("ours.bin", "again.pt", "other.pt", "text.pt", "no")
    ]
    assert found == [True, True, False, False, False]
    assert checkpoint.load(tmp_path / "again.pt")["step"] == 3


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("evil_was_here",))


def test_code_in_a_file_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"format": checkpoint.FORMAT, "model": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Evil(), protocol=2))
    for name in ("evil.pt", "evil.pkl"):
        with pytest.raises(EngineError):
            checkpoint.load(tmp_path / name)
    assert not (tmp_path / "evil_was_here").exists()


def test_the_first_readable_is_taken(tmp_path):
    last, previous = tmp_path / "last.pt", tmp_path / "previous.pt"
    checkpoint.save(last, state(1.0))
    checkpoint.save(last, state(2.0), keep=previous)
    last.write_bytes(last.read_bytes()[:100])
    loaded, path, failures = checkpoint.load_first([last, previous])
    assert path == previous
    assert loaded["model"]["weight"][0] == 1
    assert "last.pt is truncated" in failures[0]
    previous.unlink()
    with pytest.raises(EngineError, match=r"last\.pt is truncated.* previous\.pt is not there|last\.pt.*previous\.pt"):
        checkpoint.load_first([last, previous])


def test_another_architecture_is_named():
    saved = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).state_dict()
    with pytest.raises(EngineError) as error:
        checkpoint.load_model(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 2)), saved, "some.pt")
    message = str(error.value)
    assert "some.pt is of another architecture" in message
    assert "2.weight is not in the file" in message
    assert "1.weight is (2, 4) in the file and (5, 4) in the model" in message
    with pytest.raises(EngineError, match=r"1\.weight is not in the model"):
        checkpoint.load_model(nn.Sequential(nn.Linear(3, 4)), saved, "some.pt")


def test_the_optimizer_keeps_the_hyper_parameters_of_now():
    model = nn.Linear(3, 2)
    old = build_optimizer(model, SolverConfig(weight_decay=1e-4))
    model(torch.ones(1, 3)).sum().backward()
    old.step()
    new = build_optimizer(model, SolverConfig(weight_decay=5e-4))
    load_optimizer(new, old.state_dict(), "some.pt")
    assert new.param_groups[0]["weight_decay"] == 5e-4
    assert torch.equal(new.state[model.weight]["momentum_buffer"], old.state[model.weight]["momentum_buffer"])


def test_an_optimizer_of_other_groups_is_refused():
    model = nn.Linear(3, 2)
    old = build_optimizer(model, SolverConfig())
    new = build_optimizer(model, SolverConfig(bias_lr_factor=2.0))
    with pytest.raises(EngineError, match="it has 1 groups of parameters, and the model 2"):
        load_optimizer(new, old.state_dict(), "some.pt")


@pytest.mark.parametrize(
    "more",
    [{"model": {"a": torch.zeros(1).expand(10**13)}}, {"other": [{"a": torch.zeros(1, 1).expand(10**7, 10**7)}]}],
    ids=["weights", "elsewhere"],
)
def test_tensors_much_larger_than_their_file_are_refused(tmp_path, more):
    checkpoint.save(tmp_path / "a.pt", {**state(), **more})
    with pytest.raises(EngineError, match=r"a\.pt cannot be used: its \d+ bytes declare tensors of \d+ bytes"):
        checkpoint.load(tmp_path / "a.pt")


@pytest.mark.parametrize("sealed", [True, False])
def test_an_archive_that_unpacks_to_more_than_its_file_is_refused(tmp_path, sealed):
    checkpoint.save(tmp_path / "plain.pt", state())
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(path, "w") as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name), zipfile.ZIP_DEFLATED)
    if sealed:
        content = path.read_bytes()
        path.write_bytes(content + b"det-engine sha256:" + hashlib.sha256(content).digest())
    with pytest.raises(EngineError, match="damaged"):
        checkpoint.load(path)
