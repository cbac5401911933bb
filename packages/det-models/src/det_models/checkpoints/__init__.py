"""Checkpoint exchange: detectors of other systems in, and ours under the names of others out."""

from typing import TYPE_CHECKING

from det_backbones.lazy import lazily

if TYPE_CHECKING:
    from det_models.checkpoints._exchange import (
        Translation,
        detect_system,
        from_reference,
        reference_names,
        to_reference,
        translate,
    )
    from det_models.checkpoints._gaps import torchvision_labels
    from det_models.checkpoints._loading import ArchitectureError, ClassCountError, Report, load, load_reference
    from det_models.checkpoints._reading import Checkpoint, read
    from det_models.checkpoints._registry import SYSTEMS, add_names, library
    from det_models.checkpoints._targets import TARGETS, as_run_by, differences, settings
    from det_models.checkpoints._writing import (
        leftover,
        refuse_existing,
        tensors_in,
        to_checkpoint,
        with_leftover,
        write_checkpoint,
    )
    from det_models.errors import CheckpointError
else:
    __getattr__, __dir__ = lazily(__name__, __file__)

__all__ = [
    "SYSTEMS",
    "TARGETS",
    "ArchitectureError",
    "Checkpoint",
    "CheckpointError",
    "ClassCountError",
    "Report",
    "Translation",
    "add_names",
    "as_run_by",
    "detect_system",
    "differences",
    "from_reference",
    "leftover",
    "library",
    "load",
    "load_reference",
    "read",
    "reference_names",
    "refuse_existing",
    "settings",
    "tensors_in",
    "to_checkpoint",
    "to_reference",
    "torchvision_labels",
    "translate",
    "with_leftover",
    "write_checkpoint",
]
