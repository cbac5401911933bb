from dataclasses import FrozenInstanceError

import pytest

from det_heads import AnchorConfig, BoxHeadConfig, MaskHeadConfig, PixelConfig, RPNConfig


def test_configurations_are_frozen():
    with pytest.raises(FrozenInstanceError):
        BoxHeadConfig().samples = 1


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: PixelConfig(order="gbr"), "pixels.order"),
        (lambda: PixelConfig(std=(1.0, 0.0, 1.0)), "pixels.std"),
        (lambda: AnchorConfig(sizes=((32.0,), (64.0, 90.0))), "anchors.sizes"),
        (lambda: AnchorConfig(ratios=(0.5, -1.0)), "anchors.ratios"),
        (lambda: RPNConfig(samples=0), "rpn.samples"),
        (lambda: RPNConfig(negative_iou=0.8), "rpn.negative_iou"),
        (lambda: BoxHeadConfig(label_smoothing=1.0), "box.label_smoothing"),
        (lambda: MaskHeadConfig(target="polygons"), "mask.target"),
    ],
)
def test_wrong_values_are_named(make, named):
    with pytest.raises(ValueError, match=named):
        make()
