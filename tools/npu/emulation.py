"""Runs operators through torch_npu's own host code, computes them on the CPU, and writes down what happened.

The memory of the stand-in's device is the host's, so that the CPU works on the very tensors that torch_npu has made.
"""

import ctypes
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

import det_ops
from det_ops.npu_check.facts import DYNAMIC, INDEXING
from det_ops.reference import roi_align as reference
from tools.npu.attention import fusion_attention, fusion_attention_grad, fusion_attention_v1

_DTYPES = {
    torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16", torch.float64: "f64", torch.bool: "bool",
    torch.int64: "i64", torch.int32: "i32", torch.int16: "i16", torch.int8: "i8", torch.uint8: "u8",
}  # fmt: skip
# Made, or looked at in another way, but not computed.
_PLAIN = {
    f"aten::{name}"
    for name in (
        "empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided", "record_stream", "detach", "alias",
        "set_", "resize_", "_reshape_alias",
    )
}  # fmt: skip


def _roi_align(
    features: Tensor, rois: Tensor, scale: float, height: int, width: int, samples: int, mode: int
) -> Tensor:
    boxes = rois[:, 1:] if mode != 1 else rois[:, 1:] + rois.new_tensor([0, 0, 1, 1])
    index = rois[:, 0].long()
    levels = torch.zeros_like(index)
    return reference.multilevel_roi_align(
        [features], boxes, index, levels, height, width, [scale], samples, mode == 2, True
    )


def _roi_align_backward(
    grad: Tensor, rois: Tensor, shape: list[int], _width: int, _height: int, scale: float, samples: int, mode: int = 1
) -> Tensor:
    boxes = rois[:, 1:] if mode != 1 else rois[:, 1:] + rois.new_tensor([0, 0, 1, 1])
    index = rois[:, 0].long()
    return reference.multilevel_roi_align_backward(
        grad, boxes, index, torch.zeros_like(index), [shape[2]], [shape[3]], shape[0], [scale], samples, mode == 2
    )[0]


def _cross_entropy_backward(
    grad: Tensor, logits: Tensor, target: Tensor, weight: Tensor | None, pos_weight: Tensor | None, reduction: int
) -> Tensor:
    if pos_weight is not None:
        raise NotImplementedError("weights of positives")
    slope = (logits.sigmoid() - target) * grad
    if weight is not None:
        slope = slope * weight
    return slope / logits.numel() if reduction == 1 else slope  # 1: mean


def _l1_backward(grad: Tensor, values: Tensor, target: Tensor, reduction: int) -> Tensor:
    slope = (values - target).sign() * grad
    return slope / values.numel() if reduction == 1 else slope


def _gather_backward(grad: Tensor, shape: list[int], dim: int, index: Tensor, _sparse: bool) -> Tensor:
    return grad.new_zeros(shape).scatter_add_(dim, index, grad)


def _nms(
    boxes: Tensor, scores: Tensor, most: int, threshold: Tensor, least: Tensor, _pad: bool
) -> tuple[Tensor, Tensor]:
    found, kept = det_ops.nms(boxes, scores, float(threshold), max_output=most, valid=scores > least)
    return found.int(), kept.sum().int()


def _matmul_backward(grad: Tensor, one: Tensor, other: Tensor, mask: list[bool]) -> tuple[Tensor | None, ...]:
    """The gradients of a product of (batches of) matrices, which PyTorch has as one operator for other backends."""
    wanted_one, wanted_other = mask
    return (
        (grad @ other.mT).sum_to_size(one.shape) if wanted_one else None,
        (one.mT @ grad).sum_to_size(other.shape) if wanted_other else None,
    )


_VENDOR: dict[str, Callable[..., Any]] = {
    "aten::matmul_backward": _matmul_backward,
    "npu::l1_loss_backward": _l1_backward,
    "npu::npu_fusion_attention": fusion_attention_v1,
    "npu::npu_fusion_attention_grad": fusion_attention_grad,
    "npu::npu_fusion_attention_grad_v3": fusion_attention_grad,
    "npu::npu_fusion_attention_v3": fusion_attention,
    "npu::npu_binary_cross_entropy_with_logits_backward": _cross_entropy_backward,
    "npu::npu_gather_backward": _gather_backward,
    "npu::npu_nms_v4": _nms,
    "npu::npu_roi_align": _roi_align,
    "npu::npu_roi_alignbk": _roi_align_backward,
}
"""What operators compute that are torch_npu's own, or that PyTorch does not compute on a CPU."""

_BEGINS = "capture begins"

_PLACES: dict[int, Tensor] = {}
"""The CPU's indices of a max-pooling by the address of torch_npu's."""


class Emulation(TorchDispatchMode):
    """While it is active, operators on `npu` compute.

    Attributes:
        lines: what the operators of a `recorded` block were, with their dtypes, shapes, attributes and kernels.
        faults: what must not be in a training step, with the operator.
        captured: what must not be in a graph, of all graphs.
        replays: how often a graph was replayed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.faults: list[str] = []
        self.captured: list[str] = []
        self.replays = 0
        self._recording = False
        self._cann = ctypes.CDLL("libascendcl.so")
        self._cann.standin_take.restype = ctypes.c_char_p
        self._cann.standin_capture.restype = ctypes.c_void_p
        self._graphs: dict[int, list[Callable[[], Any]]] = {}
        self._on_replay = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._replay)
        self._cann.standin_on_replay(self._on_replay)

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """A block in which operators are written down."""
        self.lines, self.faults = [], []
        self._taken()
        self._recording = True
        try:
            yield
        finally:
            self._recording = False
            self.faults += faults("the end", self._taken())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not any(map(_is_npu, tree_leaves((args, kwargs)))):
            return func(*args, **kwargs)
        if func.namespace == "det_ops":
            # Composed of other operators: these are what the device sees.
            with self:
                return func.redispatch(torch._C.DispatchKeySet(torch._C.DispatchKey.PrivateUse1), *args, **kwargs)
        capture = self._cann.standin_capture()
        if not self._recording and capture is None:
            return _execute(func, args, kwargs)
        before = self._taken()
        out = _execute(func, args, kwargs, None if capture is None else self._graphs.setdefault(capture, []))
        calls = self._taken()
        line = _line(func, args, kwargs, calls)
        if capture is not None:
            before = before[before.index(_BEGINS) + 1 :] if _BEGINS in before else before
        found = faults(f"before {func.name()}", before) + faults(line, calls, func, args)
        if self._recording:
            self.faults += found
            if calls or not func.is_view:
                self.lines.append(line)
        if capture is not None:
            found += [f"of the older interface: {line}" for call in calls if call.startswith("aclop:")]
            self.captured += [f"in a graph, {fault}" for fault in found]
        return out

    def forget_graphs(self) -> None:
        """All captures and replays so far."""
        self._graphs.clear()
        self.captured, self.replays = [], 0

    def _replay(self, graph: int) -> None:
        """Compute what was captured."""
        self.replays += 1
        for compute in self._graphs[graph]:
            compute()

    def _taken(self) -> list[str]:
        """What torch_npu has called since the last time."""
        return self._cann.standin_take().decode().split("\n")[:-1]


def faults(place: str, calls: Sequence[str], func: Any = None, args: Any = ()) -> list[str]:
    """What must not be in a training step.

    Args:
        place: said with it.
        calls: of CANN's functions.
        func: the operator that made them, if it was one.
        args: the operator's.
    """
    found = []
    names = set() if func is None else {func.name(), func.name().partition(".")[0]}
    if names & DYNAMIC:
        found.append(f"shape depends on values: {place}")
    if names & INDEXING and any(
        isinstance(leaf, Tensor) and leaf.dtype in (torch.bool, torch.uint8) for leaf in tree_leaves(args[1])
    ):
        found.append(f"indexed by a mask: {place}")
    if any(call.startswith("wait") or call == "copy device to host" for call in calls):
        found.append(f"the host waits: {place}")
    elif "copy host to device" in calls:
        found.append(f"copied from the host: {place}")
    return found


def deprecated() -> set[str]:
    """The operators that torch_npu has called deprecated so far: it says so on the standard error, a file here."""
    log = os.pread(2, os.fstat(2).st_size, 0).decode(errors="replace")
    return set(re.findall(r"(\S+) is deprecated and will be removed", log))


def _line(func: Any, args: Any, kwargs: dict[str, Any], calls: list[str]) -> str:
    """An operator with dtypes, shapes, attributes, and the kernels that served it."""
    text = ", ".join([*map(_text, args), *(f"{key}={_text(value)}" for key, value in kwargs.items())])
    line = f"{func.name().removeprefix('aten::')}({text})"
    return f"{line} -> {', '.join(calls)}" if calls else line


def _execute(func: Any, args: Any, kwargs: dict[str, Any], graph: list[Callable[[], Any]] | None = None) -> Any:
    """Run an operator; of one that is captured, the computation goes to `graph` instead."""
    name = func._schema.name
    if name == "aten::_local_scalar_dense":
        func(*args)
        return func(_host(args[0]))
    if (func.is_view and name != "aten::to") or name in _PLAIN:
        return func(*args, **kwargs)
    # torch_npu may move what an operator changes about, which its kernels have not computed: put it back.
    changed = [
        (host, host.clone())
        for argument, value in zip(func._schema.arguments, args, strict=False)
        if argument.alias_info is not None and argument.alias_info.is_write
        for host in map(_host, tree_leaves(value))
    ]
    out = func(*args, **kwargs)
    for host, before in changed:
        host.copy_(before)
    if func.namespace == "npu" and name not in _VENDOR:
        raise NotImplementedError(f"nobody knows here what {name} computes")
    if graph is None:
        return _compute(func, args, kwargs, out)
    graph.append(partial(_compute, func, args, kwargs, out))
    return out


def _compute(func: Any, args: Any, kwargs: dict[str, Any], out: Any) -> Any:
    """What torch_npu has returned, with the values that the CPU finds."""
    name = func._schema.name
    given, named = tree_map(_host, args), tree_map(_host, kwargs)
    if name in ("aten::_to_copy", "aten::to"):
        if out.data_ptr() != args[0].data_ptr():  # `to` may give the tensor itself
            _host(out).copy_(given[0])
        return out
    if name == "aten::copy_":
        given[0].copy_(given[1])
        return out
    if name == "aten::max_pool2d_with_indices":
        # torch_npu's indices are bits in an order of its own, for its gradient alone.
        values, _PLACES[out[1].data_ptr()] = func(*given, **named)
        return _filled(func, out[0], values), out[1]
    if name == "aten::max_pool2d_with_indices_backward":
        given = (*given[:-1], _PLACES[args[-1].data_ptr()])
    found = _VENDOR.get(name, func)(*given, **named)
    if func._schema.is_mutable:
        return out
    if isinstance(out, Tensor):
        return _filled(func, out, found)
    return type(out)(_filled(func, one, other) for one, other in zip(out, found, strict=True))


def _filled(func: Any, out: Any, found: Any) -> Any:
    """`out` with the values that the CPU has found."""
    if not isinstance(out, Tensor) or not isinstance(found, Tensor):
        return out
    if out.shape != found.shape:
        if func._schema.name in DYNAMIC | INDEXING:
            return _uploaded(found)
        raise AssertionError(f"torch_npu gives {_text(out)} where the CPU gives {_text(found)}: {func}")
    if _is_npu(out):
        _host(out).copy_(found)
    return out


def _uploaded(values: Tensor) -> Tensor:
    out = torch.empty(values.shape, dtype=values.dtype, device="npu")
    _host(out).copy_(values)
    return out


def _is_npu(value: object) -> bool:
    if isinstance(value, Tensor | torch.device):
        return (value.device if isinstance(value, Tensor) else value).type == "npu"
    return False


def _host(value: Any) -> Any:
    """The same memory as a tensor of the CPU; `cpu` for the device itself."""
    if isinstance(value, torch.device):
        return torch.device("cpu")
    if not isinstance(value, Tensor) or value.device.type != "npu":
        return value
    storage = value.untyped_storage()
    size = storage.nbytes()
    if size == 0:
        return torch.empty_strided(value.size(), value.stride(), dtype=value.dtype)
    memory = (ctypes.c_char * size).from_address(storage.data_ptr())
    base = torch.frombuffer(memory, dtype=torch.uint8).untyped_storage()
    return torch.empty(0, dtype=value.dtype).set_(base, value.storage_offset(), value.size(), value.stride())


def _text(value: Any) -> str:
    if isinstance(value, Tensor):
        place = "" if _is_npu(value) else "host "
        return f"{place}{_DTYPES.get(value.dtype, value.dtype)}[{','.join(map(str, value.shape))}]"
    if isinstance(value, list | tuple):
        return f"({', '.join(map(_text, value))})"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, torch.dtype):
        return str(_DTYPES.get(value, value))
    return "npu" if _is_npu(value) else str(value)
