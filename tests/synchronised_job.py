"""det_engine's training of several processes, over det_backbones' synchronised batch norm.

python synchronised_job.py PROCESSES RUN_DIRECTORY
"""

import importlib.util
import sys
from pathlib import Path

import torch
from torch import nn

from det_backbones import SyncBatchNorm2d
from det_engine import cli

SCRIPT = Path(__file__).parents[1] / "packages" / "det-engine" / "tests" / "job.py"
spec = importlib.util.spec_from_file_location("det_engine_tests_job", SCRIPT)
assert spec is not None
assert spec.loader is not None
job = importlib.util.module_from_spec(spec)
spec.loader.exec_module(job)
job.NORMS["plain"] = lambda: nn.Sequential(nn.Unflatten(1, (16, 1, 1)), SyncBatchNorm2d(16), nn.Flatten())

if __name__ == "__main__":
    torch.set_num_threads(1)
    raise SystemExit(cli.run_main(lambda: job.main(*sys.argv[1:3], "plain")))
