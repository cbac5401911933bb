"""Indexes that are kept and mapped: the same as those that are read, whatever happens to the files."""

import errno
import json
import logging
import multiprocessing
import os
import pickle
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from det_coco import Augmentation, BatchShape, CocoIndex, DataError, Resize, _cache, train_loader
from det_coco import _mapped as mapped
from det_coco import _table as table


@pytest.fixture
def folder(monkeypatch, tmp_path) -> Path:
    """The cache folder, for files of any size and age."""
    monkeypatch.setenv("DET_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DET_INDEX_CACHE", raising=False)
    monkeypatch.setattr(_cache, "_LEAST_BYTES", 0)
    monkeypatch.setattr(_cache, "_TICK_NS", 0)
    monkeypatch.setattr(_cache, "_said", set())
    return tmp_path / "cache" / "index"


@pytest.fixture
def reads(monkeypatch) -> list[Path]:
    """The files that were read, not mapped."""
    done: list[Path] = []
    split = table.split_text

    def counted(file: Path, text: Any) -> Any:
        done.append(file)
        return split(file, text)

    monkeypatch.setattr("det_coco.annotations.split_text", counted)
    return done


@pytest.fixture
def rich(content) -> dict[str, Any]:
    """Everything that an index can hold."""
    first, second = content["annotations"]
    code = {"size": [30, 40], "counts": [41, 9, 1150]}
    content["annotations"] = [
        first | {"keypoints": [3, 4, 2, 0, 0, 0], "num_keypoints": 2},
        second | {"segmentation": code, "area": -1},
        first | {"id": 3, "bbox": [-5, 3, 10, 6]},
    ]
    content["categories"][0] |= {"keypoints": ["left", "right"], "skeleton": [[1, 2]], "frequency": "r"}
    content["categories"][1] |= {"frequency": "f"}
    for image in content["images"]:
        image |= {"neg_category_ids": [4], "not_exhaustive_category_ids": []}
    return content


def arrays_of(index: CocoIndex) -> dict[str, np.ndarray]:
    holders = (index, index.masks, *([index.federation] if index.federation else []))
    return {name: v for holder in holders for name, v in vars(holder).items() if isinstance(v, np.ndarray)}


def assert_same(first: CocoIndex, second: CocoIndex) -> None:
    ours, others = arrays_of(first), arrays_of(second)
    assert ours.keys() == others.keys()
    for name, array in ours.items():
        assert (array.dtype, array.shape) == (others[name].dtype, others[name].shape), name
        np.testing.assert_array_equal(array, others[name], err_msg=name)
    for name in ("annotation_file", "image_folder", "categories", "skeleton", "remarks"):
        assert getattr(first, name) == getattr(second, name), name
    assert first.fingerprint == second.fingerprint


def test_mapped_is_what_was_read(rich, write, folder, reads, caplog, monkeypatch):
    file, pictures = write(rich)
    with monkeypatch.context() as patch:
        patch.setenv("DET_INDEX_CACHE", "0")
        read = CocoIndex.load(file, pictures)
    assert not folder.exists()
    assert_same(CocoIndex.load(file, pictures), read)
    assert len(reads) == 2
    caplog.clear()
    with caplog.at_level(logging.INFO, "det_coco"):
        again = CocoIndex.load(str(file), str(pictures))
    assert len(reads) == 2
    assert_same(again, read)
    assert [record.getMessage() for record in caplog.records] == [f"{file}: {r.message}" for r in read.remarks]
    assert len(read.remarks) == 4
    assert mapped.place_of(again.masks.points) is not None
    assert not again.boxes.flags.writeable


def test_pictures_are_looked_for_every_time(rich, write, folder, reads):
    file, pictures = write(rich)
    CocoIndex.load(file, pictures)
    (pictures / "a.png").unlink()
    with pytest.raises(DataError, match=r"1 of the 2 images of .* is missing"):
        CocoIndex.load(file, pictures)
    assert len(CocoIndex.load(file, pictures, check_images=False)) == 2
    assert len(reads) == 1


def test_a_changed_file_is_read_again(content, write, folder, reads):
    file, pictures = write(content)
    CocoIndex.load(file, pictures)
    before = file.stat()
    content["annotations"][0]["bbox"][0] = 3
    file.write_text(json.dumps(content))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert CocoIndex.load(file, pictures).file_boxes[1, 0] == 3
    assert len(reads) == 2


def test_a_file_of_this_moment_is_trusted_by_its_content_alone(content, write, folder, reads, monkeypatch):
    """It could change again within one tick of the clock that its times come from."""
    monkeypatch.setattr(_cache, "_TICK_NS", 3_600_000_000_000)
    file, pictures = write(content)
    for _ in range(3):
        CocoIndex.load(file, pictures)
    assert len(reads) == 1
    assert {path.read_bytes() for path in folder.glob("*.key")} == {b""}


def test_a_copy_is_known_by_its_content(content, write, folder, reads, tmp_path):
    file, pictures = write(content)
    first = CocoIndex.load(file, pictures)
    copy = Path(shutil.copy(file, tmp_path / "copy.json"))
    assert CocoIndex.load(copy, pictures).fingerprint == first.fingerprint
    assert reads == [file]


def test_another_version_reads_for_itself(content, write, folder, reads, monkeypatch):
    file, pictures = write(content)
    CocoIndex.load(file, pictures)
    monkeypatch.setattr(_cache, "_VERSION", "another")
    CocoIndex.load(file, pictures)
    assert len(reads) == 2
    assert len(list(folder.glob("*.arrays"))) == 2


def test_damage_is_noticed_and_mended(rich, write, folder, reads):
    file, pictures = write(rich)
    first = CocoIndex.load(file, pictures)
    (kept,) = folder.glob("*.arrays")
    good = kept.read_bytes()
    draw = random.Random(0)
    damaged = [b"", good[:20], good[:-1], good + b"\0", bytes(len(good)), good[:640] + good[1280:] + good[640:1280]]
    for _ in range(60):
        place = draw.randrange(len(good))
        damaged.append(good[:place] + bytes([good[place] ^ 1 << draw.randrange(8)]) + good[place + 1 :])
    for number, bad in enumerate(damaged, start=2):
        kept.unlink()
        kept.write_bytes(bad)
        assert_same(CocoIndex.load(file, pictures), first)
        assert len(reads) == number
        assert kept.read_bytes() == good
    for key in folder.glob("*.key"):
        key.write_text("0" * 63)
    assert_same(CocoIndex.load(file, pictures), first)
    assert len(reads) == len(damaged) + 1


def refuse_to_write(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_said_once(content, write, folder, reads, caplog, monkeypatch):
    file, pictures = write(content)
    monkeypatch.setattr(_cache, "write_arrays", refuse_to_write)
    with caplog.at_level(logging.WARNING, "det_coco"):
        for _ in range(3):
            assert len(CocoIndex.load(file, pictures)) == 2
    assert len(reads) == 3
    assert len(caplog.records) == 1
    assert "(No space left on device), so each process reads large annotation files anew" in caplog.text
    assert not [path for path in folder.iterdir() if path.suffix != ".key"]


def test_a_cache_that_cannot_be_a_folder(content, write, folder, reads, caplog):
    file, pictures = write(content)
    folder.parent.write_text("a file")
    with caplog.at_level(logging.WARNING, "det_coco"):
        for _ in range(2):
            assert len(CocoIndex.load(file, pictures)) == 2
    assert "Set DET_CACHE to a folder that can be written" in caplog.text
    assert len(caplog.records) == 1


def test_what_is_refused_is_not_kept(content, write, folder):
    file, pictures = write(content)
    file.write_text(file.read_text()[:-40])
    for _ in range(2):
        with pytest.raises(DataError, match="is not valid JSON"):
            CocoIndex.load(file, pictures)
    content["annotations"] = []
    file.write_text(json.dumps(content))
    for _ in range(2):
        assert CocoIndex.load(file, pictures, require_objects=False).num_instances == 0
        with pytest.raises(DataError, match="no annotation"):
            CocoIndex.load(file, pictures)
    assert not list(folder.glob("*.arrays"))
    with pytest.raises(DataError, match="does not exist"):
        CocoIndex.load(file.with_name("no.json"), pictures)


def test_room_is_bounded(content, write, folder, monkeypatch):
    file, pictures = write(content)

    def version(number: int) -> tuple[CocoIndex, Path]:
        content["annotations"][0]["bbox"][0] = number
        file.write_text(json.dumps(content))
        index = CocoIndex.load(file, pictures)
        return index, max(folder.glob("*.arrays"), key=lambda path: path.stat().st_mtime_ns)

    (first, used), (second, unused) = version(0), version(1)
    for age, path in ((100, used), (200, unused)):
        os.utime(path, (time.time() - age,) * 2)
    for path in [*folder.glob("*.key"), folder / ".left.partial"]:
        path.touch()
        os.utime(path, (time.time() - 100 * 86400,) * 2)
    monkeypatch.setattr(_cache, "_MOST_BYTES", 2 * used.stat().st_size)
    third, newest = version(2)
    assert {path for path in folder.iterdir() if path.suffix != ".key"} == {used, newest}
    assert len(list(folder.glob("*.key"))) == 1
    # What is mapped stays readable, where the system lets files that are open go.
    assert [index.file_boxes[1, 0] for index in (first, second, third)] == [0, 1, 2]


def fingerprint_after(index: CocoIndex, seconds: float = 0) -> tuple[str, bool]:
    time.sleep(seconds)
    return index.fingerprint, mapped.place_of(index.masks.points) is not None


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_other_processes_map_the_same_pages(rich, write, folder, method):
    index = CocoIndex.load(*write(rich))
    assert len(pickle.dumps(index)) < 8000
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"This system cannot {method}.")
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply(fingerprint_after, (index,)) == (index.fingerprint, True)
    part = index.of_images([3])
    assert pickle.loads(pickle.dumps(part)).fingerprint == part.fingerprint


def test_an_index_whose_file_is_gone_says_so(content, write, folder):
    index = CocoIndex.load(*write(content))
    sent = pickle.dumps(index)
    del index
    shutil.rmtree(folder)
    with pytest.raises(DataError, match=r"cannot be read any more.* Start again"):
        pickle.loads(sent)


@pytest.mark.slow
def test_batches_are_the_same(content, write, folder, monkeypatch):
    file, pictures = write(content)
    batches = []
    for cache, workers in (("0", 0), ("1", 0), ("1", 1)):
        monkeypatch.setenv("DET_INDEX_CACHE", cache)
        loader = train_loader(
            CocoIndex.load(file, pictures),
            augmentation=Augmentation(resize=Resize(shortest=(40,), longest=48)),
            shape=BatchShape(buckets=((48, 48),), max_instances=4),
            batch_size=2, workers=workers, start_method="spawn",
        )  # fmt: skip
        batches.append(next(iter(loader)))
    for other in batches[1:]:
        assert all(torch.equal(other[name], value) for name, value in batches[0].items())


READ = """
import sys
import time
from pathlib import Path
from det_coco import CocoIndex, _cache, annotations

_cache._LEAST_BYTES = _cache._TICK_NS = 0
split = annotations.split_text

def counted(file, text):
    with open(sys.argv[2], "a") as log:
        log.write("read\\n")
    return split(file, text)

annotations.split_text = counted
Path(sys.argv[3]).touch()
while not Path(sys.argv[4]).exists():
    time.sleep(0.01)
print(CocoIndex.load(sys.argv[1], ".", check_images=False).fingerprint)
"""


@pytest.mark.slow
def test_of_many_processes_one_reads(content, write, folder, tmp_path):
    template = content["annotations"][0]
    content["annotations"] = [{**template, "id": n} for n in range(20000)]
    file, _ = write(content)
    start, log = tmp_path / "start", tmp_path / "log"
    ready = [tmp_path / f"ready{n}" for n in range(3)]
    command = [sys.executable, "-c", READ, str(file), str(log)]
    processes = [subprocess.Popen([*command, str(mark), str(start)], stdout=subprocess.PIPE) for mark in ready]
    while not all(mark.exists() for mark in ready) and all(process.poll() is None for process in processes):
        time.sleep(0.05)
    start.touch()
    outputs = {process.communicate()[0] for process in processes}
    assert len(outputs) == 1
    assert all(process.returncode == 0 for process in processes)
    assert log.read_text() == "read\n"
    assert outputs == {f"{CocoIndex.load(file, '.', check_images=False).fingerprint}\n".encode()}
