"""Evaluation beside pycocotools: CPU seconds and memory of one thread, from results to numbers; and LVIS.

    hatch run bench evaluate [--images 5000] [--lvis-images 20000]

By default a synthetic data set of COCO's size: 5,000 images of 80 classes, 36,000 objects, one in a hundred a crowd,
and 351,000 detections, many of equal score. Each measurement has a process of its own, which reads the data first. Both
sides must come to the same numbers. LVIS has 1,203 classes, 12 objects and 100 detections an image, and no peer.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import pickle
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measuring import append, peak_memory
from pycocotools import mask as coco_mask

HEIGHT, WIDTH, CLASSES, LVIS_CLASSES = 480, 640, 80, 1203
TARGETS = {"bbox": 30, "segm": 12}
Run = Callable[[], list[float]]
Side = Callable[..., Run]
Results = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]


def make_data(folder: Path, images: int, classes: int, objects: float, detections: float, masks: bool) -> Results:
    """Write an annotation file, and give results for it: image ids, category ids, boxes, scores, run-length codes."""
    random = np.random.default_rng(0)
    count, found = round(images * objects), round(images * detections)
    image_ids = np.sort(random.integers(0, images, count)) + 1
    sides = np.exp(random.uniform(np.log(12), np.log(300), (count, 2)))
    boxes = np.concatenate((random.random((count, 2)) * ((WIDTH, HEIGHT) - sides), sides), axis=1)
    # Few classes are frequent, most are rare.
    categories = np.minimum(random.exponential(classes / 5, count).astype(int), classes - 1) + 1
    crowd = random.random(count) < 0.01
    polygons = _polygons(random, boxes).reshape(count, -1).tolist() if masks else [[]] * count
    annotations = [
        {"id": n + 1, "image_id": image, "category_id": category, "bbox": box, "area": box[2] * box[3] * 0.6,
         "iscrowd": int(many), "segmentation": [polygon] if masks else []}
        for n, (image, category, box, many, polygon) in enumerate(
            zip(image_ids.tolist(), categories.tolist(), boxes.tolist(), crowd.tolist(), polygons, strict=True)
        )
    ]  # fmt: skip
    content = {"images": _images(random, images, classes), "annotations": annotations, "categories": _names(classes)}
    (folder / "instances.json").write_text(json.dumps(content))

    near = np.sort(random.integers(0, count, found))
    moved = boxes[near]
    moved[:, :2] += random.normal(0, 0.12, (found, 2)) * moved[:, 2:]
    moved[:, 2:] *= np.exp(random.normal(0, 0.12, (found, 2)))
    labels = np.where(random.random(found) < 0.7, categories[near], random.integers(1, classes + 1, found))
    outlines = _polygons(random, moved).reshape(found, -1) if masks else []
    codes = [coco_mask.frPyObjects([outline.tolist()], HEIGHT, WIDTH)[0] for outline in outlines]
    return image_ids[near], labels, moved, np.round(random.random(found), 3), codes


def _polygons(random: np.random.Generator, boxes: np.ndarray, points: int = 14) -> np.ndarray:
    """Outlines `[N, P, 2]` of ragged ellipses within boxes `[N, 4]`."""
    angles = np.linspace(0, 2 * np.pi, points, endpoint=False)
    radii = boxes[:, None, 2:] / 2 * (1 - 0.3 * random.random((len(boxes), points, 1)))
    return boxes[:, None, :2] + boxes[:, None, 2:] / 2 + radii * np.stack((np.cos(angles), np.sin(angles)), axis=-1)


def _images(random: np.random.Generator, images: int, classes: int) -> list[dict[str, Any]]:
    made = [{"id": n + 1, "file_name": f"{n}.jpg", "height": HEIGHT, "width": WIDTH} for n in range(images)]
    for image in made if classes == LVIS_CLASSES else ():
        image["neg_category_ids"] = (random.integers(0, classes, 15) + 1).tolist()
        image["not_exhaustive_category_ids"] = (random.integers(0, classes, 2) + 1).tolist()
    return made


def _names(classes: int) -> list[dict[str, Any]]:
    return [{"id": n + 1, "name": f"class {n}", "frequency": "fcr"[min(n // 400, 2)]} for n in range(classes)]


def as_rows(results: Results) -> list[dict[str, Any]]:
    """Results as a results file has them."""
    images, categories, boxes, scores, codes = (r if isinstance(r, list) else r.tolist() for r in results)
    rows = [
        {"image_id": image, "category_id": category, "bbox": box, "score": score}
        for image, category, box, score in zip(images, categories, boxes, scores, strict=True)
    ]
    for row, code in zip(rows, codes, strict=False):
        row["segmentation"] = {"size": code["size"], "counts": code["counts"].decode()}
    return rows


def ours(file: Path, results: Results, iou_type: str, arrays: bool) -> Run:
    """Our evaluation, of rows or of arrays."""
    from det_coco import CocoIndex, Detections, Protocol, evaluate

    index = CocoIndex.load(file, file.parent, check_images=False)
    given: Any = as_rows(results)
    if arrays:
        given = Detections.from_rows(index, given)
    protocol = Protocol.lvis() if index.num_classes == LVIS_CLASSES else None

    def run() -> list[float]:
        metrics = evaluate(index, given, [iou_type], protocol=protocol)[iou_type]
        return [value for name, value in metrics.items() if "/" not in name]

    return run


def pycocotools(file: Path, results: Results, iou_type: str) -> Run:
    """pycocotools as its own demonstration uses it; masks without boxes, which would decide on their size."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, rows = COCO(str(file)), as_rows(results)
    unused = "segmentation" if iou_type == "bbox" else "bbox"
    for row in rows:
        row.pop(unused, None)

    def run() -> list[float]:
        evaluation = COCOeval(truth, truth.loadRes(rows), iou_type)  # pyrefly: ignore[bad-argument-type]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        return list(evaluation.stats)

    return run


def measure(side: Side, *arguments: Any) -> tuple[float, float, list[float]]:
    """CPU seconds, more memory in MiB and the numbers of a side, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (side, *arguments))


def _measured(side: Side, folder: Path, *arguments: Any) -> tuple[float, float, Any]:
    with contextlib.redirect_stdout(io.StringIO()):
        run = side(folder / "instances.json", pickle.loads((folder / "results.pickle").read_bytes()), *arguments)
        before = peak_memory(reset=True)
        began = time.process_time()
        numbers = run()
        seconds = time.process_time() - began
    return seconds, peak_memory() - before, numbers


def compare(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Print and give a row for boxes and masks, from rows and from arrays."""
    results = make_data(folder, options.images, CLASSES, 7.2, 70.2, masks=True)
    (folder / "results.pickle").write_bytes(pickle.dumps(results))
    print(f"{options.images} images, {len(results[0])} detections; one thread; MiB that the evaluation adds")
    print(f"{'':<20} {'ours':>14} {'pycocotools':>16} {'ratio':>7} {'target':>7}")
    rows = []
    for iou_type, target in TARGETS.items():
        theirs = measure(pycocotools, folder, iou_type)
        for form in ("rows", "arrays"):
            own = measure(ours, folder, iou_type, form == "arrays")
            if own[2] != theirs[2]:
                raise SystemExit(f"{iou_type} from {form}: the numbers differ: {own[2]} and {theirs[2]}.")
            ratio = theirs[0] / own[0]
            print(
                f"{iou_type + ' from ' + form:<20} {own[0]:6.2f} s {own[1]:4.0f} M {theirs[0]:7.2f} s "
                f"{theirs[1]:5.0f} M {ratio:6.1f}x {target:6}x"
            )
            sides = {"ours": own, "pycocotools": theirs}
            rows.append(
                {"bench": "evaluate", "work": f"{iou_type} from {form}", "images": options.images, "target": target,
                 "cpu_seconds": {name: side[0] for name, side in sides.items()},
                 "mebibytes": {name: side[1] for name, side in sides.items()}}
            )  # fmt: skip
    return rows


def lvis(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Print and give the row of LVIS."""
    results = make_data(folder, options.lvis_images, LVIS_CLASSES, 12, 100, masks=False)
    (folder / "results.pickle").write_bytes(pickle.dumps(results))
    seconds, mebibytes, _ = measure(ours, folder, "bbox", True)
    what = f"LVIS, {options.lvis_images} images, {LVIS_CLASSES} classes, {len(results[0])} detections"
    print(f"{what}: {seconds:.1f} s of 120 s, {mebibytes:.0f} M of 2048 M")
    return [
        {"bench": "evaluate", "work": "LVIS", "images": options.lvis_images, "cpu_seconds": {"ours": seconds},
         "mebibytes": {"ours": mebibytes}}
    ]  # fmt: skip


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000, help="images of COCO's kind; 0: none")
    parser.add_argument("--lvis-images", type=int, default=20000, help="images of LVIS's kind; 0: none")
    parser.add_argument("--json", type=Path, help="file to append a line per row to, such as benchmarks/results.jsonl")
    options = parser.parse_args(args, argparse.Namespace(device="cpu", threads=1))
    os.environ.update(RAYON_NUM_THREADS="1", OMP_NUM_THREADS="1")  # read by the processes that measure
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for part, images in ((compare, options.images), (lvis, options.lvis_images)):
            rows += part(Path(folder), options) if images else []
    append(rows, options)


if __name__ == "__main__":
    main()
