"""Detectors trained in two processes, started anew, with another batch, and with rates by layer."""

import dataclasses
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from det_coco import synthetic_dataset
from det_engine import build_optimizer, checkpoint, read_metrics
from testing import ROOT
from testing.command_line import APPS, call, process, read, small, train
from testing.processes import python


@pytest.mark.slow
def test_two_processes_train_and_evaluate_as_one(shapes, tmp_path):
    """Synchronised batch norm, random sampling, masks; and the losses of both halves are those of the whole batch."""
    steps = ["--solver.steps", 2, "--train.log-interval", 1, "--train.validation-batches", 1, "--pictures", 0]
    options = ["--data", shapes, *small("mask_rcnn"), "--backbone.norm", "sync_bn", "--device", "cpu", *steps]
    assert call("mask_rcnn", "train", "--output", tmp_path / "one", *options) == 0
    job = process("mask_rcnn", "train", "--output", tmp_path / "two", "--nproc", 2, *options)
    output, errors = job.communicate(timeout=900)
    assert job.returncode == 0, errors
    assert output.count("Final Performance images/sec") == 1
    one, two = (read_metrics(tmp_path / run / "metrics.jsonl") for run in ("one", "two"))
    assert [line["step"] for line in one] == [line["step"] for line in two] == [1, 2, 2]
    for name in [name for name in one[0] if name.startswith("loss")]:
        assert two[0][name] == pytest.approx(one[0][name], rel=1e-4), name
        # The second step samples among proposals whose order rounding may change.
        assert two[1][name] == pytest.approx(one[1][name], rel=1e-2), name
    states = [checkpoint.load(tmp_path / run / "checkpoints" / "last.pt")["model"] for run in ("one", "two")]
    torch.testing.assert_close(*states, rtol=1e-2, atol=1e-4)
    found = [len(read(tmp_path / run / "predictions.json")) for run in ("one", "two")]
    assert found[1] == pytest.approx(found[0], rel=0.1)


def rank_of(launcher, number):
    """Process id of a rank, once it is there."""
    end = time.monotonic() + 600
    while time.monotonic() < end:
        for children in Path(f"/proc/{launcher}/task").glob("*/children"):
            for child in children.read_text().split():
                if f"RANK={number}" in Path(f"/proc/{child}/environ").read_text().split("\0"):
                    return int(child)
        time.sleep(0.05)
    raise AssertionError("there is no such rank")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes as Linux shows them")
def test_an_evaluation_that_waits_for_a_stopped_process_names_it(faster_rcnn_run, tmp_path):
    data = synthetic_dataset(tmp_path / "data", train_images=1, val_images=400, size=96)
    options = ["--data", data, "--output", tmp_path / "eval", "--device", "cpu", "--nproc", 2, "--hang-seconds", 5]
    job = process("faster_rcnn", "eval", "--weights", faster_rcnn_run, *options)
    assert job.stdout.readline()  # what was read; the evaluation follows
    os.kill(rank_of(job.pid, 1), signal.SIGSTOP)
    _, errors = job.communicate(timeout=900)
    assert job.returncode == 75, errors
    assert "error: Process 1 of 2 has not moved for 5 seconds" in errors


@pytest.mark.slow
def test_synchronised_batch_norm_is_that_of_the_whole_batch(tmp_path):
    for processes in (1, 4):
        job = ROOT / "tests" / "synchronised_job.py"
        done = python(job, processes, tmp_path / str(processes), OMP_NUM_THREADS="1")
        assert done.returncode == 0, done.stderr
    one, several = tmp_path / "1", tmp_path / "4"
    for whole, parts in zip(*(read_metrics(run / "metrics.jsonl") for run in (one, several)), strict=True):
        for name in whole:
            if name.startswith(("loss", "grad_norm", "validation")):
                assert parts[name] == pytest.approx(whole[name], rel=1e-4), name
    states = [checkpoint.load(run / "checkpoints" / "last.pt")["model"] for run in (one, several)]
    torch.testing.assert_close(*states, rtol=1e-4, atol=1e-5)


def test_a_job_that_is_started_anew_goes_on(shapes, tmp_path, monkeypatch, capsys):
    """As torchrun and Slurm do it: with the same command."""
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    run = tmp_path / "run"
    options = ["--recipe", "tiny", "--weights", "none", "--train.log-interval", 1, "--pictures", 0]
    # Ended before there was a checkpoint: from the start.
    assert train("faster_rcnn", shapes, run, *options, "--solver.steps", 1) == 0
    assert "resumed" not in capsys.readouterr().out
    assert train("faster_rcnn", shapes, run, *options, "--solver.steps", 2) == 0
    assert f"resumed from {run / 'checkpoints' / 'last.pt'} at step 1" in capsys.readouterr().out
    assert [line["step"] for line in read_metrics(run / "metrics.jsonl") if line["kind"] == "train"] == [1, 2]


def test_another_batch_has_another_rate_and_fewer_steps(shapes, tmp_path, capsys):
    run = tmp_path / "run"
    options = ["--solver.warmup-steps", 0, "--solver.layer-decay", 0.5, "--train.log-interval", 1, "--pictures", 0]
    assert train("faster_rcnn", shapes, run, *options, "--solver.milestones", 100, "--solver.steps", 2) == 0
    rate = read_metrics(run / "metrics.jsonl")[-2]["learning_rate"]
    assert call("faster_rcnn", "train", "--resume", run, "--data.batch", 4, "--solver.steps", 2, "--pictures", 0) == 0
    shown = capsys.readouterr().out
    assert f"Batch 4 instead of 2: learning rate {rate:g} -> {2 * rate:g}, steps 2 -> 1" in shown
    assert "a step has 4 images now and had 2: step 2 is now step 1, which has seen as many" in shown
    state = checkpoint.load(run / "checkpoints" / "last.pt")
    assert (state["step"], state["images"], state["batch_size"]) == (2, 8, 4)
    last = [line for line in read_metrics(run / "metrics.jsonl") if line["kind"] == "train"][-1]
    assert (last["step"], last["learning_rate"]) == (2, pytest.approx(2 * rate))


@pytest.mark.parametrize(
    ("app", "recipe", "counts"),
    [
        ("mask_rcnn", "tiny", {"bn1": 5, "layer1": 4, "layer4": 1}),
        ("yolact", "yolact_darknet53", {"stem": 6, "layers.0": 5, "layers.4": 1}),
    ],
)
def test_rates_fall_by_layer(app, recipe, counts):
    chosen = APPS[app].recipes[recipe]()
    with torch.device("meta"):
        model = APPS[app].network(chosen)
    solver = dataclasses.replace(chosen.solver, layer_decay=0.5, optimizer="adamw", bias_lr_factor=1.0)
    optimizer = build_optimizer(model, solver)
    factors = {name: group["lr_factor"] for group in optimizer.param_groups for name in group["names"]}
    assert factors.keys() == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for part, count in counts.items():
        found = {factor for name, factor in factors.items() if name.startswith(f"backbone.body.{part}.")}
        assert found == {0.5**count}, part
    assert {factor for name, factor in factors.items() if not name.startswith("backbone.body.")} == {1}
