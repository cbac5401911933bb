import json
import logging
import pickle

import pytest

from det_coco import CocoIndex, DataError


def test_all_that_was_interpreted_is_remarked(content, write, caplog):
    first, second = content["annotations"]
    first |= {"area": -1}
    del second["area"]
    content["annotations"] += [
        {**first, "id": 3, "bbox": [90, 3, 4, 4]},
        {**first, "id": 4, "bbox": [-5, 3, 10, 6], "area": 60, "ignore": 1},
    ]
    file, folder = write(content)
    content["images"][0]["file_name"] = "somewhere/b.png"
    file.write_text(json.dumps(content))
    with caplog.at_level(logging.INFO, "det_coco"):
        index = CocoIndex.load(file, folder)
    about = {remark.kind: remark.annotation_ids or remark.image_ids for remark in index.remarks}
    assert about == {
        "file_name": (7,), "object_ignored": (4,), "box_dropped": (3,), "box_clipped": (4,), "area_wrong": (1,),
        "area_missing": (2,),
    }  # fmt: skip
    assert [record.getMessage() for record in caplog.records] == [f"{file}: {r.message}" for r in index.remarks]
    assert {record.levelname for record in caplog.records if "without 'area'" in record.msg % record.args} == {"INFO"}
    assert pickle.loads(pickle.dumps(index)).remarks == index.remarks


def test_content_is_checked_as_a_file_is(content, write, tmp_path):
    file, folder = write(content)
    index = CocoIndex.from_content(content, source=tmp_path, image_folder=folder)
    assert index.fingerprint == CocoIndex.load(file, folder).fingerprint
    assert index.annotation_file == tmp_path
    content["annotations"][1]["bbox"] = [1, 2, 3]
    with pytest.raises(DataError, match=f"{tmp_path}: annotation 2: 'bbox' must be four numbers"):
        CocoIndex.from_content(content, source=tmp_path, image_folder=folder)
