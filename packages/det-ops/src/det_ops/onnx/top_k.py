"""The best of many scores in ONNX, whose `TopK` defines the order of equal ones: the lower index goes first."""

from typing import Any

from det_ops.onnx.values import op


def top_k(scores: Any, count: int) -> Any:
    """Translate `det_ops::top_k` of finite scores `[*, N]`: indices `[*, K]` int64."""
    _, indices = op.TopK(scores, [count], axis=-1)
    return indices
