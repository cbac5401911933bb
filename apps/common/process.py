"""What a command sets for its process before torch loads; nothing else of this repository changes a process."""

import contextlib
import ctypes
import os


def tune() -> None:
    """Set the waiting of OpenMP's threads, the loading of torch_npu, and glibc's allocator.

    Call it before anything imports torch, which reads the first two.
    """
    # OpenMP's threads spin while they wait. On a machine with other work to do each wait then costs a time slice of the
    # scheduler, which made steps up to ten times longer; sleeping costs nothing measurable.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # Where torch_npu is installed, `import torch` imports it, and fails with it where CANN is missing. `det_engine`
    # imports it when a device asks for it, and says what is missing.
    os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
    # glibc returns what torch frees to the system and gets it back, page by page, at every step: that was a quarter of
    # the time of Mask R-CNN's inference on a CPU.
    with contextlib.suppress(OSError, AttributeError, TypeError):  # other C libraries have other allocators
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: no block is mapped by itself
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: nothing is returned
