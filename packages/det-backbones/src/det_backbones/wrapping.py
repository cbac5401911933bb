"""Strips what training frameworks wrap around the tensors of a network: the one place that knows their habits."""

import re
from collections.abc import Mapping
from typing import Any

CONTAINERS = (
    "blobs", "model", "state_dict", "model_state", "model_state_dict", "net", "weights", "module", "teacher"
)  # fmt: skip
"""Names under which a file keeps its tensors, in the order in which they are looked for."""

AVERAGES = ("model_ema", "ema_model", "ema_state_dict", "state_dict_ema", "ema")
"""Names under which it keeps a moving average of them, which its authors evaluate: taken before the others."""

_DEPTH = 4  # of containers in containers

# Modules around modules: torch.compile, FSDP, activation checkpoints. They may stand anywhere in a name.
_WRAPPERS = re.compile(r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")

# Before all names: DataParallel and DistributedDataParallel; the attribute of a LightningModule.
_PREFIXES = ("module.", "model.")

# The encoder that MoCo's file is about, beside its double, a queue and heads; DINO's teacher has a head beside it.
_ENCODERS = ("module.encoder_q.", "module.base_encoder.", "encoder_q.", "base_encoder.", "module.momentum_encoder.")

_AVERAGE_COUNT = "n_averaged"
_LIGHTNING = "pytorch-lightning_version"


def unwrap(content: Any) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """The tensors of a network under its own names, out of what a file holds.

    Args:
        content: What was read: dictionaries of tensors or arrays, among other things.

    Returns:
        What the innermost container holds by name, without prefixes; what lies beside the containers; and a phrase for
        each thing that was stripped.
    """
    beside: dict[str, Any] = {}
    notes: list[str] = []
    for _ in range(_DEPTH):
        if not isinstance(content, Mapping):
            return {}, beside, notes
        held = [name for name in (*AVERAGES, *CONTAINERS) if _holds_tensors(content.get(name))]
        if not held:
            break
        taken = held[0]
        beside |= {str(name): value for name, value in content.items() if name not in held}
        plain = next((name for name in held if name in CONTAINERS), None)
        if taken in AVERAGES and plain is not None:
            averaged, steps = _average_of(content[taken], content[plain])
            notes += [f"{taken}, the moving average, and not {plain} beside it", *steps]
            content = averaged
            break
        notes += [] if taken in ("blobs", "model", "state_dict") else [taken]
        content = content[taken]
    named, steps = _without_prefixes(_by_text(content), lightning=_LIGHTNING in beside)
    if "teacher" in notes and any(name.startswith("backbone.") for name in named):
        named = {name.removeprefix("backbone."): v for name, v in named.items() if name.startswith("backbone.")}
        steps.append("backbone.")
    return named, beside, list(dict.fromkeys(notes + steps))


def _average_of(averaged: Any, plain: Any) -> tuple[dict[str, Any], list[str]]:
    """An average, with what only the network beside it has: averages often leave out buffers."""
    average, _, steps = unwrap(averaged)
    network, _, _ = unwrap(plain)
    return (network | average if average.keys() <= network.keys() else average), steps


def _by_text(content: Any) -> dict[str, Any]:
    if not isinstance(content, Mapping):
        return {}
    return {name: value for name, value in content.items() if isinstance(name, str)}


def _without_prefixes(named: dict[str, Any], *, lightning: bool) -> tuple[dict[str, Any], list[str]]:
    steps = []
    encoder = next((prefix for prefix in _ENCODERS if any(name.startswith(prefix) for name in named)), None)
    if encoder is not None:
        named = {name.removeprefix(encoder): v for name, v in named.items() if name.startswith(encoder)}
        steps.append(encoder)
    if _AVERAGE_COUNT in named and len(named) > 1:
        named = {name: value for name, value in named.items() if name != _AVERAGE_COUNT}
        steps.append(_AVERAGE_COUNT)
    found = dict.fromkeys(match + "." for name in named for match in _WRAPPERS.findall(name))
    if found:
        named = _renamed(named, {name: _WRAPPERS.sub("", name) for name in named})
        steps += found
    for prefix in _PREFIXES:
        if lightning and prefix == "model." and any(name.startswith(prefix) for name in named):
            # Metrics and losses stand beside the network there.
            named = {name: value for name, value in named.items() if name.startswith(prefix)}
        if named and all(name.startswith(prefix) for name in named):
            named = _renamed(named, {name: name.removeprefix(prefix) for name in named})
            steps.append(prefix)
    return named, steps


def _renamed(named: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    if len(set(names.values())) < len(names):  # two networks in one file: nothing may be lost
        return named
    return {names[name]: value for name, value in named.items()}


def _holds_tensors(value: Any) -> bool:
    """Whether a value is a dictionary with tensors or arrays by name, in it or in dictionaries in it."""
    if not isinstance(value, Mapping):
        return False
    parts = [part for name, part in value.items() if isinstance(name, str)]
    return any(hasattr(part, "shape") for part in parts) or any(
        _holds_tensors(value.get(name)) for name in (*AVERAGES, *CONTAINERS)
    )
