"""COCO annotations packed into a few arrays."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from det_coco._cache import read_cached
from det_coco._describe import counted, some
from det_coco._file_kinds import other_kind
from det_coco._find_pictures import find_pictures, stays_inside
from det_coco._geometry import refuse_swapped_sizes, with_agreeing_geometry
from det_coco._groups import take_groups
from det_coco._json import read_json
from det_coco._missing_sizes import MissingSizesError, sizes_from_pictures
from det_coco._parse import pack as pack_content
from det_coco._sharing import pack, unpack
from det_coco._table import split_text
from det_coco.errors import DataError
from det_coco.images import decode_image, load_image
from det_coco.keypoints import Skeleton
from det_coco.lvis import Federation
from det_coco.memory import MemoryPictures
from det_coco.polygons import Polygons
from det_coco.remarks import Remark, log_remarks
from det_coco.rle import runs_to_edges


@dataclass(frozen=True, kw_only=True, eq=False)
class CocoIndex:
    """One split of a COCO-format data set: validated, packed, ready to share between processes.

    `I` images by ascending id, `N` instances grouped by image in file order, `C` classes by ascending category id.
    No Python object is kept per instance, so worker processes do not copy the annotations by counting references.

    Attributes:
        annotation_file: the JSON file.
        image_folder: where the pictures are.
        categories: category id -> class name, by ascending id.
        image_ids: int64 `[I]`.
        heights: int32 `[I]` pixels.
        widths: int32 `[I]` pixels.
        file_names: `[I]` fixed-width text, relative to `image_folder`.
        image_instances: int64 `[I + 1]`; image i owns instances `[i]:[i + 1]`.
        annotation_ids: int64 `[N]` as in the file, for messages alone; a row's number where its id is no integer.
        boxes: float32 `[N, 4]` x1, y1, x2, y2 in original pixels, clipped to the image, never empty.
        labels: int64 `[N]` contiguous classes 0 .. C - 1.
        crowd: bool `[N]` crowd regions, and objects that the file marks `ignore`: neither learnt nor to be found.
        areas: float64 `[N]` square pixels: the file's own; measured where that is missing or cannot be an area.
        file_boxes: float64 `[N, 4]` x, y, width, height as in the file, not clipped: what metrics compare.
        masks: polygons and runs.
        keypoints: float32 `[N, J, 3]` x, y in original pixels as in the file, and visibility: 0 not labelled, 1
            labelled but hidden, 2 visible; J is 0 without a skeleton.
        skeleton: the J keypoints of the categories that have some, or None.
        federation: which classes each image was searched for, in LVIS; None elsewhere.
        pictures: those that lie in memory, or None.
        exif: whether pictures are turned upright as their EXIF orientation says; False for data annotated without.
        remarks: what the reader had to interpret, drop, clip or measure; also logged.
    """

    annotation_file: Path
    image_folder: Path
    categories: dict[int, str]
    image_ids: np.ndarray
    heights: np.ndarray
    widths: np.ndarray
    file_names: np.ndarray
    image_instances: np.ndarray
    annotation_ids: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray
    file_boxes: np.ndarray = field(repr=False)
    masks: Polygons = field(repr=False)
    keypoints: np.ndarray = field(repr=False)
    skeleton: Skeleton | None = None
    federation: Federation | None = field(default=None, repr=False)
    pictures: MemoryPictures | None = field(default=None, repr=False)
    exif: bool = True
    remarks: tuple[Remark, ...] = field(default=(), repr=False)

    @staticmethod
    def load(
        annotation_file: str | Path,
        image_folder: str | Path,
        *,
        check_images: bool = True,
        require_objects: bool = True,
    ) -> "CocoIndex":
        """Read, check and pack an annotation file.

        Boxes are clipped to their image; those left without area are dropped and counted in one warning. Polygons of
        fewer than three points are dropped.

        Args:
            annotation_file: COCO `instances_*.json`.
            image_folder: folder the file names are relative to.
            check_images: check that every picture exists.
            require_objects: refuse a file without a single usable object; annotations and categories may be missing
                otherwise.

        Returns:
            the index.

        Raises:
            DataError: anything that would make training wrong or stop it later; the message says what and where.
        """
        file = Path(annotation_file)
        try:
            try:
                found = read_cached(file, lambda text: _packed(file, *split_text(file, text), require_objects))
            except MissingSizesError:
                content = read_json(file)
                remark = sizes_from_pictures(file, Path(image_folder), content)
                found = _packed(file, content, None, require_objects)
                found["remarks"] = (*found["remarks"], remark)
            return _finish(found, file, Path(image_folder), check_images, require_objects)
        except DataError:
            kind = other_kind(file)
            if kind is None:
                raise
            raise DataError(f"{file} is {kind}.") from None

    @staticmethod
    def from_content(
        content: dict[str, Any],
        *,
        source: Path,
        image_folder: Path,
        check_images: bool = True,
        require_objects: bool = True,
    ) -> "CocoIndex":
        """Check and pack what a reader of another format has read.

        Args:
            content: as the JSON of a COCO file: lists of `images`, `annotations` and `categories`.
            source: the file or folder that it comes from, named in messages.
            image_folder: folder the file names are relative to.
            check_images: check that every picture exists.
            require_objects: refuse content without a single usable object.

        Returns:
            the index, the same as of a file with this content.

        Raises:
            DataError: see `load`.
        """
        found = _packed(source, dict(content) if isinstance(content, dict) else content, None, require_objects)
        return _finish(found, source, image_folder, check_images, require_objects)

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names by contiguous label."""
        return tuple(self.categories.values())

    @property
    def category_ids(self) -> tuple[int, ...]:
        """Category ids by contiguous label."""
        return tuple(self.categories)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.categories)

    @property
    def num_instances(self) -> int:
        """Number of usable instances, crowd regions included."""
        return len(self.labels)

    @property
    def has_masks(self) -> bool:
        """Whether any instance has a mask."""
        return bool((self.polygon_counts > 0).any())

    @property
    def missing(self) -> dict[str, str]:
        """What there is no truth of: the IoU types that cannot be evaluated, and what each lacks."""
        if not self.num_instances:
            return dict.fromkeys(("bbox", "segm", "keypoints"), "objects")
        masks = {} if self.has_masks else {"segm": "masks ('segmentation')"}
        return masks | ({} if self.skeleton else {"keypoints": "keypoints"})

    def path(self, position: int) -> Path:
        """Path of the picture at a position; a picture in memory has a name alone.

        Raises:
            DataError: its name leads out of the folder that the image folder lies in.
        """
        name = str(self.file_names[position])
        if not stays_inside(self.image_folder, name):
            raise DataError(
                f"{self.annotation_file}: 'file_name' of image {self.image_ids[position]} leads out of the data folder "
                f"({some([name])}). Put the picture into it."
            )
        return self.image_folder / name

    def image(self, position: int) -> np.ndarray:
        """Read the picture at a position, from its file or from memory (see `load_image`).

        Args:
            position: 0 .. I - 1.

        Returns:
            uint8 `[h, w, 3]` RGB.

        Raises:
            DataError: it cannot be read, or has another size than the annotations say.
        """
        size = int(self.heights[position]), int(self.widths[position])
        held = None if self.pictures is None else self.pictures.file(position)
        path = self.path(position)
        if held is None:
            return load_image(path, size=size, exif=self.exif)
        return decode_image(held, path, size=size, exif=self.exif)

    def instances(self, position: int) -> slice:
        """Slice of the instance arrays that belong to the image at a position."""
        return slice(int(self.image_instances[position]), int(self.image_instances[position + 1]))

    def position(self, image_id: int) -> int:
        """Find the position of an image.

        Args:
            image_id: the data set's own id.

        Returns:
            its position, 0 .. I - 1.

        Raises:
            DataError: no image has this id.
        """
        found = int(np.searchsorted(self.image_ids, image_id))
        if found == len(self) or self.image_ids[found] != image_id:
            raise DataError(f"{self.annotation_file} has no image with id {image_id}.")
        return found

    def image_size(self, image_id: int) -> tuple[int, int]:
        """Look up the size of an image.

        Args:
            image_id: the data set's own id.

        Returns:
            (height, width) in pixels.

        Raises:
            DataError: no image has this id.
        """
        position = self.position(image_id)
        return int(self.heights[position]), int(self.widths[position])

    def of_images(self, image_ids: Iterable[int]) -> "CocoIndex":
        """Take some of the images, with their objects and all categories.

        Args:
            image_ids: the data set's own ids, in any order.

        Raises:
            DataError: no image has one of the ids.
        """
        positions = np.array([self.position(i) for i in sorted(set(image_ids))], dtype=np.int64)
        rows, image_instances = take_groups(self.image_instances, positions)
        by_image = ("image_ids", "heights", "widths", "file_names")
        by_row = ("annotation_ids", "boxes", "labels", "crowd", "areas", "file_boxes", "masks", "keypoints")
        return replace(
            self,
            image_instances=image_instances,
            federation=None if self.federation is None else self.federation.of_images(positions),
            pictures=None if self.pictures is None else self.pictures.of_images(positions.tolist()),
            remarks=(),  # which are about the whole
            **{name: getattr(self, name)[positions] for name in by_image},
            **{name: getattr(self, name)[rows] for name in by_row},
        )

    @cached_property
    def edge_counts(self) -> np.ndarray:
        """Line segments per instance mask, independent of scale: int64 `[N]`, 0 where there is no mask."""
        m = self.masks
        counts = m.polygon_points[m.instance_polygons[1:]] - m.polygon_points[m.instance_polygons[:-1]]
        image_of = np.repeat(np.arange(len(self)), np.diff(self.image_instances))
        for n in np.flatnonzero(np.diff(m.instance_runs)):
            runs = m.runs[m.instance_runs[n] : m.instance_runs[n + 1]]
            counts[n] = len(runs_to_edges(runs, int(self.heights[image_of[n]])))
        return counts

    @cached_property
    def polygon_counts(self) -> np.ndarray:
        """Polygons per instance mask: int64 `[N]`; a run-length mask counts as one."""
        m = self.masks
        return np.where(np.diff(m.instance_runs) > 0, 1, np.diff(m.instance_polygons))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the content: images, categories, objects. Equal for equal data wherever it lies."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(repr(list(self.categories.items())).encode())
        digest.update("\n".join(self.file_names.tolist()).encode())
        m = self.masks
        for array in (
            self.image_ids, self.heights, self.widths, self.image_instances, self.annotation_ids, self.boxes,
            self.labels, self.crowd, m.instance_polygons, m.polygon_points, m.points, m.instance_runs, m.runs,
            self.keypoints,
        ):  # fmt: skip
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        """Pack the arrays as tensors in shared memory, so that processes started by `spawn` do not copy them."""
        return pack(self.__dict__)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(unpack(state))


def _packed(file: Path, content: Any, table: Any, require_objects: bool) -> dict[str, Any]:
    """Pack a file's content, boxes and masks read as what they are: all that follows from the file alone."""
    found = pack_content(file, content, table, require_objects)
    count = found.pop("num_annotations")
    index = with_agreeing_geometry(CocoIndex(annotation_file=file, image_folder=Path(), **found))
    return {**{name: getattr(index, name) for name in found}, "num_annotations": count}


def _finish(
    found: dict[str, Any], source: Path, image_folder: Path, check_images: bool, require_objects: bool
) -> CocoIndex:
    """Make an index of what a reader has packed."""
    count = found.pop("num_annotations")
    if check_images:
        remarks: list[Remark] = []
        names, ids = found["file_names"], found["image_ids"]
        found["file_names"] = find_pictures(source, image_folder, names, ids, remarks)
        # Names of our own making are no news.
        ours = any(remark.kind == "picture_address" for remark in found["remarks"])
        found["remarks"] = (*found["remarks"], *(remark for remark in remarks if not ours))
    if require_objects and found["crowd"].all():
        none = "none with a usable box that is no crowd"
        what = f"{counted(count, 'annotation')}, but {none}" if count else "no annotation"
        raise DataError(f"{source} has no object to learn from or evaluate on: {what}. Check how it was exported.")
    index = CocoIndex(annotation_file=source, image_folder=image_folder, **found)
    if check_images:
        refuse_swapped_sizes(index)
    log_remarks(source, index.remarks)
    return index


def check_same_categories(train: CocoIndex, val: CocoIndex) -> None:
    """Refuse two splits whose categories differ, which would make the evaluation meaningless.

    Args:
        train: the split trained on.
        val: the split evaluated on.

    Raises:
        DataError: lists every id or name that differs.
    """
    differences = []
    for category in sorted(set(train.categories) | set(val.categories)):
        first, second = train.categories.get(category), val.categories.get(category)
        if first != second:
            differences.append(f"id {category}: {_quote(first)} in the first, {_quote(second)} in the second")
    if differences:
        shown = "; ".join(differences[:10]) + ("; ..." if len(differences) > 10 else "")
        raise DataError(
            f"{train.annotation_file} and {val.annotation_file} have different categories ({shown}). "
            "Give both files the same list of categories."
        )


def _quote(name: str | None) -> str:
    return "missing" if name is None else f"'{name}'"
