"""The NPU's fused attention, as the check computes it, against PyTorch's attention."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tools.npu.attention import fusion_attention, fusion_attention_grad, fusion_attention_v1

HEADS, CHANNELS = 3, 8


def laid_out(tensor: Tensor, layout: str) -> Tensor:
    """`[B, N, S, D]` in another layout."""
    found = {
        "BNSD": tensor,
        "BSND": tensor.transpose(1, 2),
        "BSH": tensor.transpose(1, 2).flatten(2),
        "SBH": tensor.permute(2, 0, 1, 3).flatten(2),
    }[layout]
    return found.contiguous()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("layout", ["BNSD", "BSND", "BSH", "SBH"])
def test_it_is_attention_and_its_gradient(layout: str, masked: bool) -> None:
    query = torch.randn(2, HEADS, 5, CHANNELS, dtype=torch.float64, requires_grad=True)
    key, value = (torch.randn(2, HEADS, 7, CHANNELS, dtype=torch.float64, requires_grad=True) for _ in range(2))
    slope = torch.randn(2, HEADS, 5, CHANNELS, dtype=torch.float64)
    hidden = torch.rand(2, 1, 5, 7) < 0.3
    hidden[..., 0] = False  # a row of which nothing is seen has no attention
    keep = ~hidden if masked else None
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=keep, scale=0.4)
    gradients = torch.autograd.grad(expected, (query, key, value), slope)
    given = [laid_out(each.detach().float(), layout) for each in (query, key, value)]
    mask = {"atten_mask": hidden} if masked else {}
    attention, largest, total, _, _, _ = fusion_attention(*given, HEADS, layout, scale=0.4, **mask)
    assert attention is not None
    torch.testing.assert_close(attention, laid_out(expected.detach().float(), layout))
    assert largest is not None
    assert largest.shape == (2, HEADS, 5, 8)
    results = {"softmax_max": largest, "softmax_sum": total, "attention_in": attention}
    steep = laid_out(slope.float(), layout)
    found = fusion_attention_grad(*given, steep, HEADS, layout, scale_value=0.4, **results, **mask)
    for one, other in zip(found[:3], gradients, strict=True):
        torch.testing.assert_close(one, laid_out(other.float(), layout))


def test_half_precision_is_summed_in_full() -> None:
    query, key, value = torch.randn(3, 1, HEADS, 64, CHANNELS).bfloat16()
    attention = fusion_attention_v1(query, key, value, HEADS, "BNSD", None, None, None, CHANNELS**-0.5)[0]
    expected = F.scaled_dot_product_attention(query.float(), key.float(), value.float())
    assert attention is not None
    assert torch.equal(attention, expected.bfloat16())


@pytest.mark.parametrize(
    "option", [{"keep_prob": 0.9}, {"sparse_mode": 2}, {"pre_tockens": 4}, {"pse": torch.zeros(1)}]
)
def test_what_is_not_computed_is_said(option: dict[str, object]) -> None:
    query = torch.randn(1, HEADS, 4, CHANNELS)
    with pytest.raises(NotImplementedError, match=next(iter(option))):
        fusion_attention(query, query, query, HEADS, "BNSD", **option)
