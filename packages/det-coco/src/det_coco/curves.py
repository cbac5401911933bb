"""Precision and recall of an evaluation, and the metrics that they give."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from det_coco._columns import Columns, chosen_labels, make_columns
from det_coco._describe import counted
from det_coco._evaluators import match, without_collection
from det_coco.annotations import CocoIndex
from det_coco.detections import Detections
from det_coco.lvis import FREQUENCIES
from det_coco.protocol import Protocol, ResolvedProtocol
from det_coco.remarks import say_once


@dataclass(frozen=True, kw_only=True, eq=False)
class Curves:
    """Precision, recall and scores of an evaluation; -1 where there is no object to find.

    `T` IoU thresholds, `R` = 101 levels of recall from 0 to 1, `C` classes (one if class-agnostic), `A` sizes of which
    the first is all sizes, `L` limits of detections of which the last counts for all metrics but `AR1` and `AR10`.

    Attributes:
        iou_type: what was compared.
        protocol: the rules.
        limits: the L limits.
        class_names: names of the C classes, told apart by id where two have one name; empty if class-agnostic.
        frequencies: text `[C]`, LVIS's `r`, `c` or `f`, where the protocol is federated; else None.
        precision: float64 `[T, R, C, A, L]`.
        recall: float64 `[T, C, A, L]`: the highest.
        scores: float64 `[T, R, C, A, L]`: of the detection that reaches a level of recall.
    """

    iou_type: str
    protocol: ResolvedProtocol
    limits: tuple[int, ...]
    class_names: tuple[str, ...]
    frequencies: np.ndarray | None
    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray

    def metrics(self) -> dict[str, float]:
        """The numbers that :func:`evaluate` gives."""
        thresholds = np.array(self.protocol.iou_thresholds)
        best = self.precision[:, :, :, :, -1]
        metrics = {"AP": mean(best[:, :, :, 0])}
        for name, threshold in (("AP50", 0.5), ("AP75", 0.75)):
            if threshold in thresholds:
                metrics[name] = mean(best[thresholds == threshold, :, :, 0])
        sizes = list(enumerate(self.protocol.area_ranges, start=1))
        metrics |= {f"AP{name}": mean(best[:, :, :, place]) for place, name in sizes}
        if self.frequencies is not None:
            metrics |= {f"AP{name}": mean(best[:, :, self.frequencies == name, 0]) for name in FREQUENCIES}
        if self.iou_type == "keypoints":
            # COCO's names for keypoints: AR50 is the recall at an OKS of 0.5, not of 50 detections.
            metrics["AR"] = mean(self.recall[:, :, 0, -1])
            for name, threshold in (("AR50", 0.5), ("AR75", 0.75)):
                if threshold in thresholds:
                    metrics[name] = mean(self.recall[thresholds == threshold, :, 0, -1])
        else:
            for place, limit in enumerate(self.limits):
                unlimited = place == len(self.limits) - 1 and self.protocol.max_detections is None
                metrics["AR" if unlimited else f"AR{limit}"] = mean(self.recall[:, :, 0, place])
        metrics |= {f"AR{name}": mean(self.recall[:, :, place, -1]) for place, name in sizes}
        return metrics | {f"AP/{name}": mean(best[:, :, n, 0]) for n, name in enumerate(self.class_names)}


def mean(values: np.ndarray) -> float:
    """Mean of the values that are not -1, in an array of any shape; -1 if there are none."""
    values = values[values > -1]
    return float(values.mean()) if values.size else -1.0


def precision_recall(
    index: CocoIndex,
    detections: Detections,
    iou_type: str = "bbox",
    *,
    protocol: Protocol | None = None,
    image_ids: Iterable[int] | None = None,
) -> Curves:
    """Compute the curves behind the metrics, equal to pycocotools' (lvis's, where the protocol is federated).

    Args:
        index: the split, which is the truth.
        detections: of all its images; of equal scores the first ranks first.
        iou_type: "bbox", "segm", "boundary" (the lower of the IoU of two masks and that of their boundaries) or
            "keypoints".
        protocol: the rules; COCO's by default.
        image_ids: evaluate on these images only.

    Raises:
        DataError: the detections do not fit the split, or one side lacks what is compared.
        ValueError: the IoU type is unknown.
    """
    with without_collection():
        columns = make_columns(index, detections, iou_type, protocol or Protocol(), image_ids)
        return curves_of(index, columns)


def curves_of(index: CocoIndex, columns: Columns) -> Curves:
    """Compute the curves of one evaluation; see `precision_recall`.

    Args:
        index: the split.
        columns: what is compared.
    """
    _say_if_limited(index, columns)
    evaluator = match(columns)
    evaluator.accumulate()
    arrays = evaluator.eval
    rows = columns.labels
    agnostic = columns.protocol.class_agnostic
    return Curves(
        iou_type=columns.iou_type,
        protocol=columns.protocol,
        limits=columns.limits,
        class_names=() if agnostic else tuple(chosen_names(index, columns.protocol).values()),
        frequencies=None if columns.federation is None else columns.federation.frequencies[rows],
        precision=arrays["precision"],
        recall=arrays["recall"],
        scores=arrays["scores"],
    )


def chosen_names(index: CocoIndex, protocol: Protocol) -> dict[int, str]:
    """Names, by label, of the classes that a protocol tells apart: with the category id where several have one name."""
    if protocol.class_agnostic:
        return {0: "all"}
    times = Counter(index.class_names)
    names = [f"{name} ({id_})" if times[name] > 1 else name for id_, name in index.categories.items()]
    if len(set(names)) < len(names):  # where a class itself is called `cat (2)`
        names = [f"{name} ({id_})" for id_, name in index.categories.items()]
    return {label: names[label] for label in chosen_labels(index, protocol).tolist()}


def _say_if_limited(index: CocoIndex, columns: Columns) -> None:
    """Say so where images have more objects than detections may count."""
    limit = columns.protocol.max_detections
    if limit is None:
        return
    counts_in = ~columns.crowd & np.isin(columns.truth_images, columns.images)
    counts_in &= np.isin(columns.truth_labels, columns.labels)
    by_class = not (columns.protocol.federated or columns.protocol.class_agnostic)
    group = columns.truth_images * columns.num_classes + (columns.truth_labels if by_class else 0)
    groups, counts = np.unique(group[counts_in], return_counts=True)
    images = np.unique(groups[counts > limit] // columns.num_classes)
    if images.size:
        have = f"{counted(len(images), 'image')} {'has' if len(images) == 1 else 'have'}"
        objects = f"{counted(limit, 'object')}{' of one class' if by_class else ''}"
        fullest = index.image_ids[groups[counts.argmax()] // columns.num_classes]
        say_once(
            index,
            f"more than {objects}",
            f"{have} more than {objects} (up to {counts.max()}, in image {fullest}), but no more than {limit} "
            "detections count there, which keeps AP and AR below 1. Raise max_detections to count more.",
        )
