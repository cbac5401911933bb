"""A part of a split is what a file of those images alone would give."""

import json
from dataclasses import fields

import numpy as np
import pytest

from det_coco import CocoIndex, DataError, evaluate, ground_truth_of
from det_coco.polygons import Polygons


def test_some_images_are_as_a_file_of_them(dataset, tmp_path):
    whole_file = dataset / "annotations" / "instances_train.json"
    index = CocoIndex.load(whole_file, dataset / "train")
    content = json.loads(whole_file.read_text())
    chosen = [image["id"] for image in content["images"]][::-2]
    part = index.of_images(chosen)
    content["images"] = [image for image in content["images"] if image["id"] in chosen]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in chosen]
    (tmp_path / "part.json").write_text(json.dumps(content))
    expected = CocoIndex.load(tmp_path / "part.json", dataset / "train")
    assert part.fingerprint == expected.fingerprint
    for one, other in ((part, expected), (part.masks, expected.masks)):
        for entry in fields(one):
            mine, theirs = getattr(one, entry.name), getattr(other, entry.name)
            if isinstance(mine, np.ndarray):
                np.testing.assert_array_equal(mine, theirs, err_msg=entry.name)
            elif not isinstance(mine, Polygons) and entry.name != "annotation_file":
                assert mine == theirs, entry.name
    assert part.categories == index.categories
    drawn = ground_truth_of(part, chosen[0])
    np.testing.assert_array_equal(drawn.masks, ground_truth_of(index, chosen[0]).masks)


def test_unknown_images_are_refused(index):
    with pytest.raises(DataError, match="has no image with id 123456789"):
        index.of_images([123456789])


def test_lvis_knows_what_was_searched_for_in_the_images(tmp_path):
    images = [
        {"id": n, "file_name": f"{n}.png", "height": 50, "width": 50, "neg_category_ids": [2] if n == 3 else [],
         "not_exhaustive_category_ids": [1] if n == 2 else []}
        for n in (1, 2, 3)
    ]  # fmt: skip
    annotations = [
        {"id": n, "image_id": n, "category_id": 1, "bbox": [1, 1, 20, 20], "area": 400, "segmentation": []}
        for n in (1, 2, 3)
    ]
    categories = [{"id": 1, "name": "a", "frequency": "r"}, {"id": 2, "name": "b", "frequency": "f"}]
    file = tmp_path / "lvis.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    index = CocoIndex.load(file, tmp_path, check_images=False)
    part = index.of_images([3, 2])
    assert part.federation is not None
    assert part.federation.negative.tolist() == [[1, 1]]
    assert part.federation.not_exhaustive.tolist() == [[0, 0]]
    rows = [{"image_id": n, "category_id": 1, "bbox": [1, 1, 20, 20], "score": 0.5} for n in (2, 3)]
    assert evaluate(part, rows, ["bbox"])["bbox"]["AP"] == pytest.approx(1)
    assert evaluate(index, rows, ["bbox"], image_ids=[2, 3])["bbox"]["AP"] == pytest.approx(1)
