"""Test-time augmentation: several looks at a picture, put together."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from det_models import Detections, OptionError, Predictor, Views
from testing.trained import NAMES, random_network, small_model

FAMILIES = {
    "mask_rcnn": ("ours", {}),
    "faster_rcnn": ("ours", {"mask": False}),
    "cascade_rcnn": ("ours", {"cascade": True}),
    "torchvision": ("torchvision", {}),
    "legacy": ("maskrcnn-benchmark", {}),
    "yolact": ("yolact", {}),
}


def picture(height: int = 48, width: int = 72) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((width, height)))


def predictor(family: str = "mask_rcnn", **options: object) -> Predictor:
    system, kind = FAMILIES[family]
    model = small_model(system, **kind)
    return Predictor(random_network(model), model, NAMES, device="cpu", **options)


@pytest.mark.parametrize("family", ["mask_rcnn", "faster_rcnn", "cascade_rcnn", "torchvision"])
def test_a_single_plain_view_is_what_is_found_without(family):
    detector = predictor(family)
    found = detector.predict(picture(), tta=Views(sizes=(64,), longest=96, flip=False))
    plain = detector.predict(picture())
    for name in ("boxes", "scores", "labels"):
        np.testing.assert_allclose(getattr(found, name), getattr(plain, name), rtol=1e-6)
    assert found.rle == plain.rle
    assert (found.image == picture()).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_with_mirrored_views_left_and_right_do_not_matter(family):
    """What is found in the mirrored picture is the mirrored of what is found, masks too, whatever the network."""
    detector = predictor(family)
    found = detector.predict(picture(), tta=Views(sizes=(48, 64)))
    other = detector.predict(np.ascontiguousarray(picture()[:, ::-1]), tta=Views(sizes=(48, 64)))
    assert len(found) > 10
    x1, y1, x2, y2 = other.boxes.T
    boxes = np.stack([72 - x2, y1, 72 - x1, y2], axis=1)
    near = (np.abs(found.boxes[:, None] - boxes[None]).max(2) < 0.3) & (found.labels[:, None] == other.labels[None])
    near &= np.abs(found.scores[:, None] - other.scores[None]) < 0.005
    assert near.any(axis=1).mean() > 0.95  # some are at the limit of suppression
    if found.masks is not None and family not in ("torchvision", "legacy"):  # whose masks begin at whole pixels
        for row in np.flatnonzero(near.any(axis=1))[:20]:
            wrong = (found.masks[row] != other.masks[near[row].argmax()][:, ::-1]).sum()
            assert wrong <= 4 + 0.05 * found.masks[row].sum()


def test_limits_scores_and_several_pictures():
    detector = predictor(max_detections=5, classes=["square"])
    views = Views(sizes=(64,))
    found = detector.predict([picture(), picture(60, 60)], tta=views)
    assert [one.size for one in found] == [(48, 72), (60, 60)]
    assert all(len(one) <= 5 and set(one.names) <= {"square"} for one in found)
    assert len(predictor().predict(picture(), tta=views, min_score=1)) == 0
    assert isinstance(next(predictor().predict(iter([picture()]), tta=True)), Detections)


def test_nothing_is_found():
    model = small_model()
    nothing = replace(model.detector, box=replace(model.detector.box, score_threshold=0.999))
    model = replace(model, detector=nothing)
    detector = Predictor(random_network(model), model, NAMES, device="cpu")
    found = detector.predict(picture(), tta=True)
    assert len(found) == 0
    assert found.rle == []


def test_sizes_by_default_are_detectron2s():
    sizes = [view.resize.shortest for view in Views().of(replace(small_model().resize, shortest=(800,), longest=1333))]
    assert sizes == [(size,) for size in range(400, 1201, 100) for _ in range(2)]
    assert {view.resize.longest for view in Views().of(replace(small_model().resize, shortest=(800,)))} == {4000}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tta": True, "tile": 64}, "tile cannot be had together with tta"),
        ({"tta": True, "features": True}, "features cannot be had together with tta"),
    ],
)
def test_what_cannot_be_had(options, says):
    with pytest.raises(OptionError, match=says):
        predictor().predict(picture(), **options)
    with pytest.raises(OptionError, match="sizes must be at least 1, got 0"):
        Views(sizes=(0,))


def test_detectors_that_it_is_not_for():
    model = small_model(keypoints=True)
    with pytest.raises(OptionError, match="this detector finds more"):
        Predictor(random_network(model), model, NAMES, device="cpu").predict(picture(), tta=True)
    model = small_model("yolact++")
    detector = Predictor(random_network(model), model, NAMES, device="cpu")
    with pytest.raises(OptionError, match="size must be at least 249"):
        detector.predict(picture(), tta=True)


def test_boxes_that_are_fused_lie_between_those_of_the_views():
    detector = predictor()
    found = detector.predict(picture(), tta=Views(sizes=(64,), merge="weighted"))
    best = detector.predict(picture(), tta=Views(sizes=(64,)))
    assert 0 < len(found) <= detector.config.max_detections
    assert found.masks is not None
    assert found.scores.max() <= best.scores.max()
    assert (np.diff(found.scores) <= 0).all()
    one = detector.predict(picture(), tta=Views(sizes=(64,), longest=96, flip=False, merge="weighted"))
    plain = detector.predict(picture())
    # Within a view suppression has left nothing to fuse.
    np.testing.assert_allclose(one.boxes, plain.boxes, atol=1e-4)
    np.testing.assert_allclose(one.scores, plain.scores, rtol=1e-6)


def test_fusion_is_refused_where_masks_belong_to_a_view():
    with pytest.raises(OptionError, match="cannot be fused"):
        predictor("yolact").predict(picture(), tta=Views(sizes=(64,), merge="weighted"))
    with pytest.raises(OptionError, match="merge must be one of nms, weighted"):
        Views(merge="mean")
