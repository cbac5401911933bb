"""Number format of the training step: autocast, half-precision weights and loss scaling as one object."""

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from det_engine.device import is_first_ascend
from det_engine.errors import EngineError
from det_engine.settings import PRECISIONS

_ALIASES = {"O0": "fp32", "O1": "fp16"}
_FIRST_SCALE, _GROWTH_INTERVAL = 2.0**16, 2000


class Precision:
    """Autocast, loss scaling and the optimizer step in one number format.

    None of the methods that a step calls reads from the device; the loss scale lives there.

    | name | weights | products and convolutions | loss scale |
    |---|---|---|---|
    | fp32 (O0) | float32 | IEEE float32 | none |
    | tf32 | float32 | TensorFloat-32 (NVIDIA), HF32 (Ascend) | none |
    | bf16 | float32 | bfloat16 autocast | none |
    | fp16 (O1) | float32 | float16 autocast | dynamic, or the given constant |
    | O2 | float16, float32 masters, float32 normalisation layers | float16 autocast | likewise |

    fp32 and tf32 set the backend's switches for the whole process. O0, O1 and O2 are apex' names. The dynamic scale is
    that of Micikevicius et al., arXiv:1710.03740, with torch's constants: from 65536, half after an overflow, double
    after 2000 steps without one.

    Args:
        name: one of `PRECISIONS`.
        device: where the step runs.
        loss_scale: constant loss scale of the float16 formats; None scales dynamically.

    Raises:
        EngineError: unknown name, a format that the device lacks, or a loss scale that is not positive or not for
            float16.
    """

    def __init__(self, name: str, device: torch.device, loss_scale: float | None = None) -> None:
        if name not in PRECISIONS:
            raise EngineError(f"Precision must be one of {', '.join(PRECISIONS)}, got {name!r}.")
        name = _ALIASES.get(name, name)
        if name == "tf32" and device.type == "cpu":
            raise EngineError("Precision tf32 is for NVIDIA GPUs and NPUs; use fp32 or bf16 on the CPU.")
        if name == "bf16" and device.type == "npu":
            chip = torch.get_device_module(device).get_device_name(device)
            if is_first_ascend(chip):
                raise EngineError(f"{chip} has no bfloat16, which begins with 910B; use precision fp16.")
        half = name in ("fp16", "O2")
        if loss_scale is not None and (not half or not loss_scale > 0):
            raise EngineError(
                f"A loss scale is a positive number and belongs to fp16, O1 and O2, got {loss_scale} with {name}."
            )
        self.name = name
        self.device = device
        self.loss_scale = loss_scale
        self.weights = torch.float16 if name == "O2" else torch.float32
        self._dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "O2": torch.float16}.get(name)
        self._scale: Tensor | None = None
        if half:
            self._scale = torch.full((), _FIRST_SCALE if loss_scale is None else loss_scale, device=device)
            self._steps_without_overflow = torch.zeros((), dtype=torch.int32, device=device)
        _set_float32_products(device, fast=name == "tf32")

    def autocast(self) -> AbstractContextManager[Any]:
        """Context in which the forward pass runs, in training and in inference."""
        return torch.autocast(self.device.type, dtype=self._dtype, enabled=self._dtype is not None)

    def backward(self, loss: Tensor) -> None:
        """Gradients of `loss` (scalar), scaled if the format needs it."""
        (loss if self._scale is None else loss * self._scale).backward()

    @torch.no_grad()
    def step(
        self, optimizer: torch.optim.Optimizer, clip_norm: float | None = None, blocked: Tensor | None = None
    ) -> Tensor:
        """Optimizer step with the gradients as they are, which it unscales and clips on the way.

        Where a gradient is not finite nothing changes but the loss scale.

        Args:
            optimizer: a fused one (`build_optimizer`).
            clip_norm: largest L2 norm of all gradients together; None: not clipped.
            blocked: bool scalar; where it is True nothing changes at all, the loss scale included.

        Returns:
            The norm of the unscaled gradients before clipping, float32 scalar.
        """
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients).float()
        if self._scale is not None:
            norm = norm / self._scale
        overflow = ~torch.isfinite(norm)
        skip = overflow if blocked is None else overflow | blocked
        divisor = torch.ones_like(norm) if self._scale is None else self._scale.clone()
        if clip_norm is not None:
            divisor = divisor * ((norm + 1e-6) / clip_norm).clamp(min=1)
        # What fused optimizers take from torch's own scaler: the gradients' divisor, and whether to do nothing.
        optimizer.grad_scale, optimizer.found_inf = divisor, skip.float()  # type: ignore[attr-defined]
        optimizer.step()
        del optimizer.grad_scale, optimizer.found_inf  # type: ignore[attr-defined]
        if self._scale is not None and self.loss_scale is None:
            self._adapt(overflow, torch.zeros_like(overflow) if blocked is None else blocked)
        return norm

    def _adapt(self, overflow: Tensor, blocked: Tensor) -> None:
        scale, steps = self._scale, self._steps_without_overflow
        assert scale is not None
        grown = (steps + 1) >= _GROWTH_INTERVAL
        factor = torch.where(overflow, 0.5, torch.where(grown, 2.0, 1.0))
        scale.mul_(torch.where(blocked, 1.0, factor))
        steps.copy_(torch.where(blocked, steps, torch.where(overflow | grown, 0, steps + 1)))

    @property
    def is_scaled(self) -> bool:
        """Whether overflowing gradients are part of the format: the scale follows, the step is left out."""
        return self._scale is not None

    def state_dict(self) -> dict[str, Any]:
        """State of the loss scale; empty for the other formats."""
        if self._scale is None:
            return {}
        return {"scale": self._scale, "steps_without_overflow": self._steps_without_overflow}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with a stored dynamic loss scale; a state of another format is ignored."""
        if self._scale is not None and self.loss_scale is None and "steps_without_overflow" in state:
            self._scale.fill_(float(state["scale"]))
            self._steps_without_overflow.fill_(int(state["steps_without_overflow"]))

    def scale(self) -> float | None:
        """The loss scale, None for formats that have none; reads from the device."""
        return None if self._scale is None else float(self._scale)

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
