import pytest
import torch
from torch import nn

from det_heads import RPNHead, flatten_levels
from det_heads.rpn import _surroundings


def pyramid(dtype=torch.float32):
    torch.manual_seed(0)
    shapes = [(12, 17), (6, 9), (3, 5), (2, 3), (1, 2)]
    return [torch.randn(2, 8, h, w, dtype=dtype, requires_grad=True) for h, w in shapes]


def test_flattened_maps_are_in_anchor_order():
    # value = 1000 * level + 100 * y + 10 * x + anchor, and .k for the delta
    maps, expected = [], []
    for level, (height, width) in enumerate([(2, 3), (1, 2)]):
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        cells = 1000 * level + 100 * y + 10 * x
        maps.append(torch.stack([cells + a + k / 10 for a in range(3) for k in range(4)])[None])
        expected += [
            [1000 * level + 100 * r + 10 * c + a + k / 10 for k in range(4)]
            for r in range(height)
            for c in range(width)
            for a in range(3)
        ]
    torch.testing.assert_close(flatten_levels(maps, 4)[0], torch.tensor(expected))


def test_sparse_and_dense_outputs_and_gradients_agree():
    head = RPNHead(8, 3).double()
    torch.nn.init.normal_(head.conv.bias)
    features = pyramid(torch.float64)
    total = sum(f.shape[2] * f.shape[3] for f in features) * 3
    # every corner and edge of every level, and one anchor twice
    starts = torch.tensor([0, 12 * 17, 12 * 17 + 54, 12 * 17 + 54 + 15, 12 * 17 + 54 + 15 + 6]) * 3
    index = torch.cat(
        [starts, starts[1:] - 1, torch.tensor([total - 1, 16 * 3, 16 * 3 + 2, 0]), torch.randperm(total)[:40]]
    )
    index = torch.stack([index, index.flip(0)])
    results = []
    for compute in (head._at_sparse, head._at_dense):
        logits, deltas = compute(features, index)
        weight = torch.linspace(-1, 1, logits.numel(), dtype=torch.float64).view_as(logits)
        loss = (logits * weight).sum() + (deltas.sin() * weight[..., None]).sum()
        inputs = [*features, *head.parameters()]
        results.append([logits, deltas, *torch.autograd.grad(loss, inputs)])
    for sparse, dense in zip(*results, strict=True):
        torch.testing.assert_close(sparse, dense)


def test_few_anchors_use_patches_and_many_the_maps(monkeypatch):
    head, features = RPNHead(8, 3), pyramid()
    used = []
    monkeypatch.setattr(head, "_at_sparse", lambda *_: used.append("sparse"))
    monkeypatch.setattr(head, "_at_dense", lambda *_: used.append("dense"))
    head.at(features, torch.zeros(2, 10, dtype=torch.int64))
    head.at(features, torch.zeros(2, 500, dtype=torch.int64))
    assert used == ["sparse", "dense"]


def test_surroundings_are_padded_with_zeros():
    feature = torch.arange(1.0, 7.0).view(1, 1, 2, 3)
    patches = _surroundings([feature], torch.tensor([[0, 4]]))
    assert patches.tolist() == [[[0, 0, 0, 0, 1, 2, 0, 4, 5], [1, 2, 3, 4, 5, 6, 0, 0, 0]]]


def keeps_gradients(layer: nn.Module, x: torch.Tensor, dtype: torch.dtype) -> bool:
    with torch.autocast("cpu", dtype=dtype):
        with torch.no_grad():
            layer(x)
        return layer(x).requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_get_gradients_under_autocast_after_an_inference_pass(dtype):
    # Autocast remembers the weights that it has cast, in earlier releases also where no gradient was wanted.
    if not keeps_gradients(nn.Linear(8, 8), torch.randn(1, 8), dtype):
        pytest.skip("this PyTorch loses the gradients of its own layers so")
    head, features = RPNHead(8, 3), pyramid()
    with torch.autocast("cpu", dtype=dtype):
        for _ in range(2):
            with torch.no_grad():
                head(features)
            logits, deltas = head.at(features, torch.arange(20).expand(2, 20))
            head.zero_grad()
            (logits.float().sum() + deltas.float().sum()).backward()
            assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())
