import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from det_coco import Augmentation, Resize, default_buckets

sides = st.integers(20, 2500)


@given(sides, sides, st.integers(100, 900), st.integers(900, 1500))
def test_detectron2_sizes(height, width, shortest, longest):
    resize = Resize(shortest=(shortest,), longest=longest)
    new_height, new_width = resize.output_size(height, width)
    assert max(new_height, new_width) <= longest
    # Both sides follow one scale to within the rounding of half a pixel.
    scale = min(shortest / min(height, width), longest / max(height, width))
    assert abs(new_height - max(1, scale * height)) <= 0.5 + 1e-6
    assert abs(new_width - max(1, scale * width)) <= 0.5 + 1e-6


@pytest.mark.parametrize(
    ("rule", "height", "width", "shortest", "longest", "expected"),
    [
        # 427/640 photographs; 800 * 640 / 427 = 1199.06
        ("detectron2", 427, 640, 800, 1333, (800, 1199)),
        ("maskrcnn_benchmark", 427, 640, 800, 1333, (800, 1199)),
        ("torchvision", 427, 640, 800, 1333, (800, 1199)),
        # 800 * 640 / 426 = 1201.878: rounded or truncated
        ("detectron2", 426, 640, 800, 1333, (800, 1202)),
        ("maskrcnn_benchmark", 426, 640, 800, 1333, (800, 1201)),
        ("torchvision", 426, 640, 800, 1333, (800, 1201)),
        # the limit: 1333 * 300 / 640 = 624.84
        ("detectron2", 300, 640, 800, 1333, (625, 1333)),
        ("maskrcnn_benchmark", 300, 640, 800, 1333, (625, 1333)),
        ("torchvision", 300, 640, 800, 1333, (624, 1333)),
        ("maskrcnn_benchmark", 640, 300, 800, 1333, (1333, 625)),
        # the limit, where the shorter side is rounded first: 625 * 641 / 301 = 1330.98
        ("maskrcnn_benchmark", 301, 641, 800, 1333, (626, 1333)),
        ("maskrcnn_benchmark", 800, 900, 800, 1333, (800, 900)),
    ],
)
def test_rounding_of_each_system(rule, height, width, shortest, longest, expected):
    assert Resize(shortest=(shortest,), longest=longest, rule=rule).output_size(height, width) == expected


@given(sides, sides, st.sampled_from([(640, 672, 800), (320,), (800,)]), st.integers(800, 1400))
def test_default_buckets_hold_everything(height, width, shortest, longest):
    assume(max(height, width) <= 16 * min(height, width))
    for rule in ("detectron2", "maskrcnn_benchmark", "torchvision"):
        resize = Resize(shortest=shortest, longest=longest, rule=rule)
        buckets = default_buckets(resize)
        for s in shortest:
            h, w = resize.output_size(height, width, s)
            assert any(h <= bh and w <= bw for bh, bw in buckets)


def test_draws_are_fair():
    augmentation = Augmentation(resize=Resize(shortest=(100, 200, 400), longest=1000))
    drawn = [augmentation.draw(300, 400, np.random.default_rng([0, n])) for n in range(3000)]
    heights, counts = np.unique([g.height for g in drawn], return_counts=True)
    assert heights.tolist() == [100, 200, 400]
    assert (abs(counts - 1000) < 120).all()
    assert abs(sum(g.flip for g in drawn) - 1500) < 150


def test_boxes_and_edges_scale_and_mirror():
    box = np.array([[10.0, 20.0, 50.0, 40.0]])
    augmentation = Augmentation(resize=Resize(shortest=(200,)), flip=1.0)
    modern = augmentation.draw(100, 150, np.random.default_rng(0))
    np.testing.assert_allclose(modern.boxes(box), [[200, 40, 280, 80]])
    np.testing.assert_allclose(modern.edges(box), [[280, 40, 200, 80]])
    legacy = Augmentation(resize=Resize(shortest=(200,)), flip=1.0, legacy=True).draw(
        100, 150, np.random.default_rng(0)
    )
    # x2 = 49 inclusive; scaled 20, 98; mirrored 300 - 1 - x: 201, 279; the last pixel, two wide by now, added again
    np.testing.assert_allclose(legacy.boxes(box), [[201, 40, 281, 80]])
    np.testing.assert_allclose(legacy.edges(box), [[279, 40, 199, 80]])
    np.testing.assert_allclose(augmentation.draw(100, 150, None).boxes(box), 2 * box)


def test_mirrored_twice_is_the_same():
    step = Augmentation(resize=Resize(shortest=(100,)), flip=1.0).draw(100, 150, np.random.default_rng(0))
    box = np.array([[10.0, 20.0, 50.0, 40.0]])
    np.testing.assert_array_equal(step.boxes(step.boxes(box)), box)


def test_same_size_is_untouched():
    image = np.random.default_rng(0).integers(0, 255, (100, 80, 3), dtype=np.uint8)
    assert torch.equal(Resize().apply(image, 100, 80), torch.from_numpy(image).permute(2, 0, 1))


@pytest.mark.parametrize("options", [{"shortest": ()}, {"shortest": (0,)}, {"longest": 0}, {"rule": "cv2"}])
def test_wrong_resize(options):
    with pytest.raises(ValueError, match="must"):
        Resize(**options)


def test_wrong_flip():
    with pytest.raises(ValueError, match="probability"):
        Augmentation(flip=1.5)
