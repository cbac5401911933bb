import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from det_coco import (
    Augmentation,
    BatchShape,
    CocoIndex,
    DataError,
    Resize,
    convert_data,
    eval_loader,
    evaluate,
    find_splits,
    from_samples,
    split_of_samples,
    to_results,
    train_loader,
)
from det_coco.mask_codec import instance_bitmap


@pytest.fixture
def samples(tmp_path):
    """A path, an array with each form of a mask, a grey PIL image, an image without objects."""
    random = np.random.default_rng(0)
    pixels = [random.integers(0, 255, (30, 40, 3), dtype=np.uint8) for _ in range(4)]
    Image.fromarray(pixels[0]).save(tmp_path / "a.png")
    bitmap = np.zeros((30, 40), dtype=bool)
    bitmap[5:9, 6:12] = bitmap[20, 20] = True
    code = {"size": [30, 40], "counts": [0, 3, 1197]}
    polygon = [[1, 1], [9, 1], [9, 9]]
    boxes = [[6, 5, 21, 21], [0, 0, 1, 3], [1, 1, 9, 9], [1, 1, 30, 20], [2, 2, 4, 4]]
    masks = [bitmap, code, np.array(polygon), [polygon, [[20, 10], [30, 10], [30, 20]]], None]
    grey = Image.fromarray(pixels[2]).convert("L")
    return [
        (tmp_path / "a.png", torch.tensor([[1.5, 2, 10, 20]]), torch.tensor([1])),
        (pixels[1], boxes, [0, 1, 0, 1, 0], masks),
        (grey, np.array([[0, 0, 5, 5]]), np.array([1])),
        (pixels[3], [], []),
    ], pixels, bitmap  # fmt: skip


def test_samples_become_an_index(samples, tmp_path):
    given, pixels, bitmap = samples
    index = from_samples(iter(given), ["cat", "dog"])
    assert isinstance(index, CocoIndex)
    assert index.categories == {1: "cat", 2: "dog"}
    assert index.image_ids.tolist() == [1, 2, 3, 4]
    assert index.path(0) == tmp_path / "a.png"
    assert index.image_instances.tolist() == [0, 1, 6, 7, 7]
    assert index.boxes[:2].tolist() == [[1.5, 2, 10, 20], [6, 5, 21, 21]]
    assert index.labels.tolist() == [1, 0, 1, 0, 1, 0, 1]
    assert index.polygon_counts.tolist() == [0, 1, 1, 1, 2, 0, 0]
    assert np.array_equal(instance_bitmap(index, 1, 30, 40), bitmap)
    for position in (0, 1, 3):
        assert np.array_equal(index.image(position), pixels[position])
    assert np.array_equal(index.image(2)[..., 0], np.asarray(given[2][0]))


@pytest.mark.parametrize("workers", [0, 2])
def test_pictures_in_memory_are_trained_and_evaluated_on(samples, workers):
    given, pixels, _ = samples
    index = from_samples(given, ["cat", "dog"])
    resize, shape = Resize(shortest=(30,), longest=40), BatchShape(buckets=((32, 64),), max_instances=8)
    batches = train_loader(index, augmentation=Augmentation(resize=resize), shape=shape, batch_size=2, workers=workers)
    batch = next(iter(batches))
    assert batch["images"].shape == (2, 3, 32, 64)
    assert batch["images"].any()
    seen = {}
    for batch in eval_loader(index, resize=resize, shape=shape, batch_size=3, workers=workers):
        seen |= dict(zip(batch["image_ids"].tolist(), batch["images"], strict=True))
    assert np.array_equal(seen[2][:, :30, :40].permute(1, 2, 0).numpy(), pixels[1])
    rows = [
        row
        for position, image_id in enumerate(index.image_ids.tolist())
        if len(index.labels[index.instances(position)])
        for row in to_results(
            index, image_id, index.boxes[index.instances(position)],
            np.ones(len(index.labels[index.instances(position)])), index.labels[index.instances(position)],
        )
    ]  # fmt: skip
    assert evaluate(index, rows, ["bbox"])["bbox"]["AP"] == pytest.approx(1)


def test_pictures_in_memory_follow_their_images(samples):
    given, pixels, _ = samples
    index = pickle.loads(pickle.dumps(from_samples(given, ["cat", "dog"]).of_images([4, 2])))
    assert np.array_equal(index.image(0), pixels[1])
    assert np.array_equal(index.image(1), pixels[3])


@pytest.mark.parametrize("to", ["coco", "yolo"])
def test_samples_are_written_to_a_folder(samples, tmp_path, to):
    given, pixels, _ = samples
    index = from_samples(given, ["cat", "dog"])
    convert_data({"train": split_of_samples(given, ["cat", "dog"])}, tmp_path / "out", to=to)
    written = find_splits(tmp_path / "out")["train"].load()
    order = [written.file_names.tolist().index(name) for name in index.file_names.tolist()]
    assert np.array_equal(written.image(order[1]), pixels[1])
    assert written.boxes[written.instances(order[1])] == pytest.approx(index.boxes[1:6])


def test_polygons_may_be_lists_of_points_or_flat_as_in_coco():
    picture, triangle = np.zeros((30, 40), np.uint8), [[1, 1], [9, 1], [9, 9]]
    boxes, labels = [[1, 1, 9, 9]] * 4, [0] * 4
    masks = [triangle, [triangle], [[1, 1, 9, 1, 9, 9]], np.array(triangle)]
    index = from_samples([(picture, boxes, labels, masks)], ["cat"])
    assert index.masks.points.tolist() == triangle * 4


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        (("lost.png", [], []), "lost.png does not exist"),
        (
            (np.zeros((3, 30, 40)), [], []),
            r"must be a path, a PIL image, .* got float64 \[3, 30, 40\]",
        ),
        ((np.zeros((30, 40), np.uint8), [[1, 2, 3]], [0]), r"boxes must be \[N, 4\] .* got the shape \[1, 3\]"),
        ((np.zeros((30, 40), np.uint8), [[1, 2, 3, 4]], [0, 1]), r"labels must be \[1\], one for each box"),
        ((np.zeros((30, 40), np.uint8), [[1, 2, 3, 4]], [2]), "labels must be numbers from 0 to 1, got"),
        ((np.zeros((30, 40), np.uint8), [[1, 2, 3, 4]], [0.5]), "labels must be numbers from 0 to 1, got"),
        ((np.zeros((30, 40), np.uint8), [[1, 2, 3, 4]], [0], []), "has 0 masks for 1 boxes"),
        ((np.zeros((30, 40), np.uint8), [[1, 2, 3, 4]], [0], [np.ones((9, 9))]), r"a mask must be .* shape \[9, 9\]"),
        ((np.zeros((30, 40), np.uint8), [[1, 2, 3, np.nan]], [0]), "annotation 0 of sample 1 .* NaN"),
        ((np.zeros((30, 40), np.uint8),), "must be"),
        (7, "must be"),
    ],
)
def test_a_wrong_sample_is_named_by_its_number(sample, words):
    right = (np.zeros((30, 40), np.uint8), [[1, 2, 3, 4]], [0])
    with pytest.raises(DataError, match=words) as error:
        from_samples([right, sample], ["cat", "dog"], name="mine")
    assert "lost" in str(error.value) or ("mine" in str(error.value) and "sample 1" in str(error.value))
