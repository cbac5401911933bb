"""One model per system and session: a forward pass serves all tests of a stage."""

from functools import cached_property

import pytest
import torch
from torch import Tensor

from det_heads import BoxHead, CascadeBoxHeads, MaskHead, Proposals, TwoStageDetector
from tests.parity.batches import Batch
from tests.parity.systems import MASK_RCNNS, Case


class Inference:
    """A reference's model in our implementation, and its stages on the stored images, computed when asked for."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.file = case.file

    @cached_property
    def model(self) -> TwoStageDetector:
        return self.case.trained().eval()

    @cached_property
    def batch(self) -> Batch:
        return self.case.batch(self.file)

    @cached_property
    def network_input(self) -> Tensor:
        return self.model.normalize(self.batch)

    @cached_property
    def features(self) -> list[Tensor]:
        return self.model.backbone(self.network_input)

    @cached_property
    def rpn_outputs(self) -> tuple[list[Tensor], list[Tensor]]:
        return self.model.rpn(self.features)

    @cached_property
    def anchors(self) -> Tensor:
        height, width = self.batch["images"].shape[-2:]
        return self.model.anchors([(f.shape[-2], f.shape[-1]) for f in self.features], (height, width))

    @cached_property
    def stored_proposals(self) -> Tensor:
        """`[2, 1000, 4]`, those of the reference."""
        return torch.stack(self.file.pair("eval/proposals"))

    @cached_property
    def stored_detections(self) -> tuple[Tensor, Tensor]:
        """Boxes `[2, 100, 4]` in network coordinates and our classes `[2, 100]`, those of the reference."""
        labels = torch.stack(self.file.pair(f"det/{self.case.labels}"))
        return torch.stack(self.file.pair(self.case.detected)), labels - int(self.case.background_first)

    @property
    def box_stages(self) -> list[tuple[str, BoxHead]]:
        """What the keys of each box head begin with, and the head."""
        boxes = self.model.boxes
        if isinstance(boxes, CascadeBoxHeads):
            return [(f"{self.case.box_stage}{stage}", head) for stage, head in enumerate(boxes)]
        return [(self.case.box_stage, boxes)]

    @property
    def mask_heads(self) -> list[MaskHead]:
        """One, or one for each stage of a cascade."""
        (masks,) = self.model.branches
        return [masks] if isinstance(masks, MaskHead) else list(masks)

    @cached_property
    def detections(self) -> dict[str, Tensor]:
        """Ours, from the stored proposals."""
        proposals = self.stored_proposals
        valid = torch.ones(proposals.shape[:2], dtype=torch.bool)
        unknown = torch.zeros(proposals.shape[:2])
        proposals = Proposals(proposals, unknown, valid, unknown.long())
        return self.model.boxes.detect(self.features, proposals, self.batch["image_sizes"])


@pytest.fixture(scope="module", params=MASK_RCNNS, ids=str)
def inference(request: pytest.FixtureRequest) -> Inference:
    return Inference(request.param)
