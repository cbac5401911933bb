"""Splits made by names, of data sets that come in one piece."""

import json
import random
from pathlib import Path

import pytest

from det_coco import CocoIndex, DataError, find_splits, hold_out, load_split, write_split


def index_of(tmp_path: Path, names: list[str], label=lambda name: 1) -> CocoIndex:
    """A split of pictures that are not there, with a box, two polygons or a run-length code each."""
    images = [{"id": 10 * i, "file_name": name, "height": 12, "width": 16} for i, name in enumerate(names, 1)]
    forms = [[], [[1, 1, 5, 1, 5, 5], [6, 6, 9, 6, 9, 9 + 1]], {"size": [12, 16], "counts": [20, 30, 142]}]
    objects = [
        {"id": i, "image_id": 10 * i, "category_id": label(name), "bbox": [i % 3, 1, 8, 9],
         "segmentation": forms[i % 3], "iscrowd": 0}
        for i, name in enumerate(names, 1)
    ]  # fmt: skip
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    file = tmp_path / "all.json"
    file.write_text(json.dumps({"images": images, "annotations": objects, "categories": categories}))
    return CocoIndex.load(file, tmp_path, check_images=False)


def names(index: CocoIndex) -> set[str]:
    return set(index.file_names.tolist())


def test_a_fifth_is_held_out_whatever_the_order(tmp_path):
    pictures = [f"{i:012d}.jpg" for i in range(100)]
    held = hold_out(index_of(tmp_path, pictures))
    assert held.rule == "image by image"
    assert (len(held.train), len(held.val)) == (80, 20)
    assert names(held.train) | names(held.val) == set(pictures)
    assert not names(held.train) & names(held.val)
    random.Random(1).shuffle(pictures)
    assert names(hold_out(index_of(tmp_path, pictures)).val) == names(held.val)
    # Other images do not change the draw of these, but for the number held out.
    more = hold_out(index_of(tmp_path, [*pictures, *(f"{i:012d}.jpg" for i in range(100, 110))]))
    assert len(names(more.val) - names(held.val)) <= 10


@pytest.mark.parametrize("count", [2, 3, 7])
def test_small_data_sets(tmp_path, count):
    held = hold_out(index_of(tmp_path, [f"{word}.png" for word in "abcdefghij"[:count]]))
    assert (len(held.train), len(held.val)) == (count - 1, 1)


def test_one_image_cannot_be_split(tmp_path):
    with pytest.raises(DataError, match=r"has one image, which cannot be split"):
        hold_out(index_of(tmp_path, ["a.png"]))


@pytest.mark.parametrize(
    "pattern",
    ["{0}clip_{1:04d}.jpg", "clip-{0}-frame{1:03d}.png", "scan {0} ({1}).png", "night-{0}/{1:05d}.jpg",
     "slide{0}_r{1}_c4.png", "field{0}_{1}_0_512_512.png", "field{0}_jpg.rf.{1:032x}.jpg"],
)  # fmt: skip
@pytest.mark.parametrize(
    "series", [["amber", "birch", "cedar", "dune", "elm", "fern", "gale", "heath", "iris"], range(9)]
)
def test_series_are_never_split(tmp_path, pattern, series):
    pictures = {pattern.format(one, number): one for one in series for number in range(12)}
    held = hold_out(index_of(tmp_path, list(pictures)))
    assert held.rule == "by series of names (9 in all)"
    assert 12 <= len(held.val) <= 24
    assert not {pictures[name] for name in names(held.train)} & {pictures[name] for name in names(held.val)}


@pytest.mark.parametrize(
    "pictures",
    [
        [f"IMG_{i:04d}.jpg" for i in range(50)],  # one series
        [f"{word}_{i}.jpg" for word in ("day", "night") for i in range(25)],  # two
        [f"COCO_val2014_{i:012d}.jpg" for i in range(50)],
        [f"{i:030d}a.jpg" for i in range(50)],  # no number at the end
        [f"{i:03d}{'_1' * 200}{'_' * 200}a.jpg" for i in range(50)],  # that can be read in many ways
        [*(f"film_{i}.jpg" for i in range(60)), "a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"],  # one has nearly all
    ],
)
def test_series_that_say_nothing(tmp_path, pictures):
    held = hold_out(index_of(tmp_path, pictures))
    assert held.rule == "image by image"
    assert len(held.val) == round(len(pictures) / 5)


def test_series_that_are_classes_are_split(tmp_path):
    breeds = ["akita", "beagle", "collie", "dingo", "elkhound", "foxhound"]
    pictures = [f"{breed}_{i}.jpg" for breed in breeds for i in range(5)]
    held = hold_out(index_of(tmp_path, pictures, lambda name: 1 + (name < "b")))
    assert set(held.train.labels.tolist()) == {0, 1}


def test_a_written_split_is_a_data_set(tmp_path):
    index = index_of(tmp_path, [f"{word}.png" for word in "abcdefghij"])
    held = hold_out(index)
    write_split(tmp_path / "split.json", held, tmp_path / "all.json", "all")
    assert list(find_splits(tmp_path / "split.json")) == ["train", "val"]
    for name in ("train", "val"):
        part = load_split(tmp_path / "split.json", name, check_images=False)
        assert part.fingerprint == getattr(held, name).fingerprint
        records = find_splits(tmp_path / "split.json")[name].read()["images"]
        assert {image["file_name"] for image in records} == names(part)
    content = json.loads((tmp_path / "all.json").read_text())
    gone = next(iter(names(held.val)))
    content["images"] = [image for image in content["images"] if image["file_name"] != gone]
    ids = {image["id"] for image in content["images"]}
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] in ids]
    (tmp_path / "all.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"split.json names 1 images that .*all.json no longer has \({gone}\)"):
        load_split(tmp_path / "split.json", "val", check_images=False)
    (tmp_path / "all.json").unlink()
    with pytest.raises(DataError, match=r"split.json splits .*all.json, which does not exist"):
        find_splits(tmp_path / "split.json")
