"""Published detectors and configurations of other systems, as the commands know them."""

import pytest
from PIL import Image

from apps.common.like import _RECIPES, _SAME, alike, app_for
from det_backbones import cache_directory
from det_models import published_detectors
from testing.command_line import APPS, call

DETECTORS = published_detectors()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DET_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "fvcore"))


def test_the_recipes_of_the_tables_exist():
    for place in _SAME.values():
        app, recipe = place.split("/")
        assert recipe in APPS[app].recipes
    for family, recipes in _RECIPES.items():
        assert set(recipes) <= set(APPS[app_for(family)].recipes)


@pytest.mark.parametrize("name", DETECTORS)
def test_a_recipe_has_the_network_of_its_detector(name):
    """As far as its name tells, which its system's file need not be here for."""
    config = DETECTORS[name].config
    found = alike(config)
    if found is None:
        assert any(word in name for word in ("gn", "syncbn", "LSJ", "v2", "fcos")), name
        return
    assert found.app == app_for(config)
    recipe = APPS[found.app].recipes[found.recipe]()
    if found.app == "yolact":
        return
    deep = any(word in config for word in ("101", "X_101"))
    assert recipe.backbone.depth == (101 if deep else 50)
    assert ("mask" in config.rpartition("/")[2]) == (getattr(recipe.detector, "mask", None) is not None)
    assert ("cascade" in config) == (getattr(recipe.detector, "cascade", None) is not None)
    if not found.same:
        assert bool(found.options) == ("x101" in config.lower() or "x_101" in config.lower())


def test_a_configuration_of_another_system(capsys):
    assert call("yolact", "recipes", "--like", "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x") == 0
    out = capsys.readouterr().out
    assert "Recipe mask_rcnn_r50_fpn_3x of apps/mask_rcnn has all constants of" in out
    assert "hatch run apps/mask_rcnn train --data DIR --recipe mask_rcnn_r50_fpn_3x\n" in out
    assert "41.0 box AP, 37.2 mask AP on COCO val2017" in out
    assert "predict --weights detectron2/mask_rcnn_R_50_FPN_3x IMAGE" in out


@pytest.mark.parametrize(
    ("like", "says"),
    [
        ("yolact_im400_config", "yolact_im400 of apps/yolact has all constants"),
        ("configs/e2e_mask_rcnn_R_50_FPN_1x.yaml", "mask_rcnn_r50_fpn_1x_mlperf of apps/mask_rcnn has all"),
        ("mask_rcnn/mask-rcnn_r101_fpn_2x_coco.py", "mask_rcnn_r101_fpn_3x of apps/mask_rcnn is the nearest"),
        ("keypointrcnn_resnet50_fpn", "keypoint_rcnn_r50_fpn of apps/mask_rcnn has all"),
        ("faster-rcnn_x101-32x4d_fpn_1x_coco", "--backbone.groups 32 --backbone.width-per-group 4 --weights mmdet/"),
        ("fasterrcnn_resnet50_fpn_v2", "No recipe trains a network like"),
    ],
)
def test_spellings_of_other_systems(like, says, capsys):
    assert call("mask_rcnn", "recipes", "--like", like) == 0
    assert says in capsys.readouterr().out


def test_an_unknown_configuration_is_answered_with_the_nearest(capsys):
    assert call("mask_rcnn", "recipes", "--like", "COCO-InstanceSegmentation/mosk_rcnn_R_50_FPN_3x") == 2
    assert "Did you mean COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x" in capsys.readouterr().err


def test_weights_are_listed_and_searched(capsys):
    listed = 0
    for app in APPS:
        assert call(app, "weights") == 0
        out = capsys.readouterr().out
        assert max(map(len, out.splitlines()[:-1])) <= 80
        listed += sum(line.split()[0] in DETECTORS for line in out.splitlines() if line)
    assert listed == len(DETECTORS)
    assert call("mask_rcnn", "weights", "r_50", "3x") == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["detectron2/mask_rcnn_R_50_FPN_3x", "41.0", "37.2"]
    assert call("mask_rcnn", "weights", "yolact_base") == 2
    assert "apps/yolact has some" in capsys.readouterr().err


def test_weights_says_where_a_file_belongs(capsys):
    detector = DETECTORS["detectron2/mask_rcnn_R_50_FPN_3x"]
    assert call("mask_rcnn", "weights", detector.name) == 0
    out = capsys.readouterr().out
    assert detector.url in out
    assert str(cache_directory() / "model_final_f10217.pkl") in out
    assert "41.0 box AP, 37.2 mask AP on COCO val2017" in out


@pytest.mark.parametrize("command", ["predict", "eval", "train"])
def test_commands_take_a_name_and_say_what_is_missing(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DET_WEIGHTS_MIRROR", "http://127.0.0.1:1")
    Image.new("RGB", (64, 48)).save(tmp_path / "picture.jpg")
    pictures = [tmp_path / "picture.jpg"] if command == "predict" else []
    assert call("mask_rcnn", command, "--weights", "torchvision/maskrcnn_resnet50_fpn", *pictures) == 2
    error = capsys.readouterr().err
    assert "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth could not be downloaded" in error
    assert f"put the file at {cache_directory()}" in error
