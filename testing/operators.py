"""What a step consists of: a recorder of operators, and what may not be among them.

The contract of every model (tests/test_static.py): shapes and operators follow from the configuration, never from the
data. What breaks it is named once, in `det_ops.npu_check.facts`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from det_ops.npu_check.facts import DYNAMIC, INDEXING, READS

# Those of which the check of an NPU sees the parts alone; those whose numbers are drawn in another order on each
# device; and that by which a number of the host becomes a tensor, whose copy to the device no graph can hold.
FORBIDDEN = (
    DYNAMIC
    | READS
    | {
        f"aten::{name}"
        for name in (
            "argwhere",
            "is_nonzero",
            "item",
            "lift_fresh",
            "lift_fresh_copy",
            "nonzero_static",
            "randperm",
            "unique",
        )
    }
)
"""Operators that no training step and no inference may call."""

HOST_READS = (
    "item", "tolist", "numpy", "cpu", "nonzero", "__bool__", "__int__", "__float__", "__index__", "unique",
)  # fmt: skip
"""Methods of a tensor that read its values."""


class Call(NamedTuple):
    """An operator that ran.

    Attributes:
        operator: the overload, printed as `aten.add.Tensor`.
        tensors: shape, dtype and strides of every tensor that went in or came out.
    """

    operator: OpOverload
    tensors: tuple[tuple[tuple[int, ...], torch.dtype, tuple[int, ...]], ...]

    @property
    def name(self) -> str:
        """Without the overload: `aten::add`."""
        return self.operator._schema.name


class Recorder(TorchDispatchMode):
    """Writes down every operator that runs while it is active, as `calls`."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def look_at(self, operator: OpOverload, args: Any) -> None:
        """Is called before an operator runs; for those who want more than a list."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.look_at(func, args)
        out = func(*args, **kwargs)
        tensors = (leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor))
        self.calls.append(Call(func, tuple((tuple(t.shape), t.dtype, t.stride()) for t in tensors)))
        return out


class StaticRecorder(Recorder):
    """A recorder that refuses operators which read values, or whose shapes depend on them."""

    def look_at(self, operator: OpOverload, args: Any) -> None:
        """Raises AssertionError for an operator that may not be there."""
        name = operator._schema.name
        assert FORBIDDEN.isdisjoint((name, operator.name())), f"{operator} depends on values"
        if name in INDEXING:
            indices = (leaf for leaf in tree_leaves(args[1]) if isinstance(leaf, Tensor))
            assert all(t.dtype not in (torch.bool, torch.uint8) for t in indices), f"{operator} with a mask"


@contextmanager
def no_host_reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Refuses reads inside the references of det_ops too, which a recorder sees as one operator."""
    with monkeypatch.context() as patch:
        for name in HOST_READS:

            def refuse(*_: Any, _name: str = name, **__: Any) -> None:
                raise AssertionError(f"Tensor.{_name} was called in the step")

            patch.setattr(Tensor, name, refuse)
        yield


def assert_equal_calls(first: list[Call], second: list[Call], *, least: int = 1) -> None:
    """The same operators with tensors of the same shapes, and at least so many of them."""
    assert len(first) >= least
    for number, (one, other) in enumerate(zip(first, second, strict=False)):
        assert one == other, f"operator {number} differs"
    assert len(first) == len(second)
