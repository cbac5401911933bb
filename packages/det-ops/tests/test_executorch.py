"""Each operator's form in ExecuTorch, alone in its runtime, against its definition."""

import math

import pytest
import torch
from torch import nn

import det_ops
from det_ops.executorch.aten import sort_stable
from det_ops.live_rows import convolution_rows, mask_logits_rows


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *tensors):
        return self.function(*tensors)


def in_executorch(function, tensors):
    """A function of tensors as ExecuTorch's portable kernels compute it."""
    exir = pytest.importorskip("executorch.exir")
    runtime = pytest.importorskip("executorch.runtime")
    from det_ops.executorch import decompositions

    with torch.no_grad():
        exported = torch.export.export(Function(function), tuple(tensors)).run_decompositions(decompositions())
        lowered = exir.to_edge_transform_and_lower(
            exported, compile_config=exir.EdgeCompileConfig(_check_ir_validity=False)
        )
        program = runtime.Runtime.get().load_program(lowered.to_executorch().buffer)

    def run(*given):
        return program.load_method("forward").execute(list(given))

    return run


def boxes_of(generator, *shape, coarse=True):
    corner, side = (torch.rand(*shape, 2, generator=generator) * length for length in (12, 9))
    boxes = torch.cat((corner, corner + side), -1)
    return boxes.round() if coarse else boxes


def problem(seed, lead, count):
    """Few coordinates and scores on every other seed, so that equal scores and IoUs on the threshold are common."""
    generator = torch.Generator().manual_seed(seed)
    scores, coarse = torch.rand(*lead, count, generator=generator) - 0.5, seed % 2 == 0
    return {
        "boxes": boxes_of(generator, *lead, count, coarse=coarse),
        "scores": (scores * 8).round() / 8 if coarse else scores,
        "valid": torch.rand(*lead, count, generator=generator) < 0.8,
        "groups": torch.randint(0, 4, (*lead, count), generator=generator),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.bool])
@pytest.mark.parametrize("descending", [False, True])
def test_sort_by_keys_is_stable(dtype, descending):
    generator = torch.Generator().manual_seed(0)
    few = torch.randint(-2, 3, (3, 200), generator=generator).to(dtype)
    drawn = [few, few.T, few[0]]
    if dtype.is_floating_point:
        limits = torch.finfo(dtype)
        special = [0.0, -0.0, math.inf, -math.inf, math.nan, limits.max, limits.min, limits.tiny, -limits.tiny]
        special += [limits.smallest_normal / 2, -limits.smallest_normal / 2, 1.0, 1.0 + limits.eps, 1 - limits.eps / 2]
        places = torch.randint(0, len(special), (5, 300), generator=generator)
        drawn.append(torch.tensor(special, dtype=dtype)[places])
        wide = torch.randn(1, 200_000, generator=generator).to(dtype)
        drawn.append(torch.cat((wide, wide), -1))
    for values in drawn:
        expected = values.sort(dim=-1, descending=descending, stable=True)
        found, order = sort_stable(values, dim=-1, descending=descending)
        assert torch.equal(order, expected.indices)
        torch.testing.assert_close(found, expected.values, rtol=0, atol=0, equal_nan=True)
        if values.ndim == 2:
            expected = values.sort(dim=0, descending=descending, stable=True)
            assert torch.equal(sort_stable(values, dim=0, descending=descending)[1], expected.indices)


@pytest.mark.slow
def test_sorting_puts_the_lower_index_first_among_equals():
    def both(values):
        down = values.sort(descending=True, stable=True)
        best = det_ops.top_k(values, 7)
        return down.values, down.indices, (values > 0).to(torch.int8).argsort(dim=-1, stable=True), *best

    generator = torch.Generator().manual_seed(0)
    values = torch.randint(-2, 3, (6, 40), generator=generator).float()
    values[0, :20], values[1, 5:9] = -math.inf, math.inf
    for found, expected in zip(in_executorch(both, [values])(values), both(values), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.slow
def test_nms():
    """By rounds, of groups, and of levels, in one program; each compilation takes seconds."""

    def suppress(boxes, scores, valid, groups):
        plain = det_ops.nms(boxes, scores, 0.3, max_output=150, offset=1.0)
        few = det_ops.batched_nms(boxes, scores, groups, 0.3, max_output=5, valid=valid)
        levels = det_ops.batched_nms(boxes, scores, [90, 40, 20], 0.5, max_output=100, valid=valid)
        return *plain, *few, *levels

    drawn = [list(problem(seed, (2,), 150).values()) for seed in range(6)]
    run = in_executorch(suppress, drawn[0])
    for given in drawn:
        for found, expected in zip(run(*given), suppress(*given), strict=True):
            assert torch.equal(found, expected)


@pytest.mark.slow
def test_fast_nms():
    def suppress(boxes, scores, valid):
        options = {"max_output": 30, "top_k": 20, "valid": valid}
        own = det_ops.fast_nms(boxes, scores, 0.3, **options)
        return *own, *det_ops.fast_nms(boxes, scores, 0.3, cross_class=True, **options)

    def drawn(seed):
        generator = torch.Generator().manual_seed(seed)
        scores = (torch.rand(2, 3, 50, generator=generator) * 8).round() / 8
        return [boxes_of(generator, 2, 50), scores, torch.rand(2, 50, generator=generator) < 0.8]

    run = in_executorch(suppress, drawn(0))
    for seed in range(6):
        for found, expected in zip(run(*drawn(seed)), suppress(*drawn(seed)), strict=True):
            assert torch.equal(found, expected)


@pytest.mark.slow
def test_multilevel_roi_align():
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(2, 3, 16 >> level, 24 >> level, generator=generator) for level in range(3)]
    boxes = boxes_of(generator, 20, coarse=False) * torch.tensor([2.0, 1.3, 2, 1.3])
    boxes[3], boxes[4, 2], boxes[5] = float("nan"), float("inf"), torch.tensor([10.0, 10, 10, 10])
    image = torch.randint(0, 2, (20,), generator=generator)
    levels = torch.randint(-1, 3, (20,), generator=generator)

    def pool(one, two, three, boxes, image, levels):
        return tuple(
            det_ops.multilevel_roi_align(
                [one, two, three],
                boxes,
                image,
                levels,
                output_size=(5, 7),
                scales=[0.5, 0.25, 0.125],
                sampling_ratio=ratio,
                aligned=aligned,
            )
            for ratio, aligned in ((0, True), (2, False))
        )

    tensors = [*features, boxes, image, levels]
    for found, expected in zip(in_executorch(pool, tensors)(*tensors), pool(*tensors), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        assert found.abs().amax((1, 2, 3)).ne(0).sum() > 8


@pytest.mark.slow
def test_convolutions():
    """Deformable, of the first rows, and logits of masks, in one program."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "input": (2, 8, 9, 11),
        "offset": (2, 36, 5, 6),
        "weight": (6, 4, 3, 3),
        "bias": (6,),
        "mask": (2, 18, 5, 6),
    }
    deformed = [torch.randn(*shape, generator=generator) for shape in shapes.values()]
    rows = [
        torch.randn(*shape, generator=generator) for shape in ((5, 4, 6, 7), (8, 4, 3, 3), (8,), (8, 6, 2, 2), (5, 6))
    ]

    def convolve(input, offset, weight, bias, mask, rows, row_weight, row_bias, up, own, count):  # noqa: A002
        out = det_ops.deform_conv2d(input, offset * 3, weight, bias, stride=2, padding=1, mask=mask.sigmoid())
        hidden = convolution_rows(rows, row_weight, row_bias, count, padding=1, relu=True)
        return out, hidden, mask_logits_rows(hidden, up, None, own, count)

    tensors = [*deformed, *rows, torch.tensor(3)]
    run = in_executorch(convolve, tensors)
    for count in (0, 3, 5):
        tensors[-1] = torch.tensor(count)
        torch.testing.assert_close(list(run(*tensors)), list(convolve(*tensors)), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_paste_masks():
    generator = torch.Generator().manual_seed(0)
    masks, boxes = torch.rand(6, 7, 7, generator=generator), boxes_of(generator, 6, coarse=False)

    def paste(masks, boxes):
        return tuple(
            det_ops.paste_masks(masks, boxes, 20, 24, threshold=None, mode=mode) for mode in ("grid_sample", "expanded")
        )

    found = in_executorch(paste, [masks, boxes])(masks, boxes)
    torch.testing.assert_close(tuple(found), paste(masks, boxes), rtol=1e-5, atol=1e-5)
