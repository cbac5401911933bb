"""A function recorded once per shape of its arguments and replayed: CUDA graphs, NPU graphs, and eager elsewhere."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from det_engine.errors import EngineError
from det_engine.random_state import fork_rng

T = TypeVar("T")
_MOST_GRAPHS = 16
_WARM_UPS = 3


class Graph(Protocol):
    """What can be replayed."""

    output: Any
    """What the recorded function returned: the same tensors, filled anew by every replay."""

    def record(self, function: Callable[[], Any]) -> None:
        """Record what `function` does, without doing it."""

    def replay(self) -> None:
        """Do what was recorded."""


class EagerGraph:
    """Stands in where a device has no graphs: calls the function instead of replaying it."""

    output: Any = None

    def record(self, function: Callable[[], Any]) -> None:
        """Remember `function`."""
        self._function = function

    def replay(self) -> None:
        """Call it."""
        self.output = self._function()


class DeviceGraph:
    """`torch.cuda.CUDAGraph` or `torch.npu.NPUGraph`; `pool` is memory that the graphs of a step share."""

    def __init__(self, device: torch.device, pool: Any) -> None:
        self._module = torch.get_device_module(device)
        self._graph = self._module.NPUGraph() if device.type == "npu" else self._module.CUDAGraph()
        self._pool = pool
        self.output: Any = None

    def record(self, function: Callable[[], Any]) -> None:
        """Record the kernels that `function` launches."""
        # Other threads, such as one that pins the next batch's memory, go on meanwhile.
        with self._module.graph(self._graph, pool=self._pool, capture_error_mode="thread_local"):
            self.output = function()

    def replay(self) -> None:
        """Launch them all."""
        self._graph.replay()


def graph_pool(device: torch.device) -> Any:
    """Memory that several graphs can share; None on the CPU."""
    return None if device.type == "cpu" else torch.get_device_module(device).graph_pool_handle()


class Captured(Generic[T]):
    """Calls `function` by replaying a graph of it, one for each combination of shapes and other arguments.

    A combination beyond the first 16 runs eagerly. What a call returns is overwritten by the next one.

    Args:
        function: takes tensors, dicts of tensors, and plain values; reads nothing from the device.
        device: where it runs.
        pool: from `graph_pool`.
        warm_up: makes a block in which the function may be called without lasting effect, as libraries have to
            choose their kernels and allocate their state before a capture.
    """

    def __init__(
        self,
        function: Callable[..., T],
        device: torch.device,
        pool: Any,
        warm_up: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._function, self._device, self._pool, self._warm_up = function, device, pool, warm_up
        self._graphs: dict[Any, tuple[Graph, tuple[Any, ...]]] = {}

    def __call__(self, *args: Any) -> T:
        """The function's result for `args`."""
        key = _key(args)
        if key not in self._graphs:
            if len(self._graphs) == _MOST_GRAPHS:
                return self._function(*args)
            self._graphs[key] = self._record(args)
        graph, inputs = self._graphs[key]
        _copy(inputs, args)
        graph.replay()
        return graph.output

    def _record(self, args: tuple[Any, ...]) -> tuple[Graph, tuple[Any, ...]]:
        inputs = _clone(args)
        with self._warm_up(), fork_rng(self._device):
            if self._device.type == "cpu":
                self._function(*inputs)
                graph: Graph = EagerGraph()
            else:
                module = torch.get_device_module(self._device)
                stream = module.Stream()
                stream.wait_stream(module.current_stream())
                with module.stream(stream):
                    for _ in range(_WARM_UPS):
                        self._function(*inputs)
                module.current_stream().wait_stream(stream)
                graph = DeviceGraph(self._device, self._pool)
            try:
                graph.record(lambda: self._function(*inputs))
            except RuntimeError as error:
                raise EngineError(
                    f"The training step cannot be captured ({str(error).strip().splitlines()[0]}); train "
                    "without capture."
                ) from error
        return graph, inputs


class StepGraphs:
    """Captures the functions of one step, whose graphs share memory.

    Args:
        device: where they run.
        warm_up: see `Captured`.
    """

    def __init__(self, device: torch.device, warm_up: Callable[[], AbstractContextManager[None]]) -> None:
        self._device, self._pool, self._warm_up = device, graph_pool(device), warm_up

    def __call__(self, function: Callable[..., T]) -> Captured[T]:
        """Return `function`, captured."""
        return Captured(function, self._device, self._pool, self._warm_up)


def _key(value: Any) -> Any:
    if isinstance(value, Tensor):
        return (tuple(value.shape), value.dtype)
    if isinstance(value, Mapping):
        return tuple((name, _key(item)) for name, item in value.items())
    return tuple(map(_key, value)) if isinstance(value, tuple) else value


def _clone(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, Mapping):
        return {name: _clone(item) for name, item in value.items()}
    return tuple(map(_clone, value)) if isinstance(value, tuple) else value


def _copy(targets: Any, sources: Any) -> None:
    if isinstance(targets, Tensor):
        targets.copy_(sources, non_blocking=True)
    elif isinstance(targets, Mapping):
        for name, target in targets.items():
            _copy(target, sources[name])
    elif isinstance(targets, tuple):
        for target, source in zip(targets, sources, strict=True):
            _copy(target, source)
