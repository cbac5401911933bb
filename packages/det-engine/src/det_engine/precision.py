"""Number format of the training step: autocast and loss scaling as one object."""

from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import Tensor

from det_engine.errors import EngineError

PrecisionName = Literal["fp32", "tf32", "bf16", "fp16"]
PRECISIONS: tuple[PrecisionName, ...] = ("fp32", "tf32", "bf16", "fp16")


class Precision:
    """Autocast, loss scaling and the optimizer step in one number format.

    Weights and optimizer state are float32 in every format; the formats change what matrix products and
    convolutions compute in. None of the methods
    that a step calls reads from the device.

    | name | products and convolutions | loss scale |
    |---|---|---|
    | fp32 | IEEE float32 | none |
    | tf32 | TensorFloat-32 (NVIDIA), HF32 (Ascend); float32 storage | none |
    | bf16 | bfloat16 autocast | none |
    | fp16 | float16 autocast | dynamic, or the given constant |

    fp32 and tf32 set the backend's switches for the whole process.

    Args:
        name: one of `PRECISIONS`.
        device: where the step runs.
        loss_scale: constant loss scale of fp16; None scales dynamically, from 65536.

    Raises:
        EngineError: unknown name, a format that the device lacks, or a loss scale that is not positive or not for
            fp16.
    """

    def __init__(self, name: str, device: torch.device, loss_scale: float | None = None) -> None:
        if name not in PRECISIONS:
            raise EngineError(f"Precision must be one of {', '.join(PRECISIONS)}, got {name!r}.")
        if name == "tf32" and device.type == "cpu":
            raise EngineError("Precision tf32 is for NVIDIA GPUs and NPUs; use fp32 or bf16 on the CPU.")
        if loss_scale is not None and (name != "fp16" or not loss_scale > 0):
            raise EngineError(f"A loss scale is a positive number and belongs to fp16, got {loss_scale} with {name}.")
        self.name = name
        self.device = device
        self.loss_scale = loss_scale
        self._dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(name)
        initial = loss_scale if loss_scale is not None else 2.0**16
        self._scaler = torch.amp.GradScaler(device.type, init_scale=initial, enabled=name == "fp16")
        _set_float32_products(device, fast=name == "tf32")

    def autocast(self) -> AbstractContextManager[Any]:
        """Context in which the forward pass runs, in training and in inference."""
        return torch.autocast(self.device.type, dtype=self._dtype, enabled=self._dtype is not None)

    def backward(self, loss: Tensor) -> None:
        """Gradients of `loss` (scalar), scaled if the format needs it."""
        self._scaler.scale(loss).backward()

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Turn the gradients into those of the unscaled loss, so that they can be clipped."""
        self._scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Optimizer step; with loss scaling it leaves the weights alone where a gradient is not finite."""
        self._scaler.step(optimizer)
        self._scaler.update(self.loss_scale)

    def state_dict(self) -> dict[str, Any]:
        """State of the loss scale; empty for the other formats."""
        return self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with a stored loss scale; a state of another format is ignored."""
        if state and self._scaler.is_enabled():
            self._scaler.load_state_dict(state)

    def scale(self) -> float | None:
        """The loss scale, None for formats that have none; reads from the device."""
        return self._scaler.get_scale() if self._scaler.is_enabled() else None

    def describe_scale(self) -> str:
        """The loss scale in words; reads from the device."""
        scale = self.scale()
        return "no loss scale" if scale is None else f"loss scale {scale:g}"


def _set_float32_products(device: torch.device, *, fast: bool) -> None:
    if device.type == "cuda":
        torch.backends.cuda.matmul.fp32_precision = "tf32" if fast else "ieee"
        torch.backends.cudnn.conv.fp32_precision = "tf32" if fast else "ieee"  # pyrefly: ignore[missing-attribute]
    elif device.type == "npu":
        # torch_npu computes float32 convolutions in HF32 unless told otherwise.
        for module in ("matmul", "conv"):
            switch = getattr(torch.get_device_module(device), module, None)
            if switch is not None:
                switch.allow_hf32 = fast
