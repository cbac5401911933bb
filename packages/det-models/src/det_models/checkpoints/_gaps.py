"""Classes that are numbered like the categories of a data set, as torchvision's are: with gaps, for COCO."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from det_models.checkpoints._dense import NEVER, cells_of

__all__ = ["labels_with_gaps", "spread", "torchvision_labels", "without_gaps"]

_BY_CLASS = {"box_head.cls_score": 1, "box_head.bbox_pred": 4, "mask_head.predictor": 1}
"""Modules with outputs for every class: how many."""


def torchvision_labels(ids: Sequence[int]) -> list[int]:
    """Torchvision's label of each class: the category's id, or numbers from 1 where the ids are no such numbers.

    Args:
        ids: Of the categories, in the order of the classes.
    """
    numbered = list(range(1, len(ids) + 1))
    usable = list(ids) == sorted(ids) and min(ids) >= 1 and max(ids) <= 2 * len(ids)
    return list(ids) if usable else numbered


def spread(state: Mapping[str, Tensor], labels: Sequence[int]) -> dict[str, Tensor]:
    """Our state with class i in the place of label `labels[i]` (from 1), and classes that never win between."""
    count = max(labels)
    if count == len(labels):
        return dict(state)
    return _turned(_moved(_turned(state), torch.tensor(labels) - 1, count), back=True)


def without_gaps(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of :func:`spread`: without the classes that it put between."""
    real = _real(state)
    if real is None or real.all():
        return dict(state)
    found = _turned(state)
    for name, tensor, values in _class_tensors(found):
        classes = len(real) * values
        found[name] = torch.cat((tensor[:classes].unflatten(0, (-1, values))[real].flatten(0, 1), tensor[classes:]))
    return _turned(found, back=True)


def labels_with_gaps(state: Mapping[str, Tensor]) -> tuple[int, ...] | None:
    """Labels (from 1) of the classes that :func:`without_gaps` keeps, if it leaves some out."""
    real = _real(state)
    if real is None or real.all():
        return None
    return tuple((real.nonzero().flatten() + 1).tolist())


def _real(state: Mapping[str, Tensor]) -> Tensor | None:
    """Which classes can win, [C] bool; None where there are no numbers."""
    cells = cells_of(state)
    module = "head.classes" if cells else "box_head.cls_score"
    weight, bias = (state.get(f"{module}.{kind}") for kind in ("weight", "bias"))
    if weight is None or bias is None or weight.is_meta:
        return None
    if cells:
        weight, bias = (tensor.unflatten(0, (cells, -1)) for tensor in (weight, bias))
        return (bias != NEVER).any(0) | (weight != 0).flatten(2).any(2).any(0)
    return (bias[:-1] != NEVER) | (weight[:-1] != 0).any(1)


def _moved(state: Mapping[str, Tensor], places: Tensor, count: int) -> dict[str, Tensor]:
    found = dict(state)
    for name, tensor, values in _class_tensors(state):
        classes = len(places) * values
        moved = tensor.new_zeros((count, values, *tensor.shape[1:]))
        if name in ("box_head.cls_score.bias", "head.classes.bias"):
            moved.fill_(NEVER)
        moved[places] = tensor[:classes].unflatten(0, (-1, values))
        found[name] = torch.cat((moved.flatten(0, 1), tensor[classes:]))
    return found


def _class_tensors(state: Mapping[str, Tensor]) -> list[tuple[str, Tensor, int]]:
    """Name, tensor and values per class; what follows those of the classes is the background's."""
    modules = {**_BY_CLASS, "head.classes": cells_of(state)}
    names = [(f"{module}.{kind}", values) for module, values in modules.items() for kind in ("weight", "bias")]
    return [(name, state[name], values) for name, values in names if name in state]


def _turned(state: Mapping[str, Tensor], *, back: bool = False) -> dict[str, Tensor]:
    """With the rows of a one-stage head's classes by class and then by anchor, or back."""
    found, cells = dict(state), cells_of(state)
    for name in ("head.classes.weight", "head.classes.bias"):
        if cells and name in state:
            sides = (-1, cells) if back else (cells, -1)
            found[name] = state[name].unflatten(0, sides).transpose(0, 1).flatten(0, 1)
    return found
