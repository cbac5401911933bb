import pytest
import torch

from det_heads import Normalize, PixelConfig

MEAN, STD = (10.0, 20.0, 30.0), (2.0, 4.0, 8.0)


@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("scale", [1.0, 255.0])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_normalises_then_zeroes_the_padding(order, scale, dtype):
    images = torch.randint(0, 256, (2, 3, 6, 8), dtype=torch.uint8).to(dtype)
    before = images.clone()
    sizes = torch.tensor([[6, 8], [4, 5]], dtype=torch.int32)
    out = Normalize(PixelConfig(order=order, scale=scale, mean=MEAN, std=STD))(images, sizes)
    for image, (height, width) in enumerate(sizes.tolist()):
        for channel in range(3):
            source = channel if order == "rgb" else 2 - channel
            expected = (images[image, source].float() / scale - MEAN[channel]) / STD[channel]
            expected[height:] = 0
            expected[:, width:] = 0
            torch.testing.assert_close(out[image, channel], expected)
    assert out.dtype == torch.float32
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(images, before)  # the batch is left alone


def test_wrong_shapes_are_named():
    normalize = Normalize(PixelConfig())
    with pytest.raises(ValueError, match=r"images must be \[B, 3, H, W\]"):
        normalize(torch.zeros(3, 4, 4), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="image_sizes"):
        normalize(torch.zeros(2, 3, 4, 4), torch.zeros(1, 2))
