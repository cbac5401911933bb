"""Data sets in the layouts that annotation tools write, small, on disk."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask

from det_coco import (
    Augmentation,
    BatchShape,
    CocoIndex,
    DataError,
    Resize,
    default_buckets,
    default_split,
    default_splits,
    eval_loader,
    evaluate,
    find_splits,
    ground_truth_of,
    hold_out,
    load_split,
    train_loader,
    write_split,
)
from det_coco.formats import ContentSplit, Format, register

BOX = {"category_id": 1, "bbox": [54, 19, 54, 46], "area": 2484, "iscrowd": 0}
POLYGON = {"segmentation": [[54, 19, 108, 19, 108, 65, 54, 65]]}
CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]


def content(names: list[str], **changes: Any) -> dict[str, Any]:
    """A COCO file of pictures of 160 x 120 with a cat each."""
    images = [{"id": i, "file_name": name, "height": 120, "width": 160} for i, name in enumerate(names, 1)]
    objects = [{"id": i, "image_id": i, **BOX, **POLYGON} for i in range(1, len(names) + 1)]
    return {"images": images, "annotations": objects, "categories": CATEGORIES} | changes


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    """Write annotation files and pictures under their paths; gives the folder."""

    def put(files: dict[str, Any], pictures: list[str] = ()) -> Path:
        root = tmp_path / "farm"
        for name, value in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(json.dumps(value))
        for name in pictures:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((120, 160, 3), 90, np.uint8)).save(root / name)
        return root

    return put


# The files as the tools write them: {annotation file: names in it}, pictures, {split: (file, folder)}.
# Run: supervision 0.31.2, datumaro 1.13.12, sahi 0.12.8. Read: label-studio-sdk 2.1.2, fiftyone 1.22.1.
LAYOUTS: dict[str, tuple[dict[str, list[str]], list[str], dict[str, tuple[str, str]]]] = {
    "COCO 2017": (
        {"annotations/instances_train2017.json": ["a.png"], "annotations/instances_val2017.json": ["b.png"],
         "annotations/person_keypoints_val2017.json": ["b.png"]},
        ["train2017/a.png", "val2017/b.png"],
        {"train2017": ("annotations/instances_train2017.json", "train2017"),
         "val2017": ("annotations/instances_val2017.json", "val2017")},
    ),
    "a part of COCO": (
        {"annotations/instances_val2017_100.json": ["b.png"]},
        ["train2017/a.png", "val2017/b.png"],
        {"val2017_100": ("annotations/instances_val2017_100.json", "val2017")},
    ),
    "COCO's test-dev": (
        {"annotations/image_info_test-dev2017.json": ["a.png"]},
        ["test2017/a.png", "val2017/b.png"],
        {"test-dev2017": ("annotations/image_info_test-dev2017.json", "test2017")},
    ),
    "COCO 2014's parts": (
        {"annotations/instances_minival2014.json": ["b.png"], "annotations/instances_train2014.json": ["a.png"]},
        ["train2014/a.png", "val2014/b.png"],
        {"minival2014": ("annotations/instances_minival2014.json", "val2014"),
         "train2014": ("annotations/instances_train2014.json", "train2014")},
    ),
    "Roboflow": (
        {f"{split}/_annotations.coco.json": ["a_jpg.rf.0f3c.png"] for split in ("train", "valid", "test")},
        [f"{split}/a_jpg.rf.0f3c.png" for split in ("train", "valid", "test")],
        {split: (f"{split}/_annotations.coco.json", split) for split in ("train", "valid", "test")},
    ),
    "CVAT, a task": (
        {"annotations/instances_default.json": ["a.png"]},
        ["images/a.png"],
        {"default": ("annotations/instances_default.json", "images")},
    ),
    "CVAT, a project": (
        {"annotations/instances_Train.json": ["a.png"], "annotations/instances_Validation.json": ["b.png"]},
        ["images/Train/a.png", "images/Validation/b.png"],
        {"Train": ("annotations/instances_Train.json", "images/Train"),
         "Validation": ("annotations/instances_Validation.json", "images/Validation")},
    ),
    "Datumaro": (
        {"annotations/instances_train.json": ["sub/a.png"], "annotations/stuff_train.json": ["sub/a.png"],
         "annotations/image_info_train.json": ["sub/a.png"], "annotations/instances_val.json": ["b.png"]},
        ["images/train/sub/a.png", "images/val/b.png"],
        {"train": ("annotations/instances_train.json", "images/train"),
         "val": ("annotations/instances_val.json", "images/val")},
    ),
    "Label Studio": ({"result.json": ["images/a.png"]}, ["images/a.png"], {"result": ("result.json", ".")}),
    "Label Studio on Windows": (
        {"result.json": ["images\\a.png"]}, ["images/a.png"], {"result": ("result.json", "images")},
    ),
    "FiftyOne": ({"labels.json": ["a.png"]}, ["data/a.png"], {"labels": ("labels.json", "data")}),
    "FiftyOne's zoo": (
        {"train/labels.json": ["a.png"], "validation/labels.json": ["b.png"]},
        ["train/data/a.png", "validation/data/b.png"],
        {"train": ("train/labels.json", "train/data"), "validation": ("validation/labels.json", "validation/data")},
    ),
    "supervision": (
        {"train/annotations.json": ["a.png"], "val/annotations.json": ["b.png"]},
        ["train/images/a.png", "val/images/b.png"],
        {"train": ("train/annotations.json", "train/images"), "val": ("val/annotations.json", "val/images")},
    ),
    "sahi": (
        {"sliced_coco.json": ["a_0_0_0_256_256.png"]},
        ["a_0_0_0_256_256.png"],
        {"sliced_coco": ("sliced_coco.json", ".")},
    ),
    "a folder named as the file": ({"farm.json": ["a.png"]}, ["farm/a.png"], {"farm": ("farm.json", "farm")}),
    "files beside folders": (
        {"train.json": ["a.png"], "val.json": ["b.png"]},
        ["train/a.png", "val/b.png"],
        {"train": ("train.json", "train"), "val": ("val.json", "val")},
    ),
    "one folder for all pictures": (
        {"annotations/train.json": ["a.png"], "annotations/test.json": ["b.png"]},
        ["JPEGImages/a.png", "JPEGImages/b.png"],
        {"test": ("annotations/test.json", "JPEGImages"), "train": ("annotations/train.json", "JPEGImages")},
    ),
    "words anywhere in the names": (
        {"farm_train_coco.json": ["a.png"], "farm_val_coco.json": ["b.png"]},
        ["Train/a.png", "Val/b.png"],
        {"train": ("farm_train_coco.json", "Train"), "val": ("farm_val_coco.json", "Val")},
    ),
    "supervisely": (
        {"ds1/annotations/instances.json": ["a.png"], "ds2/annotations/instances.json": ["b.png"]},
        ["ds1/images/a.png", "ds2/images/b.png"],
        {"ds1": ("ds1/annotations/instances.json", "ds1/images"),
         "ds2": ("ds2/annotations/instances.json", "ds2/images")},
    ),
    "folders within": (
        {"annotations.json": ["batch_1/a.png", "batch_2/a.png"]},
        ["batch_1/a.png", "batch_2/a.png"],
        {"annotations": ("annotations.json", ".")},
    ),
    "a folder of a split for all": ({"labels.json": ["a.png"]}, ["train/a.png"], {"labels": ("labels.json", "train")}),
    "somewhere below": (
        {"annotations.json": ["a.png"]},
        ["recordings/monday/left/a.png"],
        {"annotations": ("annotations.json", "recordings/monday/left")},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_is_found(name, put):
    files, pictures, expected = LAYOUTS[name]
    root = put({file: content(names) for file, names in files.items()}, pictures)
    splits = find_splits(root)
    places = {
        split: (found.annotation_file.relative_to(root).as_posix(), found.image_folder.relative_to(root).as_posix())
        for split, found in splits.items()
    }
    assert places == expected
    for found in splits.values():
        index = found.load()
        assert all(index.path(position).is_file() for position in range(len(index)))


def test_files_that_are_no_annotations_are_left_aside(put):
    rows = [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]
    labelme = {"imagePath": "a.png", "shapes": [], "images": []}
    files = {
        "package.json": {"name": "x"},
        "predictions.json": rows,
        "a.json": labelme,
        "notes.json": content(["a.png"]),
    }
    assert list(find_splits(put(files, ["a.png"]))) == ["notes"]


def test_each_side_has_its_own_default(put):
    files = {
        "annotations/instances_train.json": content(["a.png"]),
        "annotations/instances_valid.json": content(["b.png"]),
    }
    root = put(files, ["train/a.png", "valid/b.png"])
    assert default_splits(root) == ("train", "valid")


@pytest.mark.parametrize(
    ("names", "train", "val"),
    [
        (["train2017", "val2017", "train", "val"], "train2017", "val2017"),
        (["train2014", "val2014", "test2014"], "train2014", "val2014"),
        (["Train", "Test"], "Train", "Test"),
        (["train", "train_small", "valid", "test"], "train", "valid"),
        (["training", "validation"], "training", "validation"),
        (["trainval", "test"], None, "test"),
        (["2019", "2020"], None, None),
        (["val2017"], "val2017", "val2017"),
        (["devices", "trains"], None, None),
    ],
)
def test_default_split(names, train, val, put):
    files = {f"annotations/instances_{name}.json": content(["a.png"]) for name in names}
    splits = find_splits(put(files, ["images/a.png"]))
    assert (default_split(splits, "train"), default_split(splits, "val")) == (train, val)


def test_files_without_truth_are_no_default(put):
    files = {
        "annotations/instances_train2017.json": content(["a.png"]),
        "annotations/image_info_test2017.json": content(["b.png"], annotations=[]),
    }
    root = put(files, ["train2017/a.png", "test2017/b.png"])
    assert default_split(find_splits(root), "val") is None
    with pytest.raises(DataError, match=r"no split to evaluate on by its name .*; it has: test2017, train2017"):
        default_splits(root)
    index = load_split(root, "test2017", require_objects=False)
    assert (len(index), index.num_instances, index.image_ids.tolist()) == (1, 0, [1])


@pytest.mark.parametrize("missing", ["annotations", "categories"])
def test_a_file_of_images_alone(missing, put):
    given = content(["a.png"], annotations=[])
    del given[missing]
    root = put({"annotations/image_info_test.json": given}, ["images/a.png"])
    with pytest.raises(DataError):
        load_split(root, "test")
    index = load_split(root, "test", require_objects=False)
    assert index.image_ids.tolist() == [1]
    assert index.num_instances == 0


def test_an_annotation_file_alone(put):
    root = put({"boxes/farm.json": content(["a.png", "b.png"])}, ["photos/a.png", "photos/b.png"])
    with pytest.raises(DataError, match=r"The image folder .* does not exist\.$"):
        find_splits(root / "boxes" / "farm.json")["farm"].load()
    put({"farm.json": content(["a.png", "b.png"])}, [])
    assert len(find_splits(root / "farm.json")["farm"].load()) == 2


@pytest.mark.parametrize(
    "name",
    ["images\\im001.png", "train/im001.png", "im%30%30%31.png", "https://a.b/c/im001.png?raw=1", "/home/me/im001.png",
     "../../farm/im001.png", "im001.png"],
)  # fmt: skip
def test_names_that_do_not_fit_the_folder(name, put, caplog):
    root = put({"annotations/instances_train.json": content([name])}, ["train/im001.png"])
    with caplog.at_level(logging.WARNING, "det_coco"):
        index = load_split(root, "train")
    assert index.path(0).resolve() == (root / "train" / "im001.png").resolve()


@pytest.mark.parametrize("name", ["../../secret.png", "/etc/hostname", "..\\..\\secret.png"])
def test_names_that_leave_the_data_set_are_not_followed(name, put, tmp_path):
    put({}, ["../secret.png"])
    root = put({"annotations/instances_train.json": content([name])}, ["train/im001.png"])
    with pytest.raises(DataError, match="missing from"):
        load_split(root, "train")


@pytest.mark.parametrize("folders", [("train2017/", "val2017/"), ("", ""), ("images/", "images/")])
def test_lvis(put, folders, caplog):
    address = "http://images.cocodataset.org/{}2017/00000000000{}.png"
    given = content(["", ""])
    for number, (image, split) in enumerate(zip(given["images"], ("train", "val"), strict=True), 1):
        del image["file_name"]
        image |= {
            "coco_url": address.format(split, number), "neg_category_ids": [2], "not_exhaustive_category_ids": [1],
        }  # fmt: skip
    given["categories"] = [{**category, "frequency": "r"} for category in CATEGORIES]
    # LVIS has the objects first.
    given = {key: given[key] for key in ("annotations", "images", "categories")}
    pictures = [f"{folder}00000000000{number}.png" for number, folder in enumerate(folders, 1)]
    root = put({"annotations/lvis_v1_val.json": given}, [*pictures, "train2017/000000000002.png"])
    with caplog.at_level(logging.WARNING, "det_coco"):
        index = load_split(root, "val")
    assert not caplog.records  # that the pictures are named by their addresses is no news
    assert [index.path(n) for n in (0, 1)] == [root / picture for picture in pictures]
    assert index.federation is not None
    assert index.federation.negative.tolist() == [[0, 1], [1, 1]]
    assert index.federation.not_exhaustive.tolist() == [[0, 0], [1, 0]]


OTHERS = {
    "panoptic": (
        {"images": [], "annotations": [{"image_id": 1, "file_name": "1.png", "segments_info": []}], "categories": []},
        "a panoptic file",
    ),
    "captions": ({"images": [], "annotations": [{"image_id": 1, "id": 1, "caption": "A cat."}]}, "a file of captions"),
    "results": ([{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.9}], "a results file"),
    "label studio": ([{"id": 1, "data": {"image": "a.png"}, "annotations": []}], "Label Studio's own JSON"),
    "createml": ([{"image": "a.png", "annotations": []}], "a CreateML file"),
    "videos": ({"videos": [], "annotations": [], "categories": []}, "a file of video instances"),
    "geojson": ({"type": "FeatureCollection", "features": []}, "GeoJSON"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_named_as_what_they_are(name, put):
    given, kind = OTHERS[name]
    root = put({"annotations/instances_val.json": given}, ["val/a.png"])
    file = root / "annotations" / "instances_val.json"
    with pytest.raises(DataError, match=f"instances_val.json is {kind}"):
        CocoIndex.load(file, root / "val")
    for path in (root, file):
        with pytest.raises(DataError, match=f"instances_val.json is {kind}"):
            load_split(path, "val")


def test_a_registered_format_is_asked_where_there_is_no_coco_file(put):
    root = put({}, ["a.png", "b.png"])

    def read() -> dict[str, Any]:
        return content(["a.png", "b.png"])

    def splits(path: Path) -> dict[str, ContentSplit]:
        return {"train": ContentSplit(source=path / "cats.txt", image_folder=path, read=read)}

    with pytest.raises(DataError, match="is not a COCO data set"):
        find_splits(root)
    (root / "cats.txt").touch()
    register(Format(name="cats", recognises=lambda path: (path / "cats.txt").is_file(), splits=splits))
    index = load_split(root, "train")
    assert index.num_instances == 2
    held = hold_out(index)
    write_split(root / "split.json", held, root, "train")
    assert load_split(root / "split.json", "val").fingerprint == held.val.fingerprint
    put({"farm.json": content(["a.png"])})
    assert list(find_splits(root)) == ["farm"]


@pytest.mark.parametrize(
    ("text", "message"),
    [('{"images": [{"id": 1', "ends too early"), ("", "is empty"), ("[1, 2]", "not a COCO annotation file")],
)
def test_what_is_wrong_with_a_file_is_said(text, message, put):
    file = put({}, ["a.png"]) / "farm.json"
    file.write_text(text)
    with pytest.raises(DataError, match=message):
        load_split(file, "farm")
    picture = file.with_name("a.png")
    with pytest.raises(DataError, match=r"a.png is not a data set: neither a COCO annotation file nor"):
        find_splits(picture)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("instances_train.json.gz", b"\x1f\x8b\x08", r"train\.json\.gz is compressed by gzip; unpack it \(gunzip\)\.$"),
        ("annotations.zip", b"PK\x03\x04", r"annotations\.zip is a zip archive; unpack it\.$"),
        ("result.json", b"version https://git-lfs.github.com/spec/v1\n", "result.json is a pointer of Git LFS"),
        ("result.json", b"{'images': []}", "result.json is not valid JSON: it is in Python's notation"),
    ],
)
def test_what_has_to_be_unpacked_is_named(name, data, message, put):
    root = put({}, ["train/a.png"])
    (root / name).write_bytes(data)
    with pytest.raises(DataError, match=message):
        find_splits(root)
    with pytest.raises(DataError, match=message):
        next(iter(find_splits(root / name).values())).load()


def test_nothing_reads_the_file_again(put):
    root = put({"farm.json": content(["a.png", "b.png"])}, ["a.png", "b.png"])
    index = load_split(root, "farm")
    (root / "farm.json").unlink()
    resize = Resize(shortest=(96,), longest=128)
    shape = BatchShape(buckets=default_buckets(resize), max_instances=4)
    batches = [
        next(iter(train_loader(index, augmentation=Augmentation(resize=resize), shape=shape, batch_size=2))),
        *eval_loader(index, resize=resize, shape=shape, batch_size=2, ground_truth=True),
    ]
    assert [int(batch["valid"].sum()) for batch in batches] == [2, 2]
    rle = mask.encode(np.asfortranarray(mask.decode(mask.merge(mask.frPyObjects(POLYGON["segmentation"], 120, 160)))))
    rows = [{"image_id": i, **BOX, "score": 0.9, "segmentation": rle} for i in (1, 2)]
    metrics = evaluate(index, rows, ["bbox", "segm", "boundary"])
    assert [metrics[task]["AP"] for task in metrics] == [1, 1, 1]
    assert len(ground_truth_of(index, 2).boxes) == 1


def test_a_damaged_file_is_not_passed_over(put):
    root = put({"annotations/instances_val.json": content(["a.png"])}, ["val/a.png"])
    (root / "annotations" / "instances_train.json").write_text("[1, 2]")
    assert list(find_splits(root)) == ["train", "val"]
    with pytest.raises(DataError, match="is not a COCO annotation file"):
        load_split(root, "train")


def test_files_of_keypoints(put):
    places = ["annotations/person_keypoints_train.json", "annotations/image_info_train.json"]
    root = put({place: content(["a.png"]) for place in places}, ["train/a.png"])
    for keypoints in (False, True):
        assert find_splits(root, keypoints=keypoints)["train"].source.name == "person_keypoints_train.json"
    put({"annotations/instances_val.json": content(["a.png"])}, ["val/a.png"])
    assert find_splits(root)["train"].source.name == "image_info_train.json"
    assert find_splits(root, keypoints=True)["train"].source.name == "person_keypoints_train.json"


@pytest.mark.parametrize("folders", [("train", "val"), ("images/train", "images/val"), ("train/images", "val/images")])
def test_pictures_of_another_split_are_never_taken(folders, put):
    """Not even where none of its own is there."""
    files = {f"annotations/instances_{split}.json": content(["a.png", "b.png"]) for split in ("train", "val")}
    root = put(files, [f"{folders[0]}/a.png", f"{folders[0]}/b.png", f"{folders[1]}/a.png"])
    with pytest.raises(DataError, match=r"1 of the 2 images .* is missing from .*val.* \(b.png\)"):
        load_split(root, "val")
    (root / folders[1] / "a.png").unlink()
    for path in (root, root / "annotations" / "instances_val.json"):
        with pytest.raises(DataError, match=r"2 of the 2 images .* are missing from .*val"):
            load_split(path, "val")
    (root / folders[1]).rmdir()
    with pytest.raises(DataError, match=r"does not exist|are missing from"):
        load_split(root, "val")
