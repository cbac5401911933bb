import torch

from det_heads import GroundTruth, ground_truth, label_all, match, subsample

CORNERS = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 20], [50, 50, 60, 60], [0, 0, 10, 13]])


def truth(usable=(True, True)):
    boxes = torch.tensor([[[0.0, 0, 10, 10], [50, 50, 60, 60]]])
    return GroundTruth(boxes, torch.tensor([[4, 7]]), torch.tensor([usable]))


def settings(**changes):
    return {"positive_iou": 0.7, "negative_iou": 0.3, "low_quality": False, "offset": 0.0} | changes


def test_crowds_and_empty_slots_are_no_truth(make_batch):
    batch = make_batch(objects=3, crowds=2, slots=8)
    got = ground_truth(batch)
    assert got.usable.sum(1).tolist() == [3, 3]
    torch.testing.assert_close(got.boxes, batch["boxes"])


def test_inclusive_truth_loses_one_pixel_of_the_original_image(make_batch):
    batch = make_batch()
    got = ground_truth(batch, 1.0)
    expected = batch["boxes"].clone()
    expected[0, :, 2:] -= 1.0
    expected[1, :, 2:] -= 1.5
    used = batch["valid"]
    torch.testing.assert_close(got.boxes[used], expected[used])
    assert (got.boxes[..., 2:] >= got.boxes[..., :2]).all()


def test_labels_by_overlap_and_padding_by_validity():
    valid = torch.tensor([[True, True, True, False]])
    index, label = match(CORNERS[None], valid, truth(), **settings())
    assert label.tolist() == [[1, -1, 1, -1]]
    assert index[0, :3].tolist() == [0, 0, 1]
    _, label = match(CORNERS[None], None, truth((True, False)), **settings())
    assert label.tolist() == [[1, -1, 0, 1]]


def test_drawn_samples_carry_box_object_and_class():
    matches = match(CORNERS, None, truth(), **settings(positive_iou=0.6, negative_iou=0.6))
    keys = torch.tensor([[0.4, 0.3, 0.2, 0.1]])
    got = subsample(CORNERS, matches, truth(), keys, count=3, fraction=0.67, num_classes=9)
    assert got.index.tolist() == [[0, 2, 1]]
    assert got.labels.tolist() == [[4, 7, 9]]
    assert got.positive.tolist() == [[True, True, False]]
    assert got.valid.all()
    torch.testing.assert_close(got.truth_boxes[0, :2], truth().boxes[0])
    batched = subsample(CORNERS[None], matches, truth(), keys, count=3, fraction=0.67, num_classes=9)
    for one, other in zip(got, batched, strict=True):
        torch.testing.assert_close(one, other)


def test_slots_without_a_candidate_are_not_valid():
    nothing = truth((False, False))
    valid = torch.tensor([[True, False, False, False]])
    matches = match(CORNERS[None], valid, nothing, **settings())
    got = subsample(CORNERS[None], matches, nothing, torch.rand(1, 4), count=4, fraction=0.5, num_classes=9)
    assert got.valid.tolist() == [[True, False, False, False]]
    assert not got.positive.any()
    assert (got.labels == 9).all()


def test_all_candidates_in_their_order_for_cascades():
    matches = match(CORNERS[None], None, truth(), **settings())
    got = label_all(CORNERS[None], matches, truth(), num_classes=9)
    assert got.labels.tolist() == [[4, 9, 7, 4]]
    assert got.valid.tolist() == [[True, False, True, True]]
    assert got.boxes is not None
    torch.testing.assert_close(got.boxes[0], CORNERS)
