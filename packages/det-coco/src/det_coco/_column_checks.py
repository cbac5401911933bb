"""Whether detections belong to a split, and both have what is compared."""

from typing import Any

import numpy as np

from det_coco._describe import counted, describe
from det_coco._row_masks import areas_of_codes
from det_coco.annotations import CocoIndex
from det_coco.detections import Detections
from det_coco.errors import DataError


def check_ids(index: CocoIndex, detections: Detections) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the images and labels of the classes of the detections."""
    images, known = _find(index.image_ids, detections.image_ids)
    if not known.all():
        first = int(np.flatnonzero(~known)[0])
        raise DataError(
            f"{index.annotation_file} lacks the images of {counted(int((~known).sum()), 'result')}, for example image "
            f"{detections.image_ids[first]} (result {first}). Evaluate them on the split they were made on."
        )
    ids = np.array(index.category_ids, dtype=np.int64)
    labels, known = _find(ids, detections.category_ids)
    if not known.all():
        first = int(np.flatnonzero(~known)[0])
        some = ", ".join(map(str, ids[:12])) + (", ..." if len(ids) > 12 else "")
        raise DataError(
            f"{index.annotation_file} lacks the category ids of {counted(int((~known).sum()), 'result')}, for example "
            f"{detections.category_ids[first]} (result {first}); it has {some}. Results have the ids of the file, not "
            "positions in it."
        )
    for name, values in (("bbox", detections.boxes.sum(axis=1)), ("score", detections.scores)):
        broken = np.flatnonzero(~np.isfinite(values))
        if broken.size:
            raise DataError(f"'{name}' of result {broken[0]} (image {detections.image_ids[broken[0]]}) is not finite.")
    negative = np.flatnonzero((detections.boxes[:, 2:] < 0).any(axis=1))
    if negative.size:
        first = int(negative[0])
        raise DataError(
            f"'bbox' of result {first} (image {detections.image_ids[first]}) has a negative width or height: "
            f"{describe(detections.boxes[first].tolist())}. Boxes are x, y, width, height in pixels."
        )
    return images, labels


def _find(known: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of values in an ascending array, and whether they are there."""
    places = np.searchsorted(known, wanted)
    inside = np.minimum(places, len(known) - 1)
    return inside, known[inside] == wanted


def check_masks(index: CocoIndex, detections: Detections, images: np.ndarray) -> np.ndarray:
    """Areas of the masks of the detections, in pixels."""
    if len(detections) and detections.mask_sizes is None:
        raise DataError("Results without 'segmentation' cannot be evaluated as masks. Evaluate bbox alone.")
    if index.num_instances and not index.has_masks:
        raise DataError(f"{index.annotation_file} has no masks to evaluate masks against. Evaluate bbox alone.")
    if detections.mask_sizes is None or detections.mask_codes is None or detections.mask_offsets is None:
        return np.zeros(0)
    sizes = np.stack((index.heights, index.widths), axis=1)[images].astype(np.int64)
    other = np.flatnonzero((detections.mask_sizes != sizes).any(axis=1))
    if other.size:
        first = int(other[0])
        raise DataError(
            f"The masks of {counted(len(other), 'result')} have another size than the image, for example result "
            f"{first} (image {detections.image_ids[first]}): {detections.mask_sizes[first].tolist()} instead of "
            f"{sizes[first].tolist()} (height, width). Bring masks to the size of the original image."
        )
    areas = areas_of_codes(detections.mask_codes, detections.mask_offsets, sizes, detections.image_ids)
    return areas.astype(np.float64)


def check_keypoints(index: CocoIndex, detections: Detections) -> dict[str, Any]:
    if index.skeleton is None:
        raise DataError(f"{index.annotation_file} has no keypoints to evaluate against. Evaluate bbox alone.")
    count = len(index.skeleton.names)
    found = detections.keypoints
    if found is None:
        if len(detections):
            raise DataError("Results without 'keypoints' cannot be evaluated as keypoints. Evaluate bbox alone.")
        found = np.zeros((0, count, 3))
    if found.shape[1] != count:
        raise DataError(
            f"Results have {found.shape[1]} keypoints, but {index.annotation_file} lists {count}. Evaluate bbox alone."
        )
    return {"truth_keypoints": index.keypoints, "found_keypoints": found, "sigmas": index.skeleton.sigmas}
