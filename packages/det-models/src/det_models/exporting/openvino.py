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
    """
    try:
        import openvino
    except ImportError as error:
        raise missing_extra("openvino", "writes and runs OpenVINO's models") from error
    model = openvino.convert_model(onnx)
    model.set_rt_info(json.dumps(metadata), "det")
    openvino.save_model(model, path, compress_to_fp16=metadata["precision"] == "fp16")
