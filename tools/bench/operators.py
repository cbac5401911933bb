"""The operators that `ops` measures: for each the input, ours and the peer."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.roi_heads import paste_masks_in_image

import det_ops
from det_ops import live_rows


class Work(NamedTuple):
    """What a case builds: the two sides as functions without arguments, and whether they agree on the result."""

    ours: Callable[[], object]
    peer: Callable[[], object]
    agree: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Case:
    """A row: `target` is the least ratio peer / ours; `build` makes the input and both sides."""

    name: str
    peer: str
    target: float
    build: Callable[[], Work]
    unit: str = "ms"  # or MB: the most memory in use during the call
    gpu: bool = True  # whether it runs on GPUs too


def scene(n: int, height: int = 800, width: int = 1333) -> tuple[Tensor, Tensor]:
    """Boxes `[n, 4]` as a detector proposes them, about 50 around each object, and their scores `[n]`.

    Thresholds of 0.5 and 0.7 keep a sixth and a half of 2,000 boxes.
    """
    objects = max(n // 50, 1)
    centres = torch.rand(objects, 2) * torch.tensor([width, height])
    sides = torch.exp(torch.rand(objects, 2) * 2.5 + 3)
    owner = torch.randint(0, objects, (n,))
    centre = centres[owner] + torch.randn(n, 2) * 0.15 * sides[owner]
    side = sides[owner] * torch.exp(torch.randn(n, 2) * 0.25)
    limit = torch.tensor([width, height, width, height])
    boxes = torch.minimum(torch.cat((centre - side / 2, centre + side / 2), 1).clamp(min=0), limit)
    return boxes, torch.rand(n)


def anchors(height: int = 800, width: int = 1216) -> Tensor:
    """The first 240,000 of the anchors `[N, 4]` of five levels, three per place, in the order of a detector."""
    levels = []
    for stride in (4, 8, 16, 32, 64):
        y, x = torch.meshgrid(torch.arange(0, height, stride), torch.arange(0, width, stride), indexing="ij")
        sides = 8 * stride * torch.tensor([[2**0.5, 0.5**0.5], [1, 1], [0.5**0.5, 2**0.5]])
        cells = torch.cat((-sides / 2, sides / 2), 1)
        levels.append((torch.stack((x, y, x, y), -1).reshape(-1, 1, 4) + cells).reshape(-1, 4))
    return torch.cat(levels)[:240_000]


def nms_case(n: int) -> Work:
    """One set of boxes, the length of the result depends on them."""
    boxes, scores = scene(n)

    def ours() -> Tensor:
        indices = det_ops.nms(boxes, scores, 0.5)
        assert isinstance(indices, Tensor)
        return indices

    def peer() -> Tensor:
        return torchvision.ops.nms(boxes, scores, 0.5)

    return Work(ours, peer, lambda: torch.equal(ours(), peer()))


def batched_nms_case(max_output: int) -> Work:
    """The proposals of 8 images: 1,000 of each of 5 levels, the best `max_output` kept."""
    images = [scene(5000)[0] for _ in range(8)]
    boxes = torch.stack(images)
    # All scores of an image differ: torchvision does not define the order of equal ones.
    scores = torch.stack([torch.randperm(5000) for _ in images]) / 5000
    groups = torch.arange(5).repeat_interleave(1000).expand(8, -1).contiguous()

    def ours() -> tuple[Tensor, Tensor]:
        return det_ops.batched_nms(boxes, scores, groups, 0.7, max_output=max_output)

    def peer() -> list[Tensor]:
        every = zip(boxes, scores, groups, strict=True)
        return [torchvision.ops.batched_nms(*image, 0.7)[:max_output] for image in every]

    def agree() -> bool:
        return all(torch.equal(i[v], p) for i, v, p in zip(*ours(), peer(), strict=True))

    return Work(ours, peer, agree)


def match_case() -> Work:
    """Anchors of an 800 x 1216 image, thresholds of the RPN."""
    grid, (truth, _) = anchors(), scene(50)
    valid = torch.ones(1, 50, dtype=torch.bool)
    matcher = Matcher(0.7, 0.3, allow_low_quality_matches=True)

    def ours() -> tuple[Tensor, Tensor]:
        return det_ops.match(grid, truth[None], valid, high=0.7, low=0.3, allow_low_quality=True)

    def peer() -> Tensor:
        return matcher(torchvision.ops.box_iou(truth, grid))

    def agree() -> bool:
        (index,), (label,) = ours()
        return torch.equal(torch.where(label == 1, index, label.long() - 1), peer())

    return Work(ours, peer, agree)


def roi_align_case(
    sampling_ratio: int, backward: bool, memory_format: torch.memory_format = torch.channels_last
) -> Work:
    """1,000 regions on P2 to P5 of an 800 x 1344 image, 256 channels, 7 x 7; maps as each side prefers them."""
    height, width, strides = 800, 1344, (4, 8, 16, 32)
    scales = [1 / stride for stride in strides]
    contiguous = [torch.randn(1, 256, height // stride, width // stride).requires_grad_(backward) for stride in strides]
    channels_last = [
        feature.detach().contiguous(memory_format=torch.channels_last).requires_grad_(backward)
        for feature in contiguous
    ]
    side = torch.exp(torch.empty(1000, 2).uniform_(math.log(9), math.log(300)))
    corner = torch.rand(1000, 2) * (torch.tensor([width, height]) - side)
    boxes = torch.cat((corner, corner + side), 1)
    levels = det_ops.fpn_levels(boxes)
    image = torch.zeros(1000, dtype=torch.int64)
    aligned = sampling_ratio <= 0  # detectron2; else torchvision
    rois = torch.cat((image[:, None].float(), boxes), 1)
    members = [(levels == level).nonzero()[:, 0] for level in range(4)]

    def forward() -> Tensor:
        options = {"output_size": 7, "scales": scales, "sampling_ratio": sampling_ratio, "aligned": aligned}
        return det_ops.multilevel_roi_align(channels_last, boxes, image, levels, **options, memory_format=memory_format)

    def peer_forward() -> Tensor:
        out = torch.zeros(1000, 256, 7, 7)
        for feature, scale, member in zip(contiguous, scales, members, strict=True):
            part = torchvision.ops.roi_align(feature, rois[member], 7, scale, sampling_ratio, aligned)
            out = out.index_put((member,), part) if backward else out.index_put_((member,), part)
        return out

    if not backward:
        return Work(forward, peer_forward, lambda: torch.allclose(forward(), peer_forward(), atol=1e-4))
    pooled, peer_pooled = forward(), peer_forward()
    grad = torch.randn_like(pooled)
    peer_grad = grad.contiguous()

    def ours() -> tuple[Tensor, ...]:
        return torch.autograd.grad(pooled, channels_last, grad, retain_graph=True)

    def peer() -> tuple[Tensor, ...]:
        return torch.autograd.grad(peer_pooled, contiguous, peer_grad, retain_graph=True)

    return Work(ours, peer, lambda: all(torch.allclose(a, b, atol=1e-3) for a, b in zip(ours(), peer(), strict=True)))


def convolution_case(channels: int, height: int, width: int, backward: bool) -> Work:
    """A 3x3 layer on the maps of two images, channels-last, which PyTorch's convolution prefers too."""
    images = torch.randn(2, channels, height, width).contiguous(memory_format=torch.channels_last)
    weight = (torch.randn(channels, channels, 3, 3) * 0.02).contiguous(memory_format=torch.channels_last)
    grad = torch.randn_like(images)

    def forward(function: Callable[..., Tensor]) -> tuple[Tensor, list[Tensor]]:
        leaves = [tensor.detach().requires_grad_(backward) for tensor in (images, weight)]
        return function(*leaves, padding=1), leaves

    def side(function: Callable[..., Tensor]) -> Callable[[], tuple[Tensor, ...]]:
        if not backward:
            return lambda: (forward(function)[0],)
        out, leaves = forward(function)
        return lambda: torch.autograd.grad(out, leaves, grad, retain_graph=True)

    ours, peer = side(det_ops.conv2d), side(F.conv2d)

    def agree() -> bool:
        pairs = zip(ours(), peer(), strict=True)
        return all(torch.allclose(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max())) for a, b in pairs)

    return Work(ours, peer, agree)


def deform_conv_case(side: int, backward: bool) -> Work:
    """A 3x3 layer of 256 channels of YOLACT++ on a map of that side; each side in the layout it prefers."""
    contiguous = torch.randn(1, 256, side, side)
    channels_last = contiguous.contiguous(memory_format=torch.channels_last)
    offset, mask = torch.randn(1, 18, side, side), torch.rand(1, 9, side, side)
    weight = torch.randn(256, 256, 3, 3) * 0.02

    def forward(function: Callable[..., Tensor], image: Tensor) -> tuple[Tensor, list[Tensor]]:
        leaves = [tensor.detach().requires_grad_(backward) for tensor in (image, offset, weight, mask)]
        return function(*leaves[:3], padding=1, mask=leaves[3]), leaves

    if not backward:

        def ours() -> Tensor:
            return forward(det_ops.deform_conv2d, channels_last)[0]

        def peer() -> Tensor:
            return forward(torchvision.ops.deform_conv2d, contiguous)[0]

        return Work(ours, peer, lambda: torch.allclose(ours(), peer(), atol=1e-3))
    grad = torch.randn(1, 256, side, side)
    out, leaves = forward(det_ops.deform_conv2d, channels_last)
    peer_out, peer_leaves = forward(torchvision.ops.deform_conv2d, contiguous)

    def ours_backward() -> tuple[Tensor, ...]:
        return torch.autograd.grad(out, leaves, grad, retain_graph=True)

    def peer_backward() -> tuple[Tensor, ...]:
        return torch.autograd.grad(peer_out, peer_leaves, grad, retain_graph=True)

    def agree() -> bool:
        pairs = zip(ours_backward(), peer_backward(), strict=True)
        return all(torch.allclose(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max())) for a, b in pairs)

    return Work(ours_backward, peer_backward, agree)


def smooth_masks(n: int) -> Tensor:
    """Probabilities `[n, 28, 28]` of blobs as a mask head draws them."""
    grid = torch.linspace(-1, 1, 28)
    centre, radius = torch.rand(n, 2, 1) * 0.4 - 0.2, torch.rand(n, 1, 1) * 0.5 + 0.5
    y, x = (grid - centre[:, 0])[:, :, None], (grid - centre[:, 1])[:, None, :]
    return torch.sigmoid((radius - (x * x + y * y).sqrt()) * 8 + torch.randn(n, 28, 28) * 0.3)


def paste_case(mode: str) -> Work:
    """100 masks into an 800 x 1333 image, as run lengths."""
    masks, (boxes, _) = smooth_masks(100), scene(100)
    boxes = torch.cat((boxes[:, :2], torch.maximum(boxes[:, 2:], boxes[:, :2] + 4)), 1)

    def ours() -> list[str]:
        rles = det_ops.paste_to_rle(masks, boxes, 800, 1333, mode=mode)
        return [str(rle["counts"]) for rle in rles]

    def encode(images: Iterable[Tensor]) -> list[object]:
        arrays = (np.asfortranarray(image.numpy().astype(np.uint8)) for image in images)
        return [coco_mask.encode(array)["counts"] for array in arrays]

    def peer() -> list[object]:
        if mode == "expanded":
            return encode(paste_masks_in_image(masks[:, None], boxes, (800, 1333))[:, 0] > 0.5)
        return encode(grid_sample(mask, box, 800, 1333) for mask, box in zip(masks, boxes, strict=True))

    return Work(ours, peer, lambda: [text.encode() for text in ours()] == peer())


def grid_sample(mask: Tensor, box: Tensor, height: int, width: int) -> Tensor:
    """One mask by detectron2's formula, only around its box as its CPU path does; `[h, w]` bool."""
    image = torch.zeros(height, width, dtype=torch.bool)
    left, top = (box[:2].floor() - 1).clamp(min=0).int().tolist()
    right, bottom = min(int(box[2].ceil()) + 1, width), min(int(box[3].ceil()) + 1, height)
    x = (torch.arange(left, right) + 0.5 - box[0]) / (box[2] - box[0]) * 2 - 1
    y = (torch.arange(top, bottom) + 0.5 - box[1]) / (box[3] - box[1]) * 2 - 1
    grid = torch.stack((x.expand(len(y), -1), y[:, None].expand(-1, len(x))), 2)
    image[top:bottom, left:right] = F.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0] >= 0.5
    return image


def rasterize_case() -> Work:
    """Targets of 128 positive regions, 28 x 28, polygons of 60 vertices."""
    angles = torch.linspace(0, 2 * math.pi, 61)[:-1]
    truth = scene(20)[0]
    centre, radius = (truth[:, :2] + truth[:, 2:]) / 2, (truth[:, 2:] - truth[:, :2]) / 2 + 2
    wobble = 0.8 + 0.2 * torch.rand(20, 60, 1)
    points = centre[:, None] + radius[:, None] * wobble * torch.stack((angles.cos(), angles.sin()), 1)  # [20, 60, 2]
    edges = torch.cat((points, points.roll(-1, 1)), 2).reshape(1, -1, 4)
    polygons = (60 * torch.arange(21, dtype=torch.int32))[None]
    instances = torch.arange(21, dtype=torch.int32)[None]
    owner = torch.randint(0, 20, (128,))
    boxes = truth[owner] + torch.randn(128, 4) * 3 + torch.tensor([0, 0, 8, 8])
    image = torch.zeros(128, dtype=torch.int64)

    def ours() -> Tensor:
        return det_ops.rasterize_polygons(edges, polygons, instances, image, owner, boxes)

    def peer() -> Tensor:
        out = torch.empty(128, 28, 28)
        for target, box, polygon in zip(out, boxes.numpy(), points[owner].double().numpy(), strict=True):
            side = np.maximum(box[2:] - box[:2], np.float32(0.1))
            moved = (polygon - box[:2]) * (np.float32(28) / side)
            target.copy_(torch.from_numpy(coco_mask.decode(coco_mask.frPyObjects([moved.ravel()], 28, 28))[:, :, 0]))
        return out

    return Work(ours, peer, lambda: torch.equal(ours(), peer()))


def mask_head_convolution_case() -> Work:
    """A 3x3 layer of a mask head and its rectifier on 200 regions in inference, the weights transformed in advance."""
    regions = torch.randn(200, 256, 14, 14).contiguous(memory_format=torch.channels_last)
    layer = det_ops.Conv2d(256, 256, 3, padding=1).to(memory_format=torch.channels_last)
    det_ops.Conv2d.prepack(layer)
    count = torch.tensor(200)

    def ours() -> Tensor:
        return live_rows.convolution_rows(regions, layer.weight, layer.bias, count, padding=1, relu=True)

    def peer() -> Tensor:
        return F.conv2d(regions, layer.weight, layer.bias, padding=1).relu_()

    return Work(ours, peer, lambda: torch.allclose(ours(), peer(), atol=1e-4))


def mask_logits_case() -> Work:
    """Upsampling, rectifier and the predictor of each region's class, 200 regions in inference."""
    regions = torch.randn(200, 256, 14, 14).contiguous(memory_format=torch.channels_last)
    weight = (torch.randn(256, 256, 2, 2) * 0.06).contiguous(memory_format=torch.channels_last)
    bias, own, count = torch.randn(256), torch.randn(200, 256), torch.tensor(200)

    def ours() -> Tensor:
        return live_rows.mask_logits_rows(regions, weight, bias, own, count)

    def peer() -> Tensor:
        hidden = F.conv_transpose2d(regions, weight, bias, stride=2).relu_()
        return torch.bmm(own[:, None], hidden.permute(0, 2, 3, 1).flatten(1, 2).transpose(1, 2)).view(200, 28, 28)

    return Work(ours, peer, lambda: torch.allclose(ours(), peer(), atol=1e-2))


CASES = [
    Case("nms, 2,000 boxes", "torchvision", 5, lambda: nms_case(2000)),
    Case("nms, 10,000 boxes", "torchvision", 8, lambda: nms_case(10_000)),
    Case("batched nms, 5 levels x 8 images, best 1,000", "torchvision", 8, lambda: batched_nms_case(1000)),
    Case("batched nms, 5 levels x 8 images, all", "torchvision", 8, lambda: batched_nms_case(5000)),
    Case("match, 240,000 anchors to 50 boxes", "torchvision", 4, match_case),
    Case("match, 240,000 anchors to 50 boxes", "torchvision", 10, match_case, "MB"),
    Case(
        "roi align, 1,000 regions 7x7, 4 levels, 2x2",
        "torchvision",
        8,
        lambda: roi_align_case(2, False),
    ),
    Case("roi align, the same, adaptive", "torchvision", 8, lambda: roi_align_case(0, False)),
    Case("roi align backward, 2x2", "torchvision", 5, lambda: roi_align_case(2, True)),
    Case("roi align backward, adaptive", "torchvision", 5, lambda: roi_align_case(0, True)),
    Case("roi align for a linear layer", "torchvision", 8, lambda: roi_align_case(0, False, torch.contiguous_format)),
    Case("roi align, the same, backward", "torchvision", 5, lambda: roi_align_case(0, True, torch.contiguous_format)),
    Case(
        "paste 100 masks, RLE, torchvision's way",
        "torchvision, pycocotools",
        4,
        lambda: paste_case("expanded"),
        gpu=False,
    ),
    Case(
        "paste 100 masks, RLE, detectron2's way",
        "PyTorch, pycocotools",
        4,
        lambda: paste_case("grid_sample"),
        gpu=False,
    ),
    Case(
        "conv 3x3, 256 channels, 2 x 120x160", "oneDNN", 1.5, lambda: convolution_case(256, 120, 160, False), gpu=False
    ),
    Case("conv, the same, backward", "oneDNN", 1.5, lambda: convolution_case(256, 120, 160, True), gpu=False),
    Case("conv 3x3, 64 channels, 2 x 120x160", "oneDNN", 1.2, lambda: convolution_case(64, 120, 160, False), gpu=False),
    Case("mask head's conv 3x3, 200 regions, inference", "oneDNN", 1.5, mask_head_convolution_case, gpu=False),
    Case("end of a mask head, 200 regions, inference", "PyTorch", 1.2, mask_logits_case, gpu=False),
    Case("deformable conv 3x3, 256 channels, 69x69", "torchvision", 1, lambda: deform_conv_case(69, False)),
    Case("deformable conv, the same, backward", "torchvision", 1, lambda: deform_conv_case(69, True)),
    Case("deformable conv 3x3, 256 channels, 35x35", "torchvision", 1, lambda: deform_conv_case(35, False)),
    Case("polygons of 128 regions to 28x28", "pycocotools", 1, rasterize_case, gpu=False),
]
"""The rows, in the order they are printed."""
