"""The proof that an exported file finds what its checkpoint finds."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from det_coco import Batch
from det_models.certificate import Certificate, pair_up
from det_models.exported.predictor import ExportedPredictor
from det_models.images import batches_of
from det_models.weights import Weights

__all__ = ["certify", "passes"]

LEAST_PAIRS = 0.9
"""Share of the detections that a file in less than fp32 must have in common with its checkpoint."""


def certify(weights: Weights, exported: ExportedPredictor, pictures: Iterable[Any]) -> Certificate:
    """Compare an exported file with the checkpoint that it was made of, on the same padded pictures.

    Args:
        weights: The checkpoint.
        exported: The file, loaded.
        pictures: Of any kind that a detector takes.
    """
    network = weights.build()
    certificate = Certificate(f"Parity certificate: {weights.path.name} and {exported.source}")
    for _, batch in batches_of(pictures, exported.config.resize, exported.shape, 1):
        theirs = exported.forward(batch).detections
        ours = _ours(network, batch, theirs, getattr(exported.config.detector, "offset", 0.0))
        pair_up(certificate, _with_extent(ours), _with_extent(theirs))
        certificate.images += 1
    return certificate


def passes(certificate: Certificate, precision: str) -> tuple[bool, str]:
    """Whether the file may be used, and the line that says so.

    Args:
        certificate: Of :func:`certify`.
        precision: Of the file: one in less than fp32 has other detections, and is held to finding the same objects.
    """
    most = max(certificate.counts)
    if precision != "fp32":
        fine = certificate.pairs >= LEAST_PAIRS * most
        word = "PASSED" if fine else "FAILED"
        return fine, f"{word}: {certificate.pairs} of {most} objects are found by both (at least {LEAST_PAIRS:.0%})."
    if certificate.lonely == 0:
        return True, "PASSED: the same detections."
    if certificate.same_detections:
        return True, f"PASSED: the same detections; rounding exchanged {certificate.lonely} near equals."
    return False, "FAILED: other detections."


def _with_extent(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The detections that a picture shows, which those without width or height are not."""
    low, high = found["boxes"].split(2, -1)
    return {**found, "valid": found["valid"] & (high > low).all(-1)}


def _ours(network: Any, batch: Batch, theirs: Mapping[str, Tensor], offset: float) -> dict[str, Tensor]:
    with torch.inference_mode():
        found = dict(network({name: batch[name] for name in ("images", "image_sizes")}))
    if offset:
        low, high = found["boxes"].split(2, -1)
        found["boxes"] = torch.cat((low, high + offset), -1)
    if "masks" not in theirs or theirs["masks"].dtype == torch.bool:
        found.pop("masks", None)
    return found
