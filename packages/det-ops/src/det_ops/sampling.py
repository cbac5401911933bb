"""A fixed number of positive and negative examples, drawn by random keys.

`B` images, `N` examples each, `S` slots of the result.
"""

import torch
from torch import Tensor

from det_ops._checks import check_device, check_shape, expect
from det_ops.backends import _C, LIBRARY, float_type, native, register

LIBRARY.define("sample(Tensor labels, Tensor keys, int num, int max_positive) -> (Tensor, Tensor, Tensor)")


def sample(labels: Tensor, keys: Tensor, num: int, positive_fraction: float) -> tuple[Tensor, Tensor, Tensor]:
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
        `index [B, S]` int64, `positive [B, S]` bool and `valid [B, S]` bool, with S = min(num, N): positives by
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
    if native(labels):
        return torch.ops.det_ops.sample(labels, keys, num, max_positive)
    return _reference(labels, keys, num, max_positive)


def _reference(labels: Tensor, keys: Tensor, num: int, max_positive: int) -> tuple[Tensor, Tensor, Tensor]:
    """Two top-k selections joined by index arithmetic."""
    n = labels.shape[1]
    slots = min(num, n)
    most = min(max_positive, n)
    positive_keys, positive_index = torch.where(labels == 1, keys, -1).topk(most, dim=1)
    negative_keys, negative_index = torch.where(labels == 0, keys, -1).topk(slots, dim=1)
    positives = (positive_keys >= 0).sum(1, keepdim=True)  # [B, 1]
    negatives = (negative_keys >= 0).sum(1, keepdim=True)
    slot = torch.arange(slots, device=labels.device).expand(labels.shape[0], slots)
    positive = slot < positives
    valid = slot < positives + negatives
    # Slot s holds the s-th positive, then the (s - positives)-th negative: one gather from both lists in a row.
    both = torch.cat((positive_index, negative_index), 1)
    place = torch.where(positive, slot, slot - positives + most)
    index = both.gather(1, place.clamp(max=max(both.shape[1] - 1, 0)))
    return torch.where(valid, index, 0), positive, valid


LIBRARY.impl("sample", _reference, "CompositeExplicitAutograd")


def _cpu(labels: Tensor, keys: Tensor, num: int, max_positive: int) -> tuple[Tensor, Tensor, Tensor]:
    if _C is None:
        return _reference(labels, keys, num, max_positive)
    dtype = float_type(keys)
    labels, keys = labels.contiguous(), keys.to(dtype).contiguous()
    b, n = labels.shape
    slots = min(num, n)
    index = torch.empty((b, slots), dtype=torch.int64)
    positive = torch.empty((b, slots), dtype=torch.bool)
    valid = torch.empty((b, slots), dtype=torch.bool)
    kernel = _C.sample_float64 if dtype == torch.float64 else _C.sample_float32
    kernel(
        labels.data_ptr(),
        keys.data_ptr(),
        b,
        n,
        slots,
        max_positive,
        torch.get_num_threads(),
        index.data_ptr(),
        positive.data_ptr(),
        valid.data_ptr(),
    )
    return index, positive, valid


LIBRARY.impl("sample", _cpu, "CPU")


@torch.library.register_fake("det_ops::sample")
def _fake(labels: Tensor, _keys: Tensor, num: int, _max_positive: int) -> tuple[Tensor, Tensor, Tensor]:
    shape = (labels.shape[0], min(num, labels.shape[1]))
    flag = labels.new_empty(shape, dtype=torch.bool)
    return labels.new_empty(shape, dtype=torch.int64), flag, torch.empty_like(flag)


register("sample", "cpu", "C++", "one pass over the keys; threads over images")
for _device in ("cuda", "npu"):
    register("sample", _device, "reference", "two top-k selections of PyTorch")
