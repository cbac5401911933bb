"""What a detector found in one image, in NumPy and in pixels of that image."""

import io
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image

import det_coco
from det_coco import detections_of, draw
from det_coco.keypoints import usual_limbs
from det_coco.rle import decode_rle
from det_models.errors import OptionError
from det_models.images import load

__all__ = ["Detections", "Features", "Part"]

Part = Literal["masks", "boxes", "scores"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """Feature maps of an image, in NumPy and float32.

    Attributes:
        pyramid: Per level [C, h, w], finest first, of the image without padding.
        strides: Pixels of the resized image per cell, of each level.
        scale: (y, x), resized / original size of the image.
        regions: [K, C, P, P] of the detections, with 7 cells along a side: RoIAlign of the level that fits the box.
    """

    pyramid: tuple[np.ndarray, ...]
    strides: tuple[int, ...]
    scale: tuple[float, float]
    regions: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Detections:
    """The `K` detections of an image, best first.

    `len` is their number; an index, a slice, a list of indices or a bool `[K]` gives some of them as an object of the
    same kind (``found[found.scores > 0.5]``), and a loop gives them one by one. In a notebook it is a picture.

    Attributes:
        boxes: float32 [K, 4], x1, y1, x2, y2 in pixels of the original image, no +1.
        scores: float32 [K].
        labels: int64 [K], the network's classes, counted from 0.
        categories: Name by id of all categories that the detector reports.
        category_ids: int64 [K].
        size: (height, width) of the image.
        rle: K COCO run-length encodings ``{"size": [height, width], "counts": text}``, or None without masks.
        mask_scores: float32 [K] of the masks, where they have other scores than the boxes (YOLACT++), or None.
        image: uint8 [H, W, 3] RGB, or None where the detector was handed a batch.
        source: The image's file, or an empty text.
        extra: What further heads found, by name, an entry for each detection, such as ``keypoint_scores`` [K, J].
        features: Of the image and of each detection, where they were asked for.
        limbs: Pairs of keypoints that pictures join, counted from 0; by default COCO's, if as many.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    categories: Mapping[int, str]
    category_ids: np.ndarray
    size: tuple[int, int]
    rle: list[dict[str, Any]] | None = None
    mask_scores: np.ndarray | None = None
    image: np.ndarray | None = field(default=None, repr=False)
    source: str = ""
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)
    features: Features | None = field(default=None, repr=False)
    limbs: tuple[tuple[int, int], ...] = ()

    @property
    def keypoints(self) -> np.ndarray | None:
        """Keypoints, float32 [K, J, 3], x and y in pixels of the original image and 1; None without keypoints."""
        return self.extra.get("keypoints")

    @property
    def names(self) -> np.ndarray:
        """Names of the categories: text [K]."""
        return np.array([self.categories[int(identifier)] for identifier in self.category_ids], dtype=np.str_)

    @cached_property
    def masks(self) -> np.ndarray | None:
        """Masks, bool [K, H, W], made on first use; None for a detector of boxes."""
        if self.rle is None:
            return None
        if not self.rle:
            return np.zeros((0, *self.size), dtype=bool)
        return np.stack([decode_rle(rle) for rle in self.rle])

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: Any) -> "Detections":
        rows = np.atleast_1d(np.arange(len(self))[index])
        features = self.features
        return replace(
            self,
            extra={name: values[rows] for name, values in self.extra.items()},
            features=None if features is None else replace(features, regions=features.regions[rows]),
            boxes=self.boxes[rows],
            scores=self.scores[rows],
            labels=self.labels[rows],
            category_ids=self.category_ids[rows],
            rle=None if self.rle is None else [self.rle[row] for row in rows],
            mask_scores=None if self.mask_scores is None else self.mask_scores[rows],
        )

    def __iter__(self) -> Iterator["Detections"]:
        return (self[row] for row in range(len(self)))

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """The rows of a COCO results file.

        Args:
            image_id: The data set's own id of the image.

        Returns:
            K dictionaries of plain values, see :func:`det_coco.to_results`, and what else is in :attr:`extra`.
        """
        rows = self.to_arrays(image_id).rows()
        further = {name: np.asarray(values).tolist() for name, values in self.extra.items() if name != "keypoints"}
        return [row | {name: values[k] for name, values in further.items()} for k, row in enumerate(rows)]

    def to_arrays(self, image_id: int) -> det_coco.Detections:
        """The same as arrays, of which those of many images are put together and evaluated.

        Args:
            image_id: The data set's own id of the image.
        """
        places = {identifier: place for place, identifier in enumerate(self.categories)}
        return det_coco.Detections.of_image(
            tuple(self.categories),
            image_id,
            self.boxes,
            self.scores,
            np.array([places[identifier] for identifier in self.category_ids.tolist()], dtype=np.int64),
            self.rle,
            keypoints=self.keypoints,
            mask_scores=self.mask_scores,
        )

    def draw(
        self,
        image: Any = None,
        *,
        min_score: float = 0.0,
        show: Part | Collection[Part] = ("masks", "boxes", "scores"),
        min_side: int = 480,
    ) -> Image.Image:
        """A picture of the detections.

        Args:
            image: What to draw on, an image of any kind that a detector takes and of the same size; by default the
                one that was looked at.
            min_score: Leave out what has a lower score.
            show: What to draw of each; its name in any case.
            min_side: Smaller images are enlarged by a whole factor, so that text is legible.

        Raises:
            DataError: The file to draw on is no picture.
            OptionError: There is no image to draw on, or it has another size; or `show` names something else.
        """
        pixels = self.image if image is None else load(image).pixels
        if pixels is None:
            raise OptionError("These detections are of a batch, and have no image to draw on; give draw one.")
        if pixels.shape[:2] != tuple(self.size):
            raise OptionError(
                f"These detections are of an image of {self.size[1]} x {self.size[0]} pixels, the one to draw on has "
                f"{pixels.shape[1]} x {pixels.shape[0]}."
            )
        show = (show,) if isinstance(show, str) else show
        unknown = [part for part in show if part not in get_args(Part)]
        if unknown:
            raise OptionError(f"show must name some of {', '.join(get_args(Part))}, got {unknown[0]!r}.")
        drawn = detections_of(tuple(self.categories), self.to_coco(0), min_score=min_score)
        if "masks" not in show:
            drawn = replace(drawn, masks=None)
        if "scores" not in show:
            drawn = replace(drawn, scores=None)
        if drawn.keypoints is not None:
            drawn = replace(drawn, limbs=self.limbs or usual_limbs(drawn.keypoints.shape[1]))
        return draw(pixels, drawn, self.categories, min_side=min_side, boxes="boxes" in show)

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in Counter(self.names.tolist()).most_common(5))
        best = f" ({counts}; scores {self.scores.min():.2f} to {self.scores.max():.2f})" if len(self) else ""
        where = f"{self.source or 'an image'} of {self.size[1]} x {self.size[0]} pixels"
        return f"{len(self)} detection{'s' * (len(self) != 1)} in {where}{best}"

    def _repr_png_(self) -> bytes | None:
        if self.image is None:
            return None
        buffer = io.BytesIO()
        self.draw().save(buffer, format="png")
        return buffer.getvalue()
