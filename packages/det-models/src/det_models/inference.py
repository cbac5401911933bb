"""From a model in training to one for inference."""

import copy
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch

from det_backbones import fold_norms
from det_models.builders import Detector
from det_ops import Conv2d

D = TypeVar("D", bound=Detector)


def optimize_for_inference(model: D, device: torch.device) -> D:
    """A copy for inference on `device`, with norms folded into convolutions and 3x3 weights transformed in advance.

    Its detections are the model's up to rounding; its parameters have other names.
    """
    made = copy.deepcopy(model).to(device).eval().requires_grad_(False)
    Conv2d.prepack(fold_norms(made))
    return made


def plain_tensors() -> AbstractContextManager[object]:
    """Within it, new tensors are on the CPU, where the caller has made another device the default."""
    return nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")
