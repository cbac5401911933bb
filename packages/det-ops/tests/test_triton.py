"""The Triton kernels without a GPU: interpreted (in a process of its own) and compiled for one."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from det_ops import backends
from det_ops.backends import triton

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")

INTERPRETED = Path(__file__).with_name("interpreted_triton.py")


@pytest.mark.slow
def test_interpreted() -> None:
    """Triton chooses between interpreter and compiler when a kernel is imported: a process for each."""
    command = [sys.executable, "-m", "pytest", "-q", "--import-mode=importlib", str(INTERPRETED)]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout
    assert "skipped" not in run.stdout


class Compiler:
    """Takes the place of a kernel: compiles what is launched for sm_90, with the types of the actual arguments."""

    types = {  # noqa: RUF012
        torch.float32: "fp32",
        torch.bfloat16: "bf16",
        torch.float16: "fp16",
        torch.int64: "i64",
        torch.int32: "i32",
        torch.int8: "i8",
        torch.uint8: "u8",
        torch.bool: "i1",
    }

    def __init__(self, kernel, compiled: list) -> None:
        self.kernel, self.compiled = kernel, compiled

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        assert all(size > 0 for size in grid)
        return self.launch

    def type_of(self, value: object) -> object:
        match value:
            case tuple():
                return tuple(self.type_of(item) for item in value)
            case Tensor():
                return f"*{self.types[value.dtype]}"
            case float():
                return "fp32"
        return "i32"

    def pointers(self, value: object, path: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if isinstance(value, tuple):
            for i, item in enumerate(value):
                yield from self.pointers(item, (*path, i))
        elif isinstance(value, Tensor):
            yield path

    def launch(self, *arguments: object, num_warps: int = 4, enable_fp_fusion: bool = True, **constants) -> None:
        import triton
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource

        names = self.kernel.arg_names
        signature = dict(zip(names, map(self.type_of, arguments), strict=False)) | dict.fromkeys(constants, "constexpr")
        assert list(signature) == names
        paths = [path for i, value in enumerate(arguments) for path in self.pointers(value, (i,))]
        aligned = {path: [["tt.divisibility", 16]] for path in paths}  # as all memory of PyTorch's allocators is
        source = ASTSource(fn=self.kernel, signature=signature, constexprs=constants, attrs=aligned)
        options = {"num_warps": num_warps, "enable_fp_fusion": enable_fp_fusion}
        self.compiled.append(triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options))


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list:
    """All kernels compiled since, instead of launched."""
    if triton.INTERPRETED:
        pytest.skip("TRITON_INTERPRET=1 leaves nothing to compile")
    from det_ops.backends.triton import mask_targets, matching, nms, roi_align

    found: list = []
    for module in (roi_align, nms, matching, mask_targets):
        for name in [name for name in vars(module) if name.endswith("_kernel")]:
            monkeypatch.setattr(module, name, Compiler(getattr(module, name), found))
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_roi_align_compiles(compiled: list, dtype: torch.dtype, sampling_ratio: int) -> None:
    from det_ops.backends.triton import roi_align

    sizes, scales = [8, 4, 2, 1], [0.25, 0.125, 0.0625, 0.03125]
    regions = torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)
    features = [torch.zeros(2, 256, size, size, dtype=dtype) for size in sizes]
    roi_align.multilevel_roi_align(features, *regions, 7, 7, scales, sampling_ratio, True, True)
    grad = torch.zeros(3, 256, 7, 7, dtype=dtype)
    roi_align.multilevel_roi_align_backward(grad, *regions, sizes, sizes, 2, scales, sampling_ratio, True)
    forward, backward = (kernel.asm["ptx"] for kernel in compiled)
    assert "ld.global.v4" in forward  # channels-last pays
    assert "add.v4.f32" in backward


@pytest.mark.parametrize(("n", "given"), [(40, True), (40, False), (9000, True)])
def test_nms_compiles(compiled: list, n: int, given: bool) -> None:
    from det_ops.backends.triton import nms

    groups, valid = torch.zeros(2, n, dtype=torch.int64), torch.ones(2, n, dtype=torch.bool)
    options = (groups, valid) if given else (None, None)
    nms.nms(torch.zeros(2, n, 4), torch.zeros(2, n), *options, 0.5, 20, 0.0)
    pairs, scan = (kernel.asm["ptx"] for kernel in compiled)
    assert "div.rn.f32" in pairs  # thresholds fall as on the CPU
    assert "fma" not in pairs
    assert "ld.global" in scan


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("low_quality", [True, False])
def test_match_compiles(compiled: list, dtype: torch.dtype, low_quality: bool) -> None:
    from det_ops.backends.triton import matching

    valid = torch.ones(2, 3, dtype=torch.bool)
    anchors, truth = torch.zeros(1000, 4, dtype=dtype), torch.zeros(2, 3, 4, dtype=dtype)
    matching.match(anchors, truth, valid, 0.7, 0.3, low_quality, 0.3, low_quality, 0.0)
    assert len(compiled) == 1 + low_quality
    for kernel in compiled:
        assert "div.rn.f32" in kernel.asm["ptx"]
        assert "fma" not in kernel.asm["ptx"]


@pytest.mark.parametrize("legacy", [True, False])
def test_mask_targets_compile(compiled: list, legacy: bool) -> None:
    from det_ops.backends.triton import mask_targets

    regions = torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64), torch.zeros(3, 4)
    offsets = torch.zeros(2, 9, dtype=torch.int32)
    mask_targets.rasterize_polygons(torch.zeros(2, 40, 4), offsets, offsets, *regions, 28, legacy)
    mask_targets.bitmap_targets(torch.zeros(2, 5, 80, 90, dtype=torch.uint8), *regions, 28, True)
    polygons, bitmaps = (kernel.asm["ptx"] for kernel in compiled)
    assert "div.rn.f64" in polygons  # rounded as on the CPU
    assert "fma" not in polygons
    assert "ld.global.b8" in bitmaps


def test_triton_is_chosen_for_cuda_alone() -> None:
    assert backends.serving.get("cpu") is not backends.BACKENDS["cuda"]
    with pytest.raises(ValueError, match="TRITON_INTERPRET=1"):
        backends._backends("triton", "choice")
