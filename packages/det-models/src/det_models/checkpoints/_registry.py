"""All reference systems by name."""

import re
from dataclasses import replace

from det_models.checkpoints._one_stage_systems import (
    DETECTRON2_FCOS,
    DETECTRON2_RETINANET,
    MMDETECTION_RETINANET,
    TORCHVISION_FCOS,
    TORCHVISION_RETINANET,
)
from det_models.checkpoints._rules import rules
from det_models.checkpoints._systems import (
    CAFFE2,
    DETECTRON2,
    MASKRCNN_BENCHMARK,
    MMDETECTION,
    MMDETECTION_1,
    TORCHVISION,
    TORCHVISION_V2,
    YOLACT,
    System,
)

SYSTEMS: dict[str, System] = {
    system.name: system
    for system in (
        DETECTRON2,
        TORCHVISION,
        TORCHVISION_V2,
        MASKRCNN_BENCHMARK,
        MMDETECTION,
        MMDETECTION_1,
        CAFFE2,
        YOLACT,
        DETECTRON2_RETINANET,
        DETECTRON2_FCOS,
        TORCHVISION_RETINANET,
        TORCHVISION_FCOS,
        MMDETECTION_RETINANET,
    )
}
"""All systems by name."""


def library(system: str) -> str:
    """The name without what tells kinds of detectors of one library apart: `torchvision-v2` is torchvision's."""
    return re.sub("-(v2|retinanet|fcos)$", "", system)


def add_names(system: str, table: str) -> None:
    """Say what a system calls the modules of a branch.

    Args:
        system: One of :data:`SYSTEMS`.
        table: A module a line: our name and the system's, with fields as in the tables of `_systems`.
    """
    SYSTEMS[system] = replace(SYSTEMS[system], rules=SYSTEMS[system].rules + rules("", "", table))
