"""Options of the commands that take a recipe's fields, or look at what a recipe makes of data."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from apps.common.config import Recipe, at_least
from det_coco.doctor.defaults import DEFAULT_PAGE, default_workers


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of `train` beside the fields of the recipe."""

    recipe: str
    """Where the fields below start from; `recipes` lists them."""
    config: Path | None = None
    """In place of a recipe: the config.json of a run, or one like it."""
    resume: Path | None = None
    """Directory of a run to go on with, exactly where it stopped; recipe and data are the run's own."""
    data: Path | None = None
    """Data set: a folder or an annotation file of COCO's or another format; by default a small synthetic one, made in
    your cache on first use."""
    weights: str | None = None
    """Weights to start from: a file of ours or of another system, the name of a published detector (`weights` lists
    them), or none; by default what the recipe names."""
    weights_parts: tuple[str, ...] = ()
    """Parts of a detector's weights to take, such as backbone; what is left out starts at random. By default all."""
    drop_mismatched: bool = False
    """Start what has another shape in the weights, or is not there, at random."""
    drop_class_head: bool = False
    """Where the weights have another number of classes, start the layers that tell classes apart at random."""
    output: Path | None = None
    """Directory of the run; by default runs/<app>/<recipe>-<time>."""
    device: str = "auto"
    """auto, cpu, cuda or npu."""
    nproc: int = 1
    """Processes on this machine, each with its own device; torchrun and srun start them on several."""
    pictures: int = 8
    """Held-out images drawn beside the truth at the end."""
    values: Annotated[Recipe, tyro.conf.arg(name="")]

    def __post_init__(self) -> None:
        at_least(self, pictures=0)


@dataclass(frozen=True, kw_only=True)
class AugmentationsOptions:
    """Options of `augmentations` beside the fields of the recipe."""

    recipe: str
    """Where the fields below start from; `recipes` lists them."""
    data: Path | None = None
    """Data set: a folder or an annotation file; by default the embedded synthetic one."""
    output: Path = Path("augmentations.png")
    """The picture to write."""
    images: int = 4
    """Images, one a row."""
    draws: int = 4
    """What the first epochs make of each, one a column."""
    values: Annotated[Recipe, tyro.conf.arg(name="")]

    def __post_init__(self) -> None:
        for name in ("images", "draws"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """Options of `benchmark` beside the fields of the recipe."""

    recipe: str
    """Where the fields below start from; `recipes` lists them."""
    data: Path | None = None
    """Data set: a folder or an annotation file; by default the embedded synthetic one."""
    weights: str = "none"
    """A checkpoint, so that there is something to detect; a detector of another system brings its network, unless
    --recipe names one. By default random weights. Several files, or an exported one, are measured side by side."""
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
    """Whose options are fitted to the data; `recipes` lists them."""
    data: Path | None = None
    """Folder or file of the data set; by default a small synthetic one, made in your cache on first use."""
    workers: int = default_workers()
    """Processes that read pictures."""
    page: Path = DEFAULT_PAGE
    """HTML page with pictures to write."""
    json: Path | None = None
    """File for the findings as JSON."""
    fix: Path | None = None
    """New folder for mended annotation files and a log of every change; the data set itself stays as it is."""
    device: str = "auto"
    """Whose memory a batch has to fit in: auto, cpu, cuda or npu."""


@dataclass(frozen=True, kw_only=True)
class ReplayOptions:
    """Options of `replay`."""

    file: tyro.conf.Positional[Path]
    """What the broken step left: failures/step-N.pt in the run's directory."""
    device: str = "auto"
    """auto, cpu, cuda or npu."""
