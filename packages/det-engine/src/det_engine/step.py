"""One step of a training: forward, losses, backward, exchange, optimizer, average; nothing is read from the device.

A step sees `parts` parts of its images: `accumulate` in each process, one after the other. Its losses and gradients are
those of one pass over all images. Gradients are the mean over all parts, which hold equally many images, and random
numbers are a function of seed and step; what a model does for it is said in `TrainableModel`.
"""

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from det_engine import distributed
from det_engine.capture import Captured, graph_pool
from det_engine.ema import AveragedWeights
from det_engine.errors import EngineError
from det_engine.masters import Masters
from det_engine.model import Batch, Mean, as_trainable, part_arguments
from det_engine.optim import build_optimizer, set_lr
from det_engine.precision import Precision
from det_engine.random_state import mixed_seed
from det_engine.settings import TrainSettings
from det_engine.solver import SolverConfig


class TrainStep:
    """The step, and what it changes: weights, their masters and average, optimizer, loss scale.

    After a step whose loss is not finite or explodes, or whose gradients are not finite in a format without loss
    scale, it changes nothing any more until `unblock`: the weights stay those before that step, however late the host
    looks.

    Attributes:
        model: the module, on its device.
        optimizer: over the trainable parameters, or their masters.
        precision: number format.
        masters: with O2, else None.
        average: moving average of the weights, or None.
    """

    def __init__(self, model: nn.Module, solver: SolverConfig, settings: TrainSettings, device: torch.device) -> None:
        self.device = device
        self._settings, self._solver = settings, solver
        self.precision = Precision(settings.precision, device, settings.loss_scale)
        self.model = model.to(device)
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
        self._statistics = _Statistics(self.model)
        self._network = self._parallel()
        self._knows_parts = as_trainable(model) is not None
        self._names: tuple[str, ...] | None = None
        self._row: Tensor | None = None
        self.blocked = torch.zeros((), dtype=torch.bool, device=device)
        self.limit = torch.full((), torch.inf, device=device)
        self._counts: Callable[[Batch, int], Tensor] = self._part_counts
        self._accumulate: Callable[[Batch, Tensor, int], None] = self._part
        self._finish: Callable[[], Tensor] = self._update
        if settings.capture:
            if distributed.world_size() > 1 and self._is_synchronised:
                raise EngineError(
                    "Batch norm over several processes exchanges statistics within the step, which cannot be captured; "
                    "leave out --train.capture or take another norm."
                )
            pool = graph_pool(device)
            self._counts = Captured(self._part_counts, device, pool, self._rehearsed)
            self._accumulate = Captured(self._part, device, pool, self._rehearsed)
            self._finish = Captured(self._update, device, pool, self._rehearsed)
            for parameter in self._trained:
                parameter.grad = torch.zeros_like(parameter)

    def _parallel(self) -> nn.Module:
        """The model, whose gradients are exchanged while others are still computed, if torch can do that."""
        if (
            self._settings.capture  # see `_count`
            or distributed.world_size() == 1
            or (self._is_synchronised and self.device.type == "cpu")  # which it refuses
        ):
            return self.model
        device_ids = None if self.device.type == "cpu" else [self.device.index]
        for parameter in self._trained:
            if parameter.ndim > 2 and parameter[0, 0].numel() == 1:
                parameter.register_hook(functools.partial(_with_strides_of, parameter))
        with warnings.catch_warnings():
            # The name that replaces broadcast_buffers does not exist in the oldest torch that is supported.
            warnings.simplefilter("ignore", FutureWarning)
            return nn.parallel.DistributedDataParallel(
                self.model, device_ids=device_ids, broadcast_buffers=False, gradient_as_bucket_view=True
            )

    @property
    def _is_synchronised(self) -> bool:
        return any(isinstance(module, nn.SyncBatchNorm) for module in self.model.modules())

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the values of a step: the loss terms, the gradients' norm, and whether nothing was changed."""
        return (*(self._names or ()), "grad_norm", "blocked")

    def tensors(self) -> dict[str, Tensor]:
        """State of the model by name, in full precision."""
        tensors = self.model.state_dict()
        return tensors if self.masters is None else self.masters.substitute(tensors)

    def __call__(self, batch: Batch, step: int, lr: float) -> Tensor:
        """Make one step.

        Args:
            batch: this process's images, on any device.
            step: number of finished steps; decides on the random numbers.
            lr: learning rate.

        Returns:
            The values that `names` names, over all images; float32 on the device.
        """
        parts = self.parts(batch, step)
        set_lr(self.optimizer, lr)
        if not self._settings.capture:
            for parameter in self._trained:
                parameter.grad = None
        for number, (part, totals) in enumerate(parts):
            torch.manual_seed(self.seed(step, number))
            # Gradients are exchanged once, with the last part.
            wait = self._network is not self.model and number + 1 < len(parts)
            with cast(Any, self._network).no_sync() if wait else contextlib.nullcontext():
                self._accumulate(part, totals, number)
        if self._network is self.model:
            self.exchange()
        if self._row is not None:
            distributed.mean(self._row)
        return self._finish().clone()

    def exchange(self) -> None:
        """Replace the gradients by their mean over all processes."""
        distributed.exchange_gradients([p.grad for p in self._trained if p.grad is not None])

    def parts(self, batch: Batch, step: int) -> list[tuple[dict[str, Tensor], Tensor]]:
        """This process's parts of a step, each with what its losses are divided by (empty: found on the way)."""
        parts = self._split(batch)
        return list(zip(parts, self._count(parts, step), strict=True))

    def _split(self, batch: Batch) -> list[dict[str, Tensor]]:
        count = self._settings.accumulate
        on_device = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
        if count == 1:
            return [on_device]
        sizes = {len(value) for value in on_device.values()}
        if len(sizes) != 1 or max(sizes) % count:
            raise EngineError(f"A batch of {max(sizes)} images in a process cannot be cut into {count} equal parts.")
        pieces = {name: value.tensor_split(count) for name, value in on_device.items()}
        return [{name: piece[number] for name, piece in pieces.items()} for number in range(count)]

    def place(self, number: int = 0) -> tuple[int, int]:
        """Index of this process's part `number` among all parts of a step, and their count."""
        parts = self._settings.accumulate
        return distributed.rank() * parts + number, distributed.world_size() * parts

    def seed(self, step: int, number: int) -> int:
        """Seed of the random numbers of this process's part `number` of a step."""
        # A model that knows of parts takes its rows of the same numbers; others must not repeat themselves.
        own = 0 if self._knows_parts else self.place(number)[0]
        return mixed_seed(self._settings.seed, step, own)

    def _count(self, parts: list[dict[str, Tensor]], step: int) -> list[Tensor]:
        """What the parts' losses are divided by, where that is not known before all parts were seen.

        It takes a pass of its own, without gradients, which only steps of models with such losses make, and of these
        only accumulated ones, and captured ones in several processes: processes record and replay graphs at different
        steps, as batches of new shapes come to them, and would wait for each other for ever if they met in a graph.
        """
        empty = torch.zeros(0, device=self.device)
        met_in_graph = self._settings.capture and distributed.world_size() > 1
        if not self._knows_parts or (len(parts) == 1 and not met_in_graph):
            return [empty] * len(parts)
        counted = []
        for number, part in enumerate(parts):
            torch.manual_seed(self.seed(step, number))
            counted.append(self._counts(part, number).clone())
        self._statistics.restore()
        totals = torch.stack(counted).mean(0)
        return [distributed.mean(totals) if len(totals) else empty] * len(parts)

    def _part_counts(self, part: Batch, number: int) -> Tensor:
        """What this process's part `number` counts."""
        seen: list[Tensor] = []
        with torch.no_grad():
            self._losses(self.model, part, number, functools.partial(_note, seen))
        return torch.stack(seen) if seen else torch.zeros(0, device=self.device)

    def _part(self, part: Batch, totals: Tensor, number: int) -> None:
        """Forward and backward of this process's part `number`."""
        remaining = iter(totals)

        def mean(count: Tensor) -> Tensor:
            if len(totals):
                return next(remaining)
            return distributed.mean(count.detach().float().clone())

        losses = self._losses(self._network, part, number, mean)
        terms = torch.stack([value.float() for value in losses.values()]) / self._settings.accumulate
        self.precision.backward(terms.sum())
        row = terms.detach()
        if self._row is None:
            self._row = torch.zeros_like(row)
        self._row += row

    def _losses(self, network: nn.Module, part: Batch, number: int, mean: Mean) -> dict[str, Tensor]:
        with self.precision.autocast():
            losses = network(part, *part_arguments(self.model, self.place(number), mean))
        _check_form(losses)
        if self._names is None:
            self._names = tuple(losses)
        elif self._names != tuple(losses):
            raise EngineError(f"The model returned the losses {list(losses)} after {list(self._names)}.")
        return losses

    @torch.no_grad()
    def _update(self) -> Tensor:
        """Optimizer step with the gradients as they are; the values of the step."""
        assert self._row is not None
        loss = self._row.sum()
        blocked = self.blocked | ~torch.isfinite(loss) | (loss > self.limit)
        if self._settings.explosion:
            first = self._settings.explosion * loss.clamp(min=1)
            self.limit.copy_(torch.where(torch.isinf(self.limit) & ~blocked, first, self.limit))
        if self.masters is not None:
            self.masters.take_gradients()
        norm = self.precision.step(self.optimizer, self._solver.clip_norm, blocked)
        if not self.precision.is_scaled:
            blocked = blocked | ~torch.isfinite(norm)
        self.blocked.copy_(blocked)
        if self.masters is not None:
            self.masters.publish()
        self._statistics.keep(blocked)
        if self.average is not None:
            self.average.update(~blocked)
        values = torch.cat([self._row, torch.stack([norm, blocked.float()])])
        self._row.zero_()
        if self._settings.capture:
            torch._foreach_zero_([cast(Tensor, parameter.grad) for parameter in self._trained])
        return values

    @contextlib.contextmanager
    def _rehearsed(self) -> Iterator[None]:
        """A block that may run parts and updates, as the capture of a graph needs it, and leaves no trace."""
        before = self.blocked.clone(), self.limit.clone(), None if self._row is None else self._row.clone()
        kept = [parameter.grad.clone() for parameter in self._trained if parameter.grad is not None]
        self.blocked.fill_(True)
        try:
            yield
        finally:
            self.blocked.copy_(before[0])
            self.limit.copy_(before[1])
            if self._row is not None:
                self._row.zero_() if before[2] is None else self._row.copy_(before[2])
            torch._foreach_copy_([cast(Tensor, parameter.grad) for parameter in self._trained], kept)
            self._statistics.restore()

    def unblock(self) -> None:
        """Go on after a blocked step, as if it and the later ones had not been."""
        self.blocked.fill_(False)
        self._statistics.restore()

    def take_statistics(self) -> None:
        """Hold the present batch statistics for good, after they were loaded."""
        self._statistics.take()

    def same_everywhere(self) -> None:
        """Give every process rank 0's buffers, such as batch statistics, which are each process's own in a step."""
        if distributed.world_size() > 1:
            for buffer in self.model.buffers():
                torch.distributed.broadcast(buffer, 0)
            self._statistics.take()


class _Statistics:
    """The running statistics of batch normalisation after the last good step, those of one type in one tensor."""

    def __init__(self, model: nn.Module) -> None:
        live: dict[torch.dtype, list[Tensor]] = {}
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
                for tensor in (module.running_mean, module.running_var, module.num_batches_tracked):
                    live.setdefault(cast(Tensor, tensor).dtype, []).append(cast(Tensor, tensor))
        self._groups = [(_joined(tensors), tensors) for tensors in live.values()]

    def keep(self, blocked: Tensor) -> None:
        """Take the present ones, unless the step was blocked."""
        for good, live in self._groups:
            good.copy_(torch.where(blocked, good, _joined(live)))

    def take(self) -> None:
        """Take the present ones."""
        for good, live in self._groups:
            good.copy_(_joined(live))

    def restore(self) -> None:
        """Bring the model back to them."""
        for good, live in self._groups:
            pieces = good.split([tensor.numel() for tensor in live])
            torch._foreach_copy_(live, [piece.view_as(tensor) for piece, tensor in zip(pieces, live, strict=True)])


def _joined(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def _note(seen: list[Tensor], count: Tensor) -> Tensor:
    seen.append(count.detach().float().clone())
    return count


def _with_strides_of(parameter: Tensor, gradient: Tensor) -> Tensor:
    """The gradient of a 1x1 kernel as the parameter lies in memory, which is what buckets of gradients are made for.

    One that a model uses as a matrix has a gradient in the same order, but with other strides where the size is 1.
    """
    same = gradient.is_contiguous() and parameter.is_contiguous()
    return gradient.as_strided(parameter.size(), parameter.stride()) if same else gradient


def _check_form(losses: object) -> None:
    if not isinstance(losses, Mapping) or not losses:
        raise EngineError(f"In training the model must return a dict of scalar losses, got {type(losses).__name__}.")
    for name, value in losses.items():
        if not isinstance(value, Tensor) or value.ndim:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise EngineError(f"Loss {name} must be a scalar tensor, got {got}.")
