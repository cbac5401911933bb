"""RetinaNet and FCOS: parts against plain formulations, image by image and object by object."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image

from det_heads import (
    AnchorConfig,
    Anchors,
    BatchPart,
    BoxCoder,
    DenseOutputs,
    DistanceCoder,
    GroundTruth,
    IoUAssignment,
    LocationAssignment,
    LocationConfig,
    OneStageConfig,
    label_all,
    select_dense,
)
from det_heads.one_stage.losses import centerness_targets, dense_losses

STRIDES, IMAGE, LARGER = (8, 16, 32), (64, 96), (96, 160)
SQUARES = AnchorConfig(sizes=((8.0,), (16.0,), (32.0,)), ratios=(1.0,))
RETINANET = OneStageConfig(
    num_classes=3, anchors=AnchorConfig(sizes=((16.0,), (32.0,), (64.0,))), candidates=40, max_detections=15
)
FCOS = replace(RETINANET, anchors=SQUARES, locations=LocationConfig(), box_loss="giou", score_threshold=0.2)
CONFIGS = {"retinanet": RETINANET, "retinanet, giou": replace(RETINANET, box_loss="giou", clip="before"), "fcos": FCOS}


def grids(image: tuple[int, int]) -> list[tuple[int, int]]:
    return [(image[0] // stride, image[1] // stride) for stride in STRIDES]


def anchors_of(config: OneStageConfig, image: tuple[int, int] = IMAGE) -> Tensor:
    return Anchors(config.anchors, STRIDES)(grids(image), image)


def coder_of(config: OneStageConfig) -> BoxCoder | DistanceCoder:
    return BoxCoder(config.coding) if config.locations is None else DistanceCoder()


def outputs_of(config: OneStageConfig) -> DenseOutputs:
    cells, fcos = config.anchors.per_cell, config.locations is not None
    return DenseOutputs(
        [torch.randn(2, cells * 3, *grid) * 2 for grid in grids(IMAGE)],
        [torch.randn(2, cells * 4, *grid) * (2 if fcos else 0.4) for grid in grids(IMAGE)],
        [torch.randn(2, cells, *grid) for grid in grids(IMAGE)] if fcos else [],
    )


def truth() -> GroundTruth:
    boxes = torch.tensor(
        [[[4.0, 6, 40, 50], [20, 10, 34, 26], [50, 8, 90, 60]], [[0, 0, 96, 64], [70, 40, 80, 52], [0, 0, 0, 0]]]
    )
    usable = torch.tensor([[True, True, True], [True, True, False]])
    return GroundTruth(boxes, torch.tensor([[0, 2, 1], [1, 0, 0]]), usable)


def samples_of(config: OneStageConfig):
    objects, anchors = truth(), anchors_of(config)
    assign = IoUAssignment(config)
    if config.locations is not None:
        assign = LocationAssignment(config.locations, 8.0, 32.0)
    return label_all(anchors.expand(2, -1, -1), assign(anchors, objects), objects, num_classes=3)


def test_distances_there_and_back():
    squares = torch.tensor([[0.0, 0, 8, 8], [16, 8, 32, 24]])
    boxes = torch.tensor([[1.0, 2, 20, 12], [20, 10, 60, 17]])
    coder = DistanceCoder()
    distances = coder.encode(boxes, squares)
    assert distances.tolist() == [[3 / 8, 2 / 8, 2, 1], [4 / 16, 6 / 16, 36 / 16, 1 / 16]]
    assert torch.equal(coder.decode(distances, squares), boxes)
    assert coder.decode(torch.tensor([-1.0, 1, -2, 0]), squares[0]).tolist() == [4, -4, 4, 4]


def test_cells_stand_for_the_smallest_object_whose_middle_and_size_fit():
    objects, anchors = truth(), anchors_of(FCOS)
    matches = LocationAssignment(LocationConfig(), 8.0, 32.0)(anchors, objects)
    assert 5 < int((matches.label == 1).sum()) < matches.label.numel() // 4
    for image in range(2):
        for number, square in enumerate(anchors.tolist()):
            x, y, stride = (square[0] + square[2]) / 2, (square[1] + square[3]) / 2, square[2] - square[0]
            least, most = (0 if stride == 8 else 4 * stride), (torch.inf if stride == 32 else 8 * stride)
            fitting = []
            for slot, (x1, y1, x2, y2) in enumerate(objects.boxes[image].tolist()):
                sides = (x - x1, y - y1, x2 - x, y2 - y)
                middle = max(abs(x - (x1 + x2) / 2), abs(y - (y1 + y2) / 2)) < 1.5 * stride
                if objects.usable[image, slot] and middle and min(sides) > 0 and least < max(sides) < most:
                    fitting.append(((x2 - x1) * (y2 - y1), slot))
            assert matches.label[image, number] == bool(fitting)
            if fitting:
                assert matches.truth_index[image, number] == min(fitting)[1]


def test_centredness():
    samples = samples_of(FCOS)
    target = centerness_targets(samples, DistanceCoder())
    assert torch.equal(target > 0, samples.positive)
    image, number = samples.positive.nonzero()[0].tolist()
    x1, y1, x2, y2 = samples.truth_boxes[image, number].tolist()
    square = samples.boxes[image, number].tolist()
    x, y = (square[0] + square[2]) / 2, (square[1] + square[3]) / 2
    expected = min(x - x1, x2 - x) / max(x - x1, x2 - x) * min(y - y1, y2 - y) / max(y - y1, y2 - y)
    assert target[image, number].item() == pytest.approx(expected**0.5, rel=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_detections_beside_a_dynamic_formulation(name):
    config, outputs = CONFIGS[name], outputs_of(CONFIGS[name])
    sizes = torch.tensor([IMAGE, (50, 70)])
    found = select_dense(outputs, anchors_of(config), sizes, config, coder_of(config))
    for image, (height, width) in enumerate(sizes.tolist()):
        parts, start = [], 0
        for level, (logits, deltas) in enumerate(zip(outputs.logits, outputs.deltas, strict=True)):
            scores = logits[image].permute(1, 2, 0).reshape(-1, 3).sigmoid()
            if outputs.centerness:
                scores = (scores * outputs.centerness[level][image].permute(1, 2, 0).reshape(-1, 1).sigmoid()).sqrt()
            deltas = deltas[image].permute(1, 2, 0).reshape(-1, 4)
            row, label = (scores > config.score_threshold).nonzero(as_tuple=True)
            best = scores[row, label].sort(descending=True, stable=True).indices[: config.candidates]
            row, label = row[best], label[best]
            boxes = coder_of(config).decode(deltas[row], anchors_of(config)[row + start])
            parts.append((boxes, scores[row, label], label))
            start += len(scores)
        boxes, scores, labels = (torch.cat(part) for part in zip(*parts, strict=True))
        if config.clip == "before":
            boxes = clip_boxes_to_image(boxes, (height, width))
        kept = batched_nms(boxes, scores, labels, config.nms_threshold)[: config.max_detections]
        valid = found["valid"][image]
        assert valid.sum() == len(kept) > 5
        torch.testing.assert_close(found["scores"][image][valid], scores[kept])
        torch.testing.assert_close(found["boxes"][image][valid], clip_boxes_to_image(boxes[kept], (height, width)))
        assert torch.equal(found["labels"][image][valid], labels[kept])
        assert not found["boxes"][image][~valid].any()


@pytest.mark.parametrize("name", CONFIGS)
def test_cells_that_see_padding_change_no_detection(name):
    config, outputs = CONFIGS[name], outputs_of(CONFIGS[name])
    sizes = torch.tensor([IMAGE, (50, 70)])

    def padded(maps, value):
        larger = []
        for part, (height, width) in zip(maps, grids(LARGER), strict=True):
            whole = part.new_full((*part.shape[:2], height, width), value)
            whole[:, :, : part.shape[2], : part.shape[3]] = part
            larger.append(whole)
        return larger

    values = (-100.0, torch.nan, 0.0)
    wide = DenseOutputs(*(padded(maps, value) if maps else [] for maps, value in zip(outputs, values, strict=True)))
    plain = select_dense(outputs, anchors_of(config), sizes, config, coder_of(config))
    other = select_dense(wide, anchors_of(config, LARGER), sizes, config, coder_of(config))
    assert all(torch.equal(plain[key], other[key]) for key in plain)


@pytest.mark.parametrize("name", CONFIGS)
def test_losses_anchor_by_anchor(name):
    config, outputs, samples = CONFIGS[name], outputs_of(CONFIGS[name]), samples_of(CONFIGS[name])
    losses = dense_losses(outputs, samples, config, coder_of(config))
    positives = int(samples.positive.sum())
    assert positives > 5
    logits = torch.cat([part.permute(0, 2, 3, 1).reshape(2, -1, 3) for part in outputs.logits], 1)
    expected = 0.0
    for image in range(2):
        for number in range(logits.shape[1]):
            if not samples.valid[image, number]:
                continue
            for label, logit in enumerate(logits[image, number]):
                own = samples.labels[image, number] == label
                p = logit.sigmoid() if own else 1 - logit.sigmoid()
                expected += (0.25 if own else 0.75) * (1 - p) ** 2 * -p.log()
    torch.testing.assert_close(losses["loss_cls"], expected / positives, rtol=1e-4, atol=0)
    assert losses.keys() == {"loss_cls", "loss_box", *(["loss_centerness"] if name == "fcos" else [])}
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())


@pytest.mark.parametrize("normalizer", ["batch", "image"])
@pytest.mark.parametrize("name", CONFIGS)
def test_losses_of_parts_have_those_of_the_batch_as_their_mean(name, normalizer):
    config = replace(CONFIGS[name], normalizer=normalizer)
    outputs, samples = outputs_of(config), samples_of(config)
    whole = dense_losses(outputs, samples, config, coder_of(config))
    counts = samples.positive.sum(1).double()
    parts = []
    for index in range(2):
        rows = slice(index, index + 1)
        some = samples._replace(
            **{key: getattr(samples, key)[rows] for key in samples._fields if key != "max_positives"}
        )
        seen = DenseOutputs(*([part[rows] for part in maps] for maps in outputs))
        part = BatchPart(index, 2, lambda number: counts.mean())
        parts.append(dense_losses(seen, some, config, coder_of(config), part))
    for key, loss in whole.items():
        torch.testing.assert_close(sum(part[key] for part in parts) / 2, loss, rtol=1e-5, atol=0, check_dtype=False)


def test_a_batch_without_objects_has_losses_and_no_gradient_of_boxes():
    for config in (RETINANET, FCOS):
        empty = truth()._replace(usable=torch.zeros(2, 3, dtype=torch.bool))
        anchors = anchors_of(config)
        assign = IoUAssignment(config) if config.locations is None else LocationAssignment(config.locations, 8.0, 32.0)
        samples = label_all(anchors.expand(2, -1, -1), assign(anchors, empty), empty, num_classes=3)
        assert samples.valid.all()
        assert not samples.positive.any()
        losses = dense_losses(outputs_of(config), samples, config, coder_of(config))
        assert losses["loss_cls"] > 0
        assert all(loss == 0 for name, loss in losses.items() if name != "loss_cls")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"locations": LocationConfig()}, "anchors must be one square per cell with locations"),
        ({"anchors": SQUARES, "locations": LocationConfig()}, "box_loss must be an overlap with locations"),
        ({"norm": "bn"}, "norm must be gn or None"),
        ({"negative_iou": 0.6}, "negative_iou must be at most positive_iou"),
        ({"box_loss": "l2"}, "box_loss must be smooth_l1"),
    ],
)
def test_what_makes_no_sense_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        replace(RETINANET, **changed)
