"""Exported once, a detector takes batches of any number of images, and finds the same."""

import pytest
import torch

from det_models import build
from testing.trained import small_model

DETECTORS = {
    "faster_rcnn": ({"mask": False}, (64, 96)),
    "mask_rcnn": ({}, (64, 96)),
    "cascade_rcnn": ({"mask": False, "cascade": True}, (64, 96)),
    "cascade_mask_rcnn": ({"cascade": True}, (64, 96)),
    "yolact": ({"system": "yolact"}, (64, 64)),
    "yolact++": ({"system": "yolact++"}, (288, 288)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DETECTORS)
def test_any_number_of_images(name):
    changes, (height, width) = DETECTORS[name]
    torch.manual_seed(0)
    model = build(small_model(**changes)).eval()

    def batch(count):
        images = torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8)
        sizes = torch.tensor([[height, width]] * count, dtype=torch.int32)
        return {"images": images, "image_sizes": sizes}

    count = {0: torch.export.Dim("B", min=1, max=64)}
    shapes = ({"images": count, "image_sizes": count},)
    exported = torch.export.export(model, (batch(2),), dynamic_shapes=shapes).module()
    for images in (1, 2, 5):
        given = batch(images)
        with torch.no_grad():
            torch.testing.assert_close(exported(given), model(given), rtol=1e-4, atol=1e-3)
