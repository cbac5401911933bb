"""Losses on held-out images."""

import math
from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor, nn

from det_engine import distributed
from det_engine.model import Batch, part_arguments
from det_engine.optim import is_norm
from det_engine.random_state import mixed_seed
from det_engine.state import TrainingState


def validation_losses(state: TrainingState, batches: Iterator[Batch], count: int) -> dict[str, float]:
    """Means of the training losses over held-out batches of all processes: `validation/loss`, `validation/loss_x`.

    Normalisation layers use their running statistics and keep them, dropout is off, random numbers are the same at
    every evaluation. A batch counts by its images; those whose `image_ids` are below 0 only fill it.

    Args:
        state: the training.
        batches: this process's share of the held-out batches.
        count: at most this many of them.
    """
    model, stepper = state.model, state.make_step
    quiet = [
        module for module in model.modules() if is_norm(module) or isinstance(module, nn.modules.dropout._DropoutNd)
    ]
    for module in quiet:
        module.eval()
    sums: dict[str, float] = {}
    images = 0
    try:
        for number, batch in enumerate(islice(batches, count)):
            torch.manual_seed(mixed_seed(state.settings.seed, number))
            own = int((batch["image_ids"] >= 0).sum()) if "image_ids" in batch else len(next(iter(batch.values())))
            on_device = {name: value.to(state.device, non_blocking=True) for name, value in batch.items()}
            # Batches that the processes see at the same time are one batch.
            place = (distributed.rank(), distributed.world_size())
            with stepper.precision.autocast():
                losses = model(on_device, *part_arguments(model, place, _mean))
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + (own * float(value) if own else 0.0)
            images += own
    finally:
        for module in quiet:
            module.train()
    gathered = distributed.gather_object((sums, images))
    if gathered is None:
        return {}
    total = sum(part[1] for part in gathered)
    names = list(gathered[0][0])
    means = {name: math.fsum(part[0].get(name, 0.0) for part in gathered) / max(1, total) for name in names}
    return {"validation/loss": math.fsum(means.values()), **{f"validation/{n}": v for n, v in means.items()}}


def _mean(count: Tensor) -> Tensor:
    return distributed.all_reduce_mean(count.detach().float().clone())
