"""Trained detectors that detectron2, mmdetection, torchvision, maskrcnn-benchmark and YOLACT publish, by name.

The table beside this module was read from the systems' own lists: detectron2's and maskrcnn-benchmark's MODEL_ZOO.md,
the metafiles of mmdetection 3.3, the enumerations of torchvision 0.29, YOLACT's README. It has those whose networks
:func:`det_models.load` builds: detectors on a feature pyramid over a ResNet or ResNeXt, and YOLACT's.
"""

import csv
import difflib
import functools
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

from det_backbones import PublishedFile, WeightsError

__all__ = ["PublishedDetector", "find_published", "plain", "published_detectors", "search"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedDetector(PublishedFile):
    """A trained detector, its published figures and its file.

    Attributes:
        name: Of it, `<system>/<name>`.
        config: What its system calls its configuration.
        data: What it was evaluated on, as its system says.
        box_ap: AP of its boxes in per cent, by its system's own evaluation; None where none is published.
        mask_ap: The same of its masks.
        keypoint_ap: The same of its keypoints.
        size: Shorter side of its images, or that and the limit of the longer one; None: as usual in its system.
    """

    name: str
    config: str
    data: str
    box_ap: float | None
    mask_ap: float | None
    keypoint_ap: float | None
    size: int | tuple[int, int] | None

    @property
    def system(self) -> str:
        """Where it comes from: the first part of its name."""
        return self.name.partition("/")[0]

    def __str__(self) -> str:
        parts = {"box": self.box_ap, "mask": self.mask_ap, "keypoint": self.keypoint_ap}
        return ", ".join(f"{value:.1f} {part} AP" for part, value in parts.items() if value is not None)


@functools.cache
def published_detectors() -> Mapping[str, PublishedDetector]:
    """The published detectors by name, system by system."""
    text = files("det_models").joinpath("published.csv").read_text(encoding="utf-8")
    found = [_detector(row) for row in csv.DictReader(text.splitlines())]
    return MappingProxyType({detector.name: detector for detector in found})


def find_published(name: str | os.PathLike[str]) -> PublishedDetector | None:
    """The published detector that a name stands for.

    Args:
        name: `<system>/<name>`, or with its configuration's whole name: `detectron2/mask_rcnn_R_50_FPN_3x` and
            `detectron2/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml` are the same. Where a file has this path,
            the file is meant.

    Returns:
        The detector; None where the name begins with no system's, or is a path.

    Raises:
        WeightsError: The system publishes no such detector, or none that can be built here; names the nearest.
    """
    text, detectors = Path(name).as_posix(), published_detectors()
    systems = dict.fromkeys(detector.system for detector in detectors.values())
    system, slash, _ = text.partition("/")
    if not slash or system not in systems or Path(name).exists():
        return None
    own = [detector for detector in detectors.values() if detector.system == system]
    spelt = {plain(d.config): d for d in reversed(own)} | {plain(d.name.removeprefix(f"{system}/")): d for d in own}
    if (found := spelt.get(plain(text.removeprefix(f"{system}/")))) is not None:
        return found
    near = difflib.get_close_matches(text, [n for n in detectors if n.startswith(system)], n=1, cutoff=0.3)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise WeightsError(f"{text} is neither a file nor a published detector that is known here.{hint}")


def plain(config: str) -> str:
    """The name of a configuration without what people spell in several ways: folders of configurations, endings."""
    return re.sub(r"^configs/|\.(yaml|py)$", "", config.strip()).replace("-", "_").lower()


def search(words: Iterable[str]) -> list[PublishedDetector]:
    """The published detectors whose names or data have all of some words in them, in any case."""
    wanted = [plain(word) for word in words]
    lines = {d: plain(f"{d.name} {d.config} {d.data}") for d in published_detectors().values()}
    return [detector for detector, line in lines.items() if all(word in line for word in wanted)]


def _detector(row: Mapping[str, str]) -> PublishedDetector:
    file = row["url"].rpartition("/")[2]
    system = row["name"].partition("/")[0]
    # Whose file names end with the first digits of their sums, and of which sums.
    sums = {"detectron2": "md5", "mmdet": "sha256", "torchvision": "sha256"}
    sum_of = {sums[system]: Path(file).stem.replace("_", "-").rpartition("-")[2]} if system in sums else {}
    shortest, _, longest = row["size"].partition(" ")
    size = (int(shortest), int(longest)) if longest else int(shortest) if shortest else None
    box, mask, keypoints = (float(row[key]) if row[key] else None for key in ("box", "mask", "keypoints"))
    return PublishedDetector(
        file=file,
        url=row["url"],
        name=row["name"],
        config=row["config"],
        data=row["data"],
        box_ap=box,
        mask_ap=mask,
        keypoint_ap=keypoints,
        size=size,
        **sum_of,
    )
