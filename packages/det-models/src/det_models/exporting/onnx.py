"""Programs as graphs of ONNX, in its standard domain."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch

from det_models.errors import missing_extra

__all__ = ["OPSET", "quiet", "write_onnx"]

OPSET = 18


@contextmanager
def quiet() -> Iterator[None]:
    """Within it, libraries tell of their stages to nobody; their errors are raised."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(StringIO()):
            yield
    finally:
        logging.disable(before)


def write_onnx(
    exported: Any,
    path: Path,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    metadata: Mapping[str, Any],
    changes: Sequence[Callable[[Any], None]] = (),
) -> None:
    """Write a program.

    Args:
        exported: The :class:`torch.export.ExportedProgram`.
        path: The file.
        inputs: Names of its inputs.
        outputs: Names of its outputs.
        metadata: What the file says of itself under `det`, as JSON.
        changes: Each changes the graph, an :class:`onnx_ir.Model`, before it is written.

    Raises:
        OptionError: `onnxscript` is not installed.
    """
    try:
        from onnxscript import optimizer

        from det_ops.onnx import decompositions, translations

        table = translations()
    except ImportError as error:
        raise missing_extra("onnx", "writes ONNX") from error
    graphs = [module.graph for module in exported.graph_module.modules() if isinstance(module, torch.fx.GraphModule)]
    named = {node.target for graph in graphs for node in graph.nodes}
    composed = {entry: reference for entry, reference in decompositions().items() if entry in named}
    if composed:  # each tracing takes as long as the first
        with torch.no_grad():
            exported = exported.run_decompositions(composed)
    program = torch.onnx.export(
        exported,
        (),
        dynamo=True,
        custom_translation_table=table,
        opset_version=OPSET,
        input_names=list(inputs),
        output_names=list(outputs),
        optimize=False,
        verbose=False,
    )
    assert program is not None
    # Its other passes, which the exporter would run, take minutes for thousands of nodes, and change little.
    optimizer.fold_constants(program.model)
    optimizer.remove_unused_nodes(program.model)
    for change in changes:
        change(program.model)
    program.model.metadata_props["det"] = json.dumps(metadata)
    program.save(path, external_data=False)
