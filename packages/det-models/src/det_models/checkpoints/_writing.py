"""Checkpoints of other systems, written as their own loaders expect them."""

import io
import json
import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from det_backbones import WeightsError, write_weights
from det_backbones.integrity import seal
from det_coco import DataError
from det_coco.outputs import whole_file
from det_heads import OneStageConfig
from det_heads.__about__ import __version__
from det_models.checkpoints._exchange import to_reference
from det_models.checkpoints._gaps import spread, torchvision_labels
from det_models.checkpoints._registry import SYSTEMS
from det_models.checkpoints._rules import to_our_name, to_reference_name
from det_models.checkpoints._targets import TARGETS, obstacle
from det_models.detector_config import DetectorConfig
from det_models.errors import CheckpointError

__all__ = ["leftover", "refuse_existing", "tensors_in", "to_checkpoint", "with_leftover", "write_checkpoint"]


def to_checkpoint(
    state: Mapping[str, Tensor],
    config: DetectorConfig | OneStageConfig,
    system: str,
    *,
    categories: Mapping[int, str] | None = None,
    norm_eps: float = 1e-5,
) -> dict[str, Any]:
    """A detector of boxes, or of two stages, in the container, names and layout of another system.

    What differs from the tensors that we have:

    * detectron2's frozen batch normalisation has a fixed epsilon of 1e-5; for others the scale is adapted.
    * torchvision reads RGB, so the first convolution of a network for BGR has its channels turned.
    * torchvision's classes are the categories' ids: where these have gaps, as COCO's have, classes that never win fill
      them (91 outputs for COCO).
    * mmdetection counts the updates of all batch statistics; frozen ones have a count of 0.

    What no tensor can say (pixels, strides, anchors) is in :func:`det_models.checkpoints.settings`.

    Args:
        state: Our state dict.
        config: The detector's configuration.
        system: One of :data:`det_models.checkpoints.TARGETS`.
        categories: Id -> name, in the order of the classes; without them classes are numbers.
        norm_eps: Epsilon of the body's normalisation.

    Raises:
        CheckpointError: The system has no such detector; the message says why.
    """
    if system not in TARGETS:
        raise CheckpointError(f"system must be one of {', '.join(TARGETS)}, got {system!r}")
    if not isinstance(config, DetectorConfig | OneStageConfig):
        raise CheckpointError(f"YOLACT cannot be written for {system}, which has no such detector")
    if len(categories or {}) not in (0, config.num_classes):
        raise CheckpointError(f"{config.num_classes} classes need as many categories, got {len(categories or {})}")
    reason = obstacle(config, system)
    if reason is not None:
        raise CheckpointError(f"this detector cannot be written for {system}: {reason}")
    names = dict(categories or {index + 1: str(index) for index in range(config.num_classes)})
    state = {name: tensor.detach().cpu() for name, tensor in state.items()}
    spelling = _spelling(config, system)
    if system == "detectron2":
        return {
            "model": _owned(to_reference(_with_epsilon(state, norm_eps), spelling)),
            "__author__": f"det-heads {__version__}",
            "categories": [{"id": identifier, "name": name} for identifier, name in names.items()],
        }
    if system == "mmdetection":
        classes = tuple(names.values())
        meta = {"CLASSES": classes, "dataset_meta": {"classes": classes}, "exported_by": f"det-heads {__version__}"}
        return {
            "meta": meta,
            "state_dict": _owned(_as_mmdetection(to_reference(state, spelling))),
        }
    if config.pixels.order == "bgr":
        state["backbone.body.conv1.weight"] = state["backbone.body.conv1.weight"].flip(1)
    state = spread(state, torchvision_labels(list(names)))
    return _owned(to_reference(state, spelling))


def _spelling(config: DetectorConfig | OneStageConfig, system: str) -> str:
    """Which of :data:`SYSTEMS` has the names of such a detector."""
    if isinstance(config, DetectorConfig):
        return "torchvision-v2" if system == "torchvision" and config.box.convs else system
    # detectron2's names count the normalisations between the layers of a tower.
    counted = config.norm if system == "detectron2" else config.locations
    return f"{system}-{'fcos' if counted is not None else 'retinanet'}"


def write_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file whole or not at all, and never over another.

    Args:
        path: The file; with detectron2's content and the suffix `.pkl` a pickle of arrays, as in its model zoo; with
            the suffix `.safetensors` a file of that format, whose metadata are what lies beside the tensors, in JSON.
        content: From :func:`to_checkpoint`.

    Raises:
        CheckpointError: There is such a file, or the disk or the format does not take it.
    """
    path = Path(path)
    refuse_existing(path)
    if path.suffix == ".safetensors":
        _write_safetensors(path, content)
        return
    pickled = path.suffix == ".pkl"
    if pickled and "__author__" not in content:
        raise CheckpointError(f"{path} must not end in .pkl: only detectron2 reads pickles; use .pth")

    # Where the disk is full, torch hides the error behind one of its own; in memory it meets none.
    written = io.BytesIO()
    if pickled:
        arrays = {name: tensor.numpy() for name, tensor in content["model"].items()}
        pickle.dump({**content, "model": arrays}, written)
        seal(written)
    else:
        torch.save(dict(content), written)
    try:
        with whole_file(path) as file:
            file.write(written.getbuffer())
            file.flush()
            os.fsync(file.fileno())  # before it takes its name, which a loss of power must not leave empty
    except DataError as error:
        raise CheckpointError(str(error)) from error


def _write_safetensors(path: Path, content: Mapping[str, Any]) -> None:
    tensors = tensors_in(content)
    beside = {name: value for name, value in content.items() if name not in tensors and value is not tensors}
    try:
        texts = {name: json.dumps(value) for name, value in beside.items()}
    except TypeError:
        raise CheckpointError(f"{path} cannot be of safetensors, which holds one set of tensors; use .pth") from None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_weights(path, tensors, texts)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written: {error.strerror or error}.") from error
    except WeightsError as error:
        raise CheckpointError(str(error)) from error


def tensors_in(content: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """The state dict in what :func:`to_checkpoint` returned."""
    return content.get("model") or content.get("state_dict") or content


def leftover(content: Mapping[str, Any], original: Mapping[str, Tensor], system: str) -> dict[str, Tensor]:
    """What the file that a detector was read from says beyond what is written of it.

    torchvision's rows for boxes and masks of the background, for instance, which no loss reaches and we do not have.
    With it (:func:`with_leftover`) a file that was only converted to ours comes back bit by bit.

    Args:
        content: What :func:`to_checkpoint` makes of the detector.
        original: Tensors of the file that it was read from, which is of the same system.
        system: As :func:`det_models.checkpoints.detect_system` names it.

    Returns:
        By the system's present name.
    """
    origin, written, found = SYSTEMS[system], tensors_in(content), {}
    for name, tensor in original.items():
        present = name.removeprefix("module.")
        if present not in written:  # an old spelling, or nothing that we know
            ours = to_our_name(origin.rules, origin.respell(present))
            known = None if ours is None else to_reference_name(origin.rules, ours[0])
            present = present if known is None else known[0]
        mine = written.get(present)
        if mine is None or mine.shape != tensor.shape or mine.dtype != tensor.dtype or not torch.equal(mine, tensor):
            found[present] = tensor
    return found


def with_leftover(content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """What :func:`to_checkpoint` returned, with what :func:`leftover` found."""
    inner = {**tensors_in(content), **tensors}
    for key in ("model", "state_dict"):
        if key in content:
            return {**content, key: inner}
    return inner


def refuse_existing(path: Path) -> None:
    """Refuse a path at which there is something: nothing is written over.

    Raises:
        CheckpointError: There is.
    """
    if path.exists():
        raise CheckpointError(f"{path} exists already; name another file, or remove it first")


def _owned(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that share no memory: a view would be written with all that it is a view of."""
    return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}


def _with_epsilon(state: Mapping[str, Tensor], eps: float, other: float = 1e-5) -> dict[str, Tensor]:
    """Batch normalisations that compute with the epsilon `other` what they computed with `eps`.

    The scale is changed and not the variance: `var + eps - other` would lose the digits of a variance near zero.
    """
    changed = dict(state)
    for name, variance in state.items():
        if eps == other or not (name.startswith("backbone.") and name.endswith(".running_var")):
            continue
        scale = f"{name.removesuffix('running_var')}weight"
        factor = ((variance.double() + other) / (variance.double() + eps)).sqrt()
        changed[scale] = (state[scale].double() * factor).to(state[scale].dtype)
    return changed


def _as_mmdetection(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """With counts beside all statistics, and group normalisation, which has none, called `gn`."""
    found = {}
    for name, tensor in tensors.items():
        layer, _, kind = name.rpartition(".")
        if f"{layer}.running_var" in tensors:
            found[name] = tensor
            if kind == "running_var":
                found.setdefault(f"{layer}.num_batches_tracked", tensors.get(f"{layer}.num_batches_tracked", _NONE))
        else:
            found[re.sub(r"(?<![a-z])bn(?=\d?\.)", "gn", name)] = tensor
    return found


_NONE = torch.tensor(0)
