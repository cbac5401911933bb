"""Exported detectors beside their checkpoints: time to convert, size, time of a picture, largest difference.

    hatch run bench export [--models mask_rcnn yolact_resnet50 ...] [--to onnx openvino ...] [--size 800 1344]

All sides take turns on the same scene, one picture at a time, from pixels in memory to boxes and 28x28 masks. AP beside
them: `hatch run apps/mask_rcnn benchmark --weights best.pt detector.onnx detector.xml --data DIR`.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from detectors import DETECTORS, Pair
from measuring import add_options, append, take_turns
from scenes import make_scene

from det_models import describe, export, open_weights
from det_models.certificate import Certificate, pair_up
from det_models.exporting.settings import SUFFIXES
from det_models.inference import optimize_for_inference


def checkpoint(pair: Pair, path: Path) -> Path:
    """Ours, as a run leaves it."""
    categories = {number: str(number) for number in range(1, pair.recipe.detector.num_classes + 1)}
    config = describe(pair.recipe.model(), categories)
    torch.save({"format": "det-engine checkpoint", "model": pair.ours.state_dict(), "config": config}, path)
    return path


def measure(name: str, folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for our own inference, and for each way out of it."""
    torch.manual_seed(0)
    pair = DETECTORS[name]()
    height, width = pair.size or options.size
    weights = open_weights(checkpoint(pair, folder / "best.pt"))
    scene = make_scene(1, height, width, classes=pair.recipe.detector.num_classes)
    batch = {key: scene[key] for key in ("images", "image_sizes")}
    network = optimize_for_inference(weights.build(), torch.device("cpu"))

    @torch.inference_mode()
    def ours() -> dict[str, torch.Tensor]:
        return network(batch)

    rows: list[dict[str, Any]] = [{"to": "ours", "MiB": (folder / "best.pt").stat().st_size / 2**20}]
    sides: dict[str, Any] = {"ours": ours}
    for to in options.to:
        began = time.perf_counter()
        cpu = time.process_time()
        written = export(weights, folder / f"{to}{SUFFIXES[to]}", to, size=None if pair.size else (height, width))
        row = {"to": to, "convert": time.perf_counter() - began, "convert_cpu": time.process_time() - cpu}
        loaded = open_weights(written[0]).predictor()
        sides[to] = lambda loaded=loaded: loaded.forward(batch).detections
        certificate = Certificate(to)
        pair_up(certificate, ours(), sides[to]())
        row |= {key: found.absolute for key, found in certificate.detections.items()}
        row |= {"same": [certificate.same, max(certificate.counts)]}
        rows.append(row | {"MiB": sum(file.stat().st_size for file in written) / 2**20})
    seconds = take_turns(sides, options)
    return [
        {"bench": "export", "model": name, "size": [height, width], "seconds": seconds[row["to"]]} | row for row in rows
    ]


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["mask_rcnn"], choices=sorted(DETECTORS))
    parser.add_argument("--to", nargs="+", default=["onnx", "openvino"], choices=sorted(SUFFIXES))
    parser.add_argument("--size", type=int, nargs=2, default=[480, 640], help="height and width")
    add_options(parser)
    options = parser.parse_args(args)
    torch.set_num_threads(options.threads)
    rows = []
    print(f"{'exported':<20} {'to':<9} {'convert':>8} {'CPU':>7} {'MiB':>7} {'picture':>10} {'of ours':>8}  the same")
    for name in options.models:
        with tempfile.TemporaryDirectory() as folder:
            found = measure(name, Path(folder), options)
        for row in found:
            converted = (
                f"{row['convert']:6.0f} s {row['convert_cpu']:5.0f} s" if "convert" in row else f"{'-':>8} {'-':>7}"
            )
            same = f"{row['same'][0]} of {row['same'][1]}, {row.get('boxes', 0):.2g} px" if "same" in row else "-"
            print(
                f"{name:<20} {row['to']:<9} {converted} {row['MiB']:7.1f} {row['seconds'] * 1e3:7.0f} ms "
                f"{row['seconds'] / found[0]['seconds']:7.2f}x  {same}",
                flush=True,
            )
        rows += found
    append(rows, options)


if __name__ == "__main__":
    main()
