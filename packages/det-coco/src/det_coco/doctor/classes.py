"""Checks of categories, of what each split has of them, and of splits against each other."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from det_coco._describe import some
from det_coco.doctor.findings import Case
from det_coco.doctor.records import Records

_FEW = 10
"""Objects below which one of them is more than a tenth of a class's recall."""
_BACKGROUND = frozenset({"background", "_background_", "__background__", "bg"})


def check_categories(records: Records) -> Iterator[Case]:
    """Check the names of the categories of one split."""
    by_name: dict[str, list[int]] = defaultdict(list)
    by_look: dict[str, list[str]] = defaultdict(list)
    for number, name in records.categories.items():
        by_name[name].append(number)
    for name in by_name:
        by_look["".join(name.lower().replace("_", " ").replace("-", " ").split())].append(name)
    for name, ids in by_name.items():
        if len(ids) > 1:
            yield Case(kind="duplicate_category_name", detail=f"categories {some(ids)} are all called {name!r}")
    for names in by_look.values():
        if len(names) > 1:
            detail = " and ".join(f"{name!r} (id {by_name[name][0]})" for name in names)
            yield Case(kind="similar_category_names", detail=detail)
    for number, name in records.categories.items():
        if name.strip().lower() in _BACKGROUND:
            inside = np.flatnonzero(records.category == number)
            detail = f"category {number} is called {name!r}, {len(inside):,} annotations are of it"
            yield Case(kind="background_category", detail=detail, annotation_ids=_ids(records, inside))


def check_images(records: Records) -> Iterator[Case]:
    """Find images without objects."""
    filled = np.bincount(records.image, minlength=len(records.image_ids))
    for position in np.flatnonzero(filled == 0).tolist():
        name = records.file_names[position]
        yield Case(kind="image_without_objects", detail=f"{name} has none", files=(name,))


def object_counts(records: Records) -> dict[int, int]:
    """Objects of each category, crowd regions left out."""
    numbers, counts = np.unique(records.category[~records.crowd], return_counts=True)
    found = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
    return {number: found.get(number, 0) for number in records.categories}


def check_balance(splits: Sequence[Records]) -> Iterator[tuple[str, Case]]:
    """Check what the splits have of each class; gives the name of the split or splits, and the case."""
    if not splits:
        return
    counts = {records.name: object_counts(records) for records in splits}
    names = ", ".join(counts)
    yield from ((names, case) for case in _mismatches(splits))
    known = {number: name for records in splits for number, name in records.categories.items()}
    for number, name in sorted(known.items()):
        owned = {split: found.get(number, 0) for split, found in counts.items()}
        missing = " and ".join(split for split, count in owned.items() if not count)
        there = " and ".join(f"{count:,} in {split}" for split, count in owned.items() if count)
        if not there:
            yield names, Case(kind="unused_category", detail=f"{name!r} (id {number})")
        elif missing:
            detail = f"{name!r} has {there}, none in {missing}"
            yield names, _about("class_in_one_split", detail, number, splits)
    trained = max(splits, key=lambda records: (records.name.startswith("train"), len(records.rows)))
    for number, count in counts[trained.name].items():
        if 0 < count < _FEW:
            detail = f"{trained.categories[number]!r} has {count}"
            yield trained.name, _about("few_objects", detail, number, [trained])


def _about(kind: str, detail: str, number: int, splits: Sequence[Records]) -> Case:
    """A case of all objects of a category in some splits."""
    owned = [(records, np.flatnonzero((records.category == number) & ~records.crowd)) for records in splits]
    files = dict.fromkeys(records.file_of(n) for records, rows in owned for n in rows.tolist())
    ids = tuple(number for records, rows in owned for number in _ids(records, rows))
    return Case(kind=kind, detail=detail, files=tuple(files), annotation_ids=ids)


def _mismatches(splits: Sequence[Records]) -> Iterator[Case]:
    first = splits[0]
    for other in splits[1:]:
        for number in sorted(set(first.categories) | set(other.categories)):
            names = first.categories.get(number), other.categories.get(number)
            if names[0] != names[1]:
                said = [f"{'missing' if name is None else repr(name)}" for name in names]
                detail = f"id {number} is {said[0]} in {first.name} and {said[1]} in {other.name}"
                yield Case(kind="category_mismatch", detail=detail)


def _ids(records: Records, rows: np.ndarray) -> tuple[object, ...]:
    return tuple(records.ids[n] for n in rows.tolist())
