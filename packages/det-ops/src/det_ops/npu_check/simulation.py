"""A device `npu` on any PyTorch, without torch_npu and CANN: its tensors hold tensors of the CPU, which compute.

Device, dtype, shape and strides are those of an NPU tensor, so that a program takes the paths that it takes there: what
it creates on the host stays on the host, what it copies is seen as a copy, and mixing the two is an error.
"""

import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from det_ops.npu_check.facts import FLOAT32_UNDER_AUTOCAST, LOWER_UNDER_AUTOCAST

HOST = torch.device("cpu")

COPIES = ("aten::_copy_from", "aten::_to_copy", "aten::copy_")
TAKES_HOST_INDICES = ("aten::_index_put_impl_", "aten::index", "aten::index_put", "aten::index_put_")

_DATA: Any = vars(torch._C.TensorBase)["data"]
_active: list["Simulation"] = []
_kept: list[torch.library.Library] = []


class NpuCheckError(ValueError):
    """The check was asked for something that it cannot do."""


class SimulatedTensor(Tensor):
    """A tensor of the simulated device.

    Attributes:
        held: its values, a tensor on the CPU of the same shape, strides and dtype.
    """

    held: Tensor

    __torch_function__: Any = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> "SimulatedTensor":
        """A tensor of the device that looks like `held`."""
        self = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=torch.device("npu", 0),
        )
        self.held = held
        return self

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):  # pyrefly: ignore[bad-override]
        return execute(func, args, kwargs or {})

    @property
    def data(self) -> Tensor:
        """The tensor, of the same shape and memory, without its history."""
        return _DATA.__get__(self)

    @data.setter
    def data(self, value: Tensor) -> None:
        _DATA.__set__(self, value)
        if isinstance(value, SimulatedTensor):
            self.held = value.held

    def tolist(self) -> Any:
        """The numbers as Python's, read by the host."""
        return self.cpu().tolist()

    def __repr__(self, **_: Any) -> str:
        return f"{self.detach().cpu()!r}"[:-1] + ", device='npu:0')"


def mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """Arguments or results of an operator with `function` applied to each; much faster than PyTorch's trees."""
    if isinstance(value, list | tuple):
        return type(value)([mapped(function, item) for item in value])
    if isinstance(value, dict):
        return {name: mapped(function, item) for name, item in value.items()}
    return function(value)


def leaves(value: Any) -> Iterator[Any]:
    """All arguments of an operator."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from leaves(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from leaves(item)
    else:
        yield value


def tensors(value: Any) -> list[Tensor]:
    """The tensors, of any shape, among the arguments of an operator."""
    return [leaf for leaf in leaves(value) if isinstance(leaf, Tensor)]


def is_npu(value: object) -> bool:
    """Whether an argument of an operator is on the device, or names it."""
    return isinstance(value, SimulatedTensor) or (isinstance(value, torch.device) and value.type == "npu")


def execute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operator some of whose arguments are on the device.

    Raises:
        RuntimeError: as on an NPU, tensors of the host among those of the device.
    """
    name = func._schema.name
    if name == "aten::_has_compatible_shallow_copy_type":
        return isinstance(args[0], SimulatedTensor) and isinstance(args[1], SimulatedTensor)
    if name == "aten::_copy_from":
        _held(args[1]).copy_(_held(args[0]))
        return args[1]
    found = tensors((args, kwargs))
    given = [leaf for leaf in found if isinstance(leaf, SimulatedTensor)]
    if given and name not in (*COPIES, *TAKES_HOST_INDICES):
        for leaf in found:
            if not isinstance(leaf, SimulatedTensor) and leaf.ndim > 0:
                raise RuntimeError(
                    f"Expected all tensors to be on the same device, but found at least two devices, npu:0 and "
                    f"{leaf.device}! ({name}, {str(leaf.dtype).removeprefix('torch.')}{list(leaf.shape)} on the host)"
                )
    owner = {id(tensor.held): tensor for tensor in given}
    held_args, held_kwargs = mapped(_held, args), mapped(_held, kwargs)
    out = func(*held_args, **held_kwargs)
    for tensor in given:
        held = tensor.held
        if held.shape != tensor.shape or held.stride() != tensor.stride():
            # Resized, or viewed in place.
            tensor.data = SimulatedTensor(held)
    if name in COPIES and not ends(name, args, kwargs)[1]:
        return out

    def place(value: object) -> object:
        if not isinstance(value, Tensor):
            return value
        return owner[id(value)] if id(value) in owner else SimulatedTensor(value)

    return mapped(place, out)


def ends(name: str, args: Any, kwargs: dict[str, Any]) -> tuple[bool, bool]:
    """Whether source and target of one of the `COPIES` are on the device."""
    if name == "aten::_to_copy":
        source, device = isinstance(args[0], SimulatedTensor), kwargs.get("device")
        return source, source if device is None else is_npu(torch.device(device))
    source, target = args[:2] if name == "aten::_copy_from" else args[1::-1]
    return isinstance(source, SimulatedTensor), isinstance(target, SimulatedTensor)


def has_host_indices(name: str, args: Any) -> bool:
    """Whether a tensor of the device is indexed with one of the host."""
    return name in TAKES_HOST_INDICES and any(not isinstance(leaf, SimulatedTensor) for leaf in tensors(args[1]))


def _held(value: Any) -> Any:
    if isinstance(value, SimulatedTensor):
        return value.held
    return HOST if is_npu(value) else value


class Simulation(TorchDispatchMode):
    """A mode in which tensors can be made on the device, and operators on them run."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not any(map(is_npu, leaves((args, kwargs)))):
            return func(*args, **kwargs)
        return self.run(func, args, kwargs)

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run an operator on the device."""
        return execute(func, args, kwargs)


class _Anything:
    """What programs call or set on `torch.npu` beyond what they read: does nothing."""

    def __call__(self, *_: Any, **__: Any) -> None:
        return None

    def __getattr__(self, name: str) -> "_Anything":
        if name.startswith("__"):
            raise AttributeError(name)
        return self


class _Module(types.ModuleType):
    """`torch.npu`."""

    soc = ""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def _is_in_bad_fork(self) -> bool:
        return False

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]

    def is_bf16_supported(self) -> bool:
        return True

    def get_rng_state(self, _device: object = None) -> Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: Tensor, _device: object = None) -> None:
        torch.set_rng_state(state)

    def get_device_name(self, _device: object = None) -> str:
        return self.soc

    def max_memory_allocated(self, _device: object = None) -> int:
        return 0

    def __getattr__(self, name: str) -> _Anything:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything()


@contextmanager
def active(mode: Simulation) -> Iterator[None]:
    """Tensors can be made on the device inside the block."""
    _active.append(mode)
    try:
        with mode:
            yield
    finally:
        _active.pop()


def install(soc: str) -> None:
    """Make the device known to this process, once and for all.

    Raises:
        NpuCheckError: torch_npu is loaded, which has a device of that name.
    """
    _Module.soc = soc
    if _kept:
        return
    if "torch_npu" in sys.modules:
        raise NpuCheckError(
            "torch_npu is loaded, whose device is in the way: set TORCH_DEVICE_BACKEND_AUTOLOAD=0 in the environment"
        )
    _setup_privateuseone_for_python_backend("npu", backend_module=_Module("torch.npu"))
    # As for plain tensors of a device.
    optimizer._foreach_supported_types.append(SimulatedTensor)
    # Nothing allocates page-locked memory here.
    setattr(Tensor, "pin_memory", lambda tensor, *_, **__: tensor)  # noqa: B010 - the type checker knows it as a method
    aten = torch.library.Library("aten", "IMPL")
    for name in ("empty.memory_format", "empty_strided", "_copy_from"):
        aten.impl(name, _without_mode(name), "PrivateUse1")
    _kept.append(aten)
    _autocast()


def _without_mode(name: str) -> Callable[..., Any]:
    """What PyTorch calls with modes switched off, as the copy in `torch.tensor(..., device="npu")`."""
    func = _operator(name)
    return lambda *args, **kwargs: (_active[-1].run if _active else execute)(func, args, kwargs)


def _operator(name: str) -> Any:
    base, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, base), overload or "default")


def _autocast() -> None:
    """The policies of torch_npu: convolutions and products in half precision, what loses by it in float32."""
    everything = torch.library.Library("_", "IMPL")
    everything.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    aten = torch.library.Library("aten", "IMPL")
    _kept.extend((everything, aten))

    keys = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, "AutocastPrivateUse1"))  # noqa: B009 - not in its types

    def policy(name: str, lower: bool) -> None:
        func = _operator(name)

        def cast(*args: Any, **kwargs: Any) -> Any:
            dtype = torch.get_autocast_dtype("npu") if lower else torch.float32

            def to(value: object) -> object:
                castable = isinstance(value, SimulatedTensor) and value.is_floating_point()
                return value.to(dtype) if castable and value.dtype != torch.float64 else value

            args, kwargs = mapped(to, (args, kwargs))
            with torch._C._ExcludeDispatchKeyGuard(keys):
                return func(*args, **kwargs)

        aten.impl(name, cast, "AutocastPrivateUse1")

    for name in LOWER_UNDER_AUTOCAST:
        policy(name, lower=True)
    for name in FLOAT32_UNDER_AUTOCAST:
        policy(name, lower=False)
