"""What a training step would meet on an Ascend NPU, found on any computer without NPU, CANN or torch_npu.

python -m det_ops.npu_check my_module:build_step
"""

from det_ops.npu_check.recorder import Finding, Report, check
from det_ops.npu_check.simulation import NpuCheckError

__all__ = ["Finding", "NpuCheckError", "Report", "check"]
