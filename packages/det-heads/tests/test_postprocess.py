import pytest
import torch
import torch.nn.functional as F

from det_heads import MaskHead, MaskHeadConfig, to_image
from det_heads.yolact.masks import inside_boxes, masks_to_image


def detections(boxes, masks=None):
    boxes = torch.tensor(boxes, dtype=torch.float32)
    count = boxes.shape[1]
    made = {
        "boxes": boxes,
        "scores": torch.linspace(0.9, 0.5, count).expand(len(boxes), count),
        "labels": torch.arange(count).expand(len(boxes), count),
        "valid": torch.ones(len(boxes), count, dtype=torch.bool),
    }
    if masks is not None:
        made["masks"] = masks
    return made


def decode(rle):
    """Area and bounding box of a compressed run-length encoding, column by column."""
    counts, number, shift = [], 0, 0
    for character in rle["counts"]:
        code = ord(character) - 48
        number |= (code & 31) << shift
        shift += 5
        if not code & 32:
            if code & 16:
                number -= 1 << shift
            counts.append(number + (counts[-2] if len(counts) > 2 else 0))
            number, shift = 0, 0
    height, width = rle["size"]
    flat, value = [], 0
    for count in counts:
        flat += [value] * count
        value = 1 - value
    return torch.tensor(flat).view(width, height).T


def test_scales_clips_and_drops():
    made = detections([[[10, 20, 30, 40], [-5, 0, 400, 400], [300, 10, 390, 20], [0, 0, 0, 0]]])
    made["valid"][0, 3] = False
    (result,) = to_image(made, torch.tensor([[2.0, 1.5]]), [(100, 200)])
    expected = [[10 / 1.5, 10, 20, 20], [0, 0, 200, 100]]
    torch.testing.assert_close(result.boxes, torch.tensor(expected), rtol=1e-6, atol=1e-5)
    assert result.labels.tolist() == [0, 1]  # the third lies beyond the right border
    assert result.masks is None


def test_inclusive_boxes_become_a_pixel_wider_in_the_original_image():
    (result,) = to_image(detections([[[10, 20, 30, 40]]]), torch.tensor([[2.0, 2.0]]), [(100, 100)], offset=1.0)
    assert result.boxes.tolist() == [[5, 10, 16, 21]]


@pytest.mark.parametrize(
    ("paste", "offset", "expected"),
    [("grid_sample", 0.0, (10, 20, 30, 60)), ("expanded", 1.0, (10, 20, 31, 61))],
)
def test_masks_fill_their_boxes(paste, offset, expected):
    made = detections([[[20, 40, 60, 120], [0, 0, 0, 0]]], torch.ones(1, 2, 28, 28))
    made["valid"][0, 1] = False
    head = MaskHead(1, 1, MaskHeadConfig(channels=1, paste=paste))
    (result,) = to_image(made, torch.tensor([[2.0, 2.0]]), [(100, 90)], offset=offset, branches=[head.to_image])
    assert len(result.masks) == 1
    assert result.masks[0]["size"] == [100, 90]
    mask = decode(result.masks[0])
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert all(abs(int(f) - e) <= 1 for f, e in zip(found, expected, strict=True))


def test_an_image_without_detections():
    made = detections([[[0, 0, 0, 0]]], torch.zeros(1, 1, 28, 28))
    made["valid"][:] = False
    head = MaskHead(1, 1, MaskHeadConfig(channels=1))
    (result,) = to_image(made, torch.ones(1, 2), [(10, 10)], branches=[head.to_image])
    assert result.boxes.shape == (0, 4)
    assert result.masks == []


def test_numbers_of_images_must_agree():
    with pytest.raises(ValueError, match="original_sizes"):
        to_image(detections([[[0, 0, 1, 1]]]), torch.ones(1, 2), [(10, 10), (10, 10)])


def test_masks_of_the_whole_image_are_resized_bilinearly():
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(1, 12, 2, 2, generator=generator).sort(-2).values * 1.2 - 0.1  # some beyond the border
    boxes = corners.flatten(2) * torch.tensor([64, 48, 64, 48])
    masks = torch.rand(1, 12, 12, 16, generator=generator) * inside_boxes(corners.flatten(2), (12, 16))
    valid = torch.ones(1, 12, dtype=torch.bool)
    made = {"boxes": boxes, "masks": masks, "valid": valid, "scores": valid.float(), "labels": valid.long()}
    (result,) = to_image(made, torch.ones(1, 2), [(48, 64)], branches=[masks_to_image])
    expected = F.interpolate(masks, (48, 64), mode="bilinear", align_corners=False)[0] > 0.5
    assert expected.any()
    different = sum(int((decode(rle) != mask).sum()) for rle, mask in zip(result.masks, expected, strict=True))
    assert different <= 2  # where a probability is one half


def test_no_masks():
    empty = {"boxes": torch.zeros(1, 0, 4), "masks": torch.zeros(1, 0, 4, 4), "scores": torch.zeros(1, 0)}
    empty |= {"labels": torch.zeros(1, 0, dtype=torch.int64), "valid": torch.zeros(1, 0, dtype=torch.bool)}
    assert to_image(empty, torch.ones(1, 2), [(9, 9)], branches=[masks_to_image])[0].masks == []
