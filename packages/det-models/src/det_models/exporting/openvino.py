"""Graphs of ONNX as models of OpenVINO."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from det_models.errors import missing_extra

__all__ = ["write_openvino"]


def write_openvino(onnx: Path, path: Path, *, metadata: Mapping[str, Any]) -> None:
    """Write a model, `.xml` and `.bin` beside it.

    Args:
        onnx: The graph.
        path: The `.xml`.
        metadata: What the file says of itself, as JSON, under `det` of its runtime information.

    Raises:
        OptionError: OpenVINO is not installed.
        OSError: It cannot write the file.
    """
    try:
        import openvino
    except ImportError as error:
        raise missing_extra("openvino", "writes and runs OpenVINO's models") from error
    model = openvino.convert_model(onnx)
    _order_equals(model)
    model.set_rt_info(json.dumps(metadata), "det")
    try:
        # Its own compression takes anchors and sizes of images too, which float16 cannot hold.
        openvino.save_model(model, path, compress_to_fp16=False)
    except RuntimeError as error:  # which says as much of a full disk
        raise OSError(f"OpenVINO says {str(error).strip()!r}") from error


def _order_equals(model: Any) -> None:
    """Let the lower index go first among equal elements, which ONNX says and OpenVINO's reading of it forgets."""
    from openvino import opset15

    for node in model.get_ops():
        if node.get_type_name() != "TopK":
            continue
        given = node.get_attributes()
        values, count = (node.input_value(number) for number in range(2))
        options = {"index_element_type": given["index_element_type"], "stable": True}
        stable = opset15.topk(values, count, given["axis"], given["mode"], "value", **options)
        for number in range(2):
            node.output(number).replace(stable.output(number))
