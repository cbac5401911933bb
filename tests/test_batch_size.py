"""Batches that fit into memory: measured, or named after one that did not."""

import re

import pytest
import torch

from apps.common import batch_size
from det_engine import TrainStep
from testing.command_line import STEPS, call, read, small, train


@pytest.mark.parametrize(
    ("options", "each", "tried", "words"),
    [
        ([], 200_000_000, 12, "About 7 would: --data.batch 7, or --train.accumulate 2"),
        # Parts of 6; what fits is a batch of two such parts.
        (["--train.accumulate", "2"], 400_000_000, 6, "About 3 would: --data.batch 6, or --train.accumulate 4"),
    ],
)
def test_a_batch_that_does_not_fit_says_which_would(shapes, tmp_path, monkeypatch, capsys, options, each, tried, words):
    def fails(self, *_):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(TrainStep, "__call__", fails)
    monkeypatch.setattr(batch_size, "step_memory", lambda *_: (100_000_000, each))
    monkeypatch.setattr(batch_size, "free_memory", lambda device: 2_000_000_000)
    assert train("mask_rcnn", shapes, tmp_path / "run", "--data.batch", "12", *options) == 2
    said = capsys.readouterr().err
    assert f"A step of {tried} images does not fit into the memory of cpu" in said
    assert f"{words} at the same result." in said


@pytest.mark.parametrize(
    ("each", "words"), [(3_000_000_000, "Not even one would"), (1_000_000, "About 11 would: --data.batch 11")]
)
def test_what_fits_at_the_ends(each, words, shapes, tmp_path, monkeypatch, capsys):
    def fails(self, *_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    monkeypatch.setattr(TrainStep, "__call__", fails)
    monkeypatch.setattr(batch_size, "step_memory", lambda *_: (100_000_000, each))
    monkeypatch.setattr(batch_size, "free_memory", lambda device: 2_000_000_000)
    assert train("mask_rcnn", shapes, tmp_path / "run", "--data.batch", "12") == 2
    assert words in capsys.readouterr().err


def test_auto_takes_what_two_measurements_say(shapes, tmp_path, monkeypatch, capsys):
    peaks = {1: 500 << 20, 2: 700 << 20}
    monkeypatch.setattr(batch_size, "_measured", lambda app, args, batch: peaks[batch])
    monkeypatch.setattr(batch_size, "free_memory", lambda device: 1500 << 20)
    options = ["--data", shapes, "--output", tmp_path / "run", *small("mask_rcnn"), *STEPS, "--pictures", "0"]
    assert call("mask_rcnn", "train", *options, "--data.batch", "auto") == 0
    assert read(tmp_path / "run" / "config.json")["recipe"]["data"]["batch"] == 4  # (0.8 * 1500 - 300) / 200
    assert "Batch 4, the largest that fits: an image takes about 0.2 GB in a step" in capsys.readouterr().out


def test_auto_is_for_one_process(monkeypatch, capsys):
    monkeypatch.setattr(batch_size.distributed, "is_launched", lambda: True)
    assert call("mask_rcnn", "train", "--data.batch", "auto") == 2
    assert "--data.batch auto is for one process" in capsys.readouterr().err


@pytest.mark.slow
def test_steps_are_measured(shapes, capsys):
    from testing.command_line import APPS

    options = ["--data", str(shapes), "--output", "nowhere", *small("mask_rcnn"), "--solver.steps", "4"]
    measured = batch_size._measured(APPS["mask_rcnn"], options, 2)
    assert 100 << 20 < measured < 8 << 30
    with pytest.raises(batch_size.EngineError, match=re.escape("a step of 1 cannot be measured: ")):
        batch_size._measured(APPS["mask_rcnn"], ["--data", "missing"], 1)
