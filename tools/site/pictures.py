"""Draw the pictures of the site: `python tools/site/pictures.py FOLDER [--run RUN]`.

They come from the embedded scenes. With a run of Mask R-CNN on those, its detections stand beside the truth, it looks
at a big picture in tiles and at scenes several times, it annotates some, and its report and curves are part of the
site; without one there are the scenes alone. The sweep was run before: its trials are in tools/site/sweep.
"""

import argparse
import re
import shlex
import shutil
import tempfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from assigned import assigned_picture
from figures import bodies_chart, repeats_chart
from looks import draft_picture, views_picture
from PIL import Image
from tiles import tiles_picture

from apps.common.app import App
from apps.common.main import main as run_app
from apps.mask_rcnn.config import RECIPES
from det_coco import default_splits, draw, ground_truth_of, load_split, synthetic_dataset

ROOT = Path(__file__).resolve().parent.parent.parent


def main() -> None:
    """Draw them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--run", type=Path, help="a run of apps/mask_rcnn on the embedded scenes")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    augmentations(options.folder / "augmentation.jpg")
    sweep(options.folder / "sweep.png")
    assigned_picture(options.folder / "assigned.png")
    (options.folder / "bodies.svg").write_text(bodies_chart(), encoding="utf-8")
    (options.folder / "repeats.svg").write_text(repeats_chart(), encoding="utf-8")
    if options.run is None:
        sheet(scenes(), columns=3).save(options.folder / "first.png")
        return
    found = [Image.open(path) for path in sorted((options.run / "pictures").glob("*.png"))]
    sheet([picture for picture in found if picture.width > 2 * picture.height][:2], columns=1).save(
        options.folder / "first.png"
    )
    tiles_picture(options.run, options.folder)
    views_picture(options.run, options.folder)
    draft_picture(options.run, options.folder / "draft.png")
    for name in ("report.html", "curves.png"):
        shutil.copy(options.run / name, options.folder)


def augmentations(picture: Path) -> None:
    """Draw the sheet of docs/augmentation.md, by the command that stands there."""
    page = (ROOT / "docs" / "augmentation.md").read_text(encoding="utf-8")
    command = re.search(r"^\$ hatch run apps/mask_rcnn (augmentations .*?[^\\])$", page, re.DOTALL | re.MULTILINE)
    assert command, "docs/augmentation.md shows no command"
    options = shlex.split(command[1].replace("\\\n", " "))
    run([*options, "--output", str(picture)])


def sweep(picture: Path) -> None:
    """Draw what a sweep draws at its end, of the trials whose table docs/train.md shows."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(Path(__file__).with_name("sweep"), folder, dirs_exist_ok=True)
        run(["sweep", "--resume", folder, "--trials", "5"])
        shutil.copy(Path(folder, "sweep.png"), picture)


def run(command: Sequence[str]) -> None:
    """A command of Mask R-CNN's."""
    if run_app(App(name="mask_rcnn", recipes=RECIPES), list(command)):
        raise SystemExit(f"{shlex.join(command)} has failed.")


def scenes() -> list[Image.Image]:
    """The first held-out scenes that are wider than high, with their truth."""
    root = synthetic_dataset()
    index = load_split(root, default_splits(root)[1])
    drawn = (
        draw(index.image(position), ground_truth_of(index, image_id), index.categories)
        for position, image_id in enumerate(index.image_ids.tolist())
    )
    return list(islice((picture for picture in drawn if picture.width > picture.height), 3))


def sheet(pictures: Sequence[Image.Image], columns: int) -> Image.Image:
    """Pictures of one size side by side, row by row."""
    width, height = pictures[0].width + 8, pictures[0].height + 8
    rows = -(-len(pictures) // columns)
    whole = Image.new("RGBA", (width * columns - 8, height * rows - 8))
    for number, picture in enumerate(pictures):
        whole.paste(picture, (number % columns * width, number // columns * height))
    return whole.resize((whole.width // 2, whole.height // 2))


if __name__ == "__main__":
    main()
