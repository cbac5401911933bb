"""Pascal VOC, CVAT, labelme: values worked out by hand, and what is wrong named with its place."""

import base64
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from det_coco import CocoIndex, DataError, find_splits
from det_coco.formats import find
from det_coco.formats.conversion import convert_data
from det_coco.mask_codec import instance_bitmap


def picture(file: Path, width: int = 40, height: int = 30) -> bytes:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (90, 120, 30)).save(file)
    return file.read_bytes()


def text(file: Path, content: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    return file


def load(path: Path) -> dict[str, CocoIndex]:
    return {name: source.load() for name, source in find_splits(path).items()}


def mask(index: CocoIndex, row: int) -> np.ndarray:
    return instance_bitmap(index, row, 30, 40)


def voc_object(name: str, box: tuple[float, ...], more: str = "") -> str:
    sides = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name>{more}<bndbox>{sides}</bndbox></object>\n"


def voc_file(objects: str, name: str = "a.jpg", database: str = "The VOC2007 Database") -> str:
    size = "<size><width>40</width><height>30</height><depth>3</depth></size>"
    source = f"<source><database>{database}</database></source>" if database else ""
    return f"<annotation>\n<filename>{name}</filename>{source}{size}\n{objects}</annotation>\n"


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    root = tmp_path / "VOC2007"
    for stem in ("a", "b", "c"):
        picture(root / "JPEGImages" / f"{stem}.jpg")
    first = voc_object("dog", (1, 1, 10, 20)) + voc_object("cat", (5, 6, 40, 30), "<difficult>1</difficult>")
    text(root / "Annotations/a.xml", voc_file(first))
    text(root / "Annotations/b.xml", voc_file(voc_object("cat", (2, 3, 4, 5), "<truncated>1</truncated>"), "b.jpg"))
    text(root / "Annotations/c.xml", voc_file("", "c.jpg"))
    text(root / "ImageSets/Main/train.txt", "a\nc\n")
    text(root / "ImageSets/Main/val.txt", "b\n")
    text(root / "ImageSets/Main/cat_train.txt", "a  1\nc -1\n")
    return root


def test_voc_boxes_are_pixels_from_one_with_both_ends(voc):
    assert find(voc).name == "Pascal VOC"
    indices = load(voc)
    assert list(indices) == ["train", "val"]
    train = indices["train"]
    assert train.categories == indices["val"].categories == {1: "cat", 2: "dog"}
    assert train.boxes.tolist() == [[0, 0, 10, 20], [4, 5, 40, 30]]
    assert train.labels.tolist() == [1, 0]
    assert train.crowd.tolist() == [False, True]  # a difficult object is neither learnt nor to be found
    assert len(train) == 2
    assert indices["val"].boxes.tolist() == [[1, 2, 4, 5]]


@pytest.mark.parametrize(
    ("database", "box", "expected"),
    [
        ("The VOC2007 Database", (1, 1, 10, 20), [0, 0, 10, 20]),
        ("", (1, 1, 10, 20), [0, 0, 10, 20]),
        ("", (0, 1, 10, 20), [0, 1, 10, 20]),
        ("", (1.5, 1, 10, 20), [1.5, 1, 10, 20]),
        ("Unknown", (1, 1, 10, 20), [1, 1, 10, 20]),
    ],
)
def test_voc_coordinates_of_other_tools_are_distances(tmp_path, database, box, expected):
    picture(tmp_path / "a.jpg")
    text(tmp_path / "a.xml", voc_file(voc_object("dog", box), database=database))
    index = load(tmp_path)["all"]
    assert index.boxes.tolist() == [expected]
    assert index.remarks[0].kind == ("voc_pixels" if expected[0] == 0 and box[0] == 1 else "voc_distances")


def test_voc_of_several_years_and_folders(voc, tmp_path):
    picture(tmp_path / "VOC2012/JPEGImages/d.jpg")
    text(tmp_path / "VOC2012/Annotations/d.xml", voc_file(voc_object("emu", (1, 1, 10, 20)), "d.jpg"))
    text(tmp_path / "VOC2012/ImageSets/Main/train.txt", "d\n")
    indices = load(tmp_path)
    assert list(indices) == ["VOC2007_train", "VOC2007_val", "VOC2012_train"]
    assert all(index.class_names == ("cat", "dog", "emu") for index in indices.values())


def test_voc_beside_the_pictures_in_a_folder_for_each_split(tmp_path):
    for split in ("train", "valid"):
        picture(tmp_path / split / "a.png")
        text(tmp_path / split / "a.xml", voc_file(voc_object(split, (1, 1, 10, 20)), name="a"))
    indices = load(tmp_path)
    assert list(indices) == ["train", "valid"]
    assert indices["train"].class_names == ("train", "valid")
    assert indices["train"].file_names.tolist() == ["a.png"]


@pytest.mark.parametrize("mode", ["P", "RGB"])
def test_voc_masks_have_the_numbers_of_their_objects(voc, mode):
    numbers = np.zeros((30, 40), dtype=np.uint8)
    numbers[:20, :10], numbers[5:30, 10:40], numbers[:20, 10] = 1, 2, 255
    image = Image.fromarray(numbers).convert("P")
    # VOC's colour map begins with black, dark red and dark green.
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[[1, 2, 255]] = (128, 0, 0), (0, 128, 0), (224, 224, 192)
    image.putpalette(palette.ravel().tolist())
    (voc / "SegmentationObject").mkdir()
    image.convert(mode).save(voc / "SegmentationObject/a.png")
    index = load(voc)["train"]
    assert np.array_equal(mask(index, 0), numbers == 1)
    assert np.array_equal(mask(index, 1), numbers == 2)


def test_voc_masks_that_are_numbered_otherwise_go_to_the_object_they_fill(voc):
    """Datumaro numbers masks alone, not the objects without one between them."""
    numbers = np.zeros((30, 40), dtype=np.uint8)
    numbers[5:30, 4:40], numbers[25:, :3] = 1, 2
    (voc / "SegmentationObject").mkdir()
    Image.fromarray(numbers).save(voc / "SegmentationObject/a.png")
    index = load(voc)["train"]
    assert index.polygon_counts.tolist() == [0, 1]
    assert np.array_equal(mask(index, 1), numbers == 1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (voc_file("<object><bndbox/></object>"), "a.xml, line 3 has no <name>"),
        (voc_file("<object><name>cat</name></object>"), "a.xml, line 3: the object has no <bndbox>"),
        (voc_file(voc_object("cat", ("x", 1, 2, 3))), "a.xml, line 3: 'xmin' must be a number, got 'x'"),
        (voc_file(voc_object("cat", ("nan", 1, 2, 3))), "'xmin' must be a number"),
        (voc_file("<object>"), "a.xml is not valid XML"),
        ('<!DOCTYPE a [<!ENTITY x "y">]>' + voc_file("&x;"), "line 1 declares an entity (x)"),
        ('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]>' + voc_file("&x;"), "declares an entity"),
    ],
)
def test_wrong_voc_files_are_named(voc, content, words):
    text(voc / "Annotations/a.xml", content)
    with pytest.raises(DataError) as error:
        load(voc)
    assert words in str(error.value)


def test_a_voc_list_may_name_a_picture_without_xml_but_not_what_is_not_there(voc):
    (voc / "Annotations/c.xml").unlink()
    index = load(voc)["train"]
    assert index.image_instances.tolist() == [0, 2, 2]
    assert index.remarks[0].kind == "label_file_missing"
    text(voc / "ImageSets/Main/val.txt", "b\nlost\n")
    with pytest.raises(DataError, match=r"val\.txt names lost, of which there is neither a picture nor an XML file"):
        load(voc)


def test_cvats_files_of_several_subsets_are_splits(tmp_path):
    for name in ("train", "val"):
        picture(tmp_path / "images" / f"{name}.png")
        image = f'<image id="0" name="{name}.png" width="40" height="30"><box label="dog" xtl="3" ytl="4" xbr="13" '
        text(tmp_path / f"{name}.xml", f'<annotations>{image} ybr="9"/></image></annotations>')
    indices = load(tmp_path)
    assert list(indices) == ["train", "val"]
    assert indices["val"].boxes.tolist() == [[3, 4, 13, 9]]


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><task><labels>
    <label><name>dog</name><attributes/></label><label><name>cat</name></label>
  </labels></task></meta>
  <image id="0" name="a.png" width="40" height="30" subset="Train">
    {shapes}
  </image>
  <image id="1" name="b.png" width="40" height="30" subset="Validation">
    <box label="cat" occluded="1" xtl="1.50" ytl="2.00" xbr="11.50" ybr="22.00" z_order="0"></box>
  </image>
</annotations>
"""


def cvat(path: Path, shapes: str) -> Path:
    picture(path / "images/Train/a.png")
    picture(path / "images/Validation/b.png")
    text(path / "annotations.xml", CVAT.format(shapes=shapes))
    return path


def test_cvat_boxes_and_subsets(tmp_path):
    cvat(tmp_path, '<box label="dog" xtl="3" ytl="4" xbr="13" ybr="9"><attribute name="age">old</attribute></box>')
    assert find(tmp_path).name == "CVAT"
    indices = load(tmp_path)
    assert list(indices) == ["train", "val"]
    assert indices["val"].categories == {1: "dog", 2: "cat"}
    assert indices["val"].boxes.tolist() == [[1.5, 2, 11.5, 22]]
    assert not indices["val"].has_masks
    convert_data(find_splits(tmp_path / "annotations.xml"), tmp_path / "out", to="coco")
    written = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())["annotations"][0]
    assert written == {
        "id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "bbox": [3, 4, 10, 5], "area": 50,
        "attributes": {"age": "old"},
    }  # fmt: skip


def test_cvat_polygons_of_a_group_are_one_object(tmp_path):
    parts = ("1,1;9,1;9,9", "20,10;30,10;30,20;20,20")
    shapes = "".join(f'<polygon label="dog" group_id="7" points="{points}"/>' for points in parts)
    index = load(cvat(tmp_path, shapes + '<polygon label="dog" points="1,1;9,1;9,9"/>'))["train"]
    assert index.polygon_counts.tolist() == [2, 1]
    assert index.boxes.tolist() == [[1, 1, 30, 20], [1, 1, 9, 9]]
    assert index.masks.points[3:7].tolist() == [[20, 10], [30, 10], [30, 20], [20, 20]]
    boxes = "".join(f'<box label="dog" group_id="{g}" xtl="3" ytl="4" xbr="13" ybr="9"/>' for g in (7, 8, 8))
    index = load(cvat(tmp_path, shapes + boxes))["train"]  # the box of group 7 is that of its polygons
    assert index.polygon_counts.tolist() == [2, 0, 0]


def test_cvat_turned_boxes_become_their_outline(tmp_path):
    """A box of 10 x 4 around (15, 12), turned by a quarter, is 4 x 10."""
    index = load(cvat(tmp_path, '<box label="dog" xtl="10" ytl="10" xbr="20" ybr="14" rotation="90"/>'))["train"]
    assert index.boxes.tolist() == [[13, 7, 17, 17]]
    assert index.masks.points.tolist() == [[17, 7], [17, 17], [13, 17], [13, 7]]  # the upper left corner went right


def test_cvat_masks_are_runs_along_rows_within_a_rectangle(tmp_path):
    index = load(cvat(tmp_path, '<mask label="dog" rle="1, 2, 2, 1" left="5" top="3" width="3" height="2"/>'))["train"]
    expected = np.zeros((30, 40), dtype=bool)
    expected[3, 6:8] = expected[4, 7] = True
    assert np.array_equal(mask(index, 0), expected)
    assert index.boxes.tolist() == [[6, 3, 8, 5]]


def test_cvat_ellipses_and_what_is_no_object(tmp_path, caplog):
    shapes = '<ellipse label="dog" cx="20" cy="15" rx="10" ry="5" rotation="0"/><tag label="dog"/>'
    index = load(cvat(tmp_path, shapes + '<points label="dog" points="1,1"/><tag label="cat"/>'))["train"]
    assert index.boxes.tolist() == [[10, 10, 30, 20]]
    assert mask(index, 0).sum() == pytest.approx(np.pi * 50, rel=0.05)
    assert "left out: tag (2), points (1)" in caplog.text


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (
            '<box label="emu" xtl="3" ytl="4" xbr="13" ybr="9"/>',
            "line 8: there is no label 'emu' (there are: dog, cat)",
        ),
        ('<box label="dog" xtl="3" ytl="4" xbr="13"/>', "line 8: 'ybr' must be a number, got nothing"),
        ('<polygon label="dog" points="1,1;2,2"/>', "line 8: 'points' must be 'x,y;x,y;x,y' or more"),
        ('<mask label="dog" rle="9" left="5" top="3" width="3" height="2"/>', "has runs of 9 pixels"),
        ('<mask label="dog" rle="6" left="39" top="3" width="3" height="2"/>', "in a picture of 40 x 30"),
    ],
)
def test_wrong_cvat_shapes_are_named_with_their_line(tmp_path, shapes, words):
    with pytest.raises(DataError) as error:
        load(cvat(tmp_path, shapes))
    assert words in str(error.value)
    assert str(error.value).startswith(str(tmp_path / "annotations.xml"))


VIDEO = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
<meta><task><size>4</size><mode>interpolation</mode><frame_filter>{filter}</frame_filter>
<labels><label><name>cat</name></label><label><name>dog</name></label></labels>
<original_size><width>40</width><height>30</height></original_size></task></meta>
{tracks}
</annotations>"""
LEFT = '<box frame="{}" outside="{}" occluded="0" keyframe="{}" xtl="{}" ytl="4" xbr="{}" ybr="9"/>'


def video(path: Path, tracks: str, frames: range = range(4), step: str = "") -> Path:
    """As CVAT writes it, with a picture for each frame."""
    (path / "images").mkdir(parents=True, exist_ok=True)
    for frame in frames:
        Image.new("RGB", (40, 30)).save(path / "images" / f"frame_{frame:06d}.PNG")
    text(path / "annotations.xml", VIDEO.format(tracks=tracks, filter=step))
    return path


def test_tracks_of_cvat_are_read_frame_by_frame(tmp_path):
    """A cat that leaves and comes back, and a dog's outline; the third frame has nothing."""
    boxes = [(0, 0, 1, 3, 13), (1, 0, 0, 5, 15), (2, 1, 1, 5, 15), (3, 0, 1, 8, 18)]
    cat = "".join(LEFT.format(*box) for box in boxes)
    outline = '<polygon frame="{}" outside="{}" keyframe="1" points="1,1;9,1;9,9"/>'
    dog = outline.format(1, 0) + outline.format(2, 1)
    tracks = f'<track id="0" label="cat">{cat}</track><track id="1" label="dog">{dog}</track>'
    index = load(video(tmp_path, tracks))["all"]
    assert index.file_names.tolist() == [f"frame_{n:06d}.PNG" for n in range(4)]
    assert np.diff(index.image_instances).tolist() == [1, 2, 0, 1]
    assert index.boxes.tolist() == [[3, 4, 13, 9], [5, 4, 15, 9], [1, 1, 9, 9], [8, 4, 18, 9]]
    assert [index.class_names[label] for label in index.labels] == ["cat", "cat", "dog", "cat"]
    assert index.polygon_counts.tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize(("step", "frames"), [("", range(4)), ("step=2", range(0, 8, 2)), ("", (0, 3))])
def test_frames_of_cvat_that_a_task_has_not_are_no_gaps(tmp_path, step, frames):
    """Of every second frame; and where frames were deleted."""
    boxes = "".join(LEFT.format(frame, 0, 1, 3, 13) for frame in frames)
    index = load(video(tmp_path, f'<track id="0" label="cat">{boxes}</track>', frames, step))["all"]
    assert np.diff(index.image_instances).tolist() == [1] * len(frames)


@pytest.mark.parametrize("pictures", [range(4), range(0)])
def test_keyframes_of_cvat_alone_are_refused(tmp_path, pictures):
    boxes = LEFT.format(0, 0, 1, 3, 13) + LEFT.format(3, 0, 1, 8, 18)
    video(tmp_path, f'<track id="7" label="cat">{boxes}</track>', pictures)
    with pytest.raises(DataError, match=r"line 6: track 7 jumps from frame 0 to 3, .* interpolated. Export the task"):
        load(tmp_path)


@pytest.mark.parametrize("sized", [True, False])
def test_pictures_of_cvat_without_their_names_are_refused(tmp_path, sized):
    """A task of images, exported as one of a video: its pictures keep their names, which its XML does not hold."""
    video(tmp_path, f'<track id="0" label="cat">{LEFT.format(0, 0, 1, 3, 13)}</track>', range(0))
    Image.new("RGB", (40, 30)).save(tmp_path / "images" / "street.png")
    xml = (tmp_path / "annotations.xml").read_text().replace("interpolation", "annotation")
    text(tmp_path / "annotations.xml", xml if sized else re.sub(r"<original_size>.*</original_size>", "", xml))
    with pytest.raises(DataError, match=r"names cannot be told\. Export the task as 'CVAT for images 1\.1'"):
        load(tmp_path)


def test_what_is_wrong_with_tracks_of_cvat_is_said(tmp_path):
    boxes = LEFT.format(0, 0, 1, 3, 13)
    several = "".join(f'<track id="{n}" task_id="{n}" label="cat">{boxes}</track>' for n in (1, 2))
    with pytest.raises(DataError, match="holds tracks of several tasks"):
        load(video(tmp_path / "a", several))
    track = f'<track id="1" label="cow">{boxes}</track>'
    with pytest.raises(DataError, match="there is no label 'cow'"):
        load(video(tmp_path / "b", track))
    text(tmp_path / "annotations.xml", f"<annotations><version>1.1</version>{track}</annotations>")
    with pytest.raises(DataError, match="does not say the size of the video"):
        load(tmp_path)
    with pytest.raises(DataError, match=r"1 of the 1 image .* is missing"):
        load(video(tmp_path / "c", f'<track id="1" label="cat">{boxes}</track>', range(0)))


def labelme(path: Path, shapes: list[dict], stem: str = "a", **more: object) -> Path:
    content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": f"{stem}.png", "imageData": None}
    content |= {"imageHeight": 30, "imageWidth": 40} | more
    return text(path / f"{stem}.json", json.dumps(content))


def shape(label: str, kind: str, points: list, group: int | None = None, **more: object) -> dict:
    return {"label": label, "points": points, "group_id": group, "shape_type": kind, "flags": {}} | more


def test_labelme_shapes(tmp_path, caplog):
    png = io.BytesIO()
    Image.fromarray(np.array([[0, 255, 255], [255, 0, 0]], dtype=np.uint8)).save(png, "PNG")
    coded = base64.b64encode(png.getvalue()).decode()
    picture(tmp_path / "a.png")
    labelme(tmp_path, [
        shape("dog", "polygon", [[1, 1], [9, 1], [9, 9]]),
        shape("cat", "rectangle", [[20, 22.5], [10, 12]]),
        shape("cat", "circle", [[20, 15], [20, 10]]),
        shape("cat", "mask", [[5, 3], [7, 4]], mask=coded),
        shape("dog", "line", [[1, 1], [2, 2]]),
        shape("dog", "polygon", [[1, 1], [9, 1], [9, 9]], 3),
        shape("dog", "polygon", [[20, 10], [30, 10], [30, 20]], 3, flags={"old": True}),
    ])  # fmt: skip
    assert find(tmp_path).name == "labelme"
    index = load(tmp_path)["all"]
    assert index.categories == {1: "cat", 2: "dog"}
    assert index.labels.tolist() == [1, 0, 0, 0, 1]
    assert index.boxes.tolist() == [[1, 1, 9, 9], [10, 12, 20, 22.5], [15, 10, 25, 20], [5, 3, 8, 5], [1, 1, 30, 20]]
    assert index.polygon_counts.tolist() == [1, 0, 1, 1, 2]  # a rectangle is a box, not a mask
    assert mask(index, 2).sum() == pytest.approx(np.pi * 25, rel=0.03)
    expected = np.zeros((30, 40), dtype=bool)
    expected[3, 6:8] = expected[4, 5] = True
    assert np.array_equal(mask(index, 3), expected)
    assert "left out: line (1)" in caplog.text


def test_labelme_folders_are_splits_and_paths_are_windows_too(tmp_path):
    picture(tmp_path / "images/a.png")
    picture(tmp_path / "images/b.png")
    one = [shape("dog", "rectangle", [[1, 1], [9, 9]])]
    labelme(tmp_path / "train", one, imagePath="..\\images\\a.png")
    labelme(tmp_path / "val", one, "b", imagePath="../images/b.png")
    indices = load(tmp_path)
    assert list(indices) == ["train", "val"]
    assert indices["train"].path(0) == tmp_path / "images/a.png"


def test_pictures_within_labelmes_files_are_read(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    one = [shape("dog", "rectangle", [[1, 1], [9, 9]])]
    labelme(tmp_path, one, imageData=base64.b64encode(png.getvalue()).decode(), imageHeight=None)
    index = load(tmp_path)["all"]
    assert np.array_equal(index.image(0), pixels)
    convert_data(find_splits(tmp_path), tmp_path / "out", to="coco")
    assert (tmp_path / "out/all/a.png").read_bytes() == png.getvalue()


@pytest.mark.parametrize(
    ("shapes", "more", "words"),
    [
        ([shape("dog", "polygon", [[1, 1], [2, 2]])], {}, "shape 1: a polygon must have 3 points or more, it has 2"),
        ([shape("dog", "polygon", [[1, 1, 1]])], {}, "shape 1: 'points' must be a list of points"),
        ([{"points": []}], {}, "shape 1 must be an object with a 'label'"),
        ([shape("dog", "mask", [[1, 1], [2, 2]], mask="no")], {}, "shape 1: 'mask' must be the base64 text"),
        ([], {"imagePath": "lost.png"}, "there is no picture lost.png beside it"),
        ([], {"imagePath": "lost.png", "imageData": "no"}, "'imageData' holds no picture"),
    ],
)
def test_wrong_labelme_files_are_named(tmp_path, shapes, more, words):
    picture(tmp_path / "other.png")
    if not more:
        picture(tmp_path / "a.png")
    file = labelme(tmp_path, shapes, **more)
    with pytest.raises(DataError) as error:
        load(tmp_path)
    assert str(error.value).startswith(str(file))
    assert words in str(error.value)


def test_formats_of_installed_packages_are_found_without_an_import(tmp_path):
    """As the commands do; in a process of its own, which has the package."""
    text(tmp_path / "site/farm_format.py", """
from det_coco.formats import ContentBuilder, ContentSplit, Format, numbered

def read():
    builder = ContentBuilder(numbered(["cow"]))
    builder.add_object("line 1", builder.add_image("a.png", (30, 40)), 1, box=[1, 2, 3, 4])
    return builder.content()

def splits(path):
    return {"train": ContentSplit(source=path, image_folder=path, read=read)}

FARM = Format(name="farm", recognises=lambda path: (path / "farm.txt").is_file(), splits=splits)
""")  # fmt: skip
    metadata = tmp_path / "site/farm-1.0.dist-info"
    text(metadata / "METADATA", "Name: farm\nVersion: 1.0\n")
    text(metadata / "entry_points.txt", "[det_coco.formats]\nfarm = farm_format:FARM\n")
    picture(tmp_path / "data/a.png")
    text(tmp_path / "data/farm.txt", "")
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); from det_coco.__main__ import main; sys.exit("
    code += f"main(['convert', {str(tmp_path / 'data')!r}, {str(tmp_path / 'out')!r}, '--to', 'yolo']))"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "out/labels/train/a.txt").read_text() == "0 0.0625 0.1333333333 0.075 0.1333333333\n"


def hostile_voc(path: Path) -> Path:
    picture(path / "a.jpg")
    return text(path / "a.xml", voc_file(voc_object("dog", (1, 1, 10, 20)) + voc_object("cat", (5, 6, 40, 30))))


def hostile_cvat(path: Path) -> Path:
    shapes = """<mask label="dog" rle="1, 2, 2, 1" left="5" top="3" width="3" height="2"/>
    <polygon label="dog" group_id="7" points="1,1;9,1;9,9"/><box label="dog" xtl="1" ytl="2" xbr="3" ybr="4"/>
    <ellipse label="dog" cx="20" cy="15" rx="10" ry="5" rotation="1"/>"""
    return cvat(path, shapes) / "annotations.xml"


def hostile_labelme(path: Path) -> Path:
    picture(path / "a.png")
    points = [[1, 1], [9, 1.5], [9, 9]]
    return labelme(path, [shape("dog", kind, points, 4) for kind in ("polygon", "rectangle", "circle", "line")])


def hostile_yolo(path: Path) -> Path:
    picture(path / "images/train/a.png")
    text(path / "data.yaml", "train: images/train\nkpt_shape: [2, 3]\nnames: [cat, dog]\n")
    rows = "1 0.5 0.5 0.25 0.5\n0 0.1 0.1 0.5 0.1 0.5 0.6\n0 0.5 0.5 0.25 0.5 0.5 0.5 2 0.1 0.1 1\n"
    return text(path / "labels/train/a.txt", rows)


@pytest.mark.parametrize("write", [hostile_voc, hostile_cvat, hostile_labelme, hostile_yolo])
def test_no_number_of_a_file_makes_anything_but_an_index_or_one_message(tmp_path, write):
    file = write(tmp_path)
    right = file.read_text()
    places = [match.span() for match in re.finditer(r"-?\d+(\.\d+)?", right)]
    messages = []
    for first, last in places:
        for number in ("nan", "1e999", "-1", "0", "99999999999999999999", "2147483648", "0.5", "[]", ""):
            file.write_text(right[:first] + number + right[last:])
            try:
                load(tmp_path)
            except DataError as error:
                messages.append(str(error))
    assert len(places) < len(messages) < 9 * len(places)
    assert max(map(len, messages)) < 700
    file.write_text(right)
    assert load(tmp_path)
