"""YOLACT on a stand-in pyramid: what its parts promise, and the static contract."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import det_ops
from det_heads import (
    MaskIoUConfig,
    PriorConfig,
    Yolact,
    YolactConfig,
    YolactLossConfig,
    yolact_config,
    yolact_plus_config,
)
from det_heads.yolact.losses import classification_loss, sample_masks, semantic_loss
from det_heads.yolact.masks import inside_boxes
from det_heads.yolact.matching import PriorMatch, match_priors
from testing.operators import StaticRecorder, assert_equal_calls

SIDE, SLOTS = 64, 8


class Pyramid(nn.Module):
    """P3, ..., P7 of a 64 x 64 image at no cost."""

    out_channels = 8
    strides = (8, 16, 32, 64, 128)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, self.out_channels, 8, 8)

    def forward(self, x: Tensor) -> list[Tensor]:
        levels = [self.conv(x).relu()]
        while len(levels) < 5:
            levels.append(F.max_pool2d(levels[-1], 1, 2))
        return levels


def make_config(*, plus: bool = False) -> YolactConfig:
    sizes = tuple((4.0 * 2**level,) for level in range(5))
    return YolactConfig(
        num_classes=3,
        channels=8,
        prototypes=4,
        priors=PriorConfig(sizes=sizes),
        mask_iou=MaskIoUConfig(channels=(4, 4), min_area=1) if plus else None,
        loss=YolactLossConfig(masks=6),
        nms_top_k=20,
        max_detections=10,
    )


def make_batch(objects: tuple[int, int], crowds: int = 0, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(2, SLOTS, 2, generator=generator) * 30
    boxes = torch.cat((corners, corners + 5 + 25 * torch.rand(2, SLOTS, 2, generator=generator)), -1)
    slots = torch.arange(SLOTS)
    counts = torch.tensor(objects)[:, None]
    valid = slots < counts + crowds
    grid = torch.arange(SIDE) + 0.5
    columns = (grid > boxes[..., :1]) & (grid < boxes[..., 2:3])
    rows = (grid > boxes[..., 1:2]) & (grid < boxes[..., 3:4])
    return {
        "images": torch.randint(0, 256, (2, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8),
        "image_sizes": torch.full((2, 2), SIDE, dtype=torch.int32),
        "boxes": boxes * valid[..., None],
        "labels": torch.randint(0, 3, (2, SLOTS), generator=generator) * valid,
        "valid": valid,
        "crowd": valid & (slots >= counts),
        "mask_bitmaps": (rows[..., :, None] & columns[..., None, :] & valid[..., None, None]).byte(),
    }


def make_model(*, plus: bool = False) -> Yolact:
    torch.manual_seed(0)
    model = Yolact(Pyramid(), make_config(plus=plus))
    with torch.no_grad():
        model.head.classes.weight.mul_(20)
    return model


@pytest.mark.parametrize("plus", [False, True])
def test_no_positives_no_losses_and_no_gradient(plus):
    model = make_model(plus=plus).train()
    for batch in (make_batch((0, 0)), make_batch((0, 0), crowds=3)):
        losses = model(batch)
        assert len(losses) == 4 + plus
        assert all(loss.item() == 0 for loss in losses.values())
        sum(losses.values()).backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("plus", [False, True])
def test_every_parameter_learns(plus):
    model = make_model(plus=plus).train()
    losses = model(make_batch((3, 5), crowds=2))
    sum(losses.values()).backward()
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_losses_of_parts_are_those_of_the_batch():
    """Whether there is a positive, too, is a question to the whole batch: here the second part has none."""
    model, batch = make_model(plus=True).train(), make_batch((5, 0))
    keys = torch.rand(2, 10_000)
    model.random_keys = lambda shape, device: keys[: shape[0], : shape[1]]
    whole = model(batch)
    total = model.match(
        model.priors([(8, 8), (4, 4), (2, 2), (1, 1), (1, 1)], (SIDE, SIDE), torch.device("cpu")), batch
    )
    mean = total.positive.sum() / 2
    parts = []
    for image in range(2):
        part = model.batch_part(image, 2, lambda _: mean)
        parts.append(model({name: value[image : image + 1] for name, value in batch.items()}, part))
    assert parts[1]["loss_semantic"] > 0
    for name, loss in whole.items():
        torch.testing.assert_close((parts[0][name] + parts[1][name]) / 2, loss)


@pytest.mark.parametrize("kernels", ["auto", "reference"])
@pytest.mark.parametrize("plus", [False, True])
def test_operators_do_not_depend_on_the_data(plus, kernels):
    model, recorded = make_model(plus=plus), []
    with det_ops.kernels(kernels):
        model.train()(make_batch((1, 1)))  # priors are made once per shape
        for batch in (make_batch((0, 0), crowds=2), make_batch((7, 8), seed=1)):
            with StaticRecorder() as recorder:
                sum(model.train()(batch).values()).backward()
                with torch.no_grad():
                    model.eval()({key: batch[key] for key in ("images", "image_sizes")})
            model.zero_grad()
            recorded.append(recorder.calls)
    # The first image with gradients has nothing to add them to, so compare from a clean state: see zero_grad above.
    assert_equal_calls(*recorded, least=200)


@pytest.mark.parametrize("nms", ["fast", "cross_class", "traditional"])
def test_detections_have_the_configured_shapes(nms):
    model = make_model(plus=True).eval()
    model.config = replace(model.config, nms=nms)
    batch = make_batch((0, 0))
    with torch.no_grad():
        found = model(batch)
    count = 20 if nms == "cross_class" else 10
    assert found["valid"].any()
    assert found["masks"].shape == (2, count, 16, 16)
    assert found["mask_scores"].shape == found["scores"].shape == (2, count)
    images = model.to_image(found, torch.full((2, 2), 2.0), [(32, 32), (32, 30)])
    assert [mask["size"] for mask in images[1].masks] == [[32, 30]] * len(images[1].masks)
    assert all(len(image.mask_scores) == len(image.boxes) == len(image.masks) for image in images)


def test_each_object_has_a_prior_of_its_own():
    priors = torch.tensor([[0, 0, 0.2, 0.2], [0.5, 0.5, 0.9, 0.9], [0.1, 0.1, 0.3, 0.3]])
    boxes = torch.tensor([[[0, 0, 0.2, 0.19], [0, 0, 0.19, 0.2], [0, 0, 1, 1], [0.45, 0.45, 0.95, 0.95]]])
    valid = torch.tensor([[True, True, False, False]])
    crowd = torch.tensor([[False, False, False, False]])
    match = match_priors(priors, boxes, valid, crowd, YolactLossConfig())
    # Both have the first prior as their best; the first object takes it, the second has to take what is left.
    assert match.index.tolist() == [[0, 0, 1]]
    assert match.positive.tolist() == [[True, False, True]]
    crowded = match_priors(
        priors, boxes, torch.tensor([[True, False, False, True]]), torch.tensor([[False, False, False, True]]),
        YolactLossConfig(),
    )  # fmt: skip
    assert crowded.positive.tolist() == [[True, False, False]]
    assert crowded.negative.tolist() == [[False, False, True]]


def test_the_hardest_negatives_train_the_classifier():
    logits = torch.tensor([[[0.0, 9.0], [3.0, 0.0], [0.0, 4.0], [0.0, 1.0], [0.0, 9.0]]])
    positive = torch.tensor([[True, False, False, False, False]])
    neutral = torch.tensor([[False, False, False, False, True]])
    match = PriorMatch(torch.zeros(1, 5, dtype=torch.int64), positive, ~positive & ~neutral)
    loss = classification_loss(logits, torch.zeros(1, 1, dtype=torch.int64), match, 2)
    targets = torch.tensor([1, 0, 0])
    torch.testing.assert_close(loss, F.cross_entropy(logits[0, [0, 2, 3]], targets, reduction="sum"))


def test_positives_beyond_the_limit_weigh_more():
    positive = torch.tensor([[True] * 6 + [False] * 2, [True] + [False] * 7])
    match = PriorMatch(torch.zeros(2, 8, dtype=torch.int64), positive, ~positive)
    samples = sample_masks(match, torch.arange(8).expand(2, 8) / 8, 4)
    assert samples.prior[0].tolist() == [5, 4, 3, 2]
    assert samples.used.tolist() == [[True] * 4, [True] + [False] * 3]
    assert samples.weight.tolist() == [1.5, 1.0]


def test_semantic_targets_are_the_union_of_each_class():
    bitmaps = torch.zeros(1, 3, 2, 2)
    bitmaps[0, 0, 0], bitmaps[0, 1, :, 0], bitmaps[0, 2] = 1, 1, 1
    usable = torch.tensor([[True, True, False]])
    target = torch.zeros(1, 2, 2, 2)
    target[0, 1] = torch.tensor([[1, 1], [1, 0]])
    logits = torch.randn(1, 2, 2, 2)
    loss = semantic_loss(logits, bitmaps, torch.tensor([[1, 1, 0]]), usable)
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(logits, target, reduction="sum") / 4)


def test_crop_has_a_border_of_one_pixel():
    inside = inside_boxes(torch.tensor([0.25, 0.5, 0.5, 0.5]), (8, 8))
    assert inside.any(0).nonzero().flatten().tolist() == [1, 2, 3, 4]
    assert inside.any(1).nonzero().flatten().tolist() == [3, 4]


def test_presets():
    assert yolact_config().priors.per_cell == 3
    assert yolact_config(size=400).priors.sizes[0] == (17.0,)
    assert yolact_config(size=700).loss.masks == 300
    plus = yolact_plus_config(5)
    assert (plus.priors.per_cell, plus.priors.square, plus.num_classes) == (9, False, 5)


def test_configurations_are_checked():
    with pytest.raises(ValueError, match="nms must be"):
        YolactConfig(nms="soft")
    with pytest.raises(ValueError, match="negative_iou"):
        YolactLossConfig(negative_iou=0.6)
    with pytest.raises(ValueError, match="ratios"):
        PriorConfig(ratios=())
    with pytest.raises(ValueError, match="mask_bitmaps_16x16"):
        make_model().train()({k: v for k, v in make_batch((1, 1)).items() if k != "mask_bitmaps"})


def test_sizes_of_bitmaps():
    assert Yolact.bitmap_sizes(550, 550) == ((138, 138), (69, 69))
