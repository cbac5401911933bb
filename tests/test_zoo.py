"""The scripts that users of Ascend's model zoo know, called as its read-mes call them, on the CPU."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from testing import ROOT
from testing.command_line import APPS, read, small
from testing.processes import environment

SCRIPTS = sorted(path.relative_to(ROOT) for path in ROOT.glob("apps/*/test/*.sh"))
NAMES = {
    "train_full_1p",
    "train_full_8p",
    "train_performance_1p",
    "train_performance_8p",
    "train_eval_8p",
    "train_finetune_1p",
}
SHORT = ["--recipe=tiny", "--device", "cpu", "--pictures", "0"]


def run(app: str, script: str, *args: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """`bash ./test/SCRIPT.sh ARGS` from the app's folder."""
    return subprocess.run(
        ["bash", f"./test/{script}.sh", *map(str, args)],
        cwd=ROOT / "apps" / app,
        env=environment(OMP_NUM_THREADS="1", **variables),
        capture_output=True,
        text=True,
        timeout=900,
    )


def check(done: subprocess.CompletedProcess[str], output: Path, case: str, *, trains: bool = True) -> dict[str, str]:
    """What the zoo's tools read of a run that went well: the log's closing lines, and the file of the case."""
    assert done.returncode == 0, done.stderr + done.stdout
    assert "------------------ Final result ------------------" in done.stdout
    lines = ("Final Performance images/sec : ", "Final Train Accuracy : ", "E2E Training Duration sec : ")
    for line in lines if trains else lines[:2]:
        assert len(re.findall(f"^{line}[0-9.]+$", done.stdout, flags=re.MULTILINE)) == 1
    assert (output / "train_0.log").read_text() == done.stdout
    found = dict(line.split(" = ") for line in (output / f"{case}.log").read_text().splitlines())
    assert found["CaseName"] == case
    assert float(found["ActualFPS"]) > 0
    if trains:
        assert float(found["ActualLoss"]) > 0
        assert (output / f"train_{case}_loss.txt").read_text().split()[-1] == found["ActualLoss"]
    return found


def test_every_app_has_every_script_and_each_is_three_lines():
    for app, known in APPS.items():
        assert {script.stem for script in SCRIPTS if script.parts[1] == app} == NAMES
        for script in (script for script in SCRIPTS if script.parts[1] == app):
            assert os.access(ROOT / script, os.X_OK)
            shebang, comment, call = (ROOT / script).read_text().splitlines()
            kind, number = re.fullmatch(r"train_(\w+)_([18])p", script.stem).groups()
            assert shebang == "#!/usr/bin/env bash"
            assert f": bash ./test/{script.name} " in comment
            words = re.search(r"zoo\.sh\" (\w+) (\w+) (\d) (\w+) \"\$@\"$", call).groups()
            assert words[:3] == (app, kind, number)
            assert words[3] in known.recipes


def test_without_data_or_a_value():
    done = run("mask_rcnn", "train_full_1p", DETECTRON2_DATASETS="")
    assert done.returncode == 2
    assert 'para "data_path" must be config: give --data_path=DIR, or set DETECTRON2_DATASETS' in done.stderr
    done = run("yolact", "train_full_1p", "--batch_size")
    assert (done.returncode, done.stderr) == (2, "[Error] --batch_size needs a value\n")


def test_outside_of_the_environment(tmp_path):
    """Its Python is found where hatch makes it, and otherwise the message says how to have one."""
    for part in ("apps/common/zoo.sh", "apps/mask_rcnn/test/train_full_1p.sh"):
        (tmp_path / part).parent.mkdir(parents=True)
        shutil.copy(ROOT / part, tmp_path / part)
    bare = tmp_path / "bin"
    bare.mkdir()
    for name in ("python", "python3"):
        (bare / name).write_text("#!/bin/sh\nexit 1\n")
        (bare / name).chmod(0o755)
    environment = {"PATH": f"{bare}:{os.environ['PATH']}", "HOME": str(tmp_path)}

    def call() -> subprocess.CompletedProcess[str]:
        command = ["bash", tmp_path / "apps/mask_rcnn/test/train_full_1p.sh", tmp_path, "--seed=3", "AMP", "1"]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    done = call()
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert '"hatch env create" in' in done.stderr
    assert "set PYTHON to one that has them" in done.stderr
    own = tmp_path / ".hatch/default/bin/python"
    own.parent.mkdir(parents=True)
    own.write_text('#!/bin/sh\n[ "$1" = -c ] || { echo "$PYTHONPATH $*"; exit 3; }\n')
    own.chmod(0o755)
    done = call()
    assert done.returncode == 3  # that of the command
    assert done.stdout.startswith(f"{tmp_path} -m apps.mask_rcnn train --data {tmp_path} --nproc 1 --output ")
    assert done.stdout.endswith(" --train.seed 3 --train.precision O1 --recipe mask_rcnn_r50_fpn_1x\n")


@pytest.fixture
def zoo(shapes: Path, tmp_path: Path) -> Path:
    """The folder above `coco`, as detectron2's ports take it."""
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "coco").symlink_to(shapes)
    return tmp_path / "datasets"


@pytest.mark.slow
@pytest.mark.parametrize("app", sorted(APPS))
def test_train_measure_evaluate_and_finetune(app, zoo, tmp_path):
    """The scripts of one device, each with another of the ways to name the data."""
    output = tmp_path / "0"
    network = small(app)
    options = [*SHORT, *network, "--train.log-interval", 1]
    variables = {"ZOO_OUTPUT": str(tmp_path)}
    path, data = [f"--data_path={zoo}"], zoo / "coco"
    calls = {
        "yolact": ([data], variables),
        "cascade_rcnn": ([], variables | {"DETECTRON2_DATASETS": str(zoo)}),
        "faster_rcnn": ([*path, "AMP", 1], variables),
        "mask_rcnn": (path, variables),
        "retinanet": (path, variables),
    }
    args, given = calls[app]

    done = run(app, "train_full_1p", *args, *options, "--batch_size=2", "--solver.steps", 2, **given)
    case = check(done, output, f"{app}_bs2_1p_acc")
    assert (case["RankSize"], case["BatchSize"], case["Network"]) == ("1", "2", app)
    (best,) = output.glob("acc-*/checkpoints/best.pt")
    config = read(best.parents[1] / "config.json")
    assert json.dumps(config).count('"O1"') == (app == "faster_rcnn")

    done = run(app, "train_eval_8p", *path, f"--pth_path={best}", "--nproc=1", *SHORT[1:], **variables)
    check(done, output, f"{app}_bs1_1p_eval", trains=False)

    if app not in ("mask_rcnn", "yolact"):  # two families; the scripts of all are the same three lines
        return
    done = run(app, "train_performance_1p", *args, *options, "--solver.steps", 2, **given)
    check(done, output, f"{app}_bs2_1p_perf")

    finetune = [*path, f"--pth_path={best}", *options, "--solver.steps", 2]
    done = run(app, "train_finetune_1p", *finetune, **variables)
    check(done, output, f"{app}_bs2_1p_finetune")


@pytest.mark.slow
def test_the_options_of_yolacts_train_py(shapes, tmp_path):
    options = ["--batch_size=2", "--momentum", 0.8, "--seed=5", "--weight_decay=0.001", "--node_device", "cpu"]
    where = ["--data", shapes, f"--save_folder={tmp_path / 'weights'}"]
    steps = ["--recipe=tiny", *small("yolact"), "--solver.steps", 2, "--train.log-interval", 1, "--pictures", 0]
    done = run("yolact", "train_full_1p", *where, *options, *steps, ZOO_OUTPUT=str(tmp_path))
    check(done, tmp_path / "0", "yolact_bs2_1p_acc")
    config = read(tmp_path / "weights" / "config.json")["recipe"]
    assert (config["solver"]["momentum"], config["solver"]["weight_decay"]) == (0.8, 0.001)
    assert (config["train"]["seed"], config["data"]["batch"]) == (5, 2)
    assert (tmp_path / "weights" / "checkpoints" / "last.pt").exists()


@pytest.mark.slow
def test_train_in_two_processes_and_evaluate(shapes, tmp_path):
    options = [*SHORT[:3], f"--data_path={shapes}", "--nproc=2"]
    steps = ["--solver.steps", 2, "--train.log-interval", 1]
    variables = {"ZOO_OUTPUT": str(tmp_path)}
    done = run("mask_rcnn", "train_full_8p", *options, *small("mask_rcnn"), "--batch_size=2", *steps, **variables)
    case = check(done, tmp_path / "0", "mask_rcnn_bs2_2p_acc")
    assert (case["RankSize"], case["BatchSize"]) == ("2", "2")
    (best,) = (tmp_path / "0").glob("acc-*/checkpoints/best.pt")
    assert (best.parents[1] / "curves.png").stat().st_size > 10_000
    evaluation = [f"--data_path={shapes}", f"--pth_path={best}", "--nproc=2", *SHORT[1:]]
    done = run("mask_rcnn", "train_eval_8p", *evaluation, **variables)
    check(done, tmp_path / "0", "mask_rcnn_bs1_2p_eval", trains=False)
