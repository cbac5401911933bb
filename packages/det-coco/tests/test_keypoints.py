"""Keypoints from the annotation file to the batch, the metrics and the picture."""

import contextlib
import copy
import io
import json
import logging
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from det_coco import (
    Augmentation,
    BatchShape,
    CocoIndex,
    DataError,
    Drawn,
    Protocol,
    Resize,
    Skeleton,
    SSDAugmentation,
    default_splits,
    detections_of,
    draw,
    eval_loader,
    evaluate,
    find_splits,
    ground_truth_of,
    load_split,
    to_results,
    train_loader,
)

# As COCO 2017's person_keypoints files write them.
PERSON = {
    "id": 1,
    "name": "person",
    "keypoints": [
        "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
        "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
        "right_ankle",
    ],
    "skeleton": [
        [16, 14], [14, 12], [17, 15], [15, 13], [12, 13], [6, 12], [7, 13], [6, 7], [6, 8], [7, 9], [8, 10], [9, 11],
        [2, 3], [1, 2], [1, 3], [2, 4], [3, 5], [4, 6], [5, 7],
    ],
}  # fmt: skip


def person(number: int, image: int, left: float, top: float, size: float, random: np.random.Generator) -> dict:
    visibility = random.integers(0, 3, 17)
    points = np.round([left, top] + random.random((17, 2)) * [size, 2 * size]).astype(int)
    keypoints = np.concatenate((points, visibility[:, None]), axis=1)
    keypoints[visibility == 0] = 0
    return {
        "id": number, "image_id": image, "category_id": 1, "bbox": [left, top, size, 2 * size], "iscrowd": 0,
        "area": 1.5 * size * size, "keypoints": keypoints.reshape(-1).tolist(),
        "num_keypoints": int((visibility > 0).sum()),
    }  # fmt: skip


@pytest.fixture
def people() -> dict:
    """Five pictures 320 x 240 with two to four persons; one of them and a crowd without keypoints, and a dog."""
    random = np.random.default_rng(0)
    annotations = []
    for image in range(5):
        for n in range(2 + image % 3):
            annotations.append(person(len(annotations) + 1, image, 5 + 75 * n, 10 + 5 * n, 30 + 11 * n, random))
    annotations[3] |= {"keypoints": [0] * 51, "num_keypoints": 0}
    annotations.append({**annotations[3], "id": 90, "iscrowd": 1, "image_id": 1})
    annotations.append({"id": 91, "image_id": 2, "category_id": 18, "bbox": [200, 100, 50, 60], "area": 3000})
    return {
        "images": [{"id": n, "file_name": f"{n}.png", "height": 240, "width": 320} for n in range(5)],
        "annotations": annotations,
        "categories": [copy.deepcopy(PERSON), {"id": 18, "name": "dog"}],
    }


def test_read_from_the_file(people, write):
    index = CocoIndex.load(*write(people))
    assert index.keypoints.shape == (len(people["annotations"]), 17, 3)
    assert index.keypoints.dtype == np.float32
    for row, number in enumerate(index.annotation_ids.tolist()):
        record = next(a for a in people["annotations"] if a["id"] == number)
        assert index.keypoints[row].reshape(-1).tolist() == record.get("keypoints", [0] * 51)
    again = pickle.loads(pickle.dumps(index))
    assert again.skeleton == index.skeleton
    assert again.fingerprint == index.fingerprint
    people["annotations"][0]["keypoints"][0] += 1
    assert CocoIndex.load(*write(people)).fingerprint != index.fingerprint


def test_skeleton_of_coco(people, write):
    skeleton = CocoIndex.load(*write(people)).skeleton
    assert skeleton.flip_indices == (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15)
    np.testing.assert_array_equal(skeleton.sigmas, COCOeval(iouType="keypoints").params.kpt_oks_sigmas)
    assert skeleton.limbs[0] == (15, 13)
    assert np.mean(skeleton.sigmas) == pytest.approx(0.067, abs=5e-4)


@pytest.mark.parametrize(
    ("names", "flip"),
    [
        (["left", "right"], (1, 0)),
        (["beak", "wing_left", "wing_right", "tail"], (0, 2, 1, 3)),
        (["LeftHand", "RightHand", "upright"], (1, 0, 2)),
        (["L_eye", "R_eye", "ear-r", "ear-l", "lip"], (1, 0, 3, 2, 4)),
        (["left_fin", "middle"], (0, 1)),
        (["front left wheel", "front right wheel", "rear left wheel", "rear right wheel"], (1, 0, 3, 2)),
    ],
)
def test_sides_of_a_name(names, flip):
    assert Skeleton.from_names(names).flip_indices == flip


def test_sigmas_of_other_keypoints():
    assert Skeleton.from_names(["L_eye", "nose", "left wrist", "tail"]).sigmas == pytest.approx(
        (0.025, 0.026, 0.062, 0.067)
    )


def test_skeleton_can_be_overridden(people, write):
    index = CocoIndex.load(*write(people))
    own = replace(index, skeleton=replace(index.skeleton, flip_indices=tuple(range(17)), sigmas=(0.05,) * 17))
    assert own.skeleton.flip_indices == tuple(range(17))
    with pytest.raises(ValueError, match="flip_indices must hold each number from 0 to 16 once"):
        replace(index.skeleton, flip_indices=(0,) * 17)
    with pytest.raises(ValueError, match="sigmas must be 17 positive numbers"):
        replace(index.skeleton, sigmas=(0.05,))


def test_custom_category_counted_from_zero(content, write):
    content["categories"][0] |= {"keypoints": ["a", "b", "c"], "skeleton": [[0, 1], [1, 2]]}
    content["annotations"][0]["keypoints"] = [1, 2, 2, 3.5, 4.25, 1, 0, 0, 0]
    index = CocoIndex.load(*write(content))
    assert index.skeleton.limbs == ((0, 1), (1, 2))
    np.testing.assert_array_equal(index.keypoints[1], [[1, 2, 2], [3.5, 4.25, 1], [0, 0, 0]])
    np.testing.assert_array_equal(index.keypoints[0], np.zeros((3, 3)))


def test_categories_that_disagree_are_not_read(content, write, caplog):
    for category, names in zip(content["categories"], (["a"], ["a", "b"]), strict=True):
        category["keypoints"] = names
    with caplog.at_level(logging.WARNING, "det_coco"):
        index = CocoIndex.load(*write(content))
    assert "the categories cat and dog list different ones" in caplog.text
    assert index.skeleton is None
    with pytest.raises(DataError, match="has no keypoints: no category lists them"):
        train_loader(index, augmentation=Augmentation(), shape=BatchShape(keypoints=1), batch_size=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][0].update(keypoints=[1, 2, 2]), "annotation 1 has 3 numbers .* lists 17 keypoints"),
        (lambda c: c["annotations"][0].update(keypoints={"nose": 1}), "annotation 1: 'keypoints' must be a list"),
        (lambda c: c["annotations"][0].update(keypoints=["1"] * 51), "annotation 1: 'keypoints' must be a list of num"),
        (
            lambda c: c["annotations"][0]["keypoints"].__setitem__(3, float("nan")),
            r"annotation 1 \(image 0\) has a key",
        ),
        (lambda c: c["annotations"][0]["keypoints"].__setitem__(5, 3), "annotation 1: the visibility .* got 3"),
        (
            lambda c: c["categories"][0].update(keypoints="nose"),
            r"category 1 \(person\): 'keypoints' must be a list of n",
        ),
        (lambda c: c["categories"][0].update(keypoints=["x"] * 17), "lists a name twice"),
        (lambda c: c["categories"][0].update(skeleton=[[1, 18]]), "numbers, 1 to 17. Correct or remove it"),
        (lambda c: c["categories"][0].update(skeleton=[[0, -1]]), "numbers, 1 to 17. Correct or remove it"),
        (lambda c: c["categories"][0].update(skeleton=[[1]]), "'skeleton' must be a list of pairs"),
    ],
)
def test_malformed_keypoints(people, write, change, message):
    change(people)
    with pytest.raises(DataError, match=message):
        CocoIndex.load(*write(people))


def test_a_wrong_count_is_said(people, write, caplog):
    people["annotations"][1]["num_keypoints"] = 0
    with caplog.at_level(logging.WARNING, "det_coco"):
        CocoIndex.load(*write(people))
    assert "'num_keypoints' of 1 annotation is not the number" in caplog.text
    assert "(annotation 2)" in caplog.text


def test_resized_and_mirrored_by_hand():
    keypoints = np.array([[[10.0, 20, 2], [50, 40, 1], [7, 7, 0]]])
    augmentation = Augmentation(resize=Resize(shortest=(200,)), flip=1.0)
    swapped = (1, 0, 2)
    plain = augmentation.draw(100, 150, None).keypoints(keypoints, swapped)
    np.testing.assert_array_equal(plain, [[[20, 40, 2], [100, 80, 1], [0, 0, 0]]])
    mirrored = augmentation.draw(100, 150, np.random.default_rng(0)).keypoints(keypoints, swapped)
    np.testing.assert_array_equal(mirrored, [[[200, 80, 1], [280, 40, 2], [0, 0, 0]]])
    # maskrcnn-benchmark's mirror: width - 1 - x
    legacy = replace(augmentation, legacy=True).draw(100, 150, np.random.default_rng(0)).keypoints(keypoints, swapped)
    np.testing.assert_array_equal(legacy, [[[199, 80, 1], [279, 40, 2], [0, 0, 0]]])


@pytest.mark.parametrize("legacy", [False, True])
def test_mirrored_twice_is_the_same(people, write, legacy):
    index = CocoIndex.load(*write(people))
    augmentation = Augmentation(resize=Resize(shortest=(240,)), flip=1.0, legacy=legacy)
    view = augmentation.draw(240, 320, np.random.default_rng(0))
    once = view.keypoints(index.keypoints, index.skeleton.flip_indices)
    assert (once != index.keypoints).any()
    np.testing.assert_array_equal(view.keypoints(once, index.skeleton.flip_indices), index.keypoints)


def test_equals_torchvisions_references(people, write):
    """Mirror of the keypoints of a picture as wide as before: width - x, left and right changed, unlabelled ones 0."""
    index = CocoIndex.load(*write(people))
    view = Augmentation(resize=Resize(shortest=(240,)), flip=1.0).draw(240, 320, np.random.default_rng(0))
    expected = index.keypoints[:, [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]]
    expected[..., 0] = 320 - expected[..., 0]
    expected[expected[..., 2] == 0] = 0
    np.testing.assert_array_equal(view.keypoints(index.keypoints, index.skeleton.flip_indices), expected)


def test_a_window_hides_what_is_outside():
    keypoints = np.array([[[10.0, 20, 2], [90, 40, 2]]])
    augmentation = SSDAugmentation(photometric=False, expand=False, crop=False, flip=0.0)
    window = augmentation.draw(100, 100, None, np.zeros((0, 4)), np.zeros(0, bool))
    half = replace(window, right=50, flip=True)
    np.testing.assert_allclose(half.keypoints(keypoints, (1, 0)), [[[0, 0, 0], [440, 110, 2]]])
    np.testing.assert_allclose(window.keypoints(keypoints, (1, 0)), [[[55, 110, 2], [495, 220, 2]]])


SHAPE = BatchShape(buckets=((128, 160),), masks="none", max_instances=6, keypoints=17)


def test_batches_hold_them(people, write):
    index = CocoIndex.load(*write(people))
    resize = Resize(shortest=(120,), longest=160)
    (first, *_, last) = eval_loader(index, resize=resize, shape=SHAPE, batch_size=2, ground_truth=True)
    assert first["keypoints"].shape == last["keypoints"].shape == (2, 6, 17, 3)
    assert first["keypoints"].dtype == torch.float32
    assert first["image_ids"].tolist() == [0, 1]
    expected = index.keypoints[index.instances(0)] * np.float32([0.5, 0.5, 1])
    np.testing.assert_array_equal(first["keypoints"][0, :2], expected)
    # Crowd regions last; their keypoints and those of free slots are not labelled.
    assert first["crowd"][1].tolist() == [False, False, False, True, False, False]
    assert not first["keypoints"][~first["valid"]].any()
    assert not first["keypoints"][first["crowd"]].any()
    assert not last["keypoints"][1].any()
    (plain, *_) = eval_loader(index, resize=resize, shape=replace(SHAPE, keypoints=0), batch_size=2, ground_truth=True)
    assert first.keys() - plain.keys() == {"keypoints"}


def test_batches_follow_the_mirror(people, write):
    index = CocoIndex.load(*write(people))
    augmentation = Augmentation(resize=Resize(shortest=(120,), longest=160), flip=1.0)
    loader = train_loader(index, augmentation=augmentation, shape=SHAPE, batch_size=2, workers=1)
    batch = next(iter(loader))
    for b, image_id in enumerate(batch["image_ids"].tolist()):
        keypoints = index.keypoints[index.instances(index.position(image_id))][:2]
        there = batch["keypoints"][b, :2].numpy()
        labelled = keypoints[:, 3, 2] > 0  # left ear
        np.testing.assert_array_equal(there[labelled, 4, 0], 160 - keypoints[labelled, 3, 0] / 2)


def test_images_with_few_keypoints_are_left_out(people, write):
    index = CocoIndex.load(*write(people))
    labelled = [int((index.keypoints[index.instances(n), :, 2] > 0).sum()) for n in range(5)]
    assert min(labelled) < 25 < max(labelled)
    augmentation = Augmentation(resize=Resize(shortest=(120,), longest=160))
    options = {"augmentation": augmentation, "shape": SHAPE, "batch_size": 1}
    assert train_loader(index, **options, min_keypoints=25).num_images == sum(n >= 25 for n in labelled)
    with pytest.raises(DataError, match="no image with at least 999 labelled keypoints to train on"):
        train_loader(index, **options, min_keypoints=999)


def test_numbers_of_keypoints_must_agree(people, write, val):
    index = CocoIndex.load(*write(people))
    with pytest.raises(DataError, match="has 17 keypoints an instance, but the detector expects 5"):
        train_loader(index, augmentation=Augmentation(), shape=replace(SHAPE, keypoints=5), batch_size=1)
    for annotation in people["annotations"]:
        annotation.pop("keypoints", None)
    bare = CocoIndex.load(*write(people))
    with pytest.raises(DataError, match="has no labelled keypoint"):
        train_loader(bare, augmentation=Augmentation(), shape=SHAPE, batch_size=1)
    with pytest.raises(DataError, match="has no keypoints to evaluate against"):
        evaluate(val, [], ["keypoints"])


def noisy(index: CocoIndex) -> list[dict]:
    random = np.random.default_rng(1)
    rows = []
    for position, image_id in enumerate(index.image_ids.tolist()):
        part = index.instances(position)
        keypoints = index.keypoints[part].astype(np.float64)
        keypoints[..., :2] += random.normal(0, 1.5, keypoints[..., :2].shape)
        keypoints[..., 2] = 1
        scores = random.random(len(keypoints))
        rows += to_results(index, image_id, index.boxes[part], scores, index.labels[part], keypoints=keypoints)
    return rows


def test_metrics_equal_pycocotools(people, write, tmp_path):
    index = CocoIndex.load(*write(people))
    rows = noisy(index)
    ours = evaluate(index, rows, ["bbox", "keypoints"])["keypoints"]
    # As its demonstration does: rows of a keypoint results file have no boxes; persons alone are evaluated.
    for annotation in people["annotations"]:
        annotation.setdefault("iscrowd", 0)
    people["annotations"] = [a for a in people["annotations"] if a["category_id"] == 1]
    (tmp_path / "truth.json").write_text(json.dumps(people))
    (tmp_path / "rows.json").write_text(json.dumps([{k: v for k, v in row.items() if k != "bbox"} for row in rows]))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(tmp_path / "truth.json"))
        reference = COCOeval(truth, truth.loadRes(str(tmp_path / "rows.json")), "keypoints")
        reference.evaluate()
        reference.accumulate()
        reference.summarize()
    numbers = {name: value for name, value in ours.items() if "/" not in name}
    assert list(numbers) == ["AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl"]
    assert list(numbers.values()) == reference.stats.tolist()
    assert 0.2 < ours["AP"] < 0.95
    assert ours["AP/person"] == ours["AP"]
    of_person = evaluate(index, rows, ["keypoints"], protocol=Protocol(classes=("person",)))["keypoints"]
    assert of_person == {name: value for name, value in ours.items() if name != "AP/dog"}
    assert ours["AP/dog"] == -1


def test_perfect_results_and_sigmas(content, write):
    content["categories"] = [{"id": 9, "name": "cat", "keypoints": ["a", "b"]}, {"id": 4, "name": "dog"}]
    content["annotations"][0]["keypoints"] = [4, 5, 2, 9, 6, 1]
    index = CocoIndex.load(*write(content))

    def score(shift: float, index: CocoIndex = index) -> float:
        keypoints = np.array([[[4 + shift, 5, 1], [9, 6, 1]]])
        return evaluate(index, to_results(index, 7, index.boxes[1:], [1.0], [1], keypoints=keypoints), ["keypoints"])[
            "keypoints"
        ]["AP/cat"]

    assert score(0) == pytest.approx(1)
    # OKS = (1 + exp(-d^2 / (2 area (2 sigma)^2))) / 2 with area 60: 0.63 for d = 1.6, above three of ten thresholds.
    assert (1 + np.exp(-(1.6**2) / (2 * 60 * (2 * 0.067) ** 2))) / 2 == pytest.approx(0.652, abs=1e-3)
    assert score(1.6) == pytest.approx(0.4)
    wide = replace(index, skeleton=replace(index.skeleton, sigmas=(0.5, 0.5)))
    assert score(1.6, wide) == pytest.approx(1)


def test_wrong_rows(people, write):
    index = CocoIndex.load(*write(people))
    row = noisy(index)[0]
    with pytest.raises(DataError, match="Results without 'keypoints' cannot be evaluated as keypoints"):
        evaluate(index, [row, {k: v for k, v in row.items() if k != "keypoints"}], ["keypoints"])
    with pytest.raises(DataError, match="'keypoints' of result 0 must be 51 finite numbers"):
        evaluate(index, [{**row, "keypoints": [1.0] * 6}], ["keypoints"])


def test_rows_have_three_numbers_a_keypoint():
    keypoints = np.array([[[1, 2, 1], [3.5, 4, 0.25]]], dtype=np.float32)
    (row,) = to_results((7,), 3, np.array([[0, 0, 5, 5]]), np.array([0.5]), np.array([0]), keypoints=keypoints)
    assert row["keypoints"] == [1, 2, 1, 3.5, 4, 0.25]
    assert json.loads(json.dumps(row)) == row


def test_files_of_keypoints_are_found(dataset, people, write):
    index = load_split(dataset, "train", keypoints=True)
    assert index.annotation_file.name == "person_keypoints_train.json"
    assert index.skeleton.names == ("middle", "left", "right", "top", "bottom")
    plain = load_split(dataset, "train")
    assert plain.skeleton is None
    np.testing.assert_array_equal(plain.boxes, index.boxes)
    assert default_splits(dataset, keypoints=True) == ("train", "val")
    file, _ = write(people)  # instances_train.json, which holds keypoints
    assert find_splits(file.parents[1], keypoints=True)["train"].annotation_file == file


def test_keypoints_of_the_synthetic_shapes(dataset):
    index = load_split(dataset, "train", keypoints=True)
    left, right, top, bottom = np.moveaxis(index.keypoints[:, 1:], 1, 0)
    whole = (index.keypoints[..., 2] > 0).all(axis=1)
    assert whole.sum() > 40
    assert (left[whole, 0] <= right[whole, 0]).all()
    assert (top[whole, 1] <= bottom[whole, 1]).all()
    for n, side in ((0, left), (2, right)):
        seen = (side[:, 2] == 2) & whole
        np.testing.assert_allclose(index.boxes[seen, n], side[seen, 0], atol=2)
    assert (index.keypoints[..., 2] == 1).any()
    assert not index.keypoints[index.crowd].any()


def test_skeletons_are_drawn():
    image = np.full((300, 500, 3), 128, np.uint8)
    keypoints = np.array([[[100, 200, 2], [200, 200, 1], [300, 100, 0]]], float)
    drawn = Drawn(
        boxes=np.array([[50.0, 50, 350, 250]]), labels=np.array([0]), keypoints=keypoints, limbs=((0, 1), (1, 2))
    )
    picture = np.asarray(draw(image, drawn, ["x"], boxes=False))
    assert (picture[200, 100:200] != 128).any(axis=1).all()
    # The hidden end is hollow, the other one filled like the limb; nothing is drawn to a keypoint without a label.
    assert picture[200, 200].tolist() == [255, 255, 255]
    assert picture[200, 100].tolist() == picture[200, 150].tolist() != [255, 255, 255]
    assert (picture[90:195, 215:] == 128).all()
    found = replace(drawn, scores=np.array([0.9]))
    assert np.asarray(draw(image, found, ["x"], boxes=False))[200, 200].tolist() != [255, 255, 255]


def test_ground_truth_and_results_carry_them(people, write):
    index = CocoIndex.load(*write(people))
    truth = ground_truth_of(index, 0)
    np.testing.assert_array_equal(truth.keypoints, index.keypoints[:2])
    assert truth.limbs == index.skeleton.limbs
    rows = [row for row in noisy(index) if row["image_id"] == 0]
    found = detections_of(index, rows, min_score=0)
    assert found.keypoints.shape == (2, 17, 3)
    np.testing.assert_array_equal(found.keypoints[1].reshape(-1), rows[1]["keypoints"])
    assert found.limbs == index.skeleton.limbs
    assert detections_of(index, []).keypoints is None
    draw(np.zeros((240, 320, 3), np.uint8), found, index.categories)
