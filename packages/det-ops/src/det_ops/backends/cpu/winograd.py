"""3x3 convolutions of stride 1 on the CPU by Winograd's minimal filtering F(4x4, 3x3).

Four by four outputs take 36 products of matrices over channels instead of 144; one block of tiles after the other, so
that what is between the transforms stays in the cache. All of it is C++, but for the products of the weights' gradient,
which are PyTorch's. It rounds as a few more chained additions would: by 1.3e-6 of the outputs' root mean square, a
direct convolution by 2e-7. What is not finite spreads over its tile.

Maps and weights of bfloat16 are transformed in float32, and so are the products: the error is 3e-3 of the outputs' root
mean square, that of a direct convolution. Weights that stay constant (`prepack`) are rounded once they are transformed,
where the processor multiplies pairs of bfloat16 numbers: 1.8 times as fast as float32, with an error of 1.2e-2, which a
detection stands and a gradient might not.

`B` images, `C` channels in, `O` channels out, `T` tiles of 4x4 outputs. Source: Lavin and Gray, Fast Algorithms for
Convolutional Neural Networks (2016).
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from det_ops._layout import empty_nhwc, nhwc
from det_ops.backends.cpu import BACKEND, TYPES, compute_type, function

Pair = tuple[int, int]
"""Rows and columns."""

_TILE = 4
_PLANES = 36
_PAIRS = function("has_bfloat16")() if BACKEND.missing is None else False
"""Whether the processor multiplies bfloat16 numbers, which come in pairs."""
_TILES_OF_BFLOAT16 = getattr(torch.cpu, "_is_amx_tile_supported", bool)()
"""Whether it multiplies whole tiles of them: then a direct convolution, PyTorch's, is the faster one."""
_LEAST_TILES = 64
"""With fewer, transforming the weights costs more than the products save."""
_LEAST_TILES_PREPACKED = 24
"""Two threads' rows of a product; below, reading the transformed weights takes as long as a direct convolution."""
_LEAST_CHANNELS = 32
_BLOCK = 128
"""Tiles at a time for the weights' gradient: enough for a matrix product, and few enough for the cache."""
_CACHE_LINE = 64
"""Bytes between planes, which else are a multiple of 4096 bytes apart and share one set of the cache."""


class _Mosaic(NamedTuple):
    """How the kernels cut a batch of maps into tiles: the fields of `Maps` in winograd.cpp."""

    images: int
    period_y: int
    period_x: int
    rows: int
    columns: int
    tiles_y: int
    tiles_x: int

    @property
    def tiles(self) -> int:
        """Of all mosaics together."""
        return -(-self.images // (self.rows * self.columns)) * self.tiles_y * self.tiles_x


def _arrange(images: int, size: Pair, padding: Pair, *, share: bool) -> _Mosaic:
    """The arrangement of fewest tiles.

    Args:
        images: Number of maps.
        size: Of the maps that are read.
        padding: Zeros around them.
        share: Whether maps may share tiles; then all may lie in one mosaic, where the last tile of a map goes on in the
            next one: maps of 14 by 14 take 14 tiles each instead of 16. Rounding, and what is not finite, then depends
            on the neighbours.
    """
    out = _out(size, padding)
    period = (size[0] + padding[0], size[1] + padding[1])
    found = [_Mosaic(images, *period, 1, 1, *(-(-length // _TILE) for length in out))]
    for columns in range(1, min(images, _TILE) + 1 if share else 1):  # as many as _TILE fill theirs
        rows = -(-images // columns)
        spans = (
            (number - 1) * step + length for number, step, length in zip((rows, columns), period, out, strict=True)
        )
        found.append(_Mosaic(images, *period, rows, columns, *(-(-span // _TILE) for span in spans)))
    return min(found, key=lambda mosaic: mosaic.tiles)


_PREPACKED: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""By weight: its version and its memory (held, so that no other gets the address) at that time, and its panels."""


def prepack(weight: Tensor) -> None:
    """Transform the weights of convolutions to come, which stay constant; see :func:`prepacked`.

    Args:
        weight: `[O, C, 3, 3]` that requires no gradient.
    """
    taps = _taps(weight)
    if type(taps) is Tensor:  # others, such as those that only have a shape, have no memory to read
        _PREPACKED[weight] = (_version(weight), weight.detach(), _panels(taps, flip=False, pairs=_PAIRS))


def prepacked(weight: Tensor) -> Tensor | None:
    """The panels of a weight, unless it was seen to be written to, moved or trained since."""
    version, memory, panels = _PREPACKED.get(weight) or (None, weight, None)
    if panels is not None and (
        weight.requires_grad or (_version(weight), weight.data_ptr()) != (version, memory.data_ptr())
    ):
        _PREPACKED.pop(weight, None)
        panels = None
    return panels


def _version(weight: Tensor) -> int:
    return 0 if weight.is_inference() else weight._version


def serves(weight: Tensor) -> bool:
    """Whether convolutions with this weight may be served here, if their stride and dilation are 1."""
    return (
        weight.device.type == "cpu"
        and (weight.dtype in TYPES or (weight.dtype == torch.bfloat16 and not _TILES_OF_BFLOAT16))
        and weight.shape[2:] == (3, 3)
        and min(weight.shape[:2]) >= _LEAST_CHANNELS
        and (weight.dtype in TYPES or weight.shape[0] % 2 == weight.shape[1] % 2 == 0)
    )


def suits(
    input: Tensor,  # noqa: A002 - torch's name
    weight: Tensor,
    bias: Tensor | None,
    padding: Pair,
) -> bool:
    """Whether a convolution of stride 1, dilation 1 and one group is served, and faster so than directly.

    What does not fit together is not: PyTorch's own convolution then says so.

    Args:
        input: `[B, C, H, W]`.
        weight: `[O, C, k_h, k_w]`.
        bias: `[O]` or None.
        padding: Zeros around the map.
    """
    if not (
        serves(weight)
        and input.ndim == 4
        and weight.shape[1] == input.shape[1]
        and (bias is None or bias.shape == weight.shape[:1])
        and all(t is None or (t.dtype, t.device) == (weight.dtype, weight.device) for t in (input, bias))
        and min(padding) >= 0
        and max(padding) <= 2
    ):
        return False
    size = (input.shape[2], input.shape[3])
    least = _LEAST_TILES if prepacked(weight) is None else _LEAST_TILES_PREPACKED
    return min(_out(size, padding)) > 0 and _arrange(len(input), size, padding, share=False).tiles >= least


def forward(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None,
    padding: Pair,
    *,
    relu: bool = False,
    share: bool = False,
    out: Tensor | None = None,
) -> Tensor:
    """The convolution of what :func:`suits`.

    Args:
        input: `[B, C, H, W]`.
        weight: `[O, C, 3, 3]`.
        bias: `[O]` or None.
        padding: Zeros around the map.
        relu: Follow it by a rectifier.
        share: Whether maps may share tiles, see :func:`_arrange`.
        out: Where to write the result, channels-last; by default new memory.

    Returns:
        `[B, O, H', W']`, channels-last in memory.
    """
    if out is None:
        out = empty_nhwc(input, len(input), len(weight), *_out((input.shape[2], input.shape[3]), padding))
    panels = prepacked(weight)
    if panels is None:
        panels = _panels(_taps(weight), flip=False)
    return _convolve(input, panels, bias, padding, out, relu=relu, share=share)


def backward(
    grad: Tensor,
    input: Tensor,  # noqa: A002
    weight: Tensor,
    padding: Pair,
    needed: list[bool],
    *,
    share: bool = False,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Gradients of input and weight; empty where they are not needed.

    Args:
        grad: `[B, O, H', W']`.
        input: `[B, C, H, W]`.
        weight: `[O, C, 3, 3]`.
        padding: Zeros around the map.
        needed: Of input, of weight.
        share: Whether maps may share tiles, see :func:`_arrange`.
        out: Where to write the input's, channels-last; by default new memory.
    """
    grad_input, grad_weight = input.new_empty(0), weight.new_empty(0)
    if needed[0]:
        taps = weight.permute(2, 3, 0, 1).contiguous()  # [3, 3, O, C]
        batch, channels, height, width = input.shape
        grad_input = empty_nhwc(input, batch, channels, height, width) if out is None else out
        _convolve(grad, _panels(taps, flip=True), None, (2 - padding[0], 2 - padding[1]), grad_input, share=share)
    if needed[1]:
        mosaic = _arrange(len(input), (input.shape[2], input.shape[3]), padding, share=share)
        pixels, values = nhwc(input), nhwc(grad)
        dtype = compute_type(weight)
        products = input.new_zeros((_PLANES, weight.shape[0], weight.shape[1]), dtype=dtype)
        for begin in range(0, mosaic.tiles, _BLOCK):
            count = min(_BLOCK, mosaic.tiles - begin)
            above = _read("gradient", values, (0, 0), mosaic, begin, count)
            below = _read("input", pixels, padding, mosaic, begin, count)
            products.baddbmm_(above.transpose(1, 2), below)
        taps = input.new_empty((3, 3, *weight.shape[:2]), dtype=dtype)
        function("winograd_weight_gradient", dtype)(
            taps[0, 0].numel(), products.data_ptr(), torch.get_num_threads(), taps.data_ptr()
        )
        grad_weight = torch.empty_like(weight).copy_(taps.permute(2, 3, 0, 1))
    return grad_input, grad_weight


def _taps(weight: Tensor) -> Tensor:
    return weight.detach().permute(2, 3, 1, 0).contiguous()  # [3, 3, C, O]


def _panels(taps: Tensor, *, flip: bool, pairs: bool = False) -> Tensor:
    """Transformed weights in the order in which the kernel reads them; of taps turned by 180 degrees if `flip`.

    Args:
        taps: `[3, 3, C, O]`.
        flip: For the gradient of the input.
        pairs: Whether those of bfloat16 are rounded to it.
    """
    channels, dtype = taps.shape[2:], torch.bfloat16 if taps.dtype == torch.bfloat16 and pairs else compute_type(taps)
    taps = taps.to(compute_type(taps))
    panels = taps.new_empty(function("winograd_panels_size", dtype)(*channels), dtype=dtype)
    function("winograd_weight_panels", dtype)(
        *channels, taps.data_ptr(), flip, torch.get_num_threads(), panels.data_ptr()
    )
    return panels


def _convolve(
    input: Tensor,  # noqa: A002
    panels: Tensor,
    bias: Tensor | None,
    padding: Pair,
    out: Tensor,
    *,
    relu: bool = False,
    share: bool = False,
) -> Tensor:
    """Fill `out [B, O, H', W']`, channels-last, by the weights of `panels`."""
    pixels = nhwc(input)
    bias = None if bias is None else bias.to(compute_type(bias)).contiguous()
    mosaic = _arrange(len(input), (input.shape[2], input.shape[3]), padding, share=share)
    by = "" if panels.dtype == input.dtype else "_by_float32"
    function(f"winograd_convolve_{str(input.dtype).removeprefix('torch.')}{by}")(
        [*pixels.shape[1:], *padding, *mosaic],
        [*out.shape[2:], out.shape[1], 0, 0, *mosaic],
        mosaic.tiles,
        pixels.data_ptr(),
        panels.data_ptr(),
        0 if bias is None else bias.data_ptr(),
        relu,
        torch.get_num_threads(),
        out.data_ptr(),
    )
    return out


def _read(kind: str, pixels: Tensor, padding: Pair, mosaic: _Mosaic, begin: int, count: int) -> Tensor:
    """Transformed squares `[36, count, C]` of `pixels [B, H, W, C]`, of tiles begin, begin + 1, ..."""
    channels = pixels.shape[3]
    dtype = compute_type(pixels)
    plane = count * channels + _CACHE_LINE // dtype.itemsize
    squares = pixels.new_empty((_PLANES, plane), dtype=dtype)
    geometry = [*pixels.shape[1:], *padding, *mosaic]
    function(f"winograd_{kind}", pixels.dtype)(
        geometry, pixels.data_ptr(), begin, count, torch.get_num_threads(), squares.data_ptr()
    )
    return squares.as_strided((_PLANES, count, channels), (plane, channels, 1))


def _out(size: Pair, padding: Pair) -> Pair:
    return size[0] + 2 * padding[0] - 2, size[1] + 2 * padding[1] - 2
