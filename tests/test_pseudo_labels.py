"""Training on detections of a network: what is unsure is neither object nor background."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from apps.common.drafts import Drafts
from apps.mask_rcnn.config import tiny
from apps.retinanet.config import fcos_r50_fpn_1x
from apps.retinanet.config import tiny as retinanet_tiny
from det_coco import Augmentation, BatchShape, Resize, default_buckets, load_split, train_loader
from det_heads import IoUAssignment, LocationAssignment
from det_heads.matching import ground_truth, match
from det_models import Detections, DetectorConfig, build

SURE, UNSURE = [8.0, 8, 40, 40], [60.0, 20, 110, 70]
RESIZE = Resize(shortest=(96,), longest=128)


@pytest.fixture
def batch(tmp_path):
    """One picture with a sure and an unsure detection, and one below both thresholds, as a training reads them."""
    Image.new("RGB", (128, 96)).save(tmp_path / "field.png")
    found = Detections(
        boxes=np.array([SURE, UNSURE, [0, 80, 30, 95]], dtype=np.float32),
        scores=np.array([0.9, 0.5, 0.1], dtype=np.float32),
        labels=np.array([0, 0, 0]),
        categories={1: "cow"},
        category_ids=np.array([1, 1, 1]),
        size=(96, 128),
    )
    drafts = Drafts(min_score=0.7, unsure_score=0.3)
    drafts.add(1, tmp_path / "field.png", found)
    drafts.write(tmp_path / "out", "coco")
    shape = BatchShape(buckets=default_buckets(RESIZE), masks="none", max_instances=4)
    index = load_split(tmp_path / "out", "train")
    return next(
        iter(train_loader(index, augmentation=Augmentation(resize=RESIZE, flip=0.0), shape=shape, batch_size=1, seed=0))
    )


def test_the_batch_holds_both_and_says_which_is_unsure(batch):
    used = batch["valid"][0]
    assert used.sum() == 2
    assert dict(zip(map(tuple, batch["boxes"][0][used].tolist()), batch["crowd"][0][used].tolist(), strict=True)) == {
        tuple(SURE): False,
        tuple(UNSURE): True,
    }


@pytest.mark.parametrize(("ignore_iof", "inside"), [(None, 0), (0.5, -1)])
def test_candidates_in_an_unsure_region_train_nothing(batch, ignore_iof, inside):
    candidates = torch.tensor(
        [SURE, UNSURE, [70.0, 30, 90, 50], [100, 20, 120, 40], [104, 20, 124, 40], [0, 50, 30, 90]]
    )
    truth = ground_truth(batch, ignore_iof=ignore_iof)
    options = {"positive_iou": 0.5, "negative_iou": 0.3, "low_quality": False, "offset": 0.0}
    for boxes in (candidates, candidates[None]):
        found = match(boxes, None, truth, **options)
        # Exactly half of the fourth lies in the region, and less of the fifth.
        assert found.label.tolist() == [[1, inside, inside, inside, 0, 0]]


def test_losses_of_a_training_leave_it_out(batch):
    """With the whole picture unsure there is no background, so that the classes' loss is that of the object alone."""
    batch = {name: value.clone() for name, value in batch.items()}
    unsure = batch["crowd"][0].nonzero()[0, 0]
    batch["boxes"][0, unsure] = torch.tensor([0.0, 0, 128, 96])
    recipe = tiny()
    detector = replace(recipe.detector, num_classes=1, mask=None, ignore_iof=0.5)
    assert isinstance(detector, DetectorConfig)
    torch.manual_seed(0)
    network = build(replace(recipe.model(), detector=detector)).train()
    seen = []
    heads = network.boxes
    original = heads.match
    heads.match = lambda *args: seen.append(original(*args)) or seen[-1]
    losses = network(batch)
    assert all(math.isfinite(loss.item()) for loss in losses.values())
    assert (seen[0].label != 0).all()
    assert (seen[0].label == 1).any()


@pytest.mark.parametrize("make", [retinanet_tiny, fcos_r50_fpn_1x])
@pytest.mark.parametrize(("ignore_iof", "inside"), [(None, 0), (0.5, -1)])
def test_one_stage_detectors_leave_it_out_too(batch, make, ignore_iof, inside):
    detector = replace(make().detector, num_classes=1, ignore_iof=ignore_iof)
    assign = IoUAssignment(detector) if detector.locations is None else LocationAssignment(detector.locations, 8, 128)
    x1, y1, x2, _ = UNSURE
    places = torch.tensor(
        [[20.0, 20, 28, 28], [x1 + 1, y1 + 1, x1 + 9, y1 + 9], [x2 + 4, y1, x2 + 12, y1 + 8]]  # one in the sure object
    )
    labels = assign(places, ground_truth(batch, ignore_iof=ignore_iof)).label
    assert labels.tolist() == [[1, inside, 0]]


@pytest.mark.parametrize("make", [tiny, retinanet_tiny])
def test_a_share_that_makes_no_sense_is_refused(make):
    with pytest.raises(ValueError, match="ignore_iof must be more than 0"):
        replace(make().detector, ignore_iof=0.0)
