"""Trackers of runs, with the real packages: on files alone, and MLflow with a real server."""

import importlib.util
import json
import socket
import struct
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest

import det_engine.tracking as tracking
from det_engine import EngineError, TrainSettings, read_metrics, train
from testing.processes import environment, python

TRAIN = """
import sys
from pathlib import Path

import numpy as np
import torch

from det_engine import RunDirectory, TrainSettings, train
from testing import small_training as small

path, tracker, steps = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
resume = path if path.exists() else None
model = small.make_net()
train(
    model,
    solver=small.make_solver(steps),
    batches=small.make_batches,
    batch_size=4,
    device=torch.device("cpu"),
    run=RunDirectory.open(path) if resume else small.make_run(path),
    settings=TrainSettings(log_interval=5, evaluation_interval=10, display="plain", trackers=(tracker,)),
    evaluate=small.make_evaluate(model),
    resume=resume,
    config={"solver": {"steps": 20}, "name": "circle"},
    pictures=lambda: {"one": np.full((8, 9, 3), 200, np.uint8)},
)
"""


def needs(package):
    """Marks a slow test that is skipped where the package is missing."""
    missing = importlib.util.find_spec(package) is None
    return lambda test: pytest.mark.slow(pytest.mark.skipif(missing, reason=f"{package} is not installed")(test))


def trained(path, tracker, **variables):
    """The metrics of a training of 20 steps that goes on to 30, followed by a tracker."""
    for steps in (20, 30):
        done = python("-c", TRAIN, path, tracker, steps, folder=path.parent.parent, **variables)
        assert done.returncode == 0, done.stderr
        assert "failed" not in done.stdout
    losses = {line["step"]: line["loss"] for line in read_metrics(path / "metrics.jsonl") if line["kind"] == "train"}
    assert list(losses) == [5, 10, 15, 20, 25, 30]
    return losses


@pytest.fixture
def path(tmp_path):
    (tmp_path / "shapes").mkdir()
    return tmp_path / "shapes" / "first"


@pytest.fixture
def server(tmp_path):
    """The address of an MLflow server with its own store."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = ["--backend-store-uri", f"sqlite:///{tmp_path / 'store.db'}", "--artifacts-destination", tmp_path / "files"]
    options = ["--host", "127.0.0.1", "--port", port, "--workers", 1, *store]
    with (tmp_path / "server.log").open("w") as log:
        command = [sys.executable, "-m", "mlflow", "server", *map(str, options)]
        running = subprocess.Popen(command, env=environment(), stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        while running.poll() is None and not answers(f"{address}/health"):
            time.sleep(0.2)
        assert running.poll() is None, (tmp_path / "server.log").read_text()
        yield address
    finally:
        running.terminate()
        running.wait()


def answers(address):
    try:
        return urllib.request.urlopen(address, timeout=60).status == 200
    except OSError:
        return False


@needs("mlflow")
def test_mlflow_has_all_of_a_run_that_was_resumed(path, server):
    losses = trained(path, "mlflow", MLFLOW_TRACKING_URI=server)
    from mlflow import MlflowClient

    client = MlflowClient(server)
    experiment = client.get_experiment_by_name("shapes")
    (run,) = client.search_runs([experiment.experiment_id])
    assert json.loads((path / "trackers.json").read_text()) == {"mlflow": run.info.run_id}
    assert (run.info.run_name, run.info.status) == ("first", "FINISHED")
    assert run.data.params == {"solver.steps": "20", "name": "circle"}
    logged = {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, "train/loss")}
    assert logged == pytest.approx(losses)
    history = client.get_metric_history(run.info.run_id, "evaluation/task/accuracy")
    best = max(metric.value for metric in history)
    assert [metric.step for metric in history] == [10, 20, 30]
    assert run.data.metrics["best/task/accuracy"] == best
    artifacts = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"config.json", "results.json", "images"} <= artifacts
    pictures = [file.path for file in client.list_artifacts(run.info.run_id, "images")]
    assert sum(name.endswith(".png") for name in pictures) == 3


@needs("clearml")
def test_clearml_has_all_of_a_run_that_was_resumed(path, tmp_path):
    losses = trained(path, "clearml", CLEARML_OFFLINE_MODE="1", CLEARML_CACHE_DIR=str(tmp_path / "cache"))
    (folder,) = (entry for entry in (tmp_path / "cache" / "offline").iterdir() if entry.is_dir())
    assert json.loads((path / "trackers.json").read_text()) == {"clearml": folder.name}
    task = json.loads((folder / "task.json").read_text())
    assert (task["name"], task["project_name"]) == ("first", "shapes")
    events = [event for line in (folder / "metrics.jsonl").read_text().splitlines() for event in json.loads(line)]
    logged = {
        event["iter"]: event["value"]
        for event in events
        if (event["metric"], event.get("variant")) == ("train", "loss")
    }
    assert logged == pytest.approx(losses)
    assert len(list(folder.rglob("predictions_one_*.jpeg"))) >= 1


def records(content):
    """The records of a .wandb file, which is a LevelDB log behind seven bytes of its own."""
    assert content[:4] == b":W&B"
    place, record = 7, b""
    while place < len(content):
        if 32768 - place % 32768 < 7:  # no room for another header in this block
            place += 32768 - place % 32768
        length, kind = struct.unpack_from("<HB", content, place + 4)
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


@needs("wandb")
def test_wandb_has_all_of_a_run_that_was_resumed(path):
    losses = trained(path, "wandb", WANDB_MODE="offline")
    name = json.loads((path / "trackers.json").read_text())["wandb"]
    parts = sorted((path / "wandb").glob(f"offline-run-*-{name}"))
    assert len(parts) == 2  # of one run, which `wandb sync` puts together
    from wandb.proto.wandb_internal_pb2 import Record

    logged, names = {}, set()
    for part in parts:
        for data in records(next(part.glob("*.wandb")).read_bytes()):
            record = Record()
            record.ParseFromString(data)
            row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            names |= row.keys()
            if "train/loss" in row:
                logged[row["step"]] = row["train/loss"]
            if record.HasField("run"):
                assert (record.run.run_id, record.run.project, record.run.display_name) == (name, "shapes", "first")
    assert logged == pytest.approx(losses)
    assert {"evaluation/task/accuracy", "predictions/one"} <= names


class Failing:
    """A tracker whose service goes away."""

    identifier = "one"

    def __init__(self, *_):
        pass

    def scalars(self, step, values):
        raise ConnectionError("the server went away\nand more")

    pictures = finish = scalars


@pytest.fixture
def fit(small, cpu, tmp_path):
    def run_it(**settings):
        model = small.make_net()
        return train(
            model,
            solver=small.make_solver(40),
            batches=small.make_batches,
            batch_size=4,
            device=cpu,
            run=small.make_run(tmp_path / "run"),
            settings=TrainSettings(log_interval=5, evaluation_interval=10, display="plain", **settings),
            evaluate=small.make_evaluate(model),
            pictures=lambda: {"one": np.zeros((4, 4, 3), np.uint8)},
        )

    return run_it


def test_a_tracker_that_fails_is_one_remark(fit, monkeypatch, capsys):
    monkeypatch.setattr(tracking, "_open", Failing)
    monkeypatch.setattr(tracking, "_is_installed", lambda name: True)
    assert fit(trackers=("wandb",)).steps == 40
    said = [line for line in capsys.readouterr().out.splitlines() if "tracker" in line]
    assert said == [
        "the tracker wandb failed, and follows no more (ConnectionError: the server went away); all numbers are in "
        "metrics.jsonl"
    ]


def test_a_tracker_that_hangs_is_left_behind(fit, monkeypatch, capsys):
    ended = tracking.threading.Event()
    monkeypatch.setattr(tracking, "_open", lambda *_: ended.wait())
    monkeypatch.setattr(tracking, "_PATIENCE", 0.05)
    monkeypatch.setattr(tracking, "_is_installed", lambda name: True)
    assert fit(trackers=("mlflow",)).steps == 40
    ended.set()
    assert "the tracker mlflow has not taken all in" in capsys.readouterr().out


def test_a_tracker_that_is_not_installed_is_named_before_the_training(fit, monkeypatch):
    monkeypatch.setattr(tracking, "_is_installed", lambda name: False)
    with pytest.raises(EngineError, match=r"clearml is not installed: pip install 'det-engine\[clearml\]'"):
        fit(trackers=("clearml",))


def test_tensorboard_has_the_pictures(fit, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit()
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [event.step for event in events.Images("predictions/one")] == [10, 20, 30, 40]
    assert "train/loss" in events.Tags()["scalars"]
