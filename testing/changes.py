"""Content with something else in every place, one at a time: what damaged and hostile files are made of."""

from collections.abc import Iterator
from typing import Any

import torch

WRONG: tuple[Any, ...] = (
    None, "text", -1, 2.5, float("nan"), True, 10**9, [], {}, {"a": 1}, [[]], torch.ones(3), torch.tensor(2),
)  # fmt: skip
"""What stands in place of a value."""
MISSING = KeyError
"""In place of a value: it is not there at all."""


def places(value: object, depth: int, most: int = 1000, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Keys of dictionaries and numbers of lists in `value`, and of what these hold, as a path from the outside.

    Args:
        value: nested dictionaries, lists and tuples.
        depth: how long the longest path is.
        most: so many places of each inner dictionary or list are taken, from the first on.
        at: the path of `value` itself.
    """
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, item in list(items)[: most if at else None]:
        yield (*at, key)
        if depth > 1:
            yield from places(item, depth - 1, most, (*at, key))


def replaced(value: Any, at: tuple[Any, ...], new: object) -> Any:
    """A copy of `value` with `new` in the place `at`, or without it where that is MISSING."""
    if not at:
        return new
    copy = dict(value) if isinstance(value, dict) else dict(enumerate(value))
    if len(at) == 1 and new is MISSING:
        del copy[at[0]]
    else:
        copy[at[0]] = replaced(copy[at[0]], at[1:], new)
    return copy if isinstance(value, dict) else type(value)(copy.values())
