"""Detectors by name, and that the names of their parameters are those of the first version's files."""

from pathlib import Path

import pytest
import torch
from torch import nn

import det_models
from det_heads import TwoStageDetector, Yolact
from det_models import conventions, named, two_stage

# Names and shapes, in their order, of detectors of three classes, as the first version wrote them.
FIRST = Path(__file__).with_name("state_dicts.txt")


class Pyramid(nn.Identity):
    """What a two-stage detector asks of a backbone when it is built."""

    out_channels, strides = 256, (4, 8, 16, 32, 64)


def kept():
    found = {}
    for line in FIRST.read_text().splitlines():
        name, _, shape = line.partition(" ")
        if name == "#":
            state = found[shape] = []
        else:
            state.append((name, () if shape == "-" else tuple(map(int, shape.split("x")))))
    return found


@pytest.mark.parametrize("system", kept())
def test_files_of_the_first_version_fit(system):
    """A checkpoint, an average and an optimizer's state go by these names, and a resumed run by their order."""
    with torch.device("meta"):
        model = two_stage(Pyramid(), getattr(conventions, f"{system}_config")(3))
    assert [(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()] == kept()[system]


@pytest.mark.parametrize(
    ("build", "options"),
    [
        ("faster_rcnn_r50_fpn", {"conventions": "torchvision_v2"}),
        ("mask_rcnn_r50_fpn", {}),
        ("mask_rcnn_r50_fpn", {"conventions": "maskrcnn_benchmark"}),
        ("mask_rcnn_r50_fpn", {"conventions": "mmdetection"}),
        ("cascade_rcnn_r50_fpn", {}),
        ("cascade_mask_rcnn_r50_fpn", {"conventions": "mmdetection"}),
        ("yolact_resnet50", {"size": 400}),
        ("yolact_resnet101", {}),
        ("yolact_darknet53", {}),
        ("yolact_plus_resnet50", {}),
    ],
)
def test_every_name_builds(build, options):
    with torch.device("meta"):
        model = getattr(det_models, build)(num_classes=5, **options)
    state = model.state_dict()
    if isinstance(model, Yolact):
        assert len(state["head.classes.bias"]) == 6 * model.config.priors.per_cell
    else:
        assert isinstance(model, TwoStageDetector)
        name = "box_heads.2" if "cascade" in build else "box_head"
        assert len(state[f"{name}.cls_score.bias"]) == 6
        assert any(key.startswith("mask_head") for key in state) == ("mask" in build)
    assert build in named.__all__


def test_an_unknown_system_is_told():
    with pytest.raises(ValueError, match="detectron2, mmdetection, got 'torchvision'"):
        det_models.cascade_rcnn_r50_fpn(conventions="torchvision")
