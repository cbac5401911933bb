"""The page on the house: its picture is that of the imports, and its examples run as they stand there."""

import json
import re

import pytest

from testing import ROOT
from testing.processes import python
from testing.readmes import python_blocks
from tests.test_layering import ALLOWED, OURS

PAGE = ROOT / "docs" / "architecture.md"
TITLES = re.findall(r"^### An? (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
EXAMPLES = dict(zip(TITLES, python_blocks(PAGE), strict=True))


def test_the_picture_is_that_of_the_imports():
    """Those that tests/test_layering.py allows."""
    drawn = re.findall(r"^    (\w+) --> (\w+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    allowed = {"apps": OURS, **ALLOWED}
    assert sorted(drawn) == sorted((one, other) for one, others in allowed.items() for other in others)


def test_there_are_six_ways_to_extend_it():
    assert set(EXAMPLES) == {"backbone", "head", "data format", "operator", "recipe", "augmentation"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_runs(name, tmp_path):
    """In a process of its own, since it may register what other tests would find."""
    (tmp_path / "example.py").write_text(EXAMPLES[name], encoding="utf-8")
    ended = python("example.py", folder=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.slow
def test_a_head_from_outside_goes_through_every_command(tmp_path):
    """The head of the page in a recipe: training, resumption, evaluation and prediction know of it by itself."""
    (tmp_path / "example.py").write_text(EXAMPLES["head"] + COMMANDS, encoding="utf-8")
    ended = python("example.py", folder=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    steps = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert any("loss_quality" in step for step in steps)
    rows = json.loads((tmp_path / "predicted" / "predictions.json").read_text())
    assert rows
    assert all(0 <= row["quality"] <= 1 for row in rows)


COMMANDS = """
from dataclasses import replace
from pathlib import Path

from apps.common.app import App
from apps.common.main import main
from apps.faster_rcnn.config import tiny
from det_coco import synthetic_dataset


def quality():
    recipe = tiny()
    box = replace(recipe.detector.box, score_threshold=0.0)
    return replace(
        recipe,
        name="quality",
        backbone=replace(recipe.backbone, width=8, pyramid_channels=16),
        detector=replace(recipe.detector, box=box).extended(QualityDetectorConfig),
        data=replace(recipe.data, batch=2, train_sizes=(64,), test_size=64, max_size=96),
        solver=replace(recipe.solver, reference_batch=2, steps=2, warmup_steps=1, milestones=()),
        train=replace(recipe.train, log_interval=1),
    )


app = App(name="mask_rcnn", recipes={"tiny": tiny, "quality": quality})
data = str(synthetic_dataset("scenes", train_images=4, val_images=2, size=96))
picture = next(str(path) for path in sorted(Path(data).rglob("*.jpg")))
size = ["--detector.quality.pool.size", "3"]
assert main(app, ["train", "--recipe", "quality", "--data", data, "--output", "run", *size]) == 0
assert main(app, ["train", "--resume", "run", "--solver.steps", "3"]) == 0
assert load("run/checkpoints/last.pt").network.quality_head.pool.config.size == 3
assert main(app, ["eval", "--weights", "run", "--data", data, "--output", "evaluated"]) == 0
assert main(app, ["predict", "--weights", "run", "--output", "predicted", picture]) == 0
"""
