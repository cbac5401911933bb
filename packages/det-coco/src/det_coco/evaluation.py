"""COCO and LVIS metrics."""

from collections.abc import Iterable, Mapping
from typing import Any

from det_coco._evaluators import without_collection
from det_coco.annotations import CocoIndex
from det_coco.curves import precision_recall
from det_coco.detections import Detections
from det_coco.protocol import Protocol


def evaluate(
    index: CocoIndex,
    results: Detections | Iterable[Mapping[str, Any]],
    iou_types: Iterable[str] = ("bbox", "segm"),
    *,
    protocol: Protocol | None = None,
    image_ids: Iterable[int] | None = None,
) -> dict[str, dict[str, float]]:
    """Compute COCO or LVIS metrics, to the last bit those of pycocotools and lvis on the objects of the index.

    An object whose box has no area inside its image is dropped when the file is read, which says so; the others would
    count it as missed.

    Boxes and masks are evaluated independently of each other: the size of a mask is its own, whatever its box.

    Args:
        index: the split, which is the truth; objects that were dropped when it was read do not count.
        results: detections of all images: arrays, or rows as `to_results` gives them; there may be none.
        iou_types: one or more of "bbox", "segm", "boundary" (boundary IoU of masks) and "keypoints" (by the sigmas of
            `index.skeleton`); masks rank by `mask_score` where there is one.
        protocol: limits, thresholds, sizes and classes; COCO's by default, `Protocol.lvis()` for LVIS.
        image_ids: evaluate on these images only.

    Returns:
        for each IoU type, as fractions, and -1 where there is no object to find: AP, AP50, AP75, APs, APm, APl, AR1,
        AR10, AR100, ARs, ARm, ARl (for keypoints AP, AP50, AP75, APm, APl, AR, AR50, AR75, ARm, ARl), and "AP/<class>"
        for every class. Another limit and other sizes change the names (AR300; AR alone where there is no limit), a
        federated protocol adds APr, APc, APf.

    Raises:
        DataError: a result is malformed, belongs to an unknown image or class, or has no mask where masks are
            evaluated; names it. Or the split lacks what is to be evaluated.
        ValueError: an IoU type is unknown.
    """
    with without_collection():
        detections = results if isinstance(results, Detections) else Detections.from_rows(index, results)
        return {
            iou_type: precision_recall(index, detections, iou_type, protocol=protocol, image_ids=image_ids).metrics()
            for iou_type in ((iou_types,) if isinstance(iou_types, str) else tuple(iou_types))
        }
