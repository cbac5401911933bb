"""Single operators against those of all reference systems, with the fast kernels and with the plain ones."""

import contextlib
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

import det_ops
from det_heads.anchors import cell_anchors
from tests.parity.batches import plain_batch, resized_batch
from tests.parity.reference import reference

OPS = reference("ops")

STRIDES = (4, 8, 16, 32, 64)


@pytest.fixture(autouse=True, params=["fast", "reference"])
def kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    with det_ops.kernels("reference") if request.param == "reference" else contextlib.nullcontext():
        yield


def bits(key: str, count: int) -> Tensor:
    return torch.from_numpy(np.unpackbits(OPS[key], axis=-1, count=count)).bool()


@pytest.mark.parametrize("threshold", ["0.3", "0.5", "0.7"])
@pytest.mark.parametrize(
    ("key", "offset", "ordered"),
    [("keep", 0.0, True), ("keep_offset1_mmcv", 1.0, True), ("keep_offset1_mrb_index_order", 1.0, False)],
)
def test_nms(key: str, offset: float, ordered: bool, threshold: str) -> None:
    boxes, scores = OPS.tensor("nms/boxes"), OPS.tensor("nms/scores")
    keep, valid = det_ops.nms(boxes, scores, float(threshold), max_output=len(boxes), offset=offset)
    keep = keep[valid]
    assert torch.equal(keep if ordered else keep.sort().values, OPS.tensor(f"nms/{key}_{threshold}"))


def test_nms_of_equal_scores() -> None:
    boxes, scores = OPS.tensor("nms/boxes"), OPS.tensor("nms/scores_tied")
    keep, valid = det_ops.nms(boxes, scores, 0.5, max_output=len(boxes))
    assert torch.equal(keep[valid], OPS.tensor("nms/keep_tied_0.5"))


@pytest.mark.parametrize("threshold", ["0.5", "0.7"])
def test_batched_nms(threshold: str) -> None:
    boxes, scores, groups = OPS.tensor("nms/boxes"), OPS.tensor("nms/scores"), OPS.tensor("batched_nms/idxs")
    keep, valid = det_ops.batched_nms(boxes, scores, groups, float(threshold), max_output=len(boxes))
    assert torch.equal(keep[valid], OPS.tensor(f"batched_nms/keep_{threshold}"))


@pytest.mark.parametrize(("ratio", "size"), [(0, 7), (-1, 7), (1, 7), (2, 7), (2, 14)])
@pytest.mark.parametrize("aligned", [0, 1])
def test_roi_align(aligned: int, ratio: int, size: int) -> None:
    key = f"roi_align/aligned{aligned}_sr{ratio}_{size}"
    features = OPS.tensor("roi_align/input").requires_grad_()
    out = det_ops.roi_align(features, OPS.tensor("roi_align/rois"), size, 0.25, ratio, bool(aligned))
    if f"{key}/out" in OPS.keys:
        torch.testing.assert_close(out, OPS.tensor(f"{key}/out"), rtol=1e-5, atol=1e-5)
    else:
        OPS.assert_sampled(f"{key}/out", out)
    weights = torch.from_numpy(np.random.RandomState(6).randn(*out.shape).astype(np.float32))
    (gradient,) = torch.autograd.grad((out * weights).sum(), features)
    torch.testing.assert_close(gradient[0, :4], OPS.tensor(f"{key}/grad_input_b0"), rtol=1e-5, atol=2e-5)
    assert gradient.norm().item() == pytest.approx(float(OPS[f"{key}/grad_norm"]), rel=1e-5)


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("detectron2_2_5", {}),
        ("mrb_0_3", {"epsilon": 1e-6, "offset": 1.0}),
        ("torchvision_k2_5", {"epsilon": 1e-6, "epsilon_inside_log": False}),
    ],
)
def test_levels(key: str, options: dict[str, float]) -> None:
    assert torch.equal(det_ops.fpn_levels(OPS.tensor("levels/boxes"), **options), OPS.tensor(f"levels/{key}"))


def test_boxes() -> None:
    a, b = OPS.tensor("box/a"), OPS.tensor("box/b")
    torch.testing.assert_close(det_ops.box_area(a), OPS.tensor("box/area"))
    torch.testing.assert_close(det_ops.box_iou(a, b), OPS.tensor("box/box_iou"))
    torch.testing.assert_close(det_ops.generalized_box_iou(a, b), OPS.tensor("box/generalized_box_iou"))
    clipped = det_ops.clip_boxes((a - 20)[None], torch.tensor([[300, 400]]))[0]
    torch.testing.assert_close(clipped, OPS.tensor("box/clip_300x400"))


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0), (30.0, 30.0, 15.0, 15.0)])
@pytest.mark.parametrize(("system", "offset"), [("detectron2", 0.0), ("torchvision", 0.0), ("mrb", 1.0)])
def test_box_coding(system: str, offset: float, weights: tuple[float, ...]) -> None:
    anchors, truth, deltas = (OPS.tensor(f"coder/{name}") for name in ("anchors", "gt", "deltas"))
    name = f"w{weights[0]:.0f}"
    encoded = det_ops.encode_boxes(truth, anchors, weights, offset=offset)
    torch.testing.assert_close(encoded, OPS.tensor(f"coder/{system}_encode_{name}"), rtol=1e-5, atol=1e-5)
    decoded = det_ops.decode_boxes(deltas, anchors, weights, offset=offset)
    torch.testing.assert_close(decoded, OPS.tensor(f"coder/{system}_decode_{name}"), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(
    ("key", "high", "low", "low_quality"), [("detectron2_rpn", 0.7, 0.3, True), ("detectron2_roi", 0.5, 0.5, False)]
)
def test_match(key: str, high: float, low: float, low_quality: bool) -> None:
    truth = OPS.tensor("match/gt")[None]
    valid = torch.ones(1, truth.shape[1], dtype=torch.bool)
    anchors = OPS.tensor("match/anchors")
    index, label = det_ops.match(anchors, truth, valid, high=high, low=low, allow_low_quality=low_quality)
    assert torch.equal(index[0], OPS.tensor(f"match/{key}_idx"))
    assert torch.equal(label[0], OPS.tensor(f"match/{key}_label"))
    torchvision = OPS.tensor("match/torchvision_0.7_0.3_lowq" if low_quality else "match/torchvision_0.5_0.5")
    assert torch.equal(torch.where(label[0] == 1, index[0], label[0].long() - 1), torchvision)


@pytest.mark.parametrize(
    ("key", "high", "low", "rules"),
    [
        ("rpn", 0.7, 0.3, {"allow_low_quality": True, "low_quality_iou": 0.3, "reassign_low_quality": True}),
        ("rcnn", 0.5, 0.5, {}),
    ],
)
def test_match_as_mmdetection(key: str, high: float, low: float, rules: dict[str, float]) -> None:
    truth = OPS.tensor("match/gt")[None]
    valid = torch.ones(1, truth.shape[1], dtype=torch.bool)
    index, label = det_ops.match(OPS.tensor("match/anchors"), truth, valid, high=high, low=low, **rules)
    assigned = torch.where(label[0] == 1, index[0] + 1, label[0].long())
    assert torch.equal(assigned, OPS.tensor(f"match/mmdet_{key}_gt_inds"))


@pytest.mark.parametrize(("system", "rounding"), [("detectron2", "none"), ("torchvision", "round"), ("mrb", "legacy")])
def test_anchor_cells(system: str, rounding: str) -> None:
    cells = [cell_anchors((8.0 * stride,), (0.5, 1.0, 2.0), stride, rounding) for stride in STRIDES]
    torch.testing.assert_close(torch.stack(cells), OPS.tensor(f"anchors/{system}_cell"), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("system", "mode"), [("detectron2", "grid_sample"), ("torchvision", "expanded")])
def test_paste(system: str, mode: str) -> None:
    masks, boxes = OPS.tensor("paste/prob")[:, 0], OPS.tensor("paste/boxes")
    height, width = (int(size) for size in OPS["paste/size"])
    probabilities = det_ops.paste_masks(masks, boxes, height, width, threshold=None, mode=mode)
    stored = OPS.tensor(f"paste/{'mmdet' if system == 'detectron2' else system}_prob_first4")
    torch.testing.assert_close(probabilities[:4], stored, rtol=1e-4, atol=1e-5)
    pasted = det_ops.paste_masks(masks, boxes, height, width, mode=mode)
    # A pixel whose probability is a rounding away from the threshold may fall on either side.
    expected = bits(f"paste/{system}_bin", width)
    assert not ((pasted != expected) & ((probabilities - 0.5).abs() > 1e-5)).any()
    assert (pasted != expected).sum() <= 1


@pytest.mark.parametrize(("key", "legacy"), [("detectron2_polygon", False), ("mrb_polygon", True)])
def test_polygon_targets(key: str, legacy: bool) -> None:
    batch = plain_batch(OPS)
    boxes, instance = OPS.tensor("masktarget/boxes"), OPS.tensor("masktarget/gt_index")
    image = torch.zeros_like(instance)
    polygons = (batch["mask_edges"], batch["mask_polygons"], batch["mask_instances"])
    found = det_ops.rasterize_polygons(*polygons, image, instance, boxes, size=28, legacy=legacy)
    expected = bits(f"masktarget/{key}", 784).view(-1, 28, 28)
    assert torch.equal(found.bool(), expected)


@pytest.mark.parametrize(
    ("key", "aligned", "threshold"), [("torchvision", False, None), ("detectron2_bitmask", True, 0.5)]
)
def test_bitmap_targets(key: str, aligned: bool, threshold: float | None) -> None:
    batch = resized_batch(OPS, 320, 480, 320, 533)  # image 0 keeps its size
    boxes, instance = OPS.tensor("masktarget/boxes"), OPS.tensor("masktarget/gt_index")
    image = torch.zeros_like(instance)
    found = det_ops.bitmap_targets(
        batch["mask_bitmaps"], image, instance, boxes, size=28, aligned=aligned, threshold=threshold
    )
    if threshold is None:
        torch.testing.assert_close(found, OPS.tensor(f"masktarget/{key}"), rtol=1e-5, atol=1e-5)
    else:
        assert torch.equal(found.bool(), bits(f"masktarget/{key}", 784).view(-1, 28, 28))
