"""A detector trained in two processes: the losses, weights and detections of one."""

import pytest
import torch

from det_engine import checkpoint, read_metrics
from tests.command_line import call, process, read, small


@pytest.mark.slow
def test_two_processes_train_and_evaluate_as_one(shapes, tmp_path):
    """Synchronised batch norm, random sampling, masks; and the losses of both halves are those of the whole batch."""
    steps = ["--solver.steps", 2, "--train.log-interval", 1, "--train.validation-batches", 1, "--pictures", 0]
    options = ["--data", shapes, *small("mask_rcnn"), "--backbone.norm", "sync_bn", "--device", "cpu", *steps]
    assert call("mask_rcnn", "train", "--output", tmp_path / "one", *options) == 0
    job = process("mask_rcnn", "train", "--output", tmp_path / "two", "--nproc", 2, *options)
    output, errors = job.communicate(timeout=300)
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
    assert len(read(tmp_path / "one" / "predictions.json")) == len(read(tmp_path / "two" / "predictions.json"))
