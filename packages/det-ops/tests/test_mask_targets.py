import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import det_ops
from det_ops.reference import mask_targets as reference

coco = pytest.importorskip("pycocotools.mask")

Polygons = list[np.ndarray]
"""Of one instance, each `[n, 2]` float32."""


def packed(images: list[list[Polygons]]) -> tuple[Tensor, Tensor, Tensor]:
    """`mask_edges`, `mask_polygons`, `mask_instances` with some padding everywhere."""
    every = []
    for instances in images:
        edges, polygons, owners = [], [0], [0]
        for instance in instances:
            for polygon in instance:
                edges.append(np.concatenate((polygon, np.roll(polygon, -1, 0)), 1))
                polygons.append(polygons[-1] + len(polygon))
            owners.append(len(polygons) - 1)
        every.append((np.concatenate([*edges, np.zeros((0, 4))]), polygons, owners))
    sizes = [max(len(row[i]) for row in every) + 2 for i in range(3)]
    return (
        torch.tensor(np.stack([np.pad(e, ((0, sizes[0] - len(e)), (0, 0))) for e, _, _ in every])).float(),
        torch.tensor([p + [p[-1]] * (sizes[1] - len(p)) for _, p, _ in every], dtype=torch.int32),
        torch.tensor([o + [o[-1]] * (sizes[2] - len(o)) for _, _, o in every], dtype=torch.int32),
    )


def definition(instance: Polygons, box: np.ndarray, size: int, legacy: bool) -> np.ndarray:
    """The two systems' arithmetic in NumPy, and pycocotools."""
    x1, y1, x2, y2 = box
    moved = []
    for polygon in instance:
        if legacy:
            width, height = (max(float(b), float(a) + 1) - float(a) for a, b in ((x1, x2), (y1, y2)))
            ratio = np.array([size / width, size / height]).astype(np.float32)
            points = (polygon - box[:2]) * ratio
            assert points.dtype == np.float32
        else:
            ratio = np.array([size / max(x2 - x1, np.float32(0.1)), size / max(y2 - y1, np.float32(0.1))])
            points = (polygon.astype(np.float64) - box[:2]) * ratio.astype(np.float32)
        moved.append(points.astype(np.float64).reshape(-1).tolist())
    if not moved:
        return np.zeros((size, size), np.uint8)
    return coco.decode(coco.merge(coco.frPyObjects(moved, size, size)))


@st.composite
def problems(draw: st.DrawFn) -> dict:
    """Polygons in and around boxes; coordinates on a grid of a tenth make ties of COCO's rounding common."""
    random = np.random.default_rng(draw(st.integers(0, 2**31)))
    grid = draw(st.sampled_from([None, 1.0, 0.5, 0.1]))
    size = draw(st.sampled_from([1, 5, 14, 28, 70]))

    def coordinates(n: int) -> np.ndarray:
        points = random.uniform(-15, 60, (n, 2))
        return (points if grid is None else np.round(points / grid) * grid).astype(np.float32)

    images = [
        [[coordinates(random.integers(3, 12)) for _ in range(random.integers(0, 4))] for _ in range(instances)]
        for instances in draw(st.lists(st.integers(0, 4), min_size=1, max_size=3))
    ]
    n = draw(st.integers(1, 6))
    corner = coordinates(n)
    side = np.full((n, 2), size) if draw(st.booleans()) else random.uniform(-1, 60, (n, 2))
    return {
        "images": images,
        "image_index": torch.from_numpy(random.integers(0, len(images), n)),
        "instance": torch.from_numpy(random.integers(-1, 4, n)),
        "boxes": torch.from_numpy(np.concatenate((corner, corner + side), 1).astype(np.float32)),
        "size": size,
        "legacy": draw(st.booleans()),
    }


@pytest.mark.parametrize("choice", ["auto", "reference"])
@given(problem=problems())
@settings(max_examples=100, deadline=None)
def test_equals_pycocotools(choice: str, problem: dict) -> None:
    images = problem.pop("images")
    with det_ops.kernels(choice):
        masks = det_ops.rasterize_polygons(*packed(images), **problem)
    for mask, image, slot, box in zip(
        masks, problem["image_index"].tolist(), problem["instance"].tolist(), problem["boxes"].numpy(), strict=True
    ):
        known = 0 <= slot < len(images[image])
        expected = definition(images[image][slot] if known else [], box, problem["size"], problem["legacy"])
        assert np.array_equal(mask.numpy(), expected)


def test_the_reference_rounds_ratios_once() -> None:
    sides = torch.linspace(1, 99, 2000)
    boxes = torch.zeros(2000, 4)
    boxes[:, 2:] = sides[:, None]
    ratios = reference.to_mask_pixels(torch.ones(2000, 1, 4), boxes, 28, False)[:, 0, 0]
    assert np.array_equal(ratios.numpy(), (np.float32(28) / sides.numpy()).astype(np.float64))


@given(seed=st.integers(0, 2**31))
@settings(max_examples=300, deadline=None)
def test_one_edge_at_a_time(seed: int) -> None:
    """Triangles whose corners lie on or near the rounding ties of COCO's fine grid, at the scale of the mask."""
    random = np.random.default_rng(seed)
    points = (random.integers(-40, 200, (3, 2)) / 5 - 0.1 * random.integers(0, 2, (3, 2))).astype(np.float32)
    arguments = (*packed([[[points]]]), torch.tensor([0]), torch.tensor([0]), torch.tensor([[0.0, 0, 28, 28]]))
    expected = definition([points], np.array([0, 0, 28, 28], np.float32), 28, False)
    assert np.array_equal(det_ops.rasterize_polygons(*arguments)[0].numpy(), expected)
    with det_ops.kernels("reference"):
        assert np.array_equal(det_ops.rasterize_polygons(*arguments)[0].numpy(), expected)


def scene(records) -> tuple[list[list[Polygons]], Tensor]:
    """Polygons and bitmaps `[1, 4, h, w]` of the recorded image 0."""
    ends = np.cumsum(records["in/gt_poly_len0"])
    polygons = [[part] for part in np.split(records["in/gt_poly0"], ends[:-1])]
    bitmaps = np.unpackbits(records["in/gt_masks_packed0"], axis=-1, count=records["in/image0"].shape[1])
    return [polygons], torch.from_numpy(bitmaps)[None]


def recorded(parity, name: str) -> tuple[dict, Tensor]:
    regions = {
        "image_index": torch.zeros(24, dtype=torch.int64),
        "instance": torch.from_numpy(parity["masktarget/gt_index"]),
        "boxes": torch.from_numpy(parity["masktarget/boxes"]),
    }
    target = parity[f"masktarget/{name}"]
    if target.dtype == np.uint8:
        target = np.unpackbits(target, axis=-1, count=784).reshape(24, 28, 28).astype(np.float32)
    return regions, torch.from_numpy(target)


@pytest.mark.parametrize(("system", "legacy"), [("detectron2_polygon", False), ("mrb_polygon", True)])
def test_recorded_polygons(parity, parity_scene, kernels: str, system: str, legacy: bool) -> None:
    regions, target = recorded(parity, system)
    assert torch.equal(det_ops.rasterize_polygons(*packed(scene(parity_scene)[0]), **regions, legacy=legacy), target)


@pytest.mark.parametrize(
    ("system", "options"),
    [
        ("torchvision", {"aligned": False, "threshold": None}),
        ("detectron2_bitmask", {"aligned": True, "threshold": 0.5}),
        ("mmdet_bitmap", {"aligned": True, "threshold": 0.5}),
    ],
)
def test_recorded_bitmaps(parity, parity_scene, kernels: str, system: str, options: dict) -> None:
    regions, target = recorded(parity, system)
    found = det_ops.bitmap_targets(scene(parity_scene)[1], **regions, **options)
    torch.testing.assert_close(found, target, rtol=0, atol=1e-6 if options["threshold"] is None else 0)


def test_horizontal_edges_stand_for_a_bitmap(kernels: str) -> None:
    """The rule by which RLE ground truth becomes edges: the rows where a column changes."""
    bitmap = torch.rand(28, 28, generator=torch.Generator().manual_seed(0)) < 0.5
    padded = torch.nn.functional.pad(bitmap, (0, 0, 1, 1))
    rows, columns = (padded[1:] ^ padded[:-1]).nonzero().unbind(1)
    edges = torch.stack((columns, rows, columns + 1, rows), 1).float()[None]
    bounds = torch.tensor([[0, edges.shape[1]]], dtype=torch.int32), torch.tensor([[0, 1]], dtype=torch.int32)
    zero = torch.tensor([0])
    found = det_ops.rasterize_polygons(edges, *bounds, zero, zero, torch.tensor([[0.0, 0, 28, 28]]))
    assert torch.equal(found[0], bitmap.float())


@st.composite
def bitmap_problems(draw: st.DrawFn) -> dict:
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    b, m, h, w = (draw(st.integers(1, n)) for n in (2, 3, 40, 40))
    n = draw(st.integers(0, 5))
    extent = torch.tensor([w, h])
    corner = (torch.rand(n, 2, generator=generator) * 1.4 - 0.4) * extent
    side = torch.rand(n, 2, generator=generator) * extent
    return {
        "bitmaps": (torch.rand(b, m, h, w, generator=generator) < 0.5).to(torch.uint8),
        "image_index": torch.randint(0, b, (n,), generator=generator),
        "instance": torch.randint(-1, m, (n,), generator=generator),
        "boxes": torch.cat((corner, corner + side), 1),
        "size": draw(st.sampled_from([1, 3, 28])),
        "aligned": draw(st.booleans()),
    }


@pytest.mark.parametrize("choice", ["auto", "reference"])
@given(problem=bitmap_problems())
@settings(max_examples=40, deadline=None)
def test_bitmaps_equal_torchvision(choice: str, problem: dict) -> None:
    with det_ops.kernels(choice):
        found = det_ops.bitmap_targets(**problem, threshold=None)
    maps = problem["bitmaps"].flatten(0, 1)[:, None].float()
    slot = problem["instance"].clamp(min=0)
    index = problem["image_index"] * problem["bitmaps"].shape[1] + slot
    rois = torch.cat((index[:, None].float(), problem["boxes"]), 1)
    expected = torchvision.ops.roi_align(maps, rois, problem["size"], 1.0, -1, problem["aligned"])[:, 0]
    expected[problem["instance"] < 0] = 0
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    with det_ops.kernels(choice):
        binary = det_ops.bitmap_targets(**problem, threshold=0.5)
    assert torch.equal(binary, (found >= 0.5).float())


def polygon_arguments() -> tuple:
    square = np.array([[0, 0], [10, 0], [10, 10], [0, 10]], np.float32)
    codec = packed([[[square]], [[square + 3, square], [square * 2]]])
    boxes = torch.tensor([[0.0, 0, 12, 12], [1, 2, 9, 20], [0, 0, 3, 3]])
    return (*codec, torch.tensor([0, 1, 1]), torch.tensor([0, 1, -1]), boxes)


def bitmap_arguments() -> tuple:
    bitmaps = (torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) < 0.5).to(torch.uint8)
    return (bitmaps, *polygon_arguments()[3:])


def test_operators(kernels: str) -> None:
    torch.library.opcheck(torch.ops.det_ops.rasterize_polygons.default, (*polygon_arguments(), 7, False))
    torch.library.opcheck(torch.ops.det_ops.bitmap_targets.default, (*bitmap_arguments(), 7, True))


def test_compile_and_export(kernels: str) -> None:
    class Module(torch.nn.Module):
        def forward(self, *arguments: Tensor) -> tuple[Tensor, Tensor]:
            polygons = det_ops.rasterize_polygons(*arguments[:6], size=7)
            return polygons, det_ops.bitmap_targets(arguments[6], *arguments[3:6], size=7, aligned=True, threshold=0.5)

    every = (*polygon_arguments(), bitmap_arguments()[0])
    expected = Module()(*every)
    torch._dynamo.reset()
    compiled = torch.compile(Module(), fullgraph=True, backend="aot_eager")(*every)
    exported = torch.export.export(Module(), every).module()(*every)
    for found in (compiled, exported):
        assert all(map(torch.equal, found, expected))


def test_references_read_nothing_on_the_host() -> None:
    # Tensors that have no values, and are not on the CPU.
    fakes = [tensor.to("meta") for tensor in polygon_arguments()]
    assert reference.rasterize_polygons(*fakes, 7, False).shape == (3, 7, 7)
    fakes = [tensor.to("meta") for tensor in bitmap_arguments()]
    assert reference.bitmap_targets(*fakes, 7, True).shape == (3, 7, 7)


def test_the_reference_of_regions_longer_than_the_bitmap() -> None:
    bitmaps, image, instance, boxes = bitmap_arguments()
    boxes = boxes.clone()
    boxes[0] = torch.tensor([-200.0, -100.0, 300.0, 90.0])
    found = []
    for choice in ("auto", "reference"):
        with det_ops.kernels(choice):
            found.append(det_ops.bitmap_targets(bitmaps, image, instance, boxes, size=7, aligned=True, threshold=None))
    assert found[0][0].any()
    torch.testing.assert_close(*found, atol=1e-6, rtol=1e-5)


def test_nothing_to_draw(kernels: str) -> None:
    codec = torch.zeros(1, 0, 4), torch.zeros(1, 1, dtype=torch.int32), torch.zeros(1, 3, dtype=torch.int32)
    none, zero = torch.zeros(0, dtype=torch.int64), torch.tensor([0])
    assert det_ops.rasterize_polygons(*codec, none, none, torch.zeros(0, 4)).shape == (0, 28, 28)
    assert not det_ops.rasterize_polygons(*codec, zero, zero, torch.rand(1, 4)).any()
    arguments = list(polygon_arguments())
    arguments[5] = torch.full((3, 4), torch.nan)
    assert not det_ops.rasterize_polygons(*arguments).any()
    assert not det_ops.bitmap_targets(bitmap_arguments()[0], *arguments[3:], aligned=True, threshold=None).any()


def test_non_contiguous(kernels: str) -> None:
    arguments = polygon_arguments()
    strided = [tensor.repeat_interleave(2, -1)[..., ::2] for tensor in arguments]
    assert not strided[0].is_contiguous()
    assert torch.equal(det_ops.rasterize_polygons(*strided), det_ops.rasterize_polygons(*arguments))
    arguments = bitmap_arguments()
    strided = [tensor.repeat_interleave(2, -1)[..., ::2] for tensor in arguments]
    options = {"aligned": True, "threshold": None}
    assert torch.equal(det_ops.bitmap_targets(*strided, **options), det_ops.bitmap_targets(*arguments, **options))


@pytest.mark.parametrize(
    ("position", "wrong", "message"),
    [
        (0, torch.zeros(2, 5, 3), r"mask_edges must be a float32 Tensor\[B, V, 4\]"),
        (0, torch.zeros(2, 5, 4, dtype=torch.float64), r"mask_edges must be a float32 Tensor\[B, V, 4\]"),
        (1, torch.zeros(2, 5), r"mask_polygons must be a int32 Tensor\[B, Q \+ 1\]"),
        (2, torch.zeros(3, 5, dtype=torch.int32), "mask_instances must have 2 rows"),
        (3, torch.zeros(2, dtype=torch.int64), r"image_index must have shape \[3\]"),
        (4, torch.zeros(3, dtype=torch.int32), "instance must be of dtype int64"),
        (5, torch.zeros(3, 5), r"boxes must be a floating Tensor\[R, 4\]"),
    ],
)
def test_polygon_errors(position: int, wrong: Tensor, message: str) -> None:
    arguments = list(polygon_arguments())
    arguments[position] = wrong
    with pytest.raises(ValueError, match=message):
        det_ops.rasterize_polygons(*arguments)


def test_bitmap_errors() -> None:
    bitmaps, *rest = bitmap_arguments()
    with pytest.raises(ValueError, match=r"bitmaps must be a uint8 Tensor\[B, M, H, W\]"):
        det_ops.bitmap_targets(bitmaps.bool(), *rest, aligned=True, threshold=None)
    with pytest.raises(ValueError, match="bitmaps must not be empty"):
        det_ops.bitmap_targets(bitmaps[:, :0], *rest, aligned=True, threshold=None)
    with pytest.raises(ValueError, match="size must be at least 1"):
        det_ops.bitmap_targets(bitmaps, *rest, size=0, aligned=True, threshold=None)
