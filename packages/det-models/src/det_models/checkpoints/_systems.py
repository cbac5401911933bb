"""Reference systems: what they call our modules. The tables are read in both directions.

Sources: the `state_dict`s of detectron2 0.6, torchvision 0.28 (older files spell some names in another way),
maskrcnn-benchmark 57eec25, mmdetection 3.3 (the same since 2.0) and 1.2, and dbolya/yolact 902073d (whose classifier
keeps the background first here too); the blobs of Detectron as detectron2/checkpoint/c2_model_loading.py reads them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from det_models.checkpoints._layouts import (
    BACKGROUND_BOX_FIRST,
    BACKGROUND_FIRST,
    BACKGROUND_MASK_FIRST,
    BACKGROUND_OR_AGNOSTIC_BOX_FIRST,
    SAME,
)
from det_models.checkpoints._rules import Rule, rules

if TYPE_CHECKING:
    from torch import Tensor

    Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class System:
    """Where a checkpoint comes from.

    Attributes:
        name: What users call it.
        rules: Names and layouts. The first that fits wins, so spellings that are only read come last.
        ignored: Names of tensors which the program computes by itself (anchors, pixel statistics).
        respell: What the rules are about, of a name in the file.
        written: Whether its checkpoints are written too, not only read.
        to_ours: What one tensor alone does not tell of the layout: all of them, under our names, from its layout into
            ours.
        to_theirs: The inverse.
    """

    name: str
    rules: tuple[Rule, ...]
    ignored: re.Pattern[str]
    respell: Callable[[str], str] = str
    written: bool = True
    to_ours: Callable[[Tensors], Tensors] = dict
    to_theirs: Callable[[Tensors], Tensors] = dict


_BACKGROUND_FIRST = {"classes": BACKGROUND_FIRST, "boxes": BACKGROUND_BOX_FIRST, "masks": BACKGROUND_MASK_FIRST}

TORCHVISION_BLOCKS = """
    layer{stage}.{block}.conv{conv}
    layer{stage}.{block}.bn{conv}
    layer{stage}.{block}.downsample.{part}
"""

DETECTRON2_BODY = rules(
    "backbone.body.",
    "backbone.bottom_up.",
    """
        conv1                              stem.conv1
        bn1                                stem.conv1.norm
        layer{stage}.{block}.conv{conv}    res{stage+1}.{block}.conv{conv}
        layer{stage}.{block}.bn{conv}      res{stage+1}.{block}.conv{conv}.norm
        layer{stage}.{block}.downsample.0  res{stage+1}.{block}.shortcut
        layer{stage}.{block}.downsample.1  res{stage+1}.{block}.shortcut.norm
    """,
)

DETECTRON2 = System(
    "detectron2",
    DETECTRON2_BODY
    + rules(
        "",
        "",
        """
        backbone.fpn.lateral.{level}       backbone.fpn_lateral{level+2}
        backbone.fpn.output.{level}        backbone.fpn_output{level+2}
        backbone.fpn.lateral_norm.{level}  backbone.fpn_lateral{level+2}.norm
        backbone.fpn.output_norm.{level}   backbone.fpn_output{level+2}.norm
        rpn.conv                           proposal_generator.rpn_head.conv
        rpn.convs.{layer}                  proposal_generator.rpn_head.conv.conv{layer}
        rpn.objectness                     proposal_generator.rpn_head.objectness_logits
        rpn.deltas                         proposal_generator.rpn_head.anchor_deltas
        box_head.convs.{layer}             roi_heads.box_head.conv{layer+1}
        box_head.norms.{layer}             roi_heads.box_head.conv{layer+1}.norm
        box_head.fc{layer}                 roi_heads.box_head.fc{layer}
        box_head.cls_score                 roi_heads.box_predictor.cls_score
        box_head.bbox_pred                 roi_heads.box_predictor.bbox_pred
        box_heads.{stage}.convs.{layer}    roi_heads.box_head.{stage}.conv{layer+1}
        box_heads.{stage}.norms.{layer}    roi_heads.box_head.{stage}.conv{layer+1}.norm
        box_heads.{stage}.fc{layer}        roi_heads.box_head.{stage}.fc{layer}
        box_heads.{stage}.cls_score        roi_heads.box_predictor.{stage}.cls_score
        box_heads.{stage}.bbox_pred        roi_heads.box_predictor.{stage}.bbox_pred
        mask_head.convs.{layer}            roi_heads.mask_head.mask_fcn{layer+1}
        mask_head.norms.{layer}            roi_heads.mask_head.mask_fcn{layer+1}.norm
        mask_head.deconv                   roi_heads.mask_head.deconv
        mask_head.predictor                roi_heads.mask_head.predictor
        """,
    ),
    ignored=re.compile(r"pixel_(mean|std)|proposal_generator\.anchor_generator\.cell_anchors\.\d+"),
)

TORCHVISION_BODY = rules("backbone.body.", "backbone.body.", "conv1 \n bn1" + TORCHVISION_BLOCKS)

TORCHVISION = System(
    "torchvision",
    TORCHVISION_BODY
    + rules(
        "",
        "",
        """
        backbone.fpn.lateral.{level}       backbone.fpn.inner_blocks.{level}.0
        backbone.fpn.output.{level}        backbone.fpn.layer_blocks.{level}.0
        backbone.fpn.lateral_norm.{level}  backbone.fpn.inner_blocks.{level}.1
        backbone.fpn.output_norm.{level}   backbone.fpn.layer_blocks.{level}.1
        rpn.conv                           rpn.head.conv.0.0
        rpn.objectness                     rpn.head.cls_logits
        rpn.deltas                         rpn.head.bbox_pred
        box_head.fc{layer}                 roi_heads.box_head.fc{layer+5}
        box_head.cls_score                 roi_heads.box_predictor.cls_score         classes
        box_head.bbox_pred                 roi_heads.box_predictor.bbox_pred         boxes
        mask_head.convs.{layer}            roi_heads.mask_head.{layer}.0
        mask_head.deconv                   roi_heads.mask_predictor.conv5_mask
        mask_head.predictor                roi_heads.mask_predictor.mask_fcn_logits  masks

        backbone.fpn.lateral.{level}       backbone.fpn.inner_blocks.{level}
        backbone.fpn.output.{level}        backbone.fpn.layer_blocks.{level}
        rpn.conv                           rpn.head.conv
        mask_head.convs.{layer}            roi_heads.mask_head.mask_fcn{layer+1}
        """,
        _BACKGROUND_FIRST,
    ),
    ignored=re.compile(r"rpn\.anchor_generator\.cell_anchors\.\d+"),
)

TORCHVISION_V2 = System(
    "torchvision-v2",
    rules(
        "",
        "",
        """
        rpn.convs.{layer}        rpn.head.conv.{layer}.0
        box_head.convs.{layer}   roi_heads.box_head.{layer}.0
        box_head.norms.{layer}   roi_heads.box_head.{layer}.1
        box_head.fc1             roi_heads.box_head.5
        mask_head.convs.{layer}  roi_heads.mask_head.{layer}.0
        mask_head.norms.{layer}  roi_heads.mask_head.{layer}.1
        """,
    )
    + TORCHVISION.rules,
    ignored=TORCHVISION.ignored,
)

MASKRCNN_BENCHMARK = System(
    "maskrcnn-benchmark",
    rules("backbone.body.", "backbone.body.", "conv1 stem.conv1 \n bn1 stem.bn1" + TORCHVISION_BLOCKS)
    + rules(
        "",
        "",
        """
        backbone.fpn.lateral.{level}  backbone.fpn.fpn_inner{level+1}
        backbone.fpn.output.{level}   backbone.fpn.fpn_layer{level+1}
        rpn.conv                      rpn.head.conv
        rpn.objectness                rpn.head.cls_logits
        rpn.deltas                    rpn.head.bbox_pred
        box_head.fc{layer}            roi_heads.box.feature_extractor.fc{layer+5}
        box_head.cls_score            roi_heads.box.predictor.cls_score                   classes
        box_head.bbox_pred            roi_heads.box.predictor.bbox_pred                   boxes
        mask_head.convs.{layer}       roi_heads.mask.feature_extractor.mask_fcn{layer+1}
        mask_head.deconv              roi_heads.mask.predictor.conv5_mask
        mask_head.predictor           roi_heads.mask.predictor.mask_fcn_logits            masks
        """,
        _BACKGROUND_FIRST,
    ),
    ignored=re.compile(r"rpn\.anchor_generator\.cell_anchors\.\d+"),
)

MMDETECTION_PYRAMID = """
        backbone.fpn.lateral.{level}          neck.lateral_convs.{level}.conv
        backbone.fpn.output.{level}           neck.fpn_convs.{level}.conv
        backbone.fpn.lateral_norm.{level}     neck.lateral_convs.{level}.bn
        backbone.fpn.output_norm.{level}      neck.fpn_convs.{level}.bn
"""

_MMDETECTION_BODY = rules("backbone.body.", "backbone.", "conv1 \n bn1" + TORCHVISION_BLOCKS) + rules(
    "",
    "",
    MMDETECTION_PYRAMID
    + """
        rpn.conv                              rpn_head.rpn_conv
        rpn.convs.{layer}                     rpn_head.rpn_conv.{layer}.conv
        rpn.objectness                        rpn_head.rpn_cls
        rpn.deltas                            rpn_head.rpn_reg
    """,
)

# The third column concerns version 1 alone.
_MMDETECTION_HEADS = """
    box_head.convs.{layer}            bbox_head.shared_convs.{layer}.conv
    box_head.norms.{layer}            bbox_head.shared_convs.{layer}.bn
    box_head.fc{layer}                bbox_head.shared_fcs.{layer-1}
    box_head.cls_score                bbox_head.fc_cls                             classes
    box_head.bbox_pred                bbox_head.fc_reg                             boxes
    box_heads.{stage}.convs.{layer}   bbox_head.{stage}.shared_convs.{layer}.conv
    box_heads.{stage}.norms.{layer}   bbox_head.{stage}.shared_convs.{layer}.bn
    box_heads.{stage}.fc{layer}       bbox_head.{stage}.shared_fcs.{layer-1}
    box_heads.{stage}.cls_score       bbox_head.{stage}.fc_cls                     classes
    box_heads.{stage}.bbox_pred       bbox_head.{stage}.fc_reg
    mask_head.convs.{layer}           mask_head.convs.{layer}.conv
    mask_head.norms.{layer}           mask_head.convs.{layer}.bn
    mask_head.deconv                  mask_head.upsample
    mask_head.predictor               mask_head.conv_logits                        masks
    mask_heads.{stage}.convs.{layer}  mask_head.{stage}.convs.{layer}.conv
    mask_heads.{stage}.norms.{layer}  mask_head.{stage}.convs.{layer}.bn
    mask_heads.{stage}.deconv         mask_head.{stage}.upsample
    mask_heads.{stage}.predictor      mask_head.{stage}.conv_logits                masks
"""


def respell_mmdetection(name: str) -> str:
    """Group normalisation is called like batch normalisation."""
    return re.sub(r"(?<![a-z])gn(?=\d?\.)", "bn", name)


MMDETECTION = System(
    "mmdetection",
    _MMDETECTION_BODY + rules("", "roi_head.", _MMDETECTION_HEADS, {"classes": SAME, "boxes": SAME, "masks": SAME}),
    ignored=re.compile(r"data_preprocessor\.(mean|std)|ema_\w+"),
    respell=respell_mmdetection,
)

MMDETECTION_1 = System(
    "mmdetection-1",
    _MMDETECTION_BODY
    + rules("", "", _MMDETECTION_HEADS, {**_BACKGROUND_FIRST, "boxes": BACKGROUND_OR_AGNOSTIC_BOX_FIRST}),
    ignored=MMDETECTION.ignored,
    respell=respell_mmdetection,
)


def _respell_caffe2(blob: str) -> str:
    """`res2_0_branch2a_bn_s` as `res2_0_branch2a_norm.weight`, without the block's number in names of the pyramid."""
    match = re.fullmatch(r"(?P<layer>.+?)_(?:[bg]n_(?P<norm>s|b|rm|riv)|(?P<kind>[wb]))", blob)
    if match is None:
        return blob
    layer = re.sub(
        r"^fpn_(?P<inner>inner_)?res(?P<stage>\d)_\d+_sum(_lateral)?", r"fpn_\g<inner>\g<stage>", match["layer"]
    )
    if match["norm"]:
        return f"{layer}_norm.{_CAFFE2_NORM[match['norm']]}"
    return f"{layer}.{'weight' if match['kind'] == 'w' else 'bias'}"


_CAFFE2_NORM = {"s": "weight", "b": "bias", "rm": "running_mean", "riv": "running_var"}

CAFFE2 = System(
    "caffe2",
    rules(
        "backbone.body.",
        "",
        """
        conv1                              conv1
        bn1                                res_conv1_norm
        bn1                                conv1_norm
        layer{stage}.{block}.conv1         res{stage+1}_{block}_branch2a
        layer{stage}.{block}.conv2         res{stage+1}_{block}_branch2b
        layer{stage}.{block}.conv3         res{stage+1}_{block}_branch2c
        layer{stage}.{block}.bn1           res{stage+1}_{block}_branch2a_norm
        layer{stage}.{block}.bn2           res{stage+1}_{block}_branch2b_norm
        layer{stage}.{block}.bn3           res{stage+1}_{block}_branch2c_norm
        layer{stage}.{block}.downsample.0  res{stage+1}_{block}_branch1
        layer{stage}.{block}.downsample.1  res{stage+1}_{block}_branch1_norm
        """,
    )
    + rules(
        "",
        "",
        """
        backbone.fpn.lateral.{level}       fpn_inner_{level+2}
        backbone.fpn.output.{level}        fpn_{level+2}
        backbone.fpn.lateral_norm.{level}  fpn_inner_{level+2}_norm
        backbone.fpn.output_norm.{level}   fpn_{level+2}_norm
        rpn.conv                           conv_rpn_fpn2
        rpn.objectness                     rpn_cls_logits_fpn2
        rpn.deltas                         rpn_bbox_pred_fpn2
        box_head.convs.{layer}             head_conv{layer+1}
        box_head.norms.{layer}             head_conv{layer+1}_norm
        box_head.fc{layer}                 fc{layer+5}
        box_head.cls_score                 cls_score              classes
        box_head.bbox_pred                 bbox_pred              boxes
        mask_head.convs.{layer}            _[mask]_fcn{layer+1}
        mask_head.norms.{layer}            _[mask]_fcn{layer+1}_norm
        mask_head.deconv                   conv5_mask
        mask_head.predictor                mask_fcn_logits        masks
        """,
        _BACKGROUND_FIRST,
    ),
    # MSRA's networks have a bias in conv1, which no detector uses; the classifier of ImageNet.
    ignored=re.compile(r"conv1\.bias|(fc1000|pred)\.(weight|bias)|lr|weight_order"),
    respell=_respell_caffe2,
    written=False,
)

YOLACT = System(
    "yolact",
    rules("backbone.body.", "backbone.", "conv1 \n bn1")
    + rules(
        "backbone.body.",
        "backbone.",
        """
        layer{stage}.{block}.conv{conv}.offset_mask  layers.{stage-1}.{block}.conv{conv}.conv_offset_mask
        layer{stage}.{block}.conv{conv}              layers.{stage-1}.{block}.conv{conv}
        layer{stage}.{block}.bn{conv}                layers.{stage-1}.{block}.bn{conv}
        layer{stage}.{block}.downsample.{part}       layers.{stage-1}.{block}.downsample.{part}
        stem.conv                                    _preconv.0
        stem.bn                                      _preconv.1
        layers.{stage}.{block}.conv                  layers.{stage}.{block}.0
        layers.{stage}.{block}.bn                    layers.{stage}.{block}.1
        layers.{stage}.{block}.reduce.conv           layers.{stage}.{block}.conv1.0
        layers.{stage}.{block}.reduce.bn             layers.{stage}.{block}.conv1.1
        layers.{stage}.{block}.expand.conv           layers.{stage}.{block}.conv2.0
        layers.{stage}.{block}.expand.bn             layers.{stage}.{block}.conv2.1
        """,
    )
    + rules(
        "",
        "",
        """
        backbone.fpn.lateral.0          fpn.lat_layers.2
        backbone.fpn.lateral.1          fpn.lat_layers.1
        backbone.fpn.lateral.2          fpn.lat_layers.0
        backbone.fpn.output.0           fpn.pred_layers.2
        backbone.fpn.output.1           fpn.pred_layers.1
        backbone.fpn.output.2           fpn.pred_layers.0
        backbone.fpn.strided.{level}    fpn.downsample_layers.{level}
        head.feature                    prediction_layers.0.upfeature.0
        head.boxes                      prediction_layers.0.bbox_layer
        head.classes                    prediction_layers.0.conf_layer
        head.coefficients               prediction_layers.0.mask_layer
        protonet.convs.0                proto_net.0
        protonet.convs.1                proto_net.2
        protonet.convs.2                proto_net.4
        protonet.convs.3                proto_net.8
        protonet.predictor              proto_net.10
        semantic                        semantic_seg_conv
        mask_iou.convs.0                maskiou_net.maskiou_net.0
        mask_iou.convs.1                maskiou_net.maskiou_net.2
        mask_iou.convs.2                maskiou_net.maskiou_net.4
        mask_iou.convs.3                maskiou_net.maskiou_net.6
        mask_iou.convs.4                maskiou_net.maskiou_net.8
        mask_iou.predictor              maskiou_net.maskiou_net.10
        """,
    ),
    # Leftovers in its version 1.0, which its own loader drops.
    ignored=re.compile(r"backbone\.layer\d.*|fpn\.downsample_layers\.[2-9]\..*"),
)
