"""The tracks of CVAT's XML for video, frame by frame."""

import re
from collections.abc import Container, Iterator, Mapping
from pathlib import Path

from det_coco.errors import DataError
from det_coco.formats.xml import Node, number
from det_coco.images import picture_suffixes

# CVAT calls pictures of a video so when it exports them with the annotations.
_FRAME = "frame_{:06d}"
_STEP = re.compile(r"step\s*=\s*(\d+)")


def frames_of(file: Path, root: Node) -> list[Node]:
    """Make an `<image>` of every frame that tracks have a shape in, and of every other one that has a picture.

    Shapes with `outside="1"` are left out: the object is not in that frame. CVAT writes a shape for each frame, those
    between keyframes computed; a file with gaps is refused, because what is in them depends on how they are filled.

    Args:
        file: the XML file; the pictures are in `images/` or beside it.
        root: its outermost element.

    Returns:
        images as CVAT writes them for a task of images, with their shapes; none without tracks.

    Raises:
        DataError: there are tracks of several tasks, frames of a track are missing, the size of the video is, or the
            names of the pictures are: CVAT leaves these out where a task of images is exported as one of a video.
    """
    tracks = [track for track in root.iterfind("track") if isinstance(track, Node)]
    if not tracks:
        return []
    size = root.find("meta//original_size")
    subset = tracks[0].get("subset") or ""
    pictures = _pictures(file.parent, subset)
    if root.findtext("meta//mode") == "annotation" and not pictures:
        raise DataError(
            f"{file} has the pictures of its task by their numbers alone, so that their names cannot be told. Export "
            "the task as 'CVAT for images 1.1'."
        )
    if size is None or len({track.get("task_id") for track in tracks}) > 1:
        what = "does not say the size of the video" if size is None else "holds tracks of several tasks"
        raise DataError(f"{file} {what}. Export each task by itself as 'CVAT for video 1.1' or 'CVAT for images 1.1'.")
    filtered = _STEP.search(root.findtext("meta//frame_filter") or "")
    shapes: dict[int, list[Node]] = {}
    for track in tracks:
        for frame, shape in _shapes(file, track, int(filtered[1]) if filtered else 1, pictures):
            shapes.setdefault(frame, []).append(shape)
    sides = {side: (size.findtext(side) or "").strip() for side in ("width", "height")}
    images = []
    for frame in sorted({*shapes, *pictures}):
        name = pictures.get(frame, f"{_FRAME.format(frame)}.PNG")
        image = Node("image", {"name": name, "subset": subset, **sides})
        image.line = root.line
        image.extend(shapes.get(frame, ()))
        images.append(image)
    return images


def _shapes(file: Path, track: Node, step: int, pictures: Container[int]) -> Iterator[tuple[int, Node]]:
    """The frames that a track is visible in, with its shapes there; frames that were deleted have no picture."""
    before: int | None = None
    for shape in track:
        if not isinstance(shape, Node) or shape.get("frame") is None:
            continue
        place = f"{file}, line {shape.line}"
        frame = int(number(place, "frame", shape.get("frame")))
        between = range(frame if before is None else before + step, frame, step)
        if any(not pictures or skipped in pictures for skipped in between):
            raise DataError(
                f"{place}: track {track.get('id')} jumps from frame {before} to {frame}, and what is between would "
                "have to be interpolated. Export the task from CVAT, which writes a shape for every frame."
            )
        visible = shape.get("outside") != "1"
        before = frame if visible else None
        if visible:
            shape.set("label", str(track.get("label")))
            shape.set("group_id", track.get("group_id", "0"))
            yield frame, shape


def _pictures(root: Path, subset: str) -> Mapping[int, str]:
    """Names of the frames that have a picture, by number, from the first folder that has some."""
    for folder in (root / "images" / subset, root / "images", root / subset, root):
        found = {}
        for path in sorted(folder.glob("frame_*")):
            digits = path.stem.removeprefix("frame_")
            if digits.isdecimal() and path.suffix.lower() in picture_suffixes():
                found[int(digits)] = path.name
        if found:
            return found
    return {}
