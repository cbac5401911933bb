"""A data set without any fault, to do faults to."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

WIDTH, HEIGHT = 160, 120
SPLITS = {"train": 58, "val": 12}
NAMES = ("cat", "dog", "bird")


def texture(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A picture like no other: uint8 `[height, width, 3]`."""
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(20, 235, (7, 9, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    return (smooth + rng.integers(-12, 12, smooth.shape)).clip(0, 255).astype(np.uint8)


def octagon(x: float, y: float, w: float, h: float) -> list[float]:
    """A polygon whose extent is a box."""
    a, b, right, bottom = w / 4, h / 4, x + w, y + h
    top = [x + a, y, right - a, y, right, y + b, right, bottom - b]
    return [*top, right - a, bottom, x + a, bottom, x, bottom - b, x, y + b]


def mask_of(segmentation: list[list[float]]) -> np.ndarray:
    """Polygons as pixels: uint8 `[HEIGHT, WIDTH]`."""
    codes = coco_mask.frPyObjects(segmentation, HEIGHT, WIDTH)  # pyrefly: ignore[no-matching-overload]
    return coco_mask.decode(coco_mask.merge(codes))


def annotation(number: int, image_id: int, category_id: int, box: tuple[float, ...], **more: Any) -> dict[str, Any]:
    """An object with all that COCO gives it."""
    segmentation = [octagon(*box)]
    area = float(mask_of(segmentation).sum())
    owner = {"id": number, "image_id": image_id, "category_id": category_id}
    return {**owner, "bbox": list(box), "area": area, "iscrowd": 0, "segmentation": segmentation, **more}


def clean_content(split: str) -> dict[str, Any]:
    """A COCO file without any fault: three objects an image, one of each class."""
    first = 1 if split == "train" else 1001
    rng = np.random.default_rng(first)
    images, annotations = [], []
    for n in range(SPLITS[split]):
        images.append({"id": first + n, "file_name": f"{split}{n:02d}.png", "height": HEIGHT, "width": WIDTH})
        for k in range(len(NAMES)):
            w, h = rng.integers(24, 44, 2).tolist()
            x, y = int(rng.integers(2 + 52 * k, 8 + 52 * k)), int(rng.integers(4, HEIGHT - h - 4))
            annotations.append(annotation(first * 10 + len(annotations), first + n, k + 1, (x, y, w, h)))
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(NAMES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_clean(root: Path) -> Path:
    """Write the data set in the COCO layout."""
    for s, (split, count) in enumerate(SPLITS.items()):
        (root / split).mkdir(parents=True)
        for n in range(count):
            Image.fromarray(texture(100 * s + n)).save(root / split / f"{split}{n:02d}.png")
    (root / "annotations").mkdir()
    for split in SPLITS:
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(clean_content(split)))
    return root


class Data:
    """A copy of the data set that faults are done to; `write` brings the annotations to the disk."""

    def __init__(self, root: Path, original: Path) -> None:
        self.root = root
        shutil.copytree(original, root)
        self.splits = {split: copy.deepcopy(clean_content(split)) for split in SPLITS}

    @property
    def train(self) -> dict[str, Any]:
        """Content of the training split's file."""
        return self.splits["train"]

    def image(self, n: int, split: str = "train") -> dict[str, Any]:
        """Image n of a split."""
        return self.splits[split]["images"][n]

    def objects(self, n: int, split: str = "train") -> list[dict[str, Any]]:
        """Annotations of image n of a split."""
        number = n + (1 if split == "train" else 1001)
        return [record for record in self.splits[split]["annotations"] if record.get("image_id") == number]

    def path(self, n: int, split: str = "train") -> Path:
        """Picture n of a split."""
        return self.root / split / f"{split}{n:02d}.png"

    def add_picture(self, name: str, pixels: np.ndarray, split: str = "train") -> dict[str, Any]:
        """Add a picture with an object of its own; gives its image."""
        Image.fromarray(pixels).save(self.root / split / name)
        images = self.splits[split]["images"]
        image = {"id": 500 + len(images), "file_name": name, "height": pixels.shape[0], "width": pixels.shape[1]}
        images.append(image)
        number = 90_000 + len(self.splits[split]["annotations"])
        self.splits[split]["annotations"].append(annotation(number, image["id"], 1, (60, 50, 33, 35)))
        return image

    def write(self) -> Path:
        """Write the annotation files; gives the folder."""
        for split, content in self.splits.items():
            (self.root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
        return self.root
