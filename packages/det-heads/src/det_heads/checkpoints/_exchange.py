"""Checkpoints of other systems, with their tensors under our names and in our layout; and back."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from det_heads.checkpoints._layouts import Layout
from det_heads.checkpoints._rules import Rule, to_our_name, to_reference_name
from det_heads.checkpoints._systems import SYSTEMS, System

_SHOWN = 5


class CheckpointError(ValueError):
    """A checkpoint that does not fit: of an unknown system, or of another architecture than the model."""


@dataclass(frozen=True)
class Report:
    """What became of the tensors of a checkpoint.

    Attributes:
        system: Name of the system the checkpoint comes from.
        matched: Our name -> the checkpoint's name, for all tensors that were read.
        ignored: Names in the checkpoint which the program computes by itself.
        missing: Our names of tensors which the model has and the checkpoint lacks.
    """

    system: str
    matched: Mapping[str, str]
    ignored: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.system} checkpoint: {len(self.matched)} tensors matched"]
        remarks = {"ignored": self.ignored, "missing": self.missing}
        lines += [f"{len(names)} {title}: {', '.join(names)}" for title, names in remarks.items() if names]
        return "\n".join(lines)


def detect_system(state: Iterable[str]) -> str:
    """Name of the system whose names these are.

    Args:
        state: Names of the tensors (a state dict will do).

    Raises:
        CheckpointError: No system names its tensors so.
    """
    names = [_without_module(name) for name in state]
    explained = {
        system.name: sum(to_our_name(system.rules, name) is not None for name in names) for system in SYSTEMS.values()
    }
    best = max(explained, key=explained.__getitem__)
    if 2 * explained[best] <= len(names):
        raise CheckpointError(f"this is no detector of {_first(SYSTEMS)}; its tensors are {_first(names)}")
    return best


def reference_names(names: Iterable[str], system: str) -> dict[str, str]:
    """Our names -> the names of `system`.

    Raises:
        CheckpointError: `system` has no counterpart of some tensors; the message names the first of them.
    """
    return {ours: name for ours, name, _ in _to_reference(names, system)}


def from_reference(state: Mapping[str, Tensor | np.ndarray], system: str | None = None) -> dict[str, Tensor]:
    """A detector's tensors under our names and in our layout (background last, but in YOLACT).

    Nothing but names is looked at, so any depth and any number of classes is right, with and without masks.

    Args:
        state: Tensors or arrays under the names of the reference; `module.` before all names is left out.
        system: Name of the system, found out by `detect_system` when None.

    Raises:
        CheckpointError: The system has no such names; the message names the first of them.
    """
    return _read(state, system)[0]


def to_reference(state: Mapping[str, Tensor], system: str) -> dict[str, Tensor]:
    """The inverse of `from_reference`: tensors (or their gradients) under the names and in the layout of `system`.

    Rows of the background which only the reference has become zero.

    Raises:
        CheckpointError: `system` has no counterpart of some tensors; the message names the first of them.
    """
    return {name: layout.to_reference(state[ours]) for ours, name, layout in _to_reference(state, system)}


def load_reference(
    model: nn.Module, state: Mapping[str, Tensor | np.ndarray], system: str | None = None, *, partial: bool = False
) -> Report:
    """Load another system's checkpoint into a model of the same architecture.

    The model must be built with the system's conventions. The epsilon of frozen normalisation is one of them that no
    tensor tells: 1e-5 in detectron2, 0 in maskrcnn-benchmark and torchvision's published detectors.

    Args:
        model: Detector with our parameter names.
        state: As in `from_reference`.
        system: As in `from_reference`.
        partial: Whether the checkpoint may lack tensors of the model.

    Raises:
        CheckpointError: The architectures differ; the message names the first mismatches, the model is unchanged.
    """
    tensors, report = _read(state, system)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    missing = tuple(name for name in expected if name not in tensors and not _is_counter(name))
    problems = []
    for name, tensor in tensors.items():
        if name not in expected and _is_counter(name):
            continue
        if name not in expected:
            problems.append(f"the model has no {name} ({report.matched[name]})")
        elif tuple(tensor.shape) != expected[name]:
            found = f"{name} ({report.matched[name]})"
            problems.append(f"the model's {found} is {expected[name]}, the checkpoint's {tuple(tensor.shape)}")
    if not partial:
        problems += [f"the checkpoint has no {name}" for name in missing]
    if problems:
        raise CheckpointError(
            f"the {report.system} checkpoint is of another architecture ({len(problems)} mismatches): "
            + _first(problems, "; ")
        )
    model.load_state_dict(tensors, strict=False)
    return replace(report, missing=missing)


def _read(state: Mapping[str, Tensor | np.ndarray], system: str | None) -> tuple[dict[str, Tensor], Report]:
    origin = _system(system or detect_system(state))
    state = {_without_module(name): value for name, value in state.items()}
    ignored = tuple(name for name in state if origin.ignored.fullmatch(name))
    renamed = _rename(
        [name for name in state if name not in ignored],
        lambda name: to_our_name(origin.rules, name),
        f"a detector of {origin.name} has no",
    )
    tensors = {ours: layout.to_ours(torch.as_tensor(state[name])).contiguous() for name, ours, layout in renamed}
    return tensors, Report(origin.name, {ours: name for name, ours, _ in renamed}, ignored)


def _to_reference(names: Iterable[str], system: str) -> list[tuple[str, str, Layout]]:
    target = _system(system)
    return _rename(names, lambda name: to_reference_name(target.rules, name), f"{target.name} has no counterpart of")


def _rename(
    names: Iterable[str], look_up: Callable[[str], tuple[str, Rule] | None], complaint: str
) -> list[tuple[str, str, Layout]]:
    """Old name, new name and layout of all tensors, or an error which names those without a new name."""
    found = [(name, look_up(name)) for name in names]
    unknown = [name for name, match in found if match is None]
    if unknown:
        raise CheckpointError(f"{complaint} {_first(unknown)}")
    return [(name, match[0], match[1].layout) for name, match in found if match is not None]


def _system(name: str) -> System:
    if name not in SYSTEMS:
        raise CheckpointError(f"system must be one of {', '.join(SYSTEMS)}, got {name!r}")
    return SYSTEMS[name]


def _is_counter(name: str) -> bool:
    """Frozen statistics are not counted, and nothing depends on the count of others."""
    return name.endswith(".num_batches_tracked")


def _without_module(name: str) -> str:
    """DistributedDataParallel puts `module.` before every name."""
    return name.removeprefix("module.")


def _first(items: Iterable[str], separator: str = ", ") -> str:
    texts: Sequence[str] = list(items)
    more = f"{separator}and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return separator.join(texts[:_SHOWN]) + more
