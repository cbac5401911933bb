"""What a training asks of a model: losses of a batch and, of a model that can tell, of its parts and by its layers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from det_engine.errors import EngineError

Batch = Mapping[str, Tensor]
"""Tensors by name, with the images in their first dimension."""
Mean = Callable[[Tensor], Tensor]
"""The mean of a number (scalar tensor) over all parts of a batch, each of which calls it with what it counted."""


@runtime_checkable
class TrainableModel(Protocol):
    """An `nn.Module` whose losses of the parts of a batch are those of the whole, and that names its layers.

    A batch comes in parts where several processes train together, or where a process's images pass one after the other
    (`TrainSettings.accumulate`). The mean of the parts' losses is the loss of the whole batch if

    * a loss that is a mean over a number that follows from the data, such as positive boxes, is divided by the mean of
      that number over all parts, and not by the part's own;
    * random numbers are drawn for all images of the batch, from the same seed, and each part takes its own rows.

    A plain module, `module(batch)` alone, trains too; where it does either, its losses depend on how a batch is cut.
    """

    def forward(self, batch: Batch, part: Any = None) -> Mapping[str, Tensor]:
        """Compute the losses of a part of a batch, in training mode.

        Args:
            batch: the part's images.
            part: from `batch_part`; None: they are the whole batch.

        Returns:
            Scalars by name, the same names in every step; their sum is minimised.
        """
        ...

    def batch_part(self, index: int, count: int, mean: Mean) -> Any:
        """Make what `forward` takes as `part`; the engine does not look into it.

        Args:
            index: number of the part, from 0.
            count: how many parts of equally many images the batch has.
            mean: gives the mean over all parts of a number that each has counted. All parts call it equally often and
                in the same order, each call with another number.
        """
        ...

    def layer_groups(self) -> Sequence[tuple[str, ...]]:
        """Name the layers whose learning rate decays with their distance from the output (`SolverConfig.layer_decay`).

        Returns:
            For each layer, from the input on, what the names of its parameters begin with, such as
            `(("stem.",), ("block.",))`. Other parameters have the full rate.
        """
        ...


_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Where `torch.compile`, FSDP and activation checkpointing keep the module that they wrap; it becomes part of names."""


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside `torch.compile`, `DistributedDataParallel`, `DataParallel` and FSDP, however nested."""
    while True:
        inner = next((getattr(model, name) for name in _WRAPPERS if name in model._modules), None)
        if inner is None and isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def plain_name(name: str) -> str:
    """The name of a parameter or buffer without what wrappers of its modules have added to it."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of a model under the names that it has without wrappers, however parts of it are wrapped."""
    return {plain_name(name): tensor for name, tensor in unwrapped(model).state_dict().items()}


def as_trainable(model: object) -> TrainableModel | None:
    """Return the model if it is a `TrainableModel`, None if it is a plain module.

    Raises:
        EngineError: it has one of the two methods only, or methods of an earlier version.
    """
    if isinstance(model, TrainableModel):
        return model
    for old, now in (("as_part", "batch_part"), ("layer_prefixes", "layer_groups")):
        if hasattr(model, old):
            raise EngineError(f"{type(model).__name__} has {old}, which is {now} of det_engine.TrainableModel now.")
    for name, other in (("batch_part", "layer_groups"), ("layer_groups", "batch_part")):
        if hasattr(model, name):
            raise EngineError(
                f"{type(model).__name__} has the method {name} but not {other}; det_engine.TrainableModel says what "
                "both do."
            )
    return None


def part_arguments(model: nn.Module, place: tuple[int, int], mean: Mean) -> tuple[Any, ...]:
    """What `model`'s forward takes after the batch: the part at `place` (index, count); nothing if it is plain."""
    trainable = as_trainable(model)
    return () if trainable is None else (trainable.batch_part(*place, mean),)
