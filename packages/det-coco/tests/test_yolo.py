import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from det_coco import CocoIndex, DataError, find_splits, load_split
from det_coco.__main__ import main
from det_coco.formats import find
from det_coco.formats.conversion import convert_data
from det_coco.mask_codec import instance_bitmap


def picture(file: Path, width: int = 160, height: int = 120, **options: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (90, 120, 30)).save(file, **options)


def text(file: Path, content: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    return file


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    """Ultralytics' layout: a box, an outline, a picture without objects, one without a label file."""
    for name in ("train/a.png", "train/deep/b.png", "val/c.png", "val/d.png"):
        picture(tmp_path / "images" / name)
    text(tmp_path / "labels/train/a.txt", "1 0.5 0.5 0.25 0.5\n0 0.1 0.1 0.5 0.1 0.5 0.6\n")
    text(tmp_path / "labels/train/deep/b.txt", "")
    text(tmp_path / "labels/val/c.txt", "0 0.25 0.25 0.5 0.5\n")
    text(tmp_path / "data.yaml", "train: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\n")
    return tmp_path


def splits(path: Path) -> dict[str, CocoIndex]:
    return {name: source.load() for name, source in find_splits(path).items()}


def test_boxes_and_outlines_have_their_pixels(yolo, caplog):
    assert find(yolo).name == "YOLO"
    indices = splits(yolo)
    train = indices["train"]
    assert train.categories == {1: "cat", 2: "dog"}
    assert train.file_names.tolist() == ["a.png", "deep/b.png"]
    assert (train.heights.tolist(), train.widths.tolist()) == ([120, 120], [160, 160])
    assert train.labels.tolist() == [1, 0]
    assert train.boxes.tolist() == [[60, 30, 100, 90], [16, 12, 80, 72]]
    assert train.polygon_counts.tolist() == [0, 1]
    assert train.masks.points.tolist() == [[16, 12], [80, 12], [80, 72]]
    assert train.image_instances.tolist() == [0, 2, 2]
    assert indices["val"].boxes.tolist() == [[0, 0, 80, 60]]
    assert "1 picture without a label file (d.png)" in caplog.text


@pytest.mark.parametrize(
    ("yaml", "names"),
    [
        ("path: .\ntrain: images/train\nval: [images/val]\nnames: [cat, dog]\n", ["cat", "dog"]),
        (
            "path: {root}\ntrain: [images/train, images/val]\nval: images/val\nnames: {{0: cat, 1: dog}}\n",
            ["cat", "dog"],
        ),
        ("train: ../images/train\nvalid: ../images/val\nnc: 2\n", ["class 0", "class 1"]),
        ("train: train.txt\nval: val.txt\nnames: ['cat: the animal', 7]\n", ["cat: the animal", "7"]),
        ("train: images/train\nval: images/val\ntest: images/none\nnames:\n- cat\n- dog\n", ["cat", "dog"]),
    ],
)
def test_every_form_of_data_yaml(yolo, yaml, names):
    text(yolo / "data.yaml", yaml.format(root=yolo))
    text(yolo / "train.txt", "./images/train/a.png\nimages/train/deep/b.png\n")
    text(yolo / "val.txt", f"{yolo}/images/val/c.png\n")
    for path in (yolo, yolo / "data.yaml"):
        indices = splits(path)
        assert list(indices) == ["train", "val"]
        assert list(indices["val"].class_names) == names
        assert indices["train"].boxes[0].tolist() == [60, 30, 100, 90]
    if "[images/train, images/val]" in yaml:
        assert len(indices["train"]) == 4
        assert indices["train"].image_folder == yolo / "images"


def test_labels_beside_the_pictures_and_darknets_own_files(tmp_path):
    """The layout of CVAT's `YOLO 1.1` export."""
    picture(tmp_path / "obj_train_data/a.jpg", 40, 20)
    text(tmp_path / "obj_train_data/a.txt", "0 0.5 0.5 0.5 0.5\n")
    text(tmp_path / "obj.names", "cat\n")
    text(tmp_path / "train.txt", "data/obj_train_data/a.jpg\n")
    text(tmp_path / "obj.data", "classes = 1\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
    assert splits(tmp_path)["train"].boxes.tolist() == [[10, 5, 30, 15]]


def test_a_list_of_classes_beside_the_folders(tmp_path):
    """The layouts of labelImg and Label Studio."""
    picture(tmp_path / "images/a.png", 40, 20)
    text(tmp_path / "labels/a.txt", "1 0.5 0.5 0.5 0.5\n")
    text(tmp_path / "classes.txt", "cat\ndog\n")
    index = splits(tmp_path)["all"]
    assert index.class_names == ("cat", "dog")
    assert index.boxes.tolist() == [[10, 5, 30, 15]]


def test_keypoints(yolo):
    text(
        yolo / "data.yaml",
        "train: images/train\nval: images/train\nkpt_shape: [3, 3]\nflip_idx: [0, 2, 1]\nnames: [hen]\n",
    )
    text(yolo / "labels/train/a.txt", "0 0.5 0.5 0.25 0.5  0.5 0.25 2  0.25 0.5 1.0  0 0 0\n")
    index = splits(yolo)["train"]
    assert index.keypoints.tolist() == [[[80, 30, 2], [40, 60, 1], [0, 0, 0]]]
    assert index.skeleton.flip_indices == (0, 2, 1)
    text(yolo / "data.yaml", "train: images/train\nval: images/train\nkpt_shape: [2, 2]\nnames: [hen]\n")
    text(yolo / "labels/train/a.txt", "0 0.5 0.5 0.25 0.5  0.5 0.25  0 0\n")
    assert splits(yolo)["train"].keypoints.tolist() == [[[80, 30, 2], [0, 0, 0]]]


def test_sizes_are_those_of_the_upright_picture(yolo):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(yolo / "images/train/a.png", 120, 160, exif=exif)
    assert splits(yolo)["train"].boxes[0].tolist() == [60, 30, 100, 90]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("2 0.5 0.5 0.2 0.2", "there is no class 2 (there are: 0, 1)"),
        ("0 0.5 0.5 0.2", "it has 3 numbers after the class"),
        ("0 0.5 0.5 0.2 0.2 0.9", "A sixth number is the score of a prediction"),
        ("0 80 60 40 60", "must hold fractions"),
        ("0 0.5 0.5 0.2 nan", "NaN or infinite"),
        ("0 0.5 0.5 0.2 x", "must hold numbers alone"),
        ("0.5 0.5 0.5 0.2 0.2", "there is no class 0.5"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "it has 7 numbers"),
    ],
)
def test_a_wrong_row_is_named_with_its_file_and_line(yolo, row, words):
    file = text(yolo / "labels/train/a.txt", f"0 0.5 0.5 0.2 0.2\n\n{row}\n")
    with pytest.raises(DataError) as error:
        splits(yolo)
    assert str(error.value).startswith(f"{file}, line 3")
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("train: images/none\nval: images/val\nnames: [a]\n", "'train' names images/none, which is not in"),
        ("train: images/train\nval: images/val\nnames: a\n", "'names' must be a list"),
        ("train: images/train\nnames: [a\n", "is not valid YAML"),
        ("train: images/train\nnames: [a]\nkpt_shape: 17\n", "'kpt_shape' must be"),
        ("train: train.txt\nnames: [a]\n", "train.txt, line 2: there is no picture"),
        ("train: !!python/object/apply:os.system [exit]\nnames: [a]\n", "is not valid YAML"),
    ],
)
def test_a_wrong_data_yaml_is_named(yolo, yaml, words):
    text(yolo / "train.txt", "images/train/a.png\nimages/train/lost.png\n")
    text(yolo / "data.yaml", yaml)
    with pytest.raises(DataError) as error:
        splits(yolo)
    assert words in str(error.value)
    assert str(yolo) in str(error.value)


def test_pictures_without_any_label_file_are_refused(yolo):
    (yolo / "labels").rename(yolo / "other")
    with pytest.raises(DataError, match=r"None of the 2 pictures .* has labels"):
        splits(yolo)


def test_what_the_checks_of_coco_change_is_named_by_its_line(yolo, caplog):
    text(yolo / "labels/train/a.txt", "0 0.5 0.5 0.2 0.2\n0 1.3 0.5 0.2 0.2\n1 0.95 0.5 0.2 0.2\n")
    index = splits(yolo)["train"]
    assert index.boxes[1].tolist() == pytest.approx([136, 48, 160, 72])
    assert "dropped 1 box without area inside the image (annotation labels/train/a.txt, line 2)" in caplog.text
    assert "clipped 1 box reaching outside the image (annotation labels/train/a.txt, line 3)" in caplog.text


def test_label_files_without_a_picture_are_named(yolo, caplog):
    text(yolo / "labels/train/lost.txt", "0 0.5 0.5 0.2 0.2\n")
    index = splits(yolo)["train"]
    assert index.remarks[0].kind == "label_file_stray"
    assert "lost.txt" in caplog.text


def test_coco_to_yolo_and_back_keeps_boxes_and_classes(dataset, tmp_path):
    before = load_split(dataset, "train")
    convert_data(find_splits(dataset), tmp_path / "out", to="yolo")
    after = splits(tmp_path / "out")["train"]
    kept = ~before.crowd
    assert after.class_names == before.class_names
    assert after.labels.tolist() == before.labels[kept].tolist()
    assert np.abs(after.boxes - before.boxes[kept]).max() < 1e-4
    assert [Path(name).stem for name in after.file_names] == [Path(name).stem for name in before.file_names]


def test_coco_to_yolo_and_back_keeps_masks_to_the_pixel(dataset, tmp_path):
    """Polygons, run-length codes, holes and several parts."""
    before = load_split(dataset, "train")
    lost = convert_data(find_splits(dataset), tmp_path / "out", to="yolo", parts="masks")
    after = splits(tmp_path / "out")["train"]
    rows = np.flatnonzero(~before.crowd)
    assert len(rows) == after.num_instances
    image = np.repeat(np.arange(len(before)), np.diff(before.image_instances))
    for new, old in enumerate(rows.tolist()):
        size = int(before.heights[image[old]]), int(before.widths[image[old]])
        expected = instance_bitmap(before, old, *size)
        assert expected.any()
        assert np.array_equal(instance_bitmap(after, new, *size), expected)
    assert any("holes or several parts" in what for what in lost)


def test_objects_without_mask_are_written_as_boxes_and_counted(yolo, tmp_path):
    lost = convert_data(find_splits(yolo), tmp_path / "out", to="yolo", parts="masks")
    assert (tmp_path / "out/labels/train/a.txt").read_text().splitlines() == [
        "1 0.375 0.25 0.625 0.25 0.625 0.75 0.375 0.75",
        "0 0.1 0.1 0.5 0.1 0.5 0.6",
    ]
    assert lost["objects without mask (their box is written as an outline)"] == 2


def test_pictures_of_one_name_keep_their_own_labels(tmp_path):
    for name in ("images/train/a.png", "images/train/a.jpg", "images/train/deep/a.png"):
        picture(tmp_path / name)
    text(tmp_path / "labels/train/a.txt", "0 0.5 0.5 0.25 0.5\n")
    text(tmp_path / "labels/train/deep/a.txt", "0 0.25 0.25 0.5 0.5\n")
    text(tmp_path / "data.yaml", "train: images/train\nnames: [cat]\n")
    convert_data(find_splits(tmp_path), tmp_path / "out", to="yolo")
    assert sorted(p.name for p in (tmp_path / "out/images/train").iterdir()) == ["a.jpg", "a_2.png", "a_3.png"]
    assert splits(tmp_path / "out")["train"].boxes.tolist() == [[60, 30, 100, 90], [60, 30, 100, 90], [0, 0, 80, 60]]


def test_yolo_to_coco_is_read_by_pycocotools(yolo, tmp_path):
    from pycocotools.coco import COCO

    convert_data(find_splits(yolo), tmp_path / "out", to="coco")
    truth = COCO(str(tmp_path / "out/annotations/instances_train.json"))
    assert [truth.anns[i]["bbox"] for i in (1, 2)] == [[60, 30, 40, 60], [16, 12, 64, 60]]
    assert truth.anns[1]["area"] == 2400
    assert truth.annToMask(truth.anns[2]).sum() == truth.anns[2]["area"]
    assert (tmp_path / "out/train/deep/b.png").is_file()


def test_coco_to_yolo_and_back_keeps_keypoints(dataset, tmp_path, capsys):
    before = load_split(dataset, "train", keypoints=True)
    assert main(["convert", str(dataset), str(tmp_path / "out"), "--to", "yolo", "--keypoints"]) == 0
    assert "keypoints" not in capsys.readouterr().out
    after = splits(tmp_path / "out")["train"]
    assert after.skeleton.names == before.skeleton.names
    assert after.skeleton.flip_indices == before.skeleton.flip_indices
    assert (before.keypoints[..., 2] > 0).any()
    assert after.keypoints == pytest.approx(before.keypoints[~before.crowd], abs=1e-4)
    assert after.boxes == pytest.approx(before.boxes[~before.crowd], abs=1e-4)


def test_keypoints_that_are_not_there_are_said(yolo, tmp_path, capsys):
    assert main(["convert", str(yolo), str(tmp_path / "out"), "--to", "yolo", "--keypoints"]) == 2
    assert "has no keypoints to write" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("count", "says"),
    [("3", "'nc' says 3 classes, but 'names' has 2"), ("4000000000", "'nc' must be a number"), ("0", "'nc' must be")],
)
def test_a_number_of_classes_that_is_not_that_of_the_names(yolo, count, says):
    file = yolo / "data.yaml"
    file.write_text(re.sub(r"(?m)^nc:.*\n", "", file.read_text()) + f"\nnc: {count}\n")
    with pytest.raises(DataError, match=says):
        splits(yolo)
