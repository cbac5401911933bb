"""Videos in and out of `predict`, and the threads it runs in."""

import builtins
import threading
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from apps.common.video import VideoFile, write_video
from det_coco import DataError, load_image
from det_models.background import background
from testing.command_line import call, read


@pytest.fixture(scope="module")
def video(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve frames of a picture of the data set that moves to the right."""
    pytest.importorskip("av", reason="PyAV is not installed")
    path = tmp_path_factory.mktemp("videos") / "moving.mp4"
    image = load_image(sorted((shapes / "train").iterdir())[0])[:75, :95]
    with write_video(path, Fraction(12)) as writer:
        for step in range(12):
            writer.write(np.roll(image, 2 * step, axis=1))
    return path


def test_frames_come_back(video, shapes):
    frames = list(VideoFile(video))
    original = load_image(sorted((shapes / "train").iterdir())[0])
    assert VideoFile(video).rate == 12
    assert [frame.shape for frame in frames] == [(74, 94, 3)] * 12
    assert np.abs(frames[0].astype(int) - original[:74, :94]).mean() < 12
    assert np.abs(frames[5].astype(int) - np.roll(frames[0], 10, axis=1)).mean() < 12


@pytest.mark.parametrize("room", [0, 2000])
def test_of_a_video_that_finds_no_room_nothing_stays(room, video, tmp_path):
    resource = pytest.importorskip("resource", reason="limits of files are Unix's")
    noise = np.random.default_rng(0).integers(0, 256, (30, 64, 64, 3), dtype=np.uint8)

    def write(path):
        with write_video(path, Fraction(12)) as writer:
            for frame in noise:
                writer.write(frame)

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(DataError, match=r"a\.mp4 cannot be written: File too large"):
            write(tmp_path / "a.mp4")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())
    write(tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == [tmp_path / "a.mp4"]


def test_predict_on_a_video(mask_rcnn_run, video, shapes, tmp_path, capsys):
    weights = mask_rcnn_run / "checkpoints" / "best.pt"
    picture = sorted((shapes / "val").iterdir())[0]
    arguments = ("--weights", weights, "--output", tmp_path / "out", "--min-score", 0.0)
    assert call("mask_rcnn", "predict", *arguments, video, picture) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{video}: 12 frames, ")
    assert lines[0].endswith(" frames/s")
    assert lines[1].startswith(f"{picture}: ")
    written = sorted((tmp_path / "out" / "pictures").iterdir())
    assert [path.name for path in written] == ["00001-moving.mp4", f"00013-{picture.stem}.png"]
    assert [frame.shape for frame in VideoFile(written[0])] == [(74, 94, 3)] * 12
    rows = read(tmp_path / "out" / "predictions.json")
    assert {row["file_name"] for row in rows} <= {str(video), str(picture)}
    assert all(row["image_id"] == row["frame"] + 1 for row in rows if "frame" in row)
    assert {row["segmentation"]["size"][1] for row in rows if "frame" in row} <= {94}


def test_what_is_shown_can_be_chosen(mask_rcnn_run, shapes, tmp_path):
    weights = mask_rcnn_run / "checkpoints" / "best.pt"
    picture = sorted((shapes / "val").iterdir())[0]
    drawn = []
    for parts in (["masks"], ["boxes"], ["masks", "boxes", "scores"]):
        output = tmp_path / "-".join(parts)
        arguments = ("--weights", weights, "--output", output, "--min-score", 0.0, "--show", *parts)
        assert call("mask_rcnn", "predict", picture, *arguments) == 0
        drawn.append(np.asarray(Image.open(output / "pictures" / f"00001-{picture.stem}.png")))
    rows = read(output / "predictions.json")
    assert rows
    assert not np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[1], drawn[2])


def test_videos_that_cannot_be_read(mask_rcnn_run, video, tmp_path, monkeypatch, capsys):
    weights = mask_rcnn_run / "checkpoints" / "best.pt"
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(video.read_bytes()[:200])
    assert call("mask_rcnn", "predict", "--weights", weights, damaged) == 2
    assert f"The video {damaged} cannot be read" in capsys.readouterr().err
    assert call("mask_rcnn", "predict", "--weights", weights, tmp_path / "none.mp4") == 2
    assert "does not exist" in capsys.readouterr().err
    plain = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "av":
            raise ImportError(name)
        return plain(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match="pip install av"):
        VideoFile(video)


# threads ---------------------------------------------------------------------------------------------------------


def test_items_come_in_order_and_stages_run_side_by_side():
    meeting = threading.Barrier(2)

    def first() -> Iterator[int]:
        for item in range(6):
            if item > 0:
                meeting.wait(timeout=300)
            yield item

    def second(items: Iterable[int]) -> Iterator[int]:
        for item in items:
            if item < 5:
                meeting.wait(timeout=300)  # while the first makes the next one
            yield item

    assert list(background(second(background(first())))) == list(range(6))


def test_an_error_comes_after_the_items_before_it():
    def failing() -> Iterator[int]:
        yield 1
        yield 2
        raise DataError("broken")

    items = background(background(failing()))
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(DataError, match="broken"):
        next(items)


def test_who_stops_taking_ends_the_threads():
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            closed.set()

    before = threading.active_count()
    items = background(background(endless()))
    assert next(items) == 0
    items.close()
    assert closed.wait(300)
    assert threading.active_count() <= before
