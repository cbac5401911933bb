import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from det_engine import EngineError, RunDirectory, draw_curves, read_metrics, to_plain
from det_engine.metrics import MetricsLog
from det_engine.plain import flatten, unflatten

ENVIRONMENT = {"written_by": "det-engine"}


@dataclass(frozen=True)
class Inner:
    sizes: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Config:
    data: Path = Path("coco")
    inner: Inner = Inner()
    rate: float = 0.1


def test_a_new_run_writes_config_and_environment(tmp_path):
    run = RunDirectory.create(tmp_path / "a" / "b", config=Config(), environment=ENVIRONMENT)
    assert json.loads(run.config.read_text()) == {"data": "coco", "inner": {"sizes": [1, 2]}, "rate": 0.1}
    assert json.loads(run.environment.read_text()) == ENVIRONMENT


def test_a_foreign_directory_is_left_alone(tmp_path):
    for name in ("thesis.tex", "notes.txt", "a", "b"):
        (tmp_path / name).write_text("dear")
    with pytest.raises(EngineError, match=r"not the directory of a run \(it holds a, b, notes\.txt, \.\.\.\)"):
        RunDirectory.create(tmp_path, config={}, environment=ENVIRONMENT)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a", "b", "notes.txt", "thesis.tex"]


def test_a_directory_with_a_run_is_not_overwritten(tmp_path):
    run = RunDirectory.create(tmp_path, config={}, environment=ENVIRONMENT)
    run.checkpoints.mkdir()
    run.last.touch()
    for replace in (False, True):
        with pytest.raises(EngineError, match=r"holds a run already. Resume it \(train with resume="):
            RunDirectory.create(tmp_path, config={}, environment=ENVIRONMENT, replace=replace)


def test_outputs_of_an_evaluation_may_be_replaced(tmp_path):
    run = RunDirectory.create(tmp_path, config={"a": 1}, environment=ENVIRONMENT)
    run.write_json(run.results, {"bbox": {"AP": 0.5}})
    run = RunDirectory.create(tmp_path, config={"a": 2}, environment=ENVIRONMENT, replace=True)
    assert json.loads(run.config.read_text()) == {"a": 2}


def test_an_output_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(EngineError, match="is a file"):
        RunDirectory.create(tmp_path / "file", config={}, environment=ENVIRONMENT)
    with pytest.raises(EngineError, match="Cannot make the output directory"):
        RunDirectory.create(tmp_path / "file" / "run", config={}, environment=ENVIRONMENT)


def test_resuming_what_is_not_there(tmp_path):
    with pytest.raises(EngineError, match="no such directory"):
        RunDirectory.open(tmp_path / "nothing")
    with pytest.raises(EngineError, match=r"last\.pt is missing"):
        RunDirectory.open(tmp_path)


def test_metrics_after_the_resumed_step_are_removed(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    for step in (10, 20, 30):
        log.write("train", step, {"loss": step / 7, "bad": math.nan})
        log.write("evaluation", step, {"AP": 0.5})
    log.close()
    with path.open("a") as file:
        file.write('{"kind": "train", "st')
    log = MetricsLog(path, step=20, evaluated_step=10)
    log.write("train", 40, {"loss": 0.0})
    log.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["kind"], line["step"]) for line in lines] == [
        ("train", 10),
        ("evaluation", 10),
        ("train", 20),
        ("train", 40),
    ]
    assert lines[0] == {"kind": "train", "step": 10, "loss": 10 / 7, "bad": None}
    assert read_metrics(path) == lines


@pytest.mark.parametrize(
    "line",
    [
        '{"kind": "train", "step": 1, "loss": "x"}',
        '{"kind": "train", "step": 1, "loss": [1]}',
        f'{{"kind": "train", "step": 1, "images_per_second": {10**400}}}',
        f'{{"kind": "train", "step": {10**400}, "loss": 1.0}}',
        '{"kind": "train", "step": -1, "loss": 1.0}',
        '{"kind": 1, "step": 1}',
        '{"step": 1}',
        "[1]",
        "[" * 100_000,
    ],
)
def test_lines_that_cannot_have_been_written_are_set_aside(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    good = {"kind": "train", "step": 1, "loss": 0.5, "bad": None}
    path.write_text(f"{line}\n{json.dumps(good)}\n")
    assert read_metrics(path) == [good]
    log = MetricsLog(path, step=1)
    log.close()
    assert log.damaged == 1
    assert (tmp_path / "metrics.damaged.jsonl").read_text() == f"{line}\n"


def test_a_log_that_cannot_be_read(tmp_path):
    with pytest.raises(EngineError, match=r"cannot be read: Is a directory\.$"):
        read_metrics(tmp_path)


def test_plain_values():
    value = {"p": Path("x"), 1: (np.float32(0.5), torch.tensor([1, 2])), "n": None, "i": math.inf, "o": torch.float32}
    assert to_plain(value) == {"p": "x", "1": [0.5, [1, 2]], "n": None, "i": None, "o": "torch.float32"}
    json.dumps(to_plain(value), allow_nan=False)


def test_flat_and_back():
    nested = {"bbox": {"AP": 0.5, "AP50": 0.75}, "speed": 2.0}
    assert flatten(nested) == {"bbox/AP": 0.5, "bbox/AP50": 0.75, "speed": 2.0}
    assert unflatten(flatten(nested)) == nested


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_leaves_the_old_curves_and_nothing_half_written(tmp_path, monkeypatch):
    run = RunDirectory.create(tmp_path / "run", config={}, environment=ENVIRONMENT)
    draw_curves(run)
    before = run.curves.read_bytes()
    entries = sorted(run.path.iterdir())
    opened = Path.open

    def full(path, mode="r", *args, **kwargs):
        return opened(Path("/dev/full"), "wb", buffering=0) if mode == "xb" else opened(path, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(EngineError, match=r"Cannot write .*curves\.png: No space left on device\."):
        draw_curves(run)
    assert run.curves.read_bytes() == before
    assert sorted(run.path.iterdir()) == entries
