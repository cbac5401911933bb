"""Optimizer recipe and learning-rate schedule as values and pure functions."""

import math
from bisect import bisect_right
from dataclasses import dataclass, field, replace
from typing import Literal

from det_engine.errors import EngineError


@dataclass(frozen=True, kw_only=True, slots=True)
class SolverConfig:
    """Gradient descent with warm-up, and a learning rate that falls in steps or along a cosine.

    The defaults are detectron2's 1x schedule. Steps count optimizer steps of `reference_batch` images.

    Attributes:
        base_lr: learning rate at `reference_batch` images a step.
        reference_batch: images in a step for which the learning rate and the step counts are meant.
        momentum: momentum, non-Nesterov.
        weight_decay: L2 penalty of weights.
        norm_weight_decay: weight decay of all parameters of normalisation layers; None: that of other parameters.
        no_decay: patterns for the names of parameters without weight decay, such as `*pos_embed`.
        bias_lr_factor: learning rate of biases relative to weights (maskrcnn-benchmark: 2).
        bias_weight_decay: weight decay of biases, including those of normalisation layers; None: that of other
            parameters.
        warmup_steps: length of the linear warm-up.
        warmup_factor: learning rate at step 0 relative to `base_lr`.
        milestones: steps at which the learning rate is multiplied by `gamma`.
        gamma: factor of the learning rate at a milestone.
        steps: length of the training, in steps.
        clip_norm: largest L2 norm of all gradients together; None: gradients are not clipped.
        optimizer: sgd, or adamw (Loshchilov & Hutter, arXiv:1711.05101), which takes no momentum.
        betas: decay of adamw's two moving averages.
        layer_decay: learning rate of a layer relative to the next one (Clark et al., ELECTRA, arXiv:2003.10555); the
            model names its layers (`TrainableModel.layer_groups`), and everything else has the full rate.
        rates: factors of the learning rate by pattern of the parameters' names, such as `{"backbone.*": 0.1}`; if
            several patterns fit, the last one counts.
        schedule: multistep (`milestones`, `gamma`), or cosine, which falls to `final_factor` at the last step.
        final_factor: learning rate at the end of a cosine schedule relative to `base_lr`.
        ema_decay: decay of a moving average of the weights, which is then evaluated; None: no average.

    Raises:
        EngineError: a field makes no sense; names the first.
    """

    base_lr: float = 0.02
    reference_batch: int = 16
    momentum: float = 0.9
    weight_decay: float = 1e-4
    norm_weight_decay: float | None = 0.0
    no_decay: tuple[str, ...] = ()
    bias_lr_factor: float = 1.0
    bias_weight_decay: float | None = None
    warmup_steps: int = 1000
    warmup_factor: float = 1 / 1000
    milestones: tuple[int, ...] = (60_000, 80_000)
    gamma: float = 0.1
    steps: int = 90_000
    clip_norm: float | None = None
    optimizer: Literal["sgd", "adamw"] = "sgd"
    betas: tuple[float, float] = (0.9, 0.999)
    layer_decay: float = 1.0
    rates: dict[str, float] = field(default_factory=dict)
    schedule: Literal["multistep", "cosine"] = "multistep"
    final_factor: float = 0.0
    ema_decay: float | None = None

    def __post_init__(self) -> None:
        rules = {
            "base_lr": (self.base_lr > 0, "positive"),
            "reference_batch": (self.reference_batch >= 1, "at least 1"),
            "momentum": (0 <= self.momentum < 1, "at least 0 and below 1"),
            "weight_decay": (self.weight_decay >= 0, "at least 0"),
            "warmup_steps": (self.warmup_steps >= 0, "at least 0"),
            "warmup_factor": (0 <= self.warmup_factor <= 1, "between 0 and 1"),
            "milestones": (list(self.milestones) == sorted(self.milestones), "steps in rising order"),
            "gamma": (self.gamma > 0, "positive"),
            "steps": (self.steps >= 1, "at least 1"),
            "clip_norm": (self.clip_norm is None or self.clip_norm > 0, "positive or None"),
            "optimizer": (self.optimizer in ("sgd", "adamw"), "sgd or adamw"),
            "betas": (all(0 <= beta < 1 for beta in self.betas), "at least 0 and below 1"),
            "layer_decay": (0 < self.layer_decay <= 1, "above 0 and at most 1"),
            "rates": (all(rate > 0 for rate in self.rates.values()), "positive numbers by pattern"),
            "schedule": (self.schedule in ("multistep", "cosine"), "multistep or cosine"),
            "final_factor": (0 <= self.final_factor <= 1, "between 0 and 1"),
            "ema_decay": (self.ema_decay is None or 0 <= self.ema_decay < 1, "at least 0 and below 1, or None"),
        }
        for name, (holds, allowed) in rules.items():
            # A NaN fails every comparison, so it ends here too.
            if not holds:
                raise EngineError(f"solver.{name} must be {allowed}, got {getattr(self, name)!r}.")


def scaled_to_batch(config: SolverConfig, batch: int, *, keep_warmup: bool = False) -> tuple[SolverConfig, str]:
    """Fit a recipe to another number of images a step, by the linear scaling rule.

    The learning rate grows with the batch, the step counts (length, milestones, warm-up) shrink with it, so that
    the same number of images is seen. Momentum, weight decay and the warm-up factor stay.
    Rule: Goyal et al., "Accurate, Large Minibatch SGD", arXiv:1706.02677; rounding as detectron2's
    `DefaultTrainer.auto_scale_workers`.

    Args:
        config: recipe for `config.reference_batch` images a step.
        batch: images a step over all devices, >= 1.
        keep_warmup: leave the warm-up its number of steps and its first learning rate, as YOLACT does.

    Returns:
        The recipe for `batch` (its `reference_batch` is `batch`), and a line to print.

    Raises:
        EngineError: `batch` below 1, or so large that no step is left.
    """
    if batch < 1:
        raise EngineError(f"The batch must hold at least one image, got {batch}.")
    if batch == config.reference_batch:
        return config, f"Batch {batch} as in the recipe: learning rate {config.base_lr:g}, {config.steps} steps."
    ratio = batch / config.reference_batch
    scaled = replace(
        config,
        base_lr=config.base_lr * ratio,
        reference_batch=batch,
        warmup_steps=config.warmup_steps if keep_warmup else round(config.warmup_steps / ratio),
        warmup_factor=min(1.0, config.warmup_factor / ratio) if keep_warmup else config.warmup_factor,
        milestones=tuple(round(step / ratio) for step in config.milestones),
        steps=max(1, round(config.steps / ratio)),
    )
    changes = [f"learning rate {config.base_lr:g} -> {scaled.base_lr:g}", f"steps {config.steps} -> {scaled.steps}"]
    if config.milestones:
        changes.append(f"milestones {_list(config.milestones)} -> {_list(scaled.milestones)}")
    if scaled.warmup_steps != config.warmup_steps:
        changes.append(f"warm-up {config.warmup_steps} -> {scaled.warmup_steps}")
    return scaled, f"Batch {batch} instead of {config.reference_batch}: {', '.join(changes)}."


def _list(steps: tuple[int, ...]) -> str:
    return "/".join(str(step) for step in steps)


def lr_at(config: SolverConfig, step: int) -> float:
    """Learning rate of step `step` (the first is 0), a function of nothing else.

    `base_lr * warm-up(step) * fall(step)`. Warm-up rises linearly from `warmup_factor` at step 0 to 1 at step
    `warmup_steps` (maskrcnn-benchmark's `WarmupMultiStepLR`). The fall is `gamma ** (number of milestones <= step)`,
    or half a cosine from the end of the warm-up to the last step (Loshchilov & Hutter, arXiv:1608.03983).
    """
    factor = 1.0
    if step < config.warmup_steps:
        done = step / config.warmup_steps
        factor = config.warmup_factor * (1 - done) + done
    if config.schedule == "cosine":
        done = min(1.0, max(0.0, (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)))
        fall = config.final_factor + (1 - config.final_factor) * (1 + math.cos(math.pi * done)) / 2
    else:
        fall = math.pow(config.gamma, bisect_right(config.milestones, step))
    return config.base_lr * factor * fall
