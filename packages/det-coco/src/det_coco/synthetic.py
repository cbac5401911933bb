"""A small COCO-format data set made on the spot, so that a first training needs no download."""

import glob
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from PIL import Image

from det_coco._coco_api import coco_mask
from det_coco._scenes import CATEGORIES, Scene, Thing, draw_scene
from det_coco.errors import DataError
from det_coco.rle import bitmap_to_runs

_ABANDONED = 300.0  # seconds without a change
_log = logging.getLogger("det_coco")

# Raise it whenever the generator draws or annotates anything differently.
_VERSION = 2
_KEYPOINTS = ["middle", "left", "right", "top", "bottom"]
_LIMBS = [[1, 2], [1, 3], [1, 4], [1, 5]]
_MARKER = "synthetic.json"


def synthetic_dataset(
    root: str | Path | None = None,
    *,
    train_images: int = 200,
    val_images: int = 40,
    size: int = 160,
    seed: int = 0,
) -> Path:
    """Make the synthetic data set, unless it is already there.

    Textured scenes with six kinds of shapes: overlapping, small, cut by the border, with polygon masks where all of a
    shape is visible and run-length masks of the visible part where not; a crowd region, an image without objects,
    both orientations, category and image ids with gaps. Splits `train` and `val`, with `instances_*.json` and, as COCO
    has it, a `person_keypoints_*.json` of the same objects: the middle and the four extreme points of each shape. The
    same arguments give the same annotations, byte for byte. The folder appears all at once, and is made anew where a
    file is damaged or missing.

    Args:
        root: folder of the data set; by default one named after the arguments in the user's cache (`$DET_CACHE`, or
            the platform's cache folder).
        train_images: images to train on.
        val_images: images held out.
        size: longer side in pixels; the shorter is four fifths.
        seed: seed of everything.

    Returns:
        the folder, in the layout `find_splits` reads.

    Raises:
        DataError: `root` holds something else, or cannot be written.
        ValueError: there would be no image, or images of fewer than 64 pixels.
    """
    if train_images < 1 or val_images < 1:
        raise ValueError(f"train_images and val_images must be at least 1, got {train_images} and {val_images}.")
    if size < 64:
        raise ValueError(f"size must be at least 64 pixels, got {size}.")
    wish = {"version": _VERSION, "train": train_images, "val": val_images, "size": size, "seed": seed}
    if root is None:
        root = cache_folder() / f"synthetic-v{_VERSION}-{train_images}-{val_images}-{size}-{seed}"
    root = Path(root)
    if _complete(root, wish):
        return root
    if root.exists() and any(root.iterdir()) and not (root / _MARKER).exists():
        raise DataError(f"{root} is not empty and holds no synthetic data set. Give an empty or a new folder.")
    try:
        _build(root, wish)
    except OSError as error:
        raise DataError(
            f"The synthetic data set cannot be written to {root}: {error.strerror or error}. "
            "Set DET_CACHE to a folder that can be written."
        ) from None
    return root


def cache_folder() -> Path:
    """Folder for things that can be made or loaded again: `$DET_CACHE`, or `det` in the platform's cache folder."""
    chosen = os.environ.get("DET_CACHE")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("det")


def _build(root: Path, wish: dict[str, int]) -> None:
    root.parent.mkdir(parents=True, exist_ok=True)
    for leftover in root.parent.glob(f".{glob.escape(root.name)}-*"):
        # Of a process that was killed; one that is at work has written lately.
        if time.time() - max(p.stat().st_mtime for p in (leftover, *leftover.glob("*"))) > _ABANDONED:
            shutil.rmtree(leftover, ignore_errors=True)
    building = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        for number, split in enumerate(("train", "val")):
            _write_split(building, split, wish[split], wish["size"], [wish["seed"], number])
        digests = {str(p.relative_to(building).as_posix()): _digest(p) for p in sorted(building.rglob("*.*"))}
        (building / _MARKER).write_text(json.dumps({"arguments": wish, "files": digests}, indent=1))
        building.chmod(0o755)  # Temporary folders are private.
        if _complete(root, wish):
            return
        if root.exists():
            if any(root.iterdir()):
                _log.warning("The synthetic data set in %s was damaged or outdated; it is made anew.", root)
            discarded = building.with_name(building.name + "-old")
            root.rename(discarded)
            shutil.rmtree(discarded, ignore_errors=True)
        try:
            building.rename(root)
        except OSError:
            # Another process was faster; its data set is the same.
            if not _complete(root, wish):
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _complete(root: Path, wish: dict[str, int]) -> bool:
    try:
        marker = json.loads((root / _MARKER).read_text())
        return marker["arguments"] == wish and all(_digest(root / name) == d for name, d in marker["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _digest(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def _write_split(root: Path, split: str, count: int, size: int, seed: list[int]) -> None:
    folder = root / split
    folder.mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    keypoints: list[dict[str, Any]] = []
    for i in range(count):
        random = np.random.default_rng([*seed, i])
        portrait = random.random() < 0.4
        height, width = (size, size * 4 // 5) if portrait else (size * 4 // 5, size)
        # A split has its special images near the start, so that even a few images show every case.
        empty, crowd = i % 40 == 5, i % 40 == 3
        objects = 0 if empty else int(random.integers(2, 7))
        scene = draw_scene(height, width, random, objects=objects, crowd=crowd)
        name = f"{i:06d}.jpg"
        Image.fromarray(scene.image).save(folder / name, quality=90)
        images.append({"id": 10 + 3 * i, "file_name": name, "height": height, "width": width})
        annotations += _annotate(scene, images[-1]["id"], len(annotations) + 1)
        keypoints += [_keypoints(thing) for thing in scene.things] + [{}] * (scene.crowd is not None)
    content: dict[str, Any] = {
        "info": {"description": "Synthetic shapes", "version": str(_VERSION)},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": name, "supercategory": "shape"} for i, name in CATEGORIES.items()],
    }
    folder = root / "annotations"
    folder.mkdir(exist_ok=True)
    (folder / f"instances_{split}.json").write_text(json.dumps(content, separators=(",", ":")))
    content["annotations"] = [{**a, **k} for a, k in zip(annotations, keypoints, strict=True)]
    content["categories"] = [{**c, "keypoints": _KEYPOINTS, "skeleton": _LIMBS} for c in content["categories"]]
    (folder / f"person_keypoints_{split}.json").write_text(json.dumps(content, separators=(",", ":")))


def _annotate(scene: Scene, image_id: int, first_id: int) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []

    def add(category: int, segmentation: Any, box: list[float], area: float, crowd: int) -> None:
        out.append(
            {
                "id": first_id + len(out),
                "image_id": image_id,
                "category_id": category,
                "bbox": box,
                "area": area,
                "iscrowd": crowd,
                "segmentation": segmentation,
            }
        )

    for thing in scene.things:
        if thing.whole:
            low, high = thing.polygon.min(axis=0), thing.polygon.max(axis=0)
            box = [float(round(v, 2)) for v in (*low, *(high - low))]
            add(thing.category, [thing.polygon.reshape(-1).tolist()], box, float(thing.full.sum()), 0)
        else:
            code = coco_mask.encode(np.asfortranarray(thing.visible.astype(np.uint8)))
            code["counts"] = code["counts"].decode("ascii")
            add(thing.category, code, _bounds(thing.visible), float(thing.visible.sum()), 0)
    if scene.crowd is not None:
        free = scene.crowd & ~np.logical_or.reduce([t.full for t in scene.things] or [np.zeros_like(scene.crowd)])
        code = {"size": list(free.shape), "counts": bitmap_to_runs(free).tolist()}
        add(1, code, _bounds(free), float(free.sum()), 1)
    return out


def _keypoints(thing: Thing) -> dict[str, Any]:
    """Middle and extreme points of a shape: labelled inside the image, visible where nothing covers them."""
    points = thing.polygon
    extremes = [points[:, 0].argmin(), points[:, 0].argmax(), points[:, 1].argmin(), points[:, 1].argmax()]
    middle = (points[extremes[:2], 0].mean(), points[extremes[2:], 1].mean())
    height, width = thing.visible.shape
    out: list[float] = []
    for x, y in [middle, *points[extremes]]:
        if 0 <= x <= width and 0 <= y <= height:
            # An extreme point lies on the border of its shape: look one pixel towards the middle.
            inner = round(x - np.sign(x - middle[0]) - 0.5), round(y - np.sign(y - middle[1]) - 0.5)
            seen = thing.full[inner[1], inner[0]] <= thing.visible[inner[1], inner[0]]
            out += [round(float(x), 2), round(float(y), 2), 2 if seen else 1]
        else:
            out += [0, 0, 0]
    return {"keypoints": out, "num_keypoints": sum(visibility > 0 for visibility in out[2::3])}


def _bounds(bitmap: np.ndarray) -> list[float]:
    y, x = np.nonzero(bitmap)
    return [float(x.min()), float(y.min()), float(np.ptp(x) + 1), float(np.ptp(y) + 1)]
