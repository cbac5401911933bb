"""Graphs of ONNX with convolutions and products in 8 bits, calibrated on pictures, sensitive parts left in float.

ONNX Runtime's static quantisation: `QuantizeLinear` and `DequantizeLinear` around what is quantised, which OpenVINO
reads too. Weights have a scale per channel, and none has a zero point. What decides on boxes stays in float32.
"""

import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from det_models.certificate import Detections
from det_models.errors import OptionError, missing_extra
from det_models.exporting.onnx import quiet
from det_ops import box_iou

__all__ = ["QUANTISED", "Feed", "Trial", "overlap", "quantize"]

QUANTISED = ("Conv", "ConvTranspose", "Gemm")
"""Operators that may be in 8 bits; those of MatMul are of non-maximum suppression."""

ENOUGH = 0.95
"""Overlap with the objects of the float network at which nothing more is left in float."""
MOST_LEFT = 3
"""Parts that may be left in float; with more, little is left to be fast."""
JUDGED = 16
"""Pictures that a trial is judged by."""
SURE = 0.25
"""Score from which a detection is an object there."""

Feed = dict[str, np.ndarray]


class Trial(NamedTuple):
    """What a network finds with some of its parts in float.

    Attributes:
        left: Those parts.
        overlap: With the objects of the float network; see :func:`overlap`.
        alone: The only part in 8 bits, in a trial of one.
    """

    left: tuple[str, ...]
    overlap: float
    alone: str = ""

    def __str__(self) -> str:
        what = f"{self.alone} alone in 8 bits" if self.alone else f"{', '.join(self.left) or 'nothing'} in float"
        return f"{self.overlap:6.1%} overlap with the objects in float32, with {what}"


def quantize(
    graph: Path,
    path: Path,
    feeds: Sequence[Feed],
    say: Callable[[str], None] = print,
    *,
    left: tuple[str, ...] | None = None,
) -> list[Trial]:
    """Write a graph in 8 bits.

    Args:
        graph: In float32.
        path: Where it goes.
        feeds: Inputs by name, of pictures like those that it will see.
        say: Is told of each trial.
        left: Parts to leave in float, as the search for the same network has found in another shape; None: search.

    Returns:
        The trials, the last of which was written.

    Raises:
        OptionError: There are no pictures, or the runtime is not installed.
    """
    if not feeds:
        raise OptionError("int8 learns the ranges of numbers from pictures; give calibration some.")
    try:
        from onnxruntime.quantization import calibrate
    except ImportError as error:
        raise missing_extra("onnx", "quantises ONNX") from error
    parts = parts_of(graph)
    with tempfile.TemporaryDirectory() as folder:
        with quiet():
            calibrator = calibrate.create_calibrator(graph, list(QUANTISED), str(Path(folder) / "augmented.onnx"))
            calibrator.collect_data(_Reader(feeds))
            ranges = calibrator.compute_data()
            before = _detections(graph, feeds[:JUDGED])

        def trial(left: tuple[str, ...], alone: str = "") -> Trial:
            _write(graph, path, ranges, [name for part, names in parts.items() if part not in left for name in names])
            tried = Trial(left, overlap(before, _detections(path, feeds[:JUDGED])), alone)
            say(f"int8: {tried}.")
            return tried

        return _search(trial, tuple(parts)) if left is None else [trial(left)]


def _search(trial: Callable[..., Trial], parts: tuple[str, ...]) -> list[Trial]:
    """Leave those parts in float that change most when they alone are in 8 bits, until the overlap is enough."""
    trials = [trial(())]
    if trials[0].overlap >= ENOUGH:
        return trials
    alone = [trial(tuple(other for other in parts if other != part), part) for part in parts]
    worst = [one.alone for one in sorted(alone, key=lambda one: one.overlap)]
    for count in range(1, min(MOST_LEFT, len(parts)) + 1):
        trials.append(trial(tuple(worst[:count])))
        if trials[-1].overlap >= ENOUGH:
            break
    best = max(trials, key=lambda one: one.overlap)
    return [*alone, *trials] if best == trials[-1] else [*alone, *trials, trial(best.left)]


def parts_of(graph: Path) -> dict[str, list[str]]:
    """Nodes that may be quantised, by the part of the network that they are of, such as `backbone.body.layer1`."""
    import onnx

    parts: dict[str, list[str]] = {}
    for node in onnx.load(graph).graph.node:
        if node.op_type in QUANTISED:
            scopes = {entry.key: entry.value for entry in node.metadata_props}.get("pkg.torch.onnx.name_scopes", "")
            names = [name.strip(" '[]") for name in scopes.split(",")]
            module = next((name for name in reversed(names) if name.startswith("network.")), "network.other")
            keys = module.removeprefix("network.").split(".")
            depth = {"backbone": 2, "backbone.body": 3}.get(".".join(keys[:2]), 2 if keys[0] == "backbone" else 1)
            parts.setdefault(".".join(keys[:depth]), []).append(node.name)
    return parts


class _Reader:
    """Feeds, as the calibration asks for them."""

    def __init__(self, feeds: Iterable[Feed]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Feed | None:
        """The next one, or None at the end."""
        return next(self._feeds, None)


def _write(graph: Path, path: Path, ranges: Any, nodes: list[str]) -> None:
    import onnx
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    options = {"WeightSymmetric": True, "ActivationSymmetric": False}
    quantizer = QDQQuantizer(
        onnx.load(graph), True, False, QuantType.QInt8, QuantType.QUInt8, ranges, nodes, [], list(QUANTISED), options
    )
    with quiet():
        quantizer.quantize_model()
    quantizer.model.save_model_to_file(str(path))


def overlap(before: Sequence[Detections], after: Sequence[Detections]) -> float:
    """How much the objects of two networks overlap on average, which is what COCO's AP measures at ten thresholds.

    Args:
        before: What one detects, of each batch.
        after: What the other does.

    Returns:
        Mean over the objects of both of their largest IoU with a detection of the same class of the other network, of
        boxes times of masks; 0 for one without any, 1 where there are no objects.
    """
    found = [value for one, other in zip(before, after, strict=True) for value in _overlaps(one, other)]
    return sum(found) / len(found) if found else 1.0


def _overlaps(one: Detections, other: Detections) -> list[float]:
    values = []
    for mine, theirs in ((one, other), (other, one)):
        for image in range(len(mine["valid"])):
            sure = mine["valid"][image] & (mine["scores"][image] >= SURE)
            valid = theirs["valid"][image]
            boxes = box_iou(mine["boxes"][image][sure], theirs["boxes"][image][valid])
            boxes[mine["labels"][image][sure][:, None] != theirs["labels"][image][valid]] = 0
            if not boxes.numel():
                values += [0.0] * len(boxes)
                continue
            most, partner = boxes.max(1)
            if "masks" in mine:
                a = mine["masks"][image][sure] > 0.5
                b = theirs["masks"][image][valid][partner] > 0.5
                both, either = ((a & b).sum((1, 2)), (a | b).sum((1, 2)))
                most = most * torch.where(either > 0, both / either, 1.0)
            values += most.tolist()
    return values


def _detections(path: Path, feeds: Sequence[Feed]) -> list[Detections]:
    from det_models.exported.runtimes import onnx_session

    session = onnx_session(path, torch.device("cpu"))
    names = [one.name for one in session.get_outputs()]
    return [
        {name: torch.from_numpy(value) for name, value in zip(names, session.run(names, feed), strict=True)}
        for feed in feeds
    ]
