"""Pictures that are the same, or nearly so, within a split and across splits.

Nearly the same: the grey thumbnails of 32 x 32 pixels correlate, and what remains after fitting brightness and contrast
is small everywhere, so that a moved object tells two pictures of one scene apart. Mirrored copies count too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from det_coco.doctor.findings import Case, Change
from det_coco.doctor.inspection import Seen
from det_coco.doctor.records import Records

_COARSE, _FINE = 0.97, 0.985
"""Least correlation of thumbnails of 8 and of 32 pixels. Of 480 photographs (115 thousand pairs) two different ones
come up to 0.86; copies saved as JPEG at quality 40, at half the size or brighter by a tenth stay above 0.989."""
_RESIDUE = 20.0
"""Grey values that no cell of 32 x 32 may be off."""
_FLAT = 4.0
"""Standard deviation in grey values below which a picture has nothing to compare."""
_BLOCK = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class _Picture:
    split: int
    position: int


def check_duplicates(splits: Sequence[Records], seen: Sequence[list[Seen]]) -> Iterator[tuple[str, Case]]:
    """Find groups of pictures that are the same; gives the name of the split or splits, and the case.

    Args:
        splits: the splits.
        seen: the pictures of each.
    """
    pictures = [_Picture(split=s, position=p) for s, found in enumerate(seen) for p in range(len(found))]
    facts = [seen[p.split][p.position] for p in pictures]
    readable = [k for k, fact in enumerate(facts) if not fact.error]
    exact: dict[bytes, list[int]] = {}
    for k in readable:
        exact.setdefault(facts[k].digest, []).append(k)
    for group in exact.values():
        if len(_files(splits, pictures, group)) > 1:
            yield _case(splits, pictures, group, near="")
    single = [group[0] for group in exact.values()]
    thumbs = np.array([facts[k].thumb for k in single], dtype=np.float32)
    for group, mirrored in _groups(near_pairs(thumbs)):
        near = "nearly mirror images of each other" if mirrored else "nearly the same picture"
        yield _case(splits, pictures, [single[n] for n in group], near=near)


def near_pairs(thumbs: np.ndarray) -> list[tuple[int, int, bool]]:
    """Find pairs of pictures that are nearly the same.

    Args:
        thumbs: float32 `[K, 32, 32]` grey values.

    Returns:
        (first, second, whether one is the mirror of the other), first < second.
    """
    usable = np.flatnonzero(thumbs.std(axis=(1, 2)) >= _FLAT) if len(thumbs) else np.zeros(0, dtype=np.int64)
    thumbs = thumbs[usable]
    fine = thumbs.reshape(len(thumbs), 1024)
    coarse = _normalized(thumbs.reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4)).reshape(-1, 64))
    pairs = []
    for mirrored in (False, True):
        others = coarse.reshape(-1, 8, 8)[:, :, ::-1].reshape(-1, 64) if mirrored else coarse
        for start in range(0, len(coarse), _BLOCK):
            first, second = np.nonzero(coarse[start : start + _BLOCK] @ others[start:].T >= _COARSE)
            for a, b in zip((first + start).tolist(), (second + start).tolist(), strict=True):
                if a < b and _is_near(fine[a], thumbs[b, :, ::-1].ravel() if mirrored else fine[b]):
                    pairs.append((int(usable[a]), int(usable[b]), mirrored))
    return pairs


def _normalized(rows: np.ndarray) -> np.ndarray:
    centred = rows - rows.mean(axis=1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)


def _is_near(a: np.ndarray, b: np.ndarray) -> bool:
    a, b = a - a.mean(), b - b.mean()
    product = float(a @ b)
    if product < _FINE * float(np.sqrt((a @ a) * (b @ b))):
        return False
    return bool(np.abs(b - product / float(a @ a) * a).max() <= _RESIDUE)


def _groups(pairs: list[tuple[int, int, bool]]) -> Iterator[tuple[list[int], bool]]:
    """Join pairs that share a picture; a group is mirrored where all its pairs are."""
    parent: dict[int, int] = {}

    def root(n: int) -> int:
        while parent.setdefault(n, n) != n:
            parent[n] = n = parent[parent[n]]
        return n

    for a, b, _ in pairs:
        parent[root(b)] = root(a)
    groups: dict[int, list[int]] = {}
    for n in parent:
        groups.setdefault(root(n), []).append(n)
    plain = {root(a) for a, _, mirrored in pairs if not mirrored}
    yield from ((sorted(group), root(group[0]) not in plain) for group in groups.values())


def _files(splits: Sequence[Records], pictures: list[_Picture], group: list[int]) -> set[tuple[int, str]]:
    """What is listed twice under one name is another finding."""
    return {(pictures[k].split, splits[pictures[k].split].file_names[pictures[k].position]) for k in group}


def _case(splits: Sequence[Records], pictures: list[_Picture], group: list[int], near: str) -> tuple[str, Case]:
    members = [pictures[k] for k in group]
    involved = sorted({member.split for member in members})
    across = len(involved) > 1
    names = [(splits[m.split].name, splits[m.split].file_names[m.position]) for m in members]
    shown = [f"{split}/{name}" if across else name for split, name in names]
    more = f" and {len(shown) - 4} more" if len(shown) > 4 else ""
    kind = {False: ("duplicate_picture", "near_duplicate_picture"), True: ("leakage", "near_leakage")}[across]
    case = Case(
        kind=kind[bool(near)],
        detail=f"{' and '.join(shown[:4])}{more} are {near or 'the same picture'}",
        files=tuple(dict.fromkeys(name for _, name in names)),
        fix=_fix(splits, members, across) if across or not near else (),
    )
    return ", ".join(splits[number].name for number in involved), case


def _fix(splits: Sequence[Records], members: list[_Picture], across: bool) -> tuple[Change, ...]:
    """Take out all but the one that is kept: what is evaluated stays, or else what has the most annotations."""

    def objects(member: _Picture) -> int:
        return int((splits[member.split].image == member.position).sum())

    if across:
        home = max(
            (m.split for m in members), key=lambda split: (_is_held_out(splits[split]), -len(splits[split].rows))
        )
        gone = [member for member in members if member.split != home]
    else:
        kept = max(members, key=objects)
        gone = [member for member in members if member is not kept]
    return tuple(
        {**change, "split": splits[member.split].name}
        for member in gone
        for change in splits[member.split].drop_image(member.position)
    )


def _is_held_out(records: Records) -> bool:
    return records.name.startswith(("val", "test"))
