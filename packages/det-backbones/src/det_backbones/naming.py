"""Parameter names of published backbones, translated to those of our ResNet (torchvision's) and DarkNet."""

import re
from collections.abc import Iterable
from typing import Literal

Format = Literal["caffe2", "detectron2", "torchvision", "darknet", "timm"]

# Where a detector keeps its body; a file of the body alone has no prefix.
_PREFIXES = ("", "backbone.body.", "backbone.bottom_up.", "backbone.")

_CAFFE2_SUFFIX = {
    "w": "weight",
    "b": "bias",
    "bn_s": "weight",
    "bn_b": "bias",
    "bn_rm": "running_mean",
    "bn_running_mean": "running_mean",
    "bn_riv": "running_var",
    "bn_running_var": "running_var",
    "gn_s": "weight",
    "gn_b": "bias",
}
_CAFFE2_STEM = re.compile(r"(?:res_)?conv1_(?P<suffix>\w+)")
_CAFFE2_BLOCK = re.compile(r"res(?P<stage>[2-5])_(?P<block>\d+)_branch(?P<branch>1|2[abc])_(?P<suffix>\w+)")
_DETECTRON2_STEM = re.compile(r"stem\.conv1\.(?P<norm>norm\.)?(?P<suffix>\w+)")
_DETECTRON2_BLOCK = re.compile(
    r"res(?P<stage>[2-5])\.(?P<block>\d+)\.(?P<layer>conv[123]|shortcut)\.(?P<norm>norm\.)?(?P<suffix>\w+)"
)
_BODY = re.compile(r"(conv1|bn1|layer[1-4]\.\d+\.(conv[123]|bn[123]|downsample\.[01]))\.(?!num_batches_tracked)\w+")

# YOLACT's darknet53.pth: every layer is a sequence of convolution (0), normalisation (1) and activation.
_DARKNET = re.compile(
    r"(?:_preconv|layers\.(?P<stage>\d)\.(?P<block>\d+)(?:\.conv(?P<conv>[12]))?)"
    r"\.(?P<part>[01])\.(?P<suffix>(?!num_batches_tracked)\w+)"
)


def translate(names: Iterable[str]) -> tuple[Format | None, dict[str, str]]:
    """Finds out whose names they are.

    Args:
        names: Of all arrays of a file.

    Returns:
        The format, None if it is none of the known ones; and for every array of the body its name in
        :class:`det_backbones.ResNet` (:class:`det_backbones.DarkNet` for "darknet") -> its name in the file.
    """
    names = list(names)
    if "conv1_w" in names:
        return "caffe2", {new: name for name in names if (new := _from_caffe2(name)) is not None}
    for prefix in _PREFIXES:
        if prefix + "stem.conv1.weight" in names:
            found = {name: _from_detectron2(name.removeprefix(prefix)) for name in names if name.startswith(prefix)}
            return "detectron2", {new: name for name, new in found.items() if new is not None}
        if prefix + "_preconv.0.weight" in names:
            found = {name: _from_darknet(name.removeprefix(prefix)) for name in names if name.startswith(prefix)}
            return "darknet", {new: name for name, new in found.items() if new is not None}
        if prefix + "conv1.weight" in names:
            found = {name.removeprefix(prefix): name for name in names if name.startswith(prefix)}
            return "torchvision", {new: name for new, name in found.items() if _BODY.fullmatch(new)}
    return None, {}


def _from_caffe2(name: str) -> str | None:
    if match := _CAFFE2_STEM.fullmatch(name):
        layer, norm = "conv1", "bn1"
    elif match := _CAFFE2_BLOCK.fullmatch(name):
        block = f"layer{int(match['stage']) - 1}.{match['block']}."
        if match["branch"] == "1":
            layer, norm = block + "downsample.0", block + "downsample.1"
        else:
            number = "abc".index(match["branch"][1]) + 1
            layer, norm = f"{block}conv{number}", f"{block}bn{number}"
    else:
        return None
    suffix = _CAFFE2_SUFFIX.get(match["suffix"])
    if suffix is None:
        return None
    return f"{norm if match['suffix'][:3] in ('bn_', 'gn_') else layer}.{suffix}"


def _from_detectron2(name: str) -> str | None:
    if match := _DETECTRON2_STEM.fullmatch(name):
        return f"{'bn1' if match['norm'] else 'conv1'}.{match['suffix']}"
    if match := _DETECTRON2_BLOCK.fullmatch(name):
        block = f"layer{int(match['stage']) - 1}.{match['block']}"
        if match["layer"] == "shortcut":
            return f"{block}.downsample.{1 if match['norm'] else 0}.{match['suffix']}"
        return f"{block}.{'bn' if match['norm'] else 'conv'}{match['layer'][-1]}.{match['suffix']}"
    return None


def _from_darknet(name: str) -> str | None:
    match = _DARKNET.fullmatch(name)
    if match is None:
        return None
    layer = "stem" if match["stage"] is None else f"layers.{match['stage']}.{match['block']}"
    if match["conv"]:
        layer += ".reduce" if match["conv"] == "1" else ".expand"
    return f"{layer}.{'conv' if match['part'] == '0' else 'bn'}.{match['suffix']}"
