"""The keypoint head beside torchvision's functions, on boxes that are not sampled and on padding."""

import pytest
import torch
from torchvision.models.detection.roi_heads import heatmaps_to_keypoints, keypointrcnn_loss

from det_heads import KeypointHead, KeypointHeadConfig, PoolConfig, Samples
from det_heads.keypoint_head import decode_heatmaps, keypoint_loss, keypoint_targets
from det_heads.postprocess import Original

CONFIG = KeypointHeadConfig(num_keypoints=3, convs=2, channels=8, pool=PoolConfig(size=4))


def make_boxes(count):
    corner = torch.rand(count, 2) * 30
    return torch.cat([corner, corner + 5 + torch.rand(count, 2) * 40], 1)


def make_keypoints(boxes):
    """Some in the box, some beside it, one on its far corner; visibility 0, 1 and 2."""
    place = torch.rand(len(boxes), 3, 2) * 1.4 - 0.2
    points = boxes[:, None, :2] + place * (boxes[:, 2:] - boxes[:, :2])[:, None]
    points[0, 0] = boxes[0, 2:]
    return torch.cat([points, torch.arange(3.0).expand(len(boxes), 3)[..., None]], -1)


def test_the_loss_is_torchvisions():
    boxes, logits = make_boxes(9), torch.randn(9, 3, 16, 16)
    points = make_keypoints(boxes)
    points[0, 0, 2] = 2
    cells, valid = keypoint_targets(points, boxes, 16)
    assert valid[0, 0]
    assert 0 < valid.sum() < valid.numel()
    expected = keypointrcnn_loss(logits, [boxes], [points], [torch.arange(9)])
    torch.testing.assert_close(keypoint_loss(logits, cells, valid), expected)
    assert keypoint_loss(logits, cells, valid & False) == 0


def test_a_box_without_width_has_no_keypoint():
    boxes = torch.tensor([[4.0, 4.0, 4.0, 9.0]])
    _, valid = keypoint_targets(torch.tensor([[[5.0, 5.0, 2.0]]]), boxes, 16)
    assert not valid.any()


def test_decoding_is_torchvisions():
    boxes, heatmaps = make_boxes(6), torch.randn(6, 3, 16, 16)
    points, scores = decode_heatmaps(heatmaps, boxes)
    expected, their_scores = heatmaps_to_keypoints(heatmaps, boxes)
    torch.testing.assert_close(points, expected)
    torch.testing.assert_close(scores, their_scores)


def pyramid():
    return [torch.randn(2, 4, 64 // 2**level, 64 // 2**level) for level in range(5)]


def make_samples(positives):
    """Six slots of each image, of which the first ones are positive."""
    boxes = make_boxes(12).view(2, 6, 4)
    positive = torch.arange(6).expand(2, 6) < positives
    zero = torch.zeros(2, 6, dtype=torch.int64)
    return Samples(zero, boxes, boxes, zero, zero, positive, torch.ones_like(positive), 4)


@pytest.mark.parametrize("positives", [3, 0])
def test_losses_of_a_batch(positives):
    head, samples, features = KeypointHead(4, CONFIG), make_samples(positives), pyramid()
    truth = make_keypoints(samples.boxes[:, 0])[:, None]  # [2, 1, 3, 3]
    loss = head.losses({"keypoints": truth}, features, samples)["loss_keypoint"]
    loss.backward()
    assert (loss > 0) == (positives > 0)
    assert all(p.grad is not None and bool((p.grad != 0).any()) == (positives > 0) for p in head.parameters())


def test_results_are_in_original_pixels():
    head, features = KeypointHead(4, CONFIG).eval(), pyramid()
    boxes = make_boxes(6).view(2, 3, 4)
    detections = {"boxes": boxes, "valid": torch.tensor([[True, True, False], [True, False, False]])}
    with torch.no_grad():
        heatmaps = head.detect(features, detections)["heatmaps"]
    assert heatmaps.shape == (2, 3, 3, 16, 16)
    found = {"heatmaps": heatmaps[0, :2], "boxes": boxes[0, :2]}
    got = head.to_image(found, boxes[0, :2] / 2, Original(100, 100, torch.tensor([2.0, 2.0])))
    points, scores = got["keypoints"], got["keypoint_scores"]
    assert points.shape == (2, 3, 3)
    assert scores.shape == (2, 3)
    inside = (points[..., :2] >= boxes[0, :2, None, :2] / 2) & (points[..., :2] <= boxes[0, :2, None, 2:] / 2)
    assert inside.all()


def test_a_batch_without_keypoints_is_told():
    with pytest.raises(ValueError, match="must have 3 keypoints of each object, got none"):
        KeypointHead(4, CONFIG).losses({}, pyramid(), make_samples(1))
    with pytest.raises(ValueError, match="got 17 of each object"):
        KeypointHead(4, CONFIG).losses({"keypoints": torch.zeros(2, 1, 17, 3)}, pyramid(), make_samples(1))
