"""Small detectors of every family, trained by their app's own command; a run that is there already is read."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from apps.cascade_rcnn.config import RECIPES as CASCADE_RCNN
from apps.common.app import App, app_of
from apps.common.main import main
from apps.common.splits import open_split
from apps.faster_rcnn.config import RECIPES as FASTER_RCNN
from apps.mask_rcnn.config import RECIPES as MASK_RCNN
from apps.retinanet.config import RECIPES as RETINANET
from apps.yolact.config import RECIPES as YOLACT
from apps.yolact.config import YolactRecipe
from det_coco import CocoIndex
from det_heads import MaskIoUConfig
from det_models import Weights, open_weights


def without_masks() -> Any:
    """The cascade's `tiny`, boxes alone."""
    recipe = CASCADE_RCNN["tiny"]()
    return replace(recipe, detector=replace(recipe.detector, mask=None))


def yolact_plus() -> YolactRecipe:
    """YOLACT's `tiny` with deformable convolutions and scored masks, on images that those have room in."""
    recipe = YOLACT["tiny"]()
    return replace(
        recipe,
        backbone=replace(recipe.backbone, depth=50, deformable_blocks=(0, 4, 6, 3), deformable_interval=3),
        detector=replace(
            recipe.detector, priors=replace(recipe.detector.priors, square=False), mask_iou=MaskIoUConfig()
        ),
        data=replace(recipe.data, size=256),
    )


FAMILIES: dict[str, Callable[[], Any]] = {
    "faster_rcnn": FASTER_RCNN["tiny"],
    "mask_rcnn": MASK_RCNN["tiny"],
    "cascade_rcnn": without_masks,
    "cascade_mask_rcnn": CASCADE_RCNN["tiny"],
    "retinanet": RETINANET["tiny"],
    "yolact": YOLACT["tiny"],
    "yolact++": yolact_plus,
}
"""What learns the embedded data in minutes, by family."""


def trained(recipe: Any, run: Path, *, data: Path | None = None, steps: int | None = None) -> tuple[Weights, CocoIndex]:
    """A detector and the images it is evaluated on.

    Args:
        recipe: What is trained.
        run: Its folder.
        data: What it learns, by default the embedded data.
        steps: How many, by default the recipe's.
    """
    if not (run / "results.json").exists():
        app = App(name=app_of(recipe.detector), recipes={recipe.name: lambda: recipe})
        command = ["train", *(["--resume", str(run)] if run.exists() else ["--output", str(run), "--pictures", "0"])]
        command += ["--data", str(data)] if data is not None else []
        if main(app, command + (["--solver.steps", str(steps)] if steps is not None else [])):
            raise SystemExit(1)
    weights = open_weights(run)
    return weights, open_split(data, None, weights)
