"""Cascades: what one stage hands to the next, and what their configuration refuses."""

from dataclasses import replace

import pytest
import torch

from det_heads import CascadeConfig, truth_of
from det_ops import box_iou


def trained_on(model, batch):
    """Samples of every stage in training."""
    seen = []
    losses = model.box_losses

    def watched(logits, deltas, samples, config, part):
        seen.append(samples)
        return losses(logits, deltas, samples, config, part)

    model.box_losses = watched
    model(batch)
    return seen


def test_samples_stay_where_nothing_is_drawn_anew(make_config, make_detector, make_batch):
    """detectron2: the second stage has the boxes of the first one, moved, and labels of a larger IoU."""
    model = make_detector(make_config("detectron2_cascade")).train()
    batch = make_batch()
    first, second, third = trained_on(model, batch)
    truth = truth_of(batch, 0.0)
    for threshold, samples in zip(model.config.cascade.positive_ious, (first, second, third), strict=True):
        overlap = box_iou(samples.boxes, truth.boxes).masked_fill(~truth.usable[:, None], 0).amax(-1)
        assert torch.equal(samples.positive, samples.valid & (overlap >= threshold))
    assert first.boxes.shape == second.boxes.shape == third.boxes.shape
    assert (second.valid <= first.valid).all()


def test_samples_drawn_anew_hold_the_truth_and_no_copies_of_it(make_config, make_detector, make_batch):
    """mmdetection: every stage sees the true boxes, but not what the stage before it made of them."""
    model = make_detector(make_config("mmdetection_cascade")).train()
    batch = make_batch(objects=5)
    before = model.config.rpn.post_nms_train
    for samples in trained_on(model, batch):
        own = samples.valid & (samples.index >= before)
        assert (own.sum(1) == 5).all()
        found = box_iou(samples.boxes, batch["boxes"])[own]
        torch.testing.assert_close(found.amax(-1), torch.ones(10))
        before = samples.boxes.shape[1]


def test_what_a_class_scores_is_the_mean_of_the_stages(make_config, make_detector, make_batch):
    """With equal heads the mean is each one's own probability, be it of logits or of probabilities."""
    probabilities = []
    for scores in ("mean_probability", "mean_logit"):
        config = make_config("detectron2_cascade")
        weights = ((10.0, 10.0, 5.0, 5.0),) * 3
        config = replace(config, cascade=replace(config.cascade, scores=scores, coding_weights=weights))
        model = make_detector(config).eval()
        with torch.no_grad():
            for head in model.box_heads:
                head.load_state_dict(model.box_heads[0].state_dict())
                head.bbox_pred.weight.zero_()
                head.bbox_pred.bias.zero_()
            probabilities.append(model(make_batch())["scores"])
    assert probabilities[0].max() > 0
    torch.testing.assert_close(*probabilities)


def test_gradients_of_the_pyramid_are_scaled(make_config, make_detector, make_batch):
    """The box heads' own gradients are not, nor are those of masks and proposals."""
    gradients = []
    for scale in (1.0, 0.25):
        config = make_config("detectron2_cascade")
        model = make_detector(replace(config, cascade=replace(config.cascade, gradient_scale=scale))).train()
        model.random_keys = lambda shape, device: torch.linspace(0.9, 0, shape[1], device=device).expand(shape)
        losses = model(make_batch())
        sum(loss for name, loss in losses.items() if "stage" in name).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    whole, scaled = gradients
    for name, gradient in whole.items():
        factor = 0.25 if name.startswith("backbone.") else 1.0
        torch.testing.assert_close(scaled[name], gradient * factor, msg=name)
    assert any(name.startswith("backbone.") and (gradient != 0).any() for name, gradient in whole.items())


def test_what_does_not_go_together(make_config):
    with pytest.raises(ValueError, match="one without resample"):
        CascadeConfig(mask_heads="per_stage")
    with pytest.raises(ValueError, match="one entry for each of 2 stages"):
        CascadeConfig(positive_ious=(0.5, 0.6))
    config = make_config("detectron2_cascade")
    with pytest.raises(ValueError, match="class_agnostic"):
        replace(config, box=replace(config.box, class_agnostic=False))
