"""Files are written whole or not at all, on a disk that fills up on the way."""

import errno
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from det_coco import DataError, convert_data, find_splits, save_picture, save_results, synthetic_dataset
from det_coco.outputs import whole_file
from det_coco.page import Page
from det_coco.report.commands import write_json


def of_picture(path):
    save_picture(Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)), path)


def of_page(path):
    Page(title="x" * 9000, summary=[], sections=[]).write(path)


def of_results(path):
    save_results([{"image_id": number, "score": 0.5} for number in range(900)], path)


def of_numbers(path):
    write_json({str(number): number for number in range(900)}, path)


@pytest.fixture
def full_disk(monkeypatch):
    """Files opened to be written take 4,000 bytes."""
    opened = Path.open

    class File(io.FileIO):
        def write(self, data):
            if self.tell() + len(data) > 4000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    def open_path(path, mode="r", *args, **kwargs):
        return File(path, mode) if mode in ("wb", "xb") else opened(path, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", open_path)


@pytest.mark.parametrize("write", [of_picture, of_page, of_results, of_numbers])
def test_a_full_disk_is_one_message_and_the_old_file_stays(write, full_disk, tmp_path):
    path = tmp_path / "file.png"
    for before in ([], [path]):
        with pytest.raises(DataError, match=r"file\.png cannot be written: No space left on device\.$"):
            write(path)
        assert list(tmp_path.iterdir()) == before
        path.write_text("old")
    assert path.read_text() == "old"


@pytest.mark.parametrize("write", [of_picture, of_page, of_results, of_numbers])
def test_a_file_is_complete_and_alone(write, tmp_path):
    path = tmp_path / "file.png"
    write(path)
    written = path.read_bytes()
    path.write_text("old")
    write(path)
    assert path.read_bytes() == written
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_one_and_a_link_in_the_way_is_not_followed(tmp_path):
    other, real, link = (tmp_path / name for name in ("other", "real", "link"))
    other.write_text("other")
    link.symlink_to(real)
    (tmp_path / "real.writing").symlink_to(other)
    with whole_file(link) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert (real.read_text(), other.read_text()) == ("new", "other")


def test_a_picture_of_an_unknown_format(tmp_path):
    with pytest.raises(DataError, match=r"a\.xyz cannot be written: give it the suffix \.png or \.jpg\.$"):
        of_picture(tmp_path / "a.xyz")
    assert list(tmp_path.iterdir()) == []


def test_of_a_conversion_that_meets_a_full_disk_nothing_stays(monkeypatch, tmp_path):
    data = synthetic_dataset(tmp_path / "data", train_images=2, val_images=1, size=64)

    def copy(source, target):
        raise OSError(errno.ENOSPC, "No space left on device", str(source), None, str(target))

    monkeypatch.setattr("det_coco.formats.conversion.shutil.copyfile", copy)
    with pytest.raises(DataError, match=r"out cannot be written: No space left on device \(.*out/train/.*\.jpg\)\.$"):
        convert_data(find_splits(data), tmp_path / "out", to="coco", pictures="copy")
    assert not (tmp_path / "out").exists()


def test_of_two_who_write_a_file_one_is_refused_and_the_other_is_whole(tmp_path):
    path = tmp_path / "file"

    def write_twice():
        with whole_file(path) as first:
            first.write(b"half of")
            with whole_file(path) as second:
                second.write(b"all")

    with pytest.raises(DataError, match="file is being written by another process too"):
        write_twice()
    assert path.read_bytes() == b"all"
    assert list(tmp_path.iterdir()) == [path]
