import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from det_coco import CocoIndex, load_split, synthetic_dataset
from testing.photographs import photographs

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_dataset(tmp_path_factory.mktemp("data") / "shapes", train_images=24, val_images=8, size=96)


@pytest.fixture(scope="session")
def index(dataset: Path) -> CocoIndex:
    return load_split(dataset, "train")


@pytest.fixture(scope="session")
def val(dataset: Path) -> CocoIndex:
    return load_split(dataset, "val")


@pytest.fixture(scope="session")
def coco_mini() -> Path:
    return photographs("coco_mini")


@pytest.fixture(scope="session")
def pennfudan() -> Path:
    return photographs("pennfudan")


@pytest.fixture
def content() -> dict[str, Any]:
    """A small COCO file with a picture 40 x 30 and one 30 x 40."""
    square = [[2.0, 3.0, 12.0, 3.0, 12.0, 9.0, 2.0, 9.0]]
    return {
        "images": [
            {"id": 7, "file_name": "b.png", "height": 40, "width": 30},
            {"id": 3, "file_name": "a.png", "height": 30, "width": 40},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 9, "bbox": [2, 3, 10, 6], "area": 60, "iscrowd": 0,
             "segmentation": square},
            {"id": 2, "image_id": 3, "category_id": 4, "bbox": [2, 3, 10, 6], "area": 60, "iscrowd": 0,
             "segmentation": square},
        ],
        "categories": [{"id": 9, "name": "cat"}, {"id": 4, "name": "dog"}],
    }  # fmt: skip


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Write a COCO file with its pictures; gives the file and the folder."""

    def write(content: dict[str, Any], split: str = "train") -> tuple[Path, Path]:
        folder = tmp_path / split
        folder.mkdir(exist_ok=True)
        for image in content.get("images", []):
            pixels = np.random.default_rng(0).integers(0, 255, (image["height"], image["width"], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / image["file_name"])
        file = tmp_path / "annotations" / f"instances_{split}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))
        return file, folder

    return write
