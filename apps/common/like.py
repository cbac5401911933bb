"""What a configuration of another system is here: the recipe with its constants, or the one nearest to it."""

import difflib
import re
import textwrap
from dataclasses import dataclass

from det_engine.cli import COLUMNS, UsageError
from det_models import PublishedDetector, published_detectors
from det_models.published import plain

_SAME = {
    "COCO-Detection/faster_rcnn_R_50_FPN_1x": "faster_rcnn/faster_rcnn_r50_fpn_1x",
    "COCO-Detection/faster_rcnn_R_50_FPN_3x": "faster_rcnn/faster_rcnn_r50_fpn_3x",
    "COCO-Detection/faster_rcnn_R_101_FPN_3x": "faster_rcnn/faster_rcnn_r101_fpn_3x",
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x": "mask_rcnn/mask_rcnn_r50_fpn_1x",
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x": "mask_rcnn/mask_rcnn_r50_fpn_3x",
    "COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_3x": "mask_rcnn/mask_rcnn_r101_fpn_3x",
    "Misc/cascade_mask_rcnn_R_50_FPN_1x": "cascade_rcnn/cascade_mask_rcnn_r50_fpn_1x",
    "Misc/cascade_mask_rcnn_R_50_FPN_3x": "cascade_rcnn/cascade_mask_rcnn_r50_fpn_3x",
    "e2e_mask_rcnn_R_50_FPN_1x": "mask_rcnn/mask_rcnn_r50_fpn_1x_mlperf",
    "cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco": "cascade_rcnn/cascade_rcnn_r50_fpn_1x_mmdet",
    "cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco": "cascade_rcnn/cascade_mask_rcnn_r50_fpn_1x_mmdet",
    "cascade_rcnn/cascade-mask-rcnn_r101_fpn_1x_coco": "cascade_rcnn/cascade_mask_rcnn_r101_fpn_1x_mmdet",
    "keypointrcnn_resnet50_fpn": "mask_rcnn/keypoint_rcnn_r50_fpn",
    "COCO-Detection/retinanet_R_50_FPN_1x": "retinanet/retinanet_r50_fpn_1x",
    "COCO-Detection/retinanet_R_50_FPN_3x": "retinanet/retinanet_r50_fpn_3x",
    "COCO-Detection/retinanet_R_101_FPN_3x": "retinanet/retinanet_r101_fpn_3x",
    "COCO-Detection/fcos_R_50_FPN_1x": "retinanet/fcos_r50_fpn_1x",
    "yolact_base_config": "yolact/yolact_base",
    "yolact_im400_config": "yolact/yolact_im400",
    "yolact_im700_config": "yolact/yolact_im700",
    "yolact_resnet50_config": "yolact/yolact_resnet50",
    "yolact_darknet53_config": "yolact/yolact_darknet53",
    "yolact_plus_base_config": "yolact/yolact_plus_base",
    "yolact_plus_resnet50_config": "yolact/yolact_plus_resnet50",
}
"""Configurations of the five systems whose constants a recipe has, and `<app>/<recipe>`."""

_RECIPES = {
    "faster_rcnn": ("faster_rcnn_r50_fpn_1x", "faster_rcnn_r50_fpn_3x", "faster_rcnn_r101_fpn_3x"),
    "mask_rcnn": ("mask_rcnn_r50_fpn_1x", "mask_rcnn_r50_fpn_3x", "mask_rcnn_r101_fpn_3x"),
    "cascade_rcnn": ("cascade_rcnn_r50_fpn_1x", "cascade_rcnn_r101_fpn_1x"),
    "retinanet": ("retinanet_r50_fpn_1x", "retinanet_r50_fpn_3x", "retinanet_r101_fpn_3x"),
    "cascade_mask_rcnn": (
        "cascade_mask_rcnn_r50_fpn_1x",
        "cascade_mask_rcnn_r50_fpn_3x",
        "cascade_mask_rcnn_r101_fpn_1x",
    ),
}
"""Those that others are nearest to, by family; of a depth the first is taken whose schedule fits, else the last."""


@dataclass(frozen=True, kw_only=True)
class Alike:
    """A recipe, and how it stands to a configuration of another system.

    Attributes:
        app: Which trains it.
        recipe: Its name.
        options: What makes its network the other's.
        same: Whether all constants are the other's.
    """

    app: str
    recipe: str
    options: tuple[str, ...] = ()
    same: bool = False


def alike(config: str) -> Alike | None:
    """The recipe with the network of a configuration; None where no recipe trains such a network.

    Args:
        config: what its system calls it.
    """
    known = {plain(name): place for name, place in _SAME.items()}
    short = {name.rpartition("/")[2]: place for name, place in known.items()}
    place = known.get(plain(config)) or short.get(plain(config))
    if place is not None:
        app, _, recipe = place.partition("/")
        return Alike(app=app, recipe=recipe, same=True)
    return _nearest(plain(config))


def app_for(config: str) -> str:
    """The app that trains and runs networks of a configuration's kind."""
    name = plain(config)
    families = {
        "yolact": "yolact",
        "retinanet": "retinanet",
        "fcos": "retinanet",
        "cascade": "cascade_rcnn",
        "mask": "mask_rcnn",
        "keypoint": "mask_rcnn",
    }
    short = name.rpartition("/")[2].removeprefix("e2e_").removeprefix("scratch_")
    return next((app for word, app in families.items() if short.startswith(word)), "faster_rcnn")


def _nearest(name: str) -> Alike | None:
    """By family, depth and length, which the systems' names tell."""
    short = name.rpartition("/")[2].removeprefix("e2e_").replace("fasterrcnn", "faster_rcnn")
    family = re.match(r"(?:(cascade_mask|cascade|mask|faster)_?rcnn|retinanet)", short)
    # Other norms and heads, and ends that are no pyramid, are other networks.
    if family is None or re.search(r"gn|syncbn|lsj|v2|regnet|dconv|c4|dc5", short):
        return None
    depth = 101 if re.search(r"_?[rx]_?101", short) else 50
    recipes = [name for name in _RECIPES[f"{family[1]}_rcnn" if family[1] else "retinanet"] if f"_r{depth}_" in name]
    long = re.search(r"3x|20e|poly", short) is not None
    recipe = next((name for name in recipes if name.endswith("3x") == long), recipes[-1])
    groups = re.search(r"(\d+)x(\d+)d", short)
    options = ("--backbone.groups", groups[1], "--backbone.width-per-group", groups[2]) if groups else ()
    return Alike(app=app_for(name), recipe=recipe, options=options)


def show_alike(name: str) -> None:
    """Print the recipe for a configuration of another system, and the command that trains it.

    Args:
        name: of the configuration, with or without its system before it.

    Raises:
        UsageError: nothing of this name is known.
    """
    published = _published(name)
    config = name if published is None else published.config
    found = alike(config)
    if found is None and published is None:
        near = difflib.get_close_matches(name, [*published_detectors(), *_SAME], n=3, cutoff=0.4)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise UsageError(f"No configuration {name} of another system is known here.{hint}")
    if found is None:
        print(f"No recipe trains a network like {name}; eval, predict and convert take its weights.")
        app_name = app_for(config)
    else:
        relation = "has all constants of" if found.same else "is the nearest to"
        start = "" if found.same or published is None else f" --weights {published.name}"
        options = "".join(f" {option}" for option in found.options)
        sentence = f"Recipe {found.recipe} of apps/{found.app} {relation} {name}."
        print(textwrap.fill(sentence, COLUMNS, break_on_hyphens=False), end="\n\n")
        print(f"  hatch run apps/{found.app} train --data DIR --recipe {found.recipe}{options}{start}")
        app_name = found.app
    if published is not None:
        print(f"\nTrained weights, {published} on {published.data}:\n")
        print(f"  hatch run apps/{app_name} predict --weights {published.name} IMAGE")


def _published(name: str) -> PublishedDetector | None:
    """The published detector of a configuration, whose system need not be named."""
    wanted = plain(name)
    ends = [d for d in published_detectors().values() if wanted in (plain(d.name), plain(d.config), _short(d))]
    return ends[0] if ends else None


def _short(detector: PublishedDetector) -> str:
    return plain(detector.name).rpartition("/")[2]
