"""What a user may change of a trained detector: sizes of images, limits, and which classes are reported."""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from det_coco import Resize, default_buckets
from det_heads import OneStageConfig, Yolact, YolactConfig
from det_models.config import ModelConfig
from det_models.detector_config import DetectorConfig
from det_models.errors import OptionError, whole_number

__all__ = ["labels_of", "with_limits", "with_size"]


def with_size(model: ModelConfig, size: int | tuple[int, int], *, scale_priors: bool = False) -> ModelConfig:
    """The model on images of another size.

    Args:
        model: A two-stage detector or a YOLACT.
        size: The shorter side of an image in pixels, and the limit of the longer side, which otherwise grows with it;
            YOLACT's images are squares, so that it has one length alone.
        scale_priors: Whether YOLACT's prior boxes grow with the images, as in networks trained at that size.

    Raises:
        OptionError: A length is not positive, or too small for the network.
    """
    lengths = tuple(size) if isinstance(size, Sequence) and not isinstance(size, str) else (size,)
    if len(lengths) not in (1, 2):
        raise OptionError(f"size must be one length or two, got {size}.")
    shortest, longest = whole_number("size", lengths[0]), None
    if len(lengths) == 2:
        longest = whole_number("size", lengths[1])
        if longest < shortest:
            raise OptionError(f"size must have the shorter side first, got {size}.")
    old = model.resize
    if isinstance(model.detector, YolactConfig):
        if longest not in (None, shortest):
            raise OptionError(f"size must be one length for YOLACT, whose images are squares, got {size}.")
        longest = shortest
        model = replace(model, detector=_yolact_of_size(model.detector, shortest, old.shortest[-1], scale_priors))
    elif longest is None:
        longest = round(shortest * old.longest / old.shortest[-1])
    resize = Resize(shortest=(shortest,), longest=longest, rule=old.rule)
    return replace(model, resize=resize, buckets=default_buckets(resize))


def _yolact_of_size(config: YolactConfig, size: int, old: int, scale_priors: bool) -> YolactConfig:
    estimator = config.mask_iou
    if estimator is not None and Yolact.bitmap_sizes(size, size)[0][0] < estimator.min_side:
        least = 8 * ((estimator.min_side + 1) // 2 - 1) + 1  # of P3, of which the prototypes have two per cell
        raise OptionError(f"size must be at least {least} for YOLACT++, whose mask-IoU network needs it, got {size}.")
    if not scale_priors:
        return config
    # Published squares are whole pixels; the three sizes of YOLACT++ are not.
    whole = config.priors.square
    sizes = tuple(
        tuple(float(int(s / old * size)) if whole else s / old * size for s in level) for level in config.priors.sizes
    )
    return replace(config, priors=replace(config.priors, sizes=sizes))


def with_limits(
    model: ModelConfig, *, max_detections: int | None = None, nms_iou: float | None = None, raise_only: bool = False
) -> ModelConfig:
    """The model with other limits of what it detects in an image.

    Args:
        model: A two-stage detector or a YOLACT.
        max_detections: How many detections at most; None: as it is.
        nms_iou: Non-maximum suppression leaves out a box that has a larger IoU with a better one; None: as it is.
        raise_only: Never lower the number, for a caller who takes the best of some classes.

    Raises:
        OptionError: The network cannot give so many, or the IoU is not between 0 and 1.
    """
    detector = model.detector
    if nms_iou is not None and not 0 < nms_iou <= 1:
        raise OptionError(f"nms_iou must be above 0 and at most 1, got {nms_iou:g}.")
    own = model.selection
    changed: dict[str, Any] = {}
    if nms_iou is not None:
        changed["nms_threshold"] = nms_iou
    if max_detections is not None:
        max_detections, most = whole_number("max_detections", max_detections), _candidates(detector)
        if max_detections > most:
            raise OptionError(
                f"max_detections must be at most {most}, which this network can give, got {max_detections}."
            )
        changed["max_detections"] = max(max_detections, own.max_detections if raise_only else 0)
    if isinstance(detector, DetectorConfig):
        return replace(model, detector=replace(detector, box=replace(detector.box, **changed)))
    return replace(model, detector=replace(detector, **changed))


def _candidates(config: DetectorConfig | OneStageConfig | YolactConfig) -> int:
    """How many boxes non-maximum suppression looks at."""
    if isinstance(config, YolactConfig):
        return config.nms_top_k * (1 if config.nms == "cross_class" else config.num_classes)
    if isinstance(config, OneStageConfig):
        return config.candidates * len(config.anchors.sizes)
    boxes, threshold = config.rpn.post_nms_test, config.box.score_threshold
    every = boxes * config.num_classes
    return min(every, math.floor(boxes / threshold)) if threshold > 0 else every


def labels_of(categories: Mapping[int, str | None], classes: Iterable[str | int]) -> frozenset[int]:
    """The labels of some categories.

    Args:
        categories: Name by id, in the order of the labels.
        classes: Names or ids.

    Raises:
        OptionError: There is no such category; the message names the nearest.
    """
    by_name = {name: label for label, name in enumerate(categories.values()) if name is not None}
    by_id = {identifier: label for label, (identifier, name) in enumerate(categories.items()) if name is not None}
    found = set()
    for wanted in [classes] if isinstance(classes, str | int) else classes:
        if isinstance(wanted, str) and wanted not in by_name and wanted.isdecimal():
            wanted = int(wanted)  # a command line has texts alone
        label = by_name.get(wanted) if isinstance(wanted, str) else by_id.get(wanted)
        if label is None:
            near = difflib.get_close_matches(str(wanted), by_name, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            known = ", ".join(list(by_name)[:10]) + (f" and {len(by_name) - 10} more" if len(by_name) > 10 else "")
            raise OptionError(f"This detector knows no class {wanted!r}.{hint} It knows {known}.")
        found.add(label)
    if not found:
        raise OptionError("classes must name at least one class, or be None for all of them.")
    return frozenset(found)
