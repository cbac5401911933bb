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

from det_models.certificate import Certificate, Detections, pair_up
from det_models.errors import OptionError, missing_extra
from det_models.exporting.onnx import quiet

__all__ = ["QUANTISED", "Feed", "Trial", "quantize"]

QUANTISED = ("Conv", "ConvTranspose", "Gemm")
"""Operators that may be in 8 bits; those of MatMul are of non-maximum suppression."""

ENOUGH = 0.9
"""Share of the objects of the float network at which the search ends: one that finds 92 % has lost no AP."""
MOST_LEFT = 4
"""Parts that may be left in float."""
JUDGED = 8
"""Pictures that a trial is judged by."""
SURE = 0.25
"""Score from which a detection counts there."""

Feed = dict[str, np.ndarray]


class Trial(NamedTuple):
    """What a network finds with some of its parts in float.

    Attributes:
        left: Those parts.
        found: Share of the objects that both it and the float network find, of those that one is :data:`SURE` of.
    """

    left: tuple[str, ...]
    found: float

    def __str__(self) -> str:
        return f"{self.found:6.1%} of the objects with {', '.join(self.left) or 'nothing'} in float"


def quantize(graph: Path, path: Path, feeds: Sequence[Feed], say: Callable[[str], None] = print) -> list[Trial]:
    """Write a graph in 8 bits.

    Args:
        graph: In float32.
        path: Where it goes.
        feeds: Inputs by name, of pictures like those that it will see.
        say: Is told of each trial.

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

        def trial(left: tuple[str, ...]) -> Trial:
            _write(graph, path, ranges, [name for part, names in parts.items() if part not in left for name in names])
            tried = Trial(left, _agreement(before, _detections(path, feeds[:JUDGED])))
            say(f"int8: {tried}.")
            return tried

        return _search(trial, tuple(parts))


def _search(trial: Callable[[tuple[str, ...]], Trial], parts: tuple[str, ...]) -> list[Trial]:
    """Leave that part in float which gains most, one after the other, until enough is found."""
    trials = [trial(())]
    best = trials[0]
    while best.found < ENOUGH and len(best.left) < min(MOST_LEFT, len(parts)):
        tried = [trial((*best.left, part)) for part in parts if part not in best.left]
        trials += tried
        best = max(tried, key=lambda one: one.found)
    if trials[-1] != best:
        trials.append(trial(best.left))
    return trials


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


def _agreement(before: Iterable[Detections], after: Iterable[Detections]) -> float:
    """Share of the objects that both networks find; 1 where there are none."""
    certificate = Certificate("")
    for one, other in zip(before, after, strict=True):
        pair_up(certificate, _sure(one), _sure(other))
    most = max(certificate.counts)
    return certificate.pairs / most if most else 1.0


def _sure(found: Detections) -> dict[str, torch.Tensor]:
    return {**found, "valid": found["valid"] & (found["scores"] >= SURE)}


def _detections(path: Path, feeds: Sequence[Feed]) -> list[Detections]:
    from det_models.exported.runtimes import onnx_session

    session = onnx_session(path, torch.device("cpu"))
    names = [one.name for one in session.get_outputs()]
    return [
        {name: torch.from_numpy(value) for name, value in zip(names, session.run(names, feed), strict=True)}
        for feed in feeds
    ]
