"""The whole check of a data set, from its folder to findings."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from det_coco.annotations import CocoIndex
from det_coco.doctor.box_forms import check_form
from det_coco.doctor.boxes import check_boxes, check_copies, check_twins
from det_coco.doctor.classes import check_balance, check_categories, check_images
from det_coco.doctor.duplicates import check_duplicates
from det_coco.doctor.files import annotated_sizes, check_files, locate, unlisted
from det_coco.doctor.findings import Case, Finding, ranked, summarize
from det_coco.doctor.inspection import Job, Seen, inspect_all
from det_coco.doctor.keypoints import check_keypoints
from det_coco.doctor.mask_facts import gather
from det_coco.doctor.masks import check_areas, check_forms, check_masks
from det_coco.doctor.mending import changes_for, mend
from det_coco.doctor.outliers import check_extremes, check_labels
from det_coco.doctor.records import Records
from det_coco.doctor.sources import open_records
from det_coco.errors import DataError
from det_coco.layout import find_splits

# What the checks find by themselves, and more exactly.
_CHECKED = frozenset(
    {
        "box_dropped", "box_clipped", "crowd_share", "area_wrong", "area_missing", "file_name", "keypoint_count",
        "picture_address",
    }
)  # fmt: skip
# What other formats do not have.
_OF_COCO = frozenset({"missing_area", "missing_annotation_id"})


@dataclass(frozen=True, kw_only=True)
class Checkup:
    """What a data set is, and what is wrong with it.

    Attributes:
        root: the data set.
        splits: its splits as their files have them, those that can be read.
        indexes: the same by name as training would see them, once the changes of the findings are made; those that
            can be read then.
        findings: the most expensive first.
        paths: where the pictures are, for each split in the order of its images; an empty text where one is missing.
    """

    root: Path
    splits: Sequence[Records] = field(repr=False)
    paths: Sequence[Sequence[str]] = field(repr=False)
    indexes: Mapping[str, CocoIndex] = field(repr=False)
    findings: Sequence[Finding]

    @property
    def status(self) -> int:
        """Exit status: 0 clean, 1 findings, 2 a split that cannot be read."""
        if any(finding.kind == "unreadable_split" for finding in self.findings):
            return 2
        return 1 if self.findings else 0


def check_data(root: str | Path, *, workers: int = 0, keypoints: bool = False) -> Checkup:
    """Read a whole data set, pictures included, and find what is wrong with it.

    Nothing is written. A record that is wrong does not hide the others.

    Args:
        root: folder or file of any format that can be read.
        workers: processes that read the pictures; 0 reads them in this one.
        keypoints: as for `find_splits`.

    Returns:
        what was found.

    Raises:
        DataError: there is no data set, or `workers` is negative.
    """
    if workers < 0:
        raise DataError(f"The number of workers must be 0 or more, got {workers}.")
    splits, findings = [], []
    for name, source in find_splits(root, keypoints=keypoints).items():
        try:
            splits.append(open_records(name, source))
        except DataError as error:
            findings.append(_unreadable(name, str(error)))
    paths = [locate(records) for records in splits]
    seen = _inspect(splits, paths, workers)
    for records, found, located in zip(splits, seen, paths, strict=True):
        cases = _check_split(records, found, located)
        findings += summarize((c for c in cases if records.is_coco or c.kind not in _OF_COCO), records.name)
    findings += _across(splits, seen, paths)
    indexes = {}
    for records in splits:
        try:
            indexes[records.name] = _index(records, ranked(findings))
        except DataError as error:
            findings.append(_unreadable(records.name, f"Also after all changes: {error}"))
    findings += [f for name, index in indexes.items() for f in summarize(_remarks(index), name)]
    return Checkup(root=Path(root), splits=splits, paths=paths, indexes=indexes, findings=ranked(findings))


def _inspect(splits: Sequence[Records], paths: Sequence[list[str]], workers: int) -> list[list[Seen]]:
    jobs = [
        Job(
            path=path,
            picture=records.held.get(int(records.image_rows[position])),
            size=tuple(records.sizes[position].tolist()),
            boxes=records.boxes[rows],
            segmentations=[records.record(n).get("segmentation") for n in rows.tolist()],
        )
        for records, located in zip(splits, paths, strict=True)
        for position, (rows, path) in enumerate(zip(records.by_image(), located, strict=True))
    ]
    seen = iter(inspect_all(jobs, workers))
    return [[next(seen) for _ in records.image_ids] for records in splits]


def _check_split(records: Records, seen: list[Seen], paths: list[str]) -> Iterator[Case]:
    groups = records.by_image()
    masks = gather(groups, [picture.masks for picture in seen])
    sizes = annotated_sizes(records, seen)[records.image]
    yield from records.cases
    yield from check_files(records, seen, paths)
    form = check_form(records, sizes, masks.boxes)
    yield from form
    yield from check_boxes(records, sizes, masks.boxes)
    yield from check_masks(records, masks, sizes)
    if not form:  # else areas are in the same strange unit
        yield from check_areas(records, masks)
    yield from check_forms(records, masks)
    yield from check_twins(records, masks.areas)
    yield from check_copies(records, [picture.digest for picture in seen])
    yield from check_keypoints(records, sizes)
    yield from check_categories(records)
    if records.labelled:
        yield from check_images(records)
    yield from check_extremes(records)
    with np.errstate(divide="ignore", invalid="ignore"):
        fills = (masks.areas / records.boxes[:, 2:].prod(axis=1)).clip(0, 2)  # more where the box is wrong
    yield from check_labels(records, seen, fills)


def _across(splits: Sequence[Records], seen: Sequence[list[Seen]], paths: Sequence[list[str]]) -> list[Finding]:
    if not splits:
        return []
    cases: dict[str, list[Case]] = {}
    for names, case in (
        *check_duplicates(splits, seen),
        *check_balance([records for records in splits if records.labelled]),
    ):
        cases.setdefault(names, []).append(case)
    used = {Path(path).resolve() for located in paths for path in located if path}
    for folder in dict.fromkeys(records.folder for records in splits):
        names = ", ".join(records.name for records in splits if records.folder == folder)
        for name in unlisted(folder, used):
            cases.setdefault(names, []).append(
                Case(kind="unlisted_picture", detail=f"{name} is in {folder}", files=(name,))
            )
    return [finding for names, found in cases.items() for finding in summarize(found, names)]


def _index(records: Records, findings: Sequence[Finding]) -> CocoIndex:
    return CocoIndex.from_content(
        mend(records.content, changes_for(records.name, findings)),
        source=records.file,
        image_folder=records.folder,
        check_images=not records.held,
        require_objects=False,
    )


def _remarks(index: CocoIndex) -> Iterator[Case]:
    for remark in index.remarks:
        if remark.kind not in _CHECKED:
            detail = remark.message.rstrip(".")
            yield Case(kind="remark", detail=detail, annotation_ids=remark.annotation_ids)


def _unreadable(split: str, message: str) -> Finding:
    return summarize([Case(kind="unreadable_split", detail=message.rstrip("."))], split)[0]
