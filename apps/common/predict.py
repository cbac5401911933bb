"""``predict``: pictures and videos in, detections and drawings out.

Reading, the network, masks with drawings, and writing are stages of a pipeline in threads of their own
(:mod:`det_models.background`), so that the network waits for none of the others.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, groupby
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from PIL import Image

from apps.common.app import App
from apps.common.detecting import (
    DetectorOptions,
    check_score,
    on_categories,
    open_options,
    predictor,
    say_what_was_read,
)
from apps.common.options import PACKAGES, default_output
from apps.common.pictures import write_corner
from apps.common.splits import open_split
from apps.common.video import VideoFile, VideoWriter, is_video
from det_coco import CocoIndex, DataError, list_images, load_image, save_picture
from det_engine import RunDirectory, describe_environment, resolve_device
from det_engine.options import override
from det_models import Predictor
from det_models.background import background


@dataclass(frozen=True, kw_only=True)
class PredictOptions(DetectorOptions):
    """Options of `predict`."""

    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Pictures, folders of pictures, video files."""
    data: Path | None = None
    """Instead of pictures: a data set, whose own image ids the results have; it may be without truth."""
    split: str | None = None
    """Split of the data set; by default val2017, else val, valid, validation or test, else the only one."""
    output: Path | None = None
    """Directory for predictions.json, pictures and videos; by default runs/<app>/predict-<time>."""
    min_score: float = 0.5
    """Detections below it are written but not drawn."""
    show: tuple[Literal["masks", "boxes", "scores", "fps"], ...] = ("masks", "boxes", "scores", "fps")
    """What is drawn; fps, the frames per second of the whole pipeline, on videos alone."""

    def __post_init__(self) -> None:
        DetectorOptions.__post_init__(self)
        check_score(self.min_score)
        if self.data is not None and self.inputs:
            raise ValueError("data stands for the pictures of a data set; leave out the others")
        if self.data is None and self.split is not None:
            raise ValueError("split is one of a data set, which data names")


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """A picture, or a frame of a video, on its way through the pipeline."""

    number: int
    """Image id in the results."""
    path: Path
    rate: Fraction | None = None
    """Frames per second of a video, None for a picture."""
    of_data_set: bool = False
    """Whether the number is the data set's own, so that results need no file's name."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Predicted:
    """A frame with its detections, drawn."""

    frame: Frame
    rows: list[dict[str, Any]]
    """COCO's results format, and the file's name."""
    picture: Image.Image
    shown: int
    """Detections in the picture."""
    time: float
    """When it was, in seconds."""


def predict(app: App, args: list[str]) -> None:
    """Detect objects in pictures and videos: COCO-result JSON and drawings."""
    options = override(
        PredictOptions(inputs=(), weights=tyro.MISSING), args, f"apps/{app.name} predict", predict.__doc__
    )
    device = resolve_device(options.device)
    sources = _sources(options.inputs) if options.data is None else []
    weights = open_options(app, options)
    frames: deque[Frame] = deque()
    if options.data is None:
        images = _read(sources, frames.append)
    else:
        index = open_split(options.data, options.split, weights)
        weights = on_categories(weights, index, options.classes)
        images = _read_split(index, frames.append)
    detector = predictor(weights, options, device, batch=1)
    say_what_was_read(weights)
    run = RunDirectory.create(
        options.output or default_output(app, "predict"),
        config=options,
        environment=describe_environment(device, PACKAGES),
        replace=True,
    )
    predicted = background(_predicted(detector, images, frames, options))
    rows: list[dict[str, Any]] = []
    try:
        for (_, rate), items in groupby(predicted, key=lambda item: (item.frame.path, item.frame.rate)):
            write = _write_pictures if rate is None else _write_video
            write(items, run.pictures, rows.extend)
    finally:
        # A file that cannot be read ends the command; what was found before it stays.
        run.write_json(run.predictions, rows)
    print(f"Predictions and pictures: {run}")


def _sources(inputs: tuple[Path, ...]) -> list[Path | VideoFile]:
    """Pictures and videos; all of them are looked at before the first is read."""
    if not inputs:
        raise DataError("predict needs at least one picture, folder of pictures or video, or a data set (--data).")
    return [source for path in inputs for source in ([VideoFile(path)] if is_video(path) else list_images(path))]


def _read(sources: list[Path | VideoFile], keep: Callable[[Frame], None]) -> Iterator[np.ndarray]:
    """The pixels of pictures and frames, uint8 [h, w, 3]; what they are is kept."""
    number = 0
    for source in sources:
        video = source if isinstance(source, VideoFile) else None
        path = source.path if isinstance(source, VideoFile) else source
        for image in [load_image(path)] if video is None else video:
            number += 1
            keep(Frame(number=number, path=path, rate=None if video is None else video.rate))
            yield image


def _read_split(index: CocoIndex, keep: Callable[[Frame], None]) -> Iterator[np.ndarray]:
    """The same of a data set's pictures, numbered as there."""
    for position, number in enumerate(index.image_ids.tolist()):
        size = int(index.heights[position]), int(index.widths[position])
        image = load_image(index.path(position), size=size)
        keep(Frame(number=number, path=index.path(position), of_data_set=True))
        yield image


def _predicted(
    detector: Predictor, images: Iterable[np.ndarray], frames: deque[Frame], options: PredictOptions
) -> Iterator[Predicted]:
    """Detections of every frame as rows and drawings; what the images are comes with them in `frames`."""
    times: deque[float] = deque(maxlen=30)
    path = None
    for found in detector.predict(images):
        frame = frames.popleft()
        if frame.path != path:  # another video's frames say nothing of this one's
            path = frame.path
            times.clear()
        picture = found.draw(
            min_score=options.min_score,
            show=[part for part in options.show if part != "fps"],
            min_side=480 if frame.rate is None else 1,
        )
        times.append(time.perf_counter())
        if frame.rate is not None and "fps" in options.show and len(times) > 1:
            write_corner(picture, f"{(len(times) - 1) / (times[-1] - times[0]):.1f} fps")
        yield Predicted(
            frame=frame,
            rows=found.to_coco(frame.number) if frame.of_data_set else _named(found.to_coco(frame.number), frame.path),
            picture=picture,
            shown=int((found.scores >= options.min_score).sum()),
            time=times[-1],
        )


def _named(rows: list[dict[str, Any]], path: Path) -> list[dict[str, Any]]:
    return [{**row, "file_name": str(path)} for row in rows]


def _write_pictures(items: Iterable[Predicted], folder: Path, keep: Callable[[list[dict[str, Any]]], None]) -> None:
    for item in items:
        keep(item.rows)
        save_picture(item.picture, folder / f"{item.frame.number:05d}-{item.frame.path.stem}.png")
        print(f"{item.frame.path}: {len(item.rows)} detections, {item.shown} drawn")


def _write_video(items: Iterator[Predicted], folder: Path, keep: Callable[[list[dict[str, Any]]], None]) -> None:
    first = next(items)
    path, rate = first.frame.path, first.frame.rate or Fraction(25)
    frames, detections, ended = 0, 0, first.time
    with VideoWriter(folder / f"{first.frame.number:05d}-{path.stem}.mp4", rate) as writer:
        for item in chain([first], items):
            keep([{**row, "frame": frames} for row in item.rows])
            writer.write(np.asarray(item.picture))
            frames, detections, ended = frames + 1, detections + len(item.rows), item.time
    # Some frames had waited while the first was written.
    speed = f", {(frames - 1) / (ended - first.time):.1f} frames/s" if frames > 1 else ""
    print(f"{path}: {frames} frames, {detections} detections{speed}")
