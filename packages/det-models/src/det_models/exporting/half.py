"""Graphs of ONNX with weights, convolutions and products in float16; what decides on boxes stays in float32."""

from typing import TYPE_CHECKING, cast

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["HALVED", "halve"]

HALVED = ("Conv", "ConvTranspose", "Gemm")
"""Operators that compute in float16; those of MatMul are of non-maximum suppression."""


def halve(model: "ir.Model") -> None:
    """Compute in float16 what autocast does in training, with casts around it; its weights are stored so.

    Args:
        model: In float32; it is changed.
    """
    from onnx_ir.passes.common import RemoveUnusedNodesPass  # of the extra `onnx`

    weights: dict[str, ir.Value] = {}
    for node in list(model.graph):
        if node.op_type in HALVED:
            _halve(model.graph, node, weights)
    RemoveUnusedNodesPass()(model)  # weights in float32 too


def _halve(graph: "ir.Graph", node: "ir.Node", weights: "dict[str, ir.Value]") -> None:
    import onnx_ir as ir  # of the extra `onnx`, which who does not export need not have

    for number, value in enumerate(node.inputs):
        if value is None:
            continue
        name = cast("str", value.name)
        if value.const_value is None:
            narrow = ir.node("Cast", [value], {"to": ir.DataType.FLOAT16})
            graph.insert_before(node, narrow)
            half = narrow.outputs[0]
            half.dtype, half.shape = ir.DataType.FLOAT16, value.shape
        elif name in weights:
            half = weights[name]
        else:
            numbers = ir.tensor(value.const_value.numpy().astype(np.float16), name=f"{name}_fp16")
            half = weights[name] = ir.val(numbers.name, const_value=numbers)
            graph.register_initializer(half)
        node.replace_input_with(number, half)
    (output,) = node.outputs
    wide = ir.node("Cast", [output], {"to": ir.DataType.FLOAT})
    wide.outputs[0].dtype, wide.outputs[0].shape = ir.DataType.FLOAT, output.shape
    ir.convenience.replace_all_uses_with(output, wide.outputs[0])
    wide.replace_input_with(0, output)
    output.dtype = ir.DataType.FLOAT16
    graph.insert_after(node, wide)
