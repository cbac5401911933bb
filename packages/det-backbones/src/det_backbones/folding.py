"""Folding of constant normalisation into the convolutions before it, once, for inference."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from det_backbones.norm import FrozenBatchNorm2d, folded, has_constant_statistics


class Normalized(nn.Module):
    """A module that has convolutions, each with a normalisation that nothing else goes to or comes from."""

    def normalized(self) -> Iterator[tuple[str, str]]:
        """The names of the two within this module, of each such pair."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldReport:
    """What :func:`fold_norms` makes of the normalisations of a network.

    Attributes:
        folded: Names of those that become part of a convolution.
        kept: Names of the others, and why each stays.
    """

    folded: tuple[str, ...]
    kept: Mapping[str, str]

    def __str__(self) -> str:
        reasons = "".join(f"; {count} kept: {reason}" for reason, count in Counter(self.kept.values()).items())
        return f"{len(self.folded)} of {len(self.folded) + len(self.kept)} normalisations folded{reasons}"


def fold_report(network: nn.Module) -> FoldReport:
    """What :func:`fold_norms` would do to a network, which stays as it is.

    Args:
        network: Anything; what is in `train()` counts as such.
    """
    folded_names = [norm for _, _, norm in _foldable(network)]
    kept = {
        name: _reason(module)
        for name, module in network.named_modules()
        if isinstance(module, _BatchNorm | FrozenBatchNorm2d | nn.GroupNorm | nn.LayerNorm) and name not in folded_names
    }
    return FoldReport(folded=tuple(folded_names), kept=kept)


@torch.no_grad()
def fold_norms(network: nn.Module) -> nn.Module:
    """Fold normalisations into the convolutions before them once, for inference, instead of at every call.

    In this package's networks, those of timm among them, normalisations whose statistics are constant, in `eval()` all
    batch normalisations that have a convolution of their own; others stay (:func:`fold_report` says which). Results are
    the same up to rounding, the names in the state are not: convolutions get a bias, and the normalisations become
    `nn.Identity`, or what timm's do besides. What was folded is constant.

    Args:
        network: One of this package's, or anything with such inside; changed in place.

    Returns:
        `network`.
    """
    for module, first, second in list(_foldable(network, relative=True)):
        convolution = cast(nn.Conv2d, module.get_submodule(first))
        norm = cast(FrozenBatchNorm2d, module.get_submodule(second))
        weight, bias = folded(convolution, norm, convolution.weight.dtype)
        convolution.weight = nn.Parameter(weight, requires_grad=False)
        convolution.bias = nn.Parameter(bias, requires_grad=False)
        module.set_submodule(second, _rest(norm))
    return network


def _foldable(network: nn.Module, *, relative: bool = False) -> Iterator[tuple[nn.Module, str, str]]:
    """Module, and the names of convolution and normalisation: within it where `relative`, else within the network."""
    for prefix, module in network.named_modules():
        if isinstance(module, Normalized):
            for names in module.normalized():
                if has_constant_statistics(module.get_submodule(names[1])):
                    start = f"{prefix}." if prefix and not relative else ""
                    yield module, start + names[0], start + names[1]


def _rest(norm: nn.Module) -> nn.Module:
    """What a layer does to its normalised input: nothing, but for timm's, which have an activation."""
    parts = [part for name, part in norm.named_children() if name in ("drop", "act") and type(part) is not nn.Identity]
    return nn.Sequential(*parts) if parts else nn.Identity()


def _reason(norm: nn.Module) -> str:
    if not isinstance(norm, _BatchNorm | FrozenBatchNorm2d):
        return "statistics of its input"
    return "follows no convolution alone" if has_constant_statistics(norm) else "statistics of the batch, in train()"
