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
from det_heads.checkpoints._systems import SYSTEMS

__all__ = [
    "SYSTEMS",
    "CheckpointError",
    "Report",
    "detect_system",
    "from_reference",
    "load_reference",
    "reference_names",
    "to_reference",
]
