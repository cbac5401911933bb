"""Reports of runs and comparisons of runs, as the command line gives them."""

import shutil

import pytest

from testing.browser import browsing
from testing.command_line import call, read, train


@pytest.fixture(scope="module")
def runs(shapes, tmp_path_factory):
    """Two runs of different rates; the first was evaluated on the way."""
    folder = tmp_path_factory.mktemp("runs")
    assert train("mask_rcnn", shapes, folder / "a", "--train.evaluation-interval", 2, "--pictures", 1) == 0
    assert train("mask_rcnn", shapes, folder / "b", "--solver.base-lr", 0.005, "--pictures", 1) == 0
    return folder


def test_a_training_ends_with_a_report(runs):
    with browsing(runs / "a" / "report.html") as shown:
        assert shown.locator("h2").all_inner_texts()[-3:] == ["Training", "Settings", "Environment"]
        titles = shown.locator("#training svg text").all_text_contents()
        assert {"loss", "parts of the loss", "AP", "learning rate", "images per second"} <= {
            title.strip() for title in titles
        }
        rows = shown.locator("#settings tbody tr td:first-child").all_inner_texts()
        assert {"backbone.width", "solver.steps", "train.evaluation-interval"} <= set(rows)
        assert "detector.mask.pool.size" not in rows
        assert read(runs / "a" / "config.json")["data_fingerprint"] in shown.locator("#settings dd").all_inner_texts()


def test_a_run_is_reported_again_with_its_numbers(runs, tmp_path, capsys):
    assert call("mask_rcnn", "report", runs / "a", "--output", tmp_path / "a.html", "--json", tmp_path / "a.json") == 0
    assert f"Report: {tmp_path / 'a.html'}" in capsys.readouterr().out
    metrics = {task: values["metrics"] for task, values in read(tmp_path / "a.json").items()}
    results = read(runs / "a" / "results.json")
    assert metrics == {task: results[task] for task in ("bbox", "segm")}


def test_an_evaluation_ends_with_a_report(runs, shapes, tmp_path, capsys):
    arguments = ["--weights", runs / "a", "--data", shapes, "--output", tmp_path / "eval", "--pictures", 1]
    assert call("mask_rcnn", "eval", *arguments) == 0
    page = tmp_path / "eval" / "report.html"
    assert f"Why the AP is what it is: {page}" in capsys.readouterr().out
    assert "Training" not in page.read_text()
    assert call("mask_rcnn", "report", tmp_path / "eval", "--pictures", 0) == 0
    assert call("mask_rcnn", "report", tmp_path / "eval" / "predictions.json", "--data", shapes, "--pictures", 0,
                "--output", tmp_path / "again.html") == 0  # fmt: skip
    first, second = ((file.read_text().split("<nav>")[0]).split("<dl>")[1] for file in (page, tmp_path / "again.html"))
    assert first == second


def test_an_interrupted_run_has_a_report(runs, tmp_path):
    shutil.copytree(runs / "a", tmp_path / "a")
    for name in ("predictions.json", "results.json", "report.html"):
        (tmp_path / "a" / name).unlink()
    with (tmp_path / "a" / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')
    assert call("mask_rcnn", "report", tmp_path / "a") == 0
    with browsing(tmp_path / "a" / "report.html") as shown:
        assert shown.locator("h2").all_inner_texts() == ["Training", "Settings", "Environment"]


def test_comparing_runs(runs, tmp_path, capsys):
    arguments = ["--html", tmp_path / "c.html", "--json", tmp_path / "c.json", "--pictures", 1]
    assert call("mask_rcnn", "compare", runs / "a", runs / "b", *arguments) == 0
    out = capsys.readouterr().out
    numbers = read(tmp_path / "c.json")
    assert numbers["settings"]["solver.base-lr"][str(runs / "b")] == 0.005
    assert "solver.steps" not in numbers["settings"]
    assert "train.evaluation-interval" in numbers["settings"]
    results = numbers["tasks"]["segm"]["results"]
    assert results[str(runs / "b")]["metrics"] == read(runs / "b" / "results.json")["segm"]
    assert "A difference whose interval holds 0 may be chance." in out
    with browsing(tmp_path / "c.html") as shown:
        assert shown.locator("h2").all_inner_texts()[-2:] == ["Training", "Settings that differ"]
        assert "solver.base-lr" in shown.locator("#settings-that-differ tbody td").all_inner_texts()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "{runs}"], "holds no run: it has neither predictions.json nor metrics.jsonl."),
        (["report", "{runs}/a/predictions.json"], "does not say what data it belongs to. Name it by --data."),
        (["report", "{runs}/none"], "none is not there. Give the folder of a run, or a results file."),
        (["compare", "{runs}/a", "{runs}/none.json"], "none.json is not there. Give the folder of a run"),
        (["report", "{runs}/a", "--precision", "90"], "precision must be above 0 and up to 1, got 90"),
        (["report", "{runs}/a", "--pictures", "-1"], "Option --pictures must be at least 0, got -1"),
        (["report", "{runs}/a", "--json", "{runs}/a/config.json/x"], "x cannot be written: File exists"),
        (["compare", "{runs}/a", "{runs}/b", "--html", "{runs}/a"], "a cannot be written: Is a directory."),
        (["check", "--json", "{runs}/a/config.json/x"], "x cannot be written: File exists"),
        (["check", "--page", "{runs}"], "cannot be written: Is a directory."),
        (["augmentations", "--output", "{runs}"], "cannot be written: Is a directory."),
        (
            ["convert", "--weights", "no.pt", "--to", "ours", "{runs}/a/config.json/x"],
            "x cannot be written: File exists",
        ),
        (["export", "--weights", "no.pt", "{runs}/a/config.json/x.onnx"], "x.onnx cannot be written: File exists"),
        (["compare", "{runs}/a", "{runs}/a"], "compare needs two or more different runs or results files."),
        (["compare", "{runs}/a", "{runs}"], "has no predictions.json. Evaluate it first (eval --weights"),
    ],
)
def test_what_is_wrong_is_named(runs, capsys, arguments, message):
    assert call("mask_rcnn", *[argument.format(runs=runs) for argument in arguments]) != 0
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "does not say what data it belongs to. Name it by --data."),
        ("[" * 100_000, "does not say what data it belongs to. Name it by --data."),
        ('{"app": "mask_rcnn", "data": null}', "does not say what it was trained with. Name the data"),
        ('{"data": null, "recipe": "tiny"}', "does not say what it was trained with. Name the data"),
        ('{"data": null, "recipe": {}}', "does not say what it was trained with. Name the data"),
        ('{"data": [1], "recipe": {"data": {}}}', "does not say what it was trained with. Name the data"),
        ('{"data": null, "recipe": {"data": {"train": 5}}}', "does not say what it was trained with. Name the data"),
        ('{"weights": 5, "data": 7, "split": [4], "images": [[1]]}', "does not say what it was trained with."),
    ],
)
def test_a_damaged_configuration_is_said_and_data_can_be_named(runs, shapes, tmp_path, capsys, config, message):
    shutil.copytree(runs / "b", tmp_path / "b")
    (tmp_path / "b" / "config.json").write_text(config)
    assert call("mask_rcnn", "report", tmp_path / "b", "--pictures", 0) == 2
    assert message in capsys.readouterr().err
    assert call("mask_rcnn", "report", tmp_path / "b", "--pictures", 0, "--data", shapes) == 0
