"""The commands of an app before they are imported: names, options and help, for which nobody waits for torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, TypeVar

import tyro

from apps.common.app import App
from apps.common.config import Recipe
from apps.common.consequences import HABITS
from apps.common.detecting_options import EvalOptions, PredictOptions
from apps.common.file_options import CompareOptions, ConvertOptions, ExportOptions, ReportOptions
from apps.common.learning_options import (
    AugmentationsOptions,
    BenchmarkOptions,
    CheckOptions,
    ReplayOptions,
    SweepOptions,
    TrainOptions,
)
from det_engine.cli import take_option, unknown
from det_engine.options import named_options, override

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command.

    Attributes:
        name: of it.
        about: what it does, in a line.
        work: module and function that do it, with the app and the arguments.
        options: makes its options with their defaults, for a recipe; None: it reads its arguments itself.
        first: what people set most, which the help begins with.
        more: what else the help says.
        habits: options that other programs have, and what to give instead.
    """

    name: str
    about: str
    work: str
    options: Callable[[Recipe], Any] | None = None
    first: Sequence[str] = ()
    more: str = ""
    habits: Mapping[str, str] = field(default_factory=dict)

    def load(self, app: App, args: list[str]) -> Callable[[App, list[str]], int | None]:
        """What does it, imported now; where the arguments ask for its help, that is printed instead.

        Raises:
            SystemExit: after the help.
        """
        # What a file says is part of the help; then the command itself prints it.
        from_file = {"--config", "--resume", "--weights"} & named_options(args)
        if self.options and not from_file and {"--help", "-h"} & set(args):
            recipe, rest = take_recipe(app, args)
            read_options(app, self.name, rest, self.options(recipe))
        module, _, function = self.work.partition(":")
        return getattr(import_module(f"apps.common.{module}"), function)


COMMANDS = {
    command.name: command
    for command in (
        Command(
            name="train",
            about="Train a detector, evaluate it, keep its checkpoints.",
            work="train:train",
            options=lambda recipe: TrainOptions(recipe=recipe.name, values=recipe),
            first=(
                "--recipe",
                "--data",
                "--weights",
                "--output",
                "--resume",
                "--device",
                "--nproc",
                "--data.batch",
                "--solver.base-lr",
                "--solver.steps",
                "--train.precision",
            ),
            more="Options with a dot are fields of the recipe, shown with its values.\n\n"
            "d2 is detectron2, mm mmdetection, mrb maskrcnn-benchmark, tv torchvision.",
            habits=HABITS,
        ),
        Command(
            name="sweep",
            about="Search for a better learning rate, sizes, anchors and augmentation.",
            work="sweep:sweep",
            options=lambda _: SweepOptions(),
            more="Optuna chooses the values. Other options are those of `train`, for every trial.",
        ),
        Command(
            name="eval",
            about="Evaluate a checkpoint on a split: box and mask AP.",
            work="evaluate:evaluate",
            options=lambda _: EvalOptions(weights=tyro.MISSING),
            first=(
                "--weights",
                "--data",
                "--split",
                "--output",
                "--per-class",
                "--classes",
                "--size",
                "--max-detections",
                "--device",
                "--nproc",
            ),
        ),
        Command(
            name="predict",
            about="Detect objects in pictures and videos: COCO-result JSON and drawings.",
            work="predict:predict",
            options=lambda _: PredictOptions(inputs=(), weights=tyro.MISSING),
            first=(
                "--weights",
                "--data",
                "--output",
                "--min-score",
                "--classes",
                "--size",
                "--tile",
                "--show",
                "--batch",
                "--device",
            ),
        ),
        Command(
            name="augmentations",
            about="Draw what a recipe's augmentation does to the pictures of a data set.",
            work="augmentations:augmentations",
            options=lambda recipe: AugmentationsOptions(recipe=recipe.name, values=recipe),
            first=("--recipe", "--data", "--output", "--images", "--draws"),
        ),
        Command(
            name="benchmark",
            about="Measure images per second in loading, training and inference, or compare files.",
            work="benchmark:benchmark",
            options=lambda recipe: BenchmarkOptions(recipe=recipe.name, config=recipe),
            first=(
                "--recipe",
                "--data",
                "--weights",
                "--device",
                "--steps",
                "--warmup",
                "--nproc",
                "--data.batch",
                "--data.workers",
                "--train.precision",
            ),
        ),
        Command(
            name="check",
            about="Find what is wrong with a data set, and the options of a recipe that fit it.",
            work="check:check",
            options=lambda recipe: CheckOptions(recipe=recipe.name),
        ),
        Command(
            name="convert",
            about="Write a detector as a checkpoint of another system, or of ours, and certify it.",
            work="convert:convert",
            options=lambda _: ConvertOptions(out=tyro.MISSING, weights=tyro.MISSING, to=tyro.MISSING),
        ),
        Command(
            name="export",
            about="Write a detector for ONNX, OpenVINO or PyTorch's compilers, and certify it.",
            work="export:export",
            options=lambda _: ExportOptions(out=tyro.MISSING, weights=tyro.MISSING),
        ),
        Command(
            name="convert-data",
            about="Convert a data set of any known format to COCO's JSON or YOLO.",
            work="convert_data:convert_data",
        ),
        Command(
            name="report",
            about="Write a page that explains the AP of a run or of a results file.",
            work="report:report",
            options=lambda _: ReportOptions(run=tyro.MISSING),
        ),
        Command(
            name="compare",
            about="Say what differs between runs or results files, and whether it may be chance.",
            work="compare:compare",
            options=lambda _: CompareOptions(runs=()),
        ),
        Command(
            name="replay",
            about="Repeat a training step that went wrong, from the file it left.",
            work="replay:replay",
            options=lambda _: ReplayOptions(file=tyro.MISSING),
        ),
        Command(
            name="recipes",
            about="List the recipes, show one, or find the one like another system's.",
            work="show_recipes:show_recipes",
        ),
        Command(
            name="weights",
            about="List the published detectors that --weights takes by name.",
            work="show_weights:show_weights",
        ),
        Command(
            name="completion",
            about="Print what bash and zsh need to complete commands and options.",
            work="completion:show_completion",
        ),
    )
}


def take_recipe(app: App, args: list[str]) -> tuple[Recipe, list[str]]:
    """The recipe that `--recipe` names, by default the app's first, and the other arguments.

    Raises:
        UsageError: there is no such recipe; names the nearest.
    """
    name, rest = take_option(args, "recipe", next(iter(app.recipes)))
    if name not in app.recipes:
        raise unknown("recipe", str(name), app.recipes)
    return app.recipes[str(name)](), rest


def read_options(app: App, name: str, args: list[str], default: T) -> T:
    """The options of a command, those of `default` with what the arguments say instead.

    Args:
        app: whose command it is.
        name: of the command.
        args: after its name.
        default: a dataclass instance.

    Raises:
        UsageError: a wrong command line.
        SystemExit: after the help.
    """
    command = COMMANDS[name]
    about = "\n\n".join(filter(None, (command.about, command.more)))
    return override(default, args, f"apps/{app.name} {name}", about, command.first, command.habits)
