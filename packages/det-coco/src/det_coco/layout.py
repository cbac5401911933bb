"""Where the annotation files and pictures of a data set are."""

from dataclasses import dataclass
from pathlib import Path

from det_coco.annotations import CocoIndex
from det_coco.errors import DataError

_PREFIX, _KEYPOINTS_PREFIX = "instances_", "person_keypoints_"


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """One split of a data set.

    Attributes:
        name: what follows `instances_` in the file name, for example val2017.
        annotation_file: `<root>/annotations/instances_<name>.json`, or `person_keypoints_<name>.json`.
        image_folder: `<root>/<name>` or `<root>/images/<name>`; `<root>/images` where neither exists.
    """

    name: str
    annotation_file: Path
    image_folder: Path


def find_splits(root: str | Path, *, keypoints: bool = False) -> dict[str, Split]:
    """Find the splits of a data set in the COCO layout.

    Args:
        root: folder with `annotations/instances_<split>.json` and the folders of pictures.
        keypoints: take `annotations/person_keypoints_<split>.json` where there is one, as COCO 2017 has it.

    Returns:
        split name -> where it is, by name.

    Raises:
        DataError: the folder does not exist or holds no annotation file.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"The data directory {root} does not exist.")
    folder = root / "annotations"
    files: dict[str, Path] = {}
    for prefix in (_KEYPOINTS_PREFIX, _PREFIX) if keypoints else (_PREFIX,):
        for file in sorted(folder.glob(f"{prefix}*.json")):
            files.setdefault(file.stem.removeprefix(prefix), file)
    if not files:
        raise DataError(
            f"{root} is not a COCO data set: it has no {folder.name}/{_PREFIX}<split>.json. Expected, as in COCO 2017: "
            f"{folder.name}/{_PREFIX}train2017.json, {folder.name}/{_PREFIX}val2017.json, train2017/, val2017/."
        )
    splits = {}
    for name, file in sorted(files.items()):
        candidates = [root / name, root / "images" / name, root / "images"]
        image_folder = next((c for c in candidates if c.is_dir()), candidates[0])
        splits[name] = Split(name=name, annotation_file=file, image_folder=image_folder)
    return splits


def default_splits(root: str | Path, *, keypoints: bool = False) -> tuple[str, str]:
    """Name the splits to train and to evaluate on: train2017 and val2017, else train and val.

    Args:
        root: as for `find_splits`.
        keypoints: as for `find_splits`.

    Returns:
        (train, val).

    Raises:
        DataError: neither pair is there; lists the splits that are.
    """
    splits = find_splits(root, keypoints=keypoints)
    for pair in (("train2017", "val2017"), ("train", "val")):
        if pair[0] in splits and pair[1] in splits:
            return pair
    raise DataError(
        f"{root} has neither the splits train2017 and val2017 nor train and val (it has: {', '.join(splits)}). "
        "Name the splits to use."
    )


def load_split(root: str | Path, split: str, *, keypoints: bool = False, **options: bool) -> CocoIndex:
    """Load one split of a data set.

    Args:
        root: as for `find_splits`.
        split: the split's name.
        keypoints: as for `find_splits`.
        **options: passed on to `CocoIndex.load`.

    Returns:
        its index.

    Raises:
        DataError: there is no such split (lists those there are), or its content is wrong.
    """
    splits = find_splits(root, keypoints=keypoints)
    if split not in splits:
        raise DataError(f"{root} has no split '{split}' (it has: {', '.join(splits)}).")
    found = splits[split]
    return CocoIndex.load(found.annotation_file, found.image_folder, **options)
