"""From a model and images to detections in original pixels."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch

from det_backbones import fold_norms
from det_coco import Batch, CocoIndex, to_results
from det_heads import ImageDetections
from det_models.builders import Detector
from det_ops import Conv2d

D = TypeVar("D", bound=Detector)


def optimize_for_inference(model: D, device: torch.device) -> D:
    """A copy for inference on `device`, with norms folded into convolutions and 3x3 weights transformed in advance.

    Its detections are the model's up to rounding; its parameters have other names.
    """
    made = copy.deepcopy(model).to(device).eval().requires_grad_(False)
    Conv2d.prepack(fold_norms(made))
    return made


@torch.inference_mode()
def detect(
    model: Detector,
    batches: Iterable[Batch],
    index: CocoIndex,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[None]],
) -> Iterator[tuple[int, ImageDetections]]:
    """Detections of every image of the batches as (image id, detections); filling images are passed over.

    Args:
        model: from :func:`optimize_for_inference`, on `device`.
        batches: from det_coco's evaluation loader.
        index: knows the original sizes.
        device: where the model is.
        autocast: a block in the number format of the forward pass.
    """
    for batch in batches:
        identifiers = batch["image_ids"].tolist()
        sizes = [index.image_size(i) if i >= 0 else (1, 1) for i in identifiers]
        inputs = {name: batch[name].to(device, non_blocking=True) for name in ("images", "image_sizes")}
        with autocast():
            detections = model(inputs)
        for identifier, found in zip(identifiers, model.to_image(detections, batch["scales"], sizes), strict=True):
            if identifier >= 0:
                yield identifier, found


def to_rows(found: ImageDetections, ids: Sequence[int | None], image_id: int) -> list[dict[str, Any]]:
    """Detections of one image as rows of a COCO results file; see :func:`det_coco.to_results`.

    Args:
        found: the detections.
        ids: category id by label; detections of labels without one are left out.
        image_id: the data set's own id.
    """
    rows = to_results(
        ids,  # pyrefly: ignore[bad-argument-type]
        image_id,
        found.boxes.numpy(),
        found.scores.numpy(),
        found.labels.numpy(),
        found.masks,
        mask_scores=None if found.mask_scores is None else found.mask_scores.numpy(),
    )
    return [row for row in rows if row["category_id"] is not None]
