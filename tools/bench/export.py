"""Exported detectors beside their checkpoints: size, time to convert, time of a picture, AP, largest difference.

    hatch run bench export [--models tiny/mask_rcnn mask_rcnn ...] [--to onnx openvino ...] [--size 800 1344]

`tiny/FAMILY` is the family's recipe `tiny`, trained on the embedded data first, and measured on pictures held out. The
others are full-size networks with random weights, which have no AP, on one picture of `--size`. All sides look at
pictures with the same padding, and take turns, one picture at a time, from pixels in memory to boxes and the masks of
the network. What has been trained and measured stays in `--output`: a run that was interrupted goes on, and models can
be measured one by one; the table has all that are named. To measure a model once more, delete its `.json` there.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from detectors import DETECTORS, Pair
from measuring import add_options, append, take_turns
from scenes import make_scene
from trained import FAMILIES, trained

from apps.common.evaluate import Evaluator
from det_coco import Batch, CocoIndex
from det_models import Predictor, Weights, describe, export, open_weights
from det_models.certificate import LIMITS
from det_models.exported.predictor import ExportedPredictor
from det_models.exporting.certifying import certify
from det_models.exporting.settings import SUFFIXES
from det_models.images import batches_of
from det_models.inference import optimize_for_inference

CERTIFIED = 16
"""Pictures held out on which detections are compared."""
TIMED = 4
"""Pictures that one timed round looks at."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A detector to export; `index` is what its AP is of, `size` the shape of the file, None for that of all its
    pictures."""

    weights: Weights
    pictures: list[Any]
    index: CocoIndex | None = None
    size: tuple[int, int] | None = None


def tiny(family: str, options: argparse.Namespace) -> Subject:
    """A trained one, and the pictures held out."""
    weights, index = trained(FAMILIES[family](), options.output / f"tiny_{family}", steps=options.steps)
    pictures = [index.image(number) for number in range(min(CERTIFIED, len(index)))]
    return Subject(weights=weights, pictures=pictures, index=index)


def full_size(name: str, options: argparse.Namespace) -> Subject:
    """A random one, as a run leaves it."""
    torch.manual_seed(0)
    pair: Pair = DETECTORS[name]()
    classes = pair.recipe.detector.num_classes
    height, width = pair.size or options.size
    path = options.output / f"{name}.pt"
    config = describe(pair.recipe.model(), {number: str(number) for number in range(1, classes + 1)})
    torch.save({"format": "det-engine checkpoint", "model": pair.ours.state_dict(), "config": config}, path)
    picture = make_scene(1, height, width, classes=classes)["images"][0]
    size = None if pair.size else (height, width)
    return Subject(weights=open_weights(path), pictures=[picture], size=size)


def measure(subject: Subject, folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for our own inference, and for each way out of it."""
    weights, index = subject.weights, subject.index
    network = optimize_for_inference(weights.build(), torch.device("cpu"))
    rows: list[dict[str, Any]] = [{"to": "ours", "MiB": weights.path.stat().st_size / 2**20}]
    sides: dict[str, Any] = {}
    for to in options.to:
        began, cpu = time.perf_counter(), time.process_time()
        written = export(weights, folder / f"{to}{SUFFIXES[to]}", to, size=subject.size)
        row: dict[str, Any] = {"to": to, "convert": time.perf_counter() - began}
        row |= {"convert_cpu": time.process_time() - cpu}
        exported = open_weights(written[-1])
        predictor = exported.predictor()
        assert isinstance(predictor, ExportedPredictor)
        if "AP" not in rows[0]:
            rows[0]["AP"] = _ap(index, partial(padded_alike, weights, predictor))
        found = certify(weights, predictor, subject.pictures)
        row |= {name: difference.absolute for name, difference in found.detections.items()}
        row |= {"same": [found.same, max(found.counts)], "AP": _ap(index, exported.predictor)}
        files = [one for one in written if one.suffix in (SUFFIXES[to], ".bin")]
        size = sum(one.stat().st_size for one in files) / len(predictor.files) / 2**20  # of a shape
        rows.append(row | {"MiB": size})
        batches = [batch for _, batch in batches_of(subject.pictures, predictor.config.resize, predictor.shape, 1)]
        sides.setdefault("ours", partial(_look, partial(_infer, network), batches[:TIMED]))
        sides[to] = partial(_look, predictor.forward, batches[:TIMED])
    seconds = take_turns(sides, options)
    looks = min(TIMED, len(subject.pictures))
    return [row | {"seconds": seconds[row["to"]] / looks} for row in rows]


@torch.inference_mode()
def _infer(network: Any, batch: Batch) -> Any:
    return network({key: batch[key] for key in ("images", "image_sizes")})


def _look(detect: Any, batches: list[Batch]) -> None:
    for batch in batches:
        detect(batch)


def padded_alike(weights: Weights, exported: ExportedPredictor) -> Predictor:
    """The checkpoint's own, which pads pictures as a file does: a network sees what lies beyond an image."""
    predictor = weights.predictor()
    predictor.config = replace(predictor.config, buckets=exported.config.buckets)
    predictor.shape = exported.shape
    return predictor


def _ap(index: CocoIndex | None, predictor: Callable[[], Any]) -> dict[str, float]:
    if index is None:
        return {}
    metrics = Evaluator(predictor, index, workers=0)()
    return {task: values["AP"] for task, values in metrics.items()}


def measured(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of a model, from the output folder where it has been measured so already."""
    tag = name.replace("/", "_") + ("" if name.startswith("tiny/") else "-{}x{}".format(*options.size))
    record, folder = options.output / f"{tag}.json", options.output / f"exported_{tag}"
    if record.exists():
        return json.loads(record.read_text())
    folder.mkdir(exist_ok=True)
    subject = tiny(name.removeprefix("tiny/"), options) if name.startswith("tiny/") else full_size(name, options)
    where = {"bench": "export", "model": name, "size": list(subject.size) if subject.size else None}
    rows = [where | row for row in measure(subject, folder, options)]
    record.write_text(json.dumps(rows, indent=1) + "\n")
    return rows


def _line(row: dict[str, Any], ours: float) -> str:
    converted = f"{row['convert']:6.1f} s {row['convert_cpu']:6.1f} s" if "convert" in row else f"{'-':>8} {'-':>8}"
    precision = " / ".join(f"{value:.4f}" for value in row["AP"].values()) or "-"
    same = "-"
    if "same" in row:
        differences = ", ".join(f"{row[name]:.1g}" for name in LIMITS if name in row)
        same = f"{row['same'][0]} of {row['same'][1]}, {differences}"
    return (
        f"{row['model']:<22} {row['to']:<9} {row['MiB']:7.1f} {converted} {row['seconds'] * 1e3:7.1f} ms "
        f"{row['seconds'] / ours:6.2f}x  {precision:<15}  {same}"
    )


def main(args: list[str] | None = None) -> None:
    models = [*(f"tiny/{name}" for name in FAMILIES), *DETECTORS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=models[: len(FAMILIES)], choices=models, metavar="MODEL")
    parser.add_argument("--to", nargs="+", default=list(SUFFIXES), choices=sorted(SUFFIXES))
    parser.add_argument("--size", type=int, nargs=2, default=[480, 640], help="height and width of full-size networks")
    parser.add_argument("--steps", type=int, help="of the trainings; by default the recipes'")
    parser.add_argument("--output", type=Path, default=Path("runs/bench_export"), help="folder of all that is made")
    add_options(parser)
    options = parser.parse_args(args)
    torch.set_num_threads(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    table = [measured(name, options) for name in options.models]
    print(
        f"\n{'exported':<22} {'to':<9} {'MiB':>7} {'convert':>8} {'CPU':>8} {'picture':>10} {'of ours':>7}  "
        f"{'AP, box / mask':<15}  the same; largest difference of boxes [px], scores, masks"
    )
    for rows in table:
        for row in rows:
            print(_line(row, rows[0]["seconds"]))
    append([row for rows in table for row in rows], options)


if __name__ == "__main__":
    main()
