"""The best of many scores, in an order that is defined. `N` scores, `K` of them, `*` any leading dimensions."""

import torch
from torch import Tensor

from det_ops._checks import expect
from det_ops._operator import operator
from det_ops.reference import top_k as reference


def top_k(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Choose the largest scores: `torch.topk` with an order among equal ones, of which the lower index goes first.

    `torch.topk` leaves open which of equal scores it returns, and that depends on the number of scores and on the
    device. Scores in half precision are often equal: what is padded with others then comes in another order.

    Args:
        scores: `[*, N]`, floating. NaN counts as the largest.
        count: K, from 0 to N.

    Returns:
        `values [*, K]`, falling, of the dtype of `scores`, with its gradient, and `indices [*, K]` int64.

    Raises:
        ValueError: Wrong dtype or number.
    """
    expect(scores.ndim > 0 and scores.is_floating_point(), "scores", "a floating Tensor[*, N]", scores)
    expect(0 <= count <= scores.shape[-1], "count", "between 0 and the number of scores", count)
    indices = _top_k(scores, count)
    return scores.gather(-1, indices), indices


@operator(
    "top_k(Tensor scores, SymInt count) -> Tensor",
    reference=reference.top_k,
    functions=["top_k"],
    fallback="a stable sort of PyTorch",
    inline=True,
)
def _top_k(scores: Tensor, count: int) -> Tensor:
    return scores.new_empty((*scores.shape[:-1], count), dtype=torch.int64)
