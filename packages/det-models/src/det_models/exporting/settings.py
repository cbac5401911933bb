"""What an exported file is to be."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import nn

from det_backbones import TimmBody
from det_models.config import ModelConfig
from det_models.errors import OptionError, whole_number

__all__ = ["Settings", "Target", "sees_padding", "shapes_of"]

Target = Literal["onnx", "openvino", "pt2", "aoti", "executorch"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "pt2": ".pt2", "aoti": ".pt2", "executorch": ".pte"}
"""How the names of files must end, by target."""

PRECISIONS = {
    "onnx": ("fp32", "fp16", "int8"),
    "openvino": ("fp32", "fp16", "int8"),
    "pt2": ("fp32", "fp16", "bf16"),
    "aoti": ("fp32", "fp16", "bf16"),
    "executorch": ("fp32",),
}
"""What each target can be written in: ONNX Runtime has no convolution in bfloat16, torch.export none in int8."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What an exported file is to be; all of it stands in its card.

    Attributes:
        to: The runtime: `onnx` (ONNX Runtime and whatever reads ONNX), `openvino`, `pt2` (PyTorch with det-ops), `aoti`
            (compiled by AOTInductor for this machine, with det-ops), `executorch` (ExecuTorch, for phones).
        batch: Images of a batch, or `dynamic`.
        precision: Number format of weights and of convolutions and products; boxes stay in fp32.
        preprocessing: `in`: the network normalises RGB pixels of 0 to 255 itself. `out`: it gets them normalised.
        masks: `28`: as the network makes them, 28 x 28 pixels for each box, or YOLACT's of the whole image; `full`: as
            large as the network's input, true or false; `none`.
        ascend: Whether Ascend's compiler is to read it: ONNX of a fixed batch, in operators that its list names.
    """

    to: Target = "onnx"
    batch: int | Literal["dynamic"] = "dynamic"
    precision: Precision = "fp32"
    preprocessing: Literal["in", "out"] = "in"
    masks: Literal["full", "28", "none"] = "28"
    ascend: bool = False

    def __post_init__(self) -> None:
        choices = {"to": get_args(Target), "preprocessing": ("in", "out"), "masks": ("full", "28", "none")}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise OptionError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}.")
        if self.precision not in PRECISIONS[self.to]:
            known = ", ".join(PRECISIONS[self.to])
            raise OptionError(f"precision must be one of {known} for {self.to}, got {self.precision!r}.")
        if self.batch != "dynamic":
            whole_number("batch", self.batch)
        if self.ascend and self.to != "onnx":
            raise OptionError(f"Ascend's compiler reads onnx, got {self.to!r}.")
        if self.ascend and self.batch == "dynamic":
            raise OptionError("batch must be a number for Ascend, whose compiler wants fixed shapes, got 'dynamic'.")
        if self.to == "executorch" and self.batch == "dynamic":
            raise OptionError("batch must be a number for executorch, which plans memory in advance, got 'dynamic'.")


def sees_padding(network: nn.Module) -> bool:
    """Whether a network computes with whole maps, padding included, so that what it finds depends on the padding.

    Group norm does. So do squeeze-and-excitation, attention and others of timm's networks, of whose modules we do not
    know the meaning: all of them count.

    Args:
        network: As it was built, norms and all.
    """
    return any(isinstance(module, nn.GroupNorm | TimmBody) for module in network.modules())


def shapes_of(model: ModelConfig, size: Any = None, *, buckets: bool = False) -> tuple[tuple[int, int], ...]:
    """The shapes (height, width) of the networks to export, a file each.

    Args:
        model: The detector and its buckets.
        size: (height, width) of the only one.
        buckets: One for each bucket, such as landscape and portrait; else one for all pictures.

    Raises:
        OptionError: The size is none that the network takes.
    """
    if size is None:
        if buckets or len(model.buckets) == 1:
            return model.buckets
        return (tuple(max(sides) for sides in zip(*model.buckets, strict=True)),)  # type: ignore[return-value]
    if buckets:
        raise OptionError("size and buckets cannot both be given: a size is the shape of one file.")
    height, width = (whole_number("size", side, 32) for side in size)
    if height % 32 or width % 32:
        raise OptionError(f"size must be two multiples of 32, height and width, got {height} and {width}.")
    if model.resize.rule == "yolact" and (height, width) not in model.buckets:
        side = model.resize.longest
        raise OptionError(f"size must be {side} and {side} for this YOLACT, got {height} and {width}.")
    return ((height, width),)
