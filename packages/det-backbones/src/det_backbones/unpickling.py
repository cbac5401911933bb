"""Loads numpy arrays and plain values from a pickle of unknown origin, and nothing else.

A pickle is a program: it names callables and calls them. Here every name it may use stands for a small class of this
module, which only notes its arguments, so neither foreign code nor numpy's own restoring of objects (which trusts its
input) sees the file. Arrays are then made from their bytes, after checking type and size. What published checkpoints
carry beside them (dates, configurations, logs) becomes :class:`Inert` or a plain dictionary.
"""

import math
import pickle
import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np


class UnsafeError(Exception):
    """The pickle names something that is not data; the text is the name."""


class _Dtype:
    """Stands for `numpy.dtype`."""

    def __init__(self, code: str, *_: Any) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[a-zA-Z]\d*", code):
            raise ValueError(f"dtype {code!r}")
        self.code = code
        self.order = "="

    def __setstate__(self, state: Sequence[Any]) -> None:
        # (version, byte order, ...); the rest describes structured types, which have codes V.
        if state[1] in ("<", ">", "|", "="):
            self.order = state[1]

    def numpy(self) -> np.dtype | None:
        """The number type, None if it is another type or one that torch lacks."""
        return np.dtype(self.order + self.code) if re.fullmatch("f[248]|[iu][1248]", self.code) else None


class _Array:
    """Stands for `numpy.ndarray`."""

    def __init__(self, *_: Any) -> None:
        self.value: np.ndarray | None = None

    def __setstate__(self, state: Sequence[Any]) -> None:
        # (version, shape, dtype, is Fortran order, data), the version absent in the oldest files.
        shape, dtype, fortran, data = state[-4:]
        self.value = _array(shape, dtype, "F" if fortran else "C", data)


def _array(shape: Sequence[int], dtype: _Dtype, order: str, data: Any) -> np.ndarray | None:
    plain = dtype.numpy()
    if plain is None:
        return None
    if isinstance(data, str):
        data = data.encode("latin1")
    if min(shape, default=0) < 0 or len(data) != math.prod(shape) * plain.itemsize:
        raise ValueError(f"{len(data)} bytes for an array of shape {shape}")
    return np.frombuffer(bytes(data), plain).reshape(shape, order="F" if order == "F" else "C")


def _from_buffer(
    data: Any, dtype: _Dtype, shape: Sequence[int], order: str, axes: Sequence[int] | None = None
) -> _Array:
    # How numpy writes arrays at protocol 5; `axes` are those of a transposed array.
    array = _Array()
    array.value = _array(shape, dtype, order, data)
    if axes is not None and array.value is not None:
        array.value = array.value.transpose(axes)
    return array


def _scalar(*_: Any) -> None:
    # Numbers of numpy beside the arrays (a learning rate, say) are not needed.
    return None


def _encode(text: str, encoding: str) -> bytes:
    # How Python 3 writes bytes at protocol 2.
    if encoding not in ("latin1", "latin-1"):
        raise UnsafeError(f"_codecs.encode to {encoding!r}")
    return text.encode("latin1")


class Inert:
    """Stands for an object of metadata: it takes whatever it is given, and keeps nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def _mapping(*_: Any) -> OrderedDict[Any, Any]:
    # The items follow.
    return OrderedDict()


STAND_INS: dict[str, Any] = {
    "_codecs.encode": _encode,
    "collections.OrderedDict": OrderedDict,
    "collections.defaultdict": _mapping,
    "numpy.dtype": _Dtype,
    "numpy.ndarray": _Array,
}
"""What a pickle may name, and what it gets instead."""

for _core in ("numpy.core", "numpy._core"):
    STAND_INS[f"{_core}.multiarray._reconstruct"] = _Array
    STAND_INS[f"{_core}.multiarray.scalar"] = _scalar
    STAND_INS[f"{_core}.numeric._frombuffer"] = _from_buffer
STAND_INS |= dict.fromkeys(
    (
        *(
            f"numpy.dtypes.{kind}DType"
            for kind in ("Bool", "Int32", "Int64", "Float16", "Float32", "Float64", "Object")
        ),
        *(f"datetime.{kind}" for kind in ("date", "datetime", "time", "timedelta", "timezone")),
        *(
            f"pathlib{module}.{kind}"
            for module in ("", "._local")
            for kind in ("Path", "PurePath", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")
        ),
        "collections.Counter",
        # getattr: how mmengine's logs name their own methods; it looks nothing up here.
        *(
            f"{module}.{kind}"
            for module in ("builtins", "__builtin__")
            for kind in ("getattr", "set", "frozenset", "slice", "complex", "dict", "list", "int", "float", "object")
        ),
        "argparse.Namespace",
        "copyreg._reconstructor",
        "copy_reg._reconstructor",
        "mmcv.utils.config.Config",
        "mmengine.config.Config",
        "mmengine.config.config.Config",
        "mmengine.logging.HistoryBuffer",
        "mmengine.logging.MessageHub",
        "mmengine.logging.history_buffer.HistoryBuffer",
        "mmengine.logging.message_hub.MessageHub",
    ),
    Inert,
)
# Dictionaries with attributes.
STAND_INS |= dict.fromkeys(
    (
        "addict.Dict",
        "addict.addict.Dict",
        "mmcv.utils.config.ConfigDict",
        "mmengine.config.ConfigDict",
        "mmengine.config.config.ConfigDict",
        "yacs.config.CfgNode",
        "fvcore.common.config.CfgNode",
        "detectron2.config.config.CfgNode",
    ),
    OrderedDict,
)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in STAND_INS:
            raise UnsafeError(f"{module}.{name}")
        return STAND_INS[f"{module}.{name}"]

    def persistent_load(self, pid: Any) -> Any:
        raise UnsafeError(f"the outside object {pid!r}")


def load(file: BinaryIO) -> Any:
    """The object in `file`: containers, text, numbers and arrays.

    Python 2's byte strings become latin1 text. Arrays of other things than numbers become None.

    Raises:
        UnsafeError: It is not data alone.
        Exception: Of any kind, where the file is damaged.
    """
    return unwrap(_Unpickler(file, encoding="latin1").load())


def unwrap(value: Any, levels: int = 3) -> Any:
    """Arrays in place of their stand-ins, in as many levels of dictionaries as the formats nest."""
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, dict) and levels:
        return {key: unwrap(item, levels - 1) for key, item in value.items()}
    return value
