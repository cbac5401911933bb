"""The assembled detectors: the static contract, padding, truth that is missing, precision, stages."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from det_heads import BatchPart, BoxHead, flatten_levels, ground_truth, mask_targets, rpn_losses, select_proposals
from det_models import build
from testing.operators import StaticRecorder, assert_equal_calls
from testing.trained import small_model

PLAIN = ["detectron2", "torchvision", "maskrcnn_benchmark"]
SYSTEMS = [*PLAIN, "detectron2_cascade", "mmdetection_cascade"]
KEYS = ["loss_rpn_cls", "loss_rpn_box", "loss_cls", "loss_box", "loss_mask"]


def loss_names(config):
    """Names of the losses of a detector."""
    cascade = config.cascade
    if cascade is None:
        names = KEYS
    elif cascade.mask_heads == "per_stage":
        names = KEYS[:2] + [f"{name}_stage{stage}" for stage in range(3) for name in KEYS[2:]]
    else:
        names = KEYS[:2] + [f"{name}_stage{stage}" for stage in range(3) for name in KEYS[2:4]] + KEYS[4:]
    return {name for name in names if config.mask is not None or "mask" not in name}


def first_keys(shape, device):
    """Falling keys, the same for a candidate however many follow it: the first ones are sampled."""
    return torch.linspace(0.99, 0.0, 8192, device=device)[: shape[1]].expand(shape)


FIRST = BatchPart(draw=first_keys)


def hold_boxes(model, share):
    """Let box heads move boxes by a share of what they would."""
    with torch.no_grad():
        for head in (module for module in model.modules() if isinstance(module, BoxHead)):
            head.bbox_pred.weight.mul_(share)
            head.bbox_pred.bias.mul_(share)


def record(model, batch):
    """All operators of a step: forward and, in training, backward."""
    model.zero_grad()
    with StaticRecorder() as recorder, torch.set_grad_enabled(model.training):
        out = model(batch)
        if model.training:
            sum(out.values()).backward()
    return recorder.calls


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("system", [*SYSTEMS, "torchvision_v2"])
def test_two_batches_run_the_same_operators_with_the_same_shapes(
    make_config, make_detector, make_batch, system, mask, training
):
    model = make_detector(make_config(system, mask=mask)).train(training)
    crowded = make_batch(objects=300, crowds=20, slots=400, seed=1)
    empty = make_batch(objects=0, crowds=3, slots=400, seed=2)
    empty["images"].zero_()
    empty["image_sizes"] = torch.tensor([[20, 31], [64, 5]], dtype=torch.int32)
    model(crowded)  # anchors are made once per shape
    assert_equal_calls(record(model, crowded), record(model, empty))


@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("objects", [6, 0])
def test_losses_are_finite_and_reach_every_parameter(make_config, make_detector, make_batch, system, mask, objects):
    config = make_config(system, mask=mask)
    model = make_detector(config).train()
    # The stages hardly move the true boxes among their samples, so that the next one has positives too.
    hold_boxes(model, 0.01)
    losses = model(make_batch(objects=objects, crowds=2))
    assert set(losses) == loss_names(config)
    assert all(loss.shape == () and loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    zero = {name for name, loss in losses.items() if loss == 0}
    assert zero == (set() if objects else {name for name in losses if "box" in name or "mask" in name})
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if objects and not name.startswith("backbone."):
            assert (parameter.grad != 0).any(), name


@pytest.mark.parametrize("system", SYSTEMS)
def test_more_slots_and_crowds_change_nothing(make_config, make_detector, make_batch, system):
    model = make_detector(make_config(system)).train()
    few, many = make_batch(objects=5, slots=5), make_batch(objects=5, slots=5)
    for name in ("boxes", "labels", "valid", "crowd", "mask_bitmaps"):
        # slots of junk that are not valid, and a crowd region over everything
        junk = torch.full_like(few[name][:, :1], 1)
        many[name] = torch.cat([few[name], junk, junk], dim=1)
    many["boxes"][:, 5:] = torch.tensor([0.0, 0, 128, 96])
    many["valid"][:, 5] = False
    many["crowd"][:, 5] = False
    for name in ("mask_instances", "mask_polygons"):
        many[name] = torch.cat([few[name], few[name][:, -1:], few[name][:, -1:]], dim=1)
    losses = model(few, FIRST)
    for name, loss in model(many, FIRST).items():
        torch.testing.assert_close(loss, losses[name], msg=name)


@pytest.mark.parametrize("system", SYSTEMS)
def test_an_image_is_detected_alone_as_in_a_batch(make_config, make_detector, make_batch, system):
    model = make_detector(make_config(system)).eval()
    # Random heads make boxes a thousandth of a pixel wide, and each stage of a cascade magnifies what rounding does.
    hold_boxes(model, 0.1)
    batch = make_batch()
    with torch.no_grad():
        both = model(batch)
        for image in range(2):
            alone = model({name: value[image : image + 1] for name, value in batch.items()})
            for name, value in alone.items():
                torch.testing.assert_close(value[0], both[name][image], rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("system", SYSTEMS)
def test_detections_need_only_images_and_sizes(make_config, make_detector, make_batch, system, mask):
    model = make_detector(make_config(system, mask=mask)).eval()
    batch = make_batch()
    with torch.no_grad():
        got = model({"images": batch["images"], "image_sizes": batch["image_sizes"]})
    shapes = {name: tuple(value.shape) for name, value in got.items()}
    expected = {"boxes": (2, 10, 4), "scores": (2, 10), "labels": (2, 10), "valid": (2, 10)}
    assert shapes == (expected | {"masks": (2, 10, 28, 28)} if mask else expected)
    assert got["valid"].any(1).all()
    assert (got["scores"].diff(dim=1) <= 0).all()
    offset = model.rpn.coder.offset
    limit = batch["image_sizes"].flip(1).repeat(1, 2)[:, None] - offset
    assert ((got["boxes"] >= 0) & (got["boxes"] <= limit)).all()
    if mask:
        assert ((got["masks"] >= 0) & (got["masks"] <= 1)).all()
        assert (got["masks"][~got["valid"]] == 0).all()
    results = model.to_image(got, batch["scales"], [(96, 128), (58, 79)])
    assert [len(r.boxes) for r in results] == [len(r.masks) if mask else len(r.scores) for r in results]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("system", SYSTEMS)
def test_autocast_keeps_losses_and_boxes_in_float32(make_config, make_detector, make_batch, system, dtype):
    model = make_detector(make_config(system)).train()
    batch = make_batch()
    full = model(batch, FIRST)
    with torch.autocast("cpu", dtype=dtype):
        half = model(batch, FIRST)
        sum(half.values()).backward()
        model.eval()
        with torch.no_grad():
            detections = model(batch)
    for name in ("loss_rpn_cls", "loss_rpn_box"):  # the same anchors whatever the precision
        torch.testing.assert_close(half[name], full[name], rtol=0.05, atol=0.02)
    assert {loss.dtype for loss in half.values()} == {torch.float32}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert {detections[name].dtype for name in ("boxes", "scores", "masks")} == {torch.float32}


@pytest.mark.parametrize("system", PLAIN)
def test_stages_compose_to_the_losses(make_config, make_detector, make_batch, system):
    """The dense RPN and every class's mask, selected afterwards, give the losses and gradients of the detector."""
    model = make_detector(make_config(system)).train()
    batch = make_batch()
    ours = model(batch, FIRST)
    gradients = torch.autograd.grad(sum(ours.values()), list(model.parameters()))

    features = model.backbone(model.normalize(batch))
    anchors = model.anchors([tuple(f.shape[-2:]) for f in features], (96, 128))
    rpn, head, masks_of = model.rpn, model.box_head, model.mask_head
    truth = ground_truth(batch, rpn.coder.offset)
    samples = rpn.sample(anchors, truth, batch["image_sizes"], FIRST)
    raw = rpn(features)
    logits = flatten_levels(raw[0], 1).squeeze(2).gather(1, samples.index)
    deltas = flatten_levels(raw[1], 4).gather(1, samples.index[..., None].expand(-1, -1, 4))
    losses = dict(zip(KEYS[:2], rpn_losses(logits, deltas, samples, rpn.config, rpn.coder), strict=True))
    with torch.no_grad():
        proposals = select_proposals(*raw, anchors, batch["image_sizes"], rpn.config, rpn.coder, training=True)
    samples = head.sample(proposals.boxes, proposals.valid, truth, FIRST)
    losses |= head.box_losses(*head.outputs(features, samples.boxes, samples.valid), samples)
    image, slot = samples.positive.nonzero(as_tuple=True)
    pooled = masks_of.pool(features, samples.boxes[image, slot], image, image >= 0)
    hidden = pooled
    for conv in masks_of.convs:
        hidden = conv(hidden).relu()
    masks = masks_of.predictor(masks_of.deconv(hidden).relu())
    targets = mask_targets(batch, samples.boxes[image, slot], image, samples.truth_index[image, slot], masks_of.config)
    own = masks[torch.arange(len(image)), samples.labels[image, slot]]
    losses["loss_mask"] = F.binary_cross_entropy_with_logits(own, targets)

    assert list(losses) == list(ours)
    for name in losses:
        torch.testing.assert_close(ours[name], losses[name], rtol=1e-4, atol=1e-5, msg=name)
    expected = torch.autograd.grad(sum(losses.values()), list(model.parameters()))
    for (name, _), one, other in zip(model.named_parameters(), gradients, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5 * other.abs().max().item() + 1e-7, msg=name)


def test_label_smoothing_reaches_the_classification_loss_only(make_config, make_detector, make_batch):
    config = make_config("detectron2")
    batch = make_batch()
    losses = []
    for smoothing in (0.0, 0.1):
        model = make_detector(replace(config, box=replace(config.box, label_smoothing=smoothing))).train()
        losses.append(model(batch, FIRST))
    assert {name for name in KEYS if losses[0][name] != losses[1][name]} == {"loss_cls"}


def test_learning_overfits_a_batch(make_config, make_detector, make_batch):
    model = make_detector(make_config("detectron2")).train()
    batch = make_batch(objects=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    totals = []
    for _ in range(25):
        loss = sum(model(batch).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        totals.append(loss.item())
    assert sum(totals[-5:]) < 0.6 * sum(totals[:5])


def test_parameter_names(make_config, make_detector):
    model = make_detector(make_config("detectron2"))
    tops = Counter(".".join(name.split(".")[:2]) for name in model.state_dict())
    assert {n for n in tops if not n.startswith("backbone.")} == {
        "rpn.conv", "rpn.objectness", "rpn.deltas", "box_head.fc1", "box_head.fc2", "box_head.cls_score",
        "box_head.bbox_pred", "mask_head.convs", "mask_head.deconv", "mask_head.predictor",
    }  # fmt: skip


def test_stages_that_are_computed_again_change_nothing(make_batch):
    found, config = [], small_model()
    for recompute in (False, True):
        torch.manual_seed(0)
        model = build(replace(config, backbone=replace(config.backbone, recompute=recompute))).train()
        assert model.backbone.body.recompute is recompute
        losses = model(make_batch(), part=FIRST)
        sum(losses.values()).backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        found.append(dict(losses) | gradients)
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name
    with pytest.raises(ValueError, match=r"recompute is of backbone.name resnet alone, got timm/convnextv2_atto"):
        replace(config.backbone, name="timm/convnextv2_atto", recompute=True)
