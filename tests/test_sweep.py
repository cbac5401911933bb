"""`sweep`: trials, those that are ended early, and what goes on after an interruption."""

import csv
import signal
import sys

import pytest

from apps.common import sweep as sweeping
from apps.common.app import App
from apps.common.search_space import SearchSpace
from apps.mask_rcnn.config import tiny
from testing.command_line import STEPS, call, read, small
from testing.processes import start_python

optuna = pytest.importorskip("optuna")

# Stands for a training: AP falls with the distance of the learning rate from 0.04, and grows with the evaluations.
TRAINING = """
import json, math, os, signal, sys, time
arguments = dict(zip(sys.argv[2::2], sys.argv[3::2]))
folder = arguments.get("--output") or arguments["--resume"]
os.makedirs(folder + "/checkpoints", exist_ok=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
if "--resume" not in arguments:
    json.dump(arguments, open(folder + "/config.json", "w"))
arguments = json.load(open(folder + "/config.json"))
if arguments["--data"] == "missing":
    sys.exit("error: there is no data.")
file = open(folder + "/metrics.jsonl", "a+")
file.seek(0)
done = len(file.readlines())
for step in range(done + 1, 5):
    value = step / 4 - abs(math.log(float(arguments["--solver.base-lr"]) / 0.04)) / 10
    file.write(json.dumps({"kind": "evaluation", "step": step, "bbox/AP": value}) + "\\n")
    file.flush()
    open(folder + "/checkpoints/last.pt", "w").close()
    if os.path.exists(arguments["--data"] + "/interrupt") and step == 2:
        os.remove(arguments["--data"] + "/interrupt")
        os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(600)
    time.sleep(0.02 if step < 4 else 0)
"""


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """Trainings of a moment; the folder that stands for their data."""
    file = tmp_path / "training.py"
    file.write_text(TRAINING)
    monkeypatch.setattr(App, "program", [sys.executable, str(file)])
    monkeypatch.setattr(sweeping, "_LOOK", 0.01)
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def rows(folder):
    with (folder / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_it_finds_the_better_learning_rate_and_begins_with_the_recipe(stand_in, tmp_path, capsys):
    output = tmp_path / "sweep"
    options = ["--trials", "8", "--vary", "lr", "--output", output, "--data", stand_in]
    assert call("mask_rcnn", "sweep", *options) == 0
    found = rows(output)
    assert sorted(int(row["trial"]) for row in found) == list(range(8))
    first = next(row for row in found if row["trial"] == "0")
    assert float(first["lr"]) == pytest.approx(tiny().solver.base_lr)
    values = [float(row["bbox/AP"]) for row in found]
    assert values == sorted(values, reverse=True)
    assert (output / "sweep.png").read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    assert f"Best: {output}/trial-{int(found[0]['trial']):03d}" in out
    assert f"Its options: --solver.base-lr {float(found[0]['lr']):.3g}"[:32] in out


def test_a_sweep_that_was_stopped_goes_on_with_the_training_that_it_was_in(stand_in, tmp_path, capsys):
    output = tmp_path / "sweep"
    options = ["--trials", "3", "--vary", "lr", "--output", output, "--data", stand_in]
    (stand_in / "interrupt").touch()
    assert call("mask_rcnn", "sweep", *options) == 128 + signal.SIGTERM
    assert f"sweep --resume {output}" in capsys.readouterr().err
    assert call("mask_rcnn", "sweep", *options) == 2
    assert "holds a sweep already" in capsys.readouterr().err
    assert call("mask_rcnn", "sweep", "--resume", output, "--trials", "2") == 0
    assert [row["trial"] for row in sorted(rows(output), key=lambda row: row["trial"])] == ["0", "1"]
    lines = (output / "trial-000" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 4  # two before, two after


def interrupted(stand_in, output):
    (stand_in / "interrupt").touch()
    options = ["--trials", "1", "--vary", "lr", "--output", output, "--data", stand_in]
    assert call("mask_rcnn", "sweep", *options) == 128 + signal.SIGTERM


def test_a_sweep_has_one_process(stand_in, tmp_path, capsys):
    interrupted(stand_in, tmp_path / "sweep")
    holding = "import sys; from det_engine import RunDirectory; run = RunDirectory(sys.argv[1]); run.hold(); input('.')"
    holder = start_python("-c", holding, tmp_path / "sweep", stdin=-1)
    assert holder.stdout.read(1) == "."
    assert call("mask_rcnn", "sweep", "--resume", tmp_path / "sweep") == 2
    assert f"is in use: process {holder.pid} on " in capsys.readouterr().err
    holder.communicate("")
    assert call("mask_rcnn", "sweep", "--resume", tmp_path / "sweep", "--trials", "1") == 0
    assert not list(tmp_path.rglob("in-use.json"))


def test_a_sweep_that_was_killed_goes_on(stand_in, tmp_path):
    """Before its training had a checkpoint, while Optuna wrote, and with Optuna's lock taken."""
    output = tmp_path / "sweep"
    interrupted(stand_in, output)
    (output / "trial-000" / "checkpoints" / "last.pt").unlink()
    with (output / "trials.journal").open("a") as file:
        file.write('{"op_code": 5, "worker')
    (output / "trials.journal.lock").symlink_to("trials.journal")
    for trials in (1, 2):
        assert call("mask_rcnn", "sweep", "--resume", output, "--trials", trials) == 0
    assert sorted(row["trial"] for row in rows(output)) == ["0", "1"]
    assert len((output / "trial-000" / "metrics.jsonl").read_text().splitlines()) == 4


def test_damaged_trials_are_one_message(stand_in, tmp_path, capsys):
    output = tmp_path / "sweep"
    interrupted(stand_in, output)
    journal = output / "trials.journal"
    for damage in ("{\n", '{"op_code": 99}\n', "[]\n"):
        whole = journal.read_text()
        journal.write_text(damage + whole)
        assert call("mask_rcnn", "sweep", "--resume", output) == 2
        assert "cannot be read: trials.journal is damaged" in capsys.readouterr().err
        journal.write_text(whole)


def test_bad_trainings_are_ended_early(stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr(sweeping, "_PATIENT_TRIALS", 1)
    study = []
    make = sweeping._study

    def worse(folder):
        study.append(make(folder))
        for rate in (tiny().solver.base_lr, 0.004, 0.004):
            study[0].enqueue_trial({"lr": rate})
        return study[0]

    monkeypatch.setattr(sweeping, "_study", worse)
    monkeypatch.setattr(sweeping.SearchSpace, "first", lambda self: {"lr": 0.04})
    file = tmp_path / "training.py"
    file.write_text(TRAINING.replace("0.02 if step < 4 else 0", "0.5"))
    options = ["--trials", "3", "--vary", "lr", "--output", tmp_path / "sweep", "--data", stand_in]
    assert call("mask_rcnn", "sweep", *options) == 0
    states = [trial.state.name for trial in study[0].trials]
    assert states == ["COMPLETE", "PRUNED", "PRUNED"]
    ends = {row["trial"]: row["ended"] for row in rows(tmp_path / "sweep")}
    assert ends["0"] == ""
    assert ends["1"].startswith("ended at step")


def test_trainings_that_cannot_begin_are_said_at_once(stand_in, tmp_path, capsys):
    options = ["--trials", "3", "--output", tmp_path / "sweep", "--data", "missing"]
    assert call("mask_rcnn", "sweep", *options) == 2
    assert "The first trial, with the recipe's own values, failed: error: there is no data." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--trials", "0"], "trials must be at least 1"),
        (["--minutes", "0"], "minutes must be more than 0"),
        (["--solver.base-rl", "1"], "Did you mean --solver.base-lr?"),
        (["--vary", "colour"], "vary"),
        (["--resume", "nowhere"], "There is no sweep to resume in nowhere"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(options, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = options if "--resume" in options else [*options, "--output", tmp_path / "sweep"]
    assert call("mask_rcnn", "sweep", *given) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()


def test_sizes_and_anchors_are_options_of_the_recipe():
    space = SearchSpace(recipe=tiny(), vary=("size", "anchors"))
    trial = optuna.trial.FixedTrial({"size": 0.75, "anchors": 2.0})
    options = space.options(trial)
    recipe = tiny()
    place = options.index("--data.test-size")
    assert int(options[place + 1]) == pytest.approx(0.75 * recipe.data.test_size, abs=17)
    levels = recipe.detector.rpn.anchors.sizes
    for level, sizes in enumerate(levels):
        place = options.index(f"--detector.rpn.anchors.sizes.{level}")
        drawn = [float(value) for value in options[place + 1 : place + 1 + len(sizes)]]
        assert drawn == pytest.approx([2 * size for size in sizes], rel=1e-3)


@pytest.mark.slow
def test_real_trainings(shapes, tmp_path, capsys):
    output = tmp_path / "sweep"
    options = ["--trials", "2", "--output", output, "--data", shapes, *small("mask_rcnn"), *STEPS, "--pictures", "0"]
    assert call("mask_rcnn", "sweep", *options, "--train.evaluation-interval", "2") == 0
    assert len(rows(output)) == 2
    assert read(output / "trial-001" / "config.json")["recipe"]["data"]["augment"] != {}
    assert "Next: hatch run apps/mask_rcnn train --config" in capsys.readouterr().out
