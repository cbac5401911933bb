"""How much memory a network takes, known before any of it is taken."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.overrides import TorchFunctionMode

from det_models.builders import build
from det_models.config import ModelConfig

__all__ = ["check_size"]

_MOST_TENSORS = 10_000


def check_size(config: ModelConfig) -> None:
    """Refuse a network that this machine's memory cannot hold, or not with one picture; nothing is allocated.

    Args:
        config: Of the network, such as one that a file describes.

    Raises:
        ValueError: It is too large, or its fields do not go together.
        ImportError: Its body is a network of timm, which is not installed.
    """
    try:
        with _WithoutMemory(), _counting(_memory()):
            build(config)
        height, width = max((config.resize.output_size(640, 640), *config.buckets), key=math.prod)
    except (RuntimeError, OverflowError, TypeError) as error:
        reason = str(error).partition("\n")[0]  # torch's own lists its C++ functions
        raise ValueError(f"it has layers of a size that no tensor can have ({reason})") from error
    if 3 * 4 * height * width > _memory():
        raise ValueError(f"it sees pictures of {height} x {width} pixels, which this machine's memory cannot hold")


class _WithoutMemory(TorchFunctionMode):
    """Within it, a new tensor is one number that stands for all, and nothing is written into it.

    The meta device would do the same, but computes in Python, and loads a compiler for that, which takes seconds.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, named = getattr(func, "__name__", ""), kwargs or {}
        if name in ("empty", "zeros", "ones", "full"):
            like = func(*args, **{**named, "device": "meta"})
            return torch.zeros((), dtype=like.dtype, device="cpu").expand(like.shape)
        if name == "to" or (name.endswith("_") and not name.endswith("__")):
            return next(iter((*args, *named.values())))  # the tensor itself
        return func(*args, **named)


@contextmanager
def _counting(most: int) -> Iterator[None]:
    """A block that ends as soon as the tensors of its modules take more than so many bytes."""
    count, size = 0, 0

    def add(_: nn.Module, __: str, tensor: Tensor | None) -> None:
        nonlocal count, size
        if tensor is not None:
            count, size = count + 1, size + tensor.numel() * tensor.element_size()
        if size > most or count > _MOST_TENSORS:
            found = f"more than {size / 2**30:.1f} GiB" if size > most else f"more than {_MOST_TENSORS} tensors"
            raise ValueError(f"it takes {found}, and this machine has {most / 2**30:.1f} GiB of memory")

    hooks = (register_module_parameter_registration_hook(add), register_module_buffer_registration_hook(add))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _memory() -> int:
    """Bytes of memory of this machine; as many as fit in 64 bits where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 2**63
