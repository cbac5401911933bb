"""Parity certificates: two networks on the same images, layer group by layer group, and in what they detect."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from apps.common.app import Detector
from det_backbones import ResNet
from det_coco import Batch

RELATIVE = 1e-4
"""Admissible difference of a layer's outputs, relative to the largest of them."""

BOX, SCORE, MASK = 0.1, 1e-3, 1e-2
"""Admissible difference of a detection: pixels, probability, probability of a pixel of the mask."""

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
        """To the largest number."""
        return self.absolute / self.largest if self.largest else self.absolute


@dataclass
class Certificate:
    """What two networks have in common.

    Attributes:
        title: What was compared.
        layers: Per group of layers; both got the same inputs, those of the first network.
        counts: Detections of the first network, of the second, and pairs of the same class that differ by no more than
            :data:`BOX`, :data:`SCORE` and :data:`MASK`.
        detections: Over the pairs: boxes, scores, masks.
        images: How many.
    """

    title: str
    layers: dict[str, Difference] = field(default_factory=dict)
    counts: list[int] = field(default_factory=lambda: [0, 0, 0])
    detections: dict[str, Difference] = field(default_factory=dict)
    images: int = 0

    @property
    def same_layers(self) -> bool:
        """Whether all layers compute the same."""
        return all(difference.relative <= RELATIVE for difference in self.layers.values())

    @property
    def same_detections(self) -> bool:
        """Whether every detection has its counterpart."""
        return self.counts[0] == self.counts[1] == self.counts[2]

    def __str__(self) -> str:
        rows = {**self.layers, **{f"detected {name}": found for name, found in self.detections.items()}}
        width = max(len(name) for name in rows) if rows else 0
        lines = [f"{self.title} ({self.images} image{'s' * (self.images != 1)})"]
        lines.append(f"  {'':<{width}}  {'difference':>10}  {'relative':>10}")
        lines += [f"  {name:<{width}}  {row.absolute:>10.2g}  {row.relative:>10.2g}" for name, row in rows.items()]
        first, second, pairs = self.counts
        lines.append(f"  detections: {first} and {second}, of which {pairs} are the same")
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


class Outputs:
    """What a network computes."""

    def layer(self, group: str, inputs: tuple[Any, ...], batch: Batch) -> Any:
        """Outputs of a group of layers for the inputs that it got in the other network."""
        raise NotImplementedError

    def detections(self, batch: Batch) -> Detections:
        """All that it detects: boxes, scores, labels, valid and perhaps masks."""
        raise NotImplementedError


class OurOutputs(Outputs):
    """Those of a network of ours."""

    def __init__(self, model: Detector) -> None:
        self.model = model
        self.groups = dict(_groups(model))

    def layer(self, group: str, inputs: tuple[Any, ...], batch: Batch) -> Any:
        """As there."""
        return self.groups[group](batch if group == "stem" else inputs)

    def detections(self, batch: Batch) -> Detections:
        """As there."""
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
        "box_head": "box head",
        "mask_head": "mask head",
        "head": "predictions",
        "protonet": "prototypes",
    }
    for name, module in model.named_modules():
        if name in names:
            yield names[name], module
        elif name.startswith(("box_heads.", "mask_heads.")) and name.count(".") == 1:
            kind, _, stage = name.partition("_heads.")
            yield f"{kind} head {int(stage) + 1}", module


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
    """Find the counterpart of each detection, of the best first: same class, nearest box."""
    for image in range(len(ours["valid"])):
        one, other = (_valid(found, image) for found in (ours, theirs))
        free = torch.ones(len(other["boxes"]), dtype=torch.bool)
        certificate.counts[0] += len(one["boxes"])
        certificate.counts[1] += len(other["boxes"])
        for index, box in enumerate(one["boxes"]):
            candidates = free & (other["labels"] == one["labels"][index])
            distance = torch.where(candidates, (other["boxes"] - box).abs().amax(-1), torch.inf)
            if not (distance <= BOX).any():
                continue
            partner = int((distance + (other["scores"] - one["scores"][index]).abs()).argmin())
            pair = {
                name: Difference()
                for name in ("boxes", "scores", "masks")
                if name in one and name in other and one[name][index].shape == other[name][partner].shape
            }
            for name, difference in pair.items():
                difference.add(one[name][index], other[name][partner])
            limits = {"boxes": BOX, "scores": SCORE, "masks": MASK}
            if any(difference.absolute > limits[name] for name, difference in pair.items()):
                continue
            free[partner] = False
            certificate.counts[2] += 1
            for name in pair:
                certificate.detections.setdefault(name, Difference()).add(one[name][index], other[name][partner])


def _valid(found: Detections, image: int) -> dict[str, Tensor]:
    valid = found["valid"][image]
    return {name: tensor[image][valid].cpu() for name, tensor in found.items() if name != "valid"}
