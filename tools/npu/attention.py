"""What torch_npu's fused attention computes, which its `scaled_dot_product_attention` is made of.

Source: the documentation of `npu_fusion_attention_v3` in torch_npu 2.14.0 (`torch_npu/_op_plugin_docs.py`).
"""

from typing import Any

import torch
from torch import Tensor

_FROM_BNSD = {"BNSD": (0, 1, 2, 3), "BSND": (0, 2, 1, 3), "BSH": (0, 2, 1, 3), "SBH": (2, 0, 1, 3)}
"""Where the axes of batch, heads, sequence and channels go; in layouts with H, heads and channels are one axis."""
_COPIES = 8
"""How often the kernel keeps each maximum and sum, for its gradient."""
_EVERYWHERE = 2**31 - 1
_DEFAULTS = {
    "pse": None, "padding_mask": None, "atten_mask": None, "scale": 1.0, "keep_prob": 1.0, "pre_tockens": _EVERYWHERE,
    "next_tockens": _EVERYWHERE, "inner_precise": 0, "prefix": None, "actual_seq_qlen": None, "actual_seq_kvlen": None,
    "sparse_mode": 0, "gen_mask_parallel": True, "sync": False, "softmax_layout": "", "sink": None,
}  # fmt: skip
"""What follows the layout, in its order."""
_IMPLEMENTED = {"atten_mask", "scale", "gen_mask_parallel", "sync"}


def fusion_attention(
    query: Tensor, key: Tensor, value: Tensor, heads: int, layout: str, *options: Any, **named: Any
) -> tuple[Tensor | None, ...]:
    """Attention, softmax(scale * query key^T) value, with the softmax's maxima and sums.

    Args:
        query: of the shape that `layout` says, such as `[B, N, S, D]`.
        key: the same, with a sequence of its own length.
        value: as `key`.
        heads: N.
        layout: "BNSD", "BSND", "BSH" or "SBH", where H is N * D.
        options: the operator's others, by their places.
        named: the same by their names.

    Returns:
        the attention as `query`, maxima and sums float32 `[B, N, S, 8]`, an empty tensor, and None for seed and offset.

    Raises:
        NotImplementedError: an option is not computed here.
    """
    used = _options(dict(zip(_DEFAULTS, options, strict=False)) | named)
    q, k, v = (_bnsd(each, heads, layout).float() for each in (query, key, value))
    scores = _scores(q, k, used)
    largest = scores.amax(-1, keepdim=True)
    exponentials = (scores - largest).exp()
    total = exponentials.sum(-1, keepdim=True)
    attention = _laid_out(exponentials / total @ v, layout).to(query.dtype)
    shape = (*largest.shape[:-1], _COPIES)
    return attention, largest.expand(shape), total.expand(shape), query.new_empty(0), None, None


def fusion_attention_grad(
    query: Tensor, key: Tensor, value: Tensor, slope: Tensor, heads: int, layout: str, **named: Any
) -> tuple[Tensor | None, ...]:
    """The gradient of :func:`fusion_attention`, from the maxima and sums that it gave.

    Args:
        query: as there.
        key: as there.
        value: as there.
        slope: of the attention, of its shape.
        heads: as there.
        layout: as there.
        named: the forward's options, its results, and the random numbers' state.

    Returns:
        gradients of query, key and value, and None for what was not given.

    Raises:
        NotImplementedError: an option is not computed here.
    """
    largest, total = named.pop("softmax_max")[..., :1], named.pop("softmax_sum")[..., :1]
    attention = _bnsd(named.pop("attention_in"), heads, layout).float()
    for unused in ("softmax_in", "seed", "offset", "numels"):
        named.pop(unused, None)
    used = _options({"scale": named.pop("scale_value", 1.0)} | named)
    q, k, v, d = (_bnsd(each, heads, layout).float() for each in (query, key, value, slope))
    shares = (_scores(q, k, used) - largest).exp() / total
    slopes = shares * (d @ v.mT - (d * attention).sum(-1, keepdim=True)) * used["scale"]
    found = (slopes @ k, slopes.mT @ q, shares.mT @ d)
    return *(_laid_out(each, layout).to(query.dtype) for each in found), None, None


def fusion_attention_v1(*given: Any, **named: Any) -> tuple[Tensor | None, ...]:
    """:func:`fusion_attention` as older NPUs have it, which counts random numbers as well: None here.

    Args:
        given: as there.
        named: as there.

    Returns:
        as there, and None.
    """
    return *fusion_attention(*given, **named), None


def _scores(query: Tensor, key: Tensor, options: dict[str, Any]) -> Tensor:
    scores = query @ key.mT * options["scale"]
    hidden = options["atten_mask"]
    return scores if hidden is None else scores.masked_fill(hidden.bool(), -torch.inf)


def _options(given: dict[str, Any]) -> dict[str, Any]:
    other = [name for name, value in given.items() if name not in _IMPLEMENTED and value != _DEFAULTS[name]]
    if other:
        raise NotImplementedError(f"fused attention with {', '.join(other)} is not computed here")
    return _DEFAULTS | given


def _bnsd(tensor: Tensor, heads: int, layout: str) -> Tensor:
    if layout.endswith("H"):
        tensor = tensor.unflatten(-1, (heads, -1))
    order = _FROM_BNSD[layout]
    return tensor.permute([order.index(axis) for axis in range(4)])


def _laid_out(tensor: Tensor, layout: str) -> Tensor:
    laid_out = tensor.permute(_FROM_BNSD[layout])
    return laid_out.flatten(-2) if layout.endswith("H") else laid_out
