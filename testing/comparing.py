"""Equal to the last bit, and equal up to rounding."""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor


def differences(one: object, two: object, *, skip: Collection[object] = (), at: str = "") -> list[str]:
    """Places where nested dictionaries, lists, tensors and plain values differ in type, dtype or any bit.

    Args:
        one: such as a state dict or a checkpoint.
        two: the other.
        skip: keys of dictionaries that need not agree.
        at: the place of both in what surrounds them.
    """
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        return [] if one.dtype == two.dtype and torch.equal(one, two) else [at]
    if isinstance(one, dict) and isinstance(two, dict) and one.keys() == two.keys():
        pairs = {key: (one[key], two[key]) for key in one if key not in skip}
    elif isinstance(one, list | tuple) and isinstance(two, list | tuple) and len(one) == len(two):
        pairs = dict(enumerate(zip(one, two, strict=True)))
    else:
        return [] if type(one) is type(two) and one == two else [at]
    return [place for key, pair in pairs.items() for place in differences(*pair, skip=skip, at=f"{at}/{key}")]


def assert_same(one: object, two: object, *, skip: Collection[object] = ()) -> None:
    """No :func:`differences`."""
    assert differences(one, two, skip=skip) == []


def assert_same_gradients(found: Tensor, expected: Tensor, inputs: Sequence[Tensor], **tolerance: Any) -> None:
    """The gradients of every input are close, for one random gradient of both outputs.

    Args:
        found: any shape.
        expected: the same shape.
        inputs: leaves of both, any shapes.
        tolerance: `rtol` and `atol` of :func:`torch.testing.assert_close`.
    """
    upstream = torch.randn_like(expected)
    ours, theirs = (torch.autograd.grad(out, inputs, upstream) for out in (found, expected))
    torch.testing.assert_close(ours, theirs, **tolerance)
