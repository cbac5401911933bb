"""A pipeline of albumentations as a step."""

from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

import numpy as np

from det_coco.annotated import Annotated
from det_coco.augment.outlines import bounds, rectangle
from det_coco.augment.painting import gather_all, paint
from det_coco.augment.scene import Layer, Scene, Sheet
from det_coco.polygons import Polygons
from det_coco.rle import bitmap_to_runs, runs_to_edges


@dataclass(frozen=True)
class Albumentations:
    """A pipeline of albumentations or AlbumentationsX, which gets the picture as it is at this step.

    What came before is painted first, so that pixels are sampled once more by what comes after. Boxes of objects with a
    mask follow their mask. The pipeline's random numbers begin anew with each picture, from the loader's.

    Attributes:
        pipeline: `albumentations.Compose([...])`; it needs no parameters for boxes.
    """

    pipeline: Any
    _own: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        package = import_module(type(self.pipeline).__module__.partition(".")[0])
        boxes = package.BboxParams(format="pascal_voc", label_fields=["slots"])
        own = package.Compose(list(self.pipeline.transforms), bbox_params=boxes, p=self.pipeline.p)
        object.__setattr__(self, "_own", own)

    def __call__(self, scene: Scene, random: np.random.Generator) -> Scene:
        """Run the pipeline.

        Raises:
            ValueError: keypoints are wanted, of which such a pipeline does not know the mirror images.
        """
        if scene.shape.keypoints:
            raise ValueError(
                "An albumentations pipeline does not know which keypoints change places in a mirror. Use the steps of "
                "det_coco.augment for detectors of keypoints."
            )
        objects, covers = gather_all(scene)
        pixels = paint(scene, covers).permute(1, 2, 0).contiguous().numpy()
        masks = [one.bitmap((0, 0, scene.width, scene.height)).astype(np.uint8) for one in objects]
        self._own.set_random_seed(int(random.integers(2**31)))
        done = self._own(
            image=pixels,
            masks=masks,
            bboxes=np.array([one.box for one in objects], dtype=np.float64).reshape(-1, 4),
            slots=np.arange(len(objects)),
        )
        height, width = done["image"].shape[:2]
        picture = _annotated(done, objects)
        layer = Layer(picture=picture, view=None, region=rectangle(height, width))
        sheet = Sheet(layers=(layer,))
        return replace(scene, height=height, width=width, sheets=(sheet,), effects=())


def _annotated(done: dict[str, Any], objects: list[Any]) -> Annotated:
    """The picture and the objects that a pipeline has left."""
    image = np.ascontiguousarray(done["image"])
    boxes = dict(zip([int(slot) for slot in done["slots"]], done["bboxes"], strict=True))
    kept, found, runs = [], [], []
    for slot, one in enumerate(objects):
        mask = np.asarray(done["masks"][slot]) > 0
        if one.outlines:
            own = bitmap_to_runs(mask)
            box = bounds(runs_to_edges(own, mask.shape[0])) if mask.any() else None
        else:
            own, box = np.zeros(0, dtype=np.int64), boxes.get(slot)
        if box is not None:
            kept.append(one)
            found.append(box)
            runs.append(own)
    return Annotated(
        height=image.shape[0],
        width=image.shape[1],
        read=lambda: image,
        boxes=np.array(found, dtype=np.float32).reshape(-1, 4),
        labels=np.array([one.label for one in kept], dtype=np.int64),
        crowd=np.array([one.crowd for one in kept], dtype=bool),
        masks=Polygons.of_runs(runs),
        keypoints=np.zeros((len(kept), 0, 3), dtype=np.float32),
    )
