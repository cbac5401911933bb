import bz2
import contextlib
import gzip
import json
import logging
import lzma
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
        (_annotation("category_id", 5), r"lacks the categories of 1 annotation, for example of annotation 1 with "
         r"category_id 5 \(known: 4, 9\)"),
        (_annotation("image_id", 5), "lacks the images of 1 annotation, for example of annotation 1 with image_id 5"),
        (_annotation("bbox", [1, float("nan"), 3, 4]), "annotation 1 .image 7. has a box with NaN"),
        (_annotation("bbox", [1, 2, float("inf"), 4]), "annotation 1 .image 7. has a box with NaN"),
        (_annotation("bbox", [1, 2, 3]), "'bbox' must be four numbers"),
        (_annotation("bbox", [1, 2, 3, None]), "'bbox' must be four numbers"),
        (_annotation("bbox", "1234"), "'bbox' must be four numbers"),
        (lambda c: c["annotations"][0].pop("bbox"), "annotation 1 has no 'bbox'"),
        (lambda c: c["annotations"][1].pop("image_id"), "annotation 2 has no 'image_id'"),
        (_annotation("iscrowd", "0"), "'iscrowd' of annotation 1 must be 0 or 1"),
        (_image("height", -1), "'height' of image 7 must be 1 to"),
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
        ("", "x.json is empty; copy or download it again"),
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


def not_utf8(text: str) -> bytes:
    return text.replace("cat", "c\u00e4t").encode("latin-1")


PACKED = {
    "gzip": (gzip.compress, r"is compressed by gzip; unpack it \(gunzip\)\.$"),
    "bzip2": (bz2.compress, "is compressed by bzip2; unpack it"),
    "xz": (lzma.compress, "is compressed by xz; unpack it"),
    "zip": (lambda text: b"PK\x03\x04" + text, r"is a zip archive; unpack it\.$"),
    "zeros": (lambda text: bytes(len(text)), "is all zeros; copy or download it again"),
    "spaces": (lambda _: b" \n ", "is empty; copy or download it again"),
    "a web page": (lambda _: b"\n <!DOCTYPE html><html><title>Log in", "is a web page, so its download failed"),
    "a web page in capitals": (lambda _: b"<HTML><BODY>404</BODY></HTML>", "is a web page, so its download failed"),
    "Git LFS": (lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "run `git lfs pull`"),
    "trailing comma in an object": (lambda text: text[:-1] + b",\n}", r"a comma before a closing bracket .*Remove the"),
    "trailing comma in a list": (lambda text: text.replace(b"}]}", b"},]}"), "a comma before a closing bracket"),
    "comment": (lambda text: b"{// ours\n" + text[1:], r"a comment, which JSON does not know \(line 1, column 2"),
    "comment of a shell": (lambda text: b"# ours\n" + text, "a comment, which JSON does not know"),
    "block comment": (lambda text: text[:-1] + b"/* end */}", "a comment, which JSON does not know"),
    "Python": (lambda text: text.replace(b'"', b"'"), r"it is in Python's notation .*Write it with json\.dump\."),
    "Python's None": (lambda text: text.replace(b'"iscrowd": 0', b'"iscrowd": None'), "it is in Python's notation"),
    "JSON Lines": (lambda text: text + b"\n" + text, r"several values one after the other, as JSON Lines"),
    "one bracket more": (lambda text: text + b"}", "it goes on after its end"),
    "Latin-1": (lambda text: not_utf8(text.decode()), r"byte \d+ is not UTF-8 text\. Save it as UTF-8"),
    "cut off in a word": (lambda text: text[:-1] + b', "a": tru', "it ends too early, so it is probably truncated"),
    "cut off in a number": (lambda text: text[:-1] + b', "a": -', "it ends too early, so it is probably truncated"),
    "cut off in a text": (lambda text: text[:-1] + b', "a": "b', "it ends too early, so it is probably truncated"),
}  # fmt: skip


@pytest.mark.parametrize("form", PACKED)
def test_the_true_reason_is_said_of_what_is_no_json(content, write, form):
    file, folder = write(content)
    change, message = PACKED[form]
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(DataError, match=message) as caught:
        CocoIndex.load(file, folder)
    assert str(file) in str(caught.value)
    assert "truncated" in message or "truncated" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_json_in_any_encoding_is_read(content, write, encoding):
    file, folder = write(content)
    expected = CocoIndex.load(file, folder)
    file.write_bytes(file.read_text().encode(encoding))
    assert CocoIndex.load(file, folder).fingerprint == expected.fingerprint
    assert find_splits(folder.parent)["train"].load().fingerprint == expected.fingerprint


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.999])
def test_truncated_json(content, write, share):
    file, folder = write(content)
    text = file.read_text()
    file.write_text(text[: int(len(text) * share)])
    with pytest.raises(DataError, match=r"it ends too early, so it is probably truncated \(line 1, column \d+"):
        CocoIndex.load(file, folder)


@pytest.mark.parametrize("value", [None, 0, "missing"])
@pytest.mark.parametrize("side", ["height", "width"])
def test_sizes_that_are_missing_are_those_of_the_pictures(content, write, caplog, side, value):
    """As in some exports of Label Studio."""
    file, folder = write(content)
    expected = CocoIndex.load(file, folder)
    for image in content["images"]:
        image[side] = value
        if value == "missing":
            del image[side]
    file.write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING, "det_coco"):
        index = CocoIndex.load(file, folder)
    assert "took the height and width of 2 images without them from the pictures (7, 3)" in caplog.text
    assert index.fingerprint == expected.fingerprint
    (folder / "a.png").unlink()
    with pytest.raises(DataError, match=r"missing from .*\(a.png\).*The file has no height and width for them"):
        CocoIndex.load(file, folder)


def test_missing_files(content, write, tmp_path):
    file, folder = write(content)
    with pytest.raises(DataError, match=r"annotation file .* does not exist"):
        CocoIndex.load(tmp_path / "no.json", folder)
    with pytest.raises(DataError, match=r"image folder .* does not exist"):
        CocoIndex.load(file, tmp_path / "no")
    (folder / "a.png").unlink()
    with pytest.raises(DataError, match=r"1 of the 2 images of .* is missing from .*train \(a.png\)"):
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
