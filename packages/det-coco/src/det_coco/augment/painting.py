"""From a scene to a sample: objects are gathered, and each picture is painted once."""

from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch

from det_coco.augment.objects import Seen, seen_objects
from det_coco.augment.outlines import fill
from det_coco.augment.scene import Layer, Scene, Sheet
from det_coco.augment.warp import Warp, pixel_window
from det_coco.batches import BatchShape, Sample
from det_coco.mask_codec import ImageEdges, image_bitmaps, image_edges, reduced_bitmaps
from det_coco.transforms import View


def sample_of(scene: Scene, *, dtype: torch.dtype, ground_truth: bool = True) -> Sample:
    """Paint a scene, and gather its objects.

    Where the objects of several pictures are more than a batch has room for, the last picture is left out.

    Args:
        scene: the scene.
        dtype: type of the pixels.
        ground_truth: gather masks and keypoints too.

    Returns:
        the sample; crowd regions come last.
    """
    shape = scene.shape
    if len(scene.sheets) == 1 and len(scene.layers) == 1 and not scene.effects:
        (layer,) = scene.layers
        if layer.view is not None and not isinstance(layer.view, Warp) and not layer.effects:
            return _exact_sample(layer, layer.view, scene.image_id, shape, ground_truth)
    objects, covers = gather_all(scene)
    while not _fits(objects, shape) and (smaller := _without_last(scene)) is not None:
        scene = smaller
        objects, covers = gather_all(scene)
    objects = [one for one in objects if one.crowd or one.outlines or shape.masks == "none"]
    objects.sort(key=lambda one: one.crowd)
    boxes = np.array([one.box for one in objects], dtype=np.float64).reshape(-1, 4)
    masks = shape.masks if ground_truth else "none"
    first = scene.sheets[0].layers[0].view
    return Sample(
        image=paint(scene, covers).to(dtype),
        image_id=scene.image_id,
        scale=(1.0, 1.0) if first is None else (first.scale_y, first.scale_x),
        boxes=boxes.clip(0, [scene.width, scene.height] * 2).astype(np.float32),  # of their rounding
        labels=np.array([one.label for one in objects], dtype=np.int64),
        crowd=np.array([one.crowd for one in objects], dtype=bool),
        edges=_edges(objects) if masks == "polygons" else None,
        bitmaps=_bitmaps(objects, scene, shape) if masks == "bitmaps" else None,
        keypoints=_keypoints(objects, shape.keypoints) if shape.keypoints and ground_truth else None,
    )


def _exact_sample(layer: Layer, view: View, image_id: int, shape: BatchShape, ground_truth: bool) -> Sample:
    """One picture through one view, with the very pixels and coordinates of the system that the view follows."""
    picture = layer.picture
    masks = shape.masks if ground_truth else "none"
    skeleton = picture.skeleton if shape.keypoints and ground_truth else None
    return Sample(
        image=view.image(picture.read()),
        image_id=image_id,
        scale=(view.scale_y, view.scale_x),
        boxes=view.boxes(picture.boxes),
        labels=picture.labels,
        crowd=picture.crowd,
        edges=image_edges(picture, view) if masks == "polygons" else None,
        bitmaps=image_bitmaps(picture, view, shape.bitmap_sizes) if masks == "bitmaps" else None,
        keypoints=view.keypoints(picture.keypoints, skeleton.flip_indices) if skeleton else None,
    )


def gather_all(scene: Scene) -> tuple[list[Seen], list[list[np.ndarray | None]]]:
    """Find the objects of all sheets, and for each layer of each sheet bool `[H, W]` or None, as `gather` does."""
    gathered = [gather(sheet, scene.height, scene.width) for sheet in scene.sheets]
    return [one for objects, _ in gathered for one in objects], [covers for _, covers in gathered]


def gather(sheet: Sheet, height: int, width: int) -> tuple[list[Seen], list[np.ndarray | None]]:
    """Find the objects of a sheet, from the lowest layer to the highest.

    Args:
        sheet: the sheet.
        height: of the canvas.
        width: of the canvas.

    Returns:
        the objects of which something is seen, and for each layer bool `[H, W]`, the pixels that it takes from those
        below, or None where its region says that.
    """
    objects: list[Seen] = []
    covers: list[np.ndarray | None] = []
    for layer in sheet.layers:
        found, cover = seen_objects(layer), None
        if layer.pasted:
            found = [one for one in found if one.outlines]
            cover = np.zeros((height, width), dtype=bool)
            for one in found:
                if window := one.window(height, width):
                    left, top, right, bottom = window
                    cover[top:bottom, left:right] |= one.bitmap(window)
            objects = [rest for one in objects if (rest := one.behind(cover)) is not None]
        objects += found
        covers.append(cover)
    return objects, covers


def paint(scene: Scene, covers: Sequence[Sequence[np.ndarray | None]]) -> torch.Tensor:
    """Paint all sheets, and blend them.

    Args:
        scene: the scene.
        covers: for each layer of each sheet what `gather` found: bool `[H, W]`, or None.

    Returns:
        uint8 `[3, H, W]`.
    """
    canvases = []
    for sheet, shown in zip(scene.sheets, covers, strict=True):
        row = np.tile(np.array(scene.filling, dtype=np.uint8), (scene.width, 1))
        canvas = np.tile(row, (scene.height, 1, 1))
        for layer, cover in zip(sheet.layers, shown, strict=True):
            _paint_layer(canvas, layer, cover, scene.filling)
        canvases.append(canvas)
    pixels = canvases[0]
    if len(canvases) > 1:
        weights = np.array([sheet.weight for sheet in scene.sheets], dtype=np.float32)
        blended = sum(weight * canvas for weight, canvas in zip(weights / weights.sum(), canvases, strict=True))
        pixels = np.rint(blended).astype(np.uint8)
    for effect in scene.effects:
        pixels = effect(pixels)
    return torch.from_numpy(np.require(pixels, requirements=("C", "W"))).permute(2, 0, 1)


def _paint_layer(canvas: np.ndarray, layer: Layer, cover: np.ndarray | None, filling: tuple[int, int, int]) -> None:
    """Paint a picture where its region is, or where its objects are."""
    region = layer.region
    if cover is not None:
        rows, columns = np.flatnonzero(cover.any(axis=1)), np.flatnonzero(cover.any(axis=0))
        if not rows.size:
            return
        # The region of what is pasted follows from its masks, which are inside the picture's.
        region = np.array([[columns[0], rows[0]], [columns[-1] + 1, rows[-1] + 1]], dtype=np.float64)
    window = pixel_window(region, *canvas.shape[:2])
    if window is None:
        return
    left, top, right, bottom = window
    part = _pixels(layer, window, filling)
    for effect in layer.effects:
        part = effect(part)
    place = canvas[top:bottom, left:right]
    shown = cover if cover is None else cover[top:bottom, left:right]
    if shown is None and not ((region == region.min(axis=0)) | (region == region.max(axis=0))).all():
        sides = np.concatenate((region, np.roll(region, -1, axis=0)), axis=1)
        shown = fill(sides, bottom - top, right - left, left, top)
    if shown is None:
        place[...] = part
    else:
        # Whole pixels: NumPy is fifty times slower where a mask has to be spread over channels.
        np.copyto(place.view("V3"), part.view("V3"), where=shown[..., None])


def _pixels(layer: Layer, window: tuple[int, int, int, int], filling: tuple[int, int, int]) -> np.ndarray:
    """Pixels of a layer in a window of the canvas, rounded where a view makes fractions."""
    pixels, view = layer.picture.read(), layer.view
    if isinstance(view, Warp):
        return view.sample(pixels, window, filling)
    if view is not None:
        image = view.image(pixels)
        image = image if image.dtype == torch.uint8 else image.round().clamp(0, 255).to(torch.uint8)
        pixels = image.permute(1, 2, 0).numpy()
    left, top, right, bottom = window
    return pixels[top:bottom, left:right]


def _fits(objects: Sequence[Seen], shape: BatchShape) -> bool:
    if len(objects) > shape.max_instances:
        return False
    if shape.masks != "polygons":
        return True
    polygons = [edges for one in objects for edges in one.outlines]
    return len(polygons) <= shape.max_polygons and sum(map(len, polygons)) <= shape.max_edges


def _without_last(scene: Scene) -> Scene | None:
    """The scene without the last picture that brought objects, unless that is the first one."""
    *sheets, last = scene.sheets
    if sheets:
        return scene.with_sheets(*sheets)
    with_objects = [place for place, layer in enumerate(last.layers) if len(layer.picture)]
    if not with_objects or with_objects[-1] == 0:
        return None
    layers = (*last.layers[: with_objects[-1]], *last.layers[with_objects[-1] + 1 :])
    return scene.with_sheets(Sheet(layers=layers))


def _edges(objects: Sequence[Seen]) -> ImageEdges:
    polygons = list(chain.from_iterable(one.outlines for one in objects))
    return ImageEdges(
        edges=np.concatenate([np.zeros((0, 4)), *polygons]).astype(np.float32),
        polygon_edges=np.array([len(edges) for edges in polygons], dtype=np.int64),
        instance_polygons=np.array([len(one.outlines) for one in objects], dtype=np.int64),
    )


def _bitmaps(objects: Sequence[Seen], scene: Scene, shape: BatchShape) -> dict[str, np.ndarray]:
    whole = (0, 0, scene.width, scene.height)
    bitmaps = (None if one.crowd else torch.from_numpy(one.bitmap(whole)) for one in objects)
    return reduced_bitmaps(bitmaps, len(objects), shape.bitmap_sizes)


def _keypoints(objects: Sequence[Seen], count: int) -> np.ndarray:
    return np.array([one.keypoints for one in objects], dtype=np.float32).reshape(-1, count, 3)
