"""What a checkpoint says of itself beside its tensors: class names, and the configuration in mmdetection's files."""

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from det_heads.config import PixelConfig


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What is known of a checkpoint beside its tensors.

    Attributes:
        classes: Names of the classes in their order, or None.
        category_ids: Their ids in the data set, or None.
        pixels: The input, where the file says so.
        stride_in_1x1: Where the bottlenecks have their stride, where the file says so.
    """

    classes: tuple[str, ...] | None = None
    category_ids: tuple[int, ...] | None = None
    pixels: PixelConfig | None = None
    stride_in_1x1: bool | None = None


def read_metadata(values: Mapping[str, Any]) -> Metadata:
    """The parts that matter of what lies beside the tensors.

    Args:
        values: The outermost dictionary of the file: mmdetection's ``meta``, and ``categories`` in what we wrote.
    """
    categories = values.get("categories")
    if isinstance(categories, list) and all(isinstance(entry, dict) for entry in categories):
        names, ids = ([entry.get(key) for entry in categories] for key in ("name", "id"))
        if all(isinstance(name, str) for name in names) and all(isinstance(i, int) for i in ids):
            return Metadata(classes=tuple(names), category_ids=tuple(ids))
    meta = _mapping(values.get("meta"))
    data = _mapping(meta.get("dataset_meta"))
    text = next((meta[key] for key in ("cfg", "config") if isinstance(meta.get(key), str)), "")
    config = _Source.read(text)
    style = _mapping(_mapping(config.get("model")).get("backbone")).get("style")
    return Metadata(
        classes=_names(next((c for c in (data.get("classes"), data.get("CLASSES"), meta.get("CLASSES")) if c), None)),
        pixels=_pixels(config),
        stride_in_1x1=None if style is None else style == "caffe",
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _names(value: Any) -> tuple[str, ...] | None:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list | tuple) and value and all(isinstance(name, str) for name in value):
        return tuple(value)
    return None


def _pixels(config: Mapping[str, Any]) -> PixelConfig | None:
    """The normalisation of mmdetection 3 (in the model) or of 1 and 2 (in the data pipeline)."""
    model = _mapping(config.get("model"))
    for values, order in (
        (_mapping(model.get("data_preprocessor") or config.get("data_preprocessor")), "bgr_to_rgb"),
        (_mapping(config.get("img_norm_cfg")), "to_rgb"),
    ):
        mean, std = _triple(values.get("mean")), _triple(values.get("std"))
        if mean is not None and std is not None:
            return PixelConfig(order="rgb" if values.get(order) else "bgr", mean=mean, std=std)
    return None


def _triple(value: Any) -> tuple[float, float, float] | None:
    if isinstance(value, list | tuple) and len(value) == 3 and all(isinstance(v, int | float) for v in value):
        return float(value[0]), float(value[1]), float(value[2])
    return None


@dataclass
class _Source:
    """Values of a configuration written as Python. It is never run: `dict(...)`, literals and names are understood."""

    known: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, text: str) -> dict[str, Any]:
        """The top-level assignments; what is no plain value is None."""
        source = cls()
        try:
            statements = ast.parse(text).body
            for statement in statements:
                if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                    source.known[statement.targets[0].id] = source.value(statement.value)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return {}
        return source.known

    def value(self, node: ast.expr) -> Any:
        """The plain value of an expression, or None."""
        match node:
            case ast.Constant():
                return node.value
            case ast.Name():
                return self.known.get(node.id)
            case ast.List() | ast.Tuple():
                return self._all(node.elts)
            case ast.Dict():
                keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
                return dict(zip(keys, self._all(node.values), strict=True))
            case ast.Call(func=ast.Name(id="dict")):
                return {keyword.arg: self.value(keyword.value) for keyword in node.keywords}
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return -number
        return None

    def _all(self, nodes: Iterable[ast.expr]) -> list[Any]:
        return [self.value(node) for node in nodes]
