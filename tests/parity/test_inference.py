"""Inference stage by stage, each from the reference's stored inputs, so that no difference is inherited."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import det_ops
from det_heads import CascadeBoxHeads, MaskHead, select_proposals
from det_heads.packing import pack, unpack
from tests.parity.conftest import Inference
from tests.parity.masks import decode_rle
from tests.parity.reference import COORDINATE, matching


@pytest.fixture(autouse=True)
def without_graph() -> Iterator[None]:
    with torch.inference_mode():
        yield


def test_network_input(inference: Inference) -> None:
    inference.file.assert_sampled("eval/net_input", inference.network_input)
    if "eval/net_input_sizes" in inference.file.keys:
        assert inference.batch["image_sizes"].tolist() == inference.file["eval/net_input_sizes"].tolist()


def test_pyramid(inference: Inference) -> None:
    if "eval/backbone/0/shape" in inference.file.keys:
        for stage, feature in enumerate(inference.model.backbone.body(inference.network_input)):
            inference.file.assert_sampled(f"eval/backbone/{stage}", feature)
    levels = inference.file.below("eval/fpn/")
    assert len(levels) == len(inference.features) == 5
    for level, feature in zip(levels, inference.features, strict=True):
        inference.file.assert_sampled(f"eval/fpn/{level}", feature)


def test_rpn_outputs(inference: Inference) -> None:
    for level, (logits, deltas) in enumerate(zip(*inference.rpn_outputs, strict=True)):
        inference.file.assert_sampled(f"eval/rpn_logits/{level}", logits)
        inference.file.assert_sampled(f"eval/rpn_deltas/{level}", deltas)


def test_anchors(inference: Inference) -> None:
    file, anchors = inference.file, inference.anchors
    if "eval/anchors0/shape" in file.keys:  # all levels in one
        file.assert_sampled("eval/anchors0", anchors)
        return
    for level, part in enumerate(anchors.split([logits[0].numel() for logits in inference.rpn_outputs[0]])):
        file.assert_sampled(f"eval/anchors/{level}", part)
        file.assert_close(f"eval/anchors/{level}/head", part[:12])


def test_proposals(inference: Inference) -> None:
    file = inference.file
    rpn, sizes = inference.model.rpn, inference.batch["image_sizes"]
    found = select_proposals(*inference.rpn_outputs, inference.anchors, sizes, rpn.config, rpn.coder, training=False)
    scores_key = "proposal_logits" if "eval/proposal_logits0" in file.keys else "proposal_scores"
    for i, expected in enumerate(inference.stored_proposals):
        assert found.valid[i].all()
        row = matching(found.boxes[i], expected, tolerance=file.tolerance(f"eval/proposals{i}", COORDINATE))
        file.assert_close(f"eval/{scores_key}{i}", found.scores[i][row.argsort()])


def test_box_head(inference: Inference) -> None:
    """Pooled features, hidden features and both predictions of the stored proposals, and of these refined."""
    file, model = inference.file, inference.model
    boxes = inference.stored_proposals
    images = torch.arange(2).repeat_interleave(1000)
    valid = torch.ones(2000, dtype=torch.bool)
    for stage, head in inference.box_stages:
        pooled = head.pool(inference.features, boxes.flatten(0, 1), images, valid)
        file.assert_sampled(f"{stage}/box_pooled", pooled)
        if f"{stage}/box_head/shape" in file.keys:
            file.assert_sampled(f"{stage}/box_head", head.hidden(pooled))
        logits, deltas = head(pooled)
        if isinstance(model.boxes, CascadeBoxHeads):
            boxes = model.boxes.refine(head, boxes, deltas.unflatten(0, (2, 1000)), inference.batch["image_sizes"])
        if inference.case.background_first:
            logits = logits.roll(1, -1)
            deltas = F.pad(deltas, (4, 0), value=torch.nan)
        file.assert_sampled(f"{stage}/cls_logits", logits)
        file.assert_sampled(f"{stage}/box_reg", deltas)
        file.assert_close(f"{stage}/cls_logits_first20", logits[:20])
        if f"{stage}/box_reg_first20" in file.keys:
            file.assert_close(f"{stage}/box_reg_first20", deltas[:20])


def test_detections(inference: Inference) -> None:
    boxes, labels = inference.stored_detections
    _assert_same_detections(inference, inference.detections, boxes, labels)


def test_detections_end_to_end(inference: Inference) -> None:
    """From the pixels, with nothing stored in between."""
    found = inference.model(inference.batch)
    _assert_same_detections(inference, found, *inference.stored_detections)


def _assert_same_detections(inference: Inference, found: dict[str, Tensor], boxes: Tensor, labels: Tensor) -> None:
    file, key = inference.file, inference.case.detected
    assert found["valid"].all()
    for i in range(2):
        row = matching(
            found["boxes"][i],
            boxes[i],
            found["labels"][i],
            labels[i],
            tolerance=file.tolerance(f"{key}{i}", COORDINATE),
        )
        assert (found["scores"][i].diff() <= 0).all()
        file.assert_close(f"det/scores{i}", found["scores"][i][row.argsort()])


def test_mask_head(inference: Inference) -> None:
    """Pooled features of the stored detections and the masks of their classes."""
    file, heads = inference.file, inference.mask_heads
    boxes, labels = inference.stored_detections
    valid = torch.ones_like(labels, dtype=torch.bool)
    images = torch.arange(2).repeat_interleave(100)
    pooled = heads[0].pool(inference.features, boxes.flatten(0, 1), images, valid.flatten())
    file.assert_sampled("eval/mask_pooled", pooled)
    packing, several = pack(valid), len(heads) > 1
    for stage, head in enumerate(heads):
        own = labels.flatten()[packing.order]
        logits = unpack(head(pooled[packing.order], own, packing.count), packing, (2, 100))
        _assert_layers(inference, head, pooled, f"eval/stage{stage}" if several else "eval")
        for i in range(2):
            key = f"det/stage{stage}_mask_logits28_{i}" if several else f"det/mask_logits28_{i}"
            file.assert_close(key, logits[i, : len(file[key])])


def _assert_layers(inference: Inference, head: MaskHead, pooled: Tensor, prefix: str) -> None:
    """The layers of a mask head one by one, and the masks of all classes, which the detector never computes."""
    file, hidden = inference.file, pooled
    for convolution in head.convs:
        hidden = F.relu(convolution(hidden))
    enlarged = head.deconv(hidden)
    logits = head.predictor(F.relu(enlarged))
    if inference.case.background_first:
        logits = F.pad(logits, (0, 0, 0, 0, 1, 0), value=torch.nan)
    for key, ours in (("mask_head", hidden), ("mask_deconv", enlarged), ("mask_logits", logits)):
        if f"{prefix}/{key}/shape" in file.keys:
            file.assert_sampled(f"{prefix}/{key}", ours)


def test_masks(inference: Inference) -> None:
    """Boxes and masks in the original images, of the stored detections."""
    file, model = inference.file, inference.model
    boxes, labels = inference.stored_detections
    valid = torch.ones_like(labels, dtype=torch.bool)
    detections = {
        "boxes": boxes,
        "labels": labels,
        "valid": valid,
        "scores": torch.stack(file.pair("det/scores")),
    }
    (masks,) = model.branches
    detections |= masks.detect(inference.features, detections)
    sizes = [tuple(file[f"in/image{i}"].shape[:2]) for i in range(2)]
    for i, image in enumerate(model.to_image(detections, inference.batch["scales"], sizes)):
        expected = file.json(f"det/mask_rle{i}")
        if f"det/mask_prob28_mean{i}" in file.keys:
            file.assert_close(f"det/mask_prob28_mean{i}", detections["masks"][i, :20])
        assert len(image.boxes) == len(expected["counts"])
        inner = image.boxes.clone()
        inner[:, 2:] -= model.rpn.coder.offset
        torch.testing.assert_close(inner, file.tensor(f"det/boxes{i}"), rtol=0, atol=1e-3)
        if f"det/pasted_prob{i}/shape" in file.keys:
            pasted = det_ops.paste_masks(
                detections["masks"][i],
                image.boxes,
                *sizes[i],
                threshold=None,
                mode=inference.mask_heads[0].config.paste,
            )
            file.assert_sampled(f"det/pasted_prob{i}", pasted)
        areas = file[f"det/mask_area{i}"]
        for ours, counts, area in zip(image.masks, expected["counts"], areas, strict=True):
            mask, theirs = decode_rle(ours), decode_rle({"size": expected["size"], "counts": counts})
            assert theirs.sum() == area
            # Pixels whose probability is a rounding away from the threshold.
            assert (mask != theirs).sum() <= max(2, 1e-3 * area)
