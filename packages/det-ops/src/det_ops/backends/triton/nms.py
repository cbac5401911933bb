"""Greedy non-maximum suppression on GPUs: two launches for a batch of images, no host read.

The first kernel writes one bit per pair of boxes, sorted by score: whether the better one would suppress the other. In
the second a program per image goes through the boxes 64 at a time: it settles the word on the diagonal one box after
the other, in registers, then strikes out later boxes by or-ing the rows of those that stay; it stops at `max_output`.
"""

# Compile-time arguments are in capitals, as in all of Triton's documentation.
# ruff: noqa: N803

import torch
import triton
import triton.language as tl
from torch import Tensor

from det_ops.backends.triton.common import launch, overlap
from det_ops.reference.nms import float32_floor

_MATRIX_BYTES = 1 << 30
"""Largest matrix of bits (N * N / 8 bytes an image); more images than fit are done in turns."""

_ROWS = 128
"""Rows of the matrix a program fills, one a thread."""


@triton.jit
def _pairs_kernel(boxes, groups, bits, n, words, threshold, offset, GROUPED: tl.constexpr, ROWS: tl.constexpr):
    """Word `column` of some rows, on or above the diagonal: bit j of row i tells that i strikes 64 * column + j."""
    column, row, image = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    if (column + 1) * 64 > row * ROWS:
        boxes += image * n * 4
        i = row * ROWS + tl.arange(0, ROWS)
        box = boxes + i * 4
        ax1, ay1 = tl.load(box, mask=i < n, other=0.0), tl.load(box + 1, mask=i < n, other=0.0)
        ax2, ay2 = tl.load(box + 2, mask=i < n, other=0.0), tl.load(box + 3, mask=i < n, other=0.0)
        groups += image * n
        group = i
        if GROUPED:
            group = tl.load(groups + i, mask=i < n, other=0)
        word = tl.zeros((ROWS,), tl.int64)
        for lane in range(64):
            j = column * 64 + lane
            inside = j < n
            other = boxes + j * 4
            bx1, by1 = tl.load(other, mask=inside, other=0.0), tl.load(other + 1, mask=inside, other=0.0)
            bx2, by2 = tl.load(other + 2, mask=inside, other=0.0), tl.load(other + 3, mask=inside, other=0.0)
            shared, union = overlap(ax1, ay1, ax2, ay2, bx1, by1, bx2, by2, offset)
            # Not `& inside`: the interpreter of Triton 3.9 joins no vector with a number.
            strikes = tl.where(inside, (tl.div_rn(shared, union) > threshold) & (j > i), False)
            if GROUPED:
                strikes = strikes & (group == tl.load(groups + j, mask=inside, other=0))
            word = word | (strikes.to(tl.int64) << lane)
        tl.store(bits + (image * n + i) * words + column, word, mask=i < n)


@triton.jit
def _scan_kernel(
    bits, order, valid, indices, kept, n, words, max_output, MASKED: tl.constexpr, WORDS: tl.constexpr
):  # fmt: skip
    image = tl.program_id(0).to(tl.int64)
    bits += image * n * words
    order += image * n
    indices += image * max_output
    kept += image * max_output
    lane = tl.arange(0, 64)
    bit = tl.full((64,), 1, tl.int64) << lane.to(tl.int64)
    word = tl.arange(0, WORDS)
    struck = tl.zeros((WORDS,), tl.int64)
    count = tl.full((), 0, tl.int32)
    block = tl.full((), 0, tl.int32)
    while (block < words) & (count < max_output):
        place = block * 64 + lane
        index = tl.load(order + place, mask=place < n, other=0)
        candidate = place < n
        if MASKED:
            candidate = candidate & (tl.load(valid + image * n + index).to(tl.int32) != 0)
        alive = tl.sum(tl.where(candidate, bit, 0)) & ~tl.sum(tl.where(word == block, struck, 0))
        rows = bits + block.to(tl.int64) * 64 * words
        for i in tl.static_range(64):
            strikes = tl.load(rows + i * words + block, mask=block * 64 + i < n, other=0)
            alive = tl.where(((alive >> i) & 1) != 0, alive & ~strikes, alive)
        later = (word > block) & (word < words)
        for half in range(0, 64, 32):  # 32 loads under way are enough, 64 do not fit the registers
            for i in tl.static_range(32):
                stays = ((alive >> (half + i)) & 1) != 0
                struck = struck | tl.load(rows + (half + i) * words + word, mask=tl.where(stays, later, False), other=0)
        stays = ((alive >> lane.to(tl.int64)) & 1).to(tl.int32)
        slot = count + tl.cumsum(stays, 0) - 1
        chosen = (stays != 0) & (slot < max_output)
        tl.store(indices + slot, index, mask=chosen)
        tl.store(kept + slot, stays.to(tl.int8), mask=chosen)
        count += tl.sum(stays)
        block += 1


def nms(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor | None,
    valid: Tensor | None,
    iou_threshold: float,
    max_output: int,
    offset: float,
) -> tuple[Tensor, Tensor]:
    """The operator `det_ops::nms` (not for float64); `max_output` is at most N. Exact, ties as in the reference."""
    lead, n = boxes.shape[:-2], boxes.shape[-2]
    shape = (*lead, max_output)
    indices = torch.zeros(shape, dtype=torch.int64, device=boxes.device)
    kept = torch.zeros(shape, dtype=torch.int8, device=boxes.device)
    if indices.numel() == 0:
        return indices, kept.to(torch.bool)
    batch, words = lead.numel(), triton.cdiv(n, 64)
    order = scores.reshape(batch, n).sort(dim=1, descending=True, stable=True).indices
    boxes = boxes.reshape(batch, n, 4).gather(1, order.unsqueeze(-1).expand(-1, -1, 4)).to(torch.float32)
    # A pointer the kernel does not read stands for what is absent.
    groups_sorted = order if groups is None else groups.reshape(batch, n).gather(1, order)
    used = order if valid is None else valid.reshape(batch, n).contiguous()
    turn = min(max(1, _MATRIX_BYTES // (n * words * 8)), batch, 65535)
    bits = torch.empty((turn, n, words), dtype=torch.int64, device=boxes.device)
    flat_indices, flat_kept = indices.view(batch, max_output), kept.view(batch, max_output)
    padded = triton.next_power_of_2(words)
    for first in range(0, batch, turn):
        some = slice(first, min(first + turn, batch))
        images = some.stop - first
        launch(
            _pairs_kernel,
            (words, triton.cdiv(n, _ROWS), images),
            boxes[some],
            groups_sorted[some],
            bits,
            n,
            words,
            float32_floor(iou_threshold),
            float(offset),
            GROUPED=groups is not None,
            ROWS=_ROWS,
            num_warps=_ROWS // 32,
        )
        launch(
            _scan_kernel,
            (images,),
            bits,
            order[some],
            used[some],
            flat_indices[some],
            flat_kept[some],
            n,
            words,
            max_output,
            MASKED=valid is not None,
            WORDS=padded,
            num_warps=min(max(padded // 32, 1), 16),
        )
    return indices, kept.to(torch.bool)
