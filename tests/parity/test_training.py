"""One training step: labels, samples, losses and the gradient of every parameter.

Sampling is made deterministic as in the references: "first_k" keeps the first positives and negatives in index order,
"all" keeps every one.
"""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

import det_ops
from det_heads import Proposals, Samples, TwoStageDetector
from det_heads.checkpoints import to_reference
from tests.parity.reference import COORDINATE, Reference, matching
from tests.parity.systems import FASTER_RCNNS, MASK_RCNNS, Case

NORM = 1e-3
"""Admissible relative error of a gradient's norm; we are at 3e-4."""

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


@dataclass
class Step:
    """A forward pass in training mode, and what the stages of the model returned in it."""

    case: Case
    variant: str
    file: Reference
    model: TwoStageDetector
    losses: dict[str, Tensor] = field(default_factory=dict)
    returned: dict[str, Any] = field(default_factory=dict)

    @property
    def prefix(self) -> str:
        return f"train_{self.variant}"

    @property
    def anchors(self) -> Samples:
        return self.returned["sample_anchors"]

    @property
    def proposals(self) -> Proposals:
        return self.returned["propose"]

    @property
    def regions(self) -> Samples:
        return self.returned["sample_proposals"]

    def run(self) -> None:
        for name in ("sample_anchors", "propose", "sample_proposals"):
            setattr(self.model, name, self._remember(name))
        self.model.random_keys = self._keys
        self.losses = self.model(self.case.batch(self.file))

    def _remember(self, name: str) -> Any:
        stage = getattr(self.model, name)

        def remembering(*arguments: Any) -> Any:
            self.returned[name] = stage(*arguments)
            return self.returned[name]

        return remembering

    def _keys(self, shape: tuple[int, int], device: torch.device) -> Tensor:
        if "propose" not in self.returned or self.case.proposal_order == "score":
            return first_k(shape[1]).expand(shape)
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
    for i in range(2):
        chosen = step.anchors
        positive = chosen.index[i][chosen.positive[i]].sort().values
        assert torch.equal(positive, step.file.tensor(f"{step.prefix}/rpn_pos_anchor_idx{i}"))
        negative = chosen.index[i][chosen.valid[i] & ~chosen.positive[i]].sort().values
        if f"{step.prefix}/rpn_neg_anchor_idx{i}" in step.file.keys:
            assert torch.equal(negative, step.file.tensor(f"{step.prefix}/rpn_neg_anchor_idx{i}"))
        if step.case.sampled_counts or step.variant == "all":
            counts = step.file[f"{step.prefix}/rpn_label_counts{i}"].tolist()
            assert [len(positive), len(negative)] == counts[:2]


def test_proposals(step: Step) -> None:
    file, prefix, offset = step.file, step.prefix, step.model.config.offset
    truth = step.case.batch(file)
    for i in range(2):
        found = step.proposals.boxes[i][step.proposals.valid[i]]
        count = int(file[f"{prefix}/num_proposals{i}"])
        if step.case.proposal_order == "level":  # stored with the true boxes
            boxes = truth["boxes"][i][truth["valid"][i]] - torch.tensor([0, 0, offset, offset])
            found = torch.cat((found, boxes))
        assert len(found) == count
        for key, rows in ((f"{prefix}/proposals{i}", count), (f"{prefix}/proposals_top100_{i}", 100)):
            if key in file.keys:
                matching(found[:rows], file.tensor(key), tolerance=file.tolerance(key, COORDINATE))


def test_sampled_regions(step: Step) -> None:
    """Boxes, classes and objects of the RoIs that train the heads."""
    file, prefix, classes = step.file, step.prefix, step.model.config.num_classes
    key = "roi_classes" if f"{prefix}/roi_classes0" in file.keys else "roi_labels"
    for i in range(2):
        valid, positive = step.regions.valid[i], step.regions.positive[i]
        boxes, labels = step.regions.boxes[i][valid], step.regions.labels[i][valid]
        counts = [int(positive.sum()), int(valid.sum() - positive.sum())]
        assert counts == file[f"{prefix}/roi_label_counts{i}"].tolist()
        if f"{prefix}/roi_boxes{i}" not in file.keys:
            continue
        expected = file.tensor(f"{prefix}/{key}{i}")
        if step.case.background_first:
            expected = (expected - 1) % (classes + 1)
        row = matching(
            boxes,
            file.tensor(f"{prefix}/roi_boxes{i}"),
            labels,
            expected,
            tolerance=file.tolerance(f"{prefix}/roi_boxes{i}", COORDINATE),
        )
        positive = positive[valid]
        if f"{prefix}/roi_gt_boxes{i}" in file.keys:
            theirs = file.tensor(f"{prefix}/roi_gt_boxes{i}")[row][positive]
            torch.testing.assert_close(step.regions.truth_boxes[i][valid][positive], theirs)
        if f"{prefix}/roi_reg_targets{i}" in file.keys:
            theirs = file.tensor(f"{prefix}/roi_reg_targets{i}")[row][positive]
            config = step.model.config
            coding = config.box.coding.weights
            truth = step.regions.truth_boxes[i][valid][positive]
            ours = det_ops.encode_boxes(truth, boxes[positive], coding, offset=config.offset)
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)
        if f"{prefix}/roi_matched{i}" in file.keys:
            theirs = file.tensor(f"{prefix}/roi_matched{i}")[row][positive]
            assert torch.equal(step.regions.truth_index[i][valid][positive], theirs)


def test_losses(step: Step) -> None:
    assert step.losses.keys() == step.case.loss_names.keys()
    for ours, theirs in step.case.loss_names.items():
        key = f"{step.prefix}/loss/{theirs}"
        step.file.assert_close(key, step.losses[ours], size=float(step.file[key]))


def test_gradients(step: Step) -> None:
    """Norm, largest and first entries of the gradient of every parameter."""
    gradients = {name: p.grad for name, p in step.model.named_parameters() if p.requires_grad}
    assert all(gradient is not None for gradient in gradients.values())
    theirs = to_reference(gradients, step.case.system)
    expected = step.file.json(f"{step.prefix}/grad_norms")
    assert theirs.keys() == expected.keys()
    wrong = {}
    for name, (norm, largest, first) in expected.items():
        gradient = theirs[name].double().flatten()
        norm_error = abs(gradient.norm().item() - norm)
        entry_error = (gradient[: len(first)] - torch.tensor(first, dtype=torch.float64)).abs().max().item()
        entry_error = max(entry_error, abs(gradient.abs().max().item() - largest))
        if norm_error > NORM * norm or entry_error > ENTRY * largest:
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
