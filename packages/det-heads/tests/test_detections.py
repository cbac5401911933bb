"""Static choice of detections against the dynamic formulation, written with torchvision's operators."""

from dataclasses import replace

import pytest
import torch
from torchvision.ops import batched_nms, box_iou

from det_heads import BoxCoder, BoxHeadConfig, select_detections
from det_ops import decode_boxes

SIZES = torch.tensor([[96, 128], [80, 100]])
CLASSES = 4


def inputs(seed=0, rows=30, agnostic=False):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(2, rows, 2, generator=generator) * 60
    boxes = torch.cat([corner, corner + 5 + torch.rand(2, rows, 2, generator=generator) * 50], -1)
    logits = torch.randn(2, rows, CLASSES + 1, generator=generator) * 2
    deltas = torch.randn(2, rows, 4 if agnostic else 4 * CLASSES, generator=generator)
    valid = torch.arange(rows).expand(2, rows) < torch.tensor([[rows], [rows - 7]])
    return logits.softmax(-1), deltas, boxes, valid


def dynamic_detections(probabilities, deltas, boxes, valid, config, offset):
    results = []
    for image, (height, width) in enumerate(SIZES.tolist()):
        keep = valid[image]
        scores = probabilities[image][keep][:, :CLASSES]
        delta = deltas[image][keep]
        if config.class_agnostic:
            delta = delta.repeat(1, CLASSES)
        anchors = boxes[image][keep].repeat_interleave(CLASSES, 0)
        decoded = decode_boxes(delta.reshape(-1, 4), anchors, config.coding.weights, offset=offset)
        limit = torch.tensor([width, height, width, height]) - offset
        decoded = torch.minimum(decoded.clamp(min=0), limit)
        labels = torch.arange(CLASSES).repeat(len(scores))
        passed = scores.flatten() > config.score_threshold
        if config.min_size is not None:
            passed &= (decoded[:, 2:] - decoded[:, :2] + offset >= config.min_size).all(1)
        decoded, score, label = decoded[passed], scores.flatten()[passed], labels[passed]
        wide = decoded + torch.tensor([0, 0, offset, offset])
        kept = batched_nms(wide, score, label, config.nms_threshold)[: config.max_detections]
        results.append((decoded[kept], score[kept], label[kept]))
    return results


def select(probabilities, deltas, boxes, valid, sizes, config, offset=0.0):
    coder = BoxCoder(config.coding, offset)
    return select_detections(probabilities, deltas, boxes, valid, sizes, config, coder)


@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("min_size", [None, 1e-2, 20.0])
def test_equals_the_dynamic_formulation(offset, agnostic, threshold, min_size):
    config = BoxHeadConfig(score_threshold=threshold, max_detections=25, class_agnostic=agnostic, min_size=min_size)
    arguments = inputs(agnostic=agnostic)
    got = select(*arguments, SIZES, config, offset=offset)
    assert got["boxes"].shape == (2, 25, 4)
    for image, (boxes, scores, labels) in enumerate(dynamic_detections(*arguments, config, offset)):
        valid = got["valid"][image]
        assert valid.sum() == len(boxes)
        torch.testing.assert_close(got["scores"][image][valid], scores)
        torch.testing.assert_close(got["labels"][image][valid], labels)
        torch.testing.assert_close(got["boxes"][image][valid], boxes)
        assert (got["boxes"][image][~valid] == 0).all()


def test_the_bound_on_candidates_loses_nothing_when_every_box_is_undecided():
    # four classes just above the threshold in every row: as many candidates as can be
    rows = 50
    probabilities = torch.full((1, rows, CLASSES + 1), 0.2)
    corner = torch.arange(rows)[None, :, None] * torch.tensor([7.0, 0.0])
    boxes = torch.cat([corner, corner + 5], -1)
    config = BoxHeadConfig(score_threshold=0.1999, max_detections=1000)
    got = select(
        probabilities, torch.zeros(1, rows, 4 * CLASSES), boxes, torch.ones(1, rows, dtype=torch.bool),
        torch.tensor([[10, 1000]]), config,
    )  # fmt: skip
    assert got["valid"].sum() == rows * CLASSES


def test_the_score_must_exceed_the_threshold():
    probabilities = torch.tensor([[[0.5, 0.5]]])
    box, valid, size = torch.tensor([[[0.0, 0, 9, 9]]]), torch.ones(1, 1, dtype=torch.bool), torch.tensor([[20, 20]])
    config = BoxHeadConfig(score_threshold=0.5)
    assert not select(probabilities, torch.zeros(1, 1, 4), box, valid, size, config)["valid"].any()
    config = replace(config, score_threshold=0.49)
    assert select(probabilities, torch.zeros(1, 1, 4), box, valid, size, config)["valid"].any()


def test_kept_boxes_of_a_class_do_not_overlap():
    config = BoxHeadConfig(score_threshold=0.01, nms_threshold=0.3)
    got = select(*inputs(), SIZES, config)
    for image in range(2):
        for label in range(CLASSES):
            boxes = got["boxes"][image][got["valid"][image] & (got["labels"][image] == label)]
            overlap = box_iou(boxes, boxes).fill_diagonal_(0)
            assert overlap.numel() == 0 or overlap.max() <= 0.3


def test_values_that_are_not_finite_are_dropped():
    probabilities, deltas, boxes, valid = inputs()
    probabilities[0, 3] = torch.nan
    deltas[0, 5] = torch.inf
    deltas[1, 2] = torch.nan
    boxes[1, 4] = torch.nan
    got = select(probabilities, deltas, boxes, valid, SIZES, BoxHeadConfig())
    assert all(got[name].isfinite().all() for name in ("boxes", "scores"))
    assert got["valid"].any(1).all()
