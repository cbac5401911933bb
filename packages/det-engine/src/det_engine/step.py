"""One step of a training: forward, losses, backward, exchange, optimizer, average; nothing is read from the device."""

import contextlib
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from det_engine import distributed, gradients
from det_engine.accumulation import Accumulation
from det_engine.capture import StepGraphs
from det_engine.ema import AveragedWeights
from det_engine.errors import EngineError
from det_engine.guard import Guard
from det_engine.masters import Masters
from det_engine.model import Batch, plain_state, unwrapped
from det_engine.optim import build_optimizer, freeze, set_lr
from det_engine.precision import Precision
from det_engine.settings import TrainSettings
from det_engine.solver import SolverConfig


class TrainStep:
    """The step, and what it changes: weights, their masters and average, optimizer, loss scale.

    After a step whose loss is not finite or explodes, or whose gradients are not finite in a format without loss
    scale, it changes nothing any more until `guard.unblock`: the weights stay those before that step, however late the
    host looks.

    Args:
        model: see `train`; moved to `device`.
        solver: optimizer recipe.
        settings: precision, micro-batches, capture, seed.
        device: where the step runs.

    Attributes:
        model: the module, on its device, without what wraps it.
        optimizer: over the trainable parameters, or their masters.
        precision: number format.
        masters: with O2, else None.
        average: moving average of the weights, or None.
        guard: what keeps a broken step from changing anything.
        accumulation: cuts a batch into micro-batches, and makes their losses and gradients.

    Raises:
        EngineError: a step that cannot be captured, or wrong settings.
    """

    def __init__(self, model: nn.Module, solver: SolverConfig, settings: TrainSettings, device: torch.device) -> None:
        self.device = device
        self._captures, self._clip_norm = settings.capture, solver.clip_norm
        self.precision = Precision(settings.precision, device, settings.loss_scale)
        self.model = unwrapped(model.to(device))
        freeze(self.model, settings.freeze)
        half = self.precision.weights
        self.masters = None if half == torch.float32 else Masters(self.model, half)
        self.optimizer = build_optimizer(
            self.model,
            solver,
            masters=None if self.masters is None else self.masters.of,
            lr_on=device if settings.capture else None,
        )
        self._trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.average = None
        if solver.ema_decay is not None:
            publish = (lambda: None) if self.masters is None else self.masters.publish
            self.average = AveragedWeights(self.tensors(), solver.ema_decay, publish)
        self.guard = Guard(self.model, settings.explosion, device)
        record: Any = StepGraphs(device, self._warm_up) if settings.capture else lambda function: function
        # Gradients are exchanged here, and not by a wrapper that the user has made.
        network = model.module if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel) else model
        if settings.capture:
            self._prepare_capture()
        else:
            network = gradients.data_parallel(network, device)
        self._parallel = network if isinstance(network, nn.parallel.DistributedDataParallel) else None
        self.accumulation = Accumulation(network, self.precision, settings, self.guard.statistics, record)
        self._finish = record(self._update)

    def _prepare_capture(self) -> None:
        if distributed.world_size() > 1 and gradients.is_synchronised(self.model):
            raise EngineError(
                "Batch norm over several processes exchanges statistics within the step, which cannot be captured; "
                "train without capture, or take another norm."
            )
        for parameter in self._trained:
            parameter.grad = torch.zeros_like(parameter)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the values of a step: the loss terms, the gradients' norm, and whether nothing was changed."""
        return (*(self.accumulation.names or ()), "grad_norm", "blocked")

    def tensors(self) -> dict[str, Tensor]:
        """State of the model by name, in full precision."""
        tensors = plain_state(self.model)
        return tensors if self.masters is None else self.masters.substitute(tensors)

    def __call__(self, batch: Batch, step: int, lr: float) -> Tensor:
        """Make one step.

        Args:
            batch: this process's images, on any device.
            step: number of finished steps; decides on the random numbers.
            lr: learning rate.

        Returns:
            The values that `names` names, over all images; float32 `[N]` on the device, one for each name.
        """
        set_lr(self.optimizer, lr)
        if not self._captures:
            for parameter in self._trained:
                parameter.grad = None
        micro_batches = self.accumulation.micro_batches(batch, step)
        for number, (images, means) in enumerate(micro_batches):
            torch.manual_seed(self.accumulation.seed(step, number))
            # Gradients are exchanged once, with the last micro-batch.
            wait = self._parallel is not None and number + 1 < len(micro_batches)
            with cast(Any, self._parallel).no_sync() if wait else contextlib.nullcontext():
                self.accumulation.backward(images, means, number)
        if self._parallel is None:
            self.exchange()
        distributed.all_reduce_mean(self._losses)
        return self._finish().clone()

    @property
    def _losses(self) -> Tensor:
        assert self.accumulation.row is not None
        return self.accumulation.row

    def exchange(self) -> None:
        """Replace the gradients by their mean over all processes."""
        gradients.exchange([p.grad for p in self._trained if p.grad is not None])

    @torch.no_grad()
    def _update(self) -> Tensor:
        """Optimizer step with the gradients as they are; the values of the step."""
        blocked = self.guard.judge(self._losses.sum())
        if self.masters is not None:
            self.masters.take_gradients()
        norm = self.precision.step(self.optimizer, self._clip_norm, blocked)
        if not self.precision.is_scaled:
            blocked = blocked | ~torch.isfinite(norm)
        if self.masters is not None:
            self.masters.publish()
        self.guard.settle(blocked)
        if self.average is not None:
            self.average.update(~blocked)
        values = torch.cat([self._losses, torch.stack([norm, blocked.float()])])
        self._losses.zero_()
        if self._captures:
            torch._foreach_zero_([cast(Tensor, parameter.grad) for parameter in self._trained])
        return values

    @contextlib.contextmanager
    def _warm_up(self) -> Iterator[None]:
        """A block that may run passes and updates, as the capture of a graph needs it, and leaves no trace."""
        kept = [parameter.grad.clone() for parameter in self._trained if parameter.grad is not None]
        with self.guard.closed(), self.accumulation.warm_up():
            try:
                yield
            finally:
                torch._foreach_copy_([cast(Tensor, parameter.grad) for parameter in self._trained], kept)

    def same_everywhere(self) -> None:
        """Give every process rank 0's buffers, such as batch statistics, which are each process's own in a step."""
        if distributed.world_size() > 1:
            for buffer in self.model.buffers():
                torch.distributed.broadcast(buffer, 0)
            self.guard.statistics.take()
