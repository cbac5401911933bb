"""Options of the commands that make other files of what a training left."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from apps.common.config import at_least


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """Options of `convert`."""

    out: tyro.conf.Positional[Path]
    """The file to write; it must not exist yet. A name with `.safetensors` makes a file of that format; for detectron2,
    `.pkl` makes a pickle as in its model zoo."""
    weights: Path
    """A run's checkpoint, or a detector of another system."""
    to: Literal["ours", "detectron2", "mmdetection", "torchvision"]
    """The system whose names, layout and container the file gets."""
    certify: Path | None = None
    """A picture or a folder of pictures: run both networks on them and print how far they differ."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Options of `export`."""

    out: tyro.conf.Positional[Path]
    """The file to write; it must not exist yet. Its name ends with .onnx, .xml (OpenVINO), .pt2 or .pte
    (ExecuTorch). A card and an example are written beside it."""
    weights: Path
    """A run's checkpoint, or a detector of another system."""
    to: Literal["onnx", "openvino", "pt2", "aoti", "executorch"] = "onnx"
    """The runtime: ONNX Runtime and anything that reads ONNX; OpenVINO; PyTorch; PyTorch, compiled by AOTInductor;
    ExecuTorch."""
    batch: str | None = None
    """Images in a batch: a number, or dynamic. By default dynamic, or 1 for ExecuTorch and Ascend."""
    size: tuple[int, int] | None = None
    """Height and width that pictures are padded to, multiples of 32; larger pictures are shrunk. By default as
    --buckets says."""
    buckets: bool | None = None
    """True: a file for each of the detector's shapes, landscape and portrait; False: one file, of a shape that holds
    all pictures. By default True where the network sees the padding, as group norm does, else False."""
    precision: Literal["fp32", "fp16", "bf16", "int8"] = "fp32"
    """Number format of the weights and of the arithmetic of convolutions. int8 needs --data or --calibrate."""
    preprocessing: Literal["in", "out"] = "in"
    """Whether the file takes RGB pixels of 0 to 255, or normalised ones."""
    masks: Literal["full", "28", "none"] = "28"
    """28: masks as the network makes them (28 x 28 pixels for each box); full: as large as the input; none: none."""
    purpose: Annotated[Literal["any", "ascend"], tyro.conf.arg(name="for")] = "any"
    """ascend: ONNX in the operators of Ascend's compiler, with its command line in a file beside it."""
    certify: Path | None = None
    """A picture or a folder of pictures: run the file and the checkpoint on them and print how far they differ."""
    calibrate: Path | None = None
    """For int8: a picture or a folder of pictures that give the ranges of numbers."""
    data: Path | None = None
    """Data set: print the AP of the checkpoint and of the file; for int8, its pictures also give the ranges."""
    split: str | None = None
    """Split of the data set; by default val2017, else val, valid, validation or test, else the only one."""
    force: bool = False
    """Write the file even if it finds something else than the checkpoint."""


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Options of `report`."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a run, even of an interrupted one, or a results file in COCO's format."""
    data: Path | None = None
    """Data set that the results belong to; by default the run's own."""
    split: str | None = None
    """Split that the results belong to; by default the run's own, or the one to evaluate on."""
    output: Path | None = None
    """Page to write; by default report.html in the run's folder, or in this folder."""
    json: Path | None = None
    """JSON file to write every number to."""
    pictures: int = 12
    """Number of pictures of each kind."""
    precision: float = 0.9
    """Precision for which the page names the score thresholds."""

    def __post_init__(self) -> None:
        at_least(self, pictures=0)
        if not 0 < self.precision <= 1:
            raise ValueError(f"precision must be above 0 and up to 1, got {self.precision:g}")


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """Options of `compare`."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of runs, or results files in COCO's format; the others are compared with the first."""
    data: Path | None = None
    """Data set that the results belong to; by default that of the first run."""
    split: str | None = None
    """Split that the results belong to; by default that of the first run, or the one to evaluate on."""
    html: Path | None = None
    """HTML page to write."""
    json: Path | None = None
    """JSON file to write every number to."""
    pictures: int = 12
    """Number of pictures of objects gained, and of objects lost."""

    def __post_init__(self) -> None:
        at_least(self, pictures=0)
