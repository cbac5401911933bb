"""Graphs of ONNX that Ascend's compiler takes, by what its documentation and onnxruntime-cann list.

Nothing of it has been compiled for an NPU here.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from det_models.errors import OptionError

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["OPERATORS", "atc_command", "prepare"]

OPERATORS = frozenset(
    {
        "Abs", "Acos", "Acosh", "Add", "And", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh", "AveragePool",
        "BatchNormalization", "BitShift", "Cast", "Ceil", "Celu", "Clip", "Compress", "Concat", "Constant",
        "ConstantOfShape", "Conv", "ConvTranspose", "Cos", "Cosh", "CumSum", "DepthToSpace", "Det", "Div", "Dropout",
        "Elu", "Equal", "Erf", "Exp", "Expand", "EyeLike", "Flatten", "Floor", "Gather", "GatherElements", "GatherND",
        "Gemm", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "Greater", "GreaterOrEqual", "HardSigmoid",
        "HardSwish", "Hardmax", "Identity", "InstanceNormalization", "LRN", "LSTM", "LeakyRelu", "Less", "LessOrEqual",
        "Log", "LogSoftmax", "LpNormalization", "LpPool", "MatMul", "Max", "MaxPool", "MaxRoiPool", "MaxUnpool", "Mean",
        "MeanVarianceNormalization", "Min", "Mod", "Mul", "Multinomial", "Neg", "Not", "OneHot", "Or", "PRelu", "Pad",
        "Pow", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Range", "Reciprocal", "ReduceL1", "ReduceL2",
        "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
        "ReduceSumSquare", "Relu", "Reshape", "Resize", "ReverseSequence", "RoiAlign", "Round", "Scatter",
        "ScatterElements", "ScatterND", "Selu", "Shape", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Size", "Slice",
        "Softmax", "Softplus", "Softsign", "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh",
        "TfIdfVectorizer", "ThresholdedRelu", "Tile", "TopK", "Transpose", "Unsqueeze", "Where", "Xor",
    }
)  # fmt: skip
"""What onnxruntime-cann hands to the NPU (`cann_graph.cc`), without those whose shapes depend on data."""

_ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Mod", "Neg", "Max", "Min", "Equal", "Less", "Greater", "Where")
"""What int32 does as well as int64: indices and classes are below 2^31."""


def prepare(model: "ir.Model") -> None:
    """Compute in int32 what a graph computes in int64.

    Raises:
        OptionError: It has operators that the lists lack.
    """
    kinds = {node.op_type for node in model.graph}
    if unknown := sorted(kinds - OPERATORS):
        raise OptionError(
            f"This detector needs {', '.join(unknown)}, which Ascend's compiler does not list, so that it cannot be "
            "exported for Ascend."
        )
    from onnx_ir.passes.common import ShapeInferencePass  # of the extra `onnx`

    ShapeInferencePass()(model)  # translations leave some types open
    for node in list(model.graph):
        if node.op_type in _ARITHMETIC:
            _narrow(model.graph, node)


def _narrow(graph: Any, node: "ir.Node") -> None:
    """Put casts around a node that computes in int64."""
    import onnx_ir as ir  # of the extra `onnx`, which who does not export need not have

    wide = [
        number for number, value in enumerate(node.inputs) if value is not None and value.dtype == ir.DataType.INT64
    ]
    if not wide:
        return
    for number in wide:
        value = cast("ir.Value", node.inputs[number])
        narrow = ir.node("Cast", [value], {"to": ir.DataType.INT32})
        narrow.outputs[0].dtype, narrow.outputs[0].shape = ir.DataType.INT32, value.shape
        graph.insert_before(node, narrow)
        node.replace_input_with(number, narrow.outputs[0])
    (output,) = node.outputs
    if output.dtype != ir.DataType.INT64:
        return
    back = ir.node("Cast", [output], {"to": ir.DataType.INT64})
    back.outputs[0].dtype, back.outputs[0].shape = ir.DataType.INT64, output.shape
    back.outputs[0].name, output.name = output.name, f"{output.name}_int32"  # an output of the graph keeps its name
    ir.convenience.replace_all_uses_with(output, back.outputs[0], replace_graph_outputs=True)
    back.replace_input_with(0, output)
    output.dtype = ir.DataType.INT32
    graph.insert_after(node, back)


def atc_command(file: Path, batch: int, shape: tuple[int, int]) -> str:
    """The command line that compiles a graph.

    Args:
        file: The graph.
        batch: Images.
        shape: (height, width) of them.
    """
    height, width = shape
    return (
        "# SOC: as `npu-smi info` calls the chip, such as Ascend910B4. Boxes need float32: do not force float16.\n"
        f"atc --framework=5 --model={file.name} --output={file.stem} --soc_version=SOC \\\n"
        f'  --input_shape="images:{batch},3,{height},{width};image_sizes:{batch},2" \\\n'
        "  --precision_mode=must_keep_origin_dtype\n"
    )
