"""The fields of an index as arrays by name and the little that is none, as files hold them."""

from dataclasses import asdict
from typing import Any

import numpy as np

from det_coco.keypoints import Skeleton
from det_coco.lvis import Federation
from det_coco.polygons import Polygons
from det_coco.remarks import Remark

# Fields of a `CocoIndex` that follow from the content of a file, and its number of annotations.
Packed = dict[str, Any]

_PARTS: dict[str, type] = {"masks": Polygons, "federation": Federation}


def to_arrays(found: Packed) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Take the fields apart.

    Args:
        found: the fields.

    Returns:
        arrays by name, and the rest as JSON can hold it.
    """
    arrays = {name: value for name, value in found.items() if isinstance(value, np.ndarray)}
    for part in _PARTS:
        arrays |= {f"{part}.{name}": value for name, value in vars(found[part]).items()} if found[part] else {}
    skeleton = found["skeleton"]
    return arrays, {
        "categories": list(found["categories"].items()),
        "skeleton": None if skeleton is None else asdict(skeleton),
        "remarks": [asdict(remark) for remark in found["remarks"]],
        "num_annotations": found["num_annotations"],
    }


def from_arrays(arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> Packed:
    """Put the fields together again; the inverse of `to_arrays`.

    Args:
        arrays: by name.
        meta: the rest.

    Raises:
        KeyError: something is missing.
        TypeError: likewise.
    """
    found: Packed = {name: value for name, value in arrays.items() if "." not in name}
    for part, kind in _PARTS.items():
        own = {name.removeprefix(f"{part}."): v for name, v in arrays.items() if name.startswith(f"{part}.")}
        found[part] = kind(**own) if own else None
    skeleton = meta["skeleton"]
    return found | {
        "categories": dict(meta["categories"]),
        "skeleton": None if skeleton is None else Skeleton(**_tuples(skeleton)),
        "remarks": tuple(Remark(**_tuples(remark)) for remark in meta["remarks"]),
        "num_annotations": meta["num_annotations"],
    }


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields of a frozen class from JSON, which knows lists alone."""
    return {
        name: tuple(tuple(v) if isinstance(v, list) else v for v in value) if isinstance(value, list) else value
        for name, value in fields.items()
    }
