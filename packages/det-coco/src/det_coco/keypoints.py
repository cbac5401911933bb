"""What the keypoints of a data set are: their names, limbs, mirror images and tolerances.

`J` keypoints an instance.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

# Ten times the standard deviation of a person's annotations, as a fraction of the root of its area (pycocotools
# `Params.setKpParams`, which divides by ten as well: the same bits).
_COCO_SIGMAS = {
    "nose": 0.26, "eye": 0.25, "ear": 0.35, "shoulder": 0.79, "elbow": 0.72, "wrist": 0.62, "hip": 1.07, "knee": 0.87,
    "ankle": 0.89,
}  # fmt: skip
# Mean of COCO's seventeen keypoints.
_OTHER_SIGMA = 0.67
_COCO_NAMES = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
_COCO_LIMBS = (
    (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10),
    (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
)  # fmt: skip
_SIDE = re.compile(r"left|right|(?<![a-z])[lr](?![a-z])", re.IGNORECASE)
_OTHER_SIDE = {"left": "right", "right": "left", "l": "r", "r": "l"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Skeleton:
    """The keypoints that the instances of a data set have.

    `CocoIndex.skeleton` is read from the annotation file by `Skeleton.from_names`; what is derived there can be
    replaced: `dataclasses.replace(index, skeleton=dataclasses.replace(index.skeleton, sigmas=...))`.

    Attributes:
        names: J names, in the order of the annotations.
        limbs: pairs of keypoint numbers, from 0, that a line joins in pictures.
        flip_indices: J numbers; keypoint j of a mirrored picture is keypoint `flip_indices[j]` of the original.
        sigmas: J tolerances of the object keypoint similarity, as fractions of the root of an object's area.
    """

    names: tuple[str, ...]
    limbs: tuple[tuple[int, int], ...]
    flip_indices: tuple[int, ...]
    sigmas: tuple[float, ...]

    def __post_init__(self) -> None:
        count = len(self.names)
        if len(set(self.names)) != count:
            raise ValueError(f"names must differ from each other, got {self.names}.")
        if any(not 0 <= end < count for limb in self.limbs for end in limb):
            raise ValueError(f"limbs must be pairs of numbers from 0 to {count - 1}, got {self.limbs}.")
        if sorted(self.flip_indices) != list(range(count)):
            raise ValueError(f"flip_indices must hold each number from 0 to {count - 1} once, got {self.flip_indices}.")
        if len(self.sigmas) != count or not all(sigma > 0 for sigma in self.sigmas):
            raise ValueError(f"sigmas must be {count} positive numbers, got {self.sigmas}.")

    @staticmethod
    def from_names(names: Sequence[str], limbs: Sequence[tuple[int, int]] = ()) -> "Skeleton":
        """Derive what changes places in a mirror, and the tolerances, from the keypoints' names.

        A name with `left` changes places with the name that has `right` there (also `l` and `r` as a word of their
        own: `L_eye`, `r-eye`), any other keypoint stays itself. Keypoints named as COCO's (`left_eye`, `eye_L`, `nose`)
        have COCO's sigmas, all others 0.067, the mean of COCO's seventeen.

        Args:
            names: J names.
            limbs: pairs of keypoint numbers, from 0.

        Returns:
            the skeleton.

        Raises:
            ValueError: two keypoints have the same name, or a limb joins a number that no keypoint has.
        """
        place = {name.casefold(): k for k, name in enumerate(names)}
        return Skeleton(
            names=tuple(names),
            limbs=tuple(limbs),
            flip_indices=tuple(place.get(_other_side(name), k) for k, name in enumerate(names)),
            sigmas=tuple(_COCO_SIGMAS.get(_without_side(name), _OTHER_SIGMA) / 10 for name in names),
        )


def _other_side(name: str) -> str:
    return _SIDE.sub(lambda side: _OTHER_SIDE[side.group().lower()], name).casefold()


def _without_side(name: str) -> str:
    return _SIDE.sub("", name).strip(" _-").casefold()


def usual_limbs(count: int) -> tuple[tuple[int, int], ...]:
    """Limbs of keypoints of which only the number is known: COCO's, which has 17 of a person; else none.

    Args:
        count: keypoints of an object.

    Returns:
        Pairs of keypoint numbers, from 0, that a line joins in pictures.
    """
    return _COCO_LIMBS if count == len(_COCO_NAMES) else ()


def usual_names(count: int) -> tuple[str, ...]:
    """Names of keypoints of which only the number is known: COCO's, which has 17 of a person; else numbers from 1.

    Args:
        count: keypoints of an object.
    """
    return _COCO_NAMES if count == len(_COCO_NAMES) else tuple(str(number) for number in range(1, count + 1))
