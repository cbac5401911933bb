"""3x3 convolutions of stride 1 on the CPU by Winograd's minimal filtering F(4x4, 3x3).

Four by four outputs take 36 products of matrices over channels instead of 144; one block of tiles after the other, so
that what is between the transforms stays in the cache. All of it is C++, but for the products of the weights' gradient,
which are PyTorch's. It rounds as a few more chained additions would: by 1.3e-6 of the outputs' root mean square, a
direct convolution by 2e-7. What is not finite spreads over its tile.

`N` images, `C` channels in, `K` channels out, `T` tiles of 4x4 outputs. Source: Lavin and Gray, Fast Algorithms for
Convolutional Neural Networks (2016).
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from det_ops._kernels import _C, native
from det_ops._layout import empty_nhwc, nhwc

Pair = tuple[int, int]
"""Rows and columns."""

_TILE = 4
_PLANES = 36
_LEAST_TILES = 64
"""With fewer, transforming the weights costs more than the products save."""
_LEAST_CHANNELS = 32
_BLOCK = 128
"""Tiles at a time for the weights' gradient: enough for a matrix product, and few enough for the cache."""
_NAMES = {torch.float32: "float32", torch.float64: "float64"}
_CACHE_LINE = 64
"""Bytes between planes, which else are a multiple of 4096 bytes apart and share one set of the cache."""


def suits(input: Tensor, weight: Tensor, bias: Tensor | None, padding: Pair) -> bool:  # noqa: A002 - torch's name
    """Whether a convolution of stride 1, dilation 1 and one group is served, and faster so than directly.

    What does not fit together is not: PyTorch's own convolution then says so.

    Args:
        input: `[N, C, H, W]`.
        weight: `[K, C, k_h, k_w]`.
        bias: `[K]` or None.
        padding: Zeros around the map.
    """
    if not (
        native(input)
        and input.dtype in (torch.float32, torch.float64)
        and input.ndim == 4
        and weight.shape[1:] == (input.shape[1], 3, 3)
        and min(weight.shape[:2]) >= _LEAST_CHANNELS
        and (bias is None or bias.shape == weight.shape[:1])
        and all(t is None or (t.dtype, t.device) == (input.dtype, input.device) for t in (weight, bias))
        and min(padding) >= 0
        and max(padding) <= 2
    ):
        return False
    rows, columns = _tiles(_out(input, padding))
    return rows > 0 and columns > 0 and input.shape[0] * rows * columns >= _LEAST_TILES


def forward(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None,
    padding: Pair,
    *,
    relu: bool = False,
    out: Tensor | None = None,
) -> Tensor:
    """The convolution of what :func:`suits`.

    Args:
        input: `[N, C, H, W]`.
        weight: `[K, C, 3, 3]`.
        bias: `[K]` or None.
        padding: Zeros around the map.
        relu: Follow it by a rectifier.
        out: Where to write the result, channels-last; by default new memory.

    Returns:
        `[N, K, H', W']`, channels-last in memory.
    """
    if out is None:
        out = empty_nhwc(input, len(input), len(weight), *_out(input, padding))
    taps = weight.permute(2, 3, 1, 0).contiguous()  # [3, 3, C, K]
    return _convolve(input, taps, bias, padding, out, relu=relu)


def backward(
    grad: Tensor,
    input: Tensor,  # noqa: A002
    weight: Tensor,
    padding: Pair,
    needed: list[bool],
) -> tuple[Tensor, Tensor]:
    """Gradients of input and weight; empty where they are not needed.

    Args:
        grad: `[N, K, H', W']`.
        input: `[N, C, H, W]`.
        weight: `[K, C, 3, 3]`.
        padding: Zeros around the map.
        needed: Of input, of weight.
    """
    grad_input, grad_weight = input.new_empty(0), weight.new_empty(0)
    if needed[0]:
        taps = weight.permute(2, 3, 0, 1).contiguous()  # [3, 3, K, C]
        batch, channels, height, width = input.shape
        grad_input = empty_nhwc(input, batch, channels, height, width)
        _convolve(grad, taps, None, (2 - padding[0], 2 - padding[1]), grad_input, flip=True)
    if needed[1]:
        out = (grad.shape[2], grad.shape[3])
        pixels, values = nhwc(input), nhwc(grad)
        products = input.new_zeros((_PLANES, weight.shape[0], weight.shape[1]))
        for begin, count in _blocks(len(input), out):
            above = _read("gradient", values, (0, 0), out, begin, count)
            below = _read("input", pixels, padding, out, begin, count)
            products.baddbmm_(above.transpose(1, 2), below)
        taps = input.new_empty((3, 3, *weight.shape[:2]))
        _kernel("weight_gradient", input)(
            taps[0, 0].numel(), products.data_ptr(), torch.get_num_threads(), taps.data_ptr()
        )
        grad_weight = torch.empty_like(weight).copy_(taps.permute(2, 3, 0, 1))
    return grad_input, grad_weight


def _convolve(
    input: Tensor,  # noqa: A002
    taps: Tensor,
    bias: Tensor | None,
    padding: Pair,
    out: Tensor,
    *,
    relu: bool = False,
    flip: bool = False,
) -> Tensor:
    """Fill `out [N, K, H', W']`, channels-last, by `taps [3, 3, C, K]`, turned by 180 degrees if `flip`."""
    threads = torch.get_num_threads()
    channels = taps.shape[2:]
    panels = taps.new_empty(_kernel("panels_size", taps)(*channels))
    _kernel("weight_panels", taps)(*channels, taps.data_ptr(), flip, threads, panels.data_ptr())
    pixels = nhwc(input)
    bias = None if bias is None else bias.contiguous()
    tiles = _tiles((out.shape[2], out.shape[3]))
    _kernel("convolve", input)(
        [*pixels.shape[1:], *padding, *tiles],
        [*out.shape[2:], out.shape[1], 0, 0, *tiles],
        len(input) * tiles[0] * tiles[1],
        pixels.data_ptr(),
        panels.data_ptr(),
        0 if bias is None else bias.data_ptr(),
        relu,
        threads,
        out.data_ptr(),
    )
    return out


def _read(kind: str, pixels: Tensor, padding: Pair, out: Pair, begin: int, count: int) -> Tensor:
    """Transformed squares `[36, count, C]` of `pixels [N, H, W, C]`, of tiles begin, begin + 1, ..."""
    channels = pixels.shape[3]
    plane = count * channels + _CACHE_LINE // pixels.element_size()
    squares = pixels.new_empty((_PLANES, plane))
    geometry = [*pixels.shape[1:], *padding, *_tiles(out)]
    _kernel(kind, pixels)(geometry, pixels.data_ptr(), begin, count, torch.get_num_threads(), squares.data_ptr())
    return squares.as_strided((_PLANES, count, channels), (plane, channels, 1))


def _kernel(name: str, like: Tensor) -> Callable[..., Any]:
    return getattr(_C, f"winograd_{name}_{_NAMES[like.dtype]}")


def _out(input: Tensor, padding: Pair) -> Pair:  # noqa: A002
    return input.shape[2] + 2 * padding[0] - 2, input.shape[3] + 2 * padding[1] - 2


def _tiles(out: Pair) -> Pair:
    return -(-out[0] // _TILE), -(-out[1] // _TILE)


def _blocks(images: int, out: Pair) -> Iterator[tuple[int, int]]:
    """First tile and number of tiles of each block."""
    rows, columns = _tiles(out)
    total = images * rows * columns
    for begin in range(0, total, _BLOCK):
        yield begin, min(_BLOCK, total - begin)
