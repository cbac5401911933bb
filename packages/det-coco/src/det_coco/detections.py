"""Detections of many images as arrays, and the rows of a COCO results file that they stand for."""

import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import chain, pairwise
from typing import Any, cast

import numpy as np

from det_coco._box_forms import other_form
from det_coco._coco_api import coco_mask
from det_coco._compiled import compiled
from det_coco._describe import describe
from det_coco._groups import take_groups
from det_coco._row_masks import areas_of_codes, mask_of_row
from det_coco.annotations import CocoIndex
from det_coco.errors import DataError

_log = logging.getLogger("det_coco")

_LISTS = (list, tuple, np.ndarray)
_NUMBERS = (int, float, np.integer, np.floating)
_MAX_ID = 1 << 62


@dataclass(frozen=True, kw_only=True, eq=False)
class Detections:
    """Detections of many images: a few arrays, cheap to send between processes and to evaluate.

    `K` detections in any order; those of equal score rank in this order.

    Attributes:
        image_ids: int64 `[K]`, the data set's own ids.
        category_ids: int64 `[K]`, the data set's own ids.
        boxes: float64 `[K, 4]` x, y, width, height in original pixels.
        scores: float64 `[K]`.
        keypoints: float64 `[K, J, 3]` x, y in original pixels and a third number that no metric reads, or None.
        mask_scores: float64 `[K]` scores of the masks where they differ from those of the boxes (YOLACT++), or None.
        mask_sizes: int64 `[K, 2]` height, width of the masks, or None without masks.
        mask_codes: uint8 `[B]`, here B bytes: the compressed run-length codes, one after the other; None without masks.
        mask_offsets: int64 `[K + 1]`; detection k owns codes `[k]:[k + 1]`, or None without masks.
    """

    image_ids: np.ndarray
    category_ids: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    keypoints: np.ndarray | None = None
    mask_scores: np.ndarray | None = None
    mask_sizes: np.ndarray | None = None
    mask_codes: np.ndarray | None = None
    mask_offsets: np.ndarray | None = None

    @staticmethod
    def of_image(
        index_or_ids: CocoIndex | Sequence[int | None],
        image_id: int,
        boxes: np.ndarray,
        scores: np.ndarray,
        labels: np.ndarray,
        rles: Sequence[Mapping[str, Any]] | None = None,
        *,
        keypoints: np.ndarray | None = None,
        mask_scores: np.ndarray | None = None,
        offset: float = 0.0,
    ) -> "Detections":
        """Take the detections of one image.

        Args:
            index_or_ids: an index, or the category ids by contiguous label; detections of a label whose id is None are
                left out.
            image_id: the data set's own id.
            boxes: `[K, 4]` x1, y1, x2, y2 in original pixels.
            scores: `[K]`.
            labels: `[K]` contiguous classes 0 .. C - 1.
            rles: K compressed run-length codes `{"size": [h, w], "counts": text or bytes}`, or None.
            keypoints: `[K, J, 3]`, or None.
            mask_scores: `[K]`, or None.
            offset: 1 where boxes are inclusive (legacy), so that width is x2 - x1 + 1.
        """
        ids = index_or_ids.category_ids if isinstance(index_or_ids, CocoIndex) else tuple(index_or_ids)
        corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        categories = [ids[label] for label in np.asarray(labels).reshape(-1).tolist()]
        kept = np.array([category is not None for category in categories], dtype=bool)
        found = Detections(
            image_ids=np.full(len(corners), image_id, dtype=np.int64),
            category_ids=np.array([category or 0 for category in categories], dtype=np.int64),
            boxes=np.concatenate((corners[:, :2], corners[:, 2:] - corners[:, :2] + offset), axis=1),
            scores=np.asarray(scores, dtype=np.float64).reshape(-1),
            keypoints=None if keypoints is None else np.asarray(keypoints, dtype=np.float64),
            mask_scores=None if mask_scores is None else np.asarray(mask_scores, dtype=np.float64).reshape(-1),
            **({} if rles is None else _pack(rles)),
        )
        return found if kept.all() else found[kept]

    @staticmethod
    def from_rows(index: CocoIndex, rows: Iterable[Mapping[str, Any]]) -> "Detections":
        """Read rows of a COCO results file.

        Args:
            index: the split that they belong to; knows its keypoints, and the sizes of masks given as polygons.
            rows: as :func:`to_results` gives them. `segmentation` is a compressed or plain run-length code, a list of
                polygons or an array `[H, W]`; all rows have one that is not None, or none has one, and so with
                `keypoints`. Rows with either may lack `bbox`. A warning says so where boxes look like corners, centres
                or fractions.

        Raises:
            DataError: a row lacks something or has what cannot be read; names the row.
        """
        if isinstance(rows, Mapping | str) or not isinstance(rows, Iterable):
            raise DataError(f"Results must be a list of rows, one for each detection, got {describe(rows)}.")
        rows = rows if isinstance(rows, list | tuple) else list(rows)
        plain = None
        if compiled is not None and index.skeleton is None and isinstance(rows, list):
            plain = compiled.row_columns(rows)  # None if any row is not exactly as a results file has it
        found = Detections(**(_read_rows(index, rows) if plain is None else plain))
        _say_form(index, found)
        return found

    @staticmethod
    def concatenate(parts: Sequence["Detections"]) -> "Detections":
        """Put detections one after the other, such as those of several images or processes.

        Masks, and scores of their own, stay if all non-empty parts have them.

        Args:
            parts: detections; none gives none.
        """
        parts = [part for part in parts if len(part)] or list(parts[:1])
        if not parts:
            none = np.zeros(0, dtype=np.int64)
            return Detections(image_ids=none, category_ids=none, boxes=np.zeros((0, 4)), scores=np.zeros(0))
        columns: dict[str, Any] = {}
        for name in (field.name for field in fields(Detections)):
            values = [getattr(part, name) for part in parts]
            columns[name] = None if any(value is None for value in values) else np.concatenate(values)
        if columns["mask_offsets"] is not None:
            columns["mask_offsets"] = _offsets(np.concatenate([np.diff(cast(Any, p.mask_offsets)) for p in parts]))
        return Detections(**columns)

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, chosen: np.ndarray) -> "Detections":
        """The detections of a boolean `[K]` or integer array, in its order."""
        names = [field.name for field in fields(self) if field.name not in ("mask_codes", "mask_offsets")]
        values = [getattr(self, name) for name in names]
        chosen_values: list[Any] = [None if value is None else value[chosen] for value in values]
        columns = dict(zip(names, chosen_values, strict=True))
        if self.mask_codes is not None and self.mask_offsets is not None:
            places, offsets = take_groups(self.mask_offsets, np.arange(len(self))[chosen])
            columns |= {"mask_codes": self.mask_codes[places], "mask_offsets": offsets}
        return Detections(**columns)

    def sorted(self) -> "Detections":
        """The detections by ascending image id, in an order that does not depend on which process found what."""
        return self[np.argsort(self.image_ids, kind="stable")]

    def rles(self) -> list[dict[str, Any]]:
        """Run-length codes of the masks, `{"size": [h, w], "counts": bytes}`; K of them, or none without masks."""
        if self.mask_codes is None or self.mask_offsets is None or self.mask_sizes is None:
            return []
        codes = self.mask_codes.tobytes()
        sizes = self.mask_sizes.tolist()
        bounds = pairwise(self.mask_offsets.tolist())
        return [{"size": size, "counts": codes[a:b]} for size, (a, b) in zip(sizes, bounds, strict=True)]

    def rows(self) -> list[dict[str, Any]]:
        """The rows of a COCO results file, plain Python values ready for JSON; see :func:`to_results`."""
        rows: list[dict[str, Any]] = [
            {"image_id": image, "category_id": category, "bbox": box, "score": score}
            for image, category, box, score in zip(
                self.image_ids.tolist(),
                self.category_ids.tolist(),
                self.boxes.tolist(),
                self.scores.tolist(),
                strict=True,
            )
        ]
        for row, rle in zip(rows, self.rles(), strict=False):
            row["segmentation"] = {"size": rle["size"], "counts": rle["counts"].decode("ascii")}
        if self.keypoints is not None:
            for row, numbers in zip(
                rows, self.keypoints.reshape(-1, 3 * self.keypoints.shape[1]).tolist(), strict=True
            ):
                row["keypoints"] = numbers
        if self.mask_scores is not None:
            for row, score in zip(rows, self.mask_scores.tolist(), strict=True):
                row["mask_score"] = score
        return rows


def extents(keypoints: np.ndarray) -> np.ndarray:
    """Boxes `[K, 4]` x, y, width, height around keypoints `[K, J, 3]`."""
    first, last = keypoints[:, :, :2].min(axis=1), keypoints[:, :, :2].max(axis=1)
    return np.concatenate((first, last - first), axis=1)


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)


def _pack(rles: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    counts = [rle["counts"] for rle in rles]
    if set(map(type, counts)) == {str}:
        codes = "".join(counts).encode("latin-1", "replace")  # a byte a letter; strange ones are found when measured
    else:
        counts = [text.encode("latin-1", "replace") if isinstance(text, str) else text for text in counts]
        codes = b"".join(counts)
    return {
        "mask_sizes": np.array([rle["size"] for rle in rles], dtype=np.int64).reshape(-1, 2),
        "mask_codes": np.frombuffer(codes, dtype=np.uint8),
        "mask_offsets": _offsets(np.fromiter(map(len, counts), dtype=np.int64, count=len(counts))),
    }


def _compressed(codes: Sequence[Any]) -> bool:
    """Whether all masks are compressed run-length codes, as they nearly always are, without a look at each alone."""
    try:
        sizes = np.array([code["size"] for code in codes])
        texts = set(map(type, [code["counts"] for code in codes])) <= {str, bytes}
    except (KeyError, TypeError, ValueError, IndexError):
        return False
    return texts and sizes.shape == (len(codes), 2) and sizes.dtype.kind == "i"


def _read_rows(index: CocoIndex, rows: Sequence[Any]) -> dict[str, Any]:
    """The fields of the `Detections` that rows of any form stand for."""
    mappings = all(issubclass(kind, Mapping) for kind in set(map(type, rows)))
    for number, row in enumerate(() if mappings else rows):
        if not isinstance(row, Mapping):
            what = "an object with image_id, category_id, bbox and score"
            raise DataError(f"Result {number} must be {what}, got {describe(row)}.")
    columns: dict[str, Any] = {
        "image_ids": _ids(rows, "image_id"),
        "category_ids": _ids(rows, "category_id"),
        "scores": _column(rows, "score"),
    }
    boxes = any("bbox" in row for row in rows)
    if rows and all(row.get("segmentation") is not None for row in rows):
        rles = [row["segmentation"] for row in rows]
        if not _compressed(rles):
            rles = [mask_of_row(index, row, number) for number, row in enumerate(rows)]
        columns |= _pack(rles)
        if not boxes:
            codes, offsets, sizes = (columns[f"mask_{name}"] for name in ("codes", "offsets", "sizes"))
            areas_of_codes(codes, offsets, sizes, columns["image_ids"])
            columns["boxes"] = coco_mask.toBbox(rles)
    if index.skeleton is not None and rows and all("keypoints" in row for row in rows):
        keypoints = _column(rows, "keypoints", 3 * len(index.skeleton.names)).reshape(len(rows), -1, 3)
        columns |= {"keypoints": keypoints} | ({} if boxes else {"boxes": extents(keypoints)})
    if "boxes" not in columns:
        columns["boxes"] = _column(rows, "bbox", 4)
    if any("mask_score" in row for row in rows):
        columns["mask_scores"] = _column([{"mask_score": row["score"], **row} for row in rows], "mask_score")
    return columns


def _say_form(index: CocoIndex, found: Detections) -> None:
    """Say so where the boxes of results are hardly x, y, width, height in pixels."""
    if not len(found) or not len(index):
        return
    images = np.searchsorted(index.image_ids, found.image_ids).clip(max=len(index) - 1)
    sizes = np.stack((index.widths, index.heights) * 2, axis=1).astype(np.float64)[images]
    form = other_form(found.boxes, sizes, images)
    if form is not None:
        _log.warning(
            "The boxes of the results look as if they were %s. They are taken for x, y, width, height in pixels; if "
            "they are something else, write them so.",
            form,
        )


def _column(rows: Sequence[Mapping[str, Any]], key: str, length: int = 0) -> np.ndarray:
    """float64 `[K]`, or `[K, length]`: the numbers that rows have under a key."""
    if not rows:
        return np.zeros((0, length) if length else 0)
    try:
        values = [row[key] for row in rows]
        if length and not all(issubclass(kind, _LISTS) for kind in set(map(type, values))):
            raise TypeError
        flat = list(chain.from_iterable(values)) if length else values
        # numpy would read numbers from text and from truth values.
        plain = all(issubclass(kind, _NUMBERS) and kind is not bool for kind in set(map(type, flat)))
        if plain and (not length or set(map(len, values)) == {length}):
            numbers = np.array(flat, dtype=np.float64)
            if np.isfinite(numbers).all():
                return numbers.reshape(-1, length) if length else numbers
    except (KeyError, TypeError, OverflowError):
        pass
    raise DataError(next(filter(None, (_fault(row, number, key, length) for number, row in enumerate(rows)))))


def _fault(row: Any, number: int, key: str, length: int) -> str | None:
    """What is wrong with the value of a row, or None."""
    if key not in row:
        return f"Result {number} has no '{key}'. Every result needs image_id, category_id, bbox and score."
    value = row[key]
    numbers = list(value) if length and isinstance(value, _LISTS) else [value]
    plain = all(isinstance(v, _NUMBERS) and not isinstance(v, bool) and abs(v) <= sys.float_info.max for v in numbers)
    if plain and len(numbers) == (length or 1):
        return None
    what = f"{length} finite numbers" if length else "a finite number"
    return f"'{key}' of result {number} must be {what}, got {describe(value)}."


def _ids(rows: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    values: list[Any] = [row.get(key) for row in rows]
    if set(map(type, values)) == {int} and max(map(abs, values)) < _MAX_ID:
        return np.array(values, dtype=np.int64)
    numbers = _column(rows, key)
    broken = np.flatnonzero((numbers != np.floor(numbers)) | (np.abs(numbers) >= _MAX_ID))
    if broken.size:
        number = int(broken[0])
        raise DataError(f"'{key}' of result {number} must be a whole number, got {describe(rows[number][key])}.")
    # Not by way of float64, which holds integers up to 2^53 only.
    return np.array([row[key] for row in rows], dtype=np.int64)
