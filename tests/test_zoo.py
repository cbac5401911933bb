"""The scripts that users of Ascend's model zoo know, on the CPU."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from testing import ROOT
from testing.command_line import small

SCRIPTS = sorted(path.relative_to(ROOT) for path in ROOT.glob("apps/*/test/*.sh"))
NAMES = {
    "train_full_1p",
    "train_full_8p",
    "train_performance_1p",
    "train_performance_8p",
    "train_eval_8p",
    "train_finetune_1p",
}


def run(script: Path, output: Path, *args: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable, "ZOO_OUTPUT": str(output), "OMP_NUM_THREADS": "1"}
    command = ["bash", str(ROOT / script), *map(str, args)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)


def test_every_app_has_every_script_and_each_is_a_few_lines():
    apps = {path.parent.name for path in ROOT.glob("apps/*/__main__.py")}
    for app in {script.parts[1] for script in SCRIPTS}:
        assert app in apps
        assert {script.stem for script in SCRIPTS if script.parts[1] == app} == NAMES
    for script in SCRIPTS:
        text = (ROOT / script).read_text()
        assert len(text.splitlines()) <= 6
        assert os.access(ROOT / script, os.X_OK)
        recipe = re.findall(r"^zoo \w+ [18] \w+ (\w+)", text, flags=re.MULTILINE)[0]
        assert f"def {recipe}()" in (ROOT / script.parent.parent / "config.py").read_text()


def test_without_data(tmp_path):
    done = run(SCRIPTS[0], tmp_path)
    assert done.returncode == 2
    assert 'para "data_path" must be config' in done.stderr


@pytest.mark.slow
def test_train_in_two_processes_and_evaluate(shapes, tmp_path):
    options = [f"--data_path={shapes}", "--nproc=2", "--recipe=tiny", "--device", "cpu"]
    steps = ["--solver.steps", 2, "--train.log-interval", 1]
    test = Path("apps/mask_rcnn/test")
    done = run(test / "train_full_8p.sh", tmp_path, *options, *small("mask_rcnn"), "--batch_size=2", *steps)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "------------------ Final result ------------------" in done.stdout
    for line in ("Final Performance images/sec : ", "Final Train Accuracy : ", "E2E Training Duration sec : "):
        assert len(re.findall(f"^{line}[0-9.]+$", done.stdout, flags=re.MULTILINE)) == 1
    assert (tmp_path / "0" / "train_0.log").read_text() == done.stdout
    case = dict(line.split(" = ") for line in (tmp_path / "0" / "mask_rcnn_bs2_2p_acc.log").read_text().splitlines())
    assert (case["RankSize"], case["BatchSize"], case["CaseName"]) == ("2", "2", "mask_rcnn_bs2_2p_acc")
    assert float(case["ActualFPS"]) > 0
    assert float(case["ActualLoss"]) > 0
    assert len((tmp_path / "0" / "train_mask_rcnn_bs2_2p_acc_loss.txt").read_text().split()) == 2
    (best,) = (tmp_path / "0").glob("acc-*/checkpoints/best.pt")
    assert (best.parents[1] / "curves.png").stat().st_size > 10_000
    evaluation = [f"--data_path={shapes}", f"--pth_path={best}", "--nproc=2", "--device", "cpu", "--pictures", 0]
    done = run(test / "train_eval_8p.sh", tmp_path / "eval", *evaluation)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "Final Train Accuracy : " in done.stdout
