"""Small detectors that find something in any picture, in files of ours and in the layouts of other systems."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from det_coco import Resize, default_buckets
from det_heads import OneStageDetector, PriorConfig, YolactConfig, yolact_plus_config
from det_models import (
    BackboneConfig,
    Detector,
    DetectorConfig,
    ModelConfig,
    OneStageBackboneConfig,
    YolactBackboneConfig,
    build,
    describe,
    detectron2_cascade_config,
    detectron2_config,
    detectron2_fcos_config,
    detectron2_retinanet_config,
    maskrcnn_benchmark_config,
    mmdetection_config,
    mmdetection_retinanet_config,
    torchvision_config,
    torchvision_fcos_config,
    torchvision_keypoint_config,
    torchvision_retinanet_config,
)
from testing.foreign_files import CLASSES, theirs, write

NAMES = dict(enumerate(CLASSES[:3], 1))
"""The categories of all of them."""

SYSTEMS = ("ours", "detectron2", "mmdetection", "torchvision", "yolact")
"""What :func:`write_trained` writes."""

_ONE_STAGE = {
    "detectron2-retinanet": detectron2_retinanet_config,
    "detectron2-fcos": detectron2_fcos_config,
    "mmdetection-retinanet": mmdetection_retinanet_config,
    "torchvision-retinanet": torchvision_retinanet_config,
    "torchvision-fcos": torchvision_fcos_config,
}

_PRESETS = {
    "detectron2": detectron2_config,
    "maskrcnn-benchmark": maskrcnn_benchmark_config,
    "mmdetection": mmdetection_config,
    "torchvision": torchvision_config,
}


def small_model(
    system: str = "ours", *, mask: bool = True, cascade: bool = False, keypoints: bool = False
) -> ModelConfig:
    """A network of a few hundred thousand parameters on images of about 64 pixels.

    Args:
        system: Whose conventions, one of :data:`SYSTEMS`, `maskrcnn-benchmark`, `yolact++`, or a one-stage detector of
            boxes such as `detectron2-retinanet` and `torchvision-fcos`.
        mask: Whether it has a mask head.
        cascade: Whether it has three stages.
        keypoints: Whether it finds keypoints, and no masks.
    """
    if system.startswith("yolact"):
        return _small_yolact(plus=system.endswith("++"))
    if system.endswith(("retinanet", "fcos")):
        return _small_one_stage(system)
    without = system in ("torchvision", "maskrcnn-benchmark")
    backbone = BackboneConfig(
        depth=18,
        width=8,
        norm="frozen_statistics_bn" if system == "mmdetection" else "bn" if system == "ours" else "frozen_bn",
        norm_eps=0.0 if without else 1e-5,
        stride_in_1x1=False,
        freeze_at=0 if system == "ours" else 2,
        pyramid_channels=16,
    )
    resize = Resize(shortest=(64,), longest=96)
    if keypoints:
        detector = torchvision_keypoint_config(3)
    else:
        preset = detectron2_cascade_config if cascade else _PRESETS.get(system, detectron2_config)
        detector = preset(3, mask=mask)
    return ModelConfig(backbone=backbone, detector=_narrow(detector), resize=resize, buckets=default_buckets(resize))


def _narrow(config: DetectorConfig) -> DetectorConfig:
    mask = None if config.mask is None else replace(config.mask, channels=16)
    return replace(config, box=replace(config.box, channels=24, score_threshold=0.05), mask=mask)


def _small_yolact(*, plus: bool) -> ModelConfig:
    size = 256 if plus else 64  # its mask-IoU network looks at masks of 63 pixels and more
    detector = yolact_plus_config(3) if plus else YolactConfig(num_classes=3, priors=PriorConfig())
    resize = Resize(shortest=(size,), longest=size, rule="yolact")
    return ModelConfig(
        backbone=YolactBackboneConfig(depth=18, width=8, pyramid_channels=16, norm="bn"),
        detector=replace(detector, channels=16, prototypes=8),
        resize=resize,
        buckets=default_buckets(resize),
    )


def _small_one_stage(system: str) -> ModelConfig:
    library, kind = system.split("-")
    resize = Resize(shortest=(64,), longest=96)
    backbone = OneStageBackboneConfig(
        depth=18,
        width=8,
        norm="frozen_statistics_bn" if library == "mmdetection" else "frozen_bn",
        norm_eps=0.0 if system == "torchvision-retinanet" else 1e-5,
        stride_in_1x1=False,
        pyramid_channels=16,
        p6_input="pyramid" if library == "torchvision" or kind == "fcos" else "body",
        p7_activation=library != "mmdetection",
    )
    detector = _ONE_STAGE[system](3)
    return ModelConfig(backbone=backbone, detector=detector, resize=resize, buckets=default_buckets(resize))


def random_network(model: ModelConfig) -> Detector:
    """The network of a model in evaluation mode, with weights for which it finds something everywhere."""
    torch.manual_seed(0)
    network = build(model)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            # Small enough that no score saturates, since equal ones are ordered as rounding has it.
            if "cls_score.weight" in name:
                nn.init.normal_(parameter, std=0.002)
            if "objectness.weight" in name or "head.classes.weight" in name:
                nn.init.normal_(parameter, std=0.02)
            if name == "head.classes.bias":
                nn.init.zeros_(parameter)
            if name == "head.boxes.bias" and isinstance(network, OneStageDetector) and network.head.centerness:
                nn.init.ones_(parameter)  # so that few boxes are empty
            if "bbox_pred.weight" in name or "predictor.weight" in name:
                nn.init.normal_(parameter, std=0.05)
    return network.eval()


def write_trained(
    path: Path, system: str = "ours", *, mask: bool = True, cascade: bool = False, names: Mapping[int, str] = NAMES
) -> Path:
    """Write such a detector as a system keeps it.

    Args:
        path: The file.
        system: As in :func:`small_model`.
        mask: Whether it has a mask head.
        cascade: Whether it has three stages.
        names: Name by id of its three categories, where the system's files say so.
    """
    model = small_model(system, mask=mask, cascade=cascade)
    if system == "ours":
        return write_model(path, model, names=names)
    state = random_network(model).state_dict()
    system = system.removesuffix("++")
    metadata = {
        "detectron2": {"categories": [{"id": number, "name": name} for number, name in names.items()]},
        "mmdetection": {"CLASSES": tuple(names.values())},
    }
    return write(path, system, theirs(system, state), **metadata.get(system, {}))


def write_model(
    path: Path, model: ModelConfig, network: Detector | None = None, names: Mapping[int, str] = NAMES
) -> Path:
    """Write a detector as a checkpoint of ours.

    Args:
        path: The file.
        model: Its configuration.
        network: By default :func:`random_network`.
        names: Name by id of its categories.
    """
    state = (network or random_network(model)).state_dict()
    torch.save({"format": "det-engine checkpoint", "model": state, "config": describe(model, names)}, path)
    return path


def write_example(folder: Path, system: str = "ours") -> None:
    """What the example of det-models' read-me finds in its folder.

    Args:
        folder: Gets `detector.pth`, `street.jpg` and `pictures/`.
        system: Whose file `detector.pth` is, one of :data:`SYSTEMS`.
    """
    write_trained(folder / "detector.pth", system)
    pictures = folder / "pictures"
    pictures.mkdir()
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 256, (6, 9, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((144, 96)).save(pictures / f"{number}.jpg")
    shutil.copyfile(pictures / "0.jpg", folder / "street.jpg")
