import contextlib
import json
import logging
import pickle
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from det_coco import (
    BatchShape,
    CocoIndex,
    DataError,
    Resize,
    check_same_categories,
    default_splits,
    eval_loader,
    evaluate,
    find_splits,
    limits,
    load_split,
)


def test_categories_with_gaps_and_images_out_of_order(content, write):
    index = CocoIndex.load(*write(content))
    assert index.category_ids == (4, 9)
    assert index.class_names == ("dog", "cat")
    assert index.image_ids.tolist() == [3, 7]
    assert index.labels.tolist() == [0, 1]
    assert index.annotation_ids.tolist() == [2, 1]
    assert index.path(0).name == "a.png"
    assert index.image_size(7) == (40, 30)
    np.testing.assert_allclose(index.boxes[0], [2, 3, 12, 9])


def test_order_within_an_image_is_the_files(content, write):
    template = content["annotations"][0]
    content["annotations"] = [{**template, "id": i, "image_id": 7 if i % 2 else 3} for i in (9, 4, 7, 2, 3)]
    index = CocoIndex.load(*write(content))
    assert index.annotation_ids.tolist() == [4, 2, 9, 7, 3]
    assert index.image_instances.tolist() == [0, 2, 5]


def test_bad_boxes_are_clipped_dropped_and_counted(content, write, caplog):
    template = content["annotations"][0]
    boxes = {
        11: [5, 5, 0, 4],
        12: [5, 5, -3, 4],
        13: [100, 5, 4, 4],
        14: [-5, -5, 10, 10],
        15: [25, 30, 50, 50],
        16: [0, 0, 30, 40.0000001],
    }
    content["annotations"] += [{**template, "id": i, "bbox": box} for i, box in boxes.items()]
    with caplog.at_level(logging.WARNING, "det_coco"):
        index = CocoIndex.load(*write(content))
    assert len(caplog.records) == 2
    assert "dropped 3 boxes without area inside the image (annotations 11, 12, 13)" in caplog.text
    assert "clipped 2 boxes reaching outside the image (annotations 14, 15)" in caplog.text
    kept = dict(zip(index.annotation_ids.tolist(), index.boxes.tolist(), strict=True))
    assert kept[14] == [0, 0, 5, 5]
    assert kept[15] == [25, 30, 30, 40]
    assert kept[16] == [0, 0, 30, 40]
    assert not {11, 12, 13} & set(kept)


def test_thin_polygons_are_dropped(content, write):
    content["annotations"][0]["segmentation"] = [[1, 1, 2, 2], [1, 1, 9, 1, 9, 9]]
    index = CocoIndex.load(*write(content))
    assert index.polygon_counts.tolist() == [1, 1]
    assert index.edge_counts.tolist() == [4, 3]


def _image(key, value):
    return lambda content: content["images"][0].update({key: value})


def _annotation(key, value):
    return lambda content: content["annotations"][0].update({key: value})


def _segmentation(value):
    return _annotation("segmentation", value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("categories"), "the key 'categories' is missing"),
        (lambda c: c.pop("annotations"), r"the key 'annotations' is missing \(it has: images, categories\)"),
        (lambda c: c.update(images={}), "'images' must be a list, got an object"),
        (lambda c: c.update(annotations=[]), "no object to learn from"),
        (lambda c: c.update(annotations=[1]), "annotation number 0 must be an object, got a num"),
        (lambda c: c.update(categories=[]), "has no category"),
        (lambda c: c["images"].append(c["images"][0]), r"gives 1 image id more than once \(7\)"),
        (lambda c: c["categories"].append({"id": 4, "name": "x"}), r"gives 1 category id more than once \(4\)"),
        (_annotation("category_id", 5), r"1 annotations have an unknown category id, the first is annotation 1 with "
         r"category_id 5 \(known: 4, 9\)"),
        (_annotation("image_id", 5), "images that are not in the file, the first is annotation 1"),
        (_annotation("bbox", [1, float("nan"), 3, 4]), "annotation 1 .image 7. has a box with NaN"),
        (_annotation("bbox", [1, 2, float("inf"), 4]), "annotation 1 .image 7. has a box with NaN"),
        (_annotation("bbox", [1, 2, 3]), "'bbox' must be four numbers"),
        (_annotation("bbox", [1, 2, 3, None]), "'bbox' must be four numbers"),
        (_annotation("bbox", "1234"), "'bbox' must be four numbers"),
        (lambda c: c["annotations"][0].pop("bbox"), "annotation 1 has no 'bbox'"),
        (lambda c: c["annotations"][1].pop("image_id"), "annotation 2 has no 'image_id'"),
        (_annotation("iscrowd", "0"), "'iscrowd' of annotation 1 must be 0 or 1"),
        (_image("height", 0), "'height' of image 7 must be 1 to"),
        (_image("file_name", 5), "'file_name' of image 7 must be a text, got 5"),
        (_segmentation([[1, 1, 2, 2, float("nan"), 3]]), "annotation 1 .image 7. has a polygon "
         "with NaN"),
        (_segmentation([[1, 1, 2, 2, "a", 3]]), "annotation 1 has a polygon with some"),
        (_segmentation([[1, 1, 2, 2, 3]]), "annotation 1 has a polygon with an odd"),
        (_segmentation([1, 1, 2, 2, 3, 3]), "must be a list of polygons, each a list"),
        (_segmentation(5), "must be a list of polygons or a run-length code"),
        (_segmentation({"counts": [1]}), "must have 'size' and 'counts'"),
        (_segmentation({"size": [30, 40], "counts": [1200]}), "is for .30, 40. pixels"),
        (_segmentation({"size": [40, 30], "counts": [1]}), "covers 1 pixels"),
        (_segmentation({"size": [40, 30], "counts": "~"}), "cannot be read"),
        (_segmentation({"size": [40, 30], "counts": [1300, -100]}), "negative run"),
    ],
)  # fmt: skip
def test_wrong_content(content, write, change, message):
    file, folder = write(content)
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message) as caught:
        CocoIndex.load(file, folder)
    assert str(file) in str(caught.value)
    assert str(caught.value).endswith((".", "}", "]"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "ends too early.*truncated.*character 0 of 0"),
        ("hello", "is not valid JSON: Expecting value"),
        ("[]", "holds a list, not an object.*predictions"),
        ("null", "holds null"),
        ("[" * 100000, "nested too deeply"),
        (b"\xff\xfe\xfa\x00", "is not (valid )?JSON"),
    ],
)
def test_not_coco(tmp_path, text, message):
    file = tmp_path / "x.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message):
        CocoIndex.load(file, tmp_path)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.999])
def test_truncated_json(content, write, share):
    file, folder = write(content)
    text = file.read_text()
    file.write_text(text[: int(len(text) * share)])
    with pytest.raises(DataError, match=r"(truncated|is not valid JSON).*line 1, column \d+"):
        CocoIndex.load(file, folder)


def test_missing_files(content, write, tmp_path):
    file, folder = write(content)
    with pytest.raises(DataError, match=r"annotation file .* does not exist"):
        CocoIndex.load(tmp_path / "no.json", folder)
    with pytest.raises(DataError, match=r"image folder .* does not exist"):
        CocoIndex.load(file, tmp_path / "no")
    (folder / "a.png").unlink()
    with pytest.raises(DataError, match=r"1 of the 2 images of .* are missing from .*train \(a.png\)"):
        CocoIndex.load(file, folder)
    assert len(CocoIndex.load(file, folder, check_images=False)) == 2


def test_images_in_sub_folders(content, write):
    file, folder = write(content)
    (folder / "deep").mkdir()
    shutil.move(folder / "a.png", folder / "deep" / "a.png")
    content["images"][1]["file_name"] = "deep/a.png"
    file.write_text(json.dumps(content))
    assert CocoIndex.load(file, folder).path(0).is_file()


def test_only_crowd_is_no_object(content, write):
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 1
    file, folder = write(content)
    with pytest.raises(DataError, match="2 annotations, but none with a usable box that is no crowd"):
        CocoIndex.load(file, folder)
    assert len(CocoIndex.load(file, folder, require_objects=False)) == 2


def test_different_categories(content, write):
    train = CocoIndex.load(*write(content))
    check_same_categories(train, train)
    content["categories"] = [{"id": 9, "name": "tiger"}, {"id": 4, "name": "dog"}, {"id": 12, "name": "owl"}]
    val = CocoIndex.load(*write(content, "val"))
    with pytest.raises(
        DataError, match=r"id 9: 'cat' in the first, 'tiger' in the second; id 12: missing in the first"
    ):
        check_same_categories(train, val)


def test_fingerprint_follows_content_not_place(content, write, tmp_path):
    file, folder = write(content)
    first = CocoIndex.load(file, folder).fingerprint
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    file.write_text(json.dumps(content, indent=3))
    assert CocoIndex.load(file, moved).fingerprint == first
    content["annotations"][0]["bbox"][0] = 3
    file.write_text(json.dumps(content))
    assert CocoIndex.load(file, moved).fingerprint != first


def test_layout(content, write, tmp_path):
    with pytest.raises(DataError, match=r"data set .*nowhere does not exist"):
        find_splits(tmp_path / "nowhere")
    with pytest.raises(
        DataError, match=r"is not a COCO data set: it has no annotations/instances_<split>.json"
    ) as error:
        find_splits(tmp_path)
    assert "YOLO needs a data.yaml" in str(error.value)
    write(content, "train")
    with pytest.raises(DataError, match=r"no split to evaluate on by its name \(val2017, val, .*\); it has: train\."):
        default_splits(tmp_path)
    write(content, "val")
    assert default_splits(tmp_path) == ("train", "val")
    for year in ("train2017", "val2017"):
        write(content, year)
    assert default_splits(tmp_path) == ("train2017", "val2017")
    assert len(load_split(tmp_path, "val2017")) == 2
    with pytest.raises(DataError, match=r"no split 'test' \(it has: train, train2017, val, val2017\)"):
        load_split(tmp_path, "test")


def test_pickled_index_is_the_same(index):
    copy = pickle.loads(pickle.dumps(index))
    assert copy.fingerprint == index.fingerprint
    assert copy.file_names.tolist() == index.file_names.tolist()
    assert copy.path(2) == index.path(2)


def test_unknown_image(index):
    with pytest.raises(DataError, match="no image with id 999999"):
        index.position(999999)


def test_photographs(coco_mini, pennfudan):
    train, val = (load_split(coco_mini, split) for split in default_splits(coco_mini))
    check_same_categories(train, val)
    assert (len(train), train.num_instances, len(val), val.num_instances) == (248, 2228, 62, 488)
    assert train.num_classes == 80
    assert max(train.category_ids) == 90
    assert train.crowd.sum() + val.crowd.sum() == 26
    people = load_split(pennfudan, "train")
    assert people.polygon_counts.tolist() == [1] * 337
    assert limits(train, val).max_instances == 51


junk = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 50), st.floats(), st.text(max_size=4), st.just([]), st.just({}),
    st.lists(st.floats(-50, 50), max_size=8), st.lists(st.lists(st.floats(-50, 50), max_size=9), max_size=3),
    st.fixed_dictionaries(
        {"size": st.just([40, 30]), "counts": st.one_of(st.text("0123oQ`", max_size=8), st.just([0, 1200]))}
    ),
)  # fmt: skip


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_other_value_is_refused_or_usable(content, write, data):
    """Whatever stands in one place of the file: a `DataError`, or an index that loads."""
    content = json.loads(json.dumps(content))
    file, folder = write(content)
    spot, key = content, data.draw(st.sampled_from(sorted(content)))
    while isinstance(spot[key], list | dict) and spot[key] and data.draw(st.booleans()):
        spot = spot[key]
        key = data.draw(st.sampled_from(sorted(spot) if isinstance(spot, dict) else range(len(spot))))
    spot[key] = data.draw(junk)
    file.write_text(json.dumps(content))
    with contextlib.suppress(DataError):
        index = CocoIndex.load(file, folder)
        shape = BatchShape(buckets=((64, 64),))
        list(
            eval_loader(index, resize=Resize(shortest=(30,), longest=64), shape=shape, batch_size=2, ground_truth=True)
        )
        evaluate(index, [])
