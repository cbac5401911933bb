"""What differs between the reference systems in these tests; everything else is one path for all."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, cast

import numpy as np
import torch

from apps.cascade_rcnn import config as cascade_rcnn
from apps.common.app import App, app_of
from apps.common.config import TwoStageRecipe
from apps.common.weights import adopt, initialize, open_start
from apps.faster_rcnn import config as faster_rcnn
from apps.mask_rcnn import config as mask_rcnn
from det_backbones import FrozenBatchNorm2d
from det_heads import TwoStageDetector
from det_models import BackboneConfig, build, open_weights, torchvision_config
from det_models.checkpoints import to_reference
from testing.command_line import APPS
from testing.foreign_files import write
from tests.parity.batches import Batch, inclusive, plain_batch, resized_batch, with_bitmaps
from tests.parity.fill import fill
from tests.parity.reference import Reference, reference


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model of a reference system.

    Attributes:
        title: Name of the test.
        system: Name of its checkpoints.
        data: File with the images, and with the stored outputs unless `losses` stand for them.
        recipe: What our apps build the model from.
        batch: Makes the batch from the file.
        loss_names: Our loss -> the reference's.
        box_stage: What keys of the box head begin with; for a cascade the number of the stage follows.
        detected: Key of the detected boxes in the coordinates of the network.
        labels: What the reference calls the classes of boxes.
        background_first: Whether its class 0 is the background.
        sampled_counts: Whether its counts of anchor labels are those after sampling.
        inside_only: Whether its anchors are counted among those inside the image.
        proposal_order: How its training proposals are ordered, which decides what the first ones are: by score, level
            by level, or by score after the true boxes.
        everything: Sampler sizes (RPN, RoI) of the variant "all".
        losses: Training variant -> losses, for models of which only those are known.
    """

    title: str
    system: str
    data: str
    recipe: TwoStageRecipe
    batch: Callable[[Reference], Batch]
    loss_names: Mapping[str, str]
    box_stage: str = "eval"
    detected: str = "det/boxes"
    labels: str = "labels"
    background_first: bool = True
    sampled_counts: bool = False
    inside_only: bool = False
    proposal_order: Literal["score", "level", "truth_first"] = "score"
    everything: tuple[int, int] = (10**7, 10**7)
    losses: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.title

    def sampling_all(self) -> "Case":
        """The same model, with samplers that keep every positive and every negative."""
        rpn, box = self.everything
        heads = self.recipe.detector
        heads = replace(
            heads,
            rpn=replace(heads.rpn, samples=rpn),
            # Still every positive, there are a dozen: each slot for one costs memory in the mask head.
            box=replace(heads.box, samples=box, positive_fraction=100 / box),
        )
        return replace(self, recipe=replace(self.recipe, detector=heads))

    @property
    def file(self) -> Reference:
        """Stored outputs."""
        return reference(self.data)

    def build(self) -> TwoStageDetector:
        """The model, with random weights."""
        return build(self.recipe.model())

    @property
    def app(self) -> App:
        """The app that a user runs such a model with."""
        return APPS[app_of(self.recipe.detector)]

    @contextmanager
    def weights(self, form: str = "") -> Iterator[Path]:
        """A file with the weights of `fill`, in the container of the reference."""
        if self.losses:
            with torch.device("meta"):
                theirs = to_reference(self.build().state_dict(), self.system)
            shapes = {name: tensor.shape for name, tensor in theirs.items()}
        else:
            shapes = self.file.json("meta/state_dict_shapes")
        state = {
            name: torch.zeros(shape)
            if "cell_anchors" in name
            else torch.from_numpy(np.asarray(fill(name, tuple(shape))))
            for name, shape in shapes.items()
        }
        with TemporaryDirectory() as folder:
            yield write(Path(folder) / "weights", f"{self.system} {form}".strip(), state)

    def trained(self) -> TwoStageDetector:
        """What `eval`, `predict` and `convert` make of the file, without a recipe."""
        with self.weights("zoo" if self.system == "detectron2" else "") as path:
            return self._with_epsilon(cast(TwoStageDetector, open_weights(path).build()))

    def filled(self) -> TwoStageDetector:
        """What `train --weights` makes of the recipe and the file."""
        with self.weights() as path:
            start = open_start(str(path))
            recipe, changed = adopt(self.app, self.recipe, start)
            known = {"backbone.norm_eps"} if self.system == "torchvision" else set()
            assert {line.split()[0] for line in changed} == known, "the recipe has the conventions of its system"
            model = self.build()
            initialize(model, recipe, str(path), start)
        return self._with_epsilon(model)

    def _with_epsilon(self, model: TwoStageDetector) -> TwoStageDetector:
        """The epsilon of the recipe, which is in no file: 0 in torchvision's own, not in the model of these outputs."""
        for module in model.modules():
            if isinstance(module, FrozenBatchNorm2d):
                module.eps = self.recipe.backbone.norm_eps
        return model


DETECTRON2 = Case(
    title="detectron2",
    system="detectron2",
    data="detectron2_mask_rcnn_R_50_FPN",
    recipe=mask_rcnn.mask_rcnn_r50_fpn_1x(),
    batch=plain_batch,
    loss_names={
        "loss_rpn_cls": "loss_rpn_cls",
        "loss_rpn_box": "loss_rpn_loc",
        "loss_cls": "loss_cls",
        "loss_box": "loss_box_reg",
        "loss_mask": "loss_mask",
    },
    box_stage="eval/stage0",
    labels="classes",
    background_first=False,
    sampled_counts=True,
    everything=(10**5, 10**6),
)

TORCHVISION = Case(
    title="torchvision",
    system="torchvision",
    data="torchvision_maskrcnn_resnet50_fpn",
    recipe=replace(DETECTRON2.recipe, backbone=BackboneConfig(stride_in_1x1=False), detector=torchvision_config()),
    batch=lambda file: resized_batch(file, 320, 480, short=320, long=533),
    loss_names={
        "loss_rpn_cls": "loss_objectness",
        "loss_rpn_box": "loss_rpn_box_reg",
        "loss_cls": "loss_classifier",
        "loss_box": "loss_box_reg",
        "loss_mask": "loss_mask",
    },
    detected="det/boxes_netcoords",
)

MASKRCNN_BENCHMARK = replace(
    TORCHVISION,
    title="maskrcnn-benchmark",
    system="maskrcnn-benchmark",
    data="maskrcnn_benchmark_mask_rcnn_R_50_FPN",
    recipe=mask_rcnn.mask_rcnn_r50_fpn_1x_mlperf(),
    batch=lambda file: inclusive(plain_batch(file)),
    detected="det/boxes",
    proposal_order="level",
)

_STAGES = range(3)

DETECTRON2_CASCADE = replace(
    DETECTRON2,
    title="detectron2-cascade",
    data="detectron2_cascade_mask_rcnn_R_50_FPN",
    recipe=cascade_rcnn.cascade_mask_rcnn_r50_fpn_1x(),
    loss_names={
        "loss_rpn_cls": "loss_rpn_cls",
        "loss_rpn_box": "loss_rpn_loc",
        **{f"loss_cls_stage{k}": f"loss_cls_stage{k}" for k in _STAGES},
        **{f"loss_box_stage{k}": f"loss_box_reg_stage{k}" for k in _STAGES},
        "loss_mask": "loss_mask",
    },
    box_stage="eval/stage",
)

MMDETECTION_CASCADE = Case(
    title="mmdetection-cascade",
    system="mmdetection",
    data="mmdet_cascade_mask_rcnn_r50_fpn",
    recipe=cascade_rcnn.cascade_mask_rcnn_r50_fpn_1x_mmdet(),
    batch=lambda file: with_bitmaps(plain_batch(file), file),
    loss_names={
        "loss_rpn_cls": "loss_rpn_cls",
        "loss_rpn_box": "loss_rpn_bbox",
        **{f"loss_cls_stage{k}": f"s{k}.loss_cls" for k in _STAGES},
        **{f"loss_box_stage{k}": f"s{k}.loss_bbox" for k in _STAGES},
        **{f"loss_mask_stage{k}": f"s{k}.loss_mask" for k in _STAGES},
    },
    box_stage="eval/stage",
    labels="classes",
    background_first=False,
    sampled_counts=True,
    inside_only=True,
    proposal_order="truth_first",
    everything=(10**6, 10**6),
)

MASK_RCNNS = (DETECTRON2, TORCHVISION, MASKRCNN_BENCHMARK, DETECTRON2_CASCADE, MMDETECTION_CASCADE)

FASTER_RCNNS = (
    replace(
        DETECTRON2,
        title="detectron2-faster-r50",
        recipe=faster_rcnn.faster_rcnn_r50_fpn_1x(),
        losses={
            "first_k": {"loss_cls": 3.1115, "loss_box": 0.071208, "loss_rpn_cls": 0.70409, "loss_rpn_box": 0.046065},
            "all": {"loss_cls": 2.8344, "loss_box": 0.036331, "loss_rpn_cls": 0.28337, "loss_rpn_box": 0.00011793},
        },
    ),
    replace(
        DETECTRON2,
        title="detectron2-faster-r101",
        recipe=faster_rcnn.faster_rcnn_r101_fpn_1x(),
        losses={
            "first_k": {"loss_cls": 4.2835, "loss_box": 0.1304, "loss_rpn_cls": 0.79773, "loss_rpn_box": 0.057986},
            "all": {"loss_cls": 4.0139, "loss_box": 0.066534, "loss_rpn_cls": 0.33889, "loss_rpn_box": 0.00014845},
        },
    ),
    replace(
        TORCHVISION,
        title="torchvision-faster-r50",
        recipe=replace(TORCHVISION.recipe, detector=torchvision_config(mask=False)),
        losses={
            "first_k": {"loss_cls": 4.0618, "loss_box": 0.090979, "loss_rpn_cls": 0.84302, "loss_rpn_box": 0.039477},
            "all": {"loss_cls": 3.7133, "loss_box": 0.02325, "loss_rpn_cls": 0.91019, "loss_rpn_box": 0.00026858},
        },
    ),
)
