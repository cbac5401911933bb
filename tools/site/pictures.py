"""Draw the pictures of the site: `python tools/site/pictures.py FOLDER [--run RUN]`.

They come from the embedded scenes. With a run of Mask R-CNN on those, its detections stand beside the truth, and its
report and curves become part of the site; without one the scenes stand there with their truth.
"""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from det_coco import default_splits, draw, ground_truth_of, load_split, synthetic_dataset

_COUNT = 6


def main() -> None:
    """Draw them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--run", type=Path, help="a run of apps/mask_rcnn on the embedded scenes")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.run is None:
        sheet(scenes(_COUNT), columns=3).save(options.folder / "first.png")
        return
    found = sorted((options.run / "pictures").glob("*.png"))
    sheet([Image.open(path) for path in found[: _COUNT // 2]], columns=1).save(options.folder / "first.png")
    for name in ("report.html", "curves.png"):
        shutil.copy(options.run / name, options.folder)


def scenes(count: int) -> list[Image.Image]:
    """The first held-out scenes with their truth."""
    root = synthetic_dataset("scenes")
    index = load_split(root, default_splits(root)[1])
    chosen = index.image_ids.tolist()[:count]
    return [draw(index.image(p), ground_truth_of(index, i), index.categories) for p, i in enumerate(chosen)]


def sheet(pictures: Sequence[Image.Image], columns: int) -> Image.Image:
    """Pictures side by side, row by row, each in a cell of the size of the largest."""
    width, height = (max(getattr(p, side) for p in pictures) + 8 for side in ("width", "height"))
    rows = -(-len(pictures) // columns)
    whole = Image.new("RGBA", (width * columns - 8, height * rows - 8))
    for number, picture in enumerate(pictures):
        whole.paste(picture, (number % columns * width, number // columns * height))
    return whole


if __name__ == "__main__":
    main()
