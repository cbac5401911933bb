"""One training step: labels, samples, losses and the gradient of every parameter.

Sampling is made deterministic as in the references: "first_k" keeps the first positives and negatives in index order,
"all" keeps every one.
"""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from det_heads import (
    BatchPart,
    BoxHead,
    CascadeBoxHeads,
    Proposals,
    RegionProposals,
    Samples,
    TwoStageDetector,
    inside_image,
)
from det_models.checkpoints import to_reference
from tests.parity.batches import SLOTS
from tests.parity.reference import COORDINATE, Reference, matching
from tests.parity.systems import FASTER_RCNNS, MASK_RCNNS, Case

NORM = 1e-3
"""Admissible relative error of a gradient's norm; we are at 3e-4."""

NORM_OF_AFFINE = 2e-3
"""The same for the affine maps of batch norm, which only mmdetection trains: sums of many terms that cancel. The stored
norms differ by up to 1.1e-3 from those that we get in float64, ours in float32 by 3e-4."""

ENTRY = 5e-3
"""Admissible error of single entries, relative to the largest. They move by up to 2e-3 when the same implementation
runs with oneDNN and without, since units at the kink of a ReLU change sides."""

TABLE = 1e-3
"""Admissible relative error of losses that are known to four or five digits."""

pytestmark = pytest.mark.slow

VARIANTS = ("first_k", "all")


def first_k(count: int, order: Tensor | None = None) -> Tensor:
    """Keys that fall along the candidates, or along `order` of them: the first ones are drawn."""
    keys = torch.linspace(1, 0, count + 2, dtype=torch.float64)[1:-1]
    return keys if order is None else torch.empty_like(keys).scatter_(0, order, keys)


# What is looked at in a step.
STAGES = (
    (RegionProposals, "sample"), (RegionProposals, "propose"), (BoxHead, "sample"), (CascadeBoxHeads, "relabel")
)  # fmt: skip


@dataclass
class Step:
    """A forward pass in training mode, and what the stages of the model returned in it."""

    case: Case
    variant: str
    file: Reference
    model: TwoStageDetector
    losses: dict[str, Tensor] = field(default_factory=dict)
    returned: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def prefix(self) -> str:
        return f"train_{self.variant}"

    @property
    def anchors(self) -> Samples:
        return self.returned["RegionProposals.sample"][0]

    @property
    def proposals(self) -> Proposals:
        return self.returned["RegionProposals.propose"][0]

    @property
    def regions(self) -> list[Samples]:
        """What every box head was trained on, in the order of the stages."""
        return self.returned["BoxHead.sample"] + self.returned["CascadeBoxHeads.relabel"]

    def anchor_numbers(self) -> Tensor:
        """Numbers of the anchors of each image `[2, N]`, as the reference counts them."""
        batch = self.case.batch(self.file)
        height, width = batch["images"].shape[-2:]
        anchors = self.model.anchors(
            [(-(-height // s), -(-width // s)) for s in self.model.anchors.strides], (height, width)
        )
        inside = torch.ones((2, len(anchors)), dtype=torch.bool)
        if self.case.inside_only:
            inside = inside_image(anchors, batch["image_sizes"], 0.0)
        return inside.cumsum(1) - 1

    def run(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            for kind, name in STAGES:
                self._remember(patch, kind, name)
            self.losses = self.model(self.case.batch(self.file), BatchPart(draw=self._keys))

    def _remember(self, patch: pytest.MonkeyPatch, kind: type, name: str) -> None:
        stage = getattr(kind, name)
        returned = self.returned[f"{kind.__name__}.{name}"] = []

        def remembering(*arguments: Any) -> Any:
            returned.append(stage(*arguments))
            return returned[-1]

        patch.setattr(kind, name, staticmethod(remembering) if name == "relabel" else remembering)

    def _keys(self, shape: tuple[int, int], device: torch.device) -> Tensor:
        if not self.returned["RegionProposals.propose"] or self.case.proposal_order == "score":
            return first_k(shape[1]).expand(shape)
        if self.case.proposal_order == "truth_first":
            return first_k(shape[1], torch.arange(shape[1]).roll(SLOTS)).expand(shape)
        # Proposals of one level after those of the other; true boxes last.
        levels = self.proposals.levels
        levels = torch.cat((levels, levels.new_full((len(levels), shape[1] - levels.shape[1]), 9)), 1)
        return torch.stack([first_k(shape[1], level.argsort(stable=True)) for level in levels])


def prepare(case: Case, variant: str) -> Step:
    case = case if variant == "first_k" else case.sampling_all()
    return Step(case, variant, case.file, case.filled().train())


@pytest.fixture(
    scope="module",
    params=[(case, variant) for case in MASK_RCNNS for variant in VARIANTS],
    ids=lambda parameter: f"{parameter[0]}-{parameter[1]}",
)
def step(request: pytest.FixtureRequest) -> Step:
    step = prepare(*request.param)
    step.run()
    torch.stack(list(step.losses.values())).sum().backward()
    return step


def test_anchor_labels(step: Step) -> None:
    """Which anchors are positive, and how many negative."""
    file, prefix, chosen = step.file, step.prefix, step.anchors
    for i, number in enumerate(step.anchor_numbers()):
        positive, negative = (
            number[chosen.index[i][chosen.valid[i] & (chosen.positive[i] == sign)]].sort().values
            for sign in (True, False)
        )
        expected = file[f"{prefix}/rpn_pos_inds{i}" if step.case.inside_only else f"{prefix}/rpn_pos_anchor_idx{i}"]
        assert positive.tolist() == expected.tolist()
        if f"{prefix}/rpn_neg_anchor_idx{i}" in file.keys:
            assert torch.equal(negative, file.tensor(f"{prefix}/rpn_neg_anchor_idx{i}"))
        if f"{prefix}/rpn_neg_inds_sum{i}" in file.keys:
            assert negative.sum() == int(file[f"{prefix}/rpn_neg_inds_sum{i}"])
        if step.case.sampled_counts or step.variant == "all":
            counts = file[f"{prefix}/rpn_counts{i}" if step.case.inside_only else f"{prefix}/rpn_label_counts{i}"]
            assert [len(positive), len(negative)] == counts.tolist()[:2]


def test_proposals(step: Step) -> None:
    file, prefix, offset = step.file, step.prefix, step.model.rpn.coder.offset
    truth = step.case.batch(file)
    for i in range(2):
        found = step.proposals.boxes[i][step.proposals.valid[i]]
        if f"{prefix}/num_proposals{i}" not in file.keys:
            continue
        count = int(file[f"{prefix}/num_proposals{i}"])
        if step.case.proposal_order == "level":  # stored with the true boxes
            boxes = truth["boxes"][i][truth["valid"][i]] - torch.tensor([0, 0, offset, offset])
            found = torch.cat((found, boxes))
        assert len(found) == count
        for key, rows in ((f"{prefix}/proposals{i}", count), (f"{prefix}/proposals_top100_{i}", 100)):
            if key in file.keys:
                matching(found[:rows], file.tensor(key), tolerance=file.tolerance(key, COORDINATE))


def test_sampled_regions(step: Step) -> None:
    """Boxes, classes and objects of the RoIs that train the heads, in each stage."""
    for stage, regions in enumerate(step.regions):
        prefix = f"{step.prefix}/stage{stage}_"
        if stage == 0 and not any(key.startswith(prefix) for key in step.file.keys):
            prefix = f"{step.prefix}/"
        for i in range(2):
            _assert_regions(
                step, Samples(*(part[i][regions.valid[i]] for part in regions[:-1]), regions.max_positives), prefix, i
            )


def _assert_regions(step: Step, regions: Samples, prefix: str, i: int) -> None:
    file, positive, classes = step.file, regions.positive, step.case.recipe.detector.num_classes

    def stored(*names: str) -> Tensor | None:
        """Under the first of these names that there is, filled up with -1 where only the positives are known."""
        found = [f"{prefix}{name}{i}" for name in names if f"{prefix}{name}{i}" in file.keys]
        if not found:
            return None
        values = file.tensor(found[0])
        return values if "/roi" in found[0] else F.pad(values, (0, len(positive) - len(values)), value=-1)

    counts = stored("roi_label_counts", "counts")
    if counts is not None:
        assert [int(positive.sum()), int((~positive).sum())] == counts[:2].tolist()
    labels = stored("roi_classes", "roi_labels", "pos_labels")
    if f"{prefix}roi_boxes{i}" not in file.keys or labels is None:
        return
    if step.case.background_first:
        labels = labels - 1
    row = matching(
        regions.boxes,
        file.tensor(f"{prefix}roi_boxes{i}"),
        regions.labels,
        torch.where(labels < 0, classes, labels),
        tolerance=file.tolerance(f"{prefix}roi_boxes{i}", COORDINATE),
    )
    for name, ours in (("roi_gt_boxes", regions.truth_boxes), ("roi_reg_targets", _targets(step, regions))):
        if f"{prefix}{name}{i}" in file.keys:
            theirs = file.tensor(f"{prefix}{name}{i}")[row]
            torch.testing.assert_close(ours[positive], theirs[positive], rtol=1e-4, atol=1e-3)
    matched = stored("roi_matched", "pos_gt")
    if matched is not None:
        assert torch.equal(regions.truth_index[positive], matched[row][positive])


def _targets(step: Step, regions: Samples) -> Tensor:
    """What the first box head learns."""
    boxes = step.model.boxes
    return boxes.coder.encode(regions.truth_boxes, regions.boxes)


def test_losses(step: Step) -> None:
    assert step.losses.keys() == step.case.loss_names.keys()
    for ours, theirs in step.case.loss_names.items():
        key = f"{step.prefix}/loss/{theirs}"
        step.file.assert_close(key, step.losses[ours], size=float(step.file[key]))


def test_gradients(step: Step) -> None:
    """Norm, largest and first entries of the gradient of every parameter."""
    assert_gradients(step)


def assert_gradients(step: Step, *, norm_limit: float = NORM, entry_limit: float = ENTRY, zero: str = "") -> None:
    """The gradients are the reference's, but for that of the parameter `zero`, which is rounding alone."""
    gradients = {name: p.grad for name, p in step.model.named_parameters() if p.requires_grad}
    assert all(gradient is not None for gradient in gradients.values())
    theirs = to_reference(gradients, step.case.system)
    expected = step.file.json(f"{step.prefix}/grad_norms")
    assert theirs.keys() == expected.keys()
    wrong = {}
    for name, (norm, largest, first) in expected.items():
        if name == zero:
            continue
        gradient = theirs[name].double().flatten()
        norm_error = abs(gradient.norm().item() - norm)
        entry_error = (gradient[: len(first)] - torch.tensor(first, dtype=torch.float64)).abs().max().item()
        entry_error = max(entry_error, abs(gradient.abs().max().item() - largest))
        limit = NORM_OF_AFFINE if ".bn" in name and step.case.system == "mmdetection" else norm_limit
        if norm_error > limit * norm or entry_error > entry_limit * largest:
            wrong[name] = (norm_error / max(norm, 1e-30), entry_error / max(largest, 1e-30))
    assert not wrong, "relative errors of norm and entries"


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("case", FASTER_RCNNS, ids=str)
def test_losses_of_other_models(case: Case, variant: str) -> None:
    """Faster R-CNN and other depths, of which only the losses are known (five digits)."""
    step = prepare(case, variant)
    with torch.no_grad():
        step.run()
    assert step.losses.keys() == case.losses[variant].keys()
    for name, expected in case.losses[variant].items():
        assert step.losses[name].item() == pytest.approx(expected, rel=TABLE)
