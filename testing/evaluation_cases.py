"""Random small data sets with results, full of what evaluators stumble over, and pycocotools' numbers for them."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from det_coco import CocoIndex
from det_coco._coco_api import COCO, COCOeval, coco_mask

HEIGHT, WIDTH = 60, 80
# Both sides of the lines that COCO draws at 32 x 32 and 96 x 96 pixels, and the lines themselves.
AREAS = (1.0, 1023.0, 1023.9999999, 1024.0, 1024.0000001, 1025.0, 9216.0, 9216.5, 20000.0)
Content = dict[str, Any]


@st.composite
def cases(
    draw: st.DrawFn, classes: tuple[int, ...] = (1, 2, 3, 7), federated: bool = False
) -> tuple[Content, list[dict[str, Any]]]:
    """An annotation file with ids from 1, and results for it: boxes on a coarse grid, few different scores."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    num_images, num_classes = draw(st.integers(1, 5)), draw(st.sampled_from(classes))
    objects, detections = draw(st.integers(0, 20)), draw(st.integers(0, 60))
    crowded, masks = draw(st.sampled_from((0.0, 0.2))), draw(st.booleans())
    image_ids = random.choice(1000, num_images, replace=False).tolist()
    category_ids = np.sort(random.choice(5000, num_classes, replace=False)).tolist()
    used = category_ids[: draw(st.integers(1, 3))]
    content: Content = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": HEIGHT, "width": WIDTH} for i in image_ids],
        "categories": [{"id": c, "name": f"class {c}", "frequency": "rcf"[n % 3]} for n, c in enumerate(category_ids)],
        "annotations": [],
    }
    for number in range(objects):
        box = _box(random)
        content["annotations"].append(
            {"id": number + 1, "image_id": int(random.choice(image_ids)), "category_id": int(random.choice(used)),
             "bbox": box, "area": float(random.choice((*AREAS, box[2] * box[3]))),
             "iscrowd": int(random.random() < crowded), "segmentation": _mask(random, box, masks)}
        )  # fmt: skip
    if federated:
        for image in content["images"]:
            image["neg_category_ids"] = random.choice(used, random.integers(0, 3)).tolist()
            image["not_exhaustive_category_ids"] = random.choice(used, random.integers(0, 2)).tolist()
    rows = []
    for _ in range(detections):
        near = random.choice(content["annotations"]) if objects and random.random() < 0.8 else None
        box = _moved(random, near["bbox"]) if near else _box(random)
        rows.append(
            {"image_id": near["image_id"] if near else int(random.choice(image_ids)),
             "category_id": near["category_id"] if near and random.random() < 0.8 else int(random.choice(category_ids)),
             "bbox": box, "score": float(random.choice((0.0, 0.1, 0.5, 0.5000001, 0.9, 1.0))),
             "segmentation": _code(_polygon(random, box))}
        )  # fmt: skip
    return content, rows


def _box(random: np.random.Generator) -> list[float]:
    w, h = random.choice((5, 10, 20, 32, 40), 2)
    return [float(random.integers(0, (WIDTH - w) // 5 + 1) * 5), float(random.integers(0, (HEIGHT - h) // 5 + 1) * 5),
            float(w), float(h)]  # fmt: skip


def _moved(random: np.random.Generator, box: list[float]) -> list[float]:
    x, y, w, h = box
    return [max(x + random.choice((-3, 0, 0, 2.5)), 0), max(y + random.choice((-2, 0, 0, 1)), 0),
            w * float(random.choice((1, 1, 0.5, 0.75))), h]  # fmt: skip


def _polygon(random: np.random.Generator, box: list[float]) -> list[float]:
    x, y, w, h = box
    if random.random() < 0.5:
        return [x, y, x + w, y, x + w, y + h, x, y + h]
    return [x + w / 2, y, x + w, y + h / 3, x + w, y + h, x + 0.3, y + h - 0.7]


def _mask(random: np.random.Generator, box: list[float], codes: bool) -> Any:
    polygon = _polygon(random, box)
    if not codes or random.random() < 0.5:
        return [polygon]
    code = _code(polygon)
    if random.random() < 0.5:
        return code
    flat = coco_mask.decode(code).T.reshape(-1)
    bounds = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *bounds, flat.size]).tolist()
    return {"size": [HEIGHT, WIDTH], "counts": [0, *runs] if flat[0] else runs}


def _code(polygon: list[float]) -> dict[str, Any]:
    rle = coco_mask.merge(coco_mask.frPyObjects([polygon], HEIGHT, WIDTH))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def open_case(content: Content, folder: Path) -> CocoIndex:
    """The index of a case."""
    file = folder / "instances.json"
    file.write_text(json.dumps(content))
    return CocoIndex.load(file, folder, check_images=False, require_objects=False)


def pycocotools(
    content: Content, rows: list[dict[str, Any]], iou_type: str, **parameters: Any
) -> tuple[Any, np.ndarray]:
    """Pycocotools as its own demonstration uses it; masks without boxes, as detectron2 evaluates them.

    Returns:
        the evaluator after `accumulate`, and its 12 numbers where the limits allow them.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = json.loads(json.dumps(content))
        truth.createIndex()
        other = {"bbox": "segmentation", "segm": "bbox"}[iou_type]
        rows = [{k: v for k, v in row.items() if k != other} for row in rows]
        found = truth.loadRes(rows) if rows else COCO()
        if not rows:
            found.dataset = {**truth.dataset, "annotations": []}
            found.createIndex()
        evaluator = COCOeval(truth, found, iou_type)
        for name, value in parameters.items():
            setattr(evaluator.params, name, value)
        evaluator.evaluate()
        evaluator.accumulate()
        if len(evaluator.params.maxDets) == 3 and len(evaluator.params.areaRng) == 4:
            evaluator.summarize()
    return evaluator, np.array(evaluator.stats)
