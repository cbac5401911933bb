"""Options of the commands that take a recipe's fields, or look at what a recipe makes of data."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from apps.common.config import Recipe, at_least
from det_coco.doctor.defaults import DEFAULT_PAGE, default_workers

Varied = Literal["lr", "size", "anchors", "augmentation"]


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of `train` beside the fields of the recipe."""

    recipe: str
    """The configuration to start from; `recipes` lists them."""
    config: Path | None = None
    """Instead of a recipe: the config.json of a run, or a file like it."""
    resume: Path | None = None
    """Folder of a run to continue exactly where it stopped, with its own recipe and data."""
    data: Path | None = None
    """Data set: a folder or an annotation file, in COCO's or another format; by default a small synthetic one, made in
    your cache on first use."""
    weights: str | None = None
    """Weights to start from: a file of ours or of another system, the name of a published detector (`weights` lists
    them), or none; by default those that the recipe names."""
    weights_parts: tuple[str, ...] = ()
    """Parts of a detector's weights to take, such as backbone; the others start at random. By default all are taken."""
    drop_mismatched: bool = False
    """Let parameters start at random that are missing from the weights, or have another shape there."""
    drop_class_head: bool = False
    """If the weights have another number of classes, let the layers that tell classes apart start at random."""
    output: Path | None = None
    """Folder of the run; by default runs/<app>/<recipe>-<time>."""
    device: str = "auto"
    """auto, cpu, cuda or npu."""
    nproc: int = 1
    """Processes on this machine, each with its own device; for several machines, use torchrun or srun."""
    pictures: int = 8
    """Held-out images drawn beside the truth at the end."""
    values: Annotated[Recipe, tyro.conf.arg(name="")]

    def __post_init__(self) -> None:
        at_least(self, pictures=0)


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """Options of `sweep`; all others are those of `train`, for every trial."""

    trials: int = 20
    """Number of trainings, including those that a resumed sweep has done already."""
    minutes: float | None = None
    """Minutes after which no further training begins."""
    vary: tuple[Varied, ...] = ("lr", "size", "anchors", "augmentation")
    """What to vary: the learning rate, the size of images, the size of anchors, the strength of augmentation."""
    metric: str = "bbox/AP"
    """Metric to maximise."""
    resume: Path | None = None
    """Folder of a sweep to continue with its own options; only `trials` and `minutes` may change."""
    output: Path | None = None
    """Folder of the sweep, which gets a run for each trial; by default runs/<app>/sweep-<time>."""

    def __post_init__(self) -> None:
        at_least(self, trials=1)
        if self.minutes is not None and not self.minutes > 0:
            raise ValueError(f"minutes must be more than 0, got {self.minutes:g}")


@dataclass(frozen=True, kw_only=True)
class AugmentationsOptions:
    """Options of `augmentations` beside the fields of the recipe."""

    recipe: str
    """The configuration to start from; `recipes` lists them."""
    data: Path | None = None
    """Data set: a folder or an annotation file; by default the embedded synthetic one."""
    output: Path = Path("augmentations.png")
    """The picture to write."""
    images: int = 4
    """Number of images, one in each row."""
    draws: int = 4
    """Number of epochs to show, one in each column."""
    values: Annotated[Recipe, tyro.conf.arg(name="")]

    def __post_init__(self) -> None:
        for name in ("images", "draws"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """Options of `benchmark` beside the fields of the recipe."""

    recipe: str
    """The configuration to start from; `recipes` lists them."""
    data: Path | None = None
    """Data set: a folder or an annotation file; by default the embedded synthetic one."""
    weights: str = "none"
    """A checkpoint, so that there is something to detect; by default random weights. A detector of another system
    brings its own network, unless --recipe names one. Several files, or an exported one, are measured side by side."""
    device: str = "auto"
    """auto, cpu, cuda or npu."""
    steps: int = 20
    """Timed steps."""
    warmup: int = 3
    """Steps before the timing."""
    nproc: int = 1
    """Processes on this machine that train together, each with its own device."""
    config: Annotated[Recipe, tyro.conf.arg(name="")]

    def __post_init__(self) -> None:
        at_least(self, steps=1, warmup=0)


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Options of `check`."""

    recipe: str
    """The recipe to compare with the data; `recipes` lists them."""
    data: Path | None = None
    """Folder or file of the data set; by default a small synthetic one, made in your cache on first use."""
    workers: int = default_workers()
    """Processes that read pictures."""
    page: Path = DEFAULT_PAGE
    """HTML page to write, with pictures."""
    json: Path | None = None
    """JSON file to write the findings to."""
    fix: Path | None = None
    """New folder for mended annotation files and a log of every change; the data set itself is not changed."""
    device: str = "auto"
    """The device whose memory the batch has to fit into: auto, cpu, cuda or npu."""


@dataclass(frozen=True, kw_only=True)
class ReplayOptions:
    """Options of `replay`."""

    file: tyro.conf.Positional[Path]
    """The file that a broken step left: failures/step-N.pt in the run's folder."""
    device: str = "auto"
    """auto, cpu, cuda or npu."""
