"""Checkpoint exchange: detectors of other systems in, and ours under the names of others out."""

from det_heads.checkpoints._exchange import (
    CheckpointError,
    Report,
    detect_system,
    from_reference,
    load_reference,
    reference_names,
    to_reference,
)
from det_heads.checkpoints._gaps import torchvision_labels
from det_heads.checkpoints._systems import SYSTEMS
from det_heads.checkpoints._targets import TARGETS, as_run_by, differences, settings
from det_heads.checkpoints._writing import refuse_existing, to_checkpoint, write_checkpoint

__all__ = [
    "SYSTEMS",
    "TARGETS",
    "CheckpointError",
    "Report",
    "as_run_by",
    "detect_system",
    "differences",
    "from_reference",
    "load_reference",
    "reference_names",
    "refuse_existing",
    "settings",
    "to_checkpoint",
    "to_reference",
    "torchvision_labels",
    "write_checkpoint",
]
