"""Checkpoints of other systems, with their tensors under our names and in our layout; and back."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from det_models.checkpoints._gaps import labels_with_gaps, without_gaps
from det_models.checkpoints._layouts import Layout
from det_models.checkpoints._registry import SYSTEMS
from det_models.checkpoints._rules import Rule, to_our_name, to_reference_name
from det_models.checkpoints._systems import System
from det_models.errors import CheckpointError

_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Translation:
    """The tensors of a checkpoint under our names.

    Attributes:
        system: Name of the system the checkpoint comes from.
        tensors: By our name, in our layout (background last, but in YOLACT).
        names: Our name -> the checkpoint's. Tensors that the checkpoint only implies have none: the statistics of
            Caffe2's normalisation, which are folded into its scale and bias.
        ignored: Names in the checkpoint of what the program computes by itself.
        labels: Numbers that the checkpoint gives its classes, where these have gaps.
    """

    system: str
    tensors: Mapping[str, Tensor]
    names: Mapping[str, str]
    ignored: tuple[str, ...] = ()
    labels: tuple[int, ...] | None = None


def detect_system(state: Iterable[str]) -> str:
    """Name of the system whose names these are.

    Args:
        state: Names of the tensors (a state dict will do).

    Raises:
        CheckpointError: No system names its tensors so, or they are those of a backbone alone.
    """
    names = [_without_module(name) for name in state]
    explained = {}
    for system in SYSTEMS.values():
        found = [match[0] for name in names if (match := to_our_name(system.rules, system.respell(name))) is not None]
        detects = any(not name.startswith("backbone.") for name in found)
        explained[system.name] = len(found) if detects else 0
    best = max(explained, key=explained.__getitem__)
    if 2 * explained[best] <= len(names):
        raise CheckpointError(f"this is no detector of {', '.join(SYSTEMS)}; its tensors are {first(names)}")
    return best


def reference_names(names: Iterable[str], system: str) -> dict[str, str]:
    """Our names -> the names of `system`.

    Raises:
        CheckpointError: `system` has no counterpart of some tensors; the message names the first of them.
    """
    return {ours: name for ours, name, _ in _to_reference(names, system)}


def translate(state: Mapping[str, Tensor | np.ndarray], system: str | None = None) -> Translation:
    """A detector's tensors under our names and in our layout.

    Nothing but names is looked at, so any depth and any number of classes is right, with and without masks.

    Args:
        state: Tensors or arrays under the names of the reference; `module.` before all names is left out.
        system: Name of the system, found out by :func:`detect_system` when None.

    Raises:
        CheckpointError: The system has no such names; the message names the first of them.
    """
    origin = _system(system or detect_system(state))
    state = {_without_module(name): value for name, value in state.items()}
    ignored = tuple(name for name in state if origin.ignored.fullmatch(origin.respell(name)))
    renamed = _rename(
        [name for name in state if name not in ignored],
        lambda name: to_our_name(origin.rules, origin.respell(name)),
        f"a detector of {origin.name} has no",
    )
    tensors = {ours: layout.to_ours(torch.as_tensor(state[name])).contiguous() for name, ours, layout in renamed}
    labels = None
    tensors = dict(origin.to_ours(tensors))
    if origin.name.startswith("torchvision"):
        labels, tensors = labels_with_gaps(tensors), without_gaps(tensors)
    if any(name.endswith("_bn_s") for name in state):
        tensors |= _identity_statistics(tensors)
    names = {ours: name for name, ours, _ in renamed}
    return Translation(system=origin.name, tensors=tensors, names=names, ignored=ignored, labels=labels)


def from_reference(state: Mapping[str, Tensor | np.ndarray], system: str | None = None) -> dict[str, Tensor]:
    """The tensors of :func:`translate`, whose arguments and errors it has."""
    return dict(translate(state, system).tensors)


def to_reference(state: Mapping[str, Tensor], system: str) -> dict[str, Tensor]:
    """The inverse of `from_reference`: tensors (or their gradients) under the names and in the layout of `system`.

    Rows of the background which only the reference has become zero.

    Raises:
        CheckpointError: `system` has no counterpart of some tensors; the message names the first of them.
    """
    state = _system(system).to_theirs(state)
    return {name: layout.to_reference(state[ours]) for ours, name, layout in _to_reference(state, system)}


def is_counter(name: str) -> bool:
    """Whether a tensor counts updates of statistics: frozen ones are not counted, and nothing depends on others."""
    return name.endswith(".num_batches_tracked")


def first(items: Iterable[str], separator: str = ", ") -> str:
    """The first few of many texts, and how many more there are."""
    texts: Sequence[str] = list(items)
    more = f"{separator}and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return separator.join(texts[:_SHOWN]) + more


def _identity_statistics(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Mean 0 and variance 1 for every normalisation of the body that has a scale and no statistics."""
    found = {}
    for name, scale in tensors.items():
        layer = re.fullmatch(r"(backbone\.body\..*(?:bn\d|downsample\.1))\.weight", name)
        if layer is not None and f"{layer[1]}.running_var" not in tensors:
            found[f"{layer[1]}.running_mean"] = torch.zeros_like(scale)
            found[f"{layer[1]}.running_var"] = torch.ones_like(scale)
    return found


def _to_reference(names: Iterable[str], system: str) -> list[tuple[str, str, Layout]]:
    target = _system(system)
    if not target.written:
        raise CheckpointError(f"checkpoints of {system} are only read, not written")
    return _rename(names, lambda name: to_reference_name(target.rules, name), f"{target.name} has no counterpart of")


def _rename(
    names: Iterable[str], look_up: Callable[[str], tuple[str, Rule] | None], complaint: str
) -> list[tuple[str, str, Layout]]:
    """Old name, new name and layout of all tensors, or an error which names those without a new name."""
    found = [(name, look_up(name)) for name in names]
    unknown = [name for name, match in found if match is None]
    if unknown:
        raise CheckpointError(f"{complaint} {first(unknown)}")
    return [(name, match[0], match[1].layout) for name, match in found if match is not None]


def _system(name: str) -> System:
    if name not in SYSTEMS:
        raise CheckpointError(f"system must be one of {', '.join(SYSTEMS)}, got {name!r}")
    return SYSTEMS[name]


def _without_module(name: str) -> str:
    """DistributedDataParallel puts `module.` before every name."""
    return name.removeprefix("module.")
