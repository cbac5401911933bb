"""What a YOLO data set says of itself: `data.yaml`, darknet's `obj.data`, or a list of classes beside the folders."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from det_coco._describe import describe, kind
from det_coco.errors import DataError
from det_coco.formats.text import read_lines

# Keys of the file -> our names of the splits.
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_YAML = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")


@dataclass(frozen=True, kw_only=True)
class Description:
    """What is in a data set.

    Attributes:
        file: that says it.
        root: folder that paths are relative to.
        names: class number -> name.
        splits: split name -> folders, lists and pictures.
        keypoints: number of keypoints, and of the values of each; None: none.
        keypoint_names: of each keypoint.
    """

    file: Path
    root: Path
    names: dict[int, str]
    splits: dict[str, list[Path]]
    keypoints: tuple[int, int] | None = None
    keypoint_names: tuple[str, ...] = ()

    def categories(self) -> list[dict[str, Any]]:
        """Categories of COCO's JSON; class 0 has the id 1."""
        more = {"keypoints": list(self.keypoint_names)} if self.keypoints else {}
        return [{"id": number + 1, "name": name} | more for number, name in sorted(self.names.items())]


def description_file(path: Path) -> Path | None:
    """Find the file that describes a data set.

    Args:
        path: the file itself, or a folder.

    Returns:
        the file; None where there is none.
    """
    if path.is_file():
        return path if path.name == "obj.data" or _is_description(path) else None
    for file in (*(path / name for name in _YAML), *sorted(path.glob("*.y*ml"))):
        if file.is_file() and _is_description(file):
            return file
    if (path / "obj.data").is_file():
        return path / "obj.data"
    has_folders = (path / "images").is_dir() and (path / "labels").is_dir()
    classes = next((file for file in (path / "classes.txt", path / "labels" / "classes.txt") if file.is_file()), None)
    return classes if has_folders else None


def describe_data(file: Path) -> Description:
    """Read the file that describes a data set.

    Args:
        file: as `description_file` finds it.

    Returns:
        what it says.

    Raises:
        DataError: it cannot be read, or what it names is not there.
    """
    if file.suffix in (".yaml", ".yml"):
        return _from_yaml(file, _read_yaml(file))
    if file.name == "obj.data":
        return _from_darknet(file)
    root = file.parent.parent if file.parent.name == "labels" else file.parent
    images = root / "images"
    folders = {_SPLITS[entry.name]: [entry] for entry in sorted(images.iterdir()) if entry.name in _SPLITS}
    names = dict(enumerate(line for _, line in read_lines(file)))
    return Description(file=file, root=root, names=names, splits=folders or {"all": [images]})


def _is_description(file: Path) -> bool:
    """Tell the description of a data set from other YAML files, without a reader of YAML."""
    if file.suffix not in (".yaml", ".yml"):
        return False
    with file.open(encoding="utf-8", errors="replace") as stream:
        text = stream.read(1 << 20)
    return all(re.search(keys, text, re.MULTILINE) for keys in (r"^(train|val|test)\s*:", r"^(names|nc)\s*:"))


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        import yaml
    except ModuleNotFoundError:
        raise DataError(f"Reading {file} needs PyYAML: pip install 'det-coco[yolo]'.") from None
    text = file.read_bytes()
    try:
        # Aliases are how a small file becomes a huge one.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise DataError(f"{file} has aliases (*name). Write out what they stand for.")
        content = yaml.safe_load(text)
    except DataError:
        raise
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise DataError(f"{file} is not valid YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(content, dict):
        raise DataError(f"{file} must hold keys such as train, val and names, but it holds {kind(content)}.")
    return content


def _from_yaml(file: Path, content: Mapping[str, Any]) -> Description:
    entries: dict[str, list[str]] = {}
    for key, split in _SPLITS.items():
        if content.get(key):
            value = content[key]
            entries[split] = [str(entry) for entry in (value if isinstance(value, list) else [value])]
    roots = list(_roots(file, content.get("path")))
    root = next((root for root in roots if any(_find(root, e) for es in entries.values() for e in es)), roots[0])
    splits = {}
    for split, texts in entries.items():
        found = [(text, _find(root, text)) for text in texts]
        missing = [text for text, path in found if path is None]
        if missing and split != "test":  # which is often named without being there
            raise DataError(
                f"{file}: '{split}' names {missing[0]}, which is not in {root}. Correct it, or 'path', which it is "
                "relative to."
            )
        if not missing:
            splits[split] = [path for _, path in found if path is not None]
    shape = content.get("kpt_shape")
    keypoints = _keypoint_shape(file, shape) if shape is not None else None
    return Description(
        file=file,
        root=root,
        names=_names(file, content),
        splits=splits,
        keypoints=keypoints,
        keypoint_names=_keypoint_names(content, keypoints[0]) if keypoints else (),
    )


def _roots(file: Path, path: Any) -> Iterator[Path]:
    """Folders that paths may be relative to: Ultralytics' rule, for files that were moved together with the data."""
    if path:
        yield from (file.parent / str(path), Path(str(path)), file.parent.parent / str(path))
    yield file.parent


def _find(root: Path, text: str) -> Path | None:
    # Roboflow writes ../train/images for a folder beside the file; Ultralytics reads it so as well.
    candidates = [root / text, *([root / text[3:]] if text.startswith("../") else [])]
    return next((path for path in candidates if path.exists()), None)


# More would be a mistake, and take memory that the file does not explain.
_MOST_CLASSES = 100_000


def _names(file: Path, content: Mapping[str, Any]) -> dict[int, str]:
    names, count = content.get("names"), content.get("nc")
    if count is not None and not (type(count) is int and 0 < count <= _MOST_CLASSES):
        raise DataError(f"{file}: 'nc' must be a number of classes, 1 to {_MOST_CLASSES:,}, got {describe(count)}.")
    if names is None and count is not None:
        names = [f"class {number}" for number in range(count)]
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names or not all(type(k) is int and k >= 0 for k in names):
        raise DataError(f"{file}: 'names' must be a list of class names or number: name, got {describe(names)}.")
    if count is not None and len(names) != count:
        raise DataError(f"{file}: 'nc' says {count} classes, but 'names' has {len(names)}. Correct one.")
    return {number: str(name) for number, name in names.items()}


def _keypoint_shape(file: Path, shape: Any) -> tuple[int, int]:
    if not isinstance(shape, list) or [type(n) for n in shape] != [int, int] or shape[0] < 1 or shape[1] not in (2, 3):
        raise DataError(f"{file}: 'kpt_shape' must be the number of keypoints and 2 or 3, got {describe(shape)}.")
    return shape[0], shape[1]


def _keypoint_names(content: Mapping[str, Any], count: int) -> tuple[str, ...]:
    """Names of the keypoints; without any, such as show which of them change places in a mirror."""
    names = content.get("kpt_names")
    if isinstance(names, dict) and names:
        names = next(iter(names.values()))
    if isinstance(names, list) and len(names) == count:
        return tuple(map(str, names))
    mirrored = content.get("flip_idx")
    if not isinstance(mirrored, list) or sorted(mirrored, key=str) != sorted(range(count), key=str):
        mirrored = list(range(count))
    sides = {-1: "right_", 0: "", 1: "left_"}
    return tuple(f"{sides[(other > k) - (other < k)]}keypoint_{min(k, other) + 1}" for k, other in enumerate(mirrored))


def _from_darknet(file: Path) -> Description:
    """Read `key = value` lines; paths begin with `data/`, which is the folder itself (CVAT's export)."""
    pairs = (line.split("=", 1) for _, line in read_lines(file) if "=" in line)
    values = {key.strip(): value.strip() for key, value in pairs}
    root = file.parent
    found = {key: darknet_path(root, value) for key, value in values.items() if key in (*_SPLITS, "names")}
    if "names" not in found or len(found) < 2:
        raise DataError(f"{file} must name the file of the classes ('names') and a list of pictures ('train').")
    for key, path in found.items():
        if not path.exists():
            raise DataError(f"{file}: '{key}' names {values[key]}, which does not exist.")
    names = dict(enumerate(line for _, line in read_lines(found["names"])))
    splits = {_SPLITS[key]: [path] for key, path in found.items() if key in _SPLITS}
    return Description(file=file, root=root, names=names, splits=splits)


def darknet_path(root: Path, text: str) -> Path:
    """Find a file that darknet calls `data/name`, though the folder may have another name now.

    Args:
        root: the data set's folder.
        text: as it is written.
    """
    plain = root / text
    return root / text.removeprefix("data/") if text.startswith("data/") and not plain.exists() else plain
