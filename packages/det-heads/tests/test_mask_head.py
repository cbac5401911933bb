from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from det_heads import MaskHead, MaskHeadConfig, PoolConfig, mask_targets

CLASSES = 5


def head(dtype=torch.float32):
    torch.manual_seed(0)
    made = MaskHead(8, CLASSES, MaskHeadConfig(channels=6, convs=2, pool=PoolConfig(size=7))).to(dtype)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


def all_classes(made, pooled):
    """The usual formulation: every class of every row."""
    for conv in made.convs:
        pooled = conv(pooled).relu()
    return made.predictor(F.relu(made.deconv(pooled)))


def test_names_and_shapes_of_parameters():
    shapes = {name: tuple(p.shape) for name, p in MaskHead(256, 80, MaskHeadConfig()).named_parameters()}
    assert shapes["convs.0.weight"] == shapes["convs.3.weight"] == (256, 256, 3, 3)
    assert shapes["deconv.weight"] == (256, 256, 2, 2)
    assert shapes["predictor.weight"] == (80, 256, 1, 1)


@pytest.mark.parametrize("count", [0, 3, 6])
def test_masks_and_gradients_of_the_own_class_equal_those_of_all_classes(count):
    made = head(torch.float64)
    pooled = torch.randn(6, 8, 7, 7, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 4, 4, 1, 2, 3])
    weight = torch.randn(6, 14, 14, dtype=torch.float64)
    weight[count:] = 0
    packed = made(pooled, labels, torch.tensor(count))
    dense = all_classes(made, pooled)[torch.arange(6), labels]
    torch.testing.assert_close(packed[:count], dense[:count])
    inputs = [pooled, *made.parameters()]
    gradients = torch.autograd.grad((packed * weight).sum(), inputs)
    expected = torch.autograd.grad((dense * weight).sum(), inputs)
    for ours, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_half_precision_under_autocast():
    made, pooled, labels = head(), torch.randn(4, 8, 7, 7), torch.tensor([0, 1, 2, 3])
    full = made(pooled, labels, torch.tensor(4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = made(pooled, labels, torch.tensor(4))
    torch.testing.assert_close(half.float(), full, rtol=0.05, atol=0.1)


@pytest.mark.parametrize("target", ["polygon", "polygon_legacy", "bitmap"])
def test_targets_of_the_objects_own_box_are_full(make_batch, target):
    batch = make_batch()
    config = MaskHeadConfig(target=target)
    images, instances = torch.tensor([0, 1, 1]), torch.tensor([0, 2, -1])
    boxes = batch["boxes"][images, instances]
    got = mask_targets(batch, boxes, images, instances, config)
    assert got.shape == (3, 28, 28)
    assert got[:2, 2:-2, 2:-2].min() == 1
    assert (got[2] == 0).all()
    # a box twice as wide to the right: the right half is empty
    wide = torch.cat([boxes[:, :2], boxes[:, 2:] + (boxes[:, 2:] - boxes[:, :2]) * torch.tensor([1.0, 0.0])], 1)
    got = mask_targets(batch, wide, images, instances, config)
    assert got[:2, 2:-2, 2:12].min() == 1
    assert got[:2, :, 17:].max() == 0


def test_bitmap_targets_keep_fractions_only_without_a_threshold(make_batch):
    batch = make_batch()
    config = MaskHeadConfig(target="bitmap", bitmap_threshold=None)
    where = torch.tensor([0]), torch.tensor([0])
    box = batch["boxes"][where] + torch.tensor([3.3, 3.3, 20.7, 20.7])
    soft = mask_targets(batch, box, *where, config)
    hard = mask_targets(batch, box, *where, replace(config, bitmap_threshold=0.5))
    assert set(hard.unique().tolist()) == {0.0, 1.0}
    assert len(soft.unique()) > 2


@pytest.mark.parametrize(("target", "missing"), [("polygon", "mask_edges"), ("bitmap", "mask_bitmaps")])
def test_a_batch_without_masks_is_refused(make_batch, target, missing):
    batch = make_batch()
    del batch[missing]
    index = torch.zeros(1, dtype=torch.int64)
    with pytest.raises(ValueError, match=missing):
        mask_targets(batch, torch.zeros(1, 4), index, index, MaskHeadConfig(target=target))
