"""Annotation files made to do harm: each is refused, or read in time and memory that its size bounds."""

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image

from det_coco import CocoIndex, DataError, evaluate, ground_truth_of

FAR = 1e9


def with_polygon(content: dict[str, Any], polygon: list[float]) -> dict[str, Any]:
    """The content with one object, which covers its picture of 40 x 30 (height x width)."""
    content["annotations"] = [content["annotations"][0] | {"bbox": [0, 0, 30, 40], "segmentation": [polygon]}]
    del content["annotations"][0]["area"]
    return content


@pytest.mark.parametrize(
    ("polygon", "inside"),
    [
        ([-FAR, -FAR, FAR, -FAR, FAR, FAR, -FAR, FAR], lambda x, y: x > -1),
        ([-FAR, 10, FAR, 10, FAR, 20, -FAR, 20], lambda x, y: (y > 10) & (y < 20)),
        ([5, -FAR, 25, -FAR, 25, FAR, 5, FAR], lambda x, y: (x > 5) & (x < 25)),
        # Through the picture's middle, down to the right.
        ([-FAR, -FAR + 5, FAR, FAR + 5, -FAR, FAR], lambda x, y: y > x + 5),
        ([FAR, FAR + 5, -FAR, -FAR + 5, FAR, -FAR], lambda x, y: y < x + 5),
        ([10, 10, FAR, FAR, 10, FAR], lambda x, y: (x > 10) & (y > x)),
    ],
)
def test_polygons_far_outside_are_clipped(content, write, polygon, inside):
    index = CocoIndex.load(*write(with_polygon(content, polygon)))
    assert np.abs(index.masks.points).max() <= 80
    assert [remark.kind for remark in index.remarks] == ["polygon_clipped", "area_missing"]
    assert index.remarks[0].annotation_ids == (1,)
    y, x = np.indices((40, 30)) + 0.5
    (mask,) = ground_truth_of(index, 7).masks
    # On the line itself rasterisation may fall to either side.
    assert (mask != inside(x, y)).sum() <= 41
    assert index.areas[0] == mask.sum()


@pytest.mark.parametrize("polygon", [[FAR, FAR, 2 * FAR, FAR, FAR, 2 * FAR], [-50, 1, -45, 1, -45, 9]])
def test_a_polygon_with_nothing_near_the_picture_is_no_mask(content, write, polygon):
    index = CocoIndex.load(*write(with_polygon(content, polygon)))
    assert index.polygon_counts.tolist() == [0]
    assert index.areas.tolist() == [30 * 40]


def test_polygons_that_reach_out_a_little_stay_as_they_are(content, write):
    polygon = [-39.5, -39.5, 69.5, -39.5, 69.5, 79.5, -39.5, 79.5]
    index = CocoIndex.load(*write(with_polygon(content, polygon)))
    assert index.masks.points.reshape(-1).tolist() == polygon
    assert index.areas.tolist() == [30 * 40]


def test_an_outline_without_end_is_refused(content, write):
    zigzag = [float(v) for n in range(60_000) for v in (-39 + 108 * (n % 2), 20 + n % 3)]
    with pytest.raises(
        DataError, match=r"annotation 1 has a polygon with an outline of 6,4\d\d,\d\d\d pixels, more than"
    ):
        CocoIndex.load(*write(with_polygon(content, zigzag)))


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([2**61] * 8 + [1200], "has a run that covers 2305843009213693952 pixels"),
        ([0, 1201], "has a run that covers 1201 pixels, but its image has 1200"),
        ([600, 601], "covers 1201 pixels, but its image has 1200"),
        ([[0, 1200]], "Its 'counts' must be a text or a list of whole numbers"),
        (["0", "1200"], "Its 'counts' must be a text or a list of whole numbers"),
        ("o" * 11 + "0", "has a run that covers|negative run|cannot be read"),
        ("oooooooooooooooo0", "cannot be read. The counts have a number of more than 60 bits"),
    ],
)
def test_run_lengths_beyond_the_picture(content, write, counts, message):
    content["annotations"][0]["segmentation"] = {"size": [40, 30], "counts": counts}
    with pytest.raises(DataError, match=message):
        CocoIndex.load(*write(content))


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        ({"height": 2**20, "width": 2**20}, r"image 7 has 1048576 x 1048576 pixels \(height x width\), more than the"),
        ({"height": 2**20 + 1}, "'height' of image 7 must be 1 to 1048576 pixels, got 1048577"),
        ({"width": 10**300}, "'width' of image 7 is too large: 1000"),
        ({"file_name": "x" * 1025}, "1 of the 2 images of .* has a 'file_name' of more than 1,024 characters"),
    ],
)
def test_pictures_without_bounds(content, write, sides, message):
    file, folder = write(content)
    content["images"][0] |= sides
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message) as caught:
        CocoIndex.load(file, folder)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", ["../../outside/secret.png", "ABSOLUTE", "x/../../../outside/secret.png"])
def test_names_never_lead_out_of_the_data_folder(content, tmp_path, name):
    folder, outside = tmp_path / "data" / "train", tmp_path / "outside"
    folder.mkdir(parents=True)
    outside.mkdir()
    for path in (folder / "a.png", outside / "secret.png"):
        Image.new("RGB", (30, 40)).save(path)
    content["images"] = [content["images"][0] | {"file_name": name.replace("ABSOLUTE", str(outside / "secret.png"))}]
    content["annotations"] = content["annotations"][:1]
    file = tmp_path / "data" / "instances_train.json"
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"1 of the 1 image of .* is missing"):
        CocoIndex.load(file, folder)
    index = CocoIndex.load(file, folder, check_images=False)
    with pytest.raises(DataError, match="'file_name' of image 7 leads out of the data folder"):
        index.path(0)
    assert len(evaluate(index, [], ["bbox"])["bbox"]) > 0
    (folder / "secret.png").write_bytes((folder / "a.png").read_bytes())
    assert CocoIndex.load(file, folder).path(0).resolve() == (folder / "secret.png").resolve()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_what_is_no_file_is_no_picture(content, write):
    file, folder = write(content)
    (folder / "a.png").unlink()
    os.mkfifo(folder / "a.png")
    with pytest.raises(DataError, match=r"1 of the 2 images of .* is missing from .* \(a.png\)"):
        CocoIndex.load(file, folder)


BOUNDED = """
import resource, sys
from pathlib import Path
from det_coco import CocoIndex, DataError, _table

size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 30),) * 2)
resource.setrlimit(resource.RLIMIT_CPU, (300, 300))
for reader in (_table.compiled, None):
    _table.compiled = reader
    for file in map(Path, sys.argv[1:]):
        try:
            print(file.stem, CocoIndex.load(file, file.parent, check_images=False).num_instances)
        except DataError as error:
            print(file.stem, str(error).partition(": ")[2][:80])
"""


def hostile(content: dict[str, Any]) -> dict[str, str]:
    """Files of about a megabyte that stand for much more: name -> text."""
    image, template = content["images"][0], content["annotations"][0]
    half = [0, 0, 2**20, 0, 2**20, 2000, 0, 2000]
    wide = {**image, "width": 2**20, "height": 2047}
    masks = {
        "far": [[-FAR, -FAR, FAR, -FAR, FAR, FAR]], "wide": [half], "empty": [],
        "runs": {"size": [2047, 2**20], "counts": [0, 2047 * 2**20]},
    }  # fmt: skip
    texts = {}
    for name, mask in masks.items():
        record = {**template, "segmentation": mask, "bbox": [0, 0, 30, 40], "area": None}
        texts[name] = json.dumps({**content, "images": [wide], "annotations": [record] * 5000})
    texts["near"] = texts["far"].replace(str(2**20), "1000").replace("2047", "1000")
    texts["names"] = json.dumps(
        {**content, "annotations": [template], "images": [image, *({**image, "id": 9 + n} for n in range(15000)),
                                                         {**image, "id": 8, "file_name": "x" * 1024}]}
    )  # fmt: skip
    category = content["categories"][0] | {"keypoints": [str(n) for n in range(512)]}
    texts["keypoints"] = json.dumps({**content, "categories": [category], "annotations": [template] * 8000})
    texts["nested"] = json.dumps(content)[:-1] + ', "x": ' + "[" * 1_000_000
    texts["digits"] = json.dumps(content)[:-1] + ', "x": ' + "9" * 1_000_000 + "}"
    texts["objects"] = json.dumps({**content, "annotations": [{}] * 300_000})
    return texts


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process are Linux's")
def test_time_and_memory_are_bounded(content, tmp_path):
    files = []
    for name, text in hostile(content).items():
        files.append(tmp_path / f"{name}.json")
        files[-1].write_text(text)
        assert len(text) < 3_000_000
    command = [sys.executable, "-c", BOUNDED, *map(str, files)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "DET_INDEX_CACHE": "0"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert lines[: len(files)] == lines[len(files) :]
    told = dict(line.split(" ", 1) for line in lines)
    assert [told[name] for name in ("near", "wide", "empty", "runs")] == ["5000"] * 4
    assert told["names"] == "1"
    assert told["keypoints"] == "8000"
    assert told["far"].startswith("annotation 1 has a polygon with an outline of")
    assert "nested too deeply" in told["nested"]
    assert "a number of more than 4,300 digits" in told["digits"]
    assert told["objects"] == "annotation number 0 has no 'image_id'."
