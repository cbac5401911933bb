"""From a model in training to one for inference."""

import copy
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import nn

from det_backbones import DeformConv2d, fold_norms
from det_models.builders import Detector
from det_ops import Conv2d

D = TypeVar("D", bound=Detector)


def optimize_for_inference(model: D, device: torch.device, dtype: torch.dtype | None = None) -> D:
    """A copy for inference on `device`, with norms folded into convolutions and 3x3 weights transformed in advance.

    Its detections are the model's up to rounding; its parameters have other names.

    Args:
        model: What was trained.
        device: Where the copy is.
        dtype: What autocast will compute in, which the weights of convolutions and linear layers are then stored in;
            None: no autocast.
    """
    made = fold_norms(copy.deepcopy(model).to(device).eval().requires_grad_(False))
    for part in made.modules() if dtype is not None else ():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | DeformConv2d):
            part.to(dtype)
    Conv2d.prepack(made)
    return made


def plain_tensors() -> AbstractContextManager[object]:
    """Within it, new tensors are on the CPU, where the caller has made another device the default."""
    return nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")
