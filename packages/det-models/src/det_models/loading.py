"""Three lines of Python: load a file, show it an image, look at what was found."""

import os
from collections.abc import Iterable

import torch

from det_models.predictor import Predictor
from det_models.weights import open_weights

__all__ = ["load"]


def load(
    path: str | os.PathLike[str],
    *,
    device: str | torch.device = "auto",
    precision: str = "fp32",
    batch_size: int = 1,
    max_detections: int | None = None,
    nms_iou: float | None = None,
    classes: Iterable[str | int] | None = None,
    size: int | tuple[int, int] | None = None,
) -> Predictor:
    """The detector in a file, whose network, conventions, classes and sizes follow from what is in it.

    Where something is stripped from around the weights, such as `module.` before their names, one line says what.

    Args:
        path: A checkpoint of a run, the folder of a run (its best checkpoint is taken), or a detector of detectron2,
            Detectron, maskrcnn-benchmark, mmdetection, torchvision or YOLACT. Nothing in it is run. Or the name of a
            published detector, such as `torchvision/maskrcnn_resnet50_fpn` (:func:`det_models.published_detectors`),
            which is looked up on this machine, then downloaded.
        device: `cpu`, `cuda`, `npu`, one of the latter with an index; `auto`: the first accelerator, or else the CPU.
        precision: Number format of the forward pass: `fp32`, `bf16` or `fp16`.
        batch_size: Images at a time, where :meth:`Predictor.predict` is given several.
        max_detections: The most detections of an image; by default as many as the network was trained to give.
        nms_iou: Non-maximum suppression leaves out a box that has a larger IoU with a better one of its class.
        classes: Names or ids of the categories to report; all by default.
        size: Images are resized to this shorter side, in pixels, or (shorter side, limit of the longer side); by
            default as in the evaluation of the run, or as the other system does it. YOLACT's are squares of this side.

    Raises:
        WeightsError: The file is missing, damaged, or not only weights, or it cannot be downloaded.
        CheckpointError: It holds no detector, or one that cannot be built here.
        OptionError: A value is none that this detector can have; the message names those that it can.
    """
    weights = open_weights(path)
    if weights.file.unwrapped:
        wrapping = ", ".join(weights.file.unwrapped).removesuffix(".")
        print(f"{weights.path} ({weights}): read without what wraps it, {wrapping}.")
    return weights.predictor(
        device=device,
        precision=precision,
        batch_size=batch_size,
        max_detections=max_detections,
        nms_iou=nms_iou,
        classes=classes,
        size=size,
    )
