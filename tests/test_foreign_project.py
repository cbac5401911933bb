"""Our operators in a model that is not ours: torchvision's Mask R-CNN trains and predicts as with its own."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN, _utils
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import boxes as box_operators

import det_ops
from testing import ROOT
from testing.operators import Recorder
from testing.readmes import python_blocks

STRIDES = (4, 8, 16, 32)


class Pool(nn.Module):
    """In place of `MultiScaleRoIAlign`: all levels in one call."""

    def __init__(self, output_size: int) -> None:
        super().__init__()
        self.output_size = (output_size, output_size)  # MaskRCNN reads it

    def forward(self, features: dict[str, Tensor], boxes: list[Tensor], _image_sizes: list[tuple[int, int]]) -> Tensor:
        image = torch.repeat_interleave(torch.arange(len(boxes)), torch.tensor([len(part) for part in boxes]))
        flat = torch.cat(boxes)
        levels = det_ops.fpn_levels(flat, epsilon=1e-6, epsilon_inside_log=False)
        maps = [features[str(level)] for level in range(len(STRIDES))]
        return det_ops.multilevel_roi_align(
            maps,
            flat,
            image,
            levels,
            output_size=self.output_size,
            scales=[1 / stride for stride in STRIDES],
            sampling_ratio=2,
            aligned=False,
        )


class Matcher(_utils.Matcher):
    """Takes boxes in place of the matrix of their IoUs."""

    def __call__(self, truth_and_anchors: tuple[Tensor, Tensor]) -> Tensor:
        truth, anchors = truth_and_anchors
        index, label = det_ops.match(
            anchors,
            truth[None],
            torch.ones(1, len(truth), dtype=torch.bool),
            high=self.high_threshold,
            low=self.low_threshold,
            allow_low_quality=self.allow_low_quality_matches,
        )
        unmatched = torch.where(label == 0, self.BELOW_LOW_THRESHOLD, self.BETWEEN_THRESHOLDS)
        return torch.where(label == 1, index, unmatched)[0]


class BoxCoder(_utils.BoxCoder):
    def encode_single(self, reference_boxes: Tensor, proposals: Tensor) -> Tensor:
        return det_ops.encode_boxes(reference_boxes, proposals, self.weights)

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        deltas = rel_codes.unflatten(1, (-1, 4))
        decoded = det_ops.decode_boxes(deltas, boxes[:, None], self.weights, max_log_scale=self.bbox_xform_clip)
        return decoded.flatten(1)


def build() -> MaskRCNN:
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Conv2d(3, 16, 4, stride=4), nn.ReLU())]
    layers += [nn.Sequential(nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.ReLU()) for _ in STRIDES[1:]]
    names = {str(level): str(level) for level in range(len(STRIDES))}
    model = MaskRCNN(
        BackboneWithFPN(nn.Sequential(*layers), names, [16] * len(STRIDES), out_channels=16),
        box_head=TwoMLPHead(16 * 7 * 7, 64),
        box_predictor=FastRCNNPredictor(64, 4),
        min_size=96,
        max_size=128,
        rpn_anchor_generator=AnchorGenerator(tuple((4 * s,) for s in (*STRIDES, 64)), ((0.5, 1.0, 2.0),) * 5),
        rpn_pre_nms_top_n_train=300,
        rpn_post_nms_top_n_train=100,
        rpn_pre_nms_top_n_test=300,
        rpn_post_nms_top_n_test=60,
        box_score_thresh=0.0,
        box_detections_per_img=30,
        box_batch_size_per_image=64,
        mask_head=MaskRCNNHeads(16, (16,), dilation=1),
        mask_predictor=MaskRCNNPredictor(16, 16, 4),
    )
    for part in (model.rpn.head, model.roi_heads.box_predictor):
        for parameter in part.parameters():  # spread the scores, so that none are nearly equal
            nn.init.normal_(parameter, std=0.3)
    return model


def with_our_modules(model: MaskRCNN) -> MaskRCNN:
    """What the read-me leaves out: matching, box coding, and the levels of the pyramid in one call."""
    model.roi_heads.box_roi_pool, model.roi_heads.mask_roi_pool = Pool(7), Pool(14)
    for part in (model.rpn, model.roi_heads):
        theirs = part.proposal_matcher
        part.proposal_matcher = Matcher(
            theirs.high_threshold, theirs.low_threshold, allow_low_quality_matches=theirs.allow_low_quality_matches
        )
        part.box_coder = BoxCoder(part.box_coder.weights, part.box_coder.bbox_xform_clip)
    model.rpn.box_similarity = box_operators.box_iou = lambda truth, anchors: (truth, anchors)
    return model


def images_and_truth() -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    generator = torch.Generator().manual_seed(1)
    images, truth = [], []
    for height, width, count in ((96, 120, 3), (110, 90, 2)):
        corner = torch.rand(count, 2, generator=generator) * 50
        boxes = torch.cat((corner, corner + 12 + torch.rand(count, 2, generator=generator) * 28), 1)
        y, x = torch.arange(height)[:, None], torch.arange(width)
        x1, y1, x2, _ = boxes.reshape(-1, 4, 1, 1).unbind(1)
        masks = ((x >= x1) & (x < x2) & (y >= y1) & (y - y1 < x2 - x)).to(torch.uint8)
        labels = torch.randint(1, 4, (count,), generator=generator)
        images.append(torch.rand(3, height, width, generator=generator))
        truth.append({"boxes": boxes, "labels": labels, "masks": masks})
    return images, truth


def train_and_predict(model: MaskRCNN) -> tuple[dict[str, Tensor], dict[str, Tensor], list[dict[str, Tensor]]]:
    """Losses, gradients and predictions."""
    images, truth = images_and_truth()
    torch.manual_seed(2)
    losses = model.train()(images, truth)
    sum(losses.values()).backward()
    gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    with torch.no_grad():
        return losses, gradients, model.eval()(images)


@pytest.fixture(scope="module")
def expected() -> tuple[dict[str, Tensor], dict[str, Tensor], list[dict[str, Tensor]]]:
    return train_and_predict(build())


@pytest.mark.parametrize("complete", [lambda model: model, with_our_modules], ids=["readme", "everything"])
def test_torchvisions_mask_rcnn_gives_the_same_with_our_operators(
    complete: Callable[[MaskRCNN], MaskRCNN], expected: tuple, torchvision_is_restored: None
) -> None:
    (swap,) = (block for block in python_blocks(ROOT / "packages/det-ops/README.md") if "paste_masks" in block)
    exec(swap, {})
    with Recorder() as recorder:
        found = train_and_predict(complete(build()))
    names = {call.name for call in recorder.calls}

    assert "torchvision" not in {name.split("::")[0] for name in names}
    used = {"nms", "multilevel_roi_align", "multilevel_roi_align_backward", "paste_masks"}
    used |= {"match"} if complete is with_our_modules else set()
    assert {name for name in names if name.startswith("det_ops::")} == {f"det_ops::{name}" for name in used}
    assert all(len(prediction["boxes"]) > 20 for prediction in found[2])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
