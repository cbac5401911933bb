"""What a training step asks of a GPU, counted without one: arithmetic, memory traffic, operators, host reads.

    hatch run bench roofline [--models mask_rcnn faster_rcnn ...] [--batch 2 16] [--size 800 1216] [--tflops 790]

The bfloat16 step of `train_step` runs on tensors that have shapes and no contents, in which reading one would be an
error, and every operator is written down. The least time of an operator is that of its arithmetic or of its traffic,
whichever is longer, at what an H200 reaches, or the two microseconds that the smallest one takes in a replayed graph;
their sum bounds the step from below. What a measured step needs above it are convolutions that stay below the peak, and
that an operator of `det_ops` counts as one here. Torchvision's step, whose shapes follow from the
data, is run for real on small images (larger ones take another NMS on CPUs) to count its operators and host reads.

The mask head is counted with all its slots, which a GPU computes; `--positives` says how many of them the plain
formulation of torchvision computes.
"""

import argparse
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from detectors import DETECTORS, Pair
from measuring import append
from scenes import Batch, as_torchvision, make_scene
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from torch.utils.module_tracker import ModuleTracker
from train_step import SOLVER, own_masks

from det_engine import TrainSettings, TrainStep
from det_heads import Yolact
from det_heads.mask_head import MaskHead
from det_ops import convolution, live_rows
from det_ops.npu_check import facts

TFLOPS, BYTES = 790, 4.3e12
"""What an H200 reaches a second: bfloat16 products of large matrices, in 10^12 operations, and copies."""
LATENCY = 2e-6
"""Seconds between two operators of a replayed graph; an estimate."""
TARGETS = {
    ("mask_rcnn", 2): 150,
    ("mask_rcnn", 16): 255,
    ("faster_rcnn", 16): 320,
    ("cascade_mask_rcnn", 16): 205,
    ("yolact_base", 16): 500,
}
"""Images per second aimed at on one H200, images of 800 x 1216 (YOLACT 550 x 550)."""
FREE = {"device", "promote_types", "empty", "empty_like", "new_empty", "empty_strided", "_unsafe_view", "detach"}
SPARSE = {"gather", "index_select", "index"}


@dataclass
class Cost:
    """Sums over operators; `busy` are seconds of arithmetic or traffic, `passes` those of them without products."""

    forward: float = 0
    backward: float = 0
    bytes: float = 0
    operators: int = 0
    busy: float = 0
    passes: float = 0
    seconds: float = 0

    def add(self, flops: float, bytes_: float, tflops: float, *, backward: bool) -> None:
        busy = max(flops / tflops / 1e12, bytes_ / BYTES)
        self.forward += 0 if backward else flops
        self.backward += flops if backward else 0
        self.bytes += bytes_
        self.operators += 1
        self.busy += busy
        self.passes += 0 if flops else busy
        self.seconds += max(busy, LATENCY)

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


class Count(TorchDispatchMode):
    """Costs by part of the network, those of operators without products by name, and the number of host reads."""

    def __init__(self, tracker: ModuleTracker, tflops: float) -> None:
        super().__init__()
        self.parts: defaultdict[str, Cost] = defaultdict(Cost)
        self.passes: defaultdict[str, Cost] = defaultdict(Cost)
        self.reads = 0
        self._tracker, self._tflops = tracker, tflops

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        space, _, name = func._schema.name.partition("::")
        # Whoever needs a shape that depends on values waits for them.
        reads = not (facts.READS | facts.DYNAMIC).isdisjoint((func._schema.name, func.name()))
        by_mask = name == "index" and any(isinstance(i, Tensor) and i.dtype == torch.bool for i in args[1])
        # torchvision's NMS fetches the matrix of overlaps from a GPU.
        self.reads += reads or by_mask or (space, name) == ("torchvision", "nms")
        if not (func.is_view or name in FREE or space == "profiler"):
            tensors = {id(t): t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
            made = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
            flops = _flops(func, args, out)
            traffic, backward = _traffic(name, list(tensors.values()), made), self._tracker.is_bw
            self.parts[self._part(name)].add(flops, traffic, self._tflops, backward=backward)
            if not flops:
                self.passes[name].add(flops, traffic, self._tflops, backward=backward)
        return out

    def _part(self, operator: str) -> str:
        if "roi_align" in operator:
            return "RoIAlign"
        inside = max(self._tracker.parents - {"Global"}, key=lambda name: name.count("."), default="")
        if not inside and not self._tracker.is_bw:
            return "optimiser"
        # The backward pass of a frozen part never ends, so parts of parts cannot be told apart.
        return inside.partition(".")[2].partition(".")[0] or "everything else"


def _flops(func: Any, args: Any, out: Any) -> float:
    formula = flop_registry.get(func._overloadpacket)
    return 0 if formula is None else formula(*args, out_val=out)


def _traffic(name: str, tensors: list[Tensor], made: list[Tensor]) -> float:
    """Bytes read and written, each tensor once; of a tensor that is expanded only what there is of it."""
    if name in SPARSE:
        return 2 * sum(map(_bytes, made))
    if name == "index_add_":  # its source is read, its target read and written at as many places
        return 3 * _bytes(tensors[-1])
    total = sum(map(_bytes, tensors)) + sum(map(_bytes, made))
    if name == "multilevel_roi_align_backward":
        total += sum(8 * t.numel() for t in made)  # sums in float32 are zeroed and rounded
    if name.startswith("multilevel_roi_align"):
        regions = tensors[0] if name.endswith("backward") else made[0]
        if regions.is_contiguous():
            total += 2 * _bytes(regions)  # the kernel works along channels, and copies
    return total


def _bytes(tensor: Tensor) -> int:
    return min(tensor.numel() * tensor.itemsize, tensor.untyped_storage().nbytes())


def count_ours(pair: Pair, batch: Batch, tflops: float) -> Count:
    """One step of ours on fake tensors."""
    step = TrainStep(pair.ours.train(), SOLVER, TrainSettings(precision="bf16"), torch.device("cpu"))
    # A step that read a value would raise here: there is none. The rows of the mask head as GPUs compute them.
    operators = convolution._conv3x3, live_rows._convolution_rows, live_rows._mask_logits_rows
    dense, rows, logits = (mock.patch.object(operator, "backend", return_value=None) for operator in operators)
    with FakeTensorMode(allow_non_fake_inputs=True) as fake, dense, rows, logits:
        shapes = {name: fake.from_tensor(value) for name, value in batch.items()}
        step(shapes, 0, SOLVER.base_lr)  # anchors are made once for a shape
        with ModuleTracker() as tracker, Count(tracker, tflops) as count:
            step(shapes, 1, SOLVER.base_lr)
    return count


def count_torchvision(model: torch.nn.Module, batch: Batch) -> tuple[int, int]:
    """Operators and host reads of torchvision's step."""
    images, targets = as_torchvision(batch)
    parameters = [parameter for parameter in model.train().parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=SOLVER.base_lr, momentum=0.9, foreach=True)

    def step() -> None:
        optimizer.zero_grad()
        torch.stack(list(model(images, targets).values())).sum().backward()
        optimizer.step()

    step()  # finds out the scales of the pyramid
    with ModuleTracker() as tracker, Count(tracker, TFLOPS) as count:
        step()
    return sum(part.operators for part in count.parts.values()), count.reads


def plain_flops(pair: Pair, parts: dict[str, Cost], images: int, positives: int) -> float:
    """The same step in torchvision's formulation: the proposal network's gradient everywhere, masks of all classes."""
    total = sum(part.forward + part.backward for part in parts.values())
    if isinstance(pair.ours, Yolact):
        return total
    total += 2 * parts["rpn"].forward
    heads = [module for module in pair.ours.modules() if isinstance(module, MaskHead)]
    for head in heads:
        rows = sum(part.forward + part.backward for name, part in parts.items() if name.startswith("mask_head"))
        box = pair.recipe.detector.box
        slots = max(1, int(box.samples * box.positive_fraction))
        pixels = 3 * 2 * images * slots * (2 * head.config.pool.size) ** 2 * head.config.channels
        total += (rows / len(heads) + pixels * (head.predictor.out_channels - 1)) * positives / slots
        total -= rows / len(heads)
    return total


def report(name: str, pair: Pair, size: tuple[int, int], count: int, options: argparse.Namespace) -> dict[str, Any]:
    """Print what a step asks; the row to record."""
    counted = count_ours(pair, own_masks(pair, make_scene(count, *size, classes=2)), options.tflops)
    parts = dict(counted.parts)
    whole = sum(parts.values(), Cost())
    peer: dict[str, Any] = {}
    if pair.torchvision is not None:
        small = make_scene(count, *options.small, classes=2, objects=2)
        operators, reads = count_torchvision(pair.torchvision, small)
        plain = plain_flops(pair, parts, count, options.positives) / count
        peer = {"operators": operators, "host_reads": reads, "flops_per_image": plain}
    target = TARGETS.get((name, count)) if size == (pair.size or (800, 1216)) else None
    flops = (whole.forward + whole.backward) / count
    print(
        f"\n{name}, {count} images of {size[0]}x{size[1]}, bfloat16: {flops / 1e9:.0f} GFLOP and "
        f"{whole.bytes / count / 1e6:.0f} MB an image, {whole.operators} operators, 0 host reads"
    )
    if peer:
        print(
            f"torchvision: {peer['flops_per_image'] / 1e9:.0f} GFLOP an image with {options.positives} positives, "
            f"{peer['operators']} operators, {peer['host_reads']} host reads"
        )
    print(
        f"busy for {whole.busy * 1e3:.1f} ms, with latency {whole.seconds * 1e3:.1f} ms: "
        f"at most {count / whole.seconds:.0f} images/s"
        + (f"; the target of {target} is {target * whole.seconds / count:.0%} of it" if target else "")
    )
    print(
        f"{'':<16} {'GFLOP/image':>17} {'MB/image':>9} {'operators':>10} {'busy':>9} {'passes':>8} {'latency':>8}  ms"
    )
    for part, cost in parts.items():
        print(
            f"{part:<16} {cost.forward / count / 1e9:8.1f} {cost.backward / count / 1e9:8.1f} "
            f"{cost.bytes / count / 1e6:9.0f} {cost.operators:10d} {cost.busy * 1e3:9.2f} {cost.passes * 1e3:8.2f} "
            f"{(cost.seconds - cost.busy) * 1e3:8.2f}"
        )
    longest = sorted(counted.passes.items(), key=lambda item: -item[1].busy)[:6]
    print("longest passes: " + ", ".join(f"{operator} {cost.busy * 1e3:.2f} ms" for operator, cost in longest))
    ours = {"operators": whole.operators, "host_reads": 0, "flops_per_image": flops}
    ours |= {"bytes_per_image": whole.bytes / count, "busy_seconds": whole.busy, "least_seconds": whole.seconds}
    row = {"bench": "roofline", "model": name, "batch": count, "size": list(size), "precision": "bf16"}
    row["tflops"] = options.tflops
    return row | {"steps": {"ours": ours, "torchvision": peer or None}, "target": target}


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["mask_rcnn"], choices=sorted(DETECTORS))
    parser.add_argument("--batch", type=int, nargs="+", default=[2, 16], help="images a step, one table each")
    parser.add_argument("--size", type=int, nargs=2, default=[800, 1216], help="height and width")
    parser.add_argument("--small", type=int, nargs=2, default=[32, 64], help="of the images of torchvision's count")
    parser.add_argument("--positives", type=int, default=64, help="regions an image with a mask, in torchvision")
    parser.add_argument("--tflops", type=float, default=TFLOPS, help="rate of products, in 10^12 operations a second")
    parser.add_argument("--json", type=Path, help="file to append a line per row to, such as benchmarks/results.jsonl")
    parser.set_defaults(device="cpu", threads=1)
    options = parser.parse_args(args)
    torch.set_num_threads(options.threads)
    rows = []
    for name in options.models:
        for count in options.batch:
            torch.manual_seed(0)
            pair = DETECTORS[name]()
            rows.append(report(name, pair, pair.size or tuple(options.size), count, options))
    append(rows, options)


if __name__ == "__main__":
    main()
