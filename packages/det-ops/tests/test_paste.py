import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.models.detection.roi_heads import paste_masks_in_image

import det_ops
from det_ops.reference.paste import paste_masks as reference

SYSTEMS = {"torchvision": "expanded", "mrb": "expanded", "detectron2": "grid_sample", "mmdet": "grid_sample"}


@pytest.mark.parametrize("system", SYSTEMS)
def test_recorded(parity, kernels: str, system: str) -> None:
    height, width = parity["paste/size"].tolist()
    arguments = (torch.from_numpy(parity["paste/prob"])[:, 0], torch.from_numpy(parity["paste/boxes"]), height, width)
    expected = np.unpackbits(parity[f"paste/{system}_bin"], axis=-1, count=width)
    pasted = det_ops.paste_masks(*arguments, mode=SYSTEMS[system])
    assert pasted.dtype == torch.bool
    assert np.array_equal(pasted.numpy(), expected)
    assert det_ops.paste_to_rle(*arguments, mode=SYSTEMS[system]) == det_ops.encode_rle(pasted)
    if f"paste/{system}_prob_first4" in parity:
        values = det_ops.paste_masks(*arguments, threshold=None, mode=SYSTEMS[system])
        recorded = torch.from_numpy(parity[f"paste/{system}_prob_first4"])
        torch.testing.assert_close(values[:4], recorded, rtol=0, atol=1e-5)


def grid_sample(masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """detectron2's arithmetic on the CPU, mask by mask."""
    out = torch.zeros(len(masks), height, width)
    for mask, box, image in zip(masks, boxes, out, strict=True):
        left, top = (box[:2].floor() - 1).clamp(min=0).int().tolist()
        right = int((box[2].ceil() + 1).clamp(max=width))
        bottom = int((box[3].ceil() + 1).clamp(max=height))
        if right <= left or bottom <= top:
            continue
        x = (torch.arange(left, right) + 0.5 - box[0]) / (box[2] - box[0]) * 2 - 1
        y = (torch.arange(top, bottom) + 0.5 - box[1]) / (box[3] - box[1]) * 2 - 1
        grid = torch.stack((x.expand(len(y), -1), y[:, None].expand(-1, len(x))), 2)
        image[top:bottom, left:right] = F.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0]
    return out


def expanded(masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """torchvision's function, mask by mask; it does not expect boxes outside the image."""
    out = torch.zeros(len(masks), height, width)
    for mask, box, image in zip(masks, boxes, out, strict=True):
        try:
            image[:] = paste_masks_in_image(mask[None, None], box[None], (height, width))[0, 0]
        except RuntimeError as error:
            assert "must match the existing size" in str(error)  # noqa: PT017
    return out


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, Tensor, int, int]:
    """Boxes inside, across and outside the image; masks smooth, noisy or constant."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    height, width = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    n, side = draw(st.integers(0, 4)), draw(st.sampled_from([1, 2, 7, 28]))
    extent = torch.tensor([width, height])
    corner = (torch.rand(n, 2, generator=generator) * 1.6 - 0.4) * extent
    boxes = torch.cat((corner, corner + torch.rand(n, 2, generator=generator) ** 2 * 80 + 0.01), 1)
    if draw(st.booleans()):
        boxes = torch.cat((boxes[:, :2].round(), boxes[:, 2:].ceil() + 1), 1)
    masks = torch.rand(n, side, side, generator=generator)
    match draw(st.sampled_from(["noise", "binary", "half"])):
        case "binary":
            masks = masks.round()
        case "half":
            masks = torch.full_like(masks, 0.5)
    return masks, boxes, height, width


@pytest.mark.parametrize("choice", ["auto", "reference"])
@pytest.mark.parametrize("mode", ["grid_sample", "expanded"])
@given(problem=problems())
@settings(max_examples=60, deadline=None)
def test_equals_the_systems(choice: str, mode: str, problem: tuple[Tensor, Tensor, int, int]) -> None:
    with det_ops.kernels(choice):
        values = det_ops.paste_masks(*problem, threshold=None, mode=mode)
        inside = det_ops.paste_masks(*problem, mode=mode)
    expected = grid_sample(*problem) if mode == "grid_sample" else expanded(*problem)
    torch.testing.assert_close(values, expected, rtol=0, atol=2e-5)
    clear = (expected - 0.5).abs() > 1e-4
    assert torch.equal(inside[clear], (expected > 0.5)[clear])


@pytest.mark.parametrize("mode", ["grid_sample", "expanded"])
@given(problem=problems(), threshold=st.sampled_from([0.5, 0.05, 0.0, -1.0, 0.99, 1.0]))
@settings(max_examples=120, deadline=None)
def test_runs_equal_images(mode: str, problem: tuple[Tensor, Tensor, int, int], threshold: float) -> None:
    images = det_ops.paste_masks(*problem, threshold=threshold, mode=mode)
    assert det_ops.paste_to_rle(*problem, threshold=threshold, mode=mode) == det_ops.encode_rle(images)
    values = det_ops.paste_masks(*problem, threshold=None, mode=mode)
    if threshold > 0:
        assert torch.equal(images, values > threshold if mode == "expanded" else values >= threshold)
    with det_ops.kernels("reference"):
        expected = det_ops.encode_rle(det_ops.paste_masks(*problem, threshold=threshold, mode=mode))
        assert det_ops.paste_to_rle(*problem, threshold=threshold, mode=mode) == expected


@pytest.mark.parametrize("mode", ["grid_sample", "expanded"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_non_finite_boxes_and_masks(kernels: str, mode: str, value: float) -> None:
    boxes = torch.tensor([[2.0, 2, 9, 9]]).repeat(5, 1)
    for i in range(4):
        boxes[i, i] = value
    pasted = det_ops.paste_masks(torch.ones(5, 4, 4), boxes, 12, 12, mode=mode)
    assert not pasted[:4].any()
    assert pasted[4].any()
    assert det_ops.paste_to_rle(torch.ones(5, 4, 4), boxes, 12, 12, mode=mode) == det_ops.encode_rle(pasted)
    masks = torch.full((5, 4, 4), torch.nan)
    assert not det_ops.paste_masks(masks, boxes, 12, 12, mode=mode).any()
    assert det_ops.paste_to_rle(masks, boxes, 12, 12, mode=mode) == det_ops.encode_rle(pasted[:1].expand(5, -1, -1))


@pytest.mark.parametrize("mode", ["grid_sample", "expanded"])
def test_degenerate_boxes(kernels: str, mode: str) -> None:
    boxes = torch.tensor([[5.0, 5, 5, 9], [9, 9, 2, 2], [1e9, 0, 2e9, 4], [-1e9, -1e9, 1e9, 1e9], [3, 3, 3.0001, 3.2]])
    for size in ((12, 12), (1, 1)):
        pasted = det_ops.paste_masks(torch.ones(5, 4, 4), boxes, *size, mode=mode)
        assert pasted.shape == (5, *size)
        assert pasted[3].all()
        assert det_ops.paste_to_rle(torch.ones(5, 4, 4), boxes, *size, mode=mode) == det_ops.encode_rle(pasted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dtypes_and_layouts(kernels: str, dtype: torch.dtype) -> None:
    masks = torch.rand(3, 7, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    boxes = torch.tensor([[1.0, 2, 20, 30], [4, 4, 9, 12], [0, 0, 40, 40]])
    expected = det_ops.paste_masks(masks.float(), boxes, 40, 50)
    assert torch.equal(det_ops.paste_masks(masks, boxes.to(torch.float64), 40, 50), expected)
    strided = masks.mT.contiguous().mT
    assert torch.equal(det_ops.paste_masks(strided, boxes.t().contiguous().t(), 40, 50), expected)
    rectangle = masks[:, :4]
    assert det_ops.paste_masks(rectangle, boxes, 40, 50).shape == (3, 40, 50)


def test_operator_compile_and_export(kernels: str) -> None:
    class Module(torch.nn.Module):
        def forward(self, masks: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
            return det_ops.paste_masks(masks, boxes, 9, 8), det_ops.paste_masks(
                masks, boxes, 9, 8, threshold=None, mode="expanded"
            )

    every = torch.rand(3, 5, 5), torch.tensor([[1.0, 1, 5, 6]]).repeat(3, 1)
    for threshold, expanded in ((0.5, False), (None, True)):
        torch.library.opcheck(torch.ops.det_ops.paste_masks.default, (*every, 9, 8, threshold, expanded))
    expected = Module()(*every)
    torch._dynamo.reset()
    compiled = torch.compile(Module(), fullgraph=True, backend="aot_eager")(*every)
    for found in (compiled, torch.export.export(Module(), every).module()(*every)):
        assert all(map(torch.equal, found, expected))


def test_reference_reads_nothing_on_the_host() -> None:
    with FakeTensorMode():
        assert reference(torch.rand(3, 5, 5), torch.rand(3, 4), 9, 8, 0.5, False).shape == (3, 9, 8)
        assert reference(torch.rand(3, 5, 5), torch.rand(3, 4), 9, 8, None, True).shape == (3, 9, 8)


def test_errors() -> None:
    masks, boxes = torch.rand(2, 5, 5), torch.rand(2, 4)
    with pytest.raises(ValueError, match=r"masks must be a floating Tensor\[K, S, S\], got float32\[2, 1, 5, 5\]"):
        det_ops.paste_masks(masks[:, None], boxes, 9, 9)
    with pytest.raises(ValueError, match=r"boxes must be a Tensor\[2, 4\], one per mask"):
        det_ops.paste_masks(masks, boxes[:1], 9, 9)
    with pytest.raises(ValueError, match="mode must be one of grid_sample, expanded, got str 'nearest'"):
        det_ops.paste_masks(masks, boxes, 9, 9, mode="nearest")
    with pytest.raises(ValueError, match="height must be at least 1"):
        det_ops.paste_to_rle(masks, boxes, 0, 9)
    with pytest.raises(ValueError, match="boxes must be on the device of masks"):
        det_ops.paste_masks(masks, boxes.to("meta"), 9, 9)
