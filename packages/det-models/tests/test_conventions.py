"""The complete configurations of the reference systems."""

from dataclasses import FrozenInstanceError, replace

import pytest

from det_models import DetectorConfig, detectron2_config, maskrcnn_benchmark_config, torchvision_config

SYSTEMS = {"d2": detectron2_config(), "mrb": maskrcnn_benchmark_config(), "tv": torchvision_config()}

# The decisive differences, one row each: (where, detectron2, maskrcnn-benchmark, torchvision).
DIFFERENCES = [
    ("offset", 0, 1, 0),
    ("pixels.order", "bgr", "bgr", "rgb"),
    ("rpn.anchors.rounding", "none", "legacy", "round"),
    ("rpn.anchors.grid", "stride", "stride", "image"),
    ("rpn.anchors.straddle", None, 0, None),
    ("rpn.beta", 0, 1 / 9, 1 / 9),
    ("rpn.normalizer", "configured", "sampled", "sampled"),
    ("rpn.pre_nms_train", 2000, 2000, 2000),
    ("rpn.post_nms_train", 1000, 2000, 2000),
    ("rpn.post_nms_test", 1000, 1000, 1000),
    ("rpn.post_nms_train_scope", "image", "batch", "image"),
    ("rpn.pre_nms_scores", "logit", "sigmoid", "logit"),
    ("rpn.nms_scores", "logit", "sigmoid", "sigmoid"),
    ("rpn.min_size", 0, 0, 1e-3),
    ("rpn.min_size_inclusive", False, True, True),
    ("box.beta", 0, 1, 1 / 9),
    ("box.min_size", None, None, 1e-2),
    ("box.pool.aligned", True, False, False),
    ("box.pool.sampling_ratio", 0, 2, 2),
    ("box.pool.level_epsilon", 1e-8, 1e-6, 1e-6),
    ("box.pool.level_epsilon_inside_log", True, True, False),
    ("mask.pool.aligned", True, False, False),
    ("mask.target", "polygon", "polygon_legacy", "bitmap"),
    ("mask.paste", "grid_sample", "expanded", "expanded"),
    ("num_classes", 80, 80, 90),
]


@pytest.mark.parametrize(("path", "d2", "mrb", "tv"), DIFFERENCES)
def test_presets_hold_the_decisive_differences(path, d2, mrb, tv):
    for system, expected in {"d2": d2, "mrb": mrb, "tv": tv}.items():
        value = SYSTEMS[system]
        for name in path.split("."):
            value = getattr(value, name)
        assert value == expected, system


@pytest.mark.parametrize("preset", [detectron2_config, maskrcnn_benchmark_config, torchvision_config])
def test_faster_is_mask_without_its_branch(preset):
    assert preset(7, mask=False) == replace(preset(7), mask=None)


def test_configurations_are_frozen():
    with pytest.raises(FrozenInstanceError):
        detectron2_config().offset = 1.0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"num_classes": 0}, "num_classes"),
        ({"num_classes": 1, "offset": 0.5}, "offset"),
        ({"num_classes": 1, "init": "caffe"}, "init"),
    ],
)
def test_wrong_values_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        DetectorConfig(**options)
