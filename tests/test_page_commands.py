"""Every command of every page runs as it stands there, but small (testing/pages.py says how)."""

import runpy
import shutil
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import det_coco.__main__
import det_models.__main__
import det_ops.__main__
from apps.common.video import write_video
from det_coco import load_image, synthetic_dataset
from testing import ROOT
from testing.command_line import APPS, call, small
from testing.pages import PAGES, Command, commands, shortened
from testing.trained import write_example, write_trained

PROGRAMS: dict[str, Callable[[list[str]], int | None]] = {
    "det_coco": det_coco.__main__.main,
    "det_models": det_models.__main__.main,
    "det_ops": lambda _: det_ops.__main__.main(),
}
# Those that are many trainings or ask for a service, and programs of their own, with the tests that run them.
ELSEWHERE = {
    "sweep": "tests/test_sweep.py",
    "--tracker": "packages/det-engine/tests/test_trackers.py",
    "det_ops.npu_check": "tests/test_npu_check.py",
    "bench": "tests/test_bench.py",
    "release": "tests/test_releases.py",
    "./test/train_full_8p.sh": "tests/test_zoo.py",
    "./test/train_eval_8p.sh": "tests/test_zoo.py",
    "apps/faster_rcnn/test/train_full_8p.sh": "tests/test_zoo.py",
    "apps/mask_rcnn/test/train_full_8p.sh": "tests/test_zoo.py",
}
# What launches others, and what CI types itself.
APART = ("torchrun", "pytest", "test", "lint", "types", "wheels", "sanitize", "docs", "npu:check", ".ci/run")


def runnable(page: Path) -> list[Command]:
    """The commands of a page that are neither elsewhere nor apart, nor there for a message, whose test has its data."""
    known = {*ELSEWHERE, *APART}
    return [each for each in commands(page) if not each.fails and not known & {each.program, *each.words}]


class Work:
    """A folder in which commands run, each once however many pages show it.

    Args:
        folder: has what the pages speak of: data DIR, runs, pictures, a video, files of other systems.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.done: set[tuple[str, ...]] = set()

    def run(self, command: Command) -> None:
        """Run a command, unless it has run.

        Args:
            command: as a page shows it.
        """
        app = command.program
        arguments = shortened(command) if command.words else ()
        if (app, *arguments) in self.done:
            return
        for word in arguments:
            if word.startswith("OUT") and Path(word).exists():  # of a page before
                Path(word).rename(Path(word).with_name(f"{len(self.done)}-{word}"))
        if app in APPS:
            status = call(app, *arguments, *self.output(app, arguments))
        elif app in PROGRAMS:
            status = PROGRAMS[app](list(arguments)) or 0
        else:
            status = 0
            sys.argv = [app, *command.words]
            runpy.run_path(app, run_name="__main__")
        found_faults = "check" in arguments and status == 1
        assert status == 0 or found_faults, (app, arguments)
        self.done.add((app, *arguments))

    def output(self, app: str, arguments: tuple[str, ...]) -> list[str]:
        """An app's first training is its run NAME."""
        first = arguments[0] == "train" and not Path("runs", app, "NAME").exists()
        return ["--output", f"runs/{app}/NAME"] if first else []


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    data = synthetic_dataset(folder / "DIR", train_images=8, val_images=3, size=96)
    write_example(folder)
    for system in ("torchvision", "torchvision-retinanet"):
        write_trained(folder / f"{system}.pth", system)
    np.save(folder / "picture.npy", load_image(folder / "street.jpg"))
    with write_video(folder / "moving.mp4", Fraction(4)) as writer:
        writer.write(load_image(folder / "street.jpg"))
    shutil.copytree(data / "val", folder / "new_pictures")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DET_CACHE", str(folder / "cache"))
        made = Work(folder)
        for app in APPS:
            made.run(Command(app, ("train", "--data", "DIR")))
        for name in ("mask_rcnn/OTHER", "mask_rcnn/tiny", "longer"):
            Path("runs", name).symlink_to(folder / "runs" / "mask_rcnn" / "NAME")
        to_detectron2 = ("--to", "detectron2", "published.pth")
        made.run(Command("mask_rcnn", ("convert", "--weights", "runs/mask_rcnn/NAME", *to_detectron2)))
        for app in ("mask_rcnn", "faster_rcnn"):
            broken = ["--solver.base-lr", "1e38", "--solver.warmup-steps", "0", "--output", f"runs/{app}/failed"]
            assert call(app, "train", "--data", "DIR", *small(app), *broken) == 2
    return made


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if runnable(page)], ids=lambda page: str(page.relative_to(ROOT))
)
def test_the_commands_of_a_page_run(page, work, monkeypatch):
    monkeypatch.chdir(work.folder)
    monkeypatch.setenv("DET_CACHE", str(work.folder / "cache"))
    monkeypatch.setattr("uvicorn.Server.run", lambda *_: None)
    monkeypatch.setattr(sys, "argv", sys.argv)  # which a program of its own is given
    for command in runnable(page):
        work.run(command)


def test_what_runs_elsewhere_has_a_test_there():
    for name, test in ELSEWHERE.items():
        text = (ROOT / test).read_text(encoding="utf-8")
        assert Path(name).stem.removeprefix("--") in text, (name, test)
