"""What of a recipe does not fit a data set: its options with better values, as a command line."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from apps.common.app import App, with_classes
from apps.common.config import BucketRecipe, DataConfig, Recipe
from apps.common.data import training_batches
from det_coco import CocoIndex, DataError, limits
from det_coco.doctor.proposals import (
    MATCH,
    Proposal,
    Proposals,
    anchor_recall,
    propose_anchors,
    propose_buckets,
    propose_size,
    seen_boxes,
)
from det_heads import OneStageConfig, YolactConfig

SPARE = 0.8
"""Share of the free memory that a batch may fill: the rest is for workspace and fragmentation."""


@dataclass
class Fit:
    """A recipe that is being fitted.

    Attributes:
        recipe: as it is fitted by now.
        changed: options that differ.
        kept: sentences on what fits.
    """

    recipe: Recipe
    changed: list[Proposal]
    kept: list[str]

    def add(self, option: str, value: str, reason: str) -> None:
        """Propose a value for an option."""
        self.changed.append(Proposal(option, value, reason))

    def data(self, **values: Any) -> None:
        """Change fields of the data section."""
        self.recipe = replace(self.recipe, data=replace(self.recipe.data, **values))


def fit(app: App, recipe: Recipe, indexes: Sequence[CocoIndex], data: Path, device: torch.device) -> Proposals:
    """Fit a recipe to a data set.

    Args:
        app: the recipe's.
        recipe: to begin with.
        indexes: the splits, the one to train on first.
        data: what `--data` names.
        device: whose memory the batch has to fit in.

    Returns:
        the options that differ, and a command line with them.
    """
    found = Fit(with_classes(recipe, indexes[0].num_classes), [], [])
    _fit_size(found, indexes[0])
    _fit_anchors(found, indexes[0])
    _fit_limits(found, indexes)
    _fit_buckets(found, indexes)
    _fit_batch(app, found, indexes[0], device)
    options = "".join(f" {proposal.option} {proposal.value}" for proposal in found.changed)
    command = f"hatch run apps/{app.name} train --data {data} --recipe {recipe.name}{options}"
    return Proposals(command=command, changed=found.changed, kept=found.kept)


def _short(recipe: Recipe) -> int:
    """Shorter side of images in evaluation."""
    return recipe.test_resize().shortest[0]


def _fit_size(found: Fit, index: CocoIndex) -> None:
    short, native = _short(found.recipe), float(np.median(np.minimum(index.heights, index.widths)))
    sides = np.sqrt(seen_boxes(index, found.recipe.test_resize(), short).prod(axis=1))
    size = propose_size(sides, short, native)
    tenth = float(np.quantile(sides, 0.1)) if len(sides) else 0.0
    if size is None:
        found.kept.append(f"Images of {short} pixels fit: a tenth of the objects is smaller than {tenth:.0f} pixels.")
        return
    at = tenth * size / short
    reason = f"a tenth of the objects is smaller than {tenth:.0f} pixels at {short}, {at:.0f} pixels at {size}"
    if not isinstance(found.recipe.data, DataConfig):
        found.add("--data.size", str(size), reason)
        found.data(size=size)
        return
    own = found.recipe.data
    sizes = tuple(round(side * size / own.test_size) for side in own.train_sizes)
    longest = round(own.max_size * size / own.test_size)
    found.add("--data.test-size", str(size), reason)
    found.add("--data.train-sizes", " ".join(map(str, sizes)), "in proportion")
    found.add("--data.max-size", str(longest), "in proportion")
    found.data(test_size=size, train_sizes=sizes, max_size=longest)


def _fit_anchors(found: Fit, index: CocoIndex) -> None:
    detector = found.recipe.detector
    if isinstance(detector, OneStageConfig) and detector.locations is not None:
        return  # its squares are what distances are measured in
    square = isinstance(detector, YolactConfig) and detector.priors.square
    if isinstance(detector, YolactConfig):
        anchors, name = detector.priors, "priors"
        ratios = tuple(1.0 if square else 1 / ratio for ratio in anchors.ratios)  # width by height there
    else:
        one_stage = isinstance(detector, OneStageConfig)
        anchors, name = (detector.anchors, "anchors") if one_stage else (detector.rpn.anchors, "rpn.anchors")
        ratios = anchors.ratios
    boxes = seen_boxes(index, found.recipe.test_resize(), _short(found.recipe))
    before = anchor_recall(boxes, list(chain.from_iterable(anchors.sizes)), ratios)
    proposed = propose_anchors(boxes, anchors.sizes, ratios)
    if proposed is None:
        found.kept.append(
            f"No other anchors fit better: {before:.1%} of the objects have one with an IoU of {MATCH:g}."
        )
        return
    sizes, chosen, recall = proposed
    reason = f"{recall:.1%} of the objects have an anchor with an IoU of {MATCH:g}, {before:.1%} with the recipe's"
    if sizes != anchors.sizes:
        for level, own in enumerate(sizes):
            found.add(f"--detector.{name}.sizes.{level}", " ".join(f"{size:g}" for size in own), reason)
            reason = "the same"
    if chosen != ratios:
        if square:
            found.add(f"--detector.{name}.square", "False", "so that there are ratios")
        own = [1 / ratio for ratio in chosen] if name == "priors" else chosen
        found.add(f"--detector.{name}.ratios", " ".join(f"{ratio:.3g}" for ratio in own), reason)


def _fit_limits(found: Fit, indexes: Sequence[CocoIndex]) -> None:
    most, shape, data = limits(*indexes), found.recipe.batch_shape(), found.recipe.data
    wanted = {"max_instances": most.max_instances}
    if shape.masks == "polygons":
        wanted |= {"max_polygons": most.max_polygons, "max_edges": most.max_edges}
    for name, count in wanted.items():
        allowed = getattr(data, name)
        if count > allowed:
            value = -(-count // 8) * 8
            reason = f"the fullest image has {count}, the recipe allows {allowed}"
            found.add(f"--data.{name.replace('_', '-')}", str(value), reason)
            found.data(**{name: value})
    if data == found.recipe.data:
        found.kept.append(f"Every image fits: the fullest has {most.max_instances} objects.")


def _fit_buckets(found: Fit, indexes: Sequence[CocoIndex]) -> None:
    data = found.recipe.data
    if not isinstance(found.recipe, BucketRecipe) or data.augment.scale_jitter is not None:
        return
    proposed = propose_buckets(indexes, found.recipe.training_resize(), found.recipe.batch_shape().buckets)
    if proposed is None:
        return
    buckets, saved = proposed
    value = " ".join(f"{height} {width}" for height, width in buckets)
    found.add("--data.buckets", value, f"{saved:.0%} fewer pixels than the two default shapes")
    found.data(buckets=buckets)


def _fit_batch(app: App, found: Fit, index: CocoIndex, device: torch.device) -> None:
    batch, free = found.recipe.data.batch, free_memory(device)
    if free is None:
        return
    try:
        fixed, each = step_memory(app, found.recipe, index)
    except DataError as error:
        found.kept.append(f"The batch was not tried: {error}")
        return
    room = max(1, int((SPARE * free - fixed) // each))
    needed = (
        f"an image takes about {shown_size(each)} in a step, weights {shown_size(fixed)}, free on {device.type} are "
        f"{shown_size(free)}"
    )
    if room >= batch:
        found.kept.append(f"The batch of {batch} fits in the memory: {needed}.")
        return
    value = 1 << (room.bit_length() - 1)
    found.add("--data.batch", str(value), needed)


def step_memory(app: App, recipe: Recipe, index: CocoIndex) -> tuple[int, int]:
    """Measure what a training step keeps, by one forward pass of one image on the CPU.

    Args:
        app: the recipe's.
        recipe: whole.
        index: the split to train on.

    Returns:
        (bytes of weights, gradients and momenta; bytes of an image in the largest bucket).

    Raises:
        DataError: the picture cannot be read, or does not fit the recipe.
    """
    single = replace(recipe, data=replace(recipe.data, batch=1, workers=0)).resolved()
    model = app.network(single).train()
    batch = next(training_batches(single, index, 0, pin_memory=False))
    kept: dict[int, int] = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = model(batch)
    fixed = 3 * sum(parameter.nbytes for parameter in model.parameters())
    del losses
    each = sum(kept.values()) + sum(tensor.nbytes for tensor in batch.values())
    largest = max(height * width for height, width in single.batch_shape().buckets)
    return fixed, round(each * largest / batch["images"][0, 0].numel())


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free on a device, None where the system does not say."""
    if device.type != "cpu":
        return int(getattr(torch, device.type).mem_get_info(device)[0])
    try:
        with Path("/proc/meminfo").open(encoding="ascii") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        names = os.sysconf_names if hasattr(os, "sysconf_names") else {}
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if "SC_PHYS_PAGES" in names else None


def shown_size(count: int) -> str:
    """Bytes as text, such as `1.5 GB`."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB"
