"""YOLACT and YOLACT++ with ResNet-50 beside the original: stages, detections, losses and gradients.

A network with frozen statistics says the same in training as in inference, so one pass serves all but `bn_train`.
"""

from dataclasses import replace
from functools import cached_property
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from det_backbones import FPN, DarkNet, Deformable, Norm, ResNetFPN, resnet
from det_heads import BatchPart, Yolact, yolact_config, yolact_plus_config
from det_heads.yolact.detections import select
from det_models.checkpoints import load_reference, to_reference
from det_ops import deform_conv2d
from tests.parity.fill import fill
from tests.parity.masks import decode_rle
from tests.parity.reference import Reference, matching, reference

SIZE = 550
LOSSES = {"B": "loss_box", "C": "loss_cls", "M": "loss_mask", "S": "loss_semantic", "I": "loss_mask_iou"}
RELATIVE = 1e-3
NOISE = {
    ("yolact_resnet50", "bn_train"): (9e-5, 9e-4),
    ("yolact_plus_resnet50", "frozen"): (7.3e-4, 3.7e-3),
    ("yolact_plus_resnet50", "bn_train"): (2.6e-3, 1.3e-2),
}
"""How much the norms of the original's gradients differ, relatively, between convolutions with oneDNN and without: half
of the parameters' and nine tenths of them by no more. The files have no noise of gradients. Deformable sampling has
kinks, and batch statistics tie all pixels together; else it is less than `RELATIVE`."""


def build(name: str, norm: Norm) -> Yolact:
    """A model of the original's zoo with the weights of `fill`."""
    config = yolact_plus_config() if "plus" in name else yolact_config(darknet="darknet" in name)
    if "darknet" in name:
        body: torch.nn.Module = DarkNet(norm=norm)
    else:
        depth = 50 if "50" in name else 101
        bent = Deformable(operator=deform_conv2d) if "plus" in name else None
        body = resnet(depth, norm=norm, freeze_at=0, deformable=bent)
    fpn = FPN(
        body.out_channels[-3:],
        max_pool_level=False,
        strided_levels=2,
        upsampling="bilinear",
        activation=True,
        initialization="xavier",
    )
    model = Yolact(ResNetFPN(body, fpn), config)
    theirs = to_reference(model.state_dict(), "yolact")
    load_reference(model, {key: fill(key, tensor.shape) for key, tensor in theirs.items()})
    return model.to(memory_format=torch.channels_last)


# The first positives, as the file has it; no image has more than may be used.
FIRST = BatchPart(draw=lambda shape, device: torch.linspace(0.9, 0.1, shape[1], device=device).expand(shape))


def make_batch(file: Reference, *, crowd: bool = False) -> dict[str, Tensor]:
    """The stored images at the network's size, with the stored masks."""
    slots = 6
    pictures = [file.tensor(f"in/image{i}").permute(2, 0, 1)[None].float() for i in range(2)]
    batch = {
        "images": torch.cat([F.interpolate(p, (SIZE, SIZE), mode="bilinear", align_corners=False) for p in pictures]),
        "image_sizes": torch.full((2, 2), SIZE, dtype=torch.int32),
        "scales": torch.tensor([[SIZE / p.shape[-2], SIZE / p.shape[-1]] for p in pictures]),
        "boxes": torch.zeros(2, slots, 4),
        "labels": torch.zeros(2, slots, dtype=torch.int64),
        "valid": torch.zeros(2, slots, dtype=torch.bool),
        "crowd": torch.zeros(2, slots, dtype=torch.bool),
        "mask_bitmaps": torch.zeros(2, slots, SIZE, SIZE, dtype=torch.uint8),
    }
    for i in range(2):
        target = file.tensor(f"in/target{i}")
        count = len(target)
        batch["boxes"][i, :count] = target[:, :4] * SIZE
        batch["labels"][i, :count] = target[:, 4].long()
        batch["valid"][i, :count] = True
        masks = np.unpackbits(file[f"in/masks550_packed{i}"], axis=-1, count=SIZE)
        batch["mask_bitmaps"][i, :count] = torch.from_numpy(masks)
    if crowd:
        batch["boxes"][0, -1] = file.tensor("in/crowd_target0")[0, :4] * SIZE
        batch["valid"][0, -1] = batch["crowd"][0, -1] = True
    return batch


class Run:
    """One model beside its file, everything computed once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.file = reference(name)
        self.batch = make_batch(self.file)

    @cached_property
    def frozen(self) -> SimpleNamespace:
        """Losses and gradients, and all stages, with frozen statistics."""
        model = build(self.name, "frozen_bn").train()
        pixels = model.normalize(self.batch)
        stages = model.backbone.body(pixels)
        features = model.backbone.fpn(stages[-3:])
        outputs = model.outputs(features, (SIZE, SIZE))
        segments = model.semantic(features[0])
        losses = model.losses(self.batch, outputs, segments, FIRST)
        with torch.no_grad():
            crowded = model.losses(make_batch(self.file, crowd=True), outputs, segments, FIRST)
        sum(losses.values()).backward()
        outputs = type(outputs)(*(tensor.detach() for tensor in outputs))
        return SimpleNamespace(
            model=model, pixels=pixels, stages=stages, features=features, outputs=outputs, losses=losses,
            crowded=crowded, segments=segments,
        )  # fmt: skip


@pytest.fixture(scope="module", params=["yolact_resnet50", "yolact_plus_resnet50"])
def run(request) -> Run:
    return Run(request.param)


def test_stages(run: Run) -> None:
    file, frozen = run.file, run.frozen
    file.assert_sampled("eval/net_input", frozen.pixels)
    for stage, feature in enumerate(frozen.stages):
        file.assert_sampled(f"eval/backbone/{stage}", feature)
    for level, feature in enumerate(frozen.features):
        file.assert_sampled(f"eval/fpn/{level}", feature)
    file.assert_sampled("train_frozen/segm", frozen.segments)


def test_outputs(run: Run) -> None:
    file, outputs = run.file, run.frozen.outputs
    sizes = [side * side * run.frozen.model.config.priors.per_cell for side in (69, 35, 18, 9, 5)]
    parts = (part.split(sizes, 1) for part in (outputs.deltas, outputs.logits, outputs.coefficients))
    for level, found in enumerate(zip(*parts, strict=True)):
        for key, value in zip(("loc", "conf", "mask"), found, strict=True):
            file.assert_sampled(f"eval/head{level}/{key}_raw", value)
    low, high = outputs.priors.split(2, 1)
    priors = torch.cat(((low + high) / 2, high - low), 1)
    file.assert_sampled("eval/priors", priors)
    for level, part in enumerate(priors.split(sizes)):
        file.assert_close(f"eval/head{level}/priors_first12", part[:12])
    file.assert_sampled("eval/conf", outputs.logits.softmax(-1))
    file.assert_sampled("eval/proto", outputs.prototypes.permute(0, 2, 3, 1))


@pytest.mark.parametrize("nms", ["fast", "cross_class", "traditional"])
def test_detections(run: Run, nms: str) -> None:
    file, outputs = run.file, run.frozen.outputs
    config = replace(run.frozen.model.config, nms=nms)
    found, prior = select(outputs.deltas, outputs.logits, outputs.priors, (SIZE, SIZE), config)
    for i in range(2):
        valid = found["valid"][i]
        boxes, labels = file.tensor(f"det_{nms}/box{i}") * SIZE, file.tensor(f"det_{nms}/class{i}")
        row = matching(found["boxes"][i][valid], boxes, found["labels"][i][valid], labels, tolerance=0.01)
        expected = file.tensor(f"det_{nms}/score{i}")[row]
        torch.testing.assert_close(found["scores"][i][valid], expected, rtol=RELATIVE, atol=1e-5)
        coefficients = outputs.coefficients[i][prior[i][valid]]
        torch.testing.assert_close(coefficients, file.tensor(f"det_{nms}/coeff{i}")[row], rtol=RELATIVE, atol=1e-4)


def test_masks_in_the_image(run: Run) -> None:
    """Boxes, scores and run lengths at the original size; a pixel may differ where a probability is one half."""
    file, model = run.file, run.frozen.model
    with torch.no_grad():
        found = model.detect(run.frozen.outputs, (SIZE, SIZE))
    sizes = [file[f"in/image{i}"].shape[:2] for i in range(2)]
    scored = "post/score_mask0" in file.keys
    for i, image in enumerate(model.to_image(found, run.batch["scales"], sizes)):
        expected = file.json(f"post/mask_rle{i}")
        boxes = file.tensor(f"post/box{i}")
        # The original cuts coordinates to whole pixels.
        scores = file.tensor(f"post/score{'_box' if scored else ''}{i}")
        kept = ((boxes[:, 2:] > boxes[:, :2]).all(1)).sum()
        assert kept <= len(image.boxes) <= len(boxes)
        row = [
            int(((image.boxes[n] - boxes).abs().amax(1) + 10 * (image.scores[n] - scores).abs()
                 + 100 * (image.labels[n] != file.tensor(f"post/class{i}"))).argmin())
            for n in range(len(image.boxes))
        ]  # fmt: skip
        assert (image.boxes - boxes[row]).abs().max() < 1.01
        torch.testing.assert_close(image.scores, scores[row], rtol=RELATIVE, atol=1e-5)
        if scored:
            mine, theirs = image.mask_scores, file.tensor(f"post/score_mask{i}")[row]
            torch.testing.assert_close(mine, theirs, rtol=RELATIVE, atol=1e-5)
        different = 0
        for n, mask in enumerate(image.masks):
            other = decode_rle({"size": expected["size"], "counts": expected["counts"][row[n]]})
            different += int((decode_rle(mask) != other).sum())
        assert different <= 1e-5 * len(image.masks) * sizes[i][0] * sizes[i][1]


@pytest.mark.parametrize("variant", ["frozen", "crowd"])
def test_matching(run: Run, variant: str) -> None:
    batch = make_batch(run.file, crowd=variant == "crowd")
    assert_matching(run.file, run.frozen.model, batch, f"train_{variant}")


def assert_matching(file: Reference, model: Yolact, batch: dict[str, Tensor], key: str) -> None:
    match = model.match(run_priors(model), batch)
    for i in range(2):
        positive = match.positive[i].nonzero().flatten()
        assert positive.tolist() == file[f"{key}/pos_idx{i}"].tolist()
        assert match.index[i][positive].tolist() == file[f"{key}/pos_gt{i}"].tolist()
        counts = [match.positive[i].sum(), match.negative[i].sum(), (~(match.positive[i] | match.negative[i])).sum()]
        assert [int(count) for count in counts] == file[f"{key}/counts{i}"].tolist()


def run_priors(model: Yolact) -> Tensor:
    return model.priors([(side, side) for side in (69, 35, 18, 9, 5)], (SIZE, SIZE), torch.device("cpu"))


def assert_losses(file: Reference, variant: str, losses: dict[str, Tensor]) -> None:
    names = file.below(f"train_{variant}/loss/")
    assert {LOSSES[name] for name in names} == losses.keys()
    for name in names:
        expected = float(file[f"train_{variant}/loss/{name}"])
        assert losses[LOSSES[name]].item() == pytest.approx(expected, rel=RELATIVE), name


def assert_gradients(file: Reference, variant: str, model: Yolact) -> None:
    """Half of the norms are within four times the noise, nine tenths too, all within ten times."""
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    ours = to_reference(gradients, "yolact")
    expected = file.json(f"train_{variant}/grad_norms")
    assert expected.keys() == ours.keys()
    half, most = NOISE.get((file.name, variant), (0.0, 0.0))
    tolerance = max(10 * most, RELATIVE)
    typical = float(np.median([norm for norm, _, _ in expected.values()]))
    wrong, errors = {}, []
    for name, (norm, largest, first) in expected.items():
        gradient = ours[name].flatten().double()
        if norm < 1e-4 * typical:  # nothing but rounding: batch norm takes away what a bias before it adds
            assert gradient.norm().item() < 1e-3 * typical, name
            continue
        error = abs(gradient.norm().item() - norm) / norm
        entry = (gradient[: len(first)] - torch.tensor(first, dtype=torch.float64)).abs().max().item() / largest
        errors.append(error)
        if error > tolerance or entry > max(2 * tolerance, 1e-2):
            wrong[name] = (error, entry)
    assert not wrong, "relative errors of norm and entries"
    assert np.median(errors) < max(4 * half, RELATIVE / 4)
    assert np.quantile(errors, 0.9) < max(4 * most, RELATIVE)


def test_frozen_training(run: Run) -> None:
    assert_losses(run.file, "frozen", run.frozen.losses)
    assert_losses(run.file, "crowd", run.frozen.crowded)
    assert_gradients(run.file, "frozen", run.frozen.model)


def test_training_with_batch_norm(run: Run) -> None:
    """In NCHW as the original, since PyTorch sums the batch statistics of NHWC a hundred times less accurately."""
    file, model = run.file, build(run.name, "bn").train().to(memory_format=torch.contiguous_format)
    features = model.backbone(model.normalize(run.batch).contiguous())
    losses = model.losses(run.batch, model.outputs(features, (SIZE, SIZE)), model.semantic(features[0]))
    assert_losses(file, "bn_train", losses)
    sum(losses.values()).backward()
    assert_gradients(file, "bn_train", model)
    buffers = to_reference(model.state_dict(), "yolact")
    after = file.json("train_bn_train/running_stats_after")
    assert after.keys() == {name for name in buffers if name.endswith(("running_mean", "running_var"))}
    for name, (total, first) in after.items():
        buffer = buffers[name].double()
        tolerance = RELATIVE / 10 * buffer.abs().max().item()
        torch.testing.assert_close(buffer[: len(first)], torch.tensor(first).double(), rtol=0, atol=tolerance)
        assert abs(buffer.sum().item() - total) <= tolerance * len(buffer) ** 0.5, name
