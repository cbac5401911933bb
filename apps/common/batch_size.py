"""The largest batch that fits into memory: found before a training, or named after one that did not fit."""

import re
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from apps.common.app import App
from apps.common.config import Recipe
from apps.common.fitting import SPARE, free_memory, shown_size, step_memory
from apps.common.learning_options import BenchmarkOptions
from apps.common.splits import open_splits
from det_coco import CocoIndex, DataError
from det_engine import EngineError, distributed, resolve_device
from det_engine.cli import UsageError, take_option
from det_engine.options import option_names

AUTO = "auto"
_MIB = 1 << 20
_PEAK = re.compile(r"^peak memory +(\d+) MiB", re.MULTILINE)


def with_fitting_batch(app: App, recipe: Recipe, args: Sequence[str]) -> tuple[list[str], str]:
    """The options of a training with a number in place of `--data.batch auto`, and what to say about it.

    A batch of one and one of two images are measured, each in a process of its own; memory grows evenly from there.

    Args:
        app: the recipe's.
        recipe: what the training starts from.
        args: its options.

    Raises:
        UsageError: there are several processes, which share a batch.
        EngineError: not even two images fit, or they cannot be measured; says why.
    """
    batch, rest = take_option(args, "data.batch")
    if batch != AUTO:
        return list(args), ""
    if distributed.is_launched():
        raise UsageError("--data.batch auto is for one process. Find the number with one, and multiply it by --nproc.")
    device = resolve_device(take_option(rest, "device", "auto")[0] or "auto")
    free = free_memory(device)
    if free is None:
        raise EngineError(f"--data.batch auto: this system does not say how much memory {device} has; give a number.")
    print("Measuring steps of one and of two images, to find the batch that fits ...", flush=True)
    one, two = (_measured(app, rest, number) for number in (1, 2))
    each = max(two - one, _MIB)
    data = take_option(rest, "data")[0]
    images = len(open_splits(None if data is None else Path(data), recipe).train)
    room = max(1, min(images, int((SPARE * free - (one - each)) // each)))
    line = (
        f"Batch {room}, the largest that fits: an image takes about {shown_size(each)} in a step, all else "
        f"{shown_size(max(one - each, 0))}, free on {device.type} are {shown_size(free)}"
        f"{f'; the training split has no more than {images} images' if room == images else ''}."
    )
    return [*rest, "--data.batch", str(room)], line


def _measured(app: App, args: Sequence[str], batch: int) -> int:
    """Bytes that steps of a batch take at most, measured by `benchmark` in a process of its own."""
    recipe = next(iter(app.recipes.values()))()
    known = set(option_names(BenchmarkOptions(recipe=recipe.name, config=recipe))) | {"--precision", "--recipe"}
    kept, keeps = [], False
    for argument in args:
        if argument.startswith("--"):
            keeps = argument.partition("=")[0].replace("_", "-") in known
        kept += [argument] if keeps else []
    command = [*app.program, "benchmark", *kept, "--data.batch", str(batch)]
    ended = subprocess.run([*command, "--steps", "2", "--warmup", "1"], capture_output=True, text=True)
    found = _PEAK.search(ended.stdout)
    if ended.returncode or found is None:
        said = (ended.stderr.strip() or ended.stdout.strip()).splitlines()
        why = said[-1].removeprefix("error: ") if said else f"it ended with status {ended.returncode}"
        raise EngineError(f"--data.batch auto: a step of {batch} cannot be measured: {why}")
    return int(found[1]) * _MIB


@contextmanager
def saying_what_fits(app: App, recipe: Recipe, index: CocoIndex, device: torch.device) -> Generator[None]:
    """A training; where a batch does not fit into memory, the message says which number would.

    Args:
        app: the recipe's.
        recipe: whole.
        index: the split to train on.
        device: whose memory it is.

    Raises:
        EngineError: memory was not enough.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error) or distributed.world_size() > 1:
            raise
        message = _what_fits(app, recipe, index, device)
        if message is None:
            raise
        raise EngineError(message) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was no memory left; on the CPU PyTorch has no class for it."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _what_fits(app: App, recipe: Recipe, index: CocoIndex, device: torch.device) -> str | None:
    try:
        fixed, each = step_memory(app, recipe, index)
    except DataError:
        return None
    batch, total = recipe.data.batch, _all_memory(device)
    if total is None:
        return None
    parts = recipe.train.accumulate
    room = int((SPARE * total - fixed) // each)
    start = f"A step of {batch // parts} images does not fit into the memory of {device}: an image takes about "
    start += f"{shown_size(each)}, weights {shown_size(fixed)}, of {shown_size(total)}."
    if room < 1:
        return f"{start} Not even one would; take smaller images, or a smaller network."
    room = min(room, batch // parts - 1)
    if room < 1:
        return f"{start} One should fit, unless other programs have the memory."
    accumulate = next(
        number for number in range(parts + 1, batch + 1) if batch % number == 0 and batch // number <= room
    )
    ways = f"--data.batch {room * parts}, or --train.accumulate {accumulate} at the same result"
    return f"{start} About {room} would: {ways}."


def _all_memory(device: torch.device) -> int | None:
    """Bytes of an accelerator, whoever has them now; those that are free, of the CPU."""
    if device.type == "cpu":
        return free_memory(device)
    return int(torch.get_device_module(device).mem_get_info(device)[1])
