"""The configuration of a run: one frozen dataclass, made whole by a recipe and changed by command-line options.

Modules of the packages take plain arguments; only the apps see this tree.
"""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import cattrs
import tyro

from det_backbones.resnet import Depth
from det_engine import SolverConfig, TrainSettings
from det_heads import DetectorConfig


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """A residual network with a feature pyramid."""

    depth: Depth = 50
    width: int = 64
    """Channels of the stem; the stages scale with it."""
    norm: Literal["frozen_bn", "frozen_statistics_bn", "bn", "sync_bn", "gn"] = "frozen_bn"
    norm_eps: float = 1e-5
    stride_in_1x1: bool = True
    """Stride in the first 1x1 convolution (MSRA, Caffe2) or in the 3x3 one (torchvision)."""
    groups: int = 1
    width_per_group: int = 64
    freeze_at: int = 2
    """Number of frozen parts, counted from the stem: 0 none, 1 stem, 2 stem and first stage, ..."""
    pyramid_channels: int = 256
    weights: str = "none"
    """Name of the ImageNet weights this recipe starts from, `none` for a start from scratch."""

    def __post_init__(self) -> None:
        if self.pyramid_channels < 1:
            raise ValueError(f"pyramid_channels must be at least 1, got {self.pyramid_channels}")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How images become static batches."""

    batch: int = 16
    """Images per optimiser step, over all devices; rates and steps follow it by the linear scaling rule."""
    train_sizes: tuple[int, ...] = (640, 672, 704, 736, 768, 800)
    """Shorter side, one drawn per image."""
    test_size: int = 800
    max_size: int = 1333
    rounding: Literal["detectron2", "maskrcnn_benchmark", "torchvision"] = "detectron2"
    buckets: tuple[tuple[int, int], ...] = ()
    """Padded shapes (height, width), the smallest that holds a batch is taken; empty: one per orientation."""
    flip: float = 0.5
    max_instances: int = 100
    """Slots for objects per image; an image with more is an error unless `drop_excess`."""
    max_polygons: int = 512
    max_edges: int = 16384
    drop_excess: bool = False
    filter_empty: bool = True
    """Leave images without a usable object out of training."""
    workers: int = 2
    train_split: str | None = None
    """Name of the split to train on; by default train2017, else train."""
    val_split: str | None = None
    """Name of the split to evaluate on; by default val2017, else val."""

    def __post_init__(self) -> None:
        least = {
            "batch": 1,
            "test_size": 1,
            "max_size": 1,
            "max_instances": 1,
            "max_polygons": 1,
            "max_edges": 1,
            "workers": 0,
        }
        for name, floor in least.items():
            if getattr(self, name) < floor:
                raise ValueError(f"{name} must be at least {floor}, got {getattr(self, name)}")
        if not self.train_sizes or min(self.train_sizes) < 1:
            raise ValueError(f"train_sizes must hold one or more lengths of at least 1 pixel, got {self.train_sizes}")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip must be a probability between 0 and 1, got {self.flip}")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that determines a run but the data, the weights and the place of its output."""

    name: Annotated[str, tyro.conf.Suppress]
    summary: Annotated[str, tyro.conf.Suppress]
    """System it reproduces and the result to expect."""
    backbone: BackboneConfig
    detector: DetectorConfig
    data: DataConfig
    solver: SolverConfig
    train: TrainSettings


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """Plain JSON values of a recipe."""
    return dataclasses.asdict(recipe)


def from_dict(values: dict[str, Any]) -> Recipe:
    """The recipe that :func:`to_dict` wrote; unknown, missing or ill-typed fields raise cattrs' errors."""
    return cattrs.Converter(forbid_extra_keys=True).structure(values, Recipe)
