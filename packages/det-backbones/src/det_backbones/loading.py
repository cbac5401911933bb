"""Puts ImageNet weights into a body: a ResNet, a DarkNet or a network of timm."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from det_backbones.darknet import DarkNet
from det_backbones.deformable import DeformConv2d
from det_backbones.errors import WeightsError
from det_backbones.naming import Format, translate
from det_backbones.norm import FrozenBatchNorm2d
from det_backbones.pixels import CAFFE2_PIXELS, DARKNET_PIXELS, TORCHVISION_PIXELS, PixelConfig
from det_backbones.reading import WeightsFile, read_weights
from det_backbones.residual import BLOCKS, ResNet
from det_backbones.timm_body import TimmBody, flat

_SHOWN = 3  # mismatches in a message
_STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadReport:
    """What :func:`load_imagenet_weights` did.

    Attributes:
        format: Whose names the file has.
        matched: Names of the body that the file set.
        ignored: Names of the file that the body has no use for: the classifier, other parts of a detector, momenta.
        missing: Names of the body that the file lacks: the statistics of Caffe2's affine layers, set to the identity,
            and what deformable convolutions have more than others, which stays.
        pixels: The input that files of this format usually expect.
        stride_in_1x1: Where their bottlenecks usually have the stride, which no shape tells; None where that varies.
        unwrapped: What was stripped from around the arrays, see :class:`~det_backbones.WeightsFile`.
    """

    format: Format
    matched: tuple[str, ...]
    ignored: tuple[str, ...]
    missing: tuple[str, ...]
    pixels: PixelConfig
    stride_in_1x1: bool | None
    unwrapped: tuple[str, ...] = ()

    def __str__(self) -> str:
        stripped = f"; stripped {', '.join(self.unwrapped)}" if self.unwrapped else ""
        return f"{self.format}, {len(self.matched)} tensors{stripped}"


def load_imagenet_weights(
    body: ResNet | DarkNet | TimmBody, path: str | os.PathLike[str], file: WeightsFile | None = None
) -> LoadReport:
    """Loads pretrained weights into a body, or changes nothing and says why.

    Reads Caffe2's pickles (MSRA's R-50.pkl and R-101.pkl, also inside "blobs" or detectron2's "model"), detectron2's
    own, torchvision's, and YOLACT's of DarkNet; the format follows from the content, and nothing in the file is run.
    The body of a detector is read too. A :class:`~det_backbones.TimmBody` takes timm's file of its network; a plain
    transformer also those that timm converts, such as Meta's of DINOv2 and of SAM, with the embeddings of places and
    patches resampled where they are for another size.

    Caffe2 folds its batch normalisation into scale and bias, so mean and variance become those for which the layer
    multiplies by exactly the scale: 0 and 1 - eps.

    Args:
        body: The network; its device and dtype stay.
        path: The file.
        file: What :func:`~det_backbones.read_weights` found in it, where that was done already.

    Returns:
        What was set and what was left out.

    Raises:
        WeightsError: The file is missing, damaged or unsafe, has numbers that are not finite, or is of another
            architecture; the message then names the first tensors that differ, with both shapes.
    """
    file = read_weights(path) if file is None else file
    arrays = file.arrays
    if isinstance(body, TimmBody):
        return _load_timm(body, path, file)
    kind, names = translate(arrays)
    if kind is None:
        raise WeightsError(
            f"{path} is not the weights of a backbone: it starts with {', '.join(list(arrays)[:_SHOWN])}, expected the "
            f"names of Caffe2 (conv1_w), detectron2 (stem.conv1.weight), torchvision (conv1.weight) or DarkNet "
            f"(_preconv.0.weight)."
        )
    found = {new: arrays[name] for new, name in names.items()}
    wanted = {name: value for name, value in body.state_dict().items() if not name.endswith(".num_batches_tracked")}
    missing = [name for name in wanted if name not in found]
    batch_norm = any(name.endswith("bn_s") for name in arrays) or _has_statistics(found)
    if batch_norm != _has_statistics(wanted):
        kinds = ("batch", "group") if batch_norm else ("group", "batch")
        raise WeightsError(
            f"{path} has the weights of another network: one with {kinds[0]} normalisation, "
            f"while this one has {kinds[1]} normalisation."
        )
    if batch_norm and not _has_statistics(found):
        affine = [
            name for name in missing if name.endswith(_STATISTICS) and f"{name.rpartition('.')[0]}.weight" in found
        ]
        found |= {name: _identity(body, name) for name in affine}
    found |= {name: wanted[name].cpu() for name in _deformation(body) if name in missing}
    _check_architecture(path, found, wanted)
    _check_finite(path, {name: found[name] for name in wanted}, names)
    body.load_state_dict({name: found[name] for name in wanted}, strict=False)
    matched = tuple(name for name in wanted if name not in missing)
    used = {names[name] for name in matched}
    return LoadReport(
        format=kind,
        matched=matched,
        ignored=tuple(name for name in arrays if name not in used),
        missing=tuple(missing),
        pixels={"caffe2": CAFFE2_PIXELS, "darknet": DARKNET_PIXELS}.get(kind, TORCHVISION_PIXELS),
        stride_in_1x1={"caffe2": True, "torchvision": False}.get(kind),
        unwrapped=file.unwrapped,
    )


def _load_timm(body: TimmBody, path: str | os.PathLike[str], file: WeightsFile) -> LoadReport:
    arrays = file.arrays
    state = body.network.state_dict()
    wanted = {name: value for name, value in state.items() if not name.endswith(".num_batches_tracked")}
    names = _timm_names(arrays, wanted)
    found = {name: arrays[file_name] for name, file_name in names.items()}
    differences = _differences(found, wanted)
    if differences and (converted := body.converted(arrays)) is not None:
        arrays, names = converted, _timm_names(converted, wanted)
        found = {name: arrays[file_name] for name, file_name in names.items()}
        differences = _differences(found, wanted)
    if differences:
        raise WeightsError(
            f"{path} has the weights of another network than timm/{body.name}, or not under timm's names: "
            f"{_first(differences)}."
        )
    _check_finite(path, found, names)
    body.network.load_state_dict(found, strict=False)
    used = set(names.values())
    return LoadReport(
        format="timm",
        matched=tuple(f"network.{name}" for name in wanted),
        ignored=tuple(name for name in arrays if name not in used),
        missing=(),
        pixels=body.pixels,
        stride_in_1x1=None,
        unwrapped=file.unwrapped,
    )


def _timm_names(arrays: Mapping[str, Tensor], wanted: Iterable[str]) -> dict[str, str]:
    """Names of a network of features -> their names in a file of the whole network."""
    file_names = {flat(name): name for name in arrays}
    return {name: file_names[flat(name)] for name in wanted if flat(name) in file_names}


def _has_statistics(names: Iterable[str]) -> bool:
    return any(name.endswith(_STATISTICS) for name in names)


def _deformation(body: nn.Module) -> list[str]:
    """Names of what a deformable convolution has and the convolution that it replaces has not."""
    added = ("bias", "offset_mask.weight", "offset_mask.bias")
    layers = [name for name, module in body.named_modules() if isinstance(module, DeformConv2d)]
    return [f"{layer}.{name}" for layer in layers for name in added]


def _identity(body: nn.Module, name: str) -> Tensor:
    owner, _, statistic = name.rpartition(".")
    norm = cast(FrozenBatchNorm2d, body.get_submodule(owner))
    value = 0.0 if statistic == "running_mean" else 1 - norm.eps
    return torch.full_like(body.state_dict()[name], value, device="cpu")


def _check_architecture(
    path: str | os.PathLike[str], found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> None:
    # MSRA's ResNet-50 has a bias in conv1, which no reference system uses.
    known = {name: value for name, value in found.items() if name in wanted or name != "conv1.bias"}
    if differences := _differences(known, wanted):
        raise WeightsError(
            f"{path} has the weights of another network: {_describe(found)}, while this one is {_describe(wanted)}. "
            f"{_first(differences)}."
        )


def _check_finite(path: str | os.PathLike[str], found: Mapping[str, Tensor], names: Mapping[str, str]) -> None:
    for name, value in found.items():
        if not torch.isfinite(value).all():
            raise WeightsError(f"{path} has numbers that are not finite, first in {names.get(name, name)}.")


def _differences(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """Each tensor that is not in both, or not of one shape, as a sentence."""
    differences = []
    for name in (*wanted, *(name for name in found if name not in wanted)):
        have, want = found.get(name), wanted.get(name)
        if have is None or want is None or have.shape != want.shape:
            differences.append(f"{name} is {_size(have)} in the file and {_size(want)} in the network")
    return differences


def _first(differences: Sequence[str]) -> str:
    more = f", and {len(differences) - _SHOWN} more differ" if len(differences) > _SHOWN else ""
    return "; ".join(differences[:_SHOWN]) + more


def _size(tensor: Tensor | None) -> str:
    if tensor is None:
        return "absent"
    return "x".join(map(str, tensor.shape)) or "a number"


def _describe(tensors: Mapping[str, Tensor]) -> str:
    """In words, the network that has these tensors."""
    if "stem.conv.weight" in tensors:
        return "a DarkNet"
    blocks: dict[int, int] = {}
    for name in tensors:
        if match := re.match(r"layer([1-4])\.(\d+)\.", name):
            stage = int(match[1])
            blocks[stage] = max(blocks.get(stage, 0), int(match[2]) + 1)
    counts = tuple(blocks.get(stage, 0) for stage in range(1, 5))
    bottleneck = "layer1.0.conv3.weight" in tensors
    depths = [depth for depth, known in BLOCKS.items() if known == counts and (depth >= 50) == bottleneck]
    kind = f"ResNet-{depths[0]}" if depths else f"a ResNet with {', '.join(map(str, counts))} blocks"
    grouped = tensors.get("layer1.0.conv2.weight")
    if grouped is not None and grouped.dim() == 4 and grouped.shape[0] != grouped.shape[1]:
        width = grouped.shape[1]
        kind = f"{kind.replace('ResNet', 'ResNeXt')} {grouped.shape[0] // width}x{width}d"
    stem = tensors.get("conv1.weight")
    if stem is not None and stem.shape[0] != 64:
        kind += f" of width {stem.shape[0]}"
    return kind
