"""Detections as annotations to correct: a data set that labelling tools open, and that training takes."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from apps.common.detecting_options import DraftFormat
from apps.common.label_studio import write_tasks
from det_coco import DataError, convert_data, decode_rle
from det_coco.formats import ContentSplit
from det_coco.keypoints import usual_limbs, usual_names
from det_coco.outlines import join_outlines, trace_parts
from det_models import Detections

SPLIT = "train"
"""Name of the split that the annotations are, so that a training takes the folder as it is."""
_VISIBLE = 2
"""COCO's word for it."""


@dataclass(eq=False)
class Drafts:
    """Annotations in COCO's JSON shape that are gathered picture by picture.

    Attributes:
        min_score: detections of this score and better become objects.
        unsure_score: those from here up to `min_score` become regions that are neither learnt nor background; None:
            they are left out.
    """

    min_score: float
    unsure_score: float | None = None
    _content: dict[str, list[Any]] = field(default_factory=lambda: {"images": [], "annotations": [], "categories": []})

    def add(self, number: int, path: Path, found: Detections) -> None:
        """Gather the detections of a picture.

        Args:
            number: its image id.
            path: its file.
            found: the detections.
        """
        height, width = found.size
        image = {"id": number, "file_name": str(path.absolute()), "height": height, "width": width}
        self._content["images"].append(image)
        shared = _skeleton(found)
        self._content["categories"] = [{"id": i, "name": name} | shared for i, name in sorted(found.categories.items())]
        least = self.min_score if self.unsure_score is None else min(self.unsure_score, self.min_score)
        for row in found[found.scores >= least].to_coco(number):
            self._content["annotations"].append(self._annotation(row))

    def _annotation(self, row: dict[str, Any]) -> dict[str, Any]:
        kept = {name: row[name] for name in ("image_id", "category_id", "bbox", "score") if name in row}
        kept["id"] = len(self._content["annotations"]) + 1
        if "segmentation" in row:
            kept["segmentation"] = [part.reshape(-1).tolist() for part in trace_parts(decode_rle(row["segmentation"]))]
        if "keypoints" in row:
            points = np.reshape(row["keypoints"], (-1, 3))
            points[:, 2] = _VISIBLE  # which one is hidden, a detector does not say
            kept |= {"keypoints": points.reshape(-1).tolist(), "num_keypoints": len(points)}
        return kept | ({} if row["score"] >= self.min_score else {"ignore": 1})

    def write(self, out: Path, to: DraftFormat) -> str:
        """Write them.

        Args:
            out: new folder of the data set.
            to: the format.

        Returns:
            what to say about them.

        Raises:
            DataError: the folder cannot be written.
        """
        objects = [record for record in self._content["annotations"] if not record.get("ignore")]
        counted = f"{len(objects)} objects in {len(self._content['images'])} pictures"
        if not objects:
            return f"No annotations to correct: no detection has a score of {self.min_score:g}."
        root = Path(os.path.commonpath([Path(image["file_name"]).parent for image in self._content["images"]]))
        for image in self._content["images"]:
            image["file_name"] = Path(image["file_name"]).relative_to(root).as_posix()
        for record in self._content["annotations"]:
            if record.get("segmentation"):
                # A training has room for so many polygons; specks of a mask would fill it.
                parts = [np.reshape(flat, (-1, 2)) for flat in record["segmentation"]]
                record["segmentation"] = [join_outlines(parts).reshape(-1).tolist()]
        said = f"Annotations to correct: {out} ({counted})."
        if to == "label-studio":
            return f"{said}\n{write_tasks(self._content, root, out)}"
        source = ContentSplit(source=out, image_folder=root, read=lambda: self._content)
        masks = any(record.get("segmentation") for record in objects)
        convert_data({SPLIT: source}, out, to=to, parts="masks" if masks else "boxes")
        return f"{said}\nTo learn from them: train --data {out}"


def _skeleton(found: Detections) -> dict[str, Any]:
    """What a category of COCO's says of its keypoints, which it counts from 1; empty where there are none."""
    if found.keypoints is None:
        return {}
    count = found.keypoints.shape[1]
    limbs = found.limbs or usual_limbs(count)
    return {"keypoints": list(usual_names(count)), "skeleton": [[a + 1, b + 1] for a, b in limbs]}


def refuse_videos(videos: list[Path]) -> None:
    """Refuse to make annotations of videos.

    Raises:
        DataError: there is one.
    """
    if videos:
        raise DataError(f"--as-annotations is for pictures; {videos[0]} is a video. Save its frames as pictures first.")
