"""From a picture file to detections: what each system finds in photographs, and what `load(...).predict` does.

The stored detections are those of the whole system for detectron2, torchvision and YOLACT. For maskrcnn-benchmark and
mmdetection they are those of our network on the pixels that the system's own loader gave; that the network is theirs,
the other tests here show.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from det_models import load
from testing.photographs import photographs
from tests.parity import systems
from tests.parity.fill import fill
from tests.parity.reference import FOLDER, reference

PICTURES = (
    ("coco_mini", "val2017/000000000133.jpg"),  # 640 x 480
    ("coco_mini", "val2017/000000000415.jpg"),  # 359 x 640, which the limit of the longer side meets
    ("pennfudan", "val/PennPed00021.jpg"),  # 712 x 436
)
CASES = {
    case.title: case
    for case in (
        systems.DETECTRON2,
        systems.TORCHVISION,
        systems.MASKRCNN_BENCHMARK,
        systems.DETECTRON2_CASCADE,
        systems.MMDETECTION_CASCADE,
    )
}
YOLACT = "yolact_resnet50"
# Beyond this a detection is another one: pixels, and score.
PLACE, SCORE = 0.01, 1e-3


@contextmanager
def weights(name: str, folder: Path) -> Iterator[Path]:
    """A file of the system with the weights of `fill`."""
    if name != YOLACT:
        with CASES[name].weights() as path:
            yield path
        return
    shapes = reference(name).json("meta/state_dict_shapes")
    torch.save(
        {key: torch.from_numpy(np.asarray(fill(key, tuple(shape)))) for key, shape in shapes.items()},
        folder / "weights",
    )
    yield folder / "weights"


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CASES, YOLACT])
def test_detections_in_photographs(name: str, tmp_path: Path) -> None:
    """Every detection of the system is one of ours, box, score and class, and there are no others."""
    stored = np.load(FOLDER / "photographs.npz")
    with weights(name, tmp_path) as path:
        detector = load(path, device="cpu")
    for number, (folder, picture) in enumerate(PICTURES):
        found = detector.predict(photographs(folder) / picture)
        boxes, scores, labels = (stored[f"{name}/{what}{number}"] for what in ("boxes", "scores", "labels"))
        ours = found.boxes
        if name == YOLACT:  # whose `postprocess` truncates to whole pixels
            ours = np.trunc(ours)
        labels = labels - (1 if name == "torchvision" else 0)  # which counts the background
        # Some of torchvision's classes have no name, because COCO never used their ids: it reports them, we do not.
        named = np.isin(labels, detector.labels)
        boxes, scores, labels = boxes[named], scores[named], labels[named]
        same = (
            (np.abs(ours[None] - boxes[:, None]).max(axis=2) <= PLACE)  # [theirs, ours]
            & (np.abs(found.scores[None] - scores[:, None]) <= SCORE)
            & (found.labels[None] == labels[:, None])
        )
        assert len(found) == len(scores) > 60
        assert same.any(axis=1).all(), f"{int((~same.any(axis=1)).sum())} of {len(scores)} are not found in {picture}"
        assert same.any(axis=0).all()
