"""Sampling of examples in plain PyTorch. `B` images, `N` examples each, `K` slots of the result."""

import torch
from torch import Tensor


def sample(labels: Tensor, keys: Tensor, num: int, max_positive: int) -> tuple[Tensor, Tensor, Tensor]:
    """Two top-k selections joined by index arithmetic."""
    n = labels.shape[1]
    slots = min(num, n)
    most = min(max_positive, n)
    positive_keys, positive_index = torch.where(labels == 1, keys, -1).topk(most, dim=1)
    negative_keys, negative_index = torch.where(labels == 0, keys, -1).topk(slots, dim=1)
    positives = (positive_keys >= 0).sum(1, keepdim=True)  # [B, 1]
    negatives = (negative_keys >= 0).sum(1, keepdim=True)
    slot = torch.arange(slots, device=labels.device).expand(labels.shape[0], slots)  # [B, K]
    positive = slot < positives
    valid = slot < positives + negatives
    # Slot s holds the s-th positive, then the (s - positives)-th negative: one gather from both lists in a row.
    both = torch.cat((positive_index, negative_index), 1)
    place = torch.where(positive, slot, slot - positives + most)
    index = both.gather(1, place.clamp(max=max(both.shape[1] - 1, 0)))
    return torch.where(valid, index, 0), positive, valid
