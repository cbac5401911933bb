"""What bounds a training, and which option helps: those that could are tried, and measured as it was."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from apps.common.config import Recipe
from det_coco.doctor.defaults import default_workers

Bound = Literal["loading", "the exchange of gradients between the processes", "the host", "the training step"]
_LEAST = 0.05
"""Share of the time that an option has to save to be worth naming."""


@dataclass(frozen=True, kw_only=True)
class Times:
    """Median seconds of the parts of a step.

    Attributes:
        loading: until a batch is there.
        training: the step, when its batch is on the device.
        host: until the step was launched; 0 on the CPU, which is both.
        exchange: the gradients of several processes, alone.
        workers: processes that load beside the step; without them loading and step take turns.
    """

    loading: float
    training: float
    host: float = 0.0
    exchange: float = 0.0
    workers: int = 0

    @property
    def whole(self) -> float:
        """Seconds of a step in a training."""
        return max(self.loading, self.training) if self.workers else self.loading + self.training

    @property
    def bound(self) -> Bound:
        """What a step waits for most."""
        if self.loading > self.training:
            return "loading"
        if self.exchange > self.training / 2:
            return "the exchange of gradients between the processes"
        if self.host > 0.9 * self.training:
            return "the host"
        return "the training step"


def candidates(recipe: Recipe, times: Times, device: str, cores: int) -> Iterator[tuple[str, Recipe]]:
    """Options that could help where a training is bound, and the recipe with each.

    Args:
        recipe: as it was measured.
        times: what was measured.
        device: its type.
        cores: of this machine, for this process.
    """

    def changed(option: str, value: Any) -> tuple[str, Recipe]:
        section, _, field = option.removeprefix("--").partition(".")
        part = replace(getattr(recipe, section), **{field: value})
        return f"{option} {value}", replace(recipe, **{section: part})

    workers = recipe.data.workers
    # On the CPU the step has the cores that loading would take.
    spare = cores - 1 if device == "cpu" else cores
    if times.bound == "loading" or (not workers and times.loading > _LEAST * times.whole):
        for more in (workers + 1, 2 * workers):
            if workers < more <= spare:
                yield changed("--data.workers", more)
    if device != "cpu" and times.bound in ("the host", "the training step") and not recipe.train.capture:
        yield changed("--train.capture", True)
    if times.bound == "the training step" and recipe.train.precision == "fp32":
        yield changed("--train.precision", "bf16")
        if device == "cuda":
            yield changed("--train.precision", "tf32")


def what_helps(recipe: Recipe, times: Times, device: str, measure: Callable[[Recipe, str], Times]) -> list[str]:
    """Try the options that could help, and say what each did.

    Args:
        recipe: as it was measured.
        times: what was measured.
        device: its type.
        measure: gives the times with another recipe; the option is for those that do not work here, which raise.
    """
    lines, helps = [], False
    batch, before = recipe.data.batch, times.whole
    for option, other in candidates(recipe, times, device, default_workers()):
        try:
            now = measure(other, option).whole
        except (ValueError, RuntimeError) as error:
            lines.append(f"  {option} does not work here: {str(error).splitlines()[0]}")
            continue
        saves = now < (1 - _LEAST) * before
        helps |= saves
        verdict = "" if saves else ", which is no help"
        lines.append(f"  {option}: {batch / now:.1f} images/s instead of {batch / before:.1f}{verdict}")
    if not helps:
        lines.append(f"  No option that was tried helps; {_ADVICE[times.bound]}")
    return lines


_ADVICE: dict[Bound, str] = {
    "loading": "smaller pictures on the disk, or more cores, would.",
    "the exchange of gradients between the processes": "a larger --data.batch would, as it exchanges them less often.",
    "the host": "a larger --data.batch would, as it launches the same kernels for more images.",
    "the training step": "smaller images, a smaller network or a faster device would.",
}
