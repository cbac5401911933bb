"""Held-out images of a data set that comes in one piece, chosen by their names alone."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from det_coco.annotations import CocoIndex
from det_coco.errors import DataError

SHARE, MOST = 0.2, 5000
"""Share of the images that is held out, and the most images, as many as COCO's val2017 has."""

_LEAST_GROUPS = 5
# A number at the end of a name, perhaps with what it counts: video_0001, scan-12_r3_c4, slide_0_512_512_1024. Nothing
# is tried again (++), so that the time is bounded for any name.
_NUMBER = r"(?:[ _.\-(]*+(?:frame|tile|patch|crop|slice|row|col|(?<=[ _.\-])[rcxyzft])?+[ _.\-]*+\d++\)?+)"
# Roboflow names its copies of a picture <name>_<suffix>.rf.<number>.
_COPY = re.compile(r"_[a-z]{3,4}\.rf\..*$", re.IGNORECASE)
# How many numbers stand for a place in a series: all; corners of a tile; its row and column; that of a frame; none.
_LEVELS = tuple(re.compile(rf"{_NUMBER}{{0,{most}}}$", re.IGNORECASE) for most in (99, 4, 2, 1, 0))


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOut:
    """A data set in two parts.

    Attributes:
        train: the images to learn from.
        val: the images held out.
        rule: how they were told apart, as a part of a sentence.
    """

    train: CocoIndex
    val: CocoIndex
    rule: str


def hold_out(index: CocoIndex) -> HeldOut:
    """Split a data set by image: a fifth, and at most 5,000 images, are held out.

    The choice follows from the file names alone, whatever their order. Where the names form series (`street_0001.jpg`,
    `street_0002.jpg`; tiles of one picture; Roboflow's copies of one picture), a series is never split, unless the
    series are too few or too large for that, or one part would lack a class.

    Args:
        index: all images.

    Returns:
        both parts.

    Raises:
        DataError: there are fewer than two images.
    """
    names = index.file_names.tolist()
    if len(set(names)) < 2:
        raise DataError(
            f"{index.annotation_file} has one image, which cannot be split into images to learn from and held-out "
            "ones. Add images, or name other ones to evaluate on."
        )
    wanted = min(MOST, max(1, round(SHARE * len(names))))
    chosen, rule = np.isin(index.file_names, sorted(set(names), key=_draw)[:wanted]), "image by image"
    for level in _LEVELS:
        series = defaultdict(list)
        for position, name in enumerate(names):
            series[_series(name, level)].append(position)
        held = _whole_series(index, series, wanted)
        if held is not None:
            chosen, rule = np.isin(np.arange(len(names)), held), f"by series of names ({len(series)} in all)"
            break
    train, val = (index.of_images(index.image_ids[part].tolist()) for part in (~chosen, chosen))
    return HeldOut(train=train, val=val, rule=rule)


def _series(name: str, numbers: re.Pattern[str]) -> str:
    """What a picture is one of many of: its name without numbers at the end; its folder where no more is left."""
    folder, _, file = name.replace("\\", "/").rpartition("/")
    stem = _COPY.sub("", file) if ".rf." in file else file.rpartition(".")[0] or file
    start = numbers.sub("", stem)
    return f"{folder}/{start}" if start or folder else name


def _draw(name: str) -> bytes:
    """A number that follows from a name and has nothing else to do with it."""
    return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _whole_series(index: CocoIndex, series: dict[str, list[int]], wanted: int) -> Sequence[int] | None:
    """Positions of about as many images as wanted, in whole series; None where names or series do not allow that."""
    sizes = [len(members) for members in series.values()]
    if len(series) < _LEAST_GROUPS or max(sizes) == 1 or max(sizes) > len(index) / 2:
        return None
    held: list[int] = []
    for name in sorted(series, key=_draw):
        if len(held) + len(series[name]) <= wanted:
            held += series[name]
    if len(held) < wanted / 2:
        return None
    image_of = np.repeat(np.arange(len(index)), np.diff(index.image_instances))
    is_held = np.isin(image_of, held)
    learnt, tested = (set(index.labels[part].tolist()) for part in (~is_held, is_held))
    return held if tested <= learnt and len(tested) > len(learnt) / 2 else None
