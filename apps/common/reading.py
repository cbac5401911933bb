"""Pictures, videos and data sets, read one image after the other for ``predict``."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np

from apps.common.video import VideoFile
from det_coco import CocoIndex, DataError, load_image


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


class Reader:
    """Pixels of pictures and frames, one after the other, and what they are.

    Args:
        strict: whether a file that cannot be read ends it.
        exif: whether pictures are turned as their EXIF orientation says.

    Attributes:
        frames: what the images are that were given out and not yet taken up.
        skipped: why files could not be read.
    """

    def __init__(self, *, strict: bool, exif: bool) -> None:
        self._strict, self._exif = strict, exif
        self.frames: deque[Frame] = deque()
        self.skipped: list[DataError] = []
        self._number = 0

    def files(self, sources: Sequence[Path | VideoFile]) -> Iterator[np.ndarray]:
        """The pixels of pictures and videos, uint8 [h, w, 3], numbered from 1."""
        for source in sources:
            video = source if isinstance(source, VideoFile) else None
            path = source.path if isinstance(source, VideoFile) else source
            frames = partial(self._picture, path) if video is None else partial(iter, video)
            for image in self._readable(frames):
                self._number += 1
                rate = None if video is None else video.rate
                self.frames.append(Frame(number=self._number, path=path, rate=rate))
                yield image

    def split(self, index: CocoIndex) -> Iterator[np.ndarray]:
        """The same of a data set's pictures, numbered as there."""
        index = replace(index, exif=self._exif)
        for position, number in enumerate(index.image_ids.tolist()):
            for image in self._readable(partial(_one, index, position)):
                self.frames.append(Frame(number=number, path=index.path(position), of_data_set=True))
                yield image

    def complain(self) -> None:
        """Say at the end that files were skipped.

        Raises:
            DataError: some were.
        """
        if self.skipped:
            were, they = ("was", "it is") if len(self.skipped) == 1 else ("were", "they are")
            raise DataError(
                f"{len(self.skipped)} of the files could not be read, or not to the end, and {were} skipped; {they} "
                "named above. The others are done."
            )

    def _picture(self, path: Path) -> Iterator[np.ndarray]:
        yield load_image(path, exif=self._exif)

    def _readable(self, images: Callable[[], Iterator[np.ndarray]]) -> Iterator[np.ndarray]:
        """The images of a file, as far as it can be read."""
        try:
            yield from images()
        except DataError as error:
            if self._strict:
                raise
            self.skipped.append(error)
            print(f"Skipped: {error}")


def _one(index: CocoIndex, position: int) -> Iterator[np.ndarray]:
    yield index.image(position)
