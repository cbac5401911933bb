"""What counts in an evaluation: limits, thresholds, sizes, classes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

# In square pixels, both ends included, as COCO draws the lines.
_COCO_AREAS = {"s": (0.0, 32.0**2), "m": (32.0**2, 96.0**2), "l": (96.0**2, 1e5**2)}
_ALL_AREAS = (0.0, 1e5**2)


def _coco_thresholds() -> tuple[float, ...]:
    # The bits of pycocotools: 0.5 + 0.05 n has others.
    return tuple(np.linspace(0.5, 0.95, 10).tolist())


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The rules of an evaluation; COCO's by default.

    Attributes:
        max_detections: detections that count, those of highest score: of each class in an image (COCO), or of all
            classes in an image where `federated` (LVIS); None: all of them; "coco": 100, and 20 for keypoints.
        iou_thresholds: overlaps from which a detection has found an object, ascending; AP is their mean.
        area_ranges: name of a size -> smallest and largest area in square pixels, both included; the size `s` gives the
            metrics `APs` and `ARs`; None: COCO's s, m and l, and no s for keypoints.
        classes: names or category ids to evaluate; None: all.
        class_agnostic: whether a detection may find an object of any class.
        federated: whether only the classes that an image was searched for count in it (Gupta et al., "LVIS", 2019,
            section 3); the annotation file then has `neg_category_ids` and `not_exhaustive_category_ids`.

    Raises:
        ValueError: a limit, threshold or range makes no sense.
    """

    max_detections: int | Literal["coco"] | None = "coco"
    iou_thresholds: tuple[float, ...] = field(default_factory=_coco_thresholds)
    area_ranges: Mapping[str, tuple[float, float]] | None = None
    classes: tuple[str | int, ...] | None = None
    class_agnostic: bool = False
    federated: bool = False

    def __post_init__(self) -> None:
        limit = self.max_detections
        if limit not in (None, "coco") and not isinstance(limit, int | np.integer):
            raise ValueError(f"max_detections must be a whole number, or None for no limit, got {limit!r}.")
        if isinstance(limit, int | np.integer) and limit < 1:
            raise ValueError(f"max_detections must be at least 1, or None for no limit, got {limit}.")
        thresholds = self.iou_thresholds
        if (
            not thresholds
            or list(thresholds) != sorted(set(thresholds))
            or not 0 < thresholds[0] <= thresholds[-1] <= 1
        ):
            raise ValueError(f"iou_thresholds must ascend and lie above 0 and up to 1, got {thresholds}.")
        for name, (smallest, largest) in (self.area_ranges or {}).items():
            if not 0 <= smallest <= largest:
                raise ValueError(
                    f"area_ranges must have a smallest and a largest area, got {name!r}: {smallest, largest}."
                )
        if self.classes is not None and not self.classes:
            raise ValueError("classes must name at least one class, or be None for all.")
        if self.class_agnostic and self.federated:
            raise ValueError("class_agnostic and federated exclude each other: federated rules are about classes.")

    @staticmethod
    def lvis() -> "Protocol":
        """The rules of LVIS: 300 detections an image, federated."""
        return Protocol(max_detections=300, federated=True)

    def resolved(self, iou_type: str) -> "ResolvedProtocol":
        """The rules with what COCO says about an IoU type filled in."""
        keypoints = iou_type == "keypoints"
        limit, areas = self.max_detections, self.area_ranges
        if limit == "coco":
            limit = 20 if keypoints else 100
        if areas is None:
            areas = {name: area for name, area in _COCO_AREAS.items() if not (keypoints and name == "s")}
        return ResolvedProtocol(
            max_detections=limit,
            iou_thresholds=self.iou_thresholds,
            area_ranges=areas,
            classes=self.classes,
            class_agnostic=self.class_agnostic,
            federated=self.federated,
        )


@dataclass(frozen=True, kw_only=True)
class ResolvedProtocol(Protocol):
    """A protocol that leaves nothing to COCO."""

    max_detections: int | None
    area_ranges: Mapping[str, tuple[float, float]]

    @property
    def areas(self) -> dict[str, tuple[float, float]]:
        """`area_ranges`, after the range of all objects under an empty name."""
        return {"": _ALL_AREAS, **self.area_ranges}

    def limits(self, most: int) -> tuple[int, ...]:
        """The numbers of detections for which recall is computed, ascending; the last is the limit of all metrics.

        Args:
            most: detections of the image that has most, which is the limit where there is none.
        """
        last = max(most, 1) if self.max_detections is None else self.max_detections
        return (last,) if self.federated else (*(limit for limit in (1, 10) if limit < last), last)
