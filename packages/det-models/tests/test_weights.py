"""Files told apart by their content, each opened once."""

import builtins
import io
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from det_backbones import WeightsError, load_imagenet_weights, resnet
from det_models import CheckpointError, OptionError, build, describe, load, open_weights
from det_models.description import read_description
from testing.changes import MISSING, WRONG, places, replaced
from testing.trained import NAMES, SYSTEMS, random_network, small_model, write_trained


@pytest.mark.parametrize("system", [*SYSTEMS, "maskrcnn-benchmark"])
def test_what_a_file_is(system: str, tmp_path: Path) -> None:
    weights = open_weights(write_trained(tmp_path / "any.name", system))
    assert weights.kind == ("run" if system == "ours" else "detector")
    assert str(weights) == "a run of ours" or str(weights).startswith(f"{system}, ")
    expected = random_network(small_model(system)).state_dict()
    found = weights.build().state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert weights.assumed == (system in ("torchvision", "yolact", "maskrcnn-benchmark"))


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_file_is_opened_once(system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_trained(tmp_path / "weights", system)
    opened = []
    real = {"open": builtins.open, "io": io.open, "file": torch._C.PyTorchFileReader}

    def counting(name: str) -> Any:
        def call(file: Any, *args: Any, **options: Any) -> Any:
            if str(file) == str(path):
                opened.append(name)
            return real[name](file, *args, **options)

        return call

    monkeypatch.setattr(builtins, "open", counting("open"))
    monkeypatch.setattr(io, "open", counting("io"))
    monkeypatch.setattr(torch._C, "PyTorchFileReader", counting("file"))
    load(path, device="cpu")
    assert len(opened) == 1


def test_the_folder_of_a_run_stands_for_its_best_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    with pytest.raises(CheckpointError, match="is not that of a run: it has no checkpoints"):
        open_weights(tmp_path / "run")
    write_trained(folder / "last.pt")
    assert open_weights(tmp_path / "run").path == folder / "last.pt"
    write_trained(folder / "best.pt")
    assert open_weights(tmp_path / "run").path == folder / "best.pt"
    assert open_weights(folder).path == folder / "best.pt"


def test_averaged_weights_win(tmp_path: Path) -> None:
    path = write_trained(tmp_path / "best.pt")
    content = torch.load(path, weights_only=True)
    content["average"] = {"rpn.objectness.bias": torch.full_like(content["model"]["rpn.objectness.bias"], 0.5)}
    torch.save(content, path)
    network = open_weights(path).build()
    assert (network.rpn.objectness.bias == 0.5).all()


def test_weights_of_a_backbone(tmp_path: Path) -> None:
    path = tmp_path / "resnet18.pth"
    torch.manual_seed(0)
    body = resnet(18, norm="bn", width=8)
    torch.save(body.state_dict() | {"fc.weight": torch.zeros(3, 64)}, path)
    weights = open_weights(path)
    assert weights.kind == "backbone"
    load_imagenet_weights(resnet(18, norm="bn", width=8), path, weights.file)
    with pytest.raises(CheckpointError, match="holds the weights of no detector that is known here"):
        load(path)


def test_a_run_that_does_not_say_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    torch.save({"format": "det-engine checkpoint", "model": nn.Linear(2, 2).state_dict()}, path)
    with pytest.raises(CheckpointError, match=r"config=det_models.describe\(model, categories\)"):
        load(path)
    torch.save({"format": "det-engine checkpoint", "model": {"a": torch.zeros(1)}, "config": {"model": {}}}, path)
    with pytest.raises(CheckpointError, match=r"best.pt: what it says of its network was written by another version"):
        load(path)
    with pytest.raises(WeightsError, match="cannot be read"):
        load(tmp_path / "none.pt")


@pytest.mark.parametrize("system", ["ours", "yolact"])
def test_a_bare_state_dict_of_ours(system: str, tmp_path: Path) -> None:
    """It says nothing of its network, which the caller builds."""
    path = tmp_path / "state.pth"
    model = small_model(system)
    state = random_network(model).state_dict()
    torch.save(state, path)
    if system == "ours":
        with pytest.raises(CheckpointError, match=r"does not say which network .*open_weights\(path\).fill\(network\)"):
            load(path)
    network = build(model)
    open_weights(path).fill(network)
    assert all(torch.equal(state[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("system", ["ours", "detectron2", "yolact", "yolact++"])
def test_a_description_comes_back(system: str) -> None:
    model = small_model(system)
    assert read_description(describe(model, NAMES)) == (model, NAMES)


@pytest.mark.slow
def test_other_content_is_one_message(tmp_path: Path) -> None:
    """Whatever stands in a run's checkpoint in place of what should: it opens and works, or says why not."""
    state = torch.load(write_trained(tmp_path / "run.pt"), weights_only=True)
    state |= {"version": 1, "average": {"rpn.objectness.bias": state["model"]["rpn.objectness.bias"]}}
    path = tmp_path / "changed.pt"
    refused = tried = 0
    for number, at in enumerate(places(state, 5, most=4)):
        for new in [MISSING, *WRONG] if len(at) == 1 else [MISSING if number % 2 else WRONG[number % len(WRONG)]]:
            torch.save(replaced(state, at, new), path)
            tried += 1
            try:
                open_weights(path).predictor(device="cpu")
            except (CheckpointError, WeightsError) as error:
                refused += "changed.pt" in str(error)
            except Exception as error:
                raise AssertionError(f"{at} is {new}: {error!r}") from error
    assert refused > tried / 4


def test_a_later_version_is_named(tmp_path: Path) -> None:
    state = torch.load(write_trained(tmp_path / "run.pt"), weights_only=True)
    torch.save({**state, "version": 2, "written_by": "det-engine 9.1"}, tmp_path / "run.pt")
    with pytest.raises(CheckpointError, match=r"version 2 of the format, written by det-engine 9\.1; update"):
        open_weights(tmp_path / "run.pt")


@pytest.mark.parametrize("system", SYSTEMS)
def test_numbers_that_are_not_finite_are_said(system: str, tmp_path: Path) -> None:
    path = write_trained(tmp_path / "weights", system)
    name = next(iter(open_weights(path).tensors.names))
    network = open_weights(path).build()
    with torch.no_grad():
        network.get_parameter(name)[(0,) * network.get_parameter(name).ndim] = float("nan")
    torch.save({"format": "det-engine checkpoint", "version": 1, "model": network.state_dict()}, path)
    with pytest.raises(
        CheckpointError, match=rf"1 of its .* tensors holds numbers that are not finite, such as {re.escape(name)}"
    ):
        open_weights(path)


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("backbone", "width", 10**6),
        ("backbone", "width", 10**15),
        ("backbone", "pyramid_channels", 10**9),
        ("detector", "num_classes", 10**9),
        ("box", "channels", 10**9),
        ("box", "convs", 10**9),
        ("mask", "channels", 10**6),
        ("mask", "convs", 10**9),
        ("rpn", "convs", 10**9),
        ("box", "layers", 10**9),
        ("box", "pool.size", 10**9),
        ("mask", "pool.size", 10**9),
        ("box", "pool.sampling_ratio", 10**9),
        ("mask", "pool.levels", 10**9),
    ],
)
def test_a_network_larger_than_memory_is_refused_before_it_takes_any(
    tmp_path: Path, part: str, field: str, value: int
) -> None:
    state = torch.load(write_trained(tmp_path / "run.pt"), weights_only=True)
    model = state["config"]["model"]
    *outer, field = field.split(".")
    owner = model["detector"][part] if part in ("box", "mask", "rpn") else model[part]
    (owner[outer[0]] if outer else owner)[field] = value
    torch.save(state, tmp_path / "run.pt")
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=r"cannot be (built|read)[^\n]*$"):
        open_weights(tmp_path / "run.pt").build()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


@pytest.mark.parametrize(
    "change",
    [{"resize": {"shortest": [10**6], "longest": 10**6, "rule": "torchvision"}}, {"buckets": [[10**6, 10**6]]}],
)
def test_pictures_larger_than_memory_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    state = torch.load(write_trained(tmp_path / "run.pt"), weights_only=True)
    state["config"]["model"] |= change
    torch.save(state, tmp_path / "run.pt")
    with pytest.raises(CheckpointError, match=r"it sees pictures of 1000000 x 1000000 pixels"):
        open_weights(tmp_path / "run.pt").build()


def test_a_description_says_which_branches_there_are() -> None:
    """Those of earlier versions name a branch that is not there, too."""
    model = small_model(keypoints=True)
    found, _ = read_description(describe(model, NAMES))
    assert (found, found.tasks) == (model, ("bbox", "keypoints"))
    plain = small_model()
    values = describe(plain, NAMES)
    values["model"]["detector"]["keypoints"] = None
    assert read_description(values) == (plain, NAMES)


def test_a_description_of_other_classes_is_refused() -> None:
    """Before a training begins that the data's labels would break, or teach nothing."""
    for names in (dict(list(NAMES.items())[:2]), {**NAMES, 9: "cow"}):
        with pytest.raises(OptionError, match=rf"as many as .* 3, got {len(names)}. Build it with num_classes"):
            describe(small_model(), names)


def test_a_branch_that_nobody_imported_is_named() -> None:
    values = describe(small_model(), NAMES)
    values["model"]["detector"]["quality"] = {"pool": 7}
    with pytest.raises(CheckpointError, match="has quality, which nothing here knows: import the module"):
        read_description(values)
