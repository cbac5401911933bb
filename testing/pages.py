"""The commands that the project's pages show, and what makes them small enough to be run."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from testing import ROOT
from testing.command_line import small

_NO_PAGES = ("CHANGELOG.md", "changelog.d")
PAGES = [
    path
    for path in sorted(ROOT.rglob("*.md"))
    if not any(part in _NO_PAGES or part.startswith(".") or part == "build" for part in path.relative_to(ROOT).parts)
]
"""Every page of the repository."""

_LINE = re.compile(
    r"^(?: {4}|\$ )(?:[A-Z_]+=\S+ )*((?:hatch|python|bash|torchrun) (?:[^#>\\\n]|\\\n)*)(?:.*\n(error: ))?",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Command:
    """A line to type.

    Attributes:
        program: an app (`mask_rcnn`), a module (`det_coco`), a script of hatch's (`bench`), or a file.
        words: its arguments.
        fails: whether the page shows the message that it ends with.
    """

    program: str
    words: tuple[str, ...]
    fails: bool = False


def commands(page: Path) -> list[Command]:
    """Those of a page, from top to bottom, without what installs things."""
    found = []
    for line in _LINE.finditer(page.read_text(encoding="utf-8")):
        words = shlex.split(line[1].replace("\\\n", " "))
        if words[:3] == ["python", "-m", "venv"]:
            continue
        words = [word for word in words if word not in ("run", "-q", "-m")][1:] if words[0] != "torchrun" else words
        program = re.sub(r"^apps[/.](?=\w+$)", "", words[0])
        found.append(Command(program, tuple(words[1:]), bool(line[2])))
    return found


STANDS_FOR = {
    **dict.fromkeys(("COCO", "DATA", "SOURCE", "PATH", "farm", "shapes", "clips", "testdev"), "DIR"),
    "FILE": "runs/{app}/NAME",
    "IMAGE": "street.jpg",
    "FOLDER": "pictures",
    "PICTURES": "pictures",
    "VIDEO": "moving.mp4",
    "RUN/failures/step-N.pt": "runs/{app}/failed/failures/step-2.pt",
    "results.json": "runs/mask_rcnn/NAME/predictions.json",
    # Published detectors: small ones in the layouts of their systems.
    "torchvision/maskrcnn_resnet50_fpn": "torchvision.pth",
    "torchvision/retinanet_resnet50_fpn_v2": "torchvision-retinanet.pth",
    "detectron2/mask_rcnn_R_50_FPN_3x": "published.pth",
    # Steps and images in a step.
    "100": "2",
    "3000": "5",
    "32": "4",
}
"""What a page leaves to its reader, or has too large, and what the test has in its folder instead."""

_LEFT_OUT = {"--recipe", "--device", "--nproc"}
"""Options whose values are those of a large machine: recipes are tested in tests/test_recipes.py, processes in
tests/test_processes.py."""

_OPTIONAL = re.compile(r"'?\[.*?\]'?")


def shortened(command: Command) -> tuple[str, ...]:
    """The arguments of a command for a network of a tenth of a second a step."""
    app, (name, *words) = command.program, command.words
    if name in ("recipes", "weights"):
        return command.words
    words = shlex.split(_OPTIONAL.sub("", shlex.join(words)))
    given = [
        STANDS_FOR.get(word, word).format(app=app).partition("|")[0]
        for before, word in zip([name, *words], words, strict=False)
        if not {before, word} & _LEFT_OUT
    ]
    if name in ("train", "augmentations") and "--resume" not in given:
        given = [*small(app), *given, *_absent("--data", "DIR", given)]
    if name == "train":
        steps = [] if "--resume" in given else _absent("--solver.steps", "2", given)
        given += [*steps, "--pictures", "0"]  # other commands draw and report
    if name == "benchmark":
        network = [] if "--weights" in given else small(app)  # files bring their own
        given = [*network, *given, *_absent("--data", "DIR", given), "--steps", "1", "--warmup", "1"]
    if "int8" in given:
        given += ["--force", "True"]  # rounding hurts a network that has learnt nothing
    return name, *given


def _absent(option: str, value: str, given: Sequence[str]) -> list[str]:
    return [] if option in given else [option, value]
