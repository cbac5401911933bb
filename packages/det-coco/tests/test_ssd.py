import colorsys
from itertools import islice

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from det_coco import BatchShape, CocoIndex, Resize, SSDAugmentation, eval_loader, train_loader
from det_coco.annotated import Annotated
from det_coco.mask_codec import bitmap_names, image_bitmaps
from det_coco.photometric import Distortion
from det_coco.window import FILL, Window

RESIZE = Resize(shortest=(96,), longest=96, rule="yolact")
SIZES = ((24, 24), (12, 12))
SHAPE = BatchShape(buckets=((96, 96),), masks="bitmaps", max_instances=12, bitmap_sizes=SIZES)
NOTHING = {"photometric": False, "expand": False, "crop": False, "flip": 0.0}


def scene(seed: int, height: int = 80, width: int = 120) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A grey picture with three bright rectangles apart from each other; their boxes; their masks."""
    random = np.random.default_rng(seed)
    boxes = np.array(
        [[x, y, x + random.integers(12, 30), y + random.integers(10, 30)] for x, y in ((5, 8), (45, 40), (85, 12))]
    )
    masks = np.zeros((3, height, width), dtype=np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = 1
    picture = np.where(masks.any(axis=0)[..., None], 250, 20) * np.ones((1, 1, 3))
    return picture.astype(np.uint8), boxes.astype(np.float64), masks


def draw(seed: int, boxes: np.ndarray, crowd: np.ndarray | None = None, **options) -> Window:
    crowd = np.zeros(len(boxes), dtype=bool) if crowd is None else crowd
    return SSDAugmentation(resize=RESIZE, **options).draw(80, 120, np.random.default_rng([seed, 1]), boxes, crowd)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000))
def test_picture_boxes_and_masks_stay_together(seed):
    picture, boxes, masks = scene(seed)
    window = draw(seed, boxes, photometric=False)
    image = window.image(picture)
    assert image.shape == (3, 96, 96)
    kept = window.keep(boxes)
    assert kept.any()
    together = torch.zeros(96, 96, dtype=torch.bool)
    for box, mask in zip(window.boxes(boxes), masks, strict=True):
        bitmap = window.bitmap(mask)
        together |= bitmap
        if (box[2:] - box[:2]).min() < 2:
            continue
        y, x = torch.nonzero(bitmap, as_tuple=True)
        found = [x.min(), y.min(), x.max() + 1, y.max() + 1]
        np.testing.assert_allclose(found, box, atol=1.01)
    # Half way between 20 and 250, like half way between outside and inside; the filling is darker than that.
    bright = image[0] > 134.5
    assert (bright != together).float().mean() < 0.002
    assert image.min() >= 19.99
    assert image.max() <= 250.01


def test_the_filling_is_the_mean_colour():
    picture, boxes, _ = scene(0)
    for seed in range(20):
        window = draw(seed, boxes, **{**NOTHING, "expand": True})
        if window.left < -1 and window.top < -1:
            break
    assert (window.right - window.left) / 120 == pytest.approx((window.bottom - window.top) / 80, abs=0.03)
    torch.testing.assert_close(window.image(picture)[:, 0, 0], torch.tensor(FILL))


def test_without_anything_it_is_a_plain_resize():
    picture, boxes, masks = scene(1)
    window = draw(0, boxes, **NOTHING)
    plain = F.interpolate(torch.from_numpy(picture).permute(2, 0, 1)[None].float(), (96, 96), mode="bilinear")[0]
    torch.testing.assert_close(window.image(picture), plain, atol=0.02, rtol=0)
    np.testing.assert_allclose(window.boxes(boxes), boxes * [0.8, 1.2, 0.8, 1.2], rtol=1e-6)
    evaluation = SSDAugmentation(resize=RESIZE).draw(80, 120, None, boxes, np.zeros(3, dtype=bool))
    torch.testing.assert_close(evaluation.image(picture), window.image(picture))
    torch.testing.assert_close(RESIZE.apply(picture, 96, 96), plain)
    mirrored = draw(0, boxes, **{**NOTHING, "flip": 1.0})
    torch.testing.assert_close(mirrored.image(picture), plain.flip(-1), atol=0.02, rtol=0)
    assert torch.equal(mirrored.bitmap(masks[0]), window.bitmap(masks[0]).flip(-1))
    np.testing.assert_allclose(mirrored.boxes(boxes)[:, 0], 96 - window.boxes(boxes)[:, 2], rtol=1e-5)
    np.testing.assert_allclose(mirrored.edges(boxes)[:, 0], 96 - window.edges(boxes)[:, 0], rtol=1e-5)


@given(st.tuples(*[st.floats(1, 255)] * 3), st.floats(-18, 18).filter(bool), st.floats(0.5, 1.0), st.floats(-32, 32))
def test_colours_follow_the_hsv_model(pixel, hue, saturation, brightness):
    distortion = Distortion(hue=hue, saturation=saturation, contrast_after=0.5)
    ours = distortion.apply(torch.tensor(pixel).reshape(3, 1, 1)).reshape(3) * 2
    h, s, v = colorsys.rgb_to_hsv(*pixel)
    theirs = colorsys.hsv_to_rgb((h + hue / 360) % 1, s * saturation, v)
    np.testing.assert_allclose(ours, theirs, atol=0.05)
    without_hue = Distortion(saturation=saturation).apply(torch.tensor(pixel).reshape(3, 1, 1)).reshape(3)
    np.testing.assert_allclose(without_hue, colorsys.hsv_to_rgb(h, s * saturation, v), atol=0.05)
    brighter = Distortion(brightness=brightness, contrast_before=1.5).apply(torch.tensor(pixel).reshape(3, 1, 1))
    np.testing.assert_allclose(brighter.reshape(3), (np.array(pixel) + brightness) * 1.5, rtol=1e-5)


def test_colours_are_drawn_in_their_ranges():
    drawn = [Distortion.draw(np.random.default_rng([7, n])) for n in range(2000)]
    for name, neutral, low, high, share in (
        ("brightness", 0, -32, 32, 0.5),
        ("contrast_before", 1, 0.5, 1.5, 0.25),
        ("contrast_after", 1, 0.5, 1.5, 0.25),
        ("saturation", 1, 0.5, 1.5, 0.5),
        ("hue", 0, -18, 18, 0.5),
    ):
        values = np.array([getattr(d, name) for d in drawn])
        assert abs((values != neutral).mean() - share) < 0.05, name
        assert low <= values.min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < values.max() <= high


def test_windows_hold_the_centre_of_an_object():
    _, boxes, _ = scene(2)
    crowd = np.array([False, False, True])
    whole = 0
    for seed in range(300):
        window = draw(seed, boxes, crowd, **{**NOTHING, "crop": True})
        width, height = window.right - window.left, window.bottom - window.top
        assert 0 <= window.left < window.right <= 120
        assert 0 <= window.top < window.bottom <= 80
        kept = window.keep(boxes)
        assert kept[:2].any()
        if (width, height) == (120, 80):
            whole += 1
            continue
        assert width >= 0.3 * 120 - 1
        assert height >= 0.3 * 80 - 1
        assert 0.45 < height / width < 2.1
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        inside = (centre > [window.left, window.top]) & (centre < [window.right, window.bottom])
        assert (kept == inside.all(axis=1)).all()
    assert abs(whole - 50) < 20


def test_a_picture_of_crowds_alone_stays_whole():
    _, boxes, _ = scene(3)
    for seed in range(10):
        window = draw(seed, boxes, np.ones(3, dtype=bool), **{**NOTHING, "crop": True})
        assert (window.left, window.top, window.right, window.bottom) == (0, 0, 120, 80)
        assert window.keep(boxes).all()
    assert len(draw(0, np.zeros((0, 4))).chosen) == 0


def test_enforced_overlaps_are_larger():
    boxes = np.array([[10.0, 10.0, 34.0, 30.0]])

    def overlaps(**options) -> list[float]:
        found = []
        for seed in range(200):
            window = draw(seed, boxes, **{**NOTHING, "crop": True}, **options)
            x = min(34, window.right) - max(10, window.left)
            y = min(30, window.bottom) - max(10, window.top)
            area = (window.right - window.left) * (window.bottom - window.top)
            found.append(x * y / (24 * 20 + area - x * y))
        return found

    plain, enforced = overlaps(), overlaps(enforce_overlap=True)
    assert np.mean(enforced) > 1.1 * np.mean(plain)


def test_thin_boxes_are_dropped():
    boxes = np.array([[10.0, 10.0, 10.005, 30.0], [10.0, 10.0, 40.0, 30.0]])
    assert draw(0, boxes, **NOTHING).keep(boxes).tolist() == [False, True]


def test_wrong_options():
    with pytest.raises(ValueError, match="must be yolact"):
        SSDAugmentation(resize=Resize())
    with pytest.raises(ValueError, match="probability"):
        SSDAugmentation(flip=2.0)


def batches(index: CocoIndex, count: int, **options) -> list[dict[str, torch.Tensor]]:
    loader = train_loader(
        index,
        augmentation=SSDAugmentation(resize=RESIZE),
        shape=SHAPE,
        batch_size=3,
        grouping="none",
        filter_empty=True,
        **options,
    )
    return list(islice(loader, count))


def test_batches_have_one_shape_and_fractions(index):
    for batch in batches(index, 8):
        assert batch["images"].shape == (3, 3, 96, 96)
        assert batch["images"].dtype == torch.float32
        assert (batch["image_sizes"] == 96).all()
        assert bitmap_names(SIZES) == ["mask_bitmaps_24x24", "mask_bitmaps_12x12"]
        for name, size in zip(bitmap_names(SIZES), SIZES, strict=True):
            assert batch[name].shape == (3, 12, *size)
            assert batch[name].dtype == torch.uint8
            assert not batch[name][~batch["valid"] | batch["crowd"]].any()
        used = batch["valid"] & ~batch["crowd"]
        assert used.any(dim=1).all()
        boxes = batch["boxes"][batch["valid"]]
        assert (boxes >= 0).all()
        assert (boxes <= 96).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_a_training_goes_on_where_it_stopped(index):
    whole, rest = batches(index, 6, seed=3), batches(index, 3, seed=3, start_batch=3)
    for one, other in zip(whole[3:], rest, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(whole[0]["images"], batches(index, 1, seed=4)[0]["images"])


def test_reduced_bitmaps_are_those_of_the_resized_image(index):
    position = int(np.argmax(np.diff(index.image_instances)))
    rows = np.arange(index.instances(position).start, index.instances(position).stop)
    height, width = int(index.heights[position]), int(index.widths[position])
    view = SSDAugmentation(resize=RESIZE).draw(
        height, width, np.random.default_rng(1), index.boxes[rows], index.crowd[rows]
    )
    full = torch.from_numpy(image_bitmaps(Annotated.of(index, position, rows), view)["mask_bitmaps"])
    reduced = image_bitmaps(Annotated.of(index, position, rows), view, SIZES)
    for name, size in zip(bitmap_names(SIZES), SIZES, strict=True):
        expected = F.interpolate(full[None].float(), size, mode="bilinear", align_corners=False)[0] > 0.5
        assert torch.equal(torch.from_numpy(reduced[name]).bool(), expected)
        assert expected.any()


def test_evaluation_has_the_same_shape(val):
    for batch in eval_loader(val, resize=RESIZE, shape=SHAPE, batch_size=3, ground_truth=True, grouping="none"):
        assert batch["images"].shape == (3, 3, 96, 96)
        assert batch["images"].dtype == torch.float32
        sizes = [val.image_size(i) if i >= 0 else (96, 96) for i in batch["image_ids"].tolist()]
        np.testing.assert_allclose(batch["scales"], 96 / np.array(sizes), rtol=1e-6)
    spare = list(eval_loader(val, resize=RESIZE, shape=SHAPE, batch_size=8, rank=1, world_size=2, grouping="none"))
    assert [batch["images"].dtype for batch in spare] == [torch.float32]
