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
from typing import Any

import numpy as np
import tyro
from PIL import Image

from apps.common.app import App
from apps.common.commands import read_options
from apps.common.detecting import (
    on_categories,
    open_options,
    predictor,
    say_what_was_read,
    turns_upright,
)
from apps.common.detecting_options import PredictOptions
from apps.common.drafts import Drafts, refuse_videos
from apps.common.output import PACKAGES, default_output
from apps.common.pictures import write_corner
from apps.common.printing import say
from apps.common.reading import Frame, Reader
from apps.common.splits import open_split
from apps.common.video import VideoFile, is_video, write_video
from det_coco import DataError, find_splits, list_images, save_picture, save_results
from det_engine import RunDirectory, describe_environment, resolve_device
from det_engine.cli import UsageError
from det_models import Predictor
from det_models.background import background


@dataclass(frozen=True, kw_only=True, eq=False)
class Predicted:
    """A frame with its detections, drawn."""

    frame: Frame
    rows: list[dict[str, Any]]
    """COCO's results format, and the file's name."""
    picture: Image.Image
    shown: int
    """Detections in the picture."""
    best: float
    """The highest score of all detections, 0 where there is none."""
    time: float
    """When it was, in seconds."""


def predict(app: App, args: list[str]) -> None:
    """Detect objects in pictures and videos: COCO-result JSON and drawings."""
    options = read_options(app, "predict", args, PredictOptions(inputs=(), weights=tyro.MISSING))
    device = resolve_device(options.device)
    sources = _sources(options.inputs) if options.data is None else []
    drafts = None
    if options.as_annotations is not None:
        refuse_videos([source.path for source in sources if isinstance(source, VideoFile)])
        drafts = Drafts(min_score=options.min_score, unsure_score=options.unsure_score)
    weights = open_options(app, options)
    reader = Reader(strict=options.strict, exif=turns_upright(weights, options))
    if options.data is None:
        images = reader.files(sources)
    else:
        index = open_split(options.data, options.split, weights)
        weights = on_categories(weights, index, options.classes)
        images = reader.split(index)
    detector = predictor(weights, options, device, batch=1)
    say_what_was_read(weights)
    run = RunDirectory.create(
        options.output or default_output(app, "predict"),
        config=options,
        environment=describe_environment(device, PACKAGES),
        replace=True,
    )
    predicted = background(_predicted(detector, images, reader.frames, options, drafts))
    rows: list[dict[str, Any]] = []
    try:
        for (_, rate), items in groupby(predicted, key=lambda item: (item.frame.path, item.frame.rate)):
            write = _write_pictures if rate is None else _write_video
            write(items, run.pictures, rows.extend, options.min_score)
    finally:
        # Whatever ends the command, what was found before stays.
        save_results(rows, run.predictions)
    print(f"Detections: {run.predictions}\nPictures and videos: {run.pictures}")
    if drafts is not None and options.as_annotations is not None:
        print(drafts.write(run.path / "annotations", options.as_annotations))
    reader.complain()


def _sources(inputs: tuple[Path, ...]) -> list[Path | VideoFile]:
    """Pictures and videos; all of them are looked at before the first is read."""
    if not inputs:
        raise DataError("predict needs at least one picture, folder of pictures or video, or a data set (--data).")
    return [source for path in inputs for source in ([VideoFile(path)] if is_video(path) else _pictures(path))]


def _pictures(path: Path) -> list[Path]:
    """A picture, or those of a folder; of a data set the option that takes it is said."""
    named = path.suffix.lower() in (".json", ".xml", ".yaml", ".yml") and path.is_file()
    try:
        found = [] if named else list_images(path)
    except DataError:
        if not path.is_dir() or not _is_data_set(path):
            raise
        named, found = True, []
    if named:
        raise UsageError(f"{path} is no picture. A data set is named by an option: --data {path}.")
    return found


def _is_data_set(path: Path) -> bool:
    try:
        return bool(find_splits(path))
    except DataError:
        return False


def _predicted(
    detector: Predictor,
    images: Iterable[np.ndarray],
    frames: deque[Frame],
    options: PredictOptions,
    drafts: Drafts | None,
) -> Iterator[Predicted]:
    """Detections of every frame as rows and drawings; what the images are comes with them in `frames`."""
    times: deque[float] = deque(maxlen=30)
    path = None
    for found in detector.predict(images, **options.looks):
        frame = frames.popleft()
        if frame.path != path:  # another video's frames say nothing of this one's
            path = frame.path
            times.clear()
        if drafts is not None:
            drafts.add(frame.number, frame.path, found)
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
            best=float(found.scores.max(initial=0)),
            time=times[-1],
        )


def _named(rows: list[dict[str, Any]], path: Path) -> list[dict[str, Any]]:
    return [{**row, "file_name": str(path)} for row in rows]


Keep = Callable[[list[dict[str, Any]]], None]


def _write_pictures(items: Iterable[Predicted], folder: Path, keep: Keep, min_score: float) -> None:
    for item in items:
        keep(item.rows)
        save_picture(item.picture, folder / f"{item.frame.number:05d}-{item.frame.path.stem}.png")
        why = _why_none(len(item.rows), item.shown, item.best, min_score)
        say(f"{item.frame.path}: {len(item.rows)} detections, {item.shown} drawn{why}")


def _write_video(items: Iterator[Predicted], folder: Path, keep: Keep, min_score: float) -> None:
    first = next(items)
    path, rate = first.frame.path, first.frame.rate or Fraction(25)
    frames, detections, drawn, best, ended = 0, 0, 0, 0.0, first.time
    with write_video(folder / f"{first.frame.number:05d}-{path.stem}.mp4", rate) as writer:
        for item in chain([first], items):
            keep([{**row, "frame": frames} for row in item.rows])
            writer.write(np.asarray(item.picture))
            frames, detections, ended = frames + 1, detections + len(item.rows), item.time
            drawn, best = drawn + item.shown, max(best, item.best)
    # Some frames had waited while the first was written.
    speed = f", {(frames - 1) / (ended - first.time):.1f} frames/s" if frames > 1 else ""
    say(f"{path}: {frames} frames, {detections} detections{_why_none(detections, drawn, best, min_score)}{speed}")


def _why_none(found: int, drawn: int, best: float, min_score: float) -> str:
    """Say why nothing was drawn, where there was something to draw."""
    if drawn or not found:
        return ""
    return f" (the best score is {best:.3f}, --min-score is {min_score:g})"
