"""What a trained network says of the embedded scenes: looking several times, and as annotations to correct."""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from tiles import agreeing

from apps.common.drafts import Drafts
from det_coco import CocoIndex, default_splits, draw, ground_truth_of, load_split, synthetic_dataset
from det_models import Detections, load
from det_models.views import Views

_VIEWS = Views(sizes=(128, 160, 192), merge="weighted")
_LOOKED_AT, _SHOWN = 12, 2
_SURE, _UNSURE = 0.7, 0.3


def views_picture(run: Path, folder: Path) -> None:
    """Write `views.png`, scenes that are looked at once and several times, and `views.md`, what was found in more.

    Args:
        run: of Mask R-CNN on the embedded scenes.
        folder: to write into.
    """
    index = _held_out()
    detector = load(run / "checkpoints" / "best.pt")
    once, often, objects = np.zeros(2, dtype=int), np.zeros(2, dtype=int), 0
    drawn: list[tuple[int, Image.Image]] = []
    for position in range(_LOOKED_AT):
        image, (boxes, names) = index.image(position), _truth(index, position)
        found = [detector.predict(image, min_score=0.5, tta=tta) for tta in (False, _VIEWS)]
        right = [_right(each, boxes, names) for each in found]
        once, often, objects = once + right[0], often + right[1], objects + len(names)
        if image.shape[1] > image.shape[0]:
            pictures = [each.draw(image, show=("masks", "boxes", "scores")) for each in found]
            drawn.append((right[0][1] - right[1][1], beside(pictures)))
    gains = sorted(drawn, key=lambda each: each[0])[:_SHOWN]
    beneath([picture for _, picture in gains]).save(folder / "views.png")
    options = f"--tta --tta-sizes {' '.join(map(str, _VIEWS.sizes))} --tta-merge weighted"
    (folder / "views.md").write_text(
        "![Scenes with the detections of one look at the left, of six at the right](pictures/views.png)\n\n"
        f"Left: one look. Right: `{options}`. These are the {_SHOWN} of {_LOOKED_AT} scenes where it helps most. "
        f"Of the {objects} objects in all {_LOOKED_AT}, one look finds {once[1]} (IoU above 0.5) with {once[0]} "
        f"detections of a score of 0.5 or more, and six looks find {often[1]} with {often[0]}.",
        encoding="utf-8",
    )


def draft_picture(run: Path, picture: Path) -> None:
    """Draw annotations to correct as a training reads them, the unsure ones as regions to ignore.

    Args:
        run: of Mask R-CNN on the embedded scenes.
        picture: the file.
    """
    index = _held_out()
    detector = load(run / "checkpoints" / "best.pt")
    drafts = Drafts(min_score=_SURE, unsure_score=_UNSURE)
    with tempfile.TemporaryDirectory() as folder:
        for position, image_id in enumerate(index.image_ids.tolist()):
            file = Path(folder, "pictures", f"{image_id}.png")
            file.parent.mkdir(exist_ok=True)
            Image.fromarray(index.image(position)).save(file)
            drafts.add(image_id, file, detector.predict(index.image(position), min_score=_UNSURE))
        drafts.write(Path(folder, "draft"), "coco")
        draft = load_split(Path(folder, "draft"), "train")
        unsure = np.array([draft.crowd[draft.instances(n)].sum() for n in range(len(draft))])
        wide = [n for n in np.argsort(-unsure, kind="stable") if np.diff(draft.image_size(draft.image_ids[n])) > 0][:2]
        drawn = [draw(draft.image(n), ground_truth_of(draft, draft.image_ids[n]), draft.categories) for n in wide]
        beside(drawn).save(picture)


def beside(pictures: list[Image.Image]) -> Image.Image:
    """Pictures of one size in a row."""
    width, height = pictures[0].width + 8, pictures[0].height
    row = Image.new("RGBA", (width * len(pictures) - 8, height))
    for number, picture in enumerate(pictures):
        row.paste(picture, (number * width, 0))
    return row


def beneath(pictures: list[Image.Image]) -> Image.Image:
    """Pictures of one size in a column."""
    turned = beside([picture.transpose(Image.Transpose.TRANSPOSE) for picture in pictures])
    return turned.transpose(Image.Transpose.TRANSPOSE)


def _held_out() -> CocoIndex:
    root = synthetic_dataset()
    return load_split(root, default_splits(root)[1])


def _truth(index: CocoIndex, position: int) -> tuple[np.ndarray, list[str]]:
    """Boxes [N, 4] and classes of the objects of a scene."""
    rows = index.instances(position)
    rows = np.arange(rows.start, rows.stop)[~index.crowd[rows]]
    classes = list(index.categories.values())
    return index.boxes[rows], [classes[label] for label in index.labels[rows]]


def _right(found: Detections, boxes: np.ndarray, names: list[str]) -> np.ndarray:
    """Detections, and the objects that one of them agrees with."""
    return np.array((len(found), agreeing(found, boxes, names).any(0).sum()))
