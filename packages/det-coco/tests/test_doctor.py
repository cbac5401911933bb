"""Faults of every kind, planted in a clean data set: each is named, and mended where the change is certain."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from det_coco.__main__ import main
from det_coco.doctor import check_data
from det_coco.doctor.kinds import KINDS
from det_coco.doctor.mending import write_mended
from det_coco.doctor.proposals import anchor_recall, propose_anchors
from testing import ROOT
from testing.faulty_data import HEIGHT, WIDTH, Data, annotation, mask_of, octagon, texture, write_clean

Planted = tuple[list[str], list[Any]]


@dataclass(frozen=True)
class Fault:
    """A fault, and what has to be found of it.

    Attributes:
        kind: of the finding.
        plant: does it; gives the files and the annotation ids that the finding has to name.
        follows: kinds of further findings that are true then.
        mended: whether the changes of the finding take it away.
    """

    kind: str
    plant: Callable[[Data], Planted]
    follows: tuple[str, ...] = ()
    mended: bool = True

    def __str__(self) -> str:
        return self.kind


# What is done to one object, image, picture or category.


def change(n: int, **values: Any) -> Callable[[Data], Planted]:
    """Give the first object of image n other values; None takes a value out, a function makes it of the object."""

    def plant(data: Data) -> Planted:
        record = data.objects(n)[0]
        edit(record, values)
        return [data.image(n)["file_name"]], [record.get("id")]

    return plant


def change_image(n: int, **values: Any) -> Callable[[Data], Planted]:
    def plant(data: Data) -> Planted:
        edit(data.image(n), values)
        return [data.image(n)["file_name"]] if "file_name" in data.image(n) else [], []

    return plant


def edit(record: dict[str, Any], values: dict[str, Any]) -> None:
    for key, value in values.items():
        if value is None:
            del record[key]
        else:
            record[key] = value(record) if callable(value) else value


def add(*records: dict[str, Any]) -> Callable[[Data], Planted]:
    def plant(data: Data) -> Planted:
        data.train["annotations"] += [dict(record) for record in records]
        return [], [record["id"] for record in records]

    return plant


def every(**values: Any) -> Callable[[Data], Planted]:
    def plant(data: Data) -> Planted:
        for record in data.train["annotations"]:
            edit(record, values)
        return [i["file_name"] for i in data.train["images"]], [a["id"] for a in data.train["annotations"]]

    return plant


def pixels(n: int, make: Callable[[Path], object]) -> Callable[[Data], Planted]:
    def plant(data: Data) -> Planted:
        make(data.path(n))
        return [data.path(n).name], []

    return plant


def categories(make: Callable[[list[dict[str, Any]]], object], *splits: str) -> Callable[[Data], Planted]:
    def plant(data: Data) -> Planted:
        for split in splits or data.splits:
            make(data.splits[split]["categories"])
        return [], []

    return plant


def new_class(number: int, name: str) -> Callable[[Data], Planted]:
    return categories(lambda rows: rows.append({"id": number, "name": name}))


def shifted(**by: float) -> Callable[[dict[str, Any]], list[float]]:
    return lambda record: [v + by.get(side, 0) for side, v in zip("xywh", record["bbox"], strict=True)]


def backwards(record: dict[str, Any]) -> list[float]:
    x, y, w, h = record["bbox"]
    return [x + w, y, -w, h]


def code_by_rows(record: dict[str, Any]) -> dict[str, Any]:
    """The mask of an object as run lengths that go by rows."""
    flat = mask_of(record["segmentation"]).ravel()
    bounds = np.concatenate(([0], np.flatnonzero(np.diff(flat.astype(np.int8))) + 1, [flat.size]))
    return {"size": [HEIGHT, WIDTH], "counts": np.diff(bounds).tolist()}


def in_units(unit: float) -> Callable[[dict[str, Any]], list[float]]:
    return lambda a: [v * unit / side for v, side in zip(a["bbox"], (WIDTH, HEIGHT, WIDTH, HEIGHT), strict=True)]


def corners(record: dict[str, Any]) -> list[float]:
    x, y, w, h = record["bbox"]
    return [x, y, x + w, y + h]


def centred(record: dict[str, Any]) -> list[float]:
    x, y, w, h = record["bbox"]
    return [x + w / 2, y + h / 2, w, h]


def rectangle(record: dict[str, Any]) -> list[list[float]]:
    x1, y1, x2, y2 = corners(record)
    return [[x1, y1, x2, y1, x2, y2, x1, y2]]


def box_area(record: dict[str, Any]) -> float:
    return record["bbox"][2] * record["bbox"][3]


# What is done to files of pictures.


def noise(height: int, width: int) -> Callable[[Path], None]:
    return lambda file: Image.fromarray(texture(99, height, width)).save(file)


def cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:2000])


def on_its_side(file: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(file).save(file, exif=exif)


def sixteen_bits(file: Path) -> None:
    Image.fromarray(np.asarray(Image.open(file).convert("L")).astype(np.uint16) * 16).save(file)


def transparent(file: Path) -> None:
    image = Image.open(file).convert("RGBA")
    image.putalpha(Image.new("L", image.size, 128))
    image.save(file)


def animated(file: Path) -> None:
    first = Image.open(file).convert("RGB")
    first.save(file, save_all=True, append_images=[Image.fromarray(texture(98))])


def small(data: Data) -> Planted:
    image = data.add_picture("small.png", texture(97, 30, 90))
    data.train["annotations"][-1].update(bbox=[30, 2, 33, 25], area=825, segmentation=[[30, 2, 63, 2, 63, 27, 30, 27]])
    return [image["file_name"]], []


# What is done to several.


def same_picture(n: int, split: str, make: Callable[[np.ndarray], np.ndarray]) -> Callable[[Data], Planted]:
    def plant(data: Data) -> Planted:
        original = np.asarray(Image.open(data.path(n)))
        return [data.path(n).name, data.add_picture(f"again{n}.png", make(original), split)["file_name"]], []

    return plant


def saved_worse(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((200, 150)).resize((WIDTH, HEIGHT))) // 8 * 8 + 6


def twins(data: Data) -> Planted:
    first = data.objects(44)[0]
    data.train["annotations"].append({**first, "id": 5044, "bbox": [v + 0.5 for v in first["bbox"]]})
    return ["train44.png"], [first["id"], 5044]


def two_labels(data: Data) -> Planted:
    first = data.objects(45)[0]
    data.train["annotations"].append({**first, "id": 5045, "category_id": 2})
    return ["train45.png"], [first["id"], 5045]


def copied(data: Data) -> Planted:
    for mine, other in zip(data.objects(47), data.objects(46), strict=True):
        mine.update(bbox=other["bbox"], area=other["area"], segmentation=other["segmentation"])
    return ["train46.png", "train47.png"], [a["id"] for a in data.objects(47)]


def listed_twice(data: Data) -> Planted:
    data.train["images"].append({**data.image(48), "id": 700})
    return ["train48.png"], []


def one_id_for_two(data: Data) -> Planted:
    data.add_picture("other.png", texture(96))
    data.train["images"][-1]["id"] = data.train["annotations"][-1]["image_id"] = data.image(49)["id"]
    return ["train49.png", "other.png"], []


def empty_image(data: Data) -> Planted:
    data.add_picture("empty.png", texture(95))
    data.train["annotations"].pop()
    return ["empty.png"], []


def unlisted(data: Data) -> Planted:
    Image.fromarray(texture(94)).save(data.root / "train" / "unlisted.png")
    return ["unlisted.png"], []


def crowded(data: Data) -> Planted:
    chosen = data.train["annotations"][:60]
    for record in chosen:
        record["iscrowd"] = 1
    return [], [record["id"] for record in chosen]


def nothing_to_see(data: Data) -> Planted:
    data.splits["val"]["annotations"] = []
    return [], []


def rare(data: Data, number: int, *splits: str) -> Planted:
    """A class with one object in some splits."""
    for content in data.splits.values():
        content["categories"].append({"id": number, "name": f"fish {number}"})
    for split in splits:
        owner = data.image(5, split)
        box = (100 - 40 * (number - 4), 84, 30, 30)
        data.splits[split]["annotations"].append(annotation(5000 + number, owner["id"], number, box))
    return ["train05.png"], [5000 + number]


def only_trained(data: Data) -> Planted:
    rare(data, 5, "train")
    return [], []


def mislabelled(data: Data) -> Planted:
    """Each class has a colour, and one red object is called a bird."""
    colours = {1: (200, 30, 30), 2: (30, 200, 30), 3: (30, 30, 200)}
    for n in range(len(data.train["images"])):
        image = np.array(Image.open(data.path(n)))
        for record in data.objects(n):
            image[mask_of(record["segmentation"]) > 0] = colours[record["category_id"]]
        Image.fromarray(image).save(data.path(n))
    record = data.objects(7)[0]
    record["category_id"] = 3
    return ["train07.png"], [record["id"]]


def points(n: int, *rows: tuple[float, float, int], **more: Any) -> Callable[[Data], Planted]:
    """Give each object two keypoints in its box, and one object others."""

    def plant(data: Data) -> Planted:
        for content in data.splits.values():
            for category in content["categories"]:
                category.update(keypoints=["nose", "tail"], skeleton=[[1, 2]])
            for record in content["annotations"]:
                if isinstance(record.get("bbox"), list) and "keypoints" not in record:
                    x, y = record["bbox"][:2]
                    record.update(keypoints=[x + 5, y + 5, 2, x + 9, y + 9, 1], num_keypoints=2)
        record = data.objects(n)[0]
        record.update(keypoints=[v for row in rows for v in row] or record["keypoints"], **more)
        return [data.image(n)["file_name"]], [record["id"]]

    return plant


def two_skeletons(data: Data) -> Planted:
    for number, category in enumerate(data.train["categories"]):
        category["keypoints"] = ["nose", f"tail {number}"]
    return [], []


LARGE = {"bbox": [2, 2, 150, 112], "area": 14800, "segmentation": [octagon(2, 2, 150, 112)]}
FLAT = {"bbox": [2, 40, 150, 12], "area": 1575, "segmentation": [octagon(2, 40, 150, 12)]}
WHOLE = {"bbox": [0, 0, WIDTH, HEIGHT], "area": 16800, "segmentation": [octagon(0, 0, WIDTH, HEIGHT)]}
SPECK = {"bbox": [50, 90, 2, 3], "area": 6, "segmentation": [octagon(50, 90, 2, 3)]}
BOWTIE = {"bbox": [20, 20, 40, 40], "area": 800, "segmentation": [[20, 20, 60, 60, 60, 20, 20, 60]]}
BEYOND = {"bbox": [0, 40, 35, 44], "area": 1300, "segmentation": [octagon(-9, 40, 44, 44)]}
OVER = {"bbox": [-10, 10, 30, 30], "area": 520, "segmentation": [octagon(0, 10, 20, 30)]}
FAULTS = [
    Fault("annotation_id_zero", change(0, id=0)),
    Fault("missing_annotation_id", change(23, id="x7")),
    Fault("missing_annotation_id", change(23, id=None)),
    Fault("duplicate_annotation_id", change(24, id=lambda a: a["id"] + 1)),
    Fault("broken_annotation", add({"id": 5000, "category_id": 1})),
    Fault("unknown_image", add(annotation(5000, 777, 1, (5, 5, 30, 30)))),
    Fault("unknown_category", add(annotation(5000, 1, 44, (5, 80, 30, 30)))),
    Fault("missing_box", change(1, bbox=None)),
    Fault("broken_box", change(2, bbox=[1, 2, 3])),
    Fault("broken_box", change(2, bbox=[float("nan"), 2, 3, 4])),
    Fault("wrong_type", change(3, bbox=lambda a: [str(v) for v in a["bbox"]])),
    Fault("wrong_type", change(3, category_id="1")),
    Fault("invalid_flag", change(4, iscrowd=3)),
    Fault("negative_box", change(5, bbox=backwards)),
    Fault("empty_box", change(6, bbox=lambda a: [*a["bbox"][:3], 0])),
    Fault("box_outside", change(7, bbox=[200, 20, 30, 30])),
    Fault("box_over_edge", change(8, **OVER)),
    Fault("tiny_box", change(9, **SPECK), ("size_outlier",), mended=False),
    Fault("giant_box", change(10, **WHOLE), ("size_outlier",), mended=False),
    Fault("box_mask_disagree", change(11, bbox=shifted(x=15))),
    Fault("mask_outside", change(12, **BEYOND), mended=False),
    Fault("broken_mask", change(13, segmentation=[[1, 2, 3, 4, 5, 6, 7]]), mended=False),
    Fault("broken_mask", change(13, segmentation={"size": [HEIGHT, WIDTH], "counts": "0"}), mended=False),
    Fault("mask_size", change(14, segmentation={"size": [60, 80], "counts": [60 * 80]}), mended=False),
    Fault("row_major_mask", change(15, segmentation=code_by_rows)),
    Fault("degenerate_mask", change(16, segmentation=lambda a: [*a["segmentation"], [5, 5, 9, 9]])),
    Fault("crossing_polygon", change(17, **BOWTIE), mended=False),
    Fault("partial_masks", change(18, segmentation=[]), mended=False),
    Fault("wrong_area", change(19, area=7.0)),
    Fault("wrong_area", change(19, area=lambda a: 3 * a["area"])),
    Fault("invalid_area", change(20, area=-5)),
    Fault("missing_area", change(21, area=None)),
    Fault("size_outlier", change(22, **LARGE), mended=False),
    Fault("shape_outlier", change(22, **FLAT), mended=False),
    # The whole split.
    Fault("fraction_boxes", every(bbox=in_units(1))),
    Fault("percent_boxes", every(bbox=in_units(100))),
    Fault("corner_boxes", every(bbox=corners)),
    Fault("centre_boxes", every(bbox=centred)),
    Fault("box_masks", every(segmentation=rectangle, area=box_area), mended=False),
    Fault("area_of_box", every(area=box_area)),
    Fault("crowd_share", crowded, mended=False),
    Fault("no_objects", nothing_to_see, ("class_in_one_split", "image_without_objects"), mended=False),
    # Pictures.
    Fault("unreadable_picture", pixels(25, cut_off), ("unlisted_picture",)),
    Fault("unreadable_picture", pixels(25, lambda file: file.write_bytes(b"")), ("unlisted_picture",)),
    Fault("missing_picture", pixels(26, Path.unlink)),
    Fault("misnamed_picture", change_image(27, file_name="elsewhere\\train27.png")),
    Fault("wrong_size", change_image(28, width=200)),
    Fault("wrong_size", pixels(28, noise(60, 80)), mended=False),
    Fault("swapped_size", change_image(29, width=HEIGHT, height=WIDTH)),
    Fault("exif_rotated", pixels(30, on_its_side), mended=False),
    Fault("missing_size", change_image(31, width=None)),
    Fault("broken_image", change_image(32, file_name=None), ("unknown_image", "unlisted_picture")),
    Fault("wrong_type", change_image(57, height=str(HEIGHT))),
    Fault("bit_depth", pixels(33, sixteen_bits), ("grey_picture",), mended=False),
    Fault("transparent_picture", pixels(34, transparent), mended=False),
    Fault("animated_picture", pixels(35, animated), mended=False),
    Fault("grey_picture", pixels(36, lambda file: Image.open(file).convert("L").save(file)), mended=False),
    Fault("wrong_suffix", pixels(37, lambda file: Image.open(file).save(file, format="BMP")), mended=False),
    Fault("blank_picture", pixels(38, Image.new("RGB", (WIDTH, HEIGHT), "red").save), mended=False),
    Fault("small_picture", small, mended=False),
    Fault("unlisted_picture", unlisted, mended=False),
    Fault("image_without_objects", empty_image, mended=False),
    # What is there twice.
    Fault("duplicate_picture", same_picture(39, "train", lambda image: image), ("unlisted_picture",)),
    Fault("near_duplicate_picture", same_picture(40, "train", lambda image: image[:, ::-1]), mended=False),
    Fault("near_duplicate_picture", same_picture(41, "train", saved_worse), mended=False),
    Fault("leakage", same_picture(42, "val", lambda image: image), ("unlisted_picture",)),
    Fault("near_leakage", same_picture(43, "val", saved_worse), ("unlisted_picture",)),
    Fault("duplicate_image", listed_twice),
    Fault("duplicate_image_id", one_id_for_two, ("image_without_objects",)),
    Fault("twin_annotations", twins),
    Fault("conflicting_labels", two_labels, mended=False),
    Fault("copied_annotations", copied, mended=False),
    # Classes.
    Fault("duplicate_category_name", new_class(10, "cat"), ("unused_category",), mended=False),
    Fault("similar_category_names", new_class(11, "Dog "), ("unused_category",), mended=False),
    Fault("background_category", new_class(12, "background"), ("unused_category",), mended=False),
    Fault("unused_category", new_class(9, "fish"), mended=False),
    Fault("category_mismatch", categories(lambda rows: rows[2].update(name="fox"), "val"), mended=False),
    Fault("duplicate_category_id", categories(lambda rows: rows.append({"id": 1, "name": "cat"}))),
    Fault("broken_category", categories(lambda rows: rows.append({"id": 9}))),
    Fault("few_objects", lambda data: rare(data, 4, "train", "val"), mended=False),
    Fault("class_in_one_split", only_trained, ("few_objects",), mended=False),
    Fault("label_outlier", mislabelled, mended=False),
    # Keypoints.
    Fault("broken_skeleton", categories(lambda rows: rows[0].update(keypoints=["a", "b"], skeleton=[[1, 9]]))),
    Fault("broken_skeleton", categories(lambda rows: rows[0].update(keypoints=[1]))),
    Fault("broken_keypoints", points(51, (5, 5, 2))),
    Fault("broken_keypoints", points(52, (5, 5, 7), (9, 9, 1))),
    Fault("keypoints_outside", points(53, (500, 5, 2), (9, 9, 0), num_keypoints=1)),
    Fault("keypoint_at_origin", points(54, (0, 0, 2), (9, 9, 0), num_keypoints=1)),
    Fault("keypoints_off_box", points(55, (150, 110, 2), (9, 9, 0), num_keypoints=1), mended=False),
    Fault("keypoint_count", points(56, num_keypoints=0)),
    Fault("remark", two_skeletons, mended=False),
]  # fmt: skip


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clean(tmp_path_factory.mktemp("doctor") / "clean")


def test_nothing_is_found_in_a_clean_data_set(clean):
    checkup = check_data(clean)
    assert [(f.kind, f.message) for f in checkup.findings] == []
    assert checkup.status == 0


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_each_fault_is_named_alone_and_mended(clean, tmp_path, fault):
    data = Data(tmp_path / "data", clean)
    files, ids = fault.plant(data)
    checkup = check_data(data.write())
    named = [f for f in checkup.findings if f.kind == fault.kind]
    assert named, [(f.kind, f.message) for f in checkup.findings]
    assert set(files) <= {name for f in named for name in f.files}
    assert set(map(repr, ids)) <= {repr(number) for f in named for number in f.annotation_ids}
    others = [(f.kind, f.message) for f in checkup.findings if f.kind not in (fault.kind, *fault.follows)]
    assert not others
    assert checkup.status == 1
    for finding in checkup.findings:
        assert finding.message.endswith(".")
        assert len(finding.message) < 1000
    before = {file: file.read_bytes() for file in data.root.rglob("*") if file.is_file()}
    count = write_mended(checkup.splits, checkup.findings, tmp_path / "mended")
    assert {file: file.read_bytes() for file in data.root.rglob("*") if file.is_file()} == before
    if fault.mended:
        assert count > 0
        left = [(f.kind, f.message) for f in check_data(tmp_path / "mended").findings if f.kind not in fault.follows]
        assert not left


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize(("unit", "kind"), [(1, "fraction_boxes"), (100, "percent_boxes")])
def test_centres_in_another_scale_are_mended_too(clean, tmp_path, unit, kind, masks):
    """As YOLO has them."""
    data = Data(tmp_path / "data", clean)
    expected = {a["id"]: (a["bbox"], a["area"]) for a in data.train["annotations"]}
    for record in data.train["annotations"]:
        record["bbox"] = in_units(unit)({"bbox": centred(record)})
        record["area"] = record["bbox"][2] * record["bbox"][3]
        if not masks:
            record["segmentation"] = []
    checkup = check_data(data.write())
    assert kind in {finding.kind for finding in checkup.findings if finding.split == "train"}
    write_mended(checkup.splits, checkup.findings, tmp_path / "mended")
    mended = json.loads((tmp_path / "mended" / "annotations" / "instances_train.json").read_text())
    for record in mended["annotations"]:
        box, area = expected[record["id"]]
        assert record["bbox"] == pytest.approx(box, abs=2e-3)
        assert record["area"] == pytest.approx(area if masks else box[2] * box[3], rel=2e-2)


def test_boxes_whose_form_cannot_be_told_are_named_and_left(clean, tmp_path):
    data = Data(tmp_path / "data", clean)
    for record in data.train["annotations"]:
        record |= {"bbox": [0.4, 0.4, 0.3, 0.3], "segmentation": []}
    checkup = check_data(data.write())
    (found,) = (finding for finding in checkup.findings if finding.kind == "fraction_boxes")
    assert not found.fix


def test_most_faults_are_named_when_all_are_there_at_once(clean, tmp_path):
    """One of each kind that leaves the others alone."""
    data = Data(tmp_path / "data", clean)
    whole = [
        "fraction_boxes",
        "percent_boxes",
        "corner_boxes",
        "centre_boxes",
        "box_masks",
        "area_of_box",
        "crowd_share",
    ]
    whole += ["no_objects", "label_outlier", "remark"]
    chosen = {fault.kind: fault for fault in FAULTS if fault.kind not in whole}
    planted = {kind: fault.plant(data) for kind, fault in chosen.items()}
    findings = check_data(data.write()).findings
    missed = []
    for kind, (files, ids) in planted.items():
        named = [f for f in findings if f.kind == kind]
        found = {repr(v) for f in named for v in (*f.files, *f.annotation_ids)}
        if not named or not set(map(repr, (*files, *ids))) <= found:
            missed.append(kind)
    assert len(chosen) >= 60
    assert len(missed) <= 2, missed


def test_what_is_found_in_photographs_is_true(coco_mini, pennfudan):
    """Each looked at: an armchair that is both couch and chair, grey photographs, boxes of a few pixels, ..."""
    found = {(f.kind, f.split): f for f in check_data(coco_mini).findings}
    assert set(found) == {
        ("conflicting_labels", "val2017"), ("class_in_one_split", "train2017, val2017"), ("few_objects", "train2017"),
        ("grey_picture", "train2017"), ("tiny_box", "train2017"), ("giant_box", "train2017"), ("giant_box", "val2017"),
        ("image_without_objects", "train2017"),
    }  # fmt: skip
    assert found["conflicting_labels", "val2017"].annotation_ids == (116865, 2222700)
    assert len(found["grey_picture", "train2017"].files) == 7
    assert len(found["giant_box", "train2017"].annotation_ids) == 4
    assert found["image_without_objects", "train2017"].files == ("000000000250.jpg", "000000000508.jpg")
    assert check_data(pennfudan).findings == []


def test_the_command_reports_and_mends(clean, tmp_path, capsys):
    data = Data(tmp_path / "data", clean)
    for number in (3, 8):
        change(number, bbox=shifted(x=15))(data)
    outputs = ["--page", tmp_path / "page.html", "--json", tmp_path / "rows.json", "--fix", tmp_path / "mended"]
    status = main(["check", *map(str, (data.write(), "--workers", 2, *outputs))])
    text = capsys.readouterr().out
    assert status == 1
    table, findings = text.split("1 finding: 1 warning\n")
    assert "objects an image, mean" in table
    assert "WARNING Boxes that disagree with their masks (train) [box_mask_disagree]" in findings
    assert max(len(line) for line in text.splitlines() if str(tmp_path) not in line) <= 80
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert set(row) == {"kind", "severity", "message", "split", "files", "annotation_ids", "fix"}
    assert row["files"] == ["train03.png", "train08.png"]
    log = json.loads((tmp_path / "mended" / "changes.json").read_text())
    assert [{key: c[key] for key in ("split", "op", "path", "value")} for c in log] == row["fix"]
    assert log[0]["was"] == data.objects(3)[0]["bbox"]
    page = (tmp_path / "page.html").read_text()
    assert "Boxes that disagree with their masks" in page
    assert page.count("data:image/webp;base64,") == 2
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert main(["check", str(tmp_path / "mended"), "--page", str(tmp_path / "page.html")]) == 0
    assert "No findings: the data set is clean." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--workers", "-1"], "must be 0 or more, got -1"), (["--fix", "."], "Name a new folder")],
)
def test_what_the_command_cannot_do_is_said_before_anything_is_read(clean, tmp_path, capsys, options, message):
    data = Data(tmp_path / "data", clean)
    assert main(["check", str(data.write()), *options]) == 2
    told = capsys.readouterr()
    assert message in told.err
    assert not told.out


def test_other_formats_are_checked_by_what_they_have(clean, tmp_path):
    data = Data(tmp_path / "data", clean)
    assert main(["convert", str(data.write()), str(tmp_path / "yolo"), "--to", "yolo", "--pictures", "copy"]) == 0
    assert check_data(tmp_path / "yolo").findings == []
    label = tmp_path / "yolo" / "labels" / "train" / "train03.txt"
    label.write_text(label.read_text().splitlines()[0] + "\n" + label.read_text())
    (finding,) = check_data(tmp_path / "yolo").findings
    assert finding.kind == "twin_annotations"
    assert finding.files == ("train03.png",)


def test_changes_are_a_json_patch(clean, tmp_path):
    """Applied one after the other by the rules of RFC 6902, they make the mended file of the original."""
    data = Data(tmp_path / "data", clean)
    change(3, bbox=shifted(x=15))(data)
    add({"id": 5000, "category_id": 1}, {"id": 5001, "category_id": 1})(data)
    twins(data)
    checkup = check_data(data.write())
    write_mended(checkup.splits, checkup.findings, tmp_path / "mended")
    for split, content in data.splits.items():
        for operation in json.loads((tmp_path / "mended" / "changes.json").read_text()):
            if operation["split"] == split:
                *parents, last = operation["path"].split("/")[1:]
                place: Any = content
                for part in parents:
                    place = place[int(part) if isinstance(place, list) else part]
                if operation["op"] == "remove":
                    del place[int(last)]
                else:
                    place[last] = operation["value"]
        assert json.loads((tmp_path / "mended" / "annotations" / f"instances_{split}.json").read_text()) == content


@pytest.mark.parametrize("option", ["--page", "--json", "--fix"])
def test_what_cannot_be_written_is_said_before_anything_is_read(clean, tmp_path, capsys, monkeypatch, option):
    monkeypatch.setattr("det_coco.doctor.command.check_data", lambda *_, **__: pytest.fail("it was read"))
    (tmp_path / "file").write_text("mine")
    assert main(["check", str(clean), "--page", str(tmp_path / "page.html"), option, str(tmp_path / "file" / "x")]) == 2
    assert f"{tmp_path / 'file' / 'x'} cannot be written: " in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


def test_nothing_is_overwritten(clean, tmp_path, capsys):
    before = sorted(clean.rglob("*"))
    assert main(["check", str(clean), "--page", str(tmp_path / "page.html"), "--fix", str(clean)]) == 2
    assert "exists already. Name a new folder" in capsys.readouterr().err
    assert sorted(clean.rglob("*")) == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [], "annotations": [', "is not valid JSON"),
        ('{"images": [], "annotations": {}, "categories": []}', "has no list 'annotations'"),
        ('{"images": [], "annotations": [{"segments_info": []}], "categories": []}', "is a panoptic file"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_does_not_hide_the_other(clean, tmp_path, content, message):
    data = Data(tmp_path / "data", clean)
    change(3, bbox=shifted(x=15))(data)
    (data.write() / "annotations" / "instances_val.json").write_text(content)
    checkup = check_data(data.root)
    assert checkup.status == 2
    found = {f.kind: f for f in checkup.findings}
    assert message in found["unreadable_split"].message
    assert "box_mask_disagree" in found


def test_processes_find_the_same(clean, tmp_path):
    data = Data(tmp_path / "data", clean)
    for fault in FAULTS[:20]:
        fault.plant(data)
    rows = [json.dumps(asdict(f)) for f in check_data(data.write()).findings]
    assert [json.dumps(asdict(f)) for f in check_data(data.root, workers=2).findings] == rows
    assert rows


@pytest.mark.parametrize("size", [(30.0, 40.0), (300.0, 400.0)])
def test_anchors_follow_the_boxes(size):
    boxes, sizes, ratios = np.tile(size, (50, 1)), [[32.0], [64.0], [128.0]], (0.5, 1.0, 2.0)
    proposed = propose_anchors(boxes, sizes, ratios)
    if size[0] == 30:
        assert proposed is None
    else:
        assert anchor_recall(boxes, [32.0, 64.0, 128.0], ratios) == 0
        assert proposed is not None
        assert proposed[2] == anchor_recall(boxes, [s for level in proposed[0] for s in level], proposed[1]) == 1


def test_recall_is_that_of_boxes_with_one_centre():
    boxes = np.array([[10.0, 10.0], [10.0, 20.0], [10.0, 40.0]])
    assert anchor_recall(boxes, [10.0], (1.0,)) == pytest.approx(2 / 3)  # IoU 1, 0.5 and 0.25


def test_every_kind_is_planted_and_has_its_line_in_the_page_about_it():
    page = (ROOT / "docs" / "doctor.md").read_text()
    assert [
        kind for kind, known in KINDS.items() if f"| `{kind}` | {known.severity} | {known.title} |" not in page
    ] == []
    assert {fault.kind for fault in FAULTS} == set(KINDS) - {"unreadable_split"}
