"""Programs for ExecuTorch, with convolutions and linear layers in XNNPACK's kernels."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from det_models.errors import missing_extra
from det_models.exporting.onnx import quiet
from det_ops.executorch import decompositions

__all__ = ["METHOD", "write_executorch"]

METHOD = "det"
"""The method of the file that returns what it says of itself."""


def write_executorch(exported: Any, path: Path, *, metadata: Mapping[str, Any]) -> None:
    """Write a program, `.pte`.

    Args:
        exported: The :class:`torch.export.ExportedProgram`, of a fixed batch.
        path: The file.
        metadata: What it says of itself, as JSON that the method `det` returns.

    Raises:
        OptionError: ExecuTorch is not installed.
    """
    try:
        with quiet():
            from executorch.backends.xnnpack.partition import config as kinds
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower
    except ImportError as error:
        raise missing_extra("executorch", "writes and runs ExecuTorch's programs") from error

    class OfMaps(kinds.AddConfig):  # type: ignore[misc, name-defined]
        """Additions of two maps, between convolutions."""

        def check_constraints(self, node: Any, ep: Any) -> bool:
            shapes = {tuple(part.meta["val"].shape) for part in (node, *node.all_input_nodes)}
            return len(shapes) == 1 and len(node.meta["val"].shape) == 4 and super().check_constraints(node, ep)

    # Each island of operators costs seconds to compile, and those between boxes gain nothing.
    worthwhile: list[Any] = [kinds.ConvolutionConfig, OfMaps, kinds.AddmmConfig, kinds.LinearConfig]
    worthwhile += [kinds.ReLUConfig, kinds.MaxPool2dConfig]
    with torch.no_grad(), quiet():
        lowered = to_edge_transform_and_lower(
            exported.run_decompositions(decompositions()),
            partitioner=[XnnpackPartitioner(configs=worthwhile)],
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
            constant_methods={METHOD: json.dumps(metadata)},
        )
        program = lowered.to_executorch()
    path.write_bytes(program.buffer)
