"""Static selection of proposals against the dynamic formulation, written with torchvision's operators."""

from dataclasses import replace

import pytest
import torch
from torchvision.ops import box_iou, nms

from det_heads import Anchors, select_proposals
from det_models import maskrcnn_benchmark_config, torchvision_config
from det_ops import decode_boxes

STRIDES = (4, 8, 16, 32, 64)
GRIDS = [(24, 32), (12, 16), (6, 8), (3, 4), (2, 2)]
SIZES = torch.tensor([[96, 128], [80, 100]])


def outputs(config, seed=0, spread=3.0):
    generator = torch.Generator().manual_seed(seed)
    logits = [torch.randn(2, 3, *g, generator=generator) * spread for g in GRIDS]
    deltas = [torch.randn(2, 12, *g, generator=generator) * 0.5 for g in GRIDS]
    return logits, deltas, Anchors(config.rpn.anchors, STRIDES)(GRIDS, (96, 128))


def legacy_nms(boxes, scores, threshold):
    """Greedy NMS with inclusive widths."""
    wide = boxes + torch.tensor([0.0, 0.0, 1.0, 1.0])
    keep = []
    for candidate in scores.argsort(descending=True, stable=True).tolist():
        if not keep or box_iou(wide[candidate][None], wide[keep]).max() <= threshold:
            keep.append(candidate)
    return torch.tensor(keep, dtype=torch.int64)


def dynamic_proposals(logits, deltas, anchors, sizes, config, training):
    """Lists of images and levels, boolean masks, results of any length."""
    rpn, offset = config.rpn, config.offset
    pre, post = (rpn.pre_nms_train, rpn.post_nms_train) if training else (rpn.pre_nms_test, rpn.post_nms_test)
    images = []
    for image, (height, width) in enumerate(sizes.tolist()):
        boxes, scores, start = [], [], 0
        for logit, delta in zip(logits, deltas, strict=True):
            count = logit[image].numel()
            score = logit[image].permute(1, 2, 0).flatten()
            score = score.sigmoid() if rpn.pre_nms_scores == "sigmoid" else score
            score, best = score.topk(min(pre, count))
            if rpn.nms_scores == "sigmoid" and rpn.pre_nms_scores == "logit":
                score = score.sigmoid()
            delta = delta[image].permute(1, 2, 0).reshape(-1, 4)[best]
            box = decode_boxes(delta, anchors[start : start + count][best], rpn.coding.weights, offset=offset)
            box = torch.stack(
                [box[:, 0].clamp(0, width - offset), box[:, 1].clamp(0, height - offset),
                 box[:, 2].clamp(0, width - offset), box[:, 3].clamp(0, height - offset)], 1
            )  # fmt: skip
            side = box[:, 2:] - box[:, :2] + offset
            large = (side >= rpn.min_size if rpn.min_size_inclusive else side > rpn.min_size).all(1)
            box, score = box[large], score[large]
            kept = (legacy_nms if offset else nms)(box, score, rpn.nms_threshold)
            boxes.append(box[kept])
            scores.append(score[kept])
            start += count
        images.append((torch.cat(boxes), torch.cat(scores)))
    if training and rpn.post_nms_train_scope == "batch":
        everything = torch.cat([s for _, s in images])
        limit = everything.sort(descending=True).values[min(post, len(everything)) - 1]
        images = [(b[s >= limit], s[s >= limit]) for b, s in images]
    else:
        images = [(b[s.argsort(descending=True)[:post]], s[s.argsort(descending=True)[:post]]) for b, s in images]
    return images


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("system", ["detectron2", "torchvision", "maskrcnn_benchmark"])
def test_equals_the_dynamic_formulation(make_config, system, training):
    config = make_config(system)
    logits, deltas, anchors = outputs(config)
    got = select_proposals(logits, deltas, anchors, SIZES, config.rpn, training=training, offset=config.offset)
    assert got.boxes.shape[1] == (config.rpn.post_nms_train if training else config.rpn.post_nms_test)
    expected = dynamic_proposals(logits, deltas, anchors, SIZES, config, training)
    for image, (boxes, scores) in enumerate(expected):
        order = scores.argsort(descending=True)
        valid = got.valid[image]
        torch.testing.assert_close(got.scores[image][valid], scores[order])
        torch.testing.assert_close(got.boxes[image][valid], boxes[order])
        assert (got.boxes[image][~valid] == 0).all()


def test_a_batch_wide_limit_may_leave_one_image_with_more():
    config = maskrcnn_benchmark_config(3)
    rpn = replace(config.rpn, post_nms_train=40)
    logits, deltas, anchors = outputs(config)
    logits = [torch.stack([m[0] + 9, m[1] - 9]) for m in logits]
    got = select_proposals(logits, deltas, anchors, SIZES, rpn, training=True, offset=1.0)
    assert got.valid.sum(1).tolist() == [40, 0]
    got = select_proposals(logits, deltas, anchors, SIZES, rpn, training=False, offset=1.0)
    assert got.valid.sum(1).min() > 40


def test_a_batch_wide_limit_grows_with_the_batch_where_it_says_for_how_many_images_it_is():
    config = maskrcnn_benchmark_config(3)
    logits, deltas, anchors = outputs(config)
    limited = replace(config.rpn, post_nms_train=40)
    for images, expected in ((2, 40), (1, 80), (4, 20)):
        rpn = replace(limited, post_nms_train_images=images)
        got = select_proposals(logits, deltas, anchors, SIZES, rpn, training=True, offset=1.0)
        assert got.valid.sum() == expected
        plain = replace(limited, post_nms_train=expected)
        same = select_proposals(logits, deltas, anchors, SIZES, plain, training=True, offset=1.0)
        assert torch.equal(got.boxes, same.boxes)


def test_every_proposal_remembers_its_level():
    config = torchvision_config(3)
    logits, deltas, anchors = outputs(config)
    logits[0] += 12.0
    got = select_proposals(logits, [d * 0 for d in deltas], anchors, SIZES, config.rpn, training=False)
    assert (got.levels[:, :5] == 0).all()


def test_values_that_are_not_finite_are_dropped(make_config):
    config = make_config("detectron2")
    logits, deltas, anchors = outputs(config)
    logits[0][0, 0, 0, 0] = torch.nan
    logits[1][0, 0, 0, 0] = torch.inf
    deltas[2][1, 0] = torch.nan
    got = select_proposals(logits, deltas, anchors, SIZES, config.rpn, training=True)
    assert got.boxes.isfinite().all()
    assert got.scores.isfinite().all()
    assert got.valid.any(1).all()


def test_half_precision_outputs_are_ranked_and_decoded_in_float32(make_config):
    config = make_config("detectron2")
    logits, deltas, anchors = outputs(config)
    logits, deltas = [m.bfloat16() for m in logits], [m.bfloat16() for m in deltas]
    got = select_proposals(logits, deltas, anchors, SIZES, config.rpn, training=False)
    full = select_proposals(
        [m.float() for m in logits], [m.float() for m in deltas], anchors, SIZES, config.rpn, training=False
    )
    assert got.boxes.dtype == torch.float32
    torch.testing.assert_close(got.scores, full.scores)
