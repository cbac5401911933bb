"""SGD recipe and learning-rate schedule as values and pure functions."""

import math
from bisect import bisect_right
from dataclasses import dataclass, replace

from det_engine.errors import EngineError


@dataclass(frozen=True, kw_only=True, slots=True)
class SolverConfig:
    """Stochastic gradient descent with warm-up and a stepped learning rate.

    The defaults are detectron2's 1x schedule. Steps count optimizer steps of `reference_batch` images.

    Attributes:
        base_lr: learning rate at `reference_batch` images a step.
        reference_batch: images a step for which the learning rate and the step counts are given.
        momentum: momentum, non-Nesterov.
        weight_decay: L2 penalty of weights.
        norm_weight_decay: of every parameter of normalisation layers; None: as other parameters.
        bias_lr_factor: learning rate of biases relative to weights (maskrcnn-benchmark: 2).
        bias_weight_decay: of biases, those of normalisation layers included; None: as other parameters.
        warmup_steps: length of the linear warm-up.
        warmup_factor: learning rate at step 0 relative to `base_lr`.
        milestones: steps from which the learning rate is multiplied by `gamma` once more.
        gamma: factor of a milestone.
        steps: length of the training.
        clip_norm: largest L2 norm of all gradients together; None: gradients are not clipped.
    """

    base_lr: float = 0.02
    reference_batch: int = 16
    momentum: float = 0.9
    weight_decay: float = 1e-4
    norm_weight_decay: float | None = 0.0
    bias_lr_factor: float = 1.0
    bias_weight_decay: float | None = None
    warmup_steps: int = 1000
    warmup_factor: float = 1 / 1000
    milestones: tuple[int, ...] = (60_000, 80_000)
    gamma: float = 0.1
    steps: int = 90_000
    clip_norm: float | None = None


def check_solver(config: SolverConfig) -> None:
    """Raise `EngineError` naming the first field that makes no sense."""
    rules = {
        "base_lr": config.base_lr > 0,
        "reference_batch": config.reference_batch >= 1,
        "momentum": 0 <= config.momentum < 1,
        "weight_decay": config.weight_decay >= 0,
        "warmup_steps": config.warmup_steps >= 0,
        "warmup_factor": 0 <= config.warmup_factor <= 1,
        "milestones": list(config.milestones) == sorted(config.milestones),
        "gamma": config.gamma > 0,
        "steps": config.steps >= 1,
        "clip_norm": config.clip_norm is None or config.clip_norm > 0,
    }
    for name, holds in rules.items():
        # A NaN fails every comparison, so it ends here too.
        if not holds:
            raise EngineError(f"Solver field {name} cannot be {getattr(config, name)!r}.")


def scale_to_batch(config: SolverConfig, batch: int) -> tuple[SolverConfig, str]:
    """Fit a recipe to another number of images a step, by the linear scaling rule.

    The learning rate grows with the batch, the step counts (length, milestones, warm-up) shrink with it, so that
    the same number of images is seen. Momentum, weight decay and the warm-up factor stay.
    Rule: Goyal et al., "Accurate, Large Minibatch SGD", arXiv:1706.02677; rounding as detectron2's
    `DefaultTrainer.auto_scale_workers`.

    Args:
        config: recipe for `config.reference_batch` images a step.
        batch: images a step over all devices, >= 1.

    Returns:
        The recipe for `batch` (its `reference_batch` is `batch`), and a line to print.

    Raises:
        EngineError: `batch` below 1, or a solver field that makes no sense.
    """
    check_solver(config)
    if batch < 1:
        raise EngineError(f"The batch must hold at least one image, got {batch}.")
    if batch == config.reference_batch:
        return config, f"Batch {batch} as in the recipe: learning rate {config.base_lr:g}, {config.steps} steps."
    ratio = batch / config.reference_batch
    scaled = replace(
        config,
        base_lr=config.base_lr * ratio,
        reference_batch=batch,
        warmup_steps=round(config.warmup_steps / ratio),
        milestones=tuple(round(step / ratio) for step in config.milestones),
        steps=max(1, round(config.steps / ratio)),
    )
    changes = [f"learning rate {config.base_lr:g} -> {scaled.base_lr:g}", f"steps {config.steps} -> {scaled.steps}"]
    if config.milestones:
        changes.append(f"milestones {_list(config.milestones)} -> {_list(scaled.milestones)}")
    if config.warmup_steps:
        changes.append(f"warm-up {config.warmup_steps} -> {scaled.warmup_steps}")
    return scaled, f"Batch {batch} instead of {config.reference_batch}: {', '.join(changes)}."


def _list(steps: tuple[int, ...]) -> str:
    return "/".join(str(step) for step in steps)


def lr_at(config: SolverConfig, step: int) -> float:
    """Learning rate of step `step` (the first is 0), a function of nothing else.

    `base_lr * warm-up(step) * gamma ** (number of milestones <= step)`, where warm-up rises linearly from
    `warmup_factor` at step 0 to 1 at step `warmup_steps` (maskrcnn-benchmark's `WarmupMultiStepLR`).
    """
    factor = 1.0
    if step < config.warmup_steps:
        done = step / config.warmup_steps
        factor = config.warmup_factor * (1 - done) + done
    return config.base_lr * factor * math.pow(config.gamma, bisect_right(config.milestones, step))
