"""Augmentation as options of the recipes, and the sheet of pictures."""

import json

import numpy as np
import pytest
from PIL import Image

from apps.common.augmentation import AugmentConfig
from apps.common.config import from_dict, to_dict
from apps.mask_rcnn.config import RECIPES as MASK_RCNN
from det_coco import Augmentation, SSDAugmentation, synthetic_dataset
from det_coco.augment import Maybe, MultiScaleCrop
from testing.command_line import APPS, call, train

STRENGTHS = {"copy-paste": 0.7, "mosaic": 0.5, "mixup": 0.5, "crop": 0.6, "rotation": 10, "perspective": 0.1,
             "colour": 0.3, "erase": 0.5, "blur": 0.5, "jpeg": 0.5}  # fmt: skip
EVERYTHING = ["--data.augment.scale-jitter", "0.3", "1.5"]
EVERYTHING += [word for name, value in STRENGTHS.items() for word in (f"--data.augment.{name}", str(value))]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return synthetic_dataset(tmp_path_factory.mktemp("data") / "scenes", train_images=10, val_images=2, size=96)


PUBLISHED = {
    "mask_rcnn_vitdet_b": AugmentConfig(scale_jitter=(0.1, 2.0)),
    "mask_rcnn_swin_t_fpn_3x": AugmentConfig(ms_crop=True),
}


@pytest.mark.parametrize("app", APPS)
def test_published_recipes_have_their_own_augmentation_alone(app):
    for name, make in APPS[app].recipes.items():
        assert make().data.augment == PUBLISHED.get(name, AugmentConfig())
        if name not in PUBLISHED:
            assert type(make().training_transform()) in (Augmentation, SSDAugmentation)


def test_a_multi_scale_crop_is_an_option(data, tmp_path):
    assert train("mask_rcnn", data, tmp_path / "run", "--data.augment.ms-crop", "True") == 0
    steps = MASK_RCNN["mask_rcnn_swin_t_fpn_3x"]().training_transform().steps
    assert steps[:-1] == [Maybe(0.5, MultiScaleCrop(shortest=(400, 500, 600), sides=(384, 600)))]


@pytest.mark.parametrize("app", ["mask_rcnn", "yolact"])
def test_a_training_with_everything_learns_and_keeps_its_options(app, data, tmp_path):
    assert train(app, data, tmp_path / "run", *EVERYTHING, "--data.max-instances", 40) == 0
    recipe = json.loads((tmp_path / "run" / "config.json").read_text())["recipe"]
    assert recipe["data"]["augment"]["scale_jitter"] == [0.3, 1.5]
    read = from_dict(recipe, APPS[app].kind)
    assert read.data.augment.scale_jitter == (0.3, 1.5)
    assert json.loads(json.dumps(to_dict(read))) == recipe


def test_runs_of_before_there_was_augmentation_are_read(data, tmp_path):
    recipe = json.loads(json.dumps(to_dict(APPS["mask_rcnn"].recipes["tiny"]())))
    del recipe["data"]["augment"]
    assert from_dict(recipe, APPS["mask_rcnn"].kind) == APPS["mask_rcnn"].recipes["tiny"]()


@pytest.mark.parametrize("app", ["faster_rcnn", "mask_rcnn", "yolact"])
def test_the_sheet_shows_each_image_as_it_is_and_in_its_first_epochs(app, data, tmp_path, capsys):
    output = tmp_path / "sheet.png"
    options = ["--images", "2", "--draws", "3", "--data.augment.rotation", "20", "--output", output]
    assert call(app, "augmentations", "--data", data, *options) == 0
    assert f"2 images as they are, and in their first 3 epochs: {output}" in capsys.readouterr().out
    pixels = np.asarray(Image.open(output))
    assert pixels.shape == (2 * 326 - 6, 4 * 326 - 6, 3)
    cells = [pixels[row * 326 :, column * 326 :][:320, :320] for row in (0, 1) for column in range(4)]
    assert all(not np.array_equal(one, other) for n, one in enumerate(cells) for other in cells[:n])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data.augment.copy-paste", "2"], "Option --data.augment.copy-paste must be between 0 and 1"),
        (
            ["--data.augment.scale-jitter", "2", "0.1"],
            "Option --data.augment.scale-jitter must be two positive factors",
        ),
        (["--data.augment.crop", "0"], "Option --data.augment.crop must be"),
        (["--data.augment.copypaste", "0.5"], "--data.augment.copy-paste"),
        (["--images", "0"], "Option --images must be at least 1"),
    ],
)
def test_wrong_options_are_named(options, words, data, capsys):
    assert call("mask_rcnn", "augmentations", "--data", data, *options) == 2
    assert words in capsys.readouterr().err
