from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from det_coco import Resize, interpolation
from det_coco.interpolation import resize_as_opencv, resize_as_pillow, resize_as_torch

sides = st.integers(1, 70)


@pytest.fixture(params=["compiled", "python"])
def path(request, monkeypatch):
    """Both ways of the same numbers."""
    if request.param == "python":
        monkeypatch.setattr(interpolation, "compiled", None)
    elif interpolation.compiled is None:
        pytest.skip("det-coco was installed without a C++ compiler")


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def by_pillow(image, height, width):
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized).transpose(2, 0, 1)


@given(sides, sides, sides, sides)
def test_pixels_are_those_of_pillow(height, width, new_height, new_width):
    image = picture(height, width)
    ours = resize_as_pillow(image, new_height, new_width)
    np.testing.assert_array_equal(ours.numpy(), by_pillow(image, new_height, new_width))


@given(st.integers(20, 300), st.integers(20, 300), st.floats(0.05, 3))
def test_pixels_are_those_of_pillow_where_the_aspect_stays(height, width, scale):
    image = picture(height, width)
    size = max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
    np.testing.assert_array_equal(resize_as_pillow(image, *size).numpy(), by_pillow(image, *size))


@given(sides, sides, sides, sides)
def test_pixels_are_those_of_torch(height, width, new_height, new_width):
    image = picture(height, width)
    ours = resize_as_torch(image, new_height, new_width)
    tensor = torch.from_numpy(image).permute(2, 0, 1).float()
    theirs = F.interpolate(tensor[None], (new_height, new_width), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)


@given(sides, sides, sides, sides)
def test_compiled_and_python_agree_on_opencv(height, width, new_height, new_width):
    image = picture(height, width)
    compiled = resize_as_opencv(image, new_height, new_width)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpolation, "compiled", None)
        assert torch.equal(resize_as_opencv(image, new_height, new_width), compiled)


@pytest.mark.usefixtures("path")
class TestReferences:
    """Pixels that the systems' own code made of one picture."""

    @pytest.fixture(scope="class")
    def files(self):
        for folder in (Path(__file__).parents[3] / "tests" / "parity", Path(__file__).parents[4] / "shared" / "parity"):
            if (folder / "ops.npz").is_file():
                return np.load(folder / "ops.npz"), np.load(folder / "detectron2_mask_rcnn_R_50_FPN.npz")["in/image0"]
        pytest.skip("no reference values: tests/parity/ops.npz is missing")

    @pytest.mark.parametrize(
        ("rule", "name"),
        [("detectron2", "detectron2_pil"), ("maskrcnn_benchmark", "detectron2_pil"), ("mmdetection", "mmcv")],
    )
    @pytest.mark.parametrize(("shortest", "longest"), [(800, 1333), (640, 1333), (400, 500)])
    def test_pixels(self, files, rule, name, shortest, longest):
        reference, image = files
        key = next(
            key for key in reference.files if key.startswith(f"resize/{name}") and f"_{shortest}_{longest}/shape" in key
        )
        key = key.removesuffix("/shape")
        resize = Resize(shortest=(shortest,), longest=longest, rule=rule)
        size = tuple(reference[f"{key}/shape"].tolist()[:2])
        if rule != "maskrcnn_benchmark":  # which truncates where the others round
            assert resize.output_size(*image.shape[:2]) == size
        ours = resize.apply(image, *size).permute(1, 2, 0).reshape(-1)[::1009].numpy()
        np.testing.assert_array_equal(ours, reference[f"{key}/sample"])

    def test_a_resize_to_the_same_size_keeps_every_pixel(self):
        image = picture(30, 40)
        for resize in (resize_as_pillow, resize_as_opencv, resize_as_torch):
            np.testing.assert_array_equal(resize(image, 30, 40).numpy(), image.transpose(2, 0, 1))

    def test_parts_of_arrays_are_read_as_they_are(self):
        image = picture(40, 60)[::2, 10:50, ::-1]
        for resize in (resize_as_pillow, resize_as_opencv, resize_as_torch):
            assert torch.equal(resize(image, 33, 47), resize(image.copy(), 33, 47))
