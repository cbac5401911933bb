"""The pages of the documentation: every command is one, and those of the pages for users run as they stand there."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from apps.common.commands import COMMANDS
from apps.common.completion import options_of
from apps.common.learning_options import TrainOptions
from det_coco import synthetic_dataset
from det_engine.options import option_names
from testing import ROOT
from testing.command_line import APPS, call, small, train
from testing.readmes import run_blocks
from testing.trained import write_example

PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", *sorted((ROOT / "apps").glob("*/README.md"))]
LINE = re.compile(
    r"^(?: {4}|\$ )(?:hatch run(?: -q)? apps/|python -m apps\.)(\w+) ?((?:[^#>\\\n]|\\\n)*)", flags=re.MULTILINE
)
SHOWN = re.compile(r"^\$ hatch run apps/(\w+) (.*)\n((?:.*\n)*?)```", flags=re.MULTILINE)
RUN = [ROOT / "docs" / f"{name}.md" for name in ("index", "train", "use", "questions", "export")]
# Processes of their own, downloads, and services: they are tested elsewhere.
APART = ("--nproc", "detectron2/", "sweep", "--tracker")


def commands(page: Path, *, to_type: bool = False) -> list[tuple[str, list[str]]]:
    """App and arguments of each command of a page, or of those alone that it shows without what they print."""
    found = LINE.finditer(page.read_text(encoding="utf-8"))
    return [
        (line[1], shlex.split(line[2].replace("\\\n", " ")))
        for line in found
        if not (to_type and line[0].startswith("$"))
    ]


@pytest.fixture(scope="module")
def options():
    return {app: options_of(APPS[app]) for app in APPS}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_has_the_options_that_a_page_gives_it(page, options):
    for app, arguments in commands(page):
        command, *rest = arguments or ["train"]
        assert app in APPS, (app, arguments)
        assert command in COMMANDS, arguments
        known = options[app].get(command)
        if known is None or "--help" in rest:
            continue
        recipe = rest[rest.index("--recipe") + 1] if "--recipe" in rest else None
        assert recipe is None or recipe in APPS[app].recipes or recipe == "NAME", rest
        aliases = {"--precision", "--loss-scale", "--tracker"}
        given = {argument.partition("=")[0] for argument in rest if argument.startswith("--")}
        assert given <= {*known, *aliases}, (page.name, app, command, given - set(known))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_field_of_a_recipe_that_a_page_names_is_an_option(page):
    """Also those that stand beside the keys of other systems."""
    known = {
        option
        for app in APPS.values()
        for recipe in (make() for make in app.recipes.values())
        for option in option_names(TrainOptions(recipe=recipe.name, values=recipe))
    }
    named = set(re.findall(r"`(--[a-z]+\.[a-z.-]*[a-z])[ `=]", page.read_text(encoding="utf-8")))
    assert named <= known


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with what the pages speak of: data DIR, two runs, pictures."""
    folder = tmp_path_factory.mktemp("pages")
    data = synthetic_dataset(folder / "DIR", train_images=8, val_images=3, size=96)
    write_example(folder)
    for name in ("NAME", "OTHER"):
        run = folder / "runs" / "mask_rcnn" / name
        assert train("mask_rcnn", data, run, "--pictures", 0) == 0
    shutil.copytree(data / "val", folder / "new_pictures")
    shutil.copy(data / "annotations" / "instances_train.json", folder / "annotations.json")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_the_commands_of_a_page_run(page, work, monkeypatch, capsys):
    monkeypatch.chdir(work)
    monkeypatch.setenv("DET_CACHE", str(work / "cache"))
    ran = 0
    for app, arguments in commands(page, to_type=True):
        if any(word in argument for argument in arguments for word in APART):
            continue
        command, *rest = arguments
        rest = ["tiny" if argument.endswith("_fpn_1x") else argument for argument in rest]
        rest = ["5" if argument == "3000" else argument for argument in rest]
        if command == "train" and "--resume" not in rest:
            data = [] if "--data" in rest else ["--data", "DIR"]
            rest = [*small(app), *rest, *data, "--solver.steps", "2"]
        if command == "benchmark":
            fields = [] if "--weights" in rest else small(app)  # files bring their own
            rest += [*fields, "--steps", "1", "--warmup", "1"]
        if "int8" in rest:
            rest += ["--force", "True"]  # rounding hurts a network that has learnt nothing
        status = call(app, command, *rest)
        said = capsys.readouterr()
        assert status == 0 or (command, status) == ("check", 1), (arguments, said.err)
        ran += 1
    assert ran


@pytest.mark.parametrize("name", ["use", "questions", "parts"])
def test_the_python_of_a_page_runs(name, work, monkeypatch):
    monkeypatch.chdir(work)
    run_blocks(ROOT / "docs" / f"{name}.md")
    if name == "questions":
        left = json.loads(Path("some_classes.json").read_text())
        assert {category["name"] for category in left["categories"]} == {"disc", "star"}


def test_what_is_shown_is_what_is_printed(monkeypatch, tmp_path, capsys):
    """By commands that need nothing."""
    monkeypatch.setenv("DET_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "80")
    shown = SHOWN.findall((ROOT / "docs" / "weights.md").read_text(encoding="utf-8"))
    assert len(shown) == 3
    for app, arguments, output in shown:
        assert call(app, *shlex.split(arguments)) == 0
        assert capsys.readouterr().out.replace(str(tmp_path), "/home/you/.cache/det") == output


def test_completion(capsys):
    assert call("mask_rcnn", "completion") == 0
    script = capsys.readouterr().out
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    ask = 'COMP_WORDS=(hatch run apps/mask_rcnn train {words}); COMP_CWORD={at}; _det_hatch; echo "${{COMPREPLY[@]}}"'

    for words, at, wanted in (
        ("--solver.ba", 4, "--solver.base-lr"),
        ("--recipe mask_rcnn_r50_fpn_3", 5, "mask_rcnn_r50_fpn_3x"),
    ):
        lines = [script, ask.format(words=words, at=at)]
        ended = subprocess.run([bash, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
        assert ended.stdout.split() == [wanted], ended.stderr
