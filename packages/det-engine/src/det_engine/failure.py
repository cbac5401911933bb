"""A step that went wrong, explained, kept on disk, and repeated from there."""

import contextlib
import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from det_engine import checkpoint, content, distributed
from det_engine.errors import EngineError
from det_engine.masters import Masters
from det_engine.model import Batch, Mean, part_arguments
from det_engine.optim import is_norm
from det_engine.plain import to_plain
from det_engine.precision import Precision
from det_engine.step import TrainStep


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a pass of one part of a step showed.

    Attributes:
        terms: the losses.
        inputs: tensors of the batch that are not finite.
        layer: the first layer, in the order of computation, whose output is not finite, with its type and number
            format; None: all are finite.
        largest: the layer of the largest finite output, and that output.
        parameter: the first parameter, backwards, whose gradient is not finite.
        images: for images one by one, their id (or place) and loss, the worst first.
    """

    terms: dict[str, float]
    inputs: list[str] = field(default_factory=list)
    layer: str | None = None
    largest: tuple[str, float] = ("", 0.0)
    parameter: str | None = None
    images: list[tuple[int, float]] = field(default_factory=list)

    @property
    def is_finite(self) -> bool:
        """Whether nothing was found that is not finite."""
        return all(map(math.isfinite, self.terms.values())) and self.layer is None and self.parameter is None

    def sentences(self) -> list[str]:
        """What a person should know of it."""
        lines = []
        if self.inputs:
            lines.append(f"The batch itself is not finite in {', '.join(self.inputs)}.")
        if self.layer is not None:
            lines.append(f"The first layer whose output is not finite is {self.layer}.")
        elif self.parameter is not None:
            lines.append(f"Every layer's output is finite; the first gradient backwards that is not: {self.parameter}.")
        elif not self.is_finite:
            lines.append("Every layer's output is finite, so the loss itself makes the value.")
        if self.largest[0]:
            lines.append(f"The largest finite output is {self.largest[1]:.3g} in {self.largest[0]}.")
        bad = [identifier for identifier, loss in self.images if not math.isfinite(loss)]
        if bad:
            lines.append(f"Alone, it happens with image{'s' if len(bad) > 1 else ''} {', '.join(map(str, bad))}.")
        elif self.images:
            identifier, loss = self.images[0]
            lines.append(f"The image of the largest loss is {identifier} ({loss:.4g}).")
        return lines


def describe_terms(step: int, terms: Mapping[str, float], grad_norm: float) -> str:
    """The first sentence of a failure: which terms, at which step."""
    bad = ", ".join(f"{name} = {value}" for name, value in terms.items() if not math.isfinite(value))
    good = ", ".join(f"{name} = {value:.4g}" for name, value in terms.items() if math.isfinite(value))
    if bad:
        return f"The loss is not finite at step {step}: {bad}{f' ({good})' if good else ''}."
    if not math.isfinite(grad_norm):
        return f"The gradients are not finite at step {step} (norm {grad_norm}; {good})."
    return f"The loss explodes at step {step}: {good}, in all {math.fsum(terms.values()):.4g}."


def examine(
    model: nn.Module,
    part: Batch,
    *,
    precision: Precision,
    seed: int,
    place: tuple[int, int],
    mean: Mean,
) -> Finding:
    """Repeat forward and backward of a part and look at everything on the way, which changes nothing.

    Args:
        model: in training mode, with the weights before the step.
        part: tensors on the model's device.
        precision: number format and loss scale.
        seed: of the random numbers.
        place: index of the part among all, and their count.
        mean: gives what a loss is divided by, from what this part counted.
    """

    def losses_of(batch: Batch, index: int, count: int, mean: Mean) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        with precision.autocast():
            return model(batch, *part_arguments(model, (index, count), mean))

    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    # A captured step adds to these very tensors.
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None
    with _watching(model) as seen:
        losses = losses_of(part, *place, mean)
    terms = {name: float(value.detach()) for name, value in losses.items()}
    precision.backward(torch.stack([value.float() for value in losses.values()]).sum())
    parameter = next(
        (n for n, p in reversed(list(model.named_parameters())) if p.grad is not None and not p.grad.isfinite().all()),
        None,
    )
    for weight, gradient in gradients:
        weight.grad = gradient
    for buffer, before in buffers:
        buffer.copy_(before)
    images = []
    # One image has no batch statistics worth the name.
    quiet = [module for module in model.modules() if is_norm(module) and module.training]
    for module in quiet:
        module.eval()
    count = len(next(iter(part.values())))
    for row in range(count if all(len(value) == count for value in part.values()) else 0):
        one = {name: value[row : row + 1] for name, value in part.items()}
        with torch.no_grad():
            alone = losses_of(one, place[0] * count + row, place[1] * count, lambda number: number)
            identifier = int(part["image_ids"][row]) if "image_ids" in part else row
            images.append((identifier, sum(float(value) for value in alone.values())))
    for module in quiet:
        module.train()
    images.sort(key=lambda pair: math.inf if math.isnan(pair[1]) else pair[1], reverse=True)
    return Finding(terms=terms, inputs=_not_finite(part), parameter=parameter, images=images, **seen)


def _not_finite(part: Batch) -> list[str]:
    names = []
    for name, value in part.items():
        if value.is_floating_point():
            rows = (~value.isfinite()).flatten(1).any(1) if value.ndim > 1 else ~value.isfinite()
            bad = rows.nonzero().flatten().tolist()
            if bad:
                ids = part["image_ids"][bad].tolist() if "image_ids" in part else bad
                names.append(f"{name} (of image {', '.join(map(str, ids))})")
    return names


@contextlib.contextmanager
def _watching(model: nn.Module) -> Iterator[dict[str, Any]]:
    """Fills `layer` and `largest` while the model computes."""
    seen: dict[str, Any] = {"layer": None, "largest": ("", 0.0)}

    def look(name: str, module: nn.Module, output: Any) -> None:
        for tensor in _tensors(output):
            if tensor.numel() == 0 or seen["layer"] is not None:
                continue
            peak = float(tensor.detach().abs().max())
            if not math.isfinite(peak):
                kind = f"{type(module).__name__}, {str(tensor.dtype).removeprefix('torch.')}"
                seen["layer"] = f"{name} ({kind})" if name else f"the model itself ({kind})"
            elif peak > seen["largest"][1]:
                seen["largest"] = (name or "the model itself", peak)

    # The model's own output are the losses, which are reported anyway.
    hooks = [
        module.register_forward_hook(lambda module, _, output, name=name: look(name, module, output))
        for name, module in model.named_modules()
        if name
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def explain(
    stepper: TrainStep, batch: Batch, step: int, lr: float, path: Path, config: Any, *, exploded: bool
) -> list[str]:
    """Repeat a broken step, say what happens in it, and write the part in which it does to `path`.

    All processes call it together.

    Args:
        stepper: with the weights before the step.
        batch: this process's images of the step.
        step: number of steps finished before.
        lr: learning rate of the step.
        path: where the bundle goes.
        config: kept in the bundle.
        exploded: whether it was a finite loss that was too large.

    Returns:
        Sentences, the same in every process: any of them may be the one whose message is shown.
    """
    ids = distributed.gather_object(batch["image_ids"].tolist() if "image_ids" in batch else [])
    findings = []
    accumulation = stepper.accumulation
    for number, (part, means) in enumerate(accumulation.micro_batches(batch, step)):
        recorded: list[float] = []
        place, seed = accumulation.place(number), accumulation.seed(step, number)
        finding = examine(
            stepper.model,
            part,
            precision=stepper.precision,
            seed=seed,
            place=place,
            mean=functools.partial(_mean, iter(means), recorded),
        )
        findings.append((finding, part, place, recorded, seed))
    stepper.guard.unblock()
    worst = max(range(len(findings)), key=lambda number: _badness(findings[number][0]))
    scores = distributed.gather_object(_badness(findings[worst][0]))
    culprit = distributed.broadcast_object(0 if scores is None else max(range(len(scores)), key=scores.__getitem__))
    finding, part, place, recorded, seed = findings[worst]
    told = distributed.gather_object(finding)
    if distributed.rank() == culprit:
        bundle = {
            "model": stepper.tensors(),
            "batch": dict(part),
            "totals": recorded,
            "place": list(place),
            "seed": seed,
            "step": step,
            "lr": lr,
            "precision": stepper.precision.name,
            "loss_scale": stepper.precision.scale(),
            "terms": finding.terms,
            "config": to_plain(config),
        }
        checkpoint.save(path, {"failure": bundle})
    lines: list[str] = []
    if told is not None and ids is not None:
        if any(ids):
            lines.append(f"Images of that step: {', '.join(str(i) for row in ids for i in row)}.")
        scale = stepper.precision.describe_scale()
        lines.append(f"Learning rate {lr:.4g}, precision {stepper.precision.name}, {scale}.")
        if distributed.world_size() > 1:
            lines.append(f"It happens in process {culprit}.")
        if told[culprit].is_finite and not exploded:
            lines.append("Repeated, the step gives finite values.")
        lines += [*told[culprit].sentences(), f"Repeat it with: replay {path}."]
    return distributed.broadcast_object(lines)


def _mean(given: Iterator[Tensor], recorded: list[float], count: Tensor) -> Tensor:
    """What a loss was divided by: as found before the step, or else over all processes; remembered."""
    value = next(given, None)
    if value is None:
        value = distributed.all_reduce_mean(count.detach().float().clone())
    recorded.append(float(value))
    return value


def _badness(finding: Finding) -> float:
    if not finding.is_finite:
        return math.inf
    return math.fsum(finding.terms.values())


def replay(path: Path, build: Any, device: torch.device) -> Finding:
    """Repeat the step in a bundle that a broken training left.

    Args:
        path: the bundle.
        build: `build(config)` makes the network of the training's configuration.
        device: where to compute.

    Raises:
        EngineError: the file is no bundle, or of another network, or an entry is not what it was.
    """
    bundle = load_failure(path)
    precision = Precision(bundle["precision"], device, bundle["loss_scale"])
    model = build(bundle["config"]).to(device).train()
    checkpoint.load_model(model, bundle["model"], path)
    if precision.weights != torch.float32:
        Masters(model, precision.weights)
    totals = iter(bundle["totals"])
    with content.taking("failure", path):
        return examine(
            model,
            {name: value.to(device) for name, value in bundle["batch"].items()},
            precision=precision,
            seed=bundle["seed"],
            place=(bundle["place"][0], bundle["place"][1]),
            mean=lambda _: torch.tensor(next(totals), device=device),
        )


def load_failure(path: Path) -> dict[str, Any]:
    """What a broken step left in a file: weights and batch, `step` before it, `lr`, and the rest of `content.FAILURE`.

    Raises:
        EngineError: the file is none of these, damaged, or an entry is missing or something else than it should be.
    """
    bundle = checkpoint.load(path).get("failure")
    if bundle is None:
        raise EngineError(f"File {path} is not what a broken training step leaves (failures/*.pt in its run).")
    content.check_present(bundle, tuple(content.FAILURE), path, "replayed")
    content.check_entries(bundle, content.FAILURE, path)
    return bundle
