"""Detections as annotations to correct: a data set that labelling tools open, and that training takes."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apps.common.detecting_options import DraftFormat
from det_coco import DataError, convert_data, decode_rle
from det_coco.formats import ContentSplit
from det_coco.outlines import join_outlines, trace_outlines
from det_coco.outputs import whole_file
from det_models import Detections

SPLIT = "train"
"""Name of the split that the annotations are, so that a training takes the folder as it is."""


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
        self._content["categories"] = [{"id": i, "name": name} for i, name in sorted(found.categories.items())]
        least = self.min_score if self.unsure_score is None else min(self.unsure_score, self.min_score)
        for row in found[found.scores >= least].to_coco(number):
            self._content["annotations"].append(self._annotation(row))

    def _annotation(self, row: dict[str, Any]) -> dict[str, Any]:
        kept = {name: row[name] for name in ("image_id", "category_id", "bbox", "score") if name in row}
        kept["id"] = len(self._content["annotations"]) + 1
        if "segmentation" in row:
            outlines = trace_outlines(decode_rle(row["segmentation"]))
            kept["segmentation"] = [join_outlines(outlines).reshape(-1).tolist()] if outlines else []
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
        if to == "label-studio":
            file = out / "tasks.json"
            with whole_file(file) as written:
                written.write(json.dumps(_tasks(self._content), ensure_ascii=False).encode())
            return f"Annotations to correct: {file} ({counted}; pictures are served from {root})."
        source = ContentSplit(source=out, image_folder=root, read=lambda: self._content)
        masks = any(record.get("segmentation") for record in objects)
        convert_data({SPLIT: source}, out, to=to, parts="masks" if masks else "boxes")
        return f"Annotations to correct: {out} ({counted})."


def _tasks(content: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Tasks with pre-annotations as Label Studio imports them, coordinates in per cent of the picture.

    Source: labelstud.io/guide/predictions; pictures by its local file storage.
    """
    names = {category["id"]: category["name"] for category in content["categories"]}
    tasks = []
    for image in content["images"]:
        size = {"original_width": image["width"], "original_height": image["height"], "image_rotation": 0}
        own = [record for record in content["annotations"] if record["image_id"] == image["id"]]
        results = [
            {"id": str(record["id"]), "from_name": "label", "to_name": "image", "score": record["score"], **size}
            | _shape(record, names[record["category_id"]], image["width"], image["height"])
            for record in own
            if not record.get("ignore")
        ]
        task = {"data": {"image": f"/data/local-files/?d={image['file_name']}"}}
        tasks.append(task | {"predictions": [{"model_version": "det", "result": results}]})
    return tasks


def _shape(record: dict[str, Any], name: str, width: int, height: int) -> dict[str, Any]:
    """A polygon where there is a mask, else a rectangle."""
    if record.get("segmentation"):
        flat = record["segmentation"][0]
        points = [[100 * x / width, 100 * y / height] for x, y in zip(flat[0::2], flat[1::2], strict=True)]
        return {"type": "polygonlabels", "value": {"points": points, "polygonlabels": [name]}}
    x, y, w, h = record["bbox"]
    value = {"x": 100 * x / width, "y": 100 * y / height, "width": 100 * w / width, "height": 100 * h / height}
    return {"type": "rectanglelabels", "value": {**value, "rotation": 0, "rectanglelabels": [name]}}


def refuse_videos(videos: list[Path]) -> None:
    """Refuse to make annotations of videos.

    Raises:
        DataError: there is one.
    """
    if videos:
        raise DataError(f"--as-annotations is for pictures; {videos[0]} is a video. Save its frames as pictures first.")
