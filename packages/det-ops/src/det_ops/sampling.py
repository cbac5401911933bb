"""A fixed number of positive and negative examples, drawn by random keys.

`B` images, `N` examples each, `K` slots of the result.
"""

import torch
from torch import Tensor

from det_ops._checks import check_device, check_shape, expect
from det_ops._operator import operator
from det_ops.reference import sampling as reference


def subsample(labels: Tensor, keys: Tensor, num: int, positive_fraction: float) -> tuple[Tensor, Tensor, Tensor]:
    """Choose up to `num` examples of each image, at most `int(num * positive_fraction)` of them positive.

    The examples with the largest keys are chosen, among positives and among negatives. Independent uniform keys
    (`torch.rand`) therefore give uniform subsets, exactly as a random permutation would; keys that fall with the index
    give the first ones. What positives leave over goes to negatives, never the other way (Faster R-CNN, section 3.1.3).

    Args:
        labels: `[B, N]` int8: 1 positive, 0 negative, anything else never chosen.
        keys: `[B, N]` floating in [0, 1).
        num: Examples wanted of each image.
        positive_fraction: Upper bound of the share of positives, in [0, 1].

    Returns:
        `index [B, K]` int64, `positive [B, K]` bool and `valid [B, K]` bool, with K = min(num, N): positives by
        falling key, then negatives by falling key, then padding (index 0, both flags false). The order among equal
        keys is not defined.

    Raises:
        ValueError: Wrong shape, device or numbers.
    """
    expect(labels.ndim == 2 and labels.dtype == torch.int8, "labels", "an int8 Tensor[B, N]", labels)
    check_shape(keys, "keys", labels.shape)
    expect(keys.is_floating_point(), "keys", "floating", keys)
    check_device(keys, "keys", labels, "labels")
    expect(num >= 0, "num", "not negative", num)
    expect(0.0 <= positive_fraction <= 1.0, "positive_fraction", "between 0 and 1", positive_fraction)
    max_positive = int(num * positive_fraction)
    return _sample(labels, keys, num, max_positive)


@operator(
    "sample(Tensor labels, Tensor keys, int num, int max_positive) -> (Tensor, Tensor, Tensor)",
    reference=reference.sample,
    functions=["subsample"],
    fallback="two top-k selections of PyTorch",
    inline=True,
)
def _sample(labels: Tensor, _keys: Tensor, num: int, _max_positive: int) -> tuple[Tensor, Tensor, Tensor]:
    shape = (labels.shape[0], min(num, labels.shape[1]))  # [B, K]
    flag = labels.new_empty(shape, dtype=torch.bool)
    return labels.new_empty(shape, dtype=torch.int64), flag, torch.empty_like(flag)
