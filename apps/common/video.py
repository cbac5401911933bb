"""Video files in and out, by PyAV, which brings FFmpeg along and is only needed here."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from det_coco import DataError
from det_coco.outputs import whole_file

SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"})


def is_video(path: Path) -> bool:
    """Whether a path names a video file."""
    return path.suffix.lower() in SUFFIXES and not path.is_dir()


class VideoFile:
    """A video file to read.

    Attributes:
        path: the file.
        rate: frames per second.

    Raises:
        DataError: PyAV is missing, the file is missing or damaged, or it has no picture track.
    """

    def __init__(self, path: Path) -> None:
        av = _library()
        if not path.exists():
            raise DataError(f"The video {path} does not exist.")
        self.path = path
        try:
            with av.open(str(path)) as container:
                if not container.streams.video:
                    raise DataError(f"The video {path} has no picture track.")
                rate = container.streams.video[0].average_rate
        except av.error.FFmpegError as error:
            raise DataError(f"The video {path} cannot be read: {error.strerror}. It is damaged, or no video.") from None
        self.rate = Fraction(rate) if rate else Fraction(25)

    def __iter__(self) -> Iterator[np.ndarray]:
        """The frames, uint8 `[h, w, 3]` RGB, upright.

        Raises:
            DataError: the file breaks off.
        """
        av = _library()
        try:
            with av.open(str(self.path)) as container:
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                for frame in container.decode(stream):
                    pixels = frame.to_ndarray(format="rgb24")
                    yield np.ascontiguousarray(np.rot90(pixels, frame.rotation // 90))
        except av.error.FFmpegError as error:
            raise DataError(f"The video {self.path} cannot be read to its end: {error.strerror}.") from None


class VideoWriter:
    """A video that is being written: see `write_video`.

    Args:
        container: of PyAV, open to be written.
        rate: frames per second.
    """

    def __init__(self, container: Any, rate: Fraction) -> None:
        av = _library()
        self._frame = av.VideoFrame
        self._container = container
        self._stream = container.add_stream("libx264" if "libx264" in av.codecs_available else "mpeg4", rate=rate)
        self._stream.pix_fmt = "yuv420p"

    def write(self, pixels: np.ndarray) -> None:
        """Append a frame, uint8 `[h, w, 3]` RGB, of the size of the first; odd sides lose a pixel."""
        height, width = (length // 2 * 2 for length in pixels.shape[:2])
        if not self._stream.frames and not self._stream.codec_context.is_open:
            self._stream.height, self._stream.width = height, width
        frame = self._frame.from_ndarray(np.ascontiguousarray(pixels[:height, :width]), format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Write the frames that the encoder still holds."""
        if self._stream.codec_context.is_open:
            self._container.mux(self._stream.encode(None))


@contextmanager
def write_video(path: Path, rate: Fraction) -> Generator[VideoWriter]:
    """A block that writes a video, an MP4 that every player opens; the file is there when it is whole.

    Args:
        path: the file; its folder is made.
        rate: frames per second.

    Raises:
        DataError: PyAV is missing, or the file cannot be written, as on a full disk; nothing is left of it.
    """
    av = _library()
    # By its name: where PyAV is given a file, a full disk's error is lost.
    with whole_file(path) as file, av.open(file.name, mode="w", format="mp4") as container:
        writer = VideoWriter(container, rate)
        yield writer
        writer.finish()


def _library() -> ModuleType:
    try:
        import av
    except ImportError:
        raise DataError(
            "Video files are read and written by PyAV, which is not installed: pip install av. Pictures need nothing."
        ) from None
    return av
