"""Plain vision transformers of timm as bodies, and the pyramid on their one feature."""

import pytest
import timm
import torch

from det_backbones import ResNetFPN, SimplePyramid, WeightsError, load_imagenet_weights, timm_backbone

SMALL = {"embed_dim": 32, "depth": 3, "num_heads": 2}
NETWORKS = {
    "vit_tiny_patch16_224": SMALL,
    "vit_small_patch14_dinov2": SMALL,
    "vit_small_patch16_dinov3": SMALL,
    "samvit_base_patch16": SMALL | {"global_attn_indexes": (1,), "neck_chans": 16},
}


def build(name, **options):
    torch.manual_seed(0)
    return timm_backbone(name, **NETWORKS[name], **options)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(64, 96), (160, 64)])
def test_levels_have_the_strides_that_they_declare_and_reach_all_weights(name, size):
    body = build(name)
    assert (body.out_channels, body.strides) == ((32,), (16,))
    pyramid = ResNetFPN(body, SimplePyramid(32, 8))
    levels = pyramid(torch.randn(2, 3, *size))
    assert pyramid.strides == (4, 8, 16, 32, 64)
    for level, stride in zip(levels, pyramid.strides, strict=True):
        assert level.shape == (2, 8, *(-(-side // stride) for side in size))
    sum(level.square().mean() for level in levels).backward()
    assert all(parameter.grad is not None for parameter in pyramid.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_are_all_parameters_from_the_input_on(name):
    body = build(name)
    names = [parameter for group in body.layer_groups() for parameter in group]
    assert sorted(names) == sorted(parameter for parameter, _ in body.named_parameters())
    assert any("patch_embed" in parameter for parameter in body.layer_groups()[0])
    assert any("blocks.2." in parameter for parameter in body.layer_groups()[-1])


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_frozen(name):
    assert not any(parameter.requires_grad for parameter in build(name, freeze_at=5).parameters())
    frozen = {key for key, parameter in build(name, freeze_at=1).named_parameters() if not parameter.requires_grad}
    assert any("patch_embed" in key for key in frozen)
    assert not any("blocks" in key for key in frozen)
    with pytest.raises(ValueError, match=r"has one stage: freeze_at must be 0 .* or 5 \(everything\), got 2"):
        build(name, freeze_at=2)


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_from_a_file_of_timm(tmp_path, name):
    """Patches of 14 pixels become 16, and the grid of DINOv2's places another one; all else is taken as it is."""
    torch.manual_seed(1)
    whole = timm.create_model(name, **NETWORKS[name]).state_dict()
    torch.save(whole, tmp_path / "weights.pth")
    body = build(name)
    report = load_imagenet_weights(body, tmp_path / "weights.pth")
    assert report.missing == ()
    resampled = set()
    for key, value in body.network.model.state_dict().items():
        if whole[key].shape == value.shape:
            assert torch.equal(value, whole[key]), key
        else:
            resampled.add(key)
    assert resampled == ({"patch_embed.proj.weight", "pos_embed"} if "dinov2" in name else set())


def test_resampled_patches_see_the_same(tmp_path):
    """An even picture has the same embedding, whatever the size of the patches."""
    whole = timm.create_model("vit_small_patch14_dinov2", **SMALL)
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    body = build("vit_small_patch14_dinov2")
    load_imagenet_weights(body, tmp_path / "weights.pth")
    image = torch.full((1, 3, 112, 112), 0.7)
    ours, theirs = body.network.model.patch_embed(image), whole.patch_embed.proj(image)
    torch.testing.assert_close(ours[0, 0, 0], theirs[0, :, 0, 0], rtol=1e-3, atol=1e-4)


def test_metas_names_are_read_as_timms(tmp_path):
    """DINOv2's file has the embedding of masked patches beside timm's names."""
    whole = timm.create_model("vit_small_patch14_dinov2", **SMALL).state_dict()
    torch.save(whole | {"mask_token": torch.zeros(1, 32)}, tmp_path / "weights.pth")
    assert load_imagenet_weights(build("vit_small_patch14_dinov2"), tmp_path / "weights.pth").missing == ()


def test_another_transformer_is_refused_and_nothing_changes(tmp_path):
    whole = timm.create_model("vit_tiny_patch16_224", embed_dim=32, depth=4, num_heads=2)
    state = whole.state_dict()
    del state["blocks.1.attn.qkv.weight"]
    torch.save(state, tmp_path / "weights.pth")
    body = build("vit_tiny_patch16_224")
    before = {key: value.clone() for key, value in body.state_dict().items()}
    with pytest.raises(WeightsError, match=r"another network than timm/vit_tiny_patch16_224, .*blocks\.1\.attn\.qkv"):
        load_imagenet_weights(body, tmp_path / "weights.pth")
    assert all(torch.equal(value, before[key]) for key, value in body.state_dict().items())
