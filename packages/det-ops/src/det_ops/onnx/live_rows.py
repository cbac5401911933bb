"""Convolutions of the first rows of a padded batch in ONNX: of all rows, and a mask. `R` rows, one a region."""

from typing import Any

from det_ops.onnx.values import op, zero


def convolution_rows(
    input: Any,  # noqa: A002
    weight: Any,
    bias: Any,
    count: Any,
    stride: int,
    padding: int,
    relu: bool,
) -> Any:
    """Translate `det_ops::convolution_rows` of `input [R, C, H, W]`."""
    found = op.Conv(input, weight, bias, strides=[stride] * 2, pads=[padding] * 4)
    found = op.Where(op.Unsqueeze(_live(input, count), [1, 2, 3]), found, zero(input))
    return op.Relu(found) if relu else found


def mask_logits_rows(
    input: Any,  # noqa: A002
    weight: Any,
    bias: Any,
    own: Any,
    count: Any,
) -> Any:
    """Translate `det_ops::mask_logits_rows` of `input [R, C, H, W]` and `own [R, D]`."""
    hidden = op.Relu(op.ConvTranspose(input, weight, bias, strides=[2, 2]))  # [R, D, 2H, 2W]
    channels, height, width = weight.shape[1], 2 * input.shape[2], 2 * input.shape[3]
    pixels = op.Reshape(hidden, [-1, channels, height * width])
    logits = op.Reshape(op.MatMul(op.Unsqueeze(own, [1]), pixels), [-1, height, width])
    return op.Where(op.Unsqueeze(_live(input, count), [1, 2]), logits, zero(input))


def _live(input: Any, count: Any) -> Any:  # noqa: A002
    """Which rows are live: bool `[R]`."""
    rows = op.Squeeze(op.Shape(input, start=0, end=1), [0])
    return op.Less(op.Range(0, rows, 1), count)
