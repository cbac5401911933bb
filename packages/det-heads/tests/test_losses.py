"""Losses of padded samples against the dynamic formulation on the samples alone."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from det_heads import BoxCoder, BoxHeadConfig, RPNConfig, Samples, box_losses, mask_loss, rpn_losses
from det_ops import encode_boxes

CLASSES = 5


def make_samples(positives, negatives, slots=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(2, slots, 2, generator=generator) * 50
    boxes = torch.cat([corner, corner + 10 + torch.rand(2, slots, 2, generator=generator) * 30], -1)
    slot = torch.arange(slots).expand(2, slots)
    positive, valid = slot < positives, slot < positives + negatives
    boxes = torch.where(valid[..., None], boxes, 0.0)
    truth = torch.where(positive[..., None], boxes + torch.rand(2, slots, 4, generator=generator) * 4, 0.0)
    labels = torch.where(positive, torch.randint(0, CLASSES, (2, slots), generator=generator), CLASSES)
    return Samples(slot, boxes, truth, torch.zeros_like(slot), labels, positive, valid, slots)


def dynamic_regression(deltas, samples, weights, beta, offset):
    positive = samples.positive
    targets = encode_boxes(samples.truth_boxes[positive], samples.boxes[positive], weights, offset=offset)
    return F.smooth_l1_loss(deltas[positive], targets, reduction="sum", beta=beta)


@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize(("normalizer", "beta"), [("configured", 0.0), ("sampled", 1 / 9)])
@pytest.mark.parametrize(("positives", "negatives"), [(3, 6), (0, 7), (12, 0)])
def test_rpn_losses(positives, negatives, normalizer, beta, offset):
    samples = make_samples(positives, negatives)
    config = RPNConfig(normalizer=normalizer, beta=beta, samples=32)
    logits, deltas = torch.randn(2, 12), torch.randn(2, 12, 4)
    objectness, regression = rpn_losses(logits, deltas, samples, config, BoxCoder(config.coding, offset))
    count = 64 if normalizer == "configured" else 2 * (positives + negatives)
    expected = F.binary_cross_entropy_with_logits(
        logits[samples.valid], samples.positive[samples.valid].float(), reduction="sum"
    )
    torch.testing.assert_close(objectness, expected / count)
    expected = dynamic_regression(deltas, samples, config.coding.weights, beta, offset) / count
    torch.testing.assert_close(regression, expected)


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("positives", "negatives"), [(3, 6), (0, 7), (12, 0)])
def test_box_losses(positives, negatives, smoothing, agnostic):
    samples = make_samples(positives, negatives)
    config = BoxHeadConfig(beta=1 / 9, label_smoothing=smoothing, class_agnostic=agnostic)
    logits = torch.randn(2, 12, CLASSES + 1)
    deltas = torch.randn(2, 12, 4 if agnostic else 4 * CLASSES)
    classification, regression = box_losses(logits, deltas, samples, config, BoxCoder(config.coding))
    expected = F.cross_entropy(logits[samples.valid], samples.labels[samples.valid], label_smoothing=smoothing)
    torch.testing.assert_close(classification, expected)
    own = deltas
    if not agnostic:
        column = 4 * samples.labels.clamp(max=CLASSES - 1)[..., None] + torch.arange(4)
        own = deltas.gather(2, column)
    expected = dynamic_regression(own, samples, config.coding.weights, 1 / 9, 0.0)
    torch.testing.assert_close(regression, expected / (2 * (positives + negatives)))


def test_label_smoothing_by_hand():
    samples = make_samples(0, 1, slots=1)
    logits = torch.tensor([[[1.0, 2.0, 3.0]], [[1.0, 2.0, 3.0]]])
    samples = samples._replace(labels=torch.full((2, 1), 2))
    deltas = torch.zeros(2, 1, 8)
    config = BoxHeadConfig(label_smoothing=0.3)
    log_probabilities = logits[0, 0].log_softmax(0)
    expected = -(0.8 * log_probabilities[2] + 0.1 * log_probabilities[0] + 0.1 * log_probabilities[1])
    torch.testing.assert_close(box_losses(logits, deltas, samples, config, BoxCoder(config.coding))[0], expected)
    hard = box_losses(logits, deltas, samples, replace(config, label_smoothing=0.0), BoxCoder(config.coding))[0]
    torch.testing.assert_close(hard, -log_probabilities[2])


def test_padding_gives_no_loss_and_no_gradient():
    samples = make_samples(2, 3)
    logits = torch.randn(2, 12, CLASSES + 1, requires_grad=True)
    deltas = torch.randn(2, 12, 4 * CLASSES, requires_grad=True)
    sum(box_losses(logits, deltas, samples, BoxHeadConfig(), BoxCoder(BoxHeadConfig().coding))).backward()
    assert (logits.grad[~samples.valid] == 0).all()
    assert (logits.grad[samples.valid] != 0).any(-1).all()
    assert (deltas.grad[~samples.positive] == 0).all()
    assert deltas.grad.isfinite().all()


def test_nothing_at_all_is_zero_with_zero_gradients():
    samples = make_samples(0, 0)
    logits = torch.randn(2, 12, CLASSES + 1, requires_grad=True)
    deltas = torch.randn(2, 12, 4 * CLASSES, requires_grad=True)
    losses = box_losses(logits, deltas, samples, BoxHeadConfig(), BoxCoder(BoxHeadConfig().coding))
    assert [loss.item() for loss in losses] == [0.0, 0.0]
    sum(losses).backward()
    assert (logits.grad == 0).all()
    assert (deltas.grad == 0).all()


def test_mask_loss_is_the_mean_over_pixels_of_used_rows():
    logits, targets = torch.randn(6, 4, 4), torch.rand(6, 4, 4)
    used = torch.tensor([True, True, True, False, False, False])
    expected = F.binary_cross_entropy_with_logits(logits[:3], targets[:3])
    torch.testing.assert_close(mask_loss(logits, targets, used), expected)
    assert mask_loss(logits, targets, used & False) == 0


def test_losses_are_float32_for_half_inputs():
    samples = make_samples(3, 6)
    losses = box_losses(
        torch.randn(2, 12, CLASSES + 1).bfloat16(),
        torch.randn(2, 12, 4 * CLASSES).bfloat16(),
        samples,
        BoxHeadConfig(),
        BoxCoder(BoxHeadConfig().coding),
    )
    assert {loss.dtype for loss in losses} == {torch.float32}
