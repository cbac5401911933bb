"""Random number generators: seeding, capturing and lending them."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_all(seed: int) -> None:
    """Seed the generators of Python, NumPy, torch on the CPU and torch on every accelerator."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the global generator is the one that user code draws from
    torch.manual_seed(seed)


def mixed_seed(seed: int, *numbers: int) -> int:
    """A seed that follows from `seed` and further numbers, far from those of others (SplitMix64's mixing)."""
    state = seed % 2**64
    for number in numbers:
        state = (state + (number + 1) * 0x9E3779B97F4A7C15) % 2**64
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) % 2**64
        state ^= state >> 31
    return state % 2**63


def capture_random_state(device: torch.device | None = None) -> dict[str, Any]:
    """State of the generators of Python, NumPy, torch on the CPU and, if it is an accelerator, `device`.

    The result holds plain values and CPU tensors only, so a checkpoint that holds it loads with `weights_only=True`.
    """
    name, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
    }
    if device is not None and device.type != "cpu":
        state[device.type] = torch.get_device_module(device).get_rng_state(device)
    return state


def restore_random_state(state: dict[str, Any], device: torch.device | None = None) -> None:
    """Put the generators into a captured state; one of another kind of accelerator is left out."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if device is not None and device.type in state:
        torch.get_device_module(device).set_rng_state(state[device.type], device)


@contextmanager
def fork_rng(device: torch.device | None = None, seed: int | None = None) -> Iterator[None]:
    """Run a block without moving the generators: afterwards they are where they were.

    Args:
        device: an accelerator whose generator is kept as well.
        seed: what the CPU generators are seeded with inside the block; None: they go on from where they are.
    """
    state = capture_random_state(device)
    if seed is not None:
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        restore_random_state(state, device)
