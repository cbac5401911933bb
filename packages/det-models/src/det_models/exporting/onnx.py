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
    prepare: Callable[[Any], None] | None = None,
) -> None:
    """Write a program.

    Args:
        exported: The :class:`torch.export.ExportedProgram`.
        path: The file.
        inputs: Names of its inputs.
        outputs: Names of its outputs.
        metadata: What the file says of itself under `det`, as JSON.
        prepare: Changes the graph, an :class:`onnx_ir.Model`, before it is written.

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
    for graph in graphs:  # tracing anew, without autocast's region, would take them for broken
        for node in list(graph.nodes):
            if node.target is torch.ops.aten._assert_tensor_metadata.default:
                graph.erase_node(node)
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
    _cast_weights(program.model)
    if prepare is not None:
        prepare(program.model)
    program.model.metadata_props["det"] = json.dumps(metadata)
    program.save(path, external_data=False)


def _cast_weights(model: Any) -> None:
    """Keep weights in the type that the graph casts them to, such as float16, which the folding leaves to run time."""
    import onnx_ir as ir

    for node in list(model.graph):
        source = node.inputs[0] if node.op_type == "Cast" else None
        if source is None or source.name not in model.graph.initializers or source.const_value is None:
            continue
        kind = ir.DataType(node.attributes["to"].as_int())
        values = source.const_value.numpy().astype(kind.numpy())
        kept = ir.Value(name=f"{source.name}_{kind.name.lower()}", const_value=ir.tensor(values))
        kept.dtype, kept.shape = kind, source.shape
        model.graph.register_initializer(kept)
        ir.convenience.replace_all_uses_with(node.outputs[0], kept)
        model.graph.remove(node, safe=True)
    for name in [name for name, value in model.graph.initializers.items() if not value.uses()]:
        del model.graph.initializers[name]
