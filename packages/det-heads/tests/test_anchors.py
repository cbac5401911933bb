import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from det_heads import AnchorConfig, Anchors, cell_anchors, inside_image

RATIOS = (0.5, 1.0, 2.0)
STRIDES = (4, 8, 16, 32, 64)
SIZES = (32, 64, 128, 256, 512)

LEGACY = [
    [[-22, -10, 25, 13], [-14, -14, 17, 17], [-10, -22, 13, 25]],
    [[-40, -20, 47, 27], [-28, -28, 35, 35], [-20, -44, 27, 51]],
    [[-84, -40, 99, 55], [-56, -56, 71, 71], [-36, -80, 51, 95]],
    [[-164, -72, 195, 103], [-112, -112, 143, 143], [-76, -168, 107, 199]],
    [[-332, -152, 395, 215], [-224, -224, 287, 287], [-148, -328, 211, 391]],
]
# (half width, half height) of the wide, the square and the tall box
FLOAT = [(22.6274, 11.3137), (45.2548, 22.6274), (90.5097, 45.2548), (181.019, 90.5097), (362.039, 181.019)]
ROUNDED = [(23, 11), (45, 23), (91, 45), (181, 91), (362, 181)]


@pytest.mark.parametrize("level", range(5))
def test_legacy_cells(level):
    cells = cell_anchors([SIZES[level]], RATIOS, STRIDES[level], "legacy")
    assert cells.tolist() == LEGACY[level]


@pytest.mark.parametrize(("rounding", "table"), [("none", FLOAT), ("round", ROUNDED)])
@pytest.mark.parametrize("level", range(5))
def test_float_and_rounded_cells(rounding, table, level):
    long, short = table[level]
    half = SIZES[level] / 2
    expected = [[-long, -short, long, short], [-half, -half, half, half], [-short, -long, short, long]]
    cells = cell_anchors([SIZES[level]], RATIOS, STRIDES[level], rounding)
    torch.testing.assert_close(cells, torch.tensor(expected, dtype=torch.float32), rtol=3e-6, atol=1e-4)


@pytest.mark.parametrize("shape", [(800, 1344), (320, 480), (64, 96)])
def test_image_grid_equals_torchvision(shape):
    grids = [(-(-shape[0] // s), -(-shape[1] // s)) for s in STRIDES]
    theirs = AnchorGenerator(tuple((s,) for s in SIZES), (RATIOS,) * 5)(
        ImageList(torch.zeros(1, 3, *shape), [shape]), [torch.zeros(1, 1, *grid) for grid in grids]
    )
    ours = Anchors(AnchorConfig(rounding="round", grid="image"), STRIDES)(grids, shape)
    torch.testing.assert_close(ours, theirs[0], rtol=0, atol=0)


def test_vertical_stride_of_p6_is_61_by_the_image_grid_and_64_by_strides():
    for grid, step in (("image", 61), ("stride", 64)):
        config = AnchorConfig(sizes=((512.0,),), ratios=(1.0,), grid=grid)
        anchors = Anchors(config, (64,))([(13, 21)], (800, 1344)).view(13, 21, 4)
        assert (anchors[1, 0] - anchors[0, 0]).tolist() == [0, step, 0, step]
        assert (anchors[0, 1] - anchors[0, 0]).tolist() == [64, 0, 64, 0]


def test_order_is_level_row_column_anchor():
    anchors = Anchors(AnchorConfig(sizes=((8.0,), (16.0,))), (4, 8))([(2, 3), (1, 2)], (8, 12))
    assert anchors.shape == ((6 + 2) * 3, 4)
    centres = ((anchors[:, :2] + anchors[:, 2:]) / 2)[1::3]  # of the square anchors
    assert centres.tolist() == [[0, 0], [4, 0], [8, 0], [0, 4], [4, 4], [8, 4], [0, 0], [8, 0]]


def test_straddling_anchors_are_told_per_image():
    anchors = torch.tensor([[0, 0, 9, 9], [-1, 0, 9, 9], [0, 0, 10, 9], [0, 0, 9, 20]], dtype=torch.float32)
    sizes = torch.tensor([[10, 10], [21, 11]])
    assert inside_image(anchors, sizes, 0.0).tolist() == [[True, False, False, False], [True, False, True, True]]
    assert inside_image(anchors, sizes, 1.5)[0].tolist() == [True, True, True, False]


def test_anchors_are_remembered_and_not_saved():
    anchors = Anchors(AnchorConfig(), STRIDES)
    grids = [(8, 8), (4, 4), (2, 2), (1, 1), (1, 1)]
    assert anchors(grids, (32, 32)) is anchors(grids, (32, 32))
    assert not anchors.state_dict()


def test_sizes_must_fit_the_levels():
    with pytest.raises(ValueError, match="one entry per level"):
        Anchors(AnchorConfig(), (4, 8))


def test_first_mmdetection_rounds_the_corners_of_exact_windows():
    found = cell_anchors((32.0,), (0.5, 1.0, 2.0), 4, "legacy_round")
    assert found.tolist() == [[-21, -9, 24, 12], [-14, -14, 17, 17], [-9, -21, 12, 24]]


def test_inference_remembers_few_shapes_and_training_all():
    anchors = Anchors(AnchorConfig(), STRIDES)

    def of(width):
        grids = [(-(-64 // stride), -(-width // stride)) for stride in STRIDES]
        return anchors(grids, (64, width))

    trained = of(64)
    anchors.eval()
    assert of(64) is trained
    shapes = [96 + 32 * n for n in range(40)]
    found = [of(width) for width in shapes]
    assert of(shapes[-1]) is found[-1]
    assert of(shapes[0]) is not found[0]
    torch.testing.assert_close(of(shapes[0]), found[0])
    assert sum(len(kept) for kept in (anchors._of_training, anchors._recent)) <= 17
    assert of(64) is trained
