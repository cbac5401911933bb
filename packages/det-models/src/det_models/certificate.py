"""Parity certificates: two networks on the same images, layer group by layer group, and in what they detect."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from det_backbones import ResNet
from det_coco import Batch, BatchShape, load_image, make_batch
from det_models.builders import Detector
from det_models.config import ModelConfig
from det_models.images import sample_of
from det_ops import box_iou

RELATIVE = 1e-4
"""Admissible difference of a layer's outputs, relative to the largest of them."""

LIMITS = {"boxes": 0.1, "scores": 1e-3, "masks": 1e-2}
"""Admissible difference of a detection: pixels, probability, probability of a pixel of the mask."""

OVERLAP = 0.5
"""IoU from which two detections are of the same object."""

TIES = 0.05
"""Share of the detections that rounding may exchange: of near equals, non-maximum suppression keeps one."""

DIVISOR = 32

Detections = Mapping[str, Tensor]


@dataclass
class Difference:
    """The largest difference between numbers that should be the same."""

    absolute: float = 0.0
    largest: float = 0.0

    def add(self, one: Tensor, other: Tensor) -> None:
        """Take two tensors of the same shape into account."""
        if one.shape != other.shape:
            self.absolute = float("inf")
        elif one.numel():
            self.absolute = max(self.absolute, (one.double() - other.double()).abs().max().item())
            self.largest = max(self.largest, one.double().abs().max().item())

    @property
    def relative(self) -> float:
        """Difference relative to the largest number."""
        return self.absolute / self.largest if self.largest else self.absolute


@dataclass
class Certificate:
    """What two networks have in common.

    Attributes:
        title: What was compared.
        layers: Per group of layers; both got the same inputs, those of the first network.
        counts: Detections of the first network and of the second.
        pairs: How many of them are of the same object: the same class, and an IoU of :data:`OVERLAP`.
        same: How many pairs differ by no more than :data:`LIMITS`.
        detections: Boxes, scores and masks of the pairs.
        images: How many.
    """

    title: str
    layers: dict[str, Difference] = field(default_factory=dict)
    counts: list[int] = field(default_factory=lambda: [0, 0])
    pairs: int = 0
    same: int = 0
    detections: dict[str, Difference] = field(default_factory=dict)
    images: int = 0

    @property
    def same_layers(self) -> bool:
        """Whether all layers compute the same."""
        return all(difference.relative <= RELATIVE for difference in self.layers.values())

    @property
    def lonely(self) -> int:
        """Detections that the other network does not have."""
        return max(self.counts) - self.same

    @property
    def same_detections(self) -> bool:
        """Whether detections have their counterparts, but for :data:`TIES` of them."""
        return self.lonely <= TIES * max(self.counts)

    def verdict(self, *, differs: bool = False) -> tuple[bool, str]:
        """Whether the networks are the same, and the line that says so.

        Args:
            differs: Whether the rules of one of them are known to be others, which detections then show.
        """
        if not self.same_layers:
            return False, "FAILED: layers compute something else."
        if self.lonely == 0:
            return True, "PASSED: the same layers and the same detections."
        if self.same_detections:
            return True, f"PASSED: the same layers and detections; rounding exchanged {self.lonely} near equals."
        if differs:
            return True, (
                "PASSED as for the layers. Detections differ by the rules named above: evaluate over there before use."
            )
        return False, "FAILED: the same layers, but other detections."

    def __str__(self) -> str:
        rows = {**self.layers, **{f"detected {name}": found for name, found in self.detections.items()}}
        width = max(len(name) for name in rows) if rows else 0
        lines = [f"{self.title} ({self.images} image{'s' * (self.images != 1)})"]
        lines.append(f"  {'':<{width}}  {'difference':>10}  {'relative':>10}")
        lines += [f"  {name:<{width}}  {row.absolute:>10.2g}  {row.relative:>10.2g}" for name, row in rows.items()]
        first, second = self.counts
        lines.append(f"  detections: {first} and {second}; {self.pairs} of the same objects, {self.same} the same")
        return "\n".join(lines)


def compare(
    title: str, source: Detector, other: Detector, batches: Sequence[Batch], outputs: "Outputs | None" = None
) -> Certificate:
    """Certificate of two networks of ours.

    Args:
        title: Its first line.
        source: Network in evaluation mode.
        other: The same architecture; its conventions may differ.
        batches: One image each.
        outputs: What stands for the layers and detections of `other`; by default its own.
    """
    certificate = Certificate(title, images=len(batches))
    outputs = outputs or OurOutputs(other)
    for batch in batches:
        with torch.inference_mode():
            calls, found = _recorded(source, batch)
            for group, inputs, result in calls:
                theirs = outputs.layer(group, inputs, batch)
                for one, another in zip(_tensors(result), _tensors(theirs), strict=True):
                    certificate.layers.setdefault(group, Difference()).add(one, another)
            pair_up(certificate, found, outputs.detections(batch))
    return certificate


def certificate_batches(model: ModelConfig, pictures: Sequence[Path]) -> Iterator[Batch]:
    """A batch per picture, resized as in evaluation; padded to a multiple of 32, as all systems do it.

    Args:
        model: Says how images are resized.
        pictures: Files.
    """
    for path in pictures:
        sample = sample_of(load_image(path), model.resize)
        height, width = (-(-side // DIVISOR) * DIVISOR for side in sample.image.shape[1:])
        buckets = model.buckets if model.resize.rule == "yolact" else ((height, width),)
        yield make_batch([sample], BatchShape(buckets=buckets, masks="none"), ground_truth=False)


class Outputs:
    """What a network computes."""

    def layer(self, group: str, inputs: tuple[Any, ...], batch: Batch) -> Any:
        """Outputs of a group of layers for the inputs that it got in the other network."""
        raise NotImplementedError

    def detections(self, batch: Batch) -> Detections:
        """All that it detects: boxes, scores, labels, valid and perhaps masks."""
        raise NotImplementedError


class OurOutputs(Outputs):
    """Outputs of a network of ours."""

    def __init__(self, model: Detector) -> None:
        self.model = model
        self.groups = dict(_groups(model))

    def layer(self, group: str, inputs: tuple[Any, ...], batch: Batch) -> Any:
        """Outputs of a group of layers; see :meth:`Outputs.layer`."""
        return self.groups[group](batch if group == "stem" else inputs)

    def detections(self, batch: Batch) -> Detections:
        """Detections of a batch; see :meth:`Outputs.detections`."""
        return self.model(batch)


def _groups(model: Detector) -> Iterator[tuple[str, Callable[[Any], Any]]]:
    """Groups of layers by name, each a function of the inputs it has in the network (the stem's is the batch)."""

    def call(module: nn.Module) -> Callable[[Any], Any]:
        return lambda inputs: module(*inputs)

    body = model.backbone.body
    if isinstance(body, ResNet):
        yield "stem", lambda batch: body.stem(model.normalize(batch))
    for name, module in _modules(model):
        yield name, call(module)


def _modules(model: Detector) -> Iterator[tuple[str, nn.Module]]:
    names = {
        **{f"backbone.body.layer{stage}": f"stage {stage + 1}" for stage in range(1, 5)},
        "backbone.fpn": "pyramid",
        "rpn": "proposals",
        "head": "predictions",
        "protonet": "prototypes",
    }
    for name, module in model.named_modules():
        head = re.fullmatch(r"(\w+)_head(?:s\.(\d+))?", name)
        if name in names:
            yield names[name], module
        elif head is not None:
            yield f"{head[1]} head" + (f" {int(head[2]) + 1}" if head[2] else ""), module


def _recorded(model: Detector, batch: Batch) -> tuple[list[tuple[str, tuple[Any, ...], Any]], Detections]:
    """Groups with their inputs and outputs, in the order of a forward pass, and its detections."""
    calls: list[tuple[str, tuple[Any, ...], Any]] = []
    hooks = [
        module.register_forward_hook(lambda _module, inputs, result, name=name: calls.append((name, inputs, result)))
        for name, module in _modules(model)
    ]
    try:
        found = model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    groups = dict(_groups(model))
    stem = [("stem", (), groups["stem"](batch))] if "stem" in groups else []
    return stem + calls, found


def _tensors(result: Any) -> list[Tensor]:
    if isinstance(result, Tensor):
        return [result]
    return [tensor for part in result for tensor in _tensors(part)]


def pair_up(certificate: Certificate, ours: Detections, theirs: Detections) -> None:
    """Find the counterpart of each detection, of the best first: the same class, and the box that overlaps most."""
    for image in range(len(ours["valid"])):
        one, other = (_valid(found, image) for found in (ours, theirs))
        overlap = box_iou(one["boxes"].float(), other["boxes"].float())
        overlap[one["labels"][:, None] != other["labels"]] = 0
        certificate.counts[0] += len(one["boxes"])
        certificate.counts[1] += len(other["boxes"])
        for index, row in enumerate(overlap):
            if len(row) == 0 or row.max() < OVERLAP:
                continue
            partner = int(row.argmax())
            overlap[:, partner] = 0
            same = True
            for name, limit in LIMITS.items():
                if name in one and name in other:
                    pair = Difference()
                    pair.add(one[name][index], other[name][partner])
                    same &= pair.absolute <= limit
                    certificate.detections.setdefault(name, Difference()).add(one[name][index], other[name][partner])
            certificate.pairs += 1
            certificate.same += same


def _valid(found: Detections, image: int) -> dict[str, Tensor]:
    valid = found["valid"][image]
    return {name: tensor[image][valid].cpu() for name, tensor in found.items() if name != "valid"}
