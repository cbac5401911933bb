"""Wrong input ends with status 2 and one message that names what is wrong; what can be mended goes on, counted."""

import json
import logging
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from det_engine import checkpoint
from testing.command_line import APPS, call, process, read, small, train

Edit = Callable[[dict[str, Any]], None]


@pytest.fixture
def data(shapes: Path, tmp_path: Path) -> Path:
    """A copy of the data set to spoil."""
    root = tmp_path / "data"
    shutil.copytree(shapes, root)
    return root


@pytest.fixture
def refuse(tmp_path, capsys, monkeypatch):
    """Call a command that must fail, and give its one message, which must name all of `names`."""
    monkeypatch.chdir(tmp_path)  # runs/ is made in the current folder

    def check(*names: object, command: Callable[..., int] | None = None, args: tuple = (), app="mask_rcnn") -> str:
        capsys.readouterr()
        status = command() if command is not None else call(app, *args)
        output = capsys.readouterr()
        assert status == 2
        assert output.err.startswith("error: "), output.err
        assert output.err.count("\n") == 1, output.err
        assert "Traceback" not in output.err + output.out
        assert output.err.rstrip().endswith((".", "?")), output.err
        for name in names:
            assert str(name) in output.err
        return output.err

    return check


@pytest.fixture
def refuse_data(refuse, data, tmp_path):
    """Training on the spoilt data set must fail, and leave no run behind."""

    def check(*names: object, options: tuple = (), run_exists: bool = False) -> str:
        message = refuse(*names, command=lambda: train("mask_rcnn", data, tmp_path / "run", *options))
        assert (tmp_path / "run").exists() == run_exists
        return message

    return check


def edit(root: Path, change: Edit, split: str = "train") -> Path:
    """Change an annotation file and give its path."""
    file = root / "annotations" / f"instances_{split}.json"
    content = read(file)
    change(content)
    file.write_text(json.dumps(content))  # writes NaN as NaN, as many tools do
    return file


def first_image(root: Path, split: str = "train") -> Path:
    """Path of the first picture."""
    return root / split / read(root / "annotations" / f"instances_{split}.json")["images"][0]["file_name"]


# folders and files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("app", APPS)
@pytest.mark.parametrize("command", ["train", "benchmark"])
def test_a_missing_directory(app, command, refuse, tmp_path):
    missing = tmp_path / "nowhere"
    assert "does not exist" in refuse(missing, args=(command, "--data", missing), app=app)


def test_a_directory_that_is_no_data_set(refuse, tmp_path):
    assert "instances_train2017.json" in refuse(tmp_path, args=("train", "--data", tmp_path))


def test_a_missing_split(refuse_data, data):
    (data / "annotations" / "instances_train.json").rename(data / "annotations" / "instances_2019.json")
    assert "it has: 2019, val. Name the one to use: --data.train-split." in refuse_data(data)


def test_a_missing_image_folder(refuse_data, data):
    shutil.rmtree(data / "val")
    refuse_data(data / "val", data / "annotations" / "instances_val.json")


def test_truncated_json(refuse_data, data):
    file = data / "annotations" / "instances_train.json"
    text = file.read_text()
    file.write_text(text[: len(text) // 2])
    assert "truncated" in refuse_data(file)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1, 2]", "it holds a list"),
        ('{"images": [], "annotations": []}', "the key 'categories' is missing"),
        ('{"shapes": []}', "the key 'images' is missing"),
        ("<annotation/>", "not valid JSON"),
        ("", "is empty"),
    ],
)
def test_json_that_is_not_coco(text, says, refuse_data, data):
    file = data / "annotations" / "instances_train.json"
    file.write_text(text)
    assert says in refuse_data(file)


def test_a_field_that_is_missing_or_of_another_type(refuse_data, data):
    file = edit(data, lambda content: content["annotations"][1].pop("category_id"))
    assert "has no 'category_id'" in refuse_data(file)
    edit(data, lambda content: content["annotations"][1].update(category_id=1))
    edit(data, lambda content: content["images"][1].update(height="tall"))
    assert "'height'" in refuse_data(file, "tall")


def test_a_file_that_is_no_picture(refuse, mask_rcnn_run, tmp_path):
    (tmp_path / "a.jpg").write_text("no picture")
    weights = ("--weights", mask_rcnn_run / "checkpoints" / "best.pt", "--output", tmp_path / "out")
    assert "no picture" in refuse(tmp_path / "a.jpg", args=("predict", "--strict", *weights, tmp_path))


# pictures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_missing_image(split, refuse_data, data):
    first_image(data, split).unlink()
    refuse_data(first_image(data, split).name, data / "annotations" / f"instances_{split}.json", data / split)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_truncated_jpeg(workers, refuse_data, data):
    picture = first_image(data)
    picture.write_bytes(picture.read_bytes()[:700])
    options = ("--data.workers", workers, "--solver.steps", 7)  # every picture is seen
    assert "truncated" in refuse_data(picture, options=options, run_exists=True)


def test_a_picture_of_another_size_than_the_file_says(refuse_data, data):
    picture = first_image(data)
    with Image.open(picture) as image:
        width, height = image.size
        image.resize((width + 5, height)).save(picture)
    message = refuse_data(picture, options=("--solver.steps", 7), run_exists=True)
    assert f"{width + 5} x {height}" in message
    assert f"{width} x {height}" in message


# annotations -------------------------------------------------------------------------------------------------------


def test_zero_area_and_outside_boxes_are_dropped_and_counted(data, tmp_path, caplog):
    def spoil(content: dict[str, Any]) -> None:
        flat, outside, across = content["annotations"][:3]
        flat["bbox"][2] = 0
        outside["bbox"] = [5000.0, 5000.0, 10.0, 10.0]
        across["bbox"] = [-30.0, -30.0, 500.0, 500.0]

    file = edit(data, spoil)
    with caplog.at_level(logging.WARNING):
        assert train("mask_rcnn", data, tmp_path / "run", "--pictures", 0) == 0
    warnings = [record.getMessage() for record in caplog.records if " box" in record.getMessage()]
    dropped, clipped = warnings
    assert str(file) in dropped
    assert "dropped 2 boxes without area inside the image" in dropped
    assert "clipped 1 box reaching outside the image" in clipped
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        assert all(math.isfinite(value) for key, value in json.loads(line).items() if key.startswith("loss"))


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["bbox", "segmentation"])
def test_coordinates_that_are_no_numbers(where, value, refuse_data, data):
    def spoil(content: dict[str, Any]) -> None:
        record = next(a for a in content["annotations"] if isinstance(a["segmentation"], list))
        record["id"] = 987_654
        values = record["bbox"] if where == "bbox" else record["segmentation"][0]
        values[1] = value

    file = edit(data, spoil)
    assert "NaN, infinite" in refuse_data(file, "annotation 987654")


def test_an_unknown_category(refuse_data, data):
    file = edit(data, lambda content: content["annotations"][4].update(category_id=4711))
    assert "lacks the categories of 1 annotation" in refuse_data(file, 4711)


def test_an_annotation_of_an_unknown_image(refuse_data, data):
    file = edit(data, lambda content: content["annotations"][4].update(image_id=4711))
    refuse_data(file, "image_id 4711")


def test_splits_with_different_categories(refuse_data, data):
    val = edit(data, lambda content: content["categories"][0].update(name="gizmo"), "val")
    assert "different categories" in refuse_data(data / "annotations" / "instances_train.json", val, "gizmo")


def test_a_data_set_without_objects(refuse_data, data):
    file = edit(data, lambda content: content["annotations"].clear())
    refuse_data(file, "no object")


def test_a_data_set_without_masks_is_for_box_detectors(refuse_data, data, tmp_path):
    for split in ("train", "val"):
        file = edit(data, lambda content: [a.pop("segmentation") for a in content["annotations"]], split)
    assert "without masks" in refuse_data(file.with_name("instances_train.json"), run_exists=True)
    assert train("faster_rcnn", data, tmp_path / "boxes", "--pictures", 0) == 0


def test_more_objects_than_slots(refuse_data, data, tmp_path, caplog):
    content = read(data / "annotations" / "instances_train.json")
    counts: dict[int, int] = {}
    for annotation in content["annotations"]:
        counts[annotation["image_id"]] = counts.get(annotation["image_id"], 0) + 1
    most = max(counts.values())
    options = ("--data.max-instances", most - 1)
    message = refuse_data("Image", data / "annotations" / "instances_train.json", options=options, run_exists=True)
    assert f"{most} instances" in message
    assert "max_instances" in message
    assert "drop_excess" in message
    with caplog.at_level(logging.WARNING):
        options = (*options, "--data.drop-excess", "True", "--pictures", 0)
        assert train("mask_rcnn", data, tmp_path / "dropped", *options) == 0
    images = sum(count == most for count in counts.values())
    logged = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert len(logged) == 1
    plural = "s" * (images > 1)
    assert f"{images} object{plural} in {images} image{plural} with more than fits" in logged[0]


def test_resuming_on_data_that_changed(refuse, data, tmp_path):
    run = tmp_path / "run"
    assert train("faster_rcnn", data, run, "--pictures", 0) == 0
    edit(data, lambda content: content["annotations"].pop())
    message = refuse(args=("train", "--resume", run, "--solver.steps", 5), app="faster_rcnn")
    assert "other data" in message


def test_an_embedded_data_set_that_cannot_be_written(refuse, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DET_CACHE", str(tmp_path / "file" / "cache"))
    assert "DET_CACHE" in refuse(tmp_path / "file" / "cache", args=("train",))


# checkpoints -------------------------------------------------------------------------------------------------------


def test_a_checkpoint_of_another_architecture(refuse, mask_rcnn_run, shapes, tmp_path):
    weights = mask_rcnn_run / "checkpoints" / "best.pt"
    other = ("--weights", weights, "--backbone.pyramid-channels", 24)
    message = refuse(weights, command=lambda: train("mask_rcnn", shapes, tmp_path / "run", *other))
    assert "another architecture" in message
    assert "(16," in message
    assert "(24," in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["eval", "predict"])
def test_a_checkpoint_of_another_app(command, refuse, mask_rcnn_run, shapes):
    weights = mask_rcnn_run / "checkpoints" / "best.pt"
    rest = ("--data", shapes) if command == "eval" else (shapes / "val",)
    message = refuse(weights, args=(command, "--weights", weights, *rest), app="faster_rcnn")
    assert "is of mask_rcnn, not of faster_rcnn. Use apps/mask_rcnn." in message


def test_a_damaged_checkpoint(refuse, mask_rcnn_run, shapes, tmp_path):
    content = (mask_rcnn_run / "checkpoints" / "best.pt").read_bytes()
    short, flipped, foreign = tmp_path / "short.pt", tmp_path / "flipped.pt", tmp_path / "foreign.pt"
    short.write_bytes(content[: len(content) // 2])
    middle = len(content) // 2
    flipped.write_bytes(content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :])
    torch.save({"weight": torch.zeros(3)}, foreign)
    for file in (short, flipped, foreign):
        refuse(file, args=("eval", "--weights", file, "--data", shapes))


def test_a_checkpoint_that_another_version_wrote(refuse, mask_rcnn_run, shapes, tmp_path):
    state = checkpoint.load(mask_rcnn_run / "checkpoints" / "best.pt")
    state["config"]["model"]["detector"]["bogus"] = 1
    checkpoint.save(tmp_path / "old.pt", state)
    message = refuse(tmp_path / "old.pt", args=("eval", "--weights", tmp_path / "old.pt", "--data", shapes))
    assert "another version" in message


# options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("train", "--recipe", "mask_rcnn_r50_1x_fpn"), "Did you mean 'mask_rcnn_r50_fpn_1x'?"),
        (("train", "--recipe"), "--recipe needs a value"),
        (("train", "--solver.base-learning-rate", "0.1"), "--solver.base-learning-rate"),
        (("train", "--solver.baselr", "0.1"), "Did you mean --solver.base-lr?"),
        (("train", "--lr", "0.1"), "it is --solver.base-lr"),
        (("train", "--data.bach", "2"), "Did you mean --data.batch?"),
        (("train", "--solver.steps", "many"), "--solver.steps"),
        (("train", "--train.precision", "fp8"), "--train.precision"),
        (("train", "--data.batch", "0"), "batch must be at least 1, got 0"),
        (("train", "--solver.base-lr", "nan"), "Option --solver.base-lr must be positive, got nan"),
        (("train", "pictures/"), "Unexpected argument 'pictures/'"),
        (("benchmark", "--steps", "0"), "steps must be at least 1, got 0"),
        (("benchmark", "--warmup", "-1"), "warmup must be at least 0, got -1"),
        (("benchmark", "--data.batch", "0"), "batch must be at least 1, got 0"),
        (("eval", "--weights", "x.pt", "--batch", "0"), "batch must be at least 1, got 0"),
        (
            ("predict", "--weights", "x.pt", "--max-detections", "0", "x.png"),
            "--max-detections must be at least 1, got 0",
        ),
        (("eval", "--weights", "x.pt"), "x.pt"),
        (("benchmark", "--step", "2"), "Did you mean --steps?"),
        (("eval", "--weigths", "x.pt"), "Did you mean --weights?"),
        (("predict", "--wights", "x.pt", "a.jpg"), "Did you mean --weights?"),
        (("trainn",), "Did you mean 'train'?"),
    ],
)
def test_unknown_options_and_values(args, says, refuse):
    assert says in refuse(args=args)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--detector.rpn.samples 0", "Option --detector.rpn.samples must be positive, got 0"),
        ("--detector.mask.channels 0", "Option --detector.mask.channels must be positive"),
        ("--detector.pixels.std 0 1 1", "pixels.std"),
        ("--data.train-sizes 0", "Option --data.train-sizes must hold"),
        ("--data.flip 2", "flip"),
        ("--data.max-instances 0", "--data.max-instances must be at least 1"),
        ("--data.buckets 32 32", "Add one of at least 96 x 96"),
        ("--backbone.width 0", "width must be positive"),
        ("--backbone.pyramid-channels 0", "--backbone.pyramid-channels must be at least 1"),
        ("--backbone.freeze-at 9", "freeze_at"),
        ("--train.seed -1", "Option --train.seed must be at least 0"),
        ("--train.log-interval 0", "Option --train.log-interval must be at least 1"),
        ("--train.precision tf32", "use fp32 or bf16 on the CPU"),
        ("--data.val-split nope", "has no split 'nope'"),
        ("--data.batch 0", "Option --data.batch must be at least 1, got 0"),
        ("--solver.steps 0", "Option --solver.steps must be at least 1, got 0"),
        ("--solver.milestones 9 3", "Option --solver.milestones must be steps in rising order, got (9, 3)"),
    ],
)
def test_values_that_make_no_sense(options, says, refuse, shapes, tmp_path):
    if "tf32" in options and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    message = refuse(command=lambda: train("mask_rcnn", shapes, tmp_path / "run", *options.split()))
    assert says in message


@pytest.mark.parametrize("device", ["cuda", "npu", "cuda:99", "tpu"])
@pytest.mark.parametrize("command", ["train", "eval", "predict", "benchmark"])
def test_a_device_that_is_not_there(command, device, refuse, shapes, mask_rcnn_run, tmp_path):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    if device == "npu" and hasattr(torch, "npu") and torch.npu.is_available():
        pytest.skip("there is an NPU")
    weights = ("--weights", mask_rcnn_run / "checkpoints" / "best.pt")
    rest = {
        "train": ("--data", shapes, "--output", tmp_path / "run", *small("mask_rcnn")),
        "eval": ("--data", shapes, *weights),
        "predict": (*weights, first_image(shapes)),
        "benchmark": ("--data", shapes),
    }
    message = refuse(args=(command, "--device", device, *rest[command]))
    assert repr(device) in message
    assert not (tmp_path / "run").exists()


def test_an_installed_torch_npu_without_cann(tmp_path):
    """PyTorch imports an installed torch_npu by itself, and would end with a traceback of its own."""
    (tmp_path / "torch_npu.py").write_text("raise ImportError('libhccl.so: cannot open shared object file')")
    metadata = tmp_path / "torch_npu-2.14.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: torch_npu\nVersion: 2.14.0\n")
    (metadata / "entry_points.txt").write_text("[torch.backends]\ntorch_npu = torch_npu:_autoload\n")
    environment = {name: value for name, value in os.environ.items() if name != "TORCH_DEVICE_BACKEND_AUTOLOAD"}
    environment["PYTHONPATH"] = os.pathsep.join((str(tmp_path), str(Path(__file__).parents[1])))
    command = [sys.executable, "-m", "apps.mask_rcnn", "benchmark", "--device", "npu"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1800)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    missing = "CANN is probably missing or not sourced (set_env.sh): libhccl.so"
    assert (missing if torch.version.cuda is None else "is a CUDA build") in ended.stderr


# output ------------------------------------------------------------------------------------------------------------


def test_output_that_cannot_be_written(refuse, shapes, mask_rcnn_run, tmp_path):
    """Also true for the superuser, whom permissions do not stop: a file in the way."""
    file = tmp_path / "file"
    file.write_text("mine")
    for output in (file, file / "below"):
        refuse(output, command=lambda output=output: train("mask_rcnn", shapes, output))
        weights = ("--weights", mask_rcnn_run / "checkpoints" / "best.pt")
        refuse(output, args=("eval", *weights, "--data", shapes, "--output", output))
        refuse(output, args=("predict", *weights, "--output", output, first_image(shapes)))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "thesis.tex").write_text("mine")
    message = refuse(folder, command=lambda: train("mask_rcnn", shapes, folder))
    assert "thesis.tex" in message
    assert file.read_text() == "mine"
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]


@pytest.mark.slow
def test_one_line_and_no_traceback_in_a_process_too(data):
    """Outside pytest nothing else writes to stderr: no warning of a library, no log line."""
    first_image(data).unlink()
    child = process("faster_rcnn", "train", "--data", data, *small("faster_rcnn"))
    _, err = child.communicate(timeout=900)
    assert child.returncode == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
