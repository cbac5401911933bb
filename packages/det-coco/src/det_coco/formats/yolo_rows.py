"""The rows of YOLO's label files."""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from det_coco._describe import counted, some
from det_coco.errors import DataError
from det_coco.formats.content import box_around
from det_coco.formats.text import read_lines

# What is divided by the size of a picture and written with ten digits comes back as it was.
_DIGITS = 6
# Outlines and boxes may reach a little out of their picture; pixels are far from fractions.
_LEAST, _MOST = -0.5, 1.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """An object of a label file, in pixels.

    Attributes:
        line: its number, from 1.
        label: number of the class.
        box: x, y, width, height; around the outline where there is one.
        polygon: x, y, x, y, ... of an outline, or None.
        keypoints: x, y, visibility, x, ...; None where the row has none.
    """

    line: int
    label: int
    box: list[float]
    polygon: list[float] | None = None
    keypoints: list[float] | None = None


def read_rows(
    file: Path, size: tuple[int, int], labels: Collection[int], keypoints: tuple[int, int] | None = None
) -> Iterator[Row]:
    """Read a label file.

    Args:
        file: the text file.
        size: (height, width) of the picture in pixels.
        labels: numbers of the classes.
        keypoints: how many keypoints an object may have, and how many values each has; None: none.

    Yields:
        its rows.

    Raises:
        DataError: a row is no object; names the file and the line.
    """
    for number, line in read_lines(file):
        name = f"{file}, line {number}"
        label, *values = _numbers(name, line)
        if label not in labels:
            raise DataError(
                f"{name}: there is no class {label:g} (there are: {some(sorted(labels), 12)}). Add its name to the "
                "data set's list of names, or correct the row."
            )
        yield _row(name, number, int(label), values, size, keypoints)


def _numbers(name: str, line: str) -> list[float]:
    try:
        numbers = [float(word) for word in line.split()]
    except ValueError:
        raise DataError(f"{name} must hold numbers alone, got '{some([line.strip()])}'.") from None
    if not all(map(math.isfinite, numbers)):
        raise DataError(f"{name} has a number that is NaN or infinite.")
    return numbers


def _row(
    name: str,
    line: int,
    label: int,
    values: list[float],
    size: tuple[int, int],
    keypoints: tuple[int, int] | None,
) -> Row:
    count = len(values)
    posed = keypoints is not None and count == 4 + keypoints[0] * keypoints[1]
    if count != 4 and not posed and (count < 6 or count % 2):
        also = f", or x y width height and {keypoints[0]} keypoints of {keypoints[1]} values" if keypoints else ""
        hint = " A sixth number is the score of a prediction; ground truth has none." if count == 5 else ""
        raise DataError(
            f"{name} must hold a class and 4 numbers (x y width height of a box) or at least 6 (x y of each point of "
            f"an outline){also}; it has {counted(count, 'number')} after the class.{hint}"
        )
    height, width = size
    fractions = values[:4] if posed else values
    if not all(_LEAST <= value <= _MOST for value in fractions):
        raise DataError(
            f"{name} must hold fractions of the picture's width and height, from 0 to 1, but has "
            f"{next(v for v in fractions if not _LEAST <= v <= _MOST):g}. Divide x by the width and y by the height."
        )
    if not posed and count != 4:
        polygon = _pixels(values, width, height)
        return Row(line=line, label=label, box=box_around([polygon]), polygon=polygon)
    x, y, w, h = fractions
    box = _pixels((x - w / 2, y - h / 2, w, h), width, height)
    points = _keypoints(name, values[4:], keypoints[1], width, height) if posed and keypoints else None
    return Row(line=line, label=label, box=box, keypoints=points)


def _pixels(fractions: Sequence[float], width: int, height: int) -> list[float]:
    return [round(value * (height if k % 2 else width), _DIGITS) for k, value in enumerate(fractions)]


def _keypoints(name: str, values: list[float], each: int, width: int, height: int) -> list[float]:
    """Bring keypoints to x, y in pixels and visibility; without one, those at the origin are not labelled."""
    points: list[float] = []
    for place in range(0, len(values), each):
        x, y, *rest = values[place : place + each]
        visibility = rest[0] if rest else 2.0 * (x != 0 or y != 0)
        if visibility not in (0, 1, 2):
            raise DataError(f"{name}: the visibility of a keypoint must be 0, 1 or 2, got {visibility:g}.")
        points += [*_pixels((x, y), width, height), int(visibility)]
    return points
