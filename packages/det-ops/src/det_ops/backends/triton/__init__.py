"""Kernels in Triton for CUDA devices. Triton comes with PyTorch's CUDA wheels."""

import importlib.util
import os

from det_ops.backends._backend import Backend

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether Triton interprets kernels, on the CPU; it decides when they are imported."""

_FOUND = importlib.util.find_spec("triton") is not None

BACKEND = Backend(
    name="Triton",
    device="cuda",
    package=__name__,
    float64=False,
    missing=None if _FOUND else "Triton is not installed (it comes with PyTorch's CUDA wheels)",
    kernels={
        "bitmap_targets": "RoIAlign of one channel; float64: reference",
        "match": "blocks of anchors loop over truths, no matrix of IoUs; float64: reference",
        "multilevel_roi_align": "one launch for all levels, merged samples, float32 sums; float64: reference",
        "nms": "a bit per pair, scanned by one program per image; float64: reference",
        "rasterize_polygons": "the edges of the own instance alone; float64: reference",
        "top_k": "PyTorch's, of keys of which no two are equal; float64: reference",
    },
)
