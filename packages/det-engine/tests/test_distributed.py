"""Several processes: the same numbers as one, and no job that hangs or hides who failed."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from det_engine import EngineError, checkpoint, distributed, read_metrics

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
SCRIPT = Path(__file__).with_name("job.py")


@pytest.fixture(scope="module")
def job():
    spec = importlib.util.spec_from_file_location("det_engine_tests_job", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def ended(*arguments):
    process = start(*arguments)
    output, errors = process.communicate(timeout=180)
    return process.returncode, output, errors


@pytest.fixture(scope="module")
def alone(job, tmp_path_factory):
    """Directory of the trainings of one process."""
    path = tmp_path_factory.mktemp("alone")
    job.work(path, "equal")
    return path


def assert_same(one, other):
    """Losses as they are logged, weights, averages and optimizer, up to rounding."""
    lines = [read_metrics(path / "metrics.jsonl") for path in (one, other)]
    assert [line["step"] for line in lines[0]] == [line["step"] for line in lines[1]]
    for first, second in zip(*lines, strict=True):
        for name, value in first.items():
            if name.startswith(("loss", "grad_norm", "validation")):
                assert second[name] == pytest.approx(value, rel=2e-3 if "O2" in str(one) else 1e-5), name
    rough = {"rtol": 2e-3, "atol": 2e-4} if "O2" in str(one) else {"rtol": 1e-4, "atol": 1e-6}
    states = [checkpoint.load(path / "checkpoints" / "last.pt") for path in (one, other)]
    for group in ("model", "average"):
        torch.testing.assert_close(states[1][group], states[0][group], **rough)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_several_processes_are_one(alone, job, tmp_path, count):
    status, output, errors = ended(count, tmp_path, "equal")
    assert status == 0, errors
    assert output.count("step 6/6") == len(job.CASES)
    for name in job.CASES:
        assert_same(alone / name, tmp_path / name)


def test_accumulated_and_captured_are_the_plain_step(alone):
    assert_same(alone / "plain", alone / "accumulated")


def test_a_captured_step_logs_what_the_eager_one_does(alone, job, tmp_path):
    job.CASES["eager"] = ({}, job.CASES["captured"][1])
    try:
        job.fit(tmp_path / "eager", "eager", validation_batches=2)
    finally:
        del job.CASES["eager"]
    assert_same(tmp_path / "eager", alone / "captured")


def test_a_killed_process_is_named(tmp_path):
    status, _, errors = ended(2, tmp_path / "run", "killed")
    assert status == 128 + signal.SIGKILL
    assert "error: Process 1 of 2 was ended by SIGKILL (out of memory?); the others were stopped." in errors


@pytest.mark.slow
def test_a_hanging_process_is_named(tmp_path):
    status, _, errors = ended(2, tmp_path / "run", "hanging")
    assert status == 75
    assert "error: Process 1 of 2 has not moved for 3 seconds (after step 2, in phase data); ending the job." in errors
    assert "time.sleep" in errors or "in batches" in errors


@pytest.mark.slow
def test_the_message_of_a_failing_process_is_shown_once(tmp_path):
    status, _, errors = ended(2, tmp_path / "run", "failing")
    assert status == 2
    assert errors.count("this picture is torn") == 1
    assert "error: process 1: this picture is torn" in errors


@pytest.mark.slow
def test_a_terminated_job_goes_on_in_one_process(job, tmp_path):
    path = tmp_path / "run"
    process = start(2, path, "slow")
    end = time.monotonic() + 120
    while not (path / "checkpoints" / "last.pt").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    step = checkpoint.load(path / "checkpoints" / "last.pt")["step"]
    assert 5 <= step < 40
    job.fit(path, "plain", steps=40, resume=True)
    job.fit(tmp_path / "whole", "plain", steps=40)
    states = [checkpoint.load(p / "checkpoints" / "last.pt")["model"] for p in (path, tmp_path / "whole")]
    torch.testing.assert_close(*states, rtol=1e-4, atol=1e-6)


def test_a_batch_that_cannot_be_shared(monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    assert distributed.per_process(6) == 2
    with pytest.raises(EngineError, match="16 images cannot be shared equally by 3 processes; make it 15 or 18"):
        distributed.per_process(16)


@pytest.mark.parametrize(
    ("nodes", "first"), [("gpu[03-05,9],x1", "gpu03"), ("n1,n2", "n1"), ("localhost", "localhost"), ("a-b[7]", "a-b7")]
)
def test_the_first_host_of_a_slurm_job(nodes, first):
    assert distributed.first_host(nodes) == first


def test_srun_is_a_launcher(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLURM_NTASKS", "16")  # a batch script without srun is one process
    assert not distributed.is_launched()
    slurm = {"STEP_NUM_TASKS": "16", "PROCID": "9", "LOCALID": "1", "JOB_ID": "123", "STEP_NODELIST": "gpu[1-2]"}
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert distributed.is_launched()
    assert distributed.local_rank() == 1
    assert (os.environ["RANK"], os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]) == ("9", "gpu1", "20123")
