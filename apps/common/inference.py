"""From a model and images to detections in original pixels."""

from collections.abc import Iterable, Iterator

import torch

from det_coco import Batch, CocoIndex
from det_engine import Precision
from det_heads import ImageDetections, TwoStageDetector


@torch.inference_mode()
def detect(
    model: TwoStageDetector, batches: Iterable[Batch], index: CocoIndex, device: torch.device, precision: Precision
) -> Iterator[tuple[int, ImageDetections]]:
    """Detections of every image of the batches as (image id, detections); filling images are passed over.

    Args:
        model: in evaluation mode on `device`.
        batches: from :func:`apps.common.data.evaluation_loader`.
        index: knows the original sizes.
        device: where the model is.
        precision: of the forward pass.
    """
    for batch in batches:
        identifiers = batch["image_ids"].tolist()
        sizes = [index.image_size(i) if i >= 0 else (1, 1) for i in identifiers]
        inputs = {name: batch[name].to(device, non_blocking=True) for name in ("images", "image_sizes")}
        with precision.autocast():
            detections = model(inputs)
        for identifier, found in zip(identifiers, model.to_image(detections, batch["scales"], sizes), strict=True):
            if identifier >= 0:
                yield identifier, found
