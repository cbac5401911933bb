"""Losses for long tails and for boxes, and soft-NMS, beside the numbers of their sources."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from det_heads import (
    BatchPart,
    BoxCoder,
    BoxHead,
    BoxHeadConfig,
    ClassCounts,
    ClassificationConfig,
    RPNConfig,
    Samples,
    balanced_weights,
    box_losses,
    class_losses,
    class_probabilities,
    federated_classes,
    focal_loss,
    overlap_loss,
    regression_loss,
    seesaw_loss,
    select_detections,
    soft_nms,
)

OBJECTS = torch.tensor([1000.0, 100, 10, 1, 0])
COUNTS = ClassCounts(OBJECTS, torch.tensor([500.0, 90, 8, 1, 0]), balanced_weights(OBJECTS, 0.999))
CONFIGS = {
    "softmax": ClassificationConfig(),
    "sigmoid": ClassificationConfig(kind="sigmoid"),
    "focal": ClassificationConfig(kind="focal"),
    "seesaw": ClassificationConfig(kind="seesaw"),
    "balanced": ClassificationConfig(class_balance=0.999),
    "balanced focal": ClassificationConfig(kind="focal", class_balance=0.99),
    "federated": ClassificationConfig(kind="sigmoid", federated=3),
}


def logits_and_labels(rows: int = 40, classes: int = 5):
    return torch.randn(rows, classes + 1) * 3, torch.arange(rows) % (classes + 1)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (-1.0, 1.5), (0.75, 0.0)])
def test_focal_loss_is_torchvisions(alpha, gamma):
    logits, targets = torch.randn(60, 7, requires_grad=True), (torch.rand(60, 7) < 0.2).float()
    found = focal_loss(logits, targets, alpha=alpha, gamma=gamma)
    expected = torchvision.ops.sigmoid_focal_loss(logits, targets, alpha, gamma)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(one.sum(), logits, retain_graph=True)[0] for one in (found, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("kind", "theirs"),
    [
        ("giou", torchvision.ops.generalized_box_iou_loss),
        ("diou", torchvision.ops.distance_box_iou_loss),
        ("ciou", torchvision.ops.complete_box_iou_loss),
    ],
)
def test_overlaps_of_boxes_are_torchvisions(kind, theirs):
    corners = torch.rand(2, 200, 4, dtype=torch.float64) * 100
    one, two = torch.cat((corners[..., :2], corners[..., :2] + corners[..., 2:] + 0.1), -1).requires_grad_()
    two = two.detach()
    found, expected = overlap_loss(one, two, kind), theirs(one, two)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(loss.sum(), one, retain_graph=True)[0] for loss in (found, expected)]
    torch.testing.assert_close(*gradients)
    assert overlap_loss(two, two, kind).abs().max() < 1e-6


def test_inclusive_boxes_overlap_as_wider_ones():
    one, two = torch.tensor([[0.0, 0, 9, 9]]), torch.tensor([[5.0, 0, 14, 9]])
    wider = torch.tensor([0.0, 0, 1, 1])
    torch.testing.assert_close(
        overlap_loss(one, two, "giou", offset=1.0), overlap_loss(one + wider, two + wider, "giou")
    )


@pytest.mark.parametrize("kind", ["giou", "diou", "ciou"])
def test_box_loss_by_overlap_is_that_of_the_decoded_positives(kind):
    positive = torch.tensor([[True, False, True, False]])
    boxes = torch.tensor([[[0.0, 0, 20, 20], [0, 0, 0, 0], [30, 10, 60, 50], [5, 5, 9, 9]]])
    truth = torch.tensor([[[2.0, 1, 25, 18], [0, 0, 0, 0], [28, 12, 66, 40], [0, 0, 0, 0]]])
    samples = Samples(
        index=torch.arange(4)[None], boxes=boxes, truth_boxes=truth, truth_index=torch.zeros(1, 4, dtype=torch.int64),
        labels=torch.tensor([[0, 3, 1, 3]]), positive=positive, valid=torch.tensor([[True, False, True, True]]),
        max_positives=4,
    )  # fmt: skip
    deltas = (torch.randn(1, 4, 4) * 0.5).requires_grad_()
    coder = BoxCoder(BoxHeadConfig().coding)
    found = regression_loss(deltas, samples, coder, beta=0.0, kind=kind)
    decoded = coder.decode(deltas, boxes)[positive]
    torch.testing.assert_close(found, overlap_loss(decoded, truth[positive], kind).sum())
    (gradient,) = torch.autograd.grad(found, deltas)
    assert gradient.isfinite().all()
    assert (gradient != 0).any(-1).tolist() == [[True, False, True, False]]
    config = replace(BoxHeadConfig(class_agnostic=True), box_loss=kind, box_loss_weight=10.0)
    _, weighted = box_losses(torch.randn(1, 4, 4), deltas, samples, config, coder)
    torch.testing.assert_close(weighted, 10 * found / 3)


def test_class_balanced_weights_are_those_of_the_paper():
    """(1 - beta) / (1 - beta^n), scaled to the number of classes (Cui et al., section 4 and their code)."""
    counts, beta = [5000, 2997, 1796, 50], 0.9999
    raw = [(1 - beta) / (1 - beta**n) for n in counts]
    expected = [weight / sum(raw) * len(counts) for weight in raw]
    torch.testing.assert_close(balanced_weights(torch.tensor(counts), beta), torch.tensor(expected))
    logits, labels = logits_and_labels()
    weights = balanced_weights(COUNTS.objects, 0.999)
    found = class_losses(logits, labels, CONFIGS["balanced"], counts=COUNTS)
    own = torch.cat((weights, torch.ones(1)))[labels]
    torch.testing.assert_close(found, F.cross_entropy(logits, labels, reduction="none") * own)


def test_seesaw_loss_is_the_formula_of_the_paper():
    """Equations 1 to 6 of Wang et al., with plain numbers, and mmdetection's split into classes and objectness."""
    logits, labels = logits_and_labels(24)
    counts, p, q = [1000, 100, 10, 1, 1], 0.8, 2.0
    expected = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        scores, background = row[:-1], 1 / (1 + math.exp(-row[-1]))
        loss = -math.log(background if label == 5 else 1 - background)
        if label < 5:
            total = sum(math.exp(score) for score in scores)
            sigma = [math.exp(score) / total for score in scores]
            divisor = math.exp(scores[label])
            for j, score in enumerate(scores):
                if j != label:
                    mitigation = (counts[j] / counts[label]) ** p if counts[label] > counts[j] else 1.0
                    own = max(sigma[label], 1e-2)
                    compensation = (sigma[j] / own) ** q if sigma[j] > own else 1.0
                    divisor += mitigation * compensation * math.exp(score)
            loss -= math.log(math.exp(scores[label]) / divisor)
        expected.append(loss)
    found = seesaw_loss(logits, labels, COUNTS.objects)
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-4)


def test_federated_loss_is_detectron2s_with_the_classes_that_were_drawn():
    labels = torch.tensor([[0, 5, 2, 5], [5, 5, 5, 5], [1, 3, 0, 2]])
    drawn = federated_classes(labels, 3, COUNTS.images)
    assert drawn.shape == (3, 5)
    assert drawn[0, [0, 2]].all()
    assert drawn[2, :4].all()
    assert drawn.sum(1).tolist() == [3, 3, 4]
    config = BoxHeadConfig(class_agnostic=True, classification=CONFIGS["federated"])
    logits, boxes = torch.randn(3, 4, 6), torch.rand(3, 4, 4)
    samples = Samples(
        index=torch.zeros(3, 4, dtype=torch.int64), boxes=boxes, truth_boxes=boxes, labels=labels, max_positives=4,
        truth_index=torch.zeros(3, 4, dtype=torch.int64), positive=labels < 5, valid=torch.ones(3, 4, dtype=torch.bool),
    )  # fmt: skip
    keys = torch.rand(3, 5)
    part = BatchPart(draw=lambda shape, device: keys)
    found, _ = box_losses(logits, torch.zeros(3, 4, 4), samples, config, BoxCoder(config.coding), part, COUNTS)
    # detectron2's sigmoid_cross_entropy_loss: all classes but background, weighed by 0 or 1, by the number of boxes.
    expected = torch.zeros(())
    for image, chosen in enumerate(federated_classes(labels, 3, COUNTS.images, part)):
        target = F.one_hot(labels[image], 6)[:, :5].float()
        loss = F.binary_cross_entropy_with_logits(logits[image][:, :5], target, reduction="none")
        expected = expected + (loss * chosen.float()).sum() / 12
    torch.testing.assert_close(found, expected)


def test_other_classes_are_drawn_by_the_root_of_their_images():
    """Without replacement: the first of the drawn has probability w / sum(w)."""
    labels = torch.full((20_000, 1), 4)
    drawn = federated_classes(labels, 1, torch.tensor([400.0, 100, 25, 0]))
    shares = drawn.float().mean(0)
    torch.testing.assert_close(shares, torch.tensor([20.0, 10, 5, 0]) / 35, atol=0.015, rtol=0)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_loss_trains_a_head_whose_probabilities_are_its_own(name):
    torch.manual_seed(0)
    counts = {"object_counts": (40, 20, 8, 4, 2), "image_counts": (30, 15, 8, 4, 2)}
    config = BoxHeadConfig(channels=16, class_agnostic=True, classification=replace(CONFIGS[name], **counts))
    head = BoxHead(4, 5, config)
    assert not [key for key in head.state_dict() if key.startswith("counts")]
    pooled, labels = torch.randn(6, 4, 7, 7).repeat(4, 1, 1, 1), torch.arange(6).repeat(4)
    boxes = torch.rand(2, 12, 4)
    samples = Samples(
        index=torch.zeros(2, 12, dtype=torch.int64), boxes=boxes, truth_boxes=boxes, labels=labels.view(2, 12),
        truth_index=torch.zeros(2, 12, dtype=torch.int64), positive=labels.view(2, 12) < 5,
        valid=torch.ones(2, 12, dtype=torch.bool), max_positives=12,
    )  # fmt: skip
    optimizer = torch.optim.Adam(head.parameters(), 0.01)
    for _ in range(60):
        logits, deltas = (out.view(2, 12, -1) for out in head(pooled))
        loss = head.box_losses(logits, deltas, samples)["loss_cls"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    probabilities = class_probabilities(head(pooled)[0], config.classification)
    assert probabilities.shape == (24, 6)
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    objects = labels < 5
    assert (probabilities[objects, :5].argmax(1) == labels[objects]).float().mean() > 0.9
    assert probabilities[~objects, :5].max() < 0.5


def test_sigmoid_heads_begin_at_a_probability_of_a_hundredth():
    head = BoxHead(4, 3, BoxHeadConfig(channels=16, classification=CONFIGS["focal"]))
    nn.init.zeros_(head.cls_score.weight)
    logits, _ = head(torch.randn(2, 4, 7, 7))
    torch.testing.assert_close(logits.sigmoid(), torch.full((2, 4), 0.01))


def test_what_a_loss_needs_is_said():
    logits, labels = logits_and_labels()
    with pytest.raises(ValueError, match="object_counts and image_counts must hold numbers"):
        class_losses(logits, labels, CONFIGS["seesaw"])
    config = BoxHeadConfig(classification=replace(CONFIGS["seesaw"], object_counts=(1, 2, 3), image_counts=(1, 2)))
    with pytest.raises(ValueError, match=r"classification.image_counts must be 3 numbers, one for each class, got 2"):
        BoxHead(4, 3, config)
    for wrong in ({"kind": "hinge"}, {"class_balance": 1.0}, {"federated": 5}):
        with pytest.raises(ValueError, match=r"classification\.\w+ must be"):
            ClassificationConfig(**wrong)
    for wrong in ({"nms": "fast"}, {"box_loss": "iou"}, {"soft_nms_sigma": 0}):
        with pytest.raises(ValueError, match=r"box\.\w+ must be"):
            BoxHeadConfig(**wrong)
    with pytest.raises(ValueError, match=r"rpn\.box_loss must be"):
        RPNConfig(box_loss="iou")


def bodla(boxes, scores, *, linear, threshold, sigma, least, count):
    """Soft-NMS as its paper's pseudo-code has it, on lists."""
    left, kept = list(enumerate(scores.tolist())), []
    while left and len(kept) < count:
        best = max(range(len(left)), key=lambda n: left[n][1])
        index, score = left.pop(best)
        if score <= least:
            break
        kept.append((index, score))
        ious = torchvision.ops.box_iou(boxes[index][None], boxes)[0].tolist()
        for n, (other, old) in enumerate(left):
            iou = ious[other]
            factor = (1 - iou if iou > threshold else 1) if linear else math.exp(-(iou**2) / sigma)
            left[n] = (other, old * factor)
    return kept


@pytest.mark.parametrize("decay", ["linear", "gaussian"])
def test_soft_nms_is_the_papers(decay):
    corners = torch.rand(2, 60, 4) * 40
    boxes = torch.cat((corners[..., :2], corners[..., :2] + corners[..., 2:] + 5), -1)
    scores, groups = torch.rand(2, 60), torch.zeros(2, 60, dtype=torch.int64)
    valid = torch.rand(2, 60) < 0.9
    options = {"decay": decay, "iou_threshold": 0.3, "sigma": 0.5, "score_threshold": 0.05, "max_output": 40}
    indices, found, kept = soft_nms(boxes, scores, groups, valid=valid, **options)
    for image in range(2):
        rows = valid[image].nonzero()[:, 0]
        options_of = {"linear": decay == "linear", "threshold": 0.3, "sigma": 0.5, "least": 0.05, "count": 40}
        expected = bodla(boxes[image][rows], scores[image][rows], **options_of)
        assert indices[image][kept[image]].tolist() == [int(rows[index]) for index, _ in expected]
        torch.testing.assert_close(found[image][kept[image]], torch.tensor([score for _, score in expected]))
    assert (found[:, 1:] <= found[:, :-1] + 1e-6).all()


def test_detections_are_chosen_softly_and_across_classes():
    """Two boxes of IoU 0.6 and different classes, and a third of the first's class."""
    boxes = torch.tensor([[[0.0, 0, 40, 40], [10, 0, 50, 40], [4, 0, 44, 40]]])
    probabilities = torch.tensor([[[0.9, 0.0, 0.1], [0.0, 0.8, 0.2], [0.7, 0.0, 0.3]]])
    deltas, valid, sizes = torch.zeros(1, 3, 4), torch.ones(1, 3, dtype=torch.bool), torch.tensor([[100, 100]])

    def scores(**options):
        config = BoxHeadConfig(class_agnostic=True, **options)
        found = select_detections(probabilities, deltas, boxes, valid, sizes, config, BoxCoder(config.coding))
        return [round(score, 4) for score in found["scores"][found["valid"]].tolist()]

    iou = 36 / 44
    assert scores() == [0.9, 0.8]
    assert scores(nms_across_classes=True) == [0.9]
    assert scores(nms="linear") == [0.9, 0.8, round(0.7 * (1 - iou), 4)]
    assert scores(nms="gaussian", soft_nms_sigma=0.3) == [0.9, 0.8, round(0.7 * math.exp(-(iou**2) / 0.3), 4)]
