"""What one-stage detectors learn in a scene: RetinaNet's anchors and FCOS' places of each object."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from looks import beside
from PIL import Image, ImageDraw
from torch import Tensor

from apps.retinanet.config import OneStageRecipe, fcos_r50_fpn_1x, retinanet_r50_fpn_1x
from det_coco import CocoIndex, default_splits, load_split, synthetic_dataset
from det_coco.pictures import class_colour
from det_heads import OneStageDetector
from det_heads.matching import GroundTruth, Samples
from det_models import build

_FACTOR = 4
"""Of the scene, whose objects are smaller than those that the recipes are for."""


def assigned_picture(picture: Path) -> None:
    """Draw the first wide held-out scene twice: with RetinaNet's anchors, and with FCOS' places.

    Args:
        picture: the file.
    """
    root = synthetic_dataset()
    index = load_split(root, default_splits(root)[1])
    position = next(n for n in range(len(index)) if _wide(index, n))
    scene = Image.fromarray(index.image(position))
    scene = scene.resize((scene.width * _FACTOR, scene.height * _FACTOR), Image.Resampling.BICUBIC)
    rows = index.instances(position)
    boxes = torch.as_tensor(index.boxes[rows] * _FACTOR)
    usable = torch.as_tensor(~index.crowd[rows])
    truth = GroundTruth(boxes[None], torch.as_tensor(index.labels[rows])[None], usable[None])
    panels = []
    for recipe, draw in ((retinanet_r50_fpn_1x(), _draw_anchors), (fcos_r50_fpn_1x(), _draw_places)):
        panel = Image.blend(scene, Image.new("RGB", scene.size, "white"), 0.5)
        pencil = ImageDraw.Draw(panel)
        samples = _samples(recipe, scene.size, truth)
        chosen = samples.positive[0]
        draw(pencil, samples.boxes[0, chosen], samples.truth_index[0, chosen].tolist())
        for number, box in enumerate(boxes.tolist()):
            pencil.rectangle(box, outline=class_colour(number), width=3)
        panels.append(panel)
    beside(panels).save(picture)


def _wide(index: CocoIndex, position: int) -> bool:
    height, width = index.image(position).shape[:2]
    return width > height


def _samples(recipe: OneStageRecipe, size: tuple[int, int], truth: GroundTruth) -> Samples:
    """All anchors of a recipe's detector in an image of `size` (width, height), and what they learn."""
    narrow = replace(recipe.backbone, depth=18, width=8, pyramid_channels=32)  # its network does not matter
    detector = build(replace(recipe, backbone=narrow).resolved().model())
    assert isinstance(detector, OneStageDetector)
    width, height = size
    cells = [(-(-height // stride), -(-width // stride)) for stride in detector.anchors.strides]
    return detector.sample(detector.anchors(cells, (height, width)), truth)


def _draw_anchors(pencil: ImageDraw.ImageDraw, anchors: Tensor, objects: Sequence[int]) -> None:
    for box, number in zip(anchors.tolist(), objects, strict=True):
        pencil.rectangle(box, outline=class_colour(number))


def _draw_places(pencil: ImageDraw.ImageDraw, squares: Tensor, objects: Sequence[int]) -> None:
    """Their middles, larger on coarser levels."""
    for (left, top, right, bottom), number in zip(squares.tolist(), objects, strict=True):
        x, y, radius = (left + right) / 2, (top + bottom) / 2, 2 + (right - left) / 16
        pencil.ellipse((x - radius, y - radius, x + radius, y + radius), fill=class_colour(number))
