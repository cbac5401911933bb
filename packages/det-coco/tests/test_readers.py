"""The compiled reader of annotations and Python's: the same arrays, remarks and messages for every file."""

import json
import logging
import random
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from det_coco import CocoIndex, DataError, Detections, evaluate
from det_coco import _table as table

SIZE = (40, 30)


def coded(bitmap: np.ndarray) -> dict[str, Any]:
    code = coco_mask.encode(np.asfortranarray(bitmap.astype(np.uint8)))
    return {"size": list(SIZE), "counts": code["counts"].decode()}


CHEQUERS = np.indices(SIZE).sum(axis=0) % 7 < 3
STAR = [20.0, 2.5, 24.25, 30.25, 3.25, 12.0, 28.75, 14.5, 6.25, 33.75]
POINTS = [3, 4, 2, 5.5, 6, 1, 0, 0, 0]
CONTENT = {
    "info": {"description": "sm\u00e5ll \"one\"", "n": [1, [2, {"a": []}]]},
    "images": [{"id": n, "file_name": f"{n}.png", "height": SIZE[0], "width": SIZE[1]} for n in (5, 2)],
    "annotations": [
        {"id": 1, "image_id": 5, "category_id": 4, "bbox": [3, 2, 26, 32], "area": 200.5, "iscrowd": 0,
         "segmentation": [STAR], "keypoints": POINTS, "num_keypoints": 2},
        {"id": 2, "image_id": 2, "category_id": 9, "bbox": [0, 0, 30, 40], "area": 1, "iscrowd": 1,
         "segmentation": coded(CHEQUERS)},
        {"id": 3, "image_id": 5, "category_id": 9, "bbox": [1.25, 2, 3, 4], "area": 12, "iscrowd": 0,
         "segmentation": {"size": list(SIZE), "counts": [41, 9, 1150]}},
        {"id": 4, "image_id": 2, "category_id": 4, "bbox": [1, 1, 20, 20], "area": 12, "iscrowd": 0,
         "segmentation": [STAR, [1, 1, 9, 2, 5, 11.5]], "attributes": {"occluded": False, "z": [1e3, None]}},
    ],
    "categories": [
        {"id": 4, "name": "dog", "keypoints": ["nose", "left_eye", "right_eye"], "skeleton": [[1, 2]]},
        {"id": 9, "name": "cat"},
    ],
}  # fmt: skip


def read(text: str | bytes, file: Path, monkeypatch: pytest.MonkeyPatch, *, compiled: bool) -> CocoIndex | str:
    """The index of a file, or the message that refuses it."""
    file.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    with monkeypatch.context() as patch:
        if not compiled:
            patch.setattr(table, "compiled", None)
        try:
            return CocoIndex.load(file, file.parent, check_images=False)
        except DataError as error:
            return str(error)


def agree(text: str | bytes, file: Path, monkeypatch: pytest.MonkeyPatch) -> CocoIndex | str:
    """What both readers make of a file."""
    ours = read(text, file, monkeypatch, compiled=table.compiled is not None)
    python = read(text, file, monkeypatch, compiled=False)
    if isinstance(ours, str) or isinstance(python, str):
        assert ours == python
        return ours
    assert ours.remarks == python.remarks
    assert (ours.categories, ours.skeleton) == (python.categories, python.skeleton)
    for holder, other in ((ours, python), (ours.masks, python.masks)):
        for name, value in vars(holder).items():
            if isinstance(value, np.ndarray):
                same = getattr(other, name)
                assert (value.dtype, value.shape, value.tobytes()) == (same.dtype, same.shape, same.tobytes()), name
    return ours


def test_the_compiled_reader_is_tested(monkeypatch, tmp_path):
    """Where it is installed, COCO's own form never reaches Python's reader."""
    if table.compiled is None:
        pytest.skip("det-coco was installed without a C++ compiler")
    monkeypatch.setattr(table, "row_of", None)
    index = read(json.dumps(CONTENT), tmp_path / "x.json", monkeypatch, compiled=True)
    assert isinstance(index, CocoIndex)
    assert index.polygon_counts.tolist() == [1, 2, 1, 1]
    np.testing.assert_array_equal(index.masks.points[:5], np.reshape(STAR, (5, 2)))


@pytest.mark.parametrize("spaces", [{}, {"indent": 1}, {"separators": (",", ":")}, {"indent": "\t\n\r "}])
def test_any_layout_of_the_text(tmp_path, monkeypatch, spaces):
    index = agree(json.dumps(CONTENT, **spaces), tmp_path / "x.json", monkeypatch)
    assert isinstance(index, CocoIndex)
    assert (index.num_instances, index.keypoints[2].reshape(-1).tolist()) == (4, POINTS)


ANNOTATION = [
    {"id": "a"}, {"id": 0}, {"id": -3}, {"id": 2**63}, {"id": 10**400}, {"id": 1.0}, {"id": True}, {"id": None},
    {"image_id": 5.0}, {"image_id": 5.5}, {"image_id": 7}, {"image_id": "5"}, {"image_id": 1e300},
    {"image_id": 2**62 + 1}, {"category_id": 3}, {"category_id": True}, {"category_id": [4]}, {"bbox": [1, 2, 3]},
    {"bbox": [1, 2, 3, 4, 5]}, {"bbox": [1, 2, "3", 4]}, {"bbox": [1, 2, float("nan"), 4]},
    {"bbox": [1, 2, float("inf"), 4]}, {"bbox": [10**400, 2, 3, 4]}, {"bbox": [-(10**300), 2, 3, 4]}, {"bbox": None},
    {"bbox": [1, 2, True, 4]}, {"bbox": [[1, 2, 3, 4]]}, {"bbox": {}},
    {"bbox": [90, 90, 3, 4], "segmentation": "junk"}, {"bbox": [-2.5, 1e-3, 1e1, 2E+0]}, {"bbox": [-0.0, -0, 5, 5]},
    {"bbox": [1, 1, 1e-400, 5]}, {"area": None}, {"area": -1}, {"area": "9"}, {"area": 1e30}, {"area": 10**400},
    {"area": float("nan")}, {"iscrowd": 1}, {"iscrowd": True}, {"iscrowd": 2}, {"iscrowd": "0"}, {"iscrowd": 1.0},
    {"ignore": 1}, {"ignore": None}, {"segmentation": None}, {"segmentation": []}, {"segmentation": [[]]},
    {"segmentation": {}}, {"segmentation": 5}, {"segmentation": [[1, 2, 3, 4]]}, {"segmentation": [[1, 2, 3, 4, 5]]},
    {"segmentation": [1, 2, 3, 4, 5, 6]}, {"segmentation": [[1, 1], [9, 1], [9, 9]]},
    {"segmentation": [[[1, 1], [9, 1], [9, 9]]]}, {"segmentation": [[[1, 1], 3, [9, 9]]]},
    {"segmentation": [[[[1, 1]], [[9, 1]], [[9, 9]]]]},
    {"bbox": [10, 10, 9, 9], "segmentation": [[10, 19, 10], [10, 10, 19]]},
    {"segmentation": [[1, 1, 9, 1, 9, 9], [11, 11, 19, 11, 19, 19]]}, {"segmentation": [[1, 1, 9, 1, 9, 9], [1, 2]]},
    {"segmentation": [[1, 1, 9, "1", 9, 9]]}, {"segmentation": [[1, 1, 9, 10**400, 9, 9]]},
    {"segmentation": [[1, 1, float("nan"), 1, 9, 9]]}, {"segmentation": [[1, 1, 1e300, 1, 9, 9]]},
    {"segmentation": [{"size": [40, 30], "counts": [1200]}]}, {"segmentation": {"size": [40, 30], "counts": [1200]}},
    {"segmentation": {"size": [40, 30], "counts": [0, 1200]}},
    {"segmentation": {"size": [30, 40], "counts": [0, 1200]}},
    {"segmentation": {"size": [40, 30], "counts": [0, 1199]}},
    {"segmentation": {"size": [40.0, 30], "counts": [0.0, 1200.0]}},
    {"segmentation": {"size": [40, 30], "counts": []}}, {"segmentation": {"size": [40, 30], "counts": [[0, 1200]]}},
    {"segmentation": {"size": [40, 30], "counts": [True]}},
    {"segmentation": {"size": [40, 30], "counts": [1300, -100]}}, {"segmentation": {"size": [40, 30], "counts": ""}},
    {"segmentation": {"size": [40, 30], "counts": [2**61] * 9}},
    {"segmentation": {"size": [40, 30], "counts": [2**70]}},
    {"segmentation": {"size": [40, 30], "counts": "oooooooooooooo0"}},
    {"segmentation": {"size": [40, 30], "counts": "o"}}, {"segmentation": {"size": [40, 30], "counts": "\ud800"}},
    {"segmentation": {"size": [40, 30], "counts": "PP\\u1"}}, {"segmentation": {"size": [40, 30]}},
    {"segmentation": {"counts": [1200]}}, {"segmentation": {"size": [2**31, 2**31], "counts": [2**62]}},
    {"segmentation": {"size": "4030", "counts": [1200]}}, {"keypoints": []}, {"keypoints": None},
    {"keypoints": [1, 2, 2]}, {"keypoints": "nose"}, {"keypoints": [1] * 8 + ["2"]}, {"keypoints": [1, 2, 3] * 3},
    {"keypoints": [1, 2, 10**400] * 3}, {"keypoints": [1, float("inf"), 2] * 3}, {"num_keypoints": 3},
    {"num_keypoints": "2"}, {"num_keypoints": 2.0}, {"num_keypoints": -1}, {"num_keypoints": None},
    {"attributes": {"\u4e2d": "\u6587"}}, {"caption": 'a "quoted" \\ line\n'},
    {"deep": json.loads("[" * 60 + "]" * 60)},
    {"x": "\ud800"},
]  # fmt: skip


@pytest.mark.parametrize("change", ANNOTATION, ids=lambda change: json.dumps(change)[:50])
def test_any_value(tmp_path, monkeypatch, change):
    for row in (0, 3):
        content = deepcopy(CONTENT)
        content["annotations"][row] |= change
        agree(json.dumps(content), tmp_path / "x.json", monkeypatch)
    for key in change:
        content["annotations"][3].pop(key, None)
    agree(json.dumps(content), tmp_path / "x.json", monkeypatch)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"id": 1, ', '"id": 1, "id": 2, ', "annotation 2 has the key 'id' twice"),
        ('"iscrowd": 0', '"iscrowd": 0, "bbox": [1, 2, 3, 4]', "annotation 1 has the key 'bbox' twice"),
        ('"size": [40, 30]', '"size": [40, 30], "size": [40, 30]', "annotation 2 has the key 'size' twice"),
        ('"images"', '"annotations": [], "images"', "has the key 'annotations' twice"),
        ('"images"', '"categories": [], "images"', "has the key 'categories' twice"),
        ('"name": "cat"', '"name": "cat", "name": "dog"', "category 9 has the key 'name' twice"),
        ('"bbox": [3', '"bbox": [03', "is not valid JSON: Expecting ',' delimiter"),
        ('"bbox": [3', '"bbox": [3.', "is not valid JSON"),
        ('"bbox": [3', '"bbox": [+3', "is not valid JSON"),
        ('"bbox": [3', '"bbox": [,3', "is not valid JSON"),
        ('"area": 1,', '"area": 1e,', "is not valid JSON"),
        ('"area": 1,', '"area": .1,', "is not valid JSON"),
        ('"area": 1,', '"area": tru,', "is not valid JSON"),
        ('"area": 1,', '"area": 1,,', "is not valid JSON"),
        ('"area": 1,', '"area": ' + "9" * 5000 + ",", "a number of more than 4,300 digits"),
        ('"area": 1,', '"area": 1, "x": ' + "[" * 100000 + ",", "nested too deeply"),
        ('"area": 1,', '"area": 1, "x": "\n",', "is not valid JSON: Invalid control character"),
        ('"area": 1,', '"area": 1, "x": "\\q",', "is not valid JSON: Invalid .escape"),
        ('{"id": 2, "image_id"', '5, {"id": 2, "image_id"', "annotation number 1 must be an object, got a number"),
        ('{"id": 2, "image_id"', ', {"id": 2, "image_id"', "is not valid JSON"),
        ('{"id": 2, "image_id"', '{"id": 2}], [{"id": 2, "image_id"', "is not valid JSON"),
        ('"dog"', '"\\ud800"', "'name' of category 4 has half of a surrogate pair"),
        ('"nose"', '"\\ud800"', r"category 4 \(dog\): a name in 'keypoints' has half of a surrogate pair"),
        ('"5.png"', '"\\udfff"', "'file_name' of image 5 has half of a surrogate pair"),
    ],
)  # fmt: skip
def test_any_text(tmp_path, monkeypatch, old, new, message):
    text = json.dumps(CONTENT)
    assert old in text
    found = agree(text.replace(old, new, 1), tmp_path / "x.json", monkeypatch)
    assert isinstance(found, str)
    assert re.search(message, found), found
    assert len(found) < 800
    found.encode()


def test_bytes_that_are_no_text(tmp_path, monkeypatch):
    text = json.dumps(CONTENT).replace('"area": 1,', '"area": 1, "x": "!",').encode()
    found = agree(text.replace(b"!", b"\xff"), tmp_path / "x.json", monkeypatch)
    assert re.search(f"is not JSON: byte {text.index(b'!')} is not UTF-8 text", str(found))


def test_byte_order_marks_and_other_encodings(tmp_path, monkeypatch):
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        assert isinstance(agree(json.dumps(CONTENT).encode(encoding), tmp_path / "x.json", monkeypatch), CocoIndex)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.floats(-1e12, 1e12), min_size=3, max_size=3), st.sampled_from(["r", ".2f", ".17e", ".25f", ".0f"]))
def test_numbers_are_read_to_the_last_bit(tmp_path, monkeypatch, numbers, form):
    texts = [repr(number) if form == "r" else format(number, form) for number in numbers]
    points = ", ".join([*texts, *texts])
    text = json.dumps(CONTENT).replace(json.dumps(STAR)[1:-1], points)
    index = agree(text, tmp_path / "x.json", monkeypatch)
    assert isinstance(index, CocoIndex) == (max(map(abs, map(float, texts))) <= 2**40)


def mutated_bytes(draw: random.Random, text: bytes) -> bytes:
    """The text with a few bytes changed, lost, repeated or moved."""
    for _ in range(draw.randint(1, 3)):
        a, b = sorted(draw.randrange(len(text)) for _ in range(2))
        b = min(b, a + draw.choice([1, 1, 2, 8, 200]))
        new = draw.choice(
            [b"", text[a:b] * 2, bytes([draw.randrange(256)]), b"0", b"9" * 40, b"[", b"}", b'"', b"-1e9"]
        )
        text = text[:a] + new + text[b:]
    return text


JUNK = [
    None, True, -1, 0, 1.5, 10**19, 10**400, -1e308, float("nan"), float("inf"), "", "x" * 300, "\ud800",
    "../../etc/passwd", [], {}, [[]], [None], [1e9] * 6, [[1e9, -1e9, 3, 4, 1e9, 1e9]],
    {"size": [40, 30], "counts": [0, 1200]}, {"size": [40, 30], "counts": [2**62] * 4}, [[[1, 2], [3, 4], [5, 6]]],
    [0] * 51, 2**20, 2**31, [5, 2], "r",
]  # fmt: skip


def mutated_content(draw: random.Random, content: dict[str, Any]) -> str:
    """The content with a value replaced, dropped, nested or repeated."""
    content = deepcopy(content)
    for _ in range(draw.randint(1, 2)):
        spot: Any = content
        key: Any = draw.choice(["images", "annotations", "annotations", "categories"])
        while isinstance(spot.get(key) if isinstance(spot, dict) else spot[key], list | dict) and spot[key]:
            if draw.random() < 0.15:
                break
            spot = spot[key]
            key = draw.choice(list(spot)) if isinstance(spot, dict) else draw.randrange(len(spot))
        deed = draw.choice(["replace", "replace", "drop", "nest", "repeat"])
        if deed == "drop":
            del spot[key]
        elif deed == "nest":
            spot[key] = [spot[key]]
        elif deed == "repeat" and isinstance(spot, list):
            spot.append(spot[key])
        else:
            spot[key] = draw.choice(JUNK)
        if not all(content.get(part) for part in ("images", "annotations", "categories")):
            break
    return json.dumps(content)


@pytest.mark.slow
def test_two_thousand_mutations(tmp_path, monkeypatch, caplog):
    """Each gives an index that can be evaluated, or one `DataError`; both readers say the same."""
    caplog.set_level(logging.CRITICAL, "det_coco")
    lvis = deepcopy(CONTENT)
    for image in lvis["images"]:
        image |= {"neg_category_ids": [4], "not_exhaustive_category_ids": [9]}
    for category in lvis["categories"]:
        category["frequency"] = "f"
    usable = 0
    for seed in range(2000):
        draw = random.Random(seed)
        content = draw.choice([CONTENT, lvis])
        text = mutated_content(draw, content) if seed % 2 else mutated_bytes(draw, json.dumps(content).encode())
        try:
            index = agree(text, tmp_path / "x.json", monkeypatch)
            if isinstance(index, str):
                assert len(index) < 1500
                index.encode()
                continue
            usable += 1
            evaluate(index, Detections.from_rows(index, []), ["segm"] if index.has_masks else ["bbox"])
        except Exception:
            print(f"Seed {seed}: {text!r}")
            raise
    assert 100 < usable < 1900
