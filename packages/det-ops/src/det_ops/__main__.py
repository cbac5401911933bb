"""`python -m det_ops`: which kernel serves each operator on each kind of device, and why."""

import torch

import det_ops
from det_ops._table import table
from det_ops.backends import BACKENDS
from det_ops.backends.npu import FORMS, VENDOR


def present() -> dict[str, str]:
    """Device types mapped to the name of the first such device of this machine."""
    found = {"cpu": f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"}
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.get_device_name(0)
    npu = getattr(torch, "npu", None)
    if npu is not None and npu.is_available():
        found["npu"] = npu.get_device_name(0)
    return found


def main() -> None:
    """Print a table per kind of device, of this machine or not; for NPUs also what torch_npu has, and why not that."""
    devices = present()
    print(f"det_ops {det_ops.__version__}, torch {torch.__version__}")
    rows = table()
    width = max(len(row.function) for row in rows)
    for device in BACKENDS:
        print(f"\n{device}: {devices.get(device, 'not on this machine; what it would get')}")
        for row in rows:
            if row.device == device:
                print(f"  {row.function:{width}}  {row.kernel:10}  {row.reason}")
                if device == "npu" and row.function in VENDOR:
                    print(f"  {'':{width}}  {'not':10}  {VENDOR[row.function]}")
                elif device == "npu" and row.function in ("batched_nms", "nms"):
                    for choice, (_, reason) in FORMS.items():
                        print(f"  {'':{width}}  {'or':10}  DET_OPS_KERNELS={choice}: {reason}")


if __name__ == "__main__":
    main()
