"""What of a recipe follows from options that say something else: schedules from steps, limits from sizes."""

from collections.abc import Sequence
from dataclasses import replace

from apps.common.config import DataConfig, LoadingConfig, R
from det_engine import SolverConfig
from det_engine.options import named_options

HABITS = {
    "--epochs": "a training is as long as --solver.steps, each of --data.batch images",
    "--max-iter": "a training is as long as --solver.steps",
    "--iterations": "a training is as long as --solver.steps",
    "--batch-size": "it is --data.batch, the images of a step over all devices",
    "--batch": "it is --data.batch, the images of a step over all devices",
    "--ims-per-batch": "it is --data.batch, the images of a step over all devices",
    "--lr": "it is --solver.base-lr",
    "--lr0": "it is --solver.base-lr",
    "--learning-rate": "it is --solver.base-lr",
    "--lr-steps": "it is --solver.milestones",
    "--lr-gamma": "it is --solver.gamma",
    "--wd": "it is --solver.weight-decay",
    "--weight-decay": "it is --solver.weight-decay",
    "--momentum": "it is --solver.momentum",
    "--optimizer": "it is --solver.optimizer",
    "--warmup": "it is --solver.warmup-steps",
    "--workers": "it is --data.workers",
    "--num-workers": "it is --data.workers",
    "--imgsz": "sizes are --data.train-sizes and --data.test-size (YOLACT: --data.size)",
    "--img-size": "sizes are --data.train-sizes and --data.test-size (YOLACT: --data.size)",
    "--data-path": "it is --data",
    "--dataset": "it is --data",
    "--work-dir": "it is --output",
    "--output-dir": "it is --output",
    "--project": "it is --output",
    "--config-file": "recipes are named by --recipe, and --config takes the config.json of a run",
    "--model": "networks are named by --recipe",
    "--pretrained": "it is --weights",
    "--load-from": "it is --weights",
    "--resume-from": "it is --resume",
    "--num-gpus": "it is --nproc",
    "--gpus": "it is --nproc",
    "--world-size": "it is --nproc",
    "--amp": "it is --train.precision, bf16 or fp16",
    "--fp16": "it is --train.precision fp16",
    "--half": "it is --train.precision fp16",
    "--seed": "it is --train.seed",
    "--print-freq": "it is --train.log-interval",
    "--save-period": "it is --train.checkpoint-interval, and --train.keep-interval for those that are kept",
    "--patience": "it is --train.patience",
    "--freeze": "it is --train.freeze, with patterns of names such as 'backbone.*'",
    "--trainable-backbone-layers": "it is --backbone.freeze-at, which counts the frozen ones",
}
"""Options of other trainers, and what stands for them here."""


def fitted_schedule(fitted: SolverConfig, chosen: SolverConfig, args: Sequence[str]) -> tuple[SolverConfig, str]:
    """The milestones of a recipe in proportion to another number of steps, unless an option says where they are.

    Args:
        fitted: the recipe's, for the batch of the training.
        chosen: the same with what options say.
        args: the options.

    Returns:
        The solver, and what to say about it.
    """
    if chosen.steps == fitted.steps:
        return chosen, ""
    line = ""
    moves = chosen.schedule == "multistep" and chosen.milestones and "--solver.milestones" not in named_options(args)
    if moves:
        milestones = tuple(max(1, round(m * chosen.steps / fitted.steps)) for m in chosen.milestones)
        line += f" Milestones in proportion: {_list(chosen.milestones)} -> {_list(milestones)}."
        chosen = replace(chosen, milestones=milestones)
    if chosen.warmup_steps >= chosen.steps:
        line += (
            f" The learning rate is not reached: the warm-up takes {chosen.warmup_steps} steps, and the training has "
            f"{chosen.steps} (--solver.warmup-steps)."
        )
    return chosen, line


def fitted_sizes(recipe: LoadingConfig, chosen: LoadingConfig, args: Sequence[str]) -> tuple[LoadingConfig, str]:
    """The limit of an image's longer side in proportion to larger sizes, unless an option says what it is.

    Args:
        recipe: the recipe's.
        chosen: the same with what options say.
        args: the options.

    Returns:
        The data section, and what to say about it.
    """
    if not isinstance(recipe, DataConfig) or not isinstance(chosen, DataConfig):
        return chosen, ""
    before, now = (max(*data.train_sizes, data.test_size) for data in (recipe, chosen))
    if now <= before or "--data.max-size" in named_options(args):
        return chosen, ""
    longest = round(recipe.max_size * now / before)
    line = f"\nThe longer side of an image may be {longest} pixels, in proportion, and not {recipe.max_size}."
    return replace(chosen, max_size=longest), f"{line} (--data.max-size)"


def without_frozen(recipe: R, args: Sequence[str]) -> tuple[R, str]:
    """The recipe with a body that learns, where it starts at random: frozen at random values it would learn nothing.

    Args:
        recipe: what is trained.
        args: the options; what they say of the body stays.

    Returns:
        The recipe, and what to say about it.
    """
    given, body, changed = named_options(args), recipe.backbone, {}
    if body.freeze_at and "--backbone.freeze-at" not in given:
        changed["freeze_at"] = 0
    if body.norm.startswith("frozen") and "--backbone.norm" not in given:
        changed["norm"] = "gn"
    if not changed:
        return recipe, ""
    options = ", ".join(f"--backbone.{name.replace('_', '-')} {value}" for name, value in changed.items())
    line = f"\nWithout weights nothing of the body may be frozen: {options}, unless an option says otherwise."
    return replace(recipe, backbone=replace(body, **changed)), line


def _list(steps: Sequence[int]) -> str:
    return ", ".join(map(str, steps))
