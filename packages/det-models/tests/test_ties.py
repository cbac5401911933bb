"""Padding changes nothing where scores tie, as half precision makes them: neither what is found nor its order."""

import pytest
import torch
from torch import Tensor

import det_ops
from det_heads import Anchors, BoxCoder, YolactConfig, select_detections, select_proposals
from det_heads.yolact.detections import select
from det_models.keypoints import torchvision_keypoint_config
from testing.detectors import PRESETS, TinyPyramid, small

FAMILIES = {**PRESETS, "keypoints": lambda classes, mask: torchvision_keypoint_config(1)}
STRIDES = TinyPyramid.strides
IMAGE, LARGER = (128, 192), (192, 320)  # which every stride divides
HALVES = [torch.bfloat16, torch.float16]


@pytest.fixture(params=["auto", "reference"], autouse=True)
def kernels(request: pytest.FixtureRequest):
    with det_ops.kernels(request.param):
        yield


def grids(image: tuple[int, int]) -> list[tuple[int, int]]:
    return [(-(-image[0] // stride), -(-image[1] // stride)) for stride in STRIDES]


def in_larger(maps: list[Tensor], value: float) -> list[Tensor]:
    """The same maps in the corner of those of a larger image, which hold `value` elsewhere."""
    larger = []
    for part, (height, width) in zip(maps, grids(LARGER), strict=True):
        padded = torch.full((*part.shape[:2], height, width), value, dtype=part.dtype)
        padded[:, :, : part.shape[2], : part.shape[3]] = part
        larger.append(padded)
    return larger


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_proposals_of_an_image_in_a_larger_bucket(family: str, training: bool, dtype: torch.dtype) -> None:
    config = small(FAMILIES[family](3, mask=True))
    anchors = config.rpn.anchors.per_cell
    logits = [(torch.randn(2, anchors, *grid) * 3).to(dtype) for grid in grids(IMAGE)]
    deltas = [(torch.randn(2, 4 * anchors, *grid) * 0.5).to(dtype) for grid in grids(IMAGE)]
    assert len(logits[0][0].unique()) < logits[0][0].numel()  # there are ties
    coder, sizes = BoxCoder(config.rpn.coding, config.offset), torch.tensor([IMAGE, (80, 100)])
    found = [
        select_proposals(
            some_logits,
            some_deltas,
            Anchors(config.rpn.anchors, STRIDES)(grids(image), image),
            sizes,
            config.rpn,
            coder,
            training=training,
        )
        for some_logits, some_deltas, image in (
            (logits, deltas, IMAGE),
            (in_larger(logits, -100.0), in_larger(deltas, torch.nan), LARGER),
        )
    ]
    for image in range(2):
        plain, padded = ([part[image][proposals.valid[image]] for part in proposals] for proposals in found)
        assert len(plain[0]) > 5
        assert all(map(torch.equal, plain, padded))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("family", FAMILIES)
def test_detections_beside_empty_slots(family: str, dtype: torch.dtype) -> None:
    config = small(FAMILIES[family](3, mask=True))
    box, classes = config.box, config.num_classes
    corner = torch.rand(2, 60, 2) * 60
    boxes = torch.cat([corner, corner + 5 + torch.rand(2, 60, 2) * 40], -1)
    probabilities = (torch.randn(2, 60, classes + 1) * 2).softmax(-1).to(dtype).float()
    deltas = torch.randn(2, 60, 4 if box.class_agnostic else 4 * classes).to(dtype)
    used = torch.rand(2, 60) < 0.8
    where = (torch.rand(90).argsort()[:60]).sort().values  # of the 60 slots among 90

    def among(part: Tensor, value: float) -> Tensor:
        return torch.full((2, 90, *part.shape[2:]), value, dtype=part.dtype).index_copy_(1, where, part)

    coder, sizes = BoxCoder(box.coding, config.offset), torch.tensor([IMAGE, (80, 100)])
    plain = select_detections(probabilities, deltas, boxes, used, sizes, box, coder)
    padded = select_detections(
        among(probabilities, 0.9), among(deltas, 0.0), among(boxes, 5.0), among(used, 0), sizes, box, coder
    )
    assert plain["valid"].sum() > 10
    assert all(torch.equal(plain[name], padded[name]) for name in plain)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("nms", ["fast", "cross_class", "traditional"])
def test_detections_of_yolact_beside_empty_priors(nms: str, dtype: torch.dtype) -> None:
    config = YolactConfig(num_classes=3, nms=nms, nms_top_k=50, max_detections=40)
    logits, deltas = (torch.randn(2, 300, 4) * 3).to(dtype), (torch.randn(2, 300, 4) * 0.3).to(dtype)
    priors = torch.cat([torch.rand(300, 2), torch.rand(300, 2) * 0.2 + 0.1], -1)
    where = (torch.rand(400).argsort()[:300]).sort().values
    background = torch.tensor([30.0, 0, 0, 0], dtype=dtype).expand(2, 400, 4)
    plain, prior = select(deltas, logits, priors, IMAGE, config)
    padded, padded_prior = select(
        torch.zeros(2, 400, 4, dtype=dtype).index_copy_(1, where, deltas),
        background.clone().index_copy_(1, where, logits),
        torch.full((400, 4), 0.5).index_copy_(0, where, priors),
        IMAGE,
        config,
    )
    assert plain["valid"].sum() > 20
    assert all(torch.equal(plain[name], padded[name]) for name in plain)
    assert torch.equal(where[prior][plain["valid"]], padded_prior[padded["valid"]])
