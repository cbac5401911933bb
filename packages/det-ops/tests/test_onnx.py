"""Each operator's form in ONNX, alone in ONNX Runtime, against its definition."""

import pytest
import torch
from torch import nn

import det_ops
from det_ops.live_rows import convolution_rows, mask_logits_rows

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

FORBIDDEN = {"NonZero", "Loop", "If", "NonMaxSuppression", "Scan"}


class Function(nn.Module):
    def __init__(self, function, arguments):
        super().__init__()
        self.function, self.arguments = function, arguments

    def forward(self, *tensors):
        return self.function(*tensors, **self.arguments)


def in_onnx(function, tensors, arguments=None, dynamic=None):
    """A function of tensors as ONNX Runtime computes it, and what it is made of."""
    from det_ops.onnx import decompositions, translations

    module = Function(function, arguments or {})
    with torch.no_grad():
        exported = torch.export.export(module, tuple(tensors), dynamic_shapes=dynamic)
        exported = exported.run_decompositions(decompositions())
    program = torch.onnx.export(
        exported, (), dynamo=True, custom_translation_table=translations(), optimize=False, verbose=False
    )
    model = program.model_proto
    onnx.checker.check_model(model, full_check=True)
    kinds = {node.op_type for node in model.graph.node}
    assert not kinds & FORBIDDEN, kinds
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def run(*given):
        names = [one.name for one in session.get_inputs()]
        return [
            torch.from_numpy(one)
            for one in session.run(None, dict(zip(names, (g.numpy() for g in given), strict=True)))
        ]

    return run


def test_what_is_not_finite():
    def both(values):
        return values.isfinite(), values.nan_to_num(0.5), values.nan_to_num(1.0, 2.0, 3.0)

    values = torch.tensor([0.0, -1.0, float("nan"), float("inf"), -float("inf"), 3.4e38])
    for found, expected in zip(in_onnx(both, [values])(values), both(values), strict=True):
        assert torch.equal(found, expected)


def boxes_of(generator, *shape, coarse=True):
    corner, side = (torch.rand(*shape, 2, generator=generator) * length for length in (12, 9))
    boxes = torch.cat((corner, corner + side), -1)
    return boxes.round() if coarse else boxes


def problem(seed, lead, count, coarse):
    """Few coordinates and scores, so that equal scores and IoUs on the threshold are common."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(*lead, count, generator=generator) - 0.5
    return {
        "boxes": boxes_of(generator, *lead, count, coarse=coarse),
        "scores": (scores * 8).round() / 8 if coarse else scores,
        "groups": torch.randint(0, 4, (*lead, count), generator=generator),
        "valid": torch.rand(*lead, count, generator=generator) < 0.8,
    }


@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize(("count", "most"), [(150, 5), (150, 150), (21, 21)], ids=["rounds", "scan", "short"])
def test_nms(count, most, grouped, offset):
    first = problem(0, (2,), count, True)

    def suppress(boxes, scores, valid, groups):
        if grouped:
            return det_ops.batched_nms(boxes, scores, groups, 0.3, max_output=most, valid=valid, offset=offset)
        return det_ops.nms(boxes, scores, 0.3, max_output=most, valid=valid, offset=offset)

    names = ("boxes", "scores", "valid", "groups")[: 4 if grouped else 3]
    function = suppress if grouped else lambda b, s, v: suppress(b, s, v, None)
    batch = {0: torch.export.Dim("B", min=1, max=64)}
    run = in_onnx(function, [first[name] for name in names], dynamic=((batch,) * len(names),))
    for seed in range(12):
        drawn = problem(seed, (1 + seed % 3,), count, seed % 2 == 0)
        given_ = [drawn[name] for name in names]
        for found, expected in zip(run(*given_), function(*given_), strict=True):
            assert torch.equal(found, expected)


def test_nms_of_levels():
    def suppress(boxes, scores, valid):
        return det_ops.batched_nms(boxes, scores, [90, 40, 7], 0.3, max_output=100, valid=valid)

    names = ("boxes", "scores", "valid")
    first = problem(0, (2,), 137, True)
    batch = {0: torch.export.Dim("B", min=1, max=64)}
    run = in_onnx(suppress, [first[name] for name in names], dynamic=((batch,) * 3,))
    for seed in range(8):
        drawn = problem(seed, (1 + seed % 3,), 137, seed % 2 == 0)
        given_ = [drawn[name] for name in names]
        for found, expected in zip(run(*given_), suppress(*given_), strict=True):
            assert torch.equal(found, expected)


@pytest.mark.parametrize("cross_class", [False, True])
def test_fast_nms(cross_class):
    def suppress(boxes, scores, valid):
        options = {"max_output": 30, "top_k": 20, "cross_class": cross_class, "valid": valid}
        return det_ops.fast_nms(boxes, scores, 0.3, **options)

    def drawn(seed, lead):
        generator = torch.Generator().manual_seed(seed)
        scores = (torch.rand(lead, 3, 50, generator=generator) * 8).round() / 8
        return [boxes_of(generator, lead, 50), scores, torch.rand(lead, 50, generator=generator) < 0.8]

    batch = {0: torch.export.Dim("B", min=1, max=64)}
    run = in_onnx(suppress, drawn(0, 2), dynamic=((batch,) * 3,))
    for seed in range(8):
        given_ = drawn(seed, 1 + seed % 3)
        for found, expected in zip(run(*given_), suppress(*given_), strict=True):
            assert torch.equal(found, expected)


@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("aligned", [False, True])
def test_multilevel_roi_align(aligned, sampling_ratio):
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(2, 3, 16 >> level, 24 >> level, generator=generator) for level in range(3)]
    boxes = boxes_of(generator, 20, coarse=False) * torch.tensor([4.0, 3, 4, 3])
    boxes[3], boxes[4, 2], boxes[5] = float("nan"), float("inf"), torch.tensor([10.0, 10, 10, 10])
    image = torch.randint(0, 2, (20,), generator=generator)
    levels = torch.randint(-1, 3, (20,), generator=generator)

    def pool(one, two, three, boxes, image, levels):
        return det_ops.multilevel_roi_align(
            [one, two, three],
            boxes,
            image,
            levels,
            output_size=(5, 7),
            scales=[0.5, 0.25, 0.125],
            sampling_ratio=sampling_ratio,
            aligned=aligned,
        )

    tensors = [*features, boxes, image, levels]
    (found,) = in_onnx(pool, tensors)(*tensors)
    torch.testing.assert_close(found, pool(*tensors), rtol=1e-5, atol=1e-5)
    assert found.abs().amax((1, 2, 3)).ne(0).sum() > 8


@pytest.mark.parametrize("masked", [False, True])
def test_deform_conv2d(masked):
    generator = torch.Generator().manual_seed(0)
    tensors = [
        torch.randn(2, 8, 9, 11, generator=generator),
        torch.randn(2, 2 * 2 * 9, 5, 6, generator=generator) * 3,
        torch.randn(6, 4, 3, 3, generator=generator),
        torch.randn(6, generator=generator),
        torch.rand(2, 2 * 9, 5, 6, generator=generator),
    ][: 5 if masked else 4]

    def convolve(input, offset, weight, bias, mask=None):  # noqa: A002
        return det_ops.deform_conv2d(input, offset, weight, bias, stride=2, padding=1, mask=mask)

    (found,) = in_onnx(convolve, tensors)(*tensors)
    torch.testing.assert_close(found, convolve(*tensors), rtol=1e-4, atol=1e-4)


def test_rows():
    generator = torch.Generator().manual_seed(0)
    rows, weight, bias = (torch.randn(*shape, generator=generator) for shape in ((5, 4, 6, 7), (8, 4, 3, 3), (8,)))
    up, own = torch.randn(8, 6, 2, 2, generator=generator), torch.randn(5, 6, generator=generator)

    def head(rows, weight, bias, up, own, count):
        hidden = convolution_rows(rows, weight, bias, count, padding=1, relu=True)
        return hidden, mask_logits_rows(hidden, up, None, own, count)

    tensors = [rows, weight, bias, up, own, torch.tensor(3)]
    run = in_onnx(head, tensors)
    for count in (0, 3, 5):
        tensors[-1] = torch.tensor(count)
        torch.testing.assert_close(run(*tensors), list(head(*tensors)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["grid_sample", "expanded"])
def test_paste_masks(mode):
    generator = torch.Generator().manual_seed(0)
    masks, boxes = torch.rand(6, 7, 7, generator=generator), boxes_of(generator, 6, coarse=False)

    def paste(masks, boxes):
        return det_ops.paste_masks(masks, boxes, 20, 24, threshold=None, mode=mode)

    (found,) = in_onnx(paste, [masks, boxes])(masks, boxes)
    torch.testing.assert_close(found, paste(masks, boxes), rtol=1e-5, atol=1e-5)


def test_sorting_puts_the_lower_index_first_among_equals():
    def both(values):
        down = values.sort(descending=True, stable=True)
        return down.values, down.indices, (values > 0).to(torch.int8).argsort(dim=-1, stable=True)

    generator = torch.Generator().manual_seed(0)
    values = torch.randint(-2, 3, (6, 40), generator=generator).float()
    for found, expected in zip(in_onnx(both, [values])(values), both(values), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("count", [1, 40, 300])
def test_the_best_of_equal_scores_are_those_of_lower_index(count):
    def drawn(seed, lead):
        generator = torch.Generator().manual_seed(seed)
        kinds = torch.randint(0, 3, (lead, 2, 1), generator=generator) * 8 + 1  # one score alone, nine, seventeen
        scores = torch.randint(-99, 99, (lead, 2, 300), generator=generator) % kinds
        return scores.float() / 4 - 1

    batch = {0: torch.export.Dim("B", min=1, max=64)}
    run = in_onnx(lambda scores: det_ops.top_k(scores, count), [drawn(0, 2)], dynamic=((batch,),))
    for seed in range(6):
        scores = drawn(seed, 1 + seed % 3)
        values, indices = run(scores)
        expected = [sorted(range(300), key=lambda i, row=row: (-row[i], i))[:count] for row in scores.flatten(0, 1)]
        assert indices.flatten(0, 1).tolist() == expected
        assert torch.equal(values, scores.gather(-1, indices))
        assert torch.equal(indices, det_ops.top_k(scores, count)[1])
