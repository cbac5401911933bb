"""Keypoint R-CNN beside torchvision's: losses and gradients of a step, boxes and keypoints of an inference."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from det_models import torchvision_keypoint_config
from tests.parity import test_training
from tests.parity.batches import SLOTS, Batch
from tests.parity.reference import COORDINATE, Reference, matching
from tests.parity.systems import TORCHVISION, Case

pytestmark = pytest.mark.slow

MOVED = 0.02
"""Share of the keypoints that rounding may move: of two cells of a heatmap that are nearly as high, one is higher."""


def make_batch(file: Reference) -> Batch:
    """The images and boxes of the Mask R-CNN, every object a person."""
    batch = TORCHVISION.batch(TORCHVISION.file)
    keypoints = torch.zeros(2, SLOTS, 17, 3)
    for i, points in enumerate(file.pair("in/keypoints")):
        scale = torch.tensor([*batch["scales"][i].flip(0).tolist(), 1.0])
        keypoints[i, : len(points)] = points * scale
    return batch | {"labels": torch.zeros_like(batch["labels"]), "keypoints": keypoints}


CASE: Case = replace(
    TORCHVISION,
    title="torchvision-keypoints",
    data="torchvision_keypointrcnn_resnet50_fpn",
    recipe=replace(TORCHVISION.recipe, detector=torchvision_keypoint_config()),
    batch=make_batch,
    loss_names={
        **{ours: theirs for ours, theirs in TORCHVISION.loss_names.items() if ours != "loss_mask"},
        "loss_keypoint": "loss_keypoint",
    },
)


@pytest.fixture(scope="module")
def step() -> test_training.Step:
    step = test_training.prepare(CASE, "first_k")
    step.run()
    torch.stack(list(step.losses.values())).sum().backward()
    return step


def test_losses(step: test_training.Step) -> None:
    test_training.test_losses(step)


def test_gradients(step: test_training.Step) -> None:
    # torchvision without oneDNN differs from itself with it by 7e-4 and 4e-3. What all cells of a heatmap share
    # changes no softmax, so the last bias has no gradient.
    zero = "roi_heads.keypoint_predictor.kps_score_lowres.bias"
    test_training.assert_gradients(step, norm_limit=2e-3, entry_limit=1e-2, zero=zero)


@pytest.fixture(scope="module")
def found() -> SimpleNamespace:
    file, batch = CASE.file, CASE.batch(CASE.file)
    model = CASE.trained().eval()
    with torch.inference_mode():
        detections = model({name: batch[name] for name in ("images", "image_sizes")})
        sizes = [tuple(TORCHVISION.file[f"in/image{i}"].shape[:2]) for i in range(2)]
        return SimpleNamespace(file=file, images=model.to_image(detections, batch["scales"], sizes))


@pytest.mark.parametrize("image", [0, 1])
def test_detections(found: SimpleNamespace, image: int) -> None:
    file, ours = found.file, found.images[image]
    boxes = file.tensor(f"det/boxes{image}")
    row = matching(ours.boxes, boxes, tolerance=file.tolerance(f"det/boxes{image}", COORDINATE))
    file.assert_close(f"det/scores{image}", ours.scores[row.argsort()])
    points, theirs = ours.extra["keypoints"], file.tensor(f"det/keypoints{image}")[row]
    assert points.shape == theirs.shape
    assert (points[..., 2] == 1).all()
    moved = (points - theirs).abs().amax(-1) > 0.05
    assert moved.double().mean() <= MOVED
    scores = file.tensor(f"det/keypoints_scores{image}")[row]
    torch.testing.assert_close(ours.extra["keypoint_scores"], scores, rtol=1e-3, atol=2e-2)
