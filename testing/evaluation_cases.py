"""Random small data sets with results, full of what evaluators stumble over, and pycocotools' numbers for them."""

import contextlib
import io
import json
import logging
import sys
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
from hypothesis import strategies as st

from det_coco import CocoIndex
from det_coco._coco_api import COCO, COCOeval, coco_mask

# Pictures hold the largest area below; boxes lie in a corner of them, where they meet one another.
HEIGHT, WIDTH = 130, 160
CORNER_HEIGHT, CORNER_WIDTH = 60, 80
# Both sides of the lines that COCO draws at 32 x 32 and 96 x 96 pixels, and the lines themselves.
AREAS = (0.5, 1.0, 1023.0, 1023.9999999, 1024.0, 1024.0000001, 1025.0, 9216.0, 9216.5, 20000.0)
Content = dict[str, Any]


@st.composite
def cases(
    draw: st.DrawFn, classes: tuple[int, ...] = (1, 2, 3, 7), federated: bool = False
) -> tuple[Content, list[dict[str, Any]]]:
    """Cases of any seed and of many sizes, nothing to find and nothing found among them."""
    return make_case(
        draw(st.integers(0, 2**32 - 1)),
        images=draw(st.integers(1, 5)),
        classes=draw(st.sampled_from(classes)),
        objects=draw(st.integers(0, 20)),
        detections=draw(st.integers(0, 60)),
        crowded=draw(st.sampled_from((0.0, 0.2))),
        codes=draw(st.booleans()),
        federated=federated,
    )


def make_case(
    seed: int,
    *,
    images: int,
    classes: int,
    objects: int,
    detections: int,
    crowded: float = 0.0,
    codes: bool = True,
    federated: bool = False,
) -> tuple[Content, list[dict[str, Any]]]:
    """An annotation file with ids from 1, and results for it: boxes on a coarse grid, few different scores.

    Args:
        seed: the same case for the same seed.
        images: number of images.
        classes: number of classes; objects are of the first three.
        objects: number of objects.
        detections: number of results.
        crowded: share of the objects that are crowds.
        codes: whether some masks of objects are run-length codes, compressed and plain.
        federated: whether images say what they were searched for.
    """
    random = np.random.RandomState(seed)  # whose numbers stay the same
    image_ids = random.choice(1000, images, replace=False).tolist()
    category_ids = np.sort(random.choice(5000, classes, replace=False)).tolist()
    used = category_ids[:3]
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
             "iscrowd": int(random.random_sample() < crowded), "segmentation": _mask(random, box, codes)}
        )  # fmt: skip
    if federated:
        for image in content["images"]:
            image["neg_category_ids"] = random.choice(used, random.randint(3)).tolist()
            image["not_exhaustive_category_ids"] = random.choice(used, random.randint(2)).tolist()
    rows = []
    for _ in range(detections):
        near = random.choice(content["annotations"]) if objects and random.random_sample() < 0.8 else None
        box = _moved(random, near["bbox"]) if near else _box(random)
        same = near and random.random_sample() < 0.8
        rows.append(
            {"image_id": near["image_id"] if near else int(random.choice(image_ids)),
             "category_id": near["category_id"] if same else int(random.choice(category_ids)),
             "bbox": box, "score": float(random.choice((0.0, 0.1, 0.5, 0.5000001, 0.9, 1.0))),
             "segmentation": _code(_polygon(random, box))}
        )  # fmt: skip
    return content, rows


def _box(random: np.random.RandomState) -> list[float]:
    w, h = random.choice((5, 10, 20, 32, 40), 2)
    return [float(random.randint((CORNER_WIDTH - w) // 5 + 1) * 5),
            float(random.randint((CORNER_HEIGHT - h) // 5 + 1) * 5), float(w), float(h)]  # fmt: skip


def _moved(random: np.random.RandomState, box: list[float]) -> list[float]:
    x, y, w, h = box
    return [max(x + random.choice((-3, 0, 0, 2.5)), 0), max(y + random.choice((-2, 0, 0, 1)), 0),
            w * float(random.choice((1, 1, 1, 0.5, 0.75, 0))), h]  # fmt: skip


def _polygon(random: np.random.RandomState, box: list[float]) -> list[float]:
    x, y, w, h = box
    if random.random_sample() < 0.5:
        return [x, y, x + w, y, x + w, y + h, x, y + h]
    return [x + w / 2, y, x + w, y + h / 3, x + w, y + h, x + 0.3, y + h - 0.7]


def _mask(random: np.random.RandomState, box: list[float], codes: bool) -> Any:
    polygon = _polygon(random, box)
    if not codes or random.random_sample() < 0.5:
        return [polygon]
    code = _code(polygon)
    if random.random_sample() < 0.5:
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


def lvis_numbers(content: Content, rows: list[dict[str, Any]], iou_type: str, limit: int) -> list[float]:
    """The 13 numbers of the lvis package; masks without boxes, as detectron2 evaluates them.

    lvis 0.5.3 needs `np.float`, which numpy removed, and opencv and matplotlib for drawings.
    """
    for module in ("cv2", "matplotlib", "matplotlib.pyplot", "matplotlib.patches"):
        sys.modules.setdefault(module, MagicMock())
    vars(np).setdefault("float", float)
    lvis = import_module("lvis")
    other = {"bbox": "segmentation", "segm": "bbox"}[iou_type]
    rows = [{k: v for k, v in row.items() if k != other} for row in rows]
    truth = lvis.LVIS.__new__(lvis.LVIS)
    truth.logger = logging.getLogger("lvis")
    truth.dataset = json.loads(json.dumps(content))
    truth._create_index()
    evaluator = lvis.LVISEval(truth, lvis.LVISResults(truth, rows, max_dets=limit), iou_type)
    evaluator.run()
    return [float(value) for value in evaluator.get_results().values()]


def distinct(rows: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """The rows with scores that all differ and boxes off the grid: no order and no threshold is a matter of taste."""
    random = np.random.RandomState(seed)
    scores = (random.permutation(len(rows)) + 1) / (len(rows) + 2)
    moves = random.normal(0, 0.3, (len(rows), 4))
    return [
        {**row, "score": float(score), "bbox": np.maximum(np.add(row["bbox"], move), 0.1).tolist()}
        for row, score, move in zip(rows, scores, moves, strict=True)
    ]


def tide_numbers(
    content: Content, rows: list[dict[str, Any]], iou_type: str
) -> tuple[dict[str, int], dict[str, float]]:
    """The number of TIDE's errors by kind and what they cost in AP50, as a fraction, by the tidecv package.

    Its drawings need opencv and seaborn, its numbers do not.
    """
    for name in ("cv2", "seaborn", "pandas", "appdirs"):
        sys.modules.setdefault(name, MagicMock())
    tidecv = import_module("tidecv")
    truth, found = tidecv.Data("truth"), tidecv.Data("found")
    for annotation in content["annotations"]:
        add = truth.add_ignore_region if annotation["iscrowd"] else truth.add_ground_truth
        code = coco_mask.merge(_codes(annotation["segmentation"]))
        add(annotation["image_id"], annotation["category_id"], annotation["bbox"], code)
    for row in rows:
        found.add_detection(row["image_id"], row["category_id"], row["score"], row["bbox"], row["segmentation"])
    run = tidecv.TIDE().evaluate(truth, found, mode={"bbox": "bbox", "segm": "mask"}[iou_type])
    counts = {kind.short_name: len(errors) for kind, errors in run.error_dict.items()}
    return counts, {kind.short_name: cost / 100 for kind, cost in run.fix_main_errors().items()}


def _codes(segmentation: Any) -> list[Any]:
    """Run-length codes of the parts of a mask of an object."""
    if isinstance(segmentation, list):
        return coco_mask.frPyObjects(segmentation, HEIGHT, WIDTH)
    if isinstance(segmentation["counts"], list):
        return [coco_mask.frPyObjects(segmentation, HEIGHT, WIDTH)]
    return [segmentation]
