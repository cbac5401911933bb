import json
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from det_coco import CocoIndex, load_split
from det_coco.annotated import Annotated
from det_coco.mask_codec import ImageEdges, image_bitmaps, image_edges, instance_bitmap
from det_coco.transforms import Geometry


def rasterize(edges: np.ndarray, height: int, width: int) -> np.ndarray:
    """COCO's polygon rasterisation, edge by edge (maskApi.c, rleFrPoly), written from its description."""
    toggles = np.zeros((height + 1, width), dtype=int)
    for edge in edges.astype(np.float64):
        x1, y1, x2, y2 = (int(v) for v in np.trunc(5 * edge + 0.5))
        dx, dy = abs(x2 - x1), abs(y2 - y1)
        if (dx >= dy and x1 > x2) or (dx < dy and y1 > y2):
            x1, y1, x2, y2 = x2, y2, x1, y1
        if dx >= dy:
            slope = (y2 - y1) / dx if dx else 0.0
            points = [(x1 + t, int(y1 + slope * t + 0.5)) for t in range(dx + 1)]
        else:
            points = [(int(x1 + (x2 - x1) / dy * t + 0.5), y1 + t) for t in range(dy + 1)]
        for (u, v), (u2, v2) in pairwise(points):
            if u == u2:
                continue
            column, rest = divmod(min(u, u2) - 2, 5)
            if rest or not 0 <= column < width:
                continue
            toggles[int(np.ceil(np.clip((min(v, v2) + 0.5) / 5 - 0.5, 0, height))), column] += 1
    return toggles.cumsum(axis=0)[:-1] % 2


def masks_of(encoded: ImageEdges, height: int, width: int) -> list[np.ndarray]:
    bounds = np.concatenate(([0], np.cumsum(encoded.polygon_edges)))
    polygons = [rasterize(encoded.edges[a:b], height, width) for a, b in pairwise(bounds)]
    out, first = [], 0
    for count in encoded.instance_polygons:
        own = polygons[first : first + count]
        out.append(np.logical_or.reduce([*own, np.zeros((height, width), dtype=bool)]))
        first += count
    return out


def geometry(height: int, width: int, scale: int = 1, flip: bool = False) -> Geometry:
    return Geometry(height=height * scale, width=width * scale, scale_y=scale, scale_x=scale, flip=flip, offset=0.0)


@pytest.fixture
def index_with(content, write) -> Callable[..., CocoIndex]:
    def make(segmentation, crowd: int = 0) -> CocoIndex:
        content["annotations"][0]["segmentation"] = segmentation
        content["annotations"][0]["iscrowd"] = crowd
        return CocoIndex.load(*write(content))

    return make


# Quarters of pixels: float32 edges hold them exactly.
STAR = [[20.0, 2.5, 24.25, 30.25, 3.25, 12.0, 28.75, 14.5, 6.25, 33.75], [1, 1, 9, 2, 5, 11.5]]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-8, 40), st.floats(-8, 50)), min_size=3, max_size=9),
    st.floats(0.3, 2.5),
    st.booleans(),
)
def test_polygons_follow_pycocotools(points, scale, flip):
    """Scaled and mirrored outlines rasterise to what pycocotools makes of the scaled and mirrored polygon."""
    height, width = 40, 30
    step = Geometry(height=height, width=width, scale_y=scale, scale_x=scale, flip=flip, offset=0.0)
    polygon = np.array(points)
    closed = np.concatenate((polygon, np.roll(polygon, -1, axis=0)), axis=1)
    edges = step.edges(closed)
    # Truncation of negative numbers differs between languages of the walk only left of and above the image.
    moved = edges[:, :2].astype(np.float64)
    code = coco_mask.frPyObjects([moved.reshape(-1).tolist()], height, width)
    np.testing.assert_array_equal(rasterize(edges, height, width), coco_mask.decode(code)[:, :, 0])


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scale", [1, 2, 3])
def test_run_length_masks_scale_and_mirror_exactly(index_with, scale, flip):
    bitmap = np.random.default_rng(1).random((40, 30)) < 0.5
    code = coco_mask.encode(np.asfortranarray(bitmap.astype(np.uint8)))
    index = index_with({"size": [40, 30], "counts": code["counts"].decode()})
    encoded = image_edges(Annotated.of(index, 1, np.array([1])), geometry(40, 30, scale, flip))
    expected = np.kron(bitmap, np.ones((scale, scale), dtype=bool))
    if flip:
        expected = expected[:, ::-1]
    assert encoded.instance_polygons.tolist() == [1]
    np.testing.assert_array_equal(masks_of(encoded, 40 * scale, 30 * scale)[0], expected)


def test_polygon_parts_are_joined(index_with):
    index = index_with(STAR)
    encoded = image_edges(Annotated.of(index, 1, np.array([1])), geometry(40, 30))
    assert encoded.polygon_edges.tolist() == [5, 3]
    expected = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(STAR, 40, 30)))
    np.testing.assert_array_equal(masks_of(encoded, 40, 30)[0], expected)
    np.testing.assert_array_equal(instance_bitmap(index, 1, 40, 30), expected)
    np.testing.assert_array_equal(
        image_bitmaps(Annotated.of(index, 1, np.array([1])), geometry(40, 30, flip=True))["mask_bitmaps"][0],
        expected[:, ::-1],
    )


def test_uncompressed_and_compressed_codes_are_the_same_mask(index_with):
    bitmap = np.zeros((40, 30), dtype=np.uint8)
    bitmap[5:20, 4:9] = 1
    counts = [4 * 40 + 5]
    for _ in range(4):
        counts += [15, 25]
    counts += [15, 1200 - sum(counts) - 15]
    first = index_with({"size": [40, 30], "counts": counts})
    np.testing.assert_array_equal(instance_bitmap(first, 1, 40, 30), bitmap)
    assert first.edge_counts.tolist() == [4, 2]
    assert first.polygon_counts.tolist() == [1, 1]


def test_crowd_has_no_mask_in_a_batch(index_with):
    index = index_with({"size": [40, 30], "counts": [0, 1200]}, crowd=1)
    encoded = image_edges(Annotated.of(index, 1, np.array([1])), geometry(40, 30))
    assert encoded.instance_polygons.tolist() == [0]
    assert encoded.edges.shape == (0, 4)
    assert not image_bitmaps(Annotated.of(index, 1, np.array([1])), geometry(40, 30))


def test_bitmaps_are_resized_as_torchvision_does(index_with):
    torch = pytest.importorskip("torch")
    index = index_with(STAR)
    step = Geometry(height=57, width=43, scale_y=57 / 40, scale_x=43 / 30, flip=False, offset=0.0)
    ours = image_bitmaps(Annotated.of(index, 1, np.array([1])), step)["mask_bitmaps"][0]
    original = torch.from_numpy(instance_bitmap(index, 1, 40, 30))[None, None].float()
    theirs = torch.nn.functional.interpolate(original, size=(57, 43))[0, 0].byte().numpy()
    np.testing.assert_array_equal(ours, theirs)


def test_photographs_masks_equal_pycocotools(coco_mini):
    index = load_split(coco_mini, "val2017")
    records = {a["id"]: a for a in json.loads(index.annotation_file.read_bytes())["annotations"]}
    images = np.repeat(np.arange(len(index)), np.diff(index.image_instances))
    rows = [n for n in range(0, index.num_instances, 12) if not index.crowd[n]]
    assert len(rows) > 20
    for n in rows:
        height, width = int(index.heights[images[n]]), int(index.widths[images[n]])
        polygons = records[int(index.annotation_ids[n])]["segmentation"]
        expected = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width)))
        np.testing.assert_array_equal(instance_bitmap(index, n, height, width), expected)
        encoded = image_edges(Annotated.of(index, int(images[n]), np.array([n])), geometry(height, width))
        # Edges are float32, so a point on the border of two fifths of a pixel may fall to the other side.
        assert (masks_of(encoded, height, width)[0] != expected).sum() <= 0.01 * expected.sum() + 8


def test_photographs_run_lengths_come_back_exactly(pennfudan):
    index = load_split(pennfudan, "val")
    for position in range(0, len(index), 4):
        height, width = int(index.heights[position]), int(index.widths[position])
        rows = np.arange(index.instances(position).start, index.instances(position).stop)
        encoded = image_edges(Annotated.of(index, position, rows), geometry(height, width))
        for row, mask in zip(rows, masks_of(encoded, height, width), strict=True):
            np.testing.assert_array_equal(mask, instance_bitmap(index, int(row), height, width))
