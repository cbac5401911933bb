"""Bilinear interpolation of pictures as three libraries do it: their very pixels, and torch's up to rounding."""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from det_coco._compiled import compiled

# Pillow 13 shrinks tall pictures columns first, and everything else rows first, as it always did; rounding between the
# passes tells the two apart.
_TALL = 1.5
# Bits of OpenCV's weights, and of what it drops between its two passes.
_ONE = 2048
_DROPPED = 4


def resize_as_pillow(image: np.ndarray, height: int, width: int) -> torch.Tensor:
    """Resize as `PIL.Image.resize` with `BILINEAR` does, which antialiases.

    Args:
        image: uint8 `[h, w, 3]`.
        height: H, new height in pixels.
        width: W, new width in pixels.

    Returns:
        uint8 `[3, H, W]`.
    """
    h, w = image.shape[:2]
    out = np.empty((3, height, width), dtype=np.uint8)
    rows_first = height >= h or (h <= _TALL * w and abs(height * w - width * h) <= max(h, w))
    if compiled is not None and rows_first:
        compiled.resize_as_pillow(np.ascontiguousarray(image), out)
    else:
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        out[...] = np.asarray(resized).transpose(2, 0, 1)
    return torch.from_numpy(out)


def resize_as_opencv(image: np.ndarray, height: int, width: int) -> torch.Tensor:
    """Resize as `cv2.resize` with `INTER_LINEAR` does, which weighs two neighbours in fixed point and truncates.

    Args:
        image: uint8 `[h, w, 3]`.
        height: H, new height in pixels.
        width: W, new width in pixels.

    Returns:
        uint8 `[3, H, W]`.
    """
    out = np.empty((3, height, width), dtype=np.uint8)
    if compiled is not None:
        compiled.resize_as_opencv(np.ascontiguousarray(image), out)
        return torch.from_numpy(out)
    left, right, first, second = _opencv_weights(image.shape[1], width, columns=True)
    upper, lower, above, below = _opencv_weights(image.shape[0], height, columns=False)
    pixels = image.transpose(2, 0, 1).astype(np.int32)  # [3, h, w]
    rows = (pixels[:, :, left] * first + pixels[:, :, right] * second) >> _DROPPED  # [3, h, W]
    sums = ((rows[:, upper] * above[:, None]) >> 16) + ((rows[:, lower] * below[:, None]) >> 16)  # [3, H, W]
    return torch.from_numpy(((sums + 2) >> 2).astype(np.uint8))


def resize_as_torch(image: np.ndarray, height: int, width: int) -> torch.Tensor:
    """Resize as `torch.nn.functional.interpolate` does with floating-point pixels, without antialiasing.

    Args:
        image: uint8 `[h, w, 3]`.
        height: H, new height in pixels.
        width: W, new width in pixels.

    Returns:
        float32 `[3, H, W]`, 0..255.
    """
    if compiled is not None:
        out = np.empty((3, height, width), dtype=np.float32)
        compiled.resize_as_torch(np.ascontiguousarray(image), out)
        return torch.from_numpy(out)
    tensor = (
        torch.from_numpy(np.ascontiguousarray(image))
        .permute(2, 0, 1)
        .to(torch.float32, memory_format=torch.contiguous_format)
    )
    return F.interpolate(tensor[None], (height, width), mode="bilinear", align_corners=False)[0]


def _opencv_weights(old: int, new: int, *, columns: bool) -> tuple[np.ndarray, ...]:
    """Compute which two pixels each new one is made of, and their weights.

    Args:
        old: pixels before.
        new: N, pixels after.
        columns: whether weights are those along a row, which beyond the border have one pixel; along a column the last
            pixel counts twice.

    Returns:
        four int32 `[N]`: first pixel, second pixel, their weights, whose sum is 2048.
    """
    places = ((np.arange(new) + 0.5) * (1.0 / (new / old)) - 0.5).astype(np.float32)
    first = np.floor(places).astype(np.int32)
    fraction = places - first.astype(np.float32)
    if columns:
        fraction[(first < 0) | (first >= old - 1)] = 0
    one = np.float32(_ONE)
    weights = (np.rint(share * one).astype(np.int32) for share in (np.float32(1) - fraction, fraction))
    return (first.clip(0, old - 1), (first + 1).clip(0, old - 1), *weights)
