"""Eight photographs learnt by heart: the train commands, all the way through, on real pictures.

A detector that cannot reproduce eight images it sees hundreds of times has a bug somewhere between the file and the
metric.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from apps.common.app import App
from apps.common.config import TwoStageRecipe
from apps.common.main import main
from apps.mask_rcnn.config import scratch_small
from apps.yolact.config import YolactRecipe
from apps.yolact.config import tiny as yolact_tiny
from det_engine import SolverConfig
from testing.photographs import photographs

IMAGES = 8


def chosen_images(content: dict) -> list[int]:
    """The first eight image ids, ascending, with 2 to 8 objects, no crowd, and no object under 1 % of the image.

    They are easier than the average picture, by intent: reduced to 192 pixels, smaller objects are a handful of pixels
    each, which would test the resolution and not the pipeline.
    """
    objects: dict[int, list[dict]] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        objects[annotation["image_id"]].append(annotation)

    def fits(image: dict) -> bool:
        own = objects[image["id"]]
        least = 0.01 * image["height"] * image["width"]
        return 2 <= len(own) <= 8 and all(not a["iscrowd"] and a["area"] >= least for a in own)

    return sorted(image["id"] for image in content["images"] if fits(image))[:IMAGES]


def write_subset(root: Path) -> Path:
    """A data set whose two splits are both the chosen photographs."""
    source = photographs("coco_mini")
    content = json.loads((source / "annotations" / "instances_train2017.json").read_text())
    ids = set(chosen_images(content))
    assert len(ids) == IMAGES
    content["images"] = [image for image in content["images"] if image["id"] in ids]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in ids]
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
        (root / split).mkdir()
        for image in content["images"]:
            picture = root / split / image["file_name"]
            picture.write_bytes((source / "train2017" / image["file_name"]).read_bytes())
    return root


def overfit() -> TwoStageRecipe:
    """scratch_small with narrower heads, one size and no mirroring; 0.2 s a step on two idle cores."""
    recipe = scratch_small()
    mask = recipe.detector.mask
    assert mask is not None
    return replace(
        recipe,
        name="overfit",
        backbone=replace(recipe.backbone, pyramid_channels=64),
        detector=replace(
            recipe.detector, box=replace(recipe.detector.box, channels=256), mask=replace(mask, channels=64)
        ),
        data=replace(recipe.data, batch=4, train_sizes=(192,), test_size=192, max_size=288, flip=0.0, workers=0),
        solver=SolverConfig(
            base_lr=0.02,
            reference_batch=4,
            weight_decay=0.0,
            warmup_steps=30,
            warmup_factor=0.05,
            milestones=(240,),
            steps=300,
            clip_norm=10.0,
        ),
        train=replace(recipe.train, log_interval=10, checkpoint_interval=0, evaluation_interval=50),
    )


def overfit_yolact() -> YolactRecipe:
    """YOLACT's tiny at one size, without augmentation; 0.3 s a step on one idle core."""
    recipe = yolact_tiny()
    return replace(
        recipe,
        name="overfit",
        data=replace(recipe.data, batch=4, size=192, photometric=False, crop=False, flip=0.0),
        solver=replace(
            recipe.solver,
            base_lr=0.005,  # at 0.02 the prototypes die in the first steps, and with them all masks
            reference_batch=4,
            weight_decay=0.0,
            warmup_steps=60,
            warmup_factor=0.05,
            milestones=(290,),
            steps=350,
        ),
        train=replace(recipe.train, log_interval=10, checkpoint_interval=0, evaluation_interval=0),
    )


APPS = {
    "mask_rcnn": App(name="mask_rcnn", recipes={"overfit": overfit}),
    "yolact": App(name="yolact", recipes={"overfit": overfit_yolact}),
}


@pytest.mark.slow
@pytest.mark.parametrize("app", APPS.values(), ids=APPS)
def test_eight_photographs_are_learnt_by_heart(app, tmp_path):
    root, output = write_subset(tmp_path / "data"), tmp_path / "run"
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert main(app, ["train", "--data", str(root), "--output", str(output), "--pictures", "0"]) == 0
    finally:
        torch.set_num_threads(threads)
    results = json.loads((output / "results.json").read_text())
    assert results["bbox"]["AP50"] >= 0.9
    assert results["segm"]["AP50"] >= 0.8
