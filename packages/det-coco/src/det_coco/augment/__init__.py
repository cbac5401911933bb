"""Augmentation that composes: steps draw their parameters, and everything is then done once.

A step takes a `Scene`, a canvas with pictures and the maps that lead there, and gives another. Geometry is a product of
maps, through which pixels, boxes, outlines and keypoints go once at the end; changes of colours are made after that.
"""

from det_coco.augment.compose import Compose, Maybe, Step
from det_coco.augment.external import Albumentations
from det_coco.augment.geometry import Crop, Flip, MultiScaleCrop, Perspective, Rotation, ScaleJitter
from det_coco.augment.joining import CopyPaste, MixUp, Mosaic
from det_coco.augment.pixels import Blur, ColourJitter, Erasing, JPEGNoise
from det_coco.augment.scene import Layer, Scene, Sheet

__all__ = [
    "Albumentations",
    "Blur",
    "ColourJitter",
    "Compose",
    "CopyPaste",
    "Crop",
    "Erasing",
    "Flip",
    "JPEGNoise",
    "Layer",
    "Maybe",
    "MixUp",
    "Mosaic",
    "MultiScaleCrop",
    "Perspective",
    "Rotation",
    "ScaleJitter",
    "Scene",
    "Sheet",
    "Step",
]
