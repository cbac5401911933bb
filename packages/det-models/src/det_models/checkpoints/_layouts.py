"""How the contents of a tensor differ between a reference and this project, where the shape alone does not say it.

Here the background is the last row of the classifier, and the other class-specific outputs have no background at all.
Systems which put the background first differ in three ways, one layout each. All act on weights and biases alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """A change of layout and its inverse.

    Attributes:
        to_ours: From the reference's tensor to ours.
        to_reference: From our tensor to the reference's.
    """

    to_ours: Callable[[Tensor], Tensor]
    to_reference: Callable[[Tensor], Tensor]


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _without_first(rows: int) -> Layout:
    """The reference has `rows` rows for the background in front. No loss reaches them, so zeros stand for them."""

    def drop(tensor: Tensor) -> Tensor:
        return tensor[rows:]

    def prepend(tensor: Tensor) -> Tensor:
        import torch

        return torch.cat((tensor.new_zeros((rows, *tensor.shape[1:])), tensor))

    return Layout(drop, prepend)


SAME = Layout(_same, _same)
"""Nothing differs."""

BACKGROUND_FIRST = Layout(lambda tensor: tensor.roll(-1, 0), lambda tensor: tensor.roll(1, 0))
"""Classifier with the background in row 0."""

BACKGROUND_BOX_FIRST = _without_first(4)
"""Box regression with four rows for the background in front (class-specific or class-agnostic)."""

BACKGROUND_MASK_FIRST = _without_first(1)
"""Mask predictor with a channel for the background in front."""


def _boxes_of_either_kind() -> Layout:
    def drop(tensor: Tensor) -> Tensor:
        return tensor if len(tensor) == 4 else tensor[4:]

    return Layout(drop, BACKGROUND_BOX_FIRST.to_reference)


BACKGROUND_OR_AGNOSTIC_BOX_FIRST = _boxes_of_either_kind()
"""The same, but a class-agnostic regression has four rows in all (mmdetection 1)."""
