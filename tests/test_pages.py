"""The pages: every command is one, and what is shown is printed (tests/test_page_commands.py runs the commands)."""

import importlib.util
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from apps.common.commands import COMMANDS
from apps.common.completion import options_of
from apps.common.learning_options import TrainOptions
from det_engine.options import option_names
from testing import ROOT
from testing.command_line import APPS, call
from testing.pages import PAGES, Command, commands

SHOWN = re.compile(r"^\$ hatch run apps/(\w+) (.*)\n((?:.*\n)*?)```", flags=re.MULTILINE)
SCRIPTS = tomllib.loads((ROOT / "hatch.toml").read_text(encoding="utf-8"))["envs"]
# What hatch's environment brings, and what a page before it has written.
FROM_ELSEWHERE = ("python", "pytest", "torchrun", "detector.onnx.py")


@pytest.fixture(scope="module")
def options():
    return {app: options_of(APPS[app]) for app in APPS}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_has_the_options_that_a_page_gives_it(page, options):
    for app, command, *rest in ([each.program, *each.words] for each in commands(page) if each.program in APPS):
        assert command in COMMANDS, rest
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_other_program_is_there_and_has_the_options_that_a_page_gives_it(page):
    """Modules, scripts and tools, as far as their source tells without starting them."""
    for command in commands(page):
        if command.program in (*APPS, *FROM_ELSEWHERE):
            continue
        source = source_of(command)
        assert source, (page.name, command)
        options = {word.lstrip("[").partition("=")[0] for word in command.words if word.lstrip("[").startswith("--")}
        text = "".join(file.read_text(encoding="utf-8") for file in source)
        assert {option for option in options if option.rstrip("]") not in text} == set(), (page.name, command)


def source_of(command: Command) -> list[Path]:
    """The files of a program that are looked through for its options."""
    name = command.program
    environment, _, script = name.rpartition(":")
    lines = SCRIPTS[environment or "default"]["scripts"].get(script)
    if lines is not None:
        tools = re.findall(r"\{root\}/(tools/[\w./]+)", str(lines))
        files = [file for tool in tools for file in ([ROOT / tool] if "." in tool else (ROOT / tool).glob("*.py"))]
        return files or [ROOT / "hatch.toml"]
    if "/" in name:  # a script, of the repository or of each app
        found = [path for root in (ROOT, *(ROOT / "apps").iterdir()) if (path := root / name).is_file()]
        return found and [*found, ROOT / "apps" / "common" / "zoo.sh"]
    spec = importlib.util.find_spec(name)
    return sorted(Path(spec.origin).parent.rglob("*.py")) if spec and spec.origin else []


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
