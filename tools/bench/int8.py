"""Detectors in 8 bits: AP, size and time of a picture of ONNX Runtime's static quantisation, and of OpenVINO's NNCF.

    hatch run bench int8 [--photographs 16] [--steps N]

Two detectors: `tiny`, trained on the embedded data and evaluated on pictures held out, and photographs of `coco_mini`
learnt by heart. NNCF is no dependency of ours: its rows are there where it is installed (`pip install nncf`). AP is in
points, on pictures with the same padding, that of the training; the runtimes take turns. Trainings stay in `--output`,
and are not repeated.
"""

import argparse
import importlib
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import openvino
import torch
from export import padded_alike
from measuring import add_options, append, take_turns
from trained import FAMILIES, trained

from apps.common.evaluate import Evaluator
from det_coco import BatchShape, CocoIndex
from det_models import Weights, export, open_weights
from det_models.exported.fitting import FittingResize
from det_models.exported.predictor import ExportedPredictor
from det_models.exported.weights import ExportedWeights
from det_models.images import batches_of
from testing.overfitting import overfit, write_subset

CALIBRATED = 64
"""Pictures that the ranges of numbers are learnt from."""


def subjects(options: argparse.Namespace) -> dict[str, tuple[Weights, CocoIndex]]:
    """The two detectors, each with the pictures of its AP."""
    photographs = options.output / f"photographs_{options.photographs}"
    if not photographs.exists():
        write_subset(photographs, options.photographs)
    heart = options.output / f"by_heart_{options.photographs}"
    return {
        "tiny": trained(FAMILIES["mask_rcnn"](), options.output / "tiny_mask_rcnn", steps=options.steps),
        "by heart": trained(overfit(), heart, data=photographs, steps=options.steps),
    }


def _feeds(predictor: ExportedPredictor, pictures: list[Any], shapes: tuple[Any, ...], shape: Any) -> list[Any]:
    """Pictures as the file of a shape takes them, those for which it is the best of some shapes."""
    resize, padded = FittingResize.of(predictor.config.resize, shapes), BatchShape(buckets=shapes, masks="none")
    batches = [batch for _, batch in batches_of(pictures, resize, padded, 1) if batch["images"].shape[2:] == shape]
    return [{name: batch[name].numpy() for name in ("images", "image_sizes")} for batch in batches]


def by_nncf(float_model: Path, path: Path, pictures: list[Any]) -> Path:
    """OpenVINO's models in 8 bits by NNCF's post-training quantisation.

    Args:
        float_model: The card of those in float32.
        path: The card to write.
        pictures: To learn ranges from.
    """
    nncf: Any = importlib.import_module("nncf")
    predictor = open_weights(float_model).predictor()
    assert isinstance(predictor, ExportedPredictor)
    card = json.loads(float_model.read_text())
    del card["sha256"]
    # What decides on boxes has products too, which must stay exact.
    ignored = nncf.IgnoredScope(types=["MatMul"], validate=False)
    for number, (shape, file) in enumerate(predictor.files.items()):
        own = _feeds(predictor, pictures, tuple(predictor.files), shape) or _feeds(predictor, pictures, (shape,), shape)
        model = openvino.Core().read_model(file)
        small = nncf.quantize(model, nncf.Dataset(own), ignored_scope=ignored, subset_size=len(own))
        made = path.with_name(f"nncf-{number}.xml")
        openvino.save_model(small, made, compress_to_fp16=False)
        card["files"][number][2] = made.name
    path.write_text(json.dumps(card))
    return path


def files(weights: Weights, index: CocoIndex, folder: Path) -> dict[str, Path]:
    """The cards of what is compared, by how it was made."""
    folder.mkdir(exist_ok=True)
    pictures = [index.image(number) for number in range(min(CALIBRATED, len(index)))]
    small: dict[str, Any] = {"precision": "int8", "calibration": pictures}
    ways: dict[str, tuple[str, Any, dict[str, Any]]] = {
        "ONNX fp32": ("fp32.onnx", "onnx", {}),
        "ONNX int8": ("int8.onnx", "onnx", small),
        "OpenVINO fp32": ("fp32.xml", "openvino", {}),
        "OpenVINO int8": ("int8.xml", "openvino", small),
    }
    made = {
        name: export(weights, folder / file, to, buckets=True, **more)[-1] for name, (file, to, more) in ways.items()
    }
    try:
        made["OpenVINO NNCF"] = by_nncf(made["OpenVINO fp32"], folder / "nncf.xml.json", pictures)
    except ImportError:
        print("NNCF is not installed, and left out.")
    return made


def measure(weights: Weights, index: CocoIndex, folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each file, the checkpoint first."""
    made = files(weights, index, folder)
    opened = {"checkpoint": weights, **{name: open_weights(file) for name, file in made.items()}}
    detectors = {name: one.predictor() for name, one in opened.items()}
    exported = detectors["ONNX fp32"]
    assert isinstance(exported, ExportedPredictor)
    detectors["checkpoint"] = padded_alike(weights, exported)
    picture = index.image(0)
    seconds = take_turns({name: partial(one.predict, picture) for name, one in detectors.items()}, options)
    rows = []
    for name, one in opened.items():
        metrics = Evaluator(lambda name=name: detectors[name], index, workers=0)()
        parts = list(one.files.values()) if isinstance(one, ExportedWeights) else [one.path]
        beside = [part.with_suffix(".bin") for part in parts if part.suffix == ".xml"]
        size = sum(part.stat().st_size for part in (*parts, *beside))
        size = size / len(parts) / 2**20  # of a shape
        points = {task: 100 * values["AP"] for task, values in metrics.items()}
        rows.append({"file": name, "MiB": size, "AP": points, "seconds": seconds[name]})
    return rows


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=int, default=16, help="to learn by heart")
    parser.add_argument("--steps", type=int, help="of the trainings; by default the recipes'")
    parser.add_argument("--output", type=Path, default=Path("runs/bench_export"), help="folder of all that is made")
    add_options(parser)
    options = parser.parse_args(args)
    torch.set_num_threads(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, (weights, index) in subjects(options).items():
        began = time.perf_counter()
        found = measure(weights, index, options.output / f"int8_{name.replace(' ', '_')}", options)
        print(f"\n{name}, {len(index)} pictures, {time.perf_counter() - began:.0f} s")
        print(f"{'':<14} {'MiB':>6} {'picture':>10}  AP, box / mask, and what is lost")
        for row in found:
            points = " / ".join(f"{value:.2f}" for value in row["AP"].values())
            lost = " / ".join(f"{found[0]['AP'][task] - value:+.2f}" for task, value in row["AP"].items())
            print(f"{row['file']:<14} {row['MiB']:6.1f} {row['seconds'] * 1e3:7.1f} ms  {points}, {lost}")
        rows += [{"bench": "int8", "detector": name} | row for row in found]
    append(rows, options)


if __name__ == "__main__":
    main()
