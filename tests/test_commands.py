"""What the commands do, what they print, and what they leave."""

import json
import os
import re
import signal
import traceback
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image

import apps.common.train as train_command
from apps.common.commands import COMMANDS
from apps.common.config import TwoStageRecipe, from_dict
from det_engine import checkpoint
from det_heads import TwoStageDetector
from testing import ROOT
from testing.command_line import APPS, SMALL, call, process, read, small, train
from testing.comparing import assert_same

TIMES = {"images_per_second", "step_seconds", "data_seconds", "host_seconds", "peak_memory_mib", "seconds"}


def metrics(run: Path) -> list[dict]:
    """Lines of metrics.jsonl without times."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def error(capsys: pytest.CaptureFixture[str]) -> str:
    """The one message of a command that failed."""
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert text.count("\n") == 1, text
    assert "Traceback" not in text
    return text


# recipes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("app", APPS)
def test_recipes_are_listed_and_shown(app, capsys, monkeypatch):
    assert call(app, "recipes") == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == list(APPS[app].recipes)
    assert listed[0].startswith("tiny ")
    assert all(len(line.split(None, 1)) == 2 for line in listed)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert call(app, "recipes") == 0
    folded = capsys.readouterr().out
    assert max(map(len, folded.splitlines())) <= 80
    assert folded.split() == " ".join(listed).split()
    for name, make in APPS[app].recipes.items():
        assert call(app, "recipes", name) == 0
        assert from_dict(json.loads(capsys.readouterr().out), type(make())) == make(), name


def test_wrong_names_are_answered_with_the_nearest(capsys):
    assert call("mask_rcnn", "recipes", "mask_rcnn_r50_fpn_x1") == 2
    assert "Did you mean 'mask_rcnn_r50_fpn_1x'?" in error(capsys)
    assert call("faster_rcnn", "trian") == 2
    assert "Did you mean 'train'?" in error(capsys)
    assert call("faster_rcnn", "recipes", "a", "b") == 2
    assert "one name" in error(capsys)


def test_help_lists_commands_and_options(capsys):
    assert call("mask_rcnn") == 0
    out = capsys.readouterr().out
    assert all(f"\n  {name} " in out for name in ("train", "eval", "predict", "benchmark", "recipes"))
    assert call("mask_rcnn", "train", "--help") == 0
    out = capsys.readouterr().out
    for option in ("--recipe", "--data", "--weights", "--output", "--device", "--resume", "--solver.base-lr"):
        assert option in out


# train -----------------------------------------------------------------------------------------------------------


def test_the_way_from_the_command_to_the_model_is_short(shapes, tmp_path, monkeypatch):
    """Eight functions of ours, so that a traceback out of the model can be read."""
    forward = TwoStageDetector.forward
    ways = []

    def noting(*args, **options):
        ways.append([frame for frame in traceback.extract_stack() if is_ours(Path(frame.filename))])
        return forward(*args, **options)

    def is_ours(path):
        return path.is_relative_to(ROOT / "apps") or path.is_relative_to(ROOT / "packages")

    monkeypatch.setattr(TwoStageDetector, "forward", noting)
    assert train("faster_rcnn", shapes, tmp_path / "run", "--solver.steps", 1, "--pictures", 0) == 0
    names = [frame.name for frame in ways[0]]
    assert names[0] == "main"
    assert len(names) == 8, names


def test_help_of_the_commands_that_use_a_detector_is_short_too(capsys):
    for command in ("eval", "predict"):
        first = COMMANDS[command].first
        assert call("mask_rcnn", command, "--help") == 0
        short = capsys.readouterr().out
        assert all(f"{option} " in short for option in first)
        assert len(re.findall(r"^. --", short, flags=re.MULTILINE)) == len(first) == 10
        assert "--precision" not in short
        assert call("mask_rcnn", command, "--help", "general") == 0
        assert "--precision" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_keeps_to_80_columns(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert call("mask_rcnn", command, "--help") == 0
    assert [line for line in capsys.readouterr().out.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("command", ["train", "benchmark"])
@pytest.mark.parametrize("app", ["mask_rcnn", "yolact"])
def test_help_is_short_and_goes_on_by_section(app, command, capsys):
    first = COMMANDS[command].first
    assert call(app, command, "--help") == 0
    short = " ".join(capsys.readouterr().out.split())
    assert short.count("(default:") == len(first) <= 11
    assert all(f"{option} " in short for option in first)
    assert call(app, command, "--help", "train") == 0
    assert "--train.seed" in capsys.readouterr().out


def test_help_of_a_section_is_that_of_the_recipe(capsys):
    assert call("mask_rcnn", "train", "--help") == 0
    short = capsys.readouterr().out
    for section in ("backbone", "detector.rpn", "detector.mask", "data", "solver", "train"):
        assert f"\n  {section} " in short
    assert call("mask_rcnn", "train", "--recipe", "mask_rcnn_r50_fpn_1x", "--help", "solver") == 0
    assert "--solver.warmup-factor" in capsys.readouterr().out


def test_a_run_leaves_everything(mask_rcnn_run, shapes):
    run = mask_rcnn_run
    assert {path.name for path in run.iterdir()} == {
        "checkpoints", "config.json", "curves.png", "environment.json", "metrics.jsonl", "pictures", "predictions.json",
        "report.html", "results.json", "tensorboard",
    }  # fmt: skip
    config = read(run / "config.json")
    assert config["app"] == "mask_rcnn"
    assert config["data"] == str(shapes)
    recipe = from_dict(config["recipe"], TwoStageRecipe)
    assert recipe.solver.steps == 4
    assert recipe.data.batch == 2
    assert recipe.data.buckets, "the resolved configuration spells the buckets out"
    assert recipe.detector.num_classes == len(config["categories"]) == 6
    environment = read(run / "environment.json")
    assert {"torch", "det-ops", "det-backbones", "det-heads", "det-coco", "det-engine"} <= environment[
        "versions"
    ].keys()

    lines = metrics(run)
    assert [(line["kind"], line["step"]) for line in lines] == [("train", 2), ("train", 4), ("evaluation", 4)]
    losses = {"loss", "loss_rpn_cls", "loss_rpn_box", "loss_cls", "loss_box", "loss_mask"}
    assert all(losses <= line.keys() for line in lines[:2])
    assert {"bbox/AP", "bbox/AP50", "segm/AP", "segm/AP50"} <= lines[-1].keys()
    assert any(path.name.startswith("events.out.tfevents") for path in (run / "tensorboard").iterdir())

    results = read(run / "results.json")
    assert results["steps"] == 4
    assert results["images_per_second"] > 0
    for task in ("bbox", "segm"):
        assert {"AP", "AP50", "AP75", "APs", "APm", "APl"} <= results[task].keys()
        assert all(-1 <= value <= 1 for value in results[task].values())
    rows = read(run / "predictions.json")
    truth = read(shapes / "annotations" / "instances_val.json")
    assert rows
    assert {row["image_id"] for row in rows} <= {image["id"] for image in truth["images"]}
    assert {row["category_id"] for row in rows} <= {category["id"] for category in truth["categories"]}
    assert all({"bbox", "score", "segmentation"} <= row.keys() for row in rows)
    pictures = sorted((run / "pictures").iterdir())
    assert len(pictures) == 4
    with Image.open(pictures[0]) as picture:
        assert picture.width >= 2 * 76
    for name in ("last", "best"):
        state = checkpoint.load(run / "checkpoints" / f"{name}.pt")
        assert state["step"] == 4
        assert all(value.isfinite().all() for value in state["model"].values())


def test_faster_rcnn_has_no_masks(faster_rcnn_run):
    results, rows = read(faster_rcnn_run / "results.json"), read(faster_rcnn_run / "predictions.json")
    assert "bbox" in results
    assert "segm" not in results
    assert rows
    assert all("segmentation" not in row for row in rows)
    assert "loss_mask" not in metrics(faster_rcnn_run)[0]


def test_rates_and_steps_follow_the_batch_and_explicit_options_win(shapes, tmp_path, capsys):
    arguments = ["train", "--data", shapes, *SMALL, "--train.log-interval", "1", "--solver.base-lr", "0.003"]
    assert call("faster_rcnn", *arguments, "--solver.steps", "1", "--output", tmp_path / "run", "--pictures", "0") == 0
    out = capsys.readouterr().out
    assert "Batch 2 instead of 8: learning rate 0.04 -> 0.01, steps 750 -> 3000" in out
    assert "Set by options instead: learning rate 0.003, 1 steps." in out
    recipe = from_dict(read(tmp_path / "run" / "config.json")["recipe"], TwoStageRecipe)
    assert (recipe.solver.base_lr, recipe.solver.steps, recipe.solver.reference_batch) == (0.003, 1, 2)
    assert recipe.solver.milestones == (1, 1)  # in proportion to the steps
    assert recipe.solver.warmup_steps == 400
    assert recipe.train.evaluation_interval == 1000
    assert not (tmp_path / "run" / "pictures").exists() or not any((tmp_path / "run" / "pictures").iterdir())
    assert out.count("AP50") == 1
    assert call("faster_rcnn", "train", "--resume", tmp_path / "run", "--pictures", "0") == 0
    assert capsys.readouterr().out.count("AP50") == 1  # of the run that had ended, evaluated once more


def test_a_run_is_not_overwritten(mask_rcnn_run, shapes, capsys):
    before = (mask_rcnn_run / "metrics.jsonl").read_bytes()
    capsys.readouterr()
    assert train("mask_rcnn", shapes, mask_rcnn_run) == 2
    assert f"--resume {mask_rcnn_run}" in error(capsys)
    assert (mask_rcnn_run / "metrics.jsonl").read_bytes() == before


# resume ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("app", APPS)
def test_stopped_and_resumed_equals_uninterrupted_bit_for_bit(app, shapes, tmp_path, monkeypatch, capsys):
    """Ctrl-C after the third of six steps, between log lines; weights, momenta, random state and metrics are equal."""
    options = ("--solver.steps", 6, "--train.log-interval", 2, "--pictures", 0)
    whole, part = tmp_path / "whole", tmp_path / "part"
    assert train(app, shapes, whole, *options) == 0
    batches = train_command.training_batches

    def interrupted(*args, **kwargs):
        for number, batch in enumerate(batches(*args, **kwargs)):
            if number == 2:
                os.kill(os.getpid(), signal.SIGINT)
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(train_command, "training_batches", interrupted)
        capsys.readouterr()
        assert train(app, shapes, part, *options) == 130
    message = capsys.readouterr().err
    assert "Traceback" not in message
    assert str(part / "checkpoints" / "last.pt") in message
    assert checkpoint.load(part / "checkpoints" / "last.pt")["step"] == 3
    assert not (part / "results.json").exists()

    torch.rand(7)  # nothing may come from the process
    assert call(app, "train", "--resume", part, "--pictures", 0) == 0
    one, other = (checkpoint.load(run / "checkpoints" / "last.pt") for run in (whole, part))
    for entry in ("model", "optimizer", "history"):
        assert_same(one[entry], other[entry], skip=TIMES)
    assert metrics(whole) == metrics(part)
    assert read(whole / "predictions.json") == read(part / "predictions.json")
    assert read(whole / "config.json") == read(part / "config.json")


def test_what_a_resumed_run_would_ignore_is_refused(mask_rcnn_run, faster_rcnn_run, tmp_path, capsys):
    capsys.readouterr()
    for option, value in (
        ("--recipe", "scratch_small"),
        ("--config", mask_rcnn_run / "config.json"),
        ("--weights", "none"),
        ("--weights-parts", "backbone"),
        ("--drop-mismatched", "True"),
        ("--drop-class-head", "True"),
        ("--output", tmp_path / "other"),
    ):
        assert call("mask_rcnn", "train", "--resume", mask_rcnn_run, option, value) == 2
        assert option in error(capsys)
    assert call("mask_rcnn", "train", "--resume", faster_rcnn_run) == 2
    assert "Use apps/faster_rcnn." in error(capsys)
    assert call("mask_rcnn", "train", "--resume", tmp_path / "nowhere") == 2
    assert str(tmp_path / "nowhere") in error(capsys)


@pytest.mark.slow
def test_ctrl_c_in_a_process_leaves_a_checkpoint_that_resumes(shapes, tmp_path, capsys):
    run = tmp_path / "run"
    arguments = ["--data", shapes, "--output", run, *small("faster_rcnn"), "--train.log-interval", 1]
    child = process("faster_rcnn", "train", *arguments, "--solver.steps", 100_000)
    try:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith("step 2/"):
                break
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=900)
    finally:
        child.kill()
    assert child.returncode == 130, err
    assert "Traceback" not in err
    step = checkpoint.load(run / "checkpoints" / "last.pt")["step"]
    assert step >= 2
    assert call("faster_rcnn", "train", "--resume", run, "--solver.steps", step + 1, "--pictures", 0) == 0
    assert checkpoint.load(run / "checkpoints" / "last.pt")["step"] == step + 1
    assert read(run / "results.json")["steps"] == step + 1


# eval and predict ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("app", APPS)
def test_eval_reproduces_the_metrics_of_the_run(app, request, shapes, tmp_path, capsys):
    run = request.getfixturevalue(f"{app}_run")
    weights = run / "checkpoints" / "last.pt"
    assert call(app, "eval", "--weights", weights, "--data", shapes, "--output", tmp_path / "eval") == 0
    out = capsys.readouterr().out
    there, here = read(run / "results.json"), read(tmp_path / "eval" / "results.json")
    tasks = ("bbox",) if app in ("faster_rcnn", "retinanet") else ("bbox", "segm")
    for task in tasks:
        assert here[task] == there[task]
        assert f"\n{task} {here[task]['AP']:.3f} {here[task]['AP50']:.3f}" in out
    assert read(tmp_path / "eval" / "predictions.json") == read(run / "predictions.json")
    assert len(list((tmp_path / "eval" / "pictures").iterdir())) == 4
    # On the other split, one image at a time.
    arguments = ("--split", "train", "--batch", 1, "--pictures", 1, "--output", tmp_path / "train")
    assert call(app, "eval", "--weights", weights, "--data", shapes, *arguments) == 0
    assert len(list((tmp_path / "train" / "pictures").iterdir())) == 1


def test_eval_of_other_data_and_splits_says_so(mask_rcnn_run, shapes, tmp_path, capsys):
    weights = mask_rcnn_run / "checkpoints" / "best.pt"
    capsys.readouterr()
    assert call("mask_rcnn", "eval", "--weights", weights, "--data", shapes, "--split", "test") == 2
    assert "has no split 'test' (it has: train, val)" in error(capsys)
    file = tmp_path / "annotations" / "instances_val.json"
    file.parent.mkdir()
    content = read(shapes / "annotations" / "instances_val.json")
    content["categories"][0]["name"] = "unheard-of"
    file.write_text(json.dumps(content))
    (tmp_path / "val").symlink_to(shapes / "val")
    assert call("mask_rcnn", "eval", "--weights", weights, "--data", tmp_path, "--split", "val") == 2
    message = error(capsys)
    assert "unheard-of" in message
    assert str(weights) in message
    assert call("mask_rcnn", "eval", "--data", shapes) == 2
    assert "weights" in error(capsys)
    assert call("mask_rcnn", "eval", "--weights", tmp_path / "none.pt", "--data", shapes) == 2
    assert str(tmp_path / "none.pt") in error(capsys)


def test_predict_on_pictures_and_folders(mask_rcnn_run, shapes, tmp_path, capsys):
    weights = mask_rcnn_run / "checkpoints" / "best.pt"
    grey = tmp_path / "grey.png"
    Image.new("L", (70, 200), 90).save(grey)
    output = tmp_path / "out"
    arguments = ("--weights", weights, "--output", output, "--min-score", 0.0)
    assert call("mask_rcnn", "predict", *arguments, shapes / "val", grey) == 0
    out = capsys.readouterr().out
    paths = [*sorted((shapes / "val").iterdir()), grey]
    assert [line.partition(":")[0] for line in out.splitlines()[: len(paths)]] == [str(path) for path in paths]
    rows = read(output / "predictions.json")
    assert {row["image_id"] for row in rows} <= set(range(1, 6))
    sizes = {}
    for path in paths:
        with Image.open(path) as picture:
            sizes[str(path)] = picture.size
    for row in rows:
        width, height = sizes[row["file_name"]]
        x, y, w, h = row["bbox"]
        assert x >= 0
        assert y >= 0
        assert x + w <= width + 1e-3
        assert y + h <= height + 1e-3
        assert row["segmentation"]["size"] == [height, width]
    drawn = sorted((output / "pictures").iterdir())
    assert [path.name for path in drawn] == [f"{n:05d}-{path.stem}.png" for n, path in enumerate(paths, start=1)]
    # The same picture alone is detected as in the run's evaluation, but for rounding in another batch.
    assert call("mask_rcnn", "predict", "--weights", weights, "--output", tmp_path / "one", paths[0]) == 0
    alone = read(tmp_path / "one" / "predictions.json")
    together = [row for row in rows if row["image_id"] == 1]
    assert [row["score"] for row in alone] == pytest.approx([row["score"] for row in together], abs=1e-5)


def test_predict_without_anything_to_predict(mask_rcnn_run, tmp_path, capsys):
    weights = mask_rcnn_run / "checkpoints" / "best.pt"
    capsys.readouterr()
    assert call("mask_rcnn", "predict", "--weights", weights, tmp_path / "missing.jpg") == 2
    assert f"{tmp_path / 'missing.jpg'} does not exist" in error(capsys)
    assert call("mask_rcnn", "predict", "--weights", weights, tmp_path) == 2
    assert "holds no picture" in error(capsys)
    assert call("mask_rcnn", "predict", "--weights", weights) == 2
    assert "at least one picture" in error(capsys)


def test_benchmark_prints_its_figures(shapes, capsys):
    arguments = ("--data", shapes, "--steps", 2, "--warmup", 1, *small("mask_rcnn"))
    assert call("mask_rcnn", "benchmark", *arguments) == 0
    out = capsys.readouterr().out
    assert "mask_rcnn tiny, 2 images a step on cpu, fp32, medians of 2" in out
    for name in ("loading", "training step", "inference"):
        assert any(line.startswith(name) and line.endswith("images/s") for line in out.splitlines())
    assert any(line.startswith("frame by frame") and line.endswith("frames/s") for line in out.splitlines())


# weights ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory) -> Path:
    """ImageNet weights as torchvision saves them, but random."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), path)
    return path


def test_imagenet_weights_reach_the_backbone(resnet18, shapes, tmp_path, capsys):
    frozen = ("--backbone.width", 64, "--backbone.norm", "frozen_bn", "--backbone.freeze-at", 5)
    options = ("--weights", resnet18, *frozen, "--solver.steps", 1, "--pictures", 0)
    assert train("faster_rcnn", shapes, tmp_path / "run", *options) == 0
    assert f"Weights: backbone from {resnet18} (torchvision, 100 tensors)." in capsys.readouterr().out
    trained = checkpoint.load(tmp_path / "run" / "checkpoints" / "last.pt")["model"]
    original = torch.load(resnet18, weights_only=True)
    for name in ("conv1.weight", "layer3.1.conv2.weight", "layer4.0.downsample.1.running_var"):
        assert torch.equal(trained[f"backbone.body.{name}"], original[name])


def test_a_run_starts_from_the_weights_of_another(faster_rcnn_run, shapes, tmp_path, capsys):
    weights = faster_rcnn_run / "checkpoints" / "best.pt"
    capsys.readouterr()
    assert train("faster_rcnn", shapes, tmp_path / "run", "--weights", weights, "--solver.steps", 1) == 0
    assert f"Weights: {weights} (a run of ours)." in capsys.readouterr().out


def test_weights_of_another_network_or_convention_are_refused(resnet18, shapes, tmp_path, capsys):
    assert train("faster_rcnn", shapes, tmp_path / "run", "--weights", resnet18) == 2
    message = error(capsys)
    assert str(resnet18) in message
    assert "another network: ResNet-18, while this one is ResNet-18 of width 8" in message
    bgr = ("--backbone.width", 64, "--detector.pixels.order", "bgr")
    assert train("faster_rcnn", shapes, tmp_path / "run", "--weights", resnet18, *bgr) == 2
    message = error(capsys)
    assert "RGB pixels (the recipe feeds BGR)" in message
    assert "--detector.pixels" in message
    (tmp_path / "notes.pth").write_text("these are no weights")
    assert train("faster_rcnn", shapes, tmp_path / "run", "--weights", tmp_path / "notes.pth") == 2
    assert f"{tmp_path / 'notes.pth'} is not a weights file" in error(capsys)
    assert train("faster_rcnn", shapes, tmp_path / "run", "--weights", "resnet18.pth") == 2
    assert "Did you mean resnet18-f37072fd.pth?" in error(capsys)
    assert not (tmp_path / "run").exists()


def test_missing_weights_without_network_say_where_to_get_and_put_them(shapes, tmp_path, monkeypatch, capsys):
    for variable in ("DET_CACHE", "TORCH_HOME", "FVCORE_CACHE"):
        monkeypatch.setenv(variable, str(tmp_path / variable))

    def unreachable(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    recipe = ("--recipe", "mask_rcnn_r50_fpn_1x", "--output", tmp_path / "run", "--data", shapes)
    assert call("mask_rcnn", "train", *recipe) == 2
    message = error(capsys)
    assert "R-50.pkl could not be downloaded (no route to host)" in message
    assert "https://dl.fbaipublicfiles.com/detectron2/ImageNetPretrained/MSRA/R-50.pkl" in message
    assert str(tmp_path / "DET_CACHE" / "weights" / "R-50.pkl") in message
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_spelling_in_a_process_of_its_own():
    """`python -m apps.mask_rcnn`, which `hatch run apps/mask_rcnn` stands for; from another directory."""
    child = process("mask_rcnn", "train", "--recipe", "tinny", cwd="/")
    out, err = child.communicate(timeout=900)
    assert child.returncode == 2
    assert out == ""
    assert err.count("\n") == 1
    assert "Did you mean 'tiny'?" in err


@pytest.mark.parametrize("command", ["train", "eval", "benchmark"])
def test_no_process_is_refused(command, capsys):
    assert call("mask_rcnn", command, "--nproc", 0) == 2
    assert "The number of processes must be at least 1, got 0." in capsys.readouterr().err
