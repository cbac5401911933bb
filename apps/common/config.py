"""The configuration of a run: one frozen dataclass, made whole by a recipe and changed by command-line options.

Modules of the packages take plain arguments; only the apps see this tree.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar, cast

import tyro

import det_coco
from apps.common.augmentation import PLAIN, AugmentConfig
from det_engine import SolverConfig, TrainSettings, scaled_to_batch
from det_models import BackboneConfig, DetectorConfig, ModelConfig

if TYPE_CHECKING:
    from det_coco import BatchShape, Resize
    from det_coco.transforms import Transform
    from det_models.checkpoints import Checkpoint


@dataclass(frozen=True, kw_only=True)
class LoadingConfig:
    """How images are loaded, whatever is done to them then."""

    batch: int = 16
    """Images in a step, over all devices; the learning rate and the steps follow it by the linear scaling rule. `train`
    also takes auto: the largest batch that fits into memory."""
    flip: float = 0.5
    """Probability that an image is mirrored."""
    augment: AugmentConfig = PLAIN
    max_instances: int = 100
    """Slots for objects in an image; an image with more objects is an error, unless `drop_excess` is True."""
    drop_excess: bool = False
    """Leave out the smallest objects of an image that has too many."""
    filter_empty: bool = True
    """Leave images without a usable object out of training."""
    min_keypoints: int = 0
    """Leave images with fewer labelled keypoints out of training."""
    repeat_threshold: float = 0.0
    """If a class is in a smaller share f of the images than this threshold t, its images come up to sqrt(t / f) times
    per epoch (LVIS: 0.001); 0: every image comes once."""
    exif: bool = True
    """Turn pictures upright as their EXIF orientation says; False if they were annotated without regard to it."""
    workers: int = 2
    """Processes that load images, for each device; 0: the training itself loads them."""
    train: str | None = None
    """Annotation file or folder to train on; by default `--data`."""
    val: str | None = None
    """Annotation file or folder to evaluate on; by default `--data`, else images held out of those to train on."""
    train_split: str | None = None
    """Name of the split to train on; by default train2017, else train, else the only one."""
    val_split: str | None = None
    """Name of the split to evaluate on; by default val2017, else val, valid, validation or test, else images held out
    of those to train on."""

    def __post_init__(self) -> None:
        at_least(self, batch=1, max_instances=1, min_keypoints=0, workers=0)
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip must be a probability between 0 and 1, got {self.flip}")
        if not 0 <= self.repeat_threshold <= 1:
            raise ValueError(f"repeat_threshold must be a share between 0 and 1, got {self.repeat_threshold}")


@dataclass(frozen=True, kw_only=True)
class DataConfig(LoadingConfig):
    """How images become static batches, resized and mirrored."""

    train_sizes: tuple[int, ...] = (640, 672, 704, 736, 768, 800)
    """Lengths of the shorter side in training, in pixels; one is drawn for each image."""
    test_size: int = 800
    """Length of the shorter side in evaluation and prediction."""
    max_size: int = 1333
    """Limit of the longer side."""
    rounding: Literal["detectron2", "maskrcnn_benchmark", "mmdetection", "torchvision"] = "detectron2"
    """The system whose resize is reproduced, in sizes and pixels."""
    buckets: tuple[tuple[int, int], ...] = ()
    """Padded shapes (height, width); a batch takes the smallest that holds it. Empty: one for each orientation. Several
    for an orientation keep images of similar shape together, which on COCO saves a seventh of the pixels."""
    max_polygons: int = 512
    """Room for polygons in an image."""
    max_edges: int = 16384
    """Room for edges of polygons in an image."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, test_size=1, max_size=1, max_polygons=1, max_edges=1)
        if not self.train_sizes or min(self.train_sizes) < 1:
            raise ValueError(f"train_sizes must hold one or more lengths of at least 1 pixel, got {self.train_sizes}")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that determines a run but the data, the weights and the place of its output.

    Each kind of detector has a subclass, with the types of its sections and its answers to what the commands ask.
    """

    name: Annotated[str, tyro.conf.Suppress]
    summary: Annotated[str, tyro.conf.Suppress]
    """System it reproduces and the result to expect."""
    backbone: BackboneConfig
    detector: Any
    """The detector's own configuration; every one has `num_classes` and `pixels`."""
    data: LoadingConfig
    solver: SolverConfig
    train: TrainSettings

    def batch_shape(self) -> BatchShape:
        """The static shapes of its batches."""
        raise NotImplementedError

    def training_transform(self) -> Transform:
        """What training does to an image."""
        raise NotImplementedError

    def test_resize(self) -> Resize:
        """What evaluation and prediction do to an image."""
        raise NotImplementedError

    def model(self) -> ModelConfig:
        """The network, and the images that it gets in evaluation."""
        resize, buckets = self.test_resize(), self.batch_shape().buckets
        return ModelConfig(backbone=self.backbone, detector=self.detector, resize=resize, buckets=buckets)

    def resolved(self) -> Recipe:
        """The recipe with defaults that depend on other fields made explicit."""
        return self

    def scaled_to_batch(self, batch: int) -> tuple[SolverConfig, str]:
        """The solver for another number of images a step, and a line that says what changed."""
        return scaled_to_batch(self.solver, batch)

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self:
        """The network of another system's checkpoint, on images as that system takes them."""
        raise NotImplementedError

    def under(self, checkpoint: Checkpoint) -> Self:
        """This recipe with the conventions on which the meaning of a checkpoint's tensors depends."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class BucketRecipe(Recipe):
    """A recipe of a detector whose images keep their aspect, and are padded to buckets."""

    data: DataConfig

    def batch_shape(self) -> BatchShape:
        """Buckets, without masks."""
        data = self.resolved().data
        return det_coco.BatchShape(
            buckets=data.buckets,
            masks="none",
            max_instances=data.max_instances,
            max_edges=data.max_edges,
            max_polygons=data.max_polygons,
            drop_excess=data.drop_excess,
        )

    def training_resize(self) -> Resize:
        """The training sizes."""
        return det_coco.Resize(shortest=self.data.train_sizes, longest=self.data.max_size, rule=self.data.rounding)

    def training_transform(self) -> Transform:
        """A resize to one of the sizes, a mirror, and what else is asked for."""
        data, legacy = self.data, getattr(self.detector, "offset", 0) == 1
        resize = det_coco.Augmentation(resize=self.training_resize(), flip=data.flip, legacy=legacy)
        return data.augment.transform(resize, size=data.max_size, flip=data.flip)

    def test_resize(self) -> Resize:
        """The test size."""
        return det_coco.Resize(shortest=(self.data.test_size,), longest=self.data.max_size, rule=self.data.rounding)

    def resolved(self) -> Self:
        """The recipe with its buckets: by default one per orientation that hold every resized image.

        A square joins them where scale jitter makes squares.
        """
        data = self.data
        if data.buckets:
            return self
        largest = max(*data.train_sizes, data.test_size)
        buckets = det_coco.default_buckets(
            det_coco.Resize(shortest=(largest,), longest=data.max_size, rule=data.rounding)
        )
        if data.augment.scale_jitter is not None:
            buckets += det_coco.default_buckets(det_coco.Resize(shortest=(data.max_size,), longest=data.max_size))
        return replace(self, data=replace(data, buckets=tuple(dict.fromkeys(buckets))))

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self:
        """The whole network is the checkpoint's; a published schedule stands for its own, which no file holds."""
        from det_models.adopting import model_of

        model = model_of(checkpoint)
        return cls(
            name=checkpoint.system,
            summary=str(checkpoint),
            backbone=model.backbone,
            detector=model.detector,
            data=DataConfig(batch=2, rounding=cast("Any", model.resize.rule)),
            solver=SolverConfig(),
            train=TrainSettings(),
        )


@dataclass(frozen=True, kw_only=True)
class TwoStageRecipe(BucketRecipe):
    """A recipe of a two-stage detector."""

    detector: DetectorConfig

    def batch_shape(self) -> BatchShape:
        """Buckets, and what the branches learn from in the form that they need."""
        shape = super().batch_shape()
        for branch in self.detector.branches.values():
            shape = replace(shape, **branch.batch_shape())
        return shape

    def under(self, checkpoint: Checkpoint) -> Self:
        """Pixels, strides, epsilon, anchors, coding, pooling, kinds of heads; sizes and training stay the recipe's."""
        from det_models.adopting import backbone_of, conventions_of

        taken = {name: backbone_of(checkpoint)[name] for name in ("stride_in_1x1", "norm_eps")}
        mine, theirs = self.backbone.pyramid_norm, checkpoint.backbone.pyramid_norm
        if mine != theirs and (mine, theirs) != ("sync_bn", "bn"):
            taken["pyramid_norm"] = theirs
        detector = conventions_of(self.detector, checkpoint.detector)  # pyrefly: ignore[bad-argument-type]
        return replace(self, backbone=replace(self.backbone, **taken), detector=detector)


R = TypeVar("R", bound=Recipe)


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """Plain JSON values of a recipe."""
    return asdict(recipe)


def from_dict(values: dict[str, Any], kind: type[R]) -> R:
    """The recipe of that kind that :func:`to_dict` wrote; wrong fields raise cattrs' errors, other values TypeError."""
    from det_models.description import structured

    if not isinstance(values, dict):
        raise TypeError("a recipe is values by name")
    return structured(values, kind)


def at_least(config: object, **floors: int) -> None:
    """Refuse fields that are smaller than they may be.

    Args:
        config: a dataclass instance.
        **floors: the least value of each field.

    Raises:
        ValueError: one is smaller.
    """
    for name, floor in floors.items():
        if getattr(config, name) < floor:
            raise ValueError(f"{name} must be at least {floor}, got {getattr(config, name)}")
