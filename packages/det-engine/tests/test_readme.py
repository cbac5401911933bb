import importlib
import json
import re
from pathlib import Path

from testing.readmes import run_blocks

README = Path(__file__).parent.parent / "README.md"


def test_the_example_runs_and_learns(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = run_blocks(README)
    assert names["result"].metrics["accuracy"] > 0.9
    shown = capsys.readouterr().out
    promised = (
        "Batch 32 instead of 64: learning rate 1 -> 0.5, steps 200 -> 400, milestones 150 -> 300, warm-up 20 -> 40."
    )
    assert promised in shown
    assert promised in README.read_text(encoding="utf-8")
    assert "step 50/400  loss" in shown
    results = json.loads((tmp_path / "runs/circle/results.json").read_text())
    assert results["accuracy"] == names["result"].metrics["accuracy"]


def test_every_named_module_exists():
    table = README.read_text(encoding="utf-8").partition("## Modules")[2].partition("## Command line")[0]
    for row in re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", table, flags=re.MULTILINE):
        for name in re.findall(r"`(\w+)`", row):
            importlib.import_module(f"det_engine.{name}")
