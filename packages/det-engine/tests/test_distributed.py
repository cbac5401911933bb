"""Several processes: the same numbers as one, and no job that hangs or hides who failed."""

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import socket
import time
from pathlib import Path

import pytest
import torch

from det_engine import EngineError, checkpoint, distributed, launching, read_metrics, replay
from testing.processes import environment, start_python

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
SCRIPT = Path(__file__).with_name("job.py")


@pytest.fixture(scope="module")
def job():
    spec = importlib.util.spec_from_file_location("det_engine_tests_job", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def start(*arguments, launcher=()):
    return start_python(*launcher, SCRIPT, *arguments, env=environment(OMP_NUM_THREADS="1"))


def ended(*arguments, launcher=()):
    process = start(*arguments, launcher=launcher)
    try:
        output, errors = process.communicate(timeout=900)
    finally:
        process.kill()
    return process.returncode, output, errors


def wait_for_checkpoint(path, process):
    end = time.monotonic() + 900
    while not (path / "checkpoints" / "last.pt").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(scope="module")
def alone(job, tmp_path_factory):
    """Directory of the trainings of one process."""
    path = tmp_path_factory.mktemp("alone") / "run"
    job.work(path, "equal")
    return path


@pytest.fixture(scope="module")
def two(alone, tmp_path_factory):
    """Directory of the same trainings in two processes, and of one that goes on from that of one process."""
    path = tmp_path_factory.mktemp("two") / "run"
    shutil.copytree(alone / "half", path.parent / "half")
    status, output, errors = ended(2, path, "equal")
    assert status == 0, errors
    assert output.count("step 6/6") == len(list(path.iterdir())) - 1
    return path


def assert_same(one, other):
    """Losses as they are logged, weights, averages and optimizer, up to rounding."""
    lines = [read_metrics(path / "metrics.jsonl") for path in (one, other)]
    assert [line["step"] for line in lines[0]] == [line["step"] for line in lines[1]]
    for first, second in zip(*lines, strict=True):
        for name, value in first.items():
            if name.startswith(("loss", "grad_norm", "validation")):
                assert second[name] == pytest.approx(value, rel=5e-3 if "O2" in str(one) else 1e-5), name
    rough = {"rtol": 1e-2, "atol": 1e-3} if "O2" in str(one) else {"rtol": 1e-4, "atol": 1e-6}
    states = [checkpoint.load(path / "checkpoints" / "last.pt") for path in (one, other)]
    for group in ("model", "average"):
        torch.testing.assert_close(states[1][group], states[0][group], **rough)


def assert_all_same(alone, other, job):
    for name in job.CASES:
        assert_same(alone / name, other / name)
    assert_same(alone / "plain", other / "resumed")


@pytest.mark.slow
def test_two_processes_are_one(alone, two, job):
    """In every case, and when they go on from a checkpoint of one process."""
    assert_all_same(alone, two, job)


@pytest.mark.slow
def test_four_processes_are_one(alone, two, job, tmp_path):
    """In every case, and when they go on from a checkpoint of two processes."""
    shutil.copytree(two / "half", tmp_path / "half")
    status, _, errors = ended(4, tmp_path / "run", "equal")
    assert status == 0, errors
    assert_all_same(alone, tmp_path / "run", job)


@pytest.mark.slow
def test_one_process_goes_on_from_two(alone, two, job, tmp_path):
    shutil.copytree(two / "half", tmp_path / "resumed")
    job.fit(tmp_path / "resumed", "plain", resume=True, validation_batches=2)
    assert_same(alone / "plain", tmp_path / "resumed")


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
    assert "error: Process 1 of 2 has not moved for 8 seconds (after step 2, in phase data); ending the job." in errors
    assert "time.sleep" in errors or "in batches" in errors


@pytest.mark.slow
@pytest.mark.parametrize(("case", "limit"), [("stopped", 8), ("stopped-early", 5)])
def test_a_stopped_process_is_named_in_every_phase(tmp_path, case, limit):
    """It cannot even say that it does not move; it is continued, so that its end can reach it."""
    status, _, errors = ended(2, tmp_path / "run", case)
    assert status == 75, errors
    assert f"error: Process 1 of 2 has not moved for {limit} seconds" in errors


@pytest.mark.slow
def test_a_stopped_data_worker_is_named(tmp_path):
    status, _, errors = ended(1, tmp_path / "run", "worker")
    assert status == 75, errors
    message = r"has not moved for 5 seconds \(after step \d, in phase data\)\. Its data worker \d+ is stopped"
    assert re.search(message, errors)


@pytest.mark.slow
def test_an_evaluation_that_computes_is_alive(tmp_path):
    """However long, and though the process that computes says nothing."""
    status, output, errors = ended(2, tmp_path / "run", "computing")
    assert status == 0, errors
    assert output.count("evaluated in") == 2


def listening(process):
    """Addresses at which a process and its children, and theirs, wait for connections, as /proc/net has them."""
    inodes, waiting = set(), [process]
    while waiting:
        folder = Path(f"/proc/{waiting.pop()}")
        for path in (folder / "fd").iterdir():
            with contextlib.suppress(OSError):  # closed in between
                inodes.add(str(path.readlink()))
        waiting += [int(child) for path in folder.glob("task/*/children") for child in path.read_text().split()]
    tables = [Path(f"/proc/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    lines = [line.split() for table in tables for line in table]
    return [line[1].partition(":")[0] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in inodes]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's tables")
def test_processes_of_one_machine_listen_on_the_loopback_interface_alone(tmp_path):
    process = start(2, tmp_path / "run", "slow")
    try:
        wait_for_checkpoint(tmp_path / "run", process)
        assert set(listening(process.pid)) == {"0100007F"}  # 127.0.0.1
    finally:
        process.terminate()
        process.communicate(timeout=900)


@pytest.mark.slow
def test_processes_end_with_their_launcher(tmp_path):
    path = tmp_path / "run"
    process = start(2, path, "slow")
    wait_for_checkpoint(path, process)
    process.kill()
    _, errors = process.communicate(timeout=900)  # until the last of them has closed its output
    step = checkpoint.load(path / "checkpoints" / "last.pt")["step"]
    assert f"interrupted after step {step}" in errors
    assert not (path / "in-use.json").exists()


@pytest.mark.slow
def test_a_process_that_waits_for_others_ends_with_its_launcher():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    waits = (
        "import torch; from det_engine import distributed; print('here', flush=True)\n"
        "with distributed.processes(torch.device('cpu')): pass"
    )
    launches = (
        f"import os, subprocess, sys; os.environ[{distributed.LAUNCHED!r}] = str(os.getpid())\n"
        "subprocess.run([sys.executable, '-c', sys.argv[1]])"
    )
    job = environment(**address, RANK="0", WORLD_SIZE="2", OMP_NUM_THREADS="1")
    process = start_python("-c", launches, waits, env=job)
    assert process.stdout.readline() == "here\n"
    process.kill()
    _, errors = process.communicate(timeout=900)  # until the one that waits has closed its output
    assert errors == "error: The process that started this job has ended; this one ends too.\n"


@pytest.mark.slow
def test_a_single_process_ends_with_what_started_it():
    """A training of a sweep, say."""
    waits = (
        "import time, torch; from det_engine import distributed; from det_engine.cli import run_main\n"
        "def command():\n"
        "    with distributed.processes(torch.device('cpu'), hang_seconds=1):\n"
        "        print('here', flush=True); time.sleep(900)\n"
        "raise SystemExit(run_main(command))"
    )
    launches = (
        f"import os, subprocess, sys; os.environ[{distributed.LAUNCHED!r}] = str(os.getpid())\n"
        "subprocess.run([sys.executable, '-c', sys.argv[1]])"
    )
    process = start_python("-c", launches, waits, env=environment(OMP_NUM_THREADS="1"))
    assert process.stdout.readline() == "here\n"
    process.kill()
    _, errors = process.communicate(timeout=900)  # until the one that waits has closed its output
    assert errors == "error: The process that started this job has ended; this one ends too.\nended by SIGTERM\n"


@pytest.mark.slow
def test_faults_in_one_of_two_processes(job, cpu, tmp_path):
    """Both know and say what is wrong, do what the policy says, and go on together; an error is shown once."""
    status, output, errors = ended(2, tmp_path, "faulty")
    assert status == 2, errors
    assert errors.count("this picture is torn") == 1
    assert "error: process 1: this picture is torn" in errors

    assert [(tmp_path / f"torn-{n}").read_text() for n in (0, 1)] == ["its data failed", "this picture is torn"]
    assert output.count(f"the data of step 3 failed; all steps before are in {tmp_path / 'torn'}") == 1
    assert checkpoint.load(tmp_path / "torn" / "checkpoints" / "last.pt")["step"] == 2

    message = (tmp_path / "stopped-0").read_text()
    assert message == (tmp_path / "stopped-1").read_text()
    assert "The loss is not finite at step 4: loss_used = nan, loss_all = nan." in message
    assert "Images of that step: 300, 301, 302, 303, 304, 305, 306, 307." in message
    assert "It happens in process 1. The batch itself is not finite in y (of image 305)." in message
    assert "Alone, it happens with image 305." in message
    assert checkpoint.load(tmp_path / "stop" / "checkpoints" / "last.pt")["step"] == 2
    bundle = tmp_path / "stop" / "failures" / "step-4.pt"
    assert f"Repeat it with: replay {bundle}." in message
    assert replay(bundle, lambda config: job.Net(), cpu).images[0][0] == 305

    assert "first layer whose output is not finite is first (Linear, float32)" in output
    assert "Going on without step 4." in output
    finding = replay(tmp_path / "skip" / "failures" / "step-4.pt", lambda config: job.Net(), cpu)
    assert finding.layer == "first (Linear, float32)"
    assert "Going on from step 2 with 0.5 times the learning rate." in output
    states = {name: checkpoint.load(tmp_path / name / "checkpoints" / "last.pt") for name in ("skip", "rollback")}
    for state in states.values():
        assert (state["step"], state["failures"]) == (8, 1)
        assert all(tensor.isfinite().all() for tensor in state["model"].values())
    assert (states["skip"]["lr_factor"], states["rollback"]["lr_factor"]) == (1, 0.5)


@pytest.mark.slow
def test_torchrun_starts_a_job_anew_that_lost_a_process(job, tmp_path):
    """It goes on from its last checkpoint, and ends as if nothing had been."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1"]
    status, output, errors = ended(2, tmp_path / "run", "restarted", launcher=launcher)
    assert status == 0, errors
    assert re.findall(r"resumed from .*last\.pt at step (\d)", output) in (["4"], ["6"])
    job.fit(tmp_path / "whole", "plain", steps=10)
    assert_same(tmp_path / "whole", tmp_path / "run")


@pytest.mark.slow
def test_a_terminated_job_goes_on_in_one_process(job, tmp_path):
    path = tmp_path / "run"
    process = start(2, path, "slow")
    wait_for_checkpoint(path, process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 143, errors
    step = checkpoint.load(path / "checkpoints" / "last.pt")["step"]
    assert step >= 5
    assert errors.count(f"interrupted after step {step}; checkpoint: {path}") == 1
    job.fit(path, "plain", steps=step + 5, resume=True)
    job.fit(tmp_path / "whole", "plain", steps=step + 5)
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
    assert launching.first_host(nodes) == first


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
