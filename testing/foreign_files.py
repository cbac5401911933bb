"""Checkpoints as other systems write them, with random weights of networks of any size."""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from det_models.checkpoints import to_reference

CLASSES = ("disc", "square", "triangle", "star", "cross", "ring")
CONFIG = """
img_norm_cfg = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False)
model = dict(type='MaskRCNN', backbone=dict(type='ResNet', depth=50, style='caffe'))
"""


def write(path: Path, system: str, state: Mapping[str, Tensor], **metadata: Any) -> Path:
    """A file with tensors under the names of `system`, in the container that it writes."""
    system, _, form = system.partition(" ")
    if system == "caffe2" or form == "zoo":
        arrays = {name: tensor.numpy() for name, tensor in state.items()}
        key = "blobs" if system == "caffe2" else "model"
        momenta = {f"{name}_momentum": np.zeros_like(a) for name, a in arrays.items() if system == "caffe2"}
        path.write_bytes(pickle.dumps({key: arrays | momenta, "__author__": "someone", **metadata}, protocol=2))
        return path
    if system == "mmdetection-1" or system == "mmdetection":
        meta = {"mmdet_version": "2.13.0", "epoch": 12, **metadata}
        content: dict[str, Any] = {"meta": meta, "state_dict": dict(state), "optimizer": {"lr": np.float64(0.1)}}
    elif system in ("detectron2", "maskrcnn-benchmark"):
        prefix = "module." if system == "maskrcnn-benchmark" else ""
        named = {prefix + name: tensor for name, tensor in state.items()}
        content = {"model": named, "optimizer": {"lr": np.float32(0.1)}, "iteration": 7, **metadata}
    else:
        content = dict(state)
    torch.save(content, path)
    return path


def theirs(system: str, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors under the names of a system, with what it stores beyond ours."""
    system = system.partition(" ")[0]
    if system == "caffe2":
        return blobs(ours)
    state = to_reference(ours, system)
    if system == "maskrcnn-benchmark":
        state["rpn.anchor_generator.cell_anchors.0"] = torch.zeros(3, 4)
    if system.startswith("mmdetection"):
        for name in list(state):
            if name.endswith("running_var"):
                state[name.replace("running_var", "num_batches_tracked")] = torch.tensor(0)
    return state


def blobs(ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Detectron's blobs, by the table of detectron2's c2_model_loading.py read backwards; the statistics folded."""
    last = {}
    for name in ours:
        if match := re.match(r"backbone\.body\.layer(\d)\.(\d+)\.", name):
            stage = int(match[1]) + 1
            last[stage] = max(last.get(stage, 0), int(match[2]))
    found = {}
    for name, tensor in to_reference(ours, "maskrcnn-benchmark").items():
        owner, kind = name.rsplit(".", 1)
        suffix = {"weight": "_w", "bias": "_b"}.get(kind)
        if match := re.fullmatch(r"backbone\.body\.layer(\d)\.(\d+)\.(conv|bn|downsample\.)(\d)", owner):
            stage, block, part, number = int(match[1]) + 1, match[2], match[3], int(match[4])
            branch = "1" if part == "downsample." else f"2{'abc'[number - 1]}"
            key = f"res{stage}_{block}_branch{branch}"
            norm = part == "bn" or (part == "downsample." and number == 1)
        elif match := re.fullmatch(r"backbone\.body\.stem\.(conv|bn)1", owner):
            norm = match[1] == "bn"
            key = "res_conv1" if norm else "conv1"
        else:
            norm, key = False, _other_blob(owner, last)
        if norm:
            suffix = {"weight": "_bn_s", "bias": "_bn_b"}.get(kind)
        if suffix is not None:
            found[key + suffix] = tensor
    return found | {"conv1_b": torch.zeros(len(found["conv1_w"])), "lr": torch.tensor([0.1])}


def _other_blob(owner: str, last: Mapping[int, int]) -> str:
    if match := re.fullmatch(r"backbone\.fpn\.fpn_(inner|layer)(\d)", owner):
        stage = int(match[2]) + 1
        if match[1] == "layer":
            return f"fpn_res{stage}_{last[stage]}_sum"
        return f"fpn_inner_res{stage}_{last[stage]}_sum" + ("" if stage == 5 else "_lateral")
    name = owner.rsplit(".", 1)[1]
    rpn = {"conv": "conv_rpn_fpn2", "cls_logits": "rpn_cls_logits_fpn2", "bbox_pred": "rpn_bbox_pred_fpn2"}
    if owner.startswith("rpn."):
        return rpn[name]
    return name.replace("mask_fcn", "_[mask]_fcn") if re.fullmatch(r"mask_fcn\d", name) else name
