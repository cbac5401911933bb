"""The best of many scores on the CPU, where a sort takes up to eighty times as long as PyTorch's `topk`."""

from det_ops.reference.top_k import top_k_of_keys as top_k

__all__ = ["top_k"]
