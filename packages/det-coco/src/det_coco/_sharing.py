"""Arrays that cross to other processes as shared memory instead of copies."""

from typing import Any

import numpy as np
import torch

from det_coco._mapped import MappedArray, place_of


class _Text:
    """Fixed-width text as numbers, which tensors can hold."""

    def __init__(self, codes: torch.Tensor, dtype: str) -> None:
        self.codes = codes
        self.dtype = dtype


def pack(attributes: dict[str, Any]) -> dict[str, Any]:
    """Replace arrays by tensors, and those of a mapped file by their places in it.

    The tensors are kept in the attributes for the next call: torch passes a tensor's memory on, so that all processes
    share one copy, whereas a new tensor would be a new copy for each.

    Args:
        attributes: of an object about to be pickled.

    Returns:
        what to pickle.
    """
    kept: dict[str, torch.Tensor | _Text | MappedArray] = attributes.setdefault("_tensors", {})
    state: dict[str, Any] = {}
    for name, value in attributes.items():
        if name == "_tensors":
            continue
        if isinstance(value, np.ndarray) and value.size:
            if name not in kept:
                kept[name] = place_of(value) or _tensor(value)
            state[name] = kept[name]
        else:
            state[name] = value
    return state


def unpack(state: dict[str, Any]) -> dict[str, Any]:
    """Undo `pack`; the arrays are views of the tensors or of the file."""
    return {name: _array(value) for name, value in state.items()}


def _tensor(array: np.ndarray) -> torch.Tensor | _Text:
    if array.dtype.kind == "U":
        return _Text(torch.from_numpy(array.view(np.int32).reshape(len(array), -1)), array.dtype.str)
    return torch.from_numpy(array)


def _array(value: Any) -> Any:
    if isinstance(value, MappedArray):
        return value.array()
    if isinstance(value, _Text):
        return value.codes.numpy().view(value.dtype).reshape(-1)
    return value.numpy() if isinstance(value, torch.Tensor) else value
