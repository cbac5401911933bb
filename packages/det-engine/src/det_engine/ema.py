"""An exponential moving average of the weights."""

import contextlib
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor


class AveragedWeights:
    """`average <- decay * average + (1 - decay) * now` after every step, starting from the first weights.

    Args:
        now: the tensors to average by name, floating ones; they are looked at in place.
        decay: between 0 and 1, such as 0.9998.
        changed: called after the tensors were given other values here.
    """

    def __init__(self, now: Mapping[str, Tensor], decay: float, changed: Callable[[], None] = lambda: None) -> None:
        self._now = {name: tensor for name, tensor in now.items() if tensor.is_floating_point()}
        self._average = {name: tensor.detach().clone() for name, tensor in self._now.items()}
        self._rest = 1 - decay
        self._changed = changed

    @torch.no_grad()
    def update(self, counts: Tensor) -> None:
        """Average in the present values.

        Args:
            counts: bool scalar on the tensors' device; where False nothing changes.
        """
        weight = counts * self._rest
        average = list(self._average.values())
        now = [tensor.detach() for tensor in self._now.values()]
        torch._foreach_lerp_(average, now, [weight.to(tensor.dtype) for tensor in average])

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """A block, such as an evaluation, in which the model has the averaged weights."""
        own = [tensor.detach().clone() for tensor in self._now.values()]
        self._give(list(self._average.values()))
        try:
            yield
        finally:
            self._give(own)

    @torch.no_grad()
    def _give(self, values: list[Tensor]) -> None:
        torch._foreach_copy_([tensor.detach() for tensor in self._now.values()], values)
        self._changed()

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by name."""
        return dict(self._average)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from stored averages."""
        for name, tensor in self._average.items():
            tensor.copy_(state[name])
