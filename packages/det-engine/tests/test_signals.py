"""Stopping a training in another process by signals, and going on."""

import multiprocessing
import os
import pty
import signal
import sys
import time

import pytest
import torch

from det_engine import checkpoint, read_metrics
from det_engine.cli import run_main
from testing.processes import environment, start_python

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")


def start(*arguments):
    return start_python("-m", "testing.small_training", *arguments, env=environment(OMP_NUM_THREADS="1"))


def wait_for(path, process, seconds=900):
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.01)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As in the other process: another number of threads adds in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", autouse=True)
def no_signal_ignored():
    """As in a terminal: under `nohup`, and in what a service starts, SIGHUP is ignored, which processes inherit."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    """Directory of an uninterrupted training."""
    path = tmp_path_factory.mktemp("signals") / "whole"
    small.main(path, 40, 0)
    return path


def assert_finishes_as(small, whole, path):
    small.main(path, 40, 0, "--resume")
    assert small.checkpoint_differences(whole / "checkpoints" / "last.pt", path / "checkpoints" / "last.pt") == []
    steps = [line["step"] for line in read_metrics(path / "metrics.jsonl") if line["kind"] == "train"]
    assert steps == [7, 14, 21, 28, 35, 40]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_with_a_checkpoint_and_its_status(small, whole, tmp_path, number, status):
    path = tmp_path / "run"
    process = start(path, 40, 1)
    wait_for(path / "started", process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=900)
    assert process.returncode == status
    assert "Traceback" not in errors
    saved = checkpoint.load(path / "checkpoints" / "last.pt")
    assert 0 < saved["step"] < 40
    assert f"interrupted after step {saved['step']}; checkpoint: {path}" in errors
    assert_finishes_as(small, whole, path)


def test_a_closed_terminal_ends_with_a_checkpoint(small, whole, tmp_path):
    """Nothing can be printed any more, which must not keep it from being written."""
    path = tmp_path / "run"
    child, terminal = pty.fork()
    if not child:
        arguments = [sys.executable, "-m", "testing.small_training", str(path), "40", "1"]
        os.execve(sys.executable, arguments, environment(OMP_NUM_THREADS="1"))
    end = time.monotonic() + 900
    while not (path / "started").exists():
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
        assert time.monotonic() < end
        time.sleep(0.05)
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 129
    assert 0 < checkpoint.load(path / "checkpoints" / "last.pt")["step"] < 40
    assert_finishes_as(small, whole, path)


def test_an_evaluation_is_left_at_once(tmp_path):
    path = tmp_path / "run"
    process = start(path, 40, 0, "--hang-in-evaluation")
    wait_for(path / "evaluating", process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=900)
    assert process.returncode == 130
    saved = checkpoint.load(path / "checkpoints" / "last.pt")
    assert (saved["step"], saved["evaluated_step"]) == (10, 0)


def test_the_second_ctrl_c_does_not_wait(tmp_path):
    path = tmp_path / "run"
    process = start(path, 40, 600)
    wait_for(path / "asked", process)
    process.send_signal(signal.SIGINT)
    assert any("once more to leave at once" in line for line in process.stderr)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=900)
    assert process.returncode == 130


@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_last_checkpoint(small, whole, tmp_path):
    """Killed in a loop, at any moment of a step or of a checkpoint; there is one that can be read every time."""
    path = tmp_path / "run"
    steps = [0]
    for number, moment in enumerate((0.2, 0.31, 0.07)):
        process = start(path, 40, 0.03, *(["--resume"] if number else []))
        before = (path / "checkpoints" / "last.pt").stat().st_mtime_ns if number else 0
        end = time.monotonic() + 900
        while not (path / "checkpoints" / "previous.pt").exists() or (
            (path / "checkpoints" / "last.pt").stat().st_mtime_ns == before and process.poll() is None
        ):
            assert time.monotonic() < end
            time.sleep(0.005)
        time.sleep(moment)
        process.kill()
        process.communicate(timeout=900)
        state, _, _ = checkpoint.load_first([path / "checkpoints" / f"{name}.pt" for name in ("last", "previous")])
        assert state["step"] >= steps[-1]
        steps.append(state["step"])
    assert_finishes_as(small, whole, path)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_any_command_ends_in_order(tmp_path, capsys, number, status):
    def command():
        try:
            os.kill(os.getpid(), number)
            time.sleep(600)
        finally:
            (tmp_path / "tidied").touch()

    assert run_main(command) == status
    assert (tmp_path / "tidied").exists()
    assert capsys.readouterr().err == f"ended by {signal.Signals(number).name}\n"
    assert signal.getsignal(number) is signal.SIG_DFL


def test_processes_forked_within_a_command_end_as_ever(capfd):
    def command():
        context = multiprocessing.get_context("fork")
        began = context.Event()
        child = context.Process(target=lambda: (began.set(), time.sleep(600)))
        child.start()
        began.wait()
        os.kill(child.pid, signal.SIGTERM)
        child.join()
        return child.exitcode

    assert run_main(command) == -signal.SIGTERM
    assert capfd.readouterr().err == ""
