"""The check as a command of the apps, and the options that it proposes."""

import json
import shlex

import pytest

from testing.command_line import APPS, call


@pytest.mark.parametrize("app", APPS)
def test_the_proposed_command_line_trains(app, shapes, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status = call(app, "check", "--data", shapes, "--json", "rows.json", "--workers", 0)
    text = capsys.readouterr().out
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert status == (1 if rows else 0)
    assert "Options that fit" in (tmp_path / "check.html").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith("hatch run"))
    prefix, name, *args = shlex.split(line.removeprefix("hatch "))
    assert (prefix, name) == ("run", f"apps/{app}")
    assert call(app, *args, "--solver.steps", 1, "--pictures", 0, "--output", tmp_path / "run") == 0


def test_options_of_a_recipe_that_does_not_fit_are_replaced(shapes, tmp_path, capsys, monkeypatch):
    """Objects of 20 to 60 pixels in pictures of 96, which this recipe would enlarge to 800."""
    monkeypatch.chdir(tmp_path)
    call("faster_rcnn", "check", "--data", shapes, "--recipe", "faster_rcnn_r50_fpn_1x", "--workers", 0)
    text = " ".join(capsys.readouterr().out.split())
    assert "--data.test-size 256" in text
    assert "an image takes about" in text
