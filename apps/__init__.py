"""Trainers assembled from the det packages. Not published: recipes promise no API."""

import os

# OpenMP's threads spin while they wait. On a machine with other work to do each wait then costs a time slice of the
# scheduler, which made steps up to ten times longer; sleeping costs nothing measurable. It is read when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Where torch_npu is installed, `import torch` imports it, and fails with it where CANN is missing. `det_engine` imports
# it when a device asks for it, and says what is missing.
os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
