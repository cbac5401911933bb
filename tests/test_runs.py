"""What a training says of options that other trainers have, of schedules and sizes that follow, and how it goes on."""

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from apps.common.consequences import HABITS, fitted_schedule, fitted_sizes
from apps.mask_rcnn.config import RECIPES
from det_engine import checkpoint
from det_engine.options import option_names
from testing.command_line import call, process, read, small, train


@pytest.mark.parametrize(
    ("option", "answer"),
    [
        ("--epochs", "a training is as long as --solver.steps, each of --data.batch images"),
        ("--batch_size", "it is --data.batch"),
        ("--lr=0.1", "it is --solver.base-lr"),
        ("--workers", "it is --data.workers"),
        ("--imgsz", "sizes are --data.train-sizes and --data.test-size"),
    ],
)
def test_options_of_other_trainers_are_known(option, answer, capsys):
    assert call("mask_rcnn", "train", option, *([] if "=" in option else ["2"])) == 2
    assert f"There is no option {option.partition('=')[0]}: {answer}" in capsys.readouterr().err


def test_what_stands_for_them_is_there():
    own = {*option_names(RECIPES["tiny"]()), "--data", "--output", "--recipe", "--weights", "--resume", "--nproc"}
    own |= {"--config", "--data.size"}
    named = {word.strip("(),.") for text in HABITS.values() for word in text.split() if word.startswith("--")}
    assert named <= own
    assert not own & HABITS.keys()


def test_milestones_follow_the_steps_and_that_is_said():
    recipe = RECIPES["tiny"]().solver
    args = ["--solver.steps", "200"]
    solver, line = fitted_schedule(recipe, replace(recipe, steps=200), args)
    assert (solver.milestones, line) == ((147, 181), " Milestones in proportion: 550, 680 -> 147, 181.")
    given = replace(recipe, steps=200, milestones=(100,))
    assert fitted_schedule(recipe, given, [*args, "--solver.milestones", "100"]) == (given, "")
    assert fitted_schedule(recipe, recipe, []) == (recipe, "")
    _, line = fitted_schedule(recipe, replace(recipe, steps=50), ["--solver.steps", "50"])
    assert "The learning rate is not reached: the warm-up takes 100 steps, and the training has 50" in line


def test_the_limit_of_the_longer_side_follows_larger_sizes_and_that_is_said():
    recipe = RECIPES["tiny"]().data
    args = ["--data.train-sizes", "256", "--data.test-size", "256"]
    larger = replace(recipe, train_sizes=(256,), test_size=256)
    data, line = fitted_sizes(recipe, larger, args)
    assert data.max_size == 341
    assert "may be 341 pixels, in proportion, and not 192" in line
    assert fitted_sizes(recipe, larger, [*args, "--data.max-size", "192"]) == (larger, "")
    smaller = replace(recipe, train_sizes=(64,), test_size=64)
    assert fitted_sizes(recipe, smaller, args) == (smaller, "")


def test_a_body_without_weights_is_not_frozen(shapes, tmp_path, capsys):
    options = ["--recipe", "faster_rcnn_r50_fpn_1x", "--weights", "none", "--backbone.depth", "18"]
    options += ["--backbone.stride-in-1x1", "False"]
    assert train("faster_rcnn", shapes, tmp_path / "run", *options) == 0
    out = capsys.readouterr().out
    assert "Without weights nothing of the body may be frozen: --backbone.freeze-at 0, --backbone.norm gn" in out
    backbone = read(tmp_path / "run" / "config.json")["recipe"]["backbone"]
    assert (backbone["freeze_at"], backbone["norm"]) == (0, "gn")


def test_an_interrupted_run_says_how_it_goes_on_and_a_changed_one_what_changed(shapes, tmp_path, capsys):
    output = tmp_path / "run"
    options = ["--data", shapes, "--output", output, *small("faster_rcnn"), "--solver.steps", "1000"]
    running = process("faster_rcnn", "train", *options, "--train.checkpoint-interval", "2", "--device", "cpu")
    end = time.monotonic() + 900
    while not (output / "checkpoints" / "last.pt").exists():
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < end
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=900)
    assert running.returncode == 130
    assert f"Go on with: hatch run apps/faster_rcnn train --resume {output}\n" in errors
    assert (output / "curves.png").exists()

    step = checkpoint.load(output / "checkpoints" / "last.pt")["step"]
    picture = next((shapes / "train").iterdir())
    os.utime(picture, ns=(0, picture.stat().st_mtime_ns + 10**9))
    assert call("faster_rcnn", "train", "--resume", output, "--solver.steps", step + 1) == 0
    assert "not what it was at that checkpoint: training pictures (sizes or dates)\n" in capsys.readouterr().out


def test_two_runs_at_once_have_two_folders(shapes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("apps.common.output.datetime", _Frozen)
    for _ in range(2):
        assert call("faster_rcnn", "train", "--data", shapes, *small("faster_rcnn"), "--solver.steps", "1") == 0
    runs = sorted(path.name for path in Path("runs/faster_rcnn").iterdir())
    assert runs == ["tiny-20261130-120000", "tiny-20261130-120000-2"]


class _Frozen:
    @staticmethod
    def now():
        from datetime import datetime

        return datetime(2026, 11, 30, 12)


def test_the_configuration_of_a_run_goes_in_as_it_came_out(shapes, faster_rcnn_run, tmp_path, capsys):
    config = faster_rcnn_run / "config.json"
    first = read(config)["recipe"]
    options = ["--data", shapes, "--output", tmp_path / "run"]
    assert call("faster_rcnn", "train", "--config", config, *options) == 0
    again = read(tmp_path / "run" / "config.json")["recipe"]
    assert again == first
    assert call("mask_rcnn", "train", "--config", config, *options) == 2
    assert "is of faster_rcnn, not of mask_rcnn" in capsys.readouterr().err
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps({"app": "faster_rcnn", "recipe": {**first, "solver": {"speed": 3}}}))
    assert call("faster_rcnn", "train", "--config", broken, *options) == 2
    assert "broken.json" in capsys.readouterr().err
