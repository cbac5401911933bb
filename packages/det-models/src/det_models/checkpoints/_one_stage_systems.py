"""What reference systems call the modules of RetinaNet and FCOS; see `_systems`.

In rows of layers, normalisations and activations have numbers too.
"""

import re

from det_models.checkpoints._dense import by_ratio, by_size, with_background, without_background
from det_models.checkpoints._rules import rules
from det_models.checkpoints._systems import (
    DETECTRON2_BODY,
    MMDETECTION,
    MMDETECTION_PYRAMID,
    TORCHVISION_BLOCKS,
    TORCHVISION_BODY,
    System,
    respell_mmdetection,
)

_DETECTRON2_DENSE = """
    backbone.fpn.lateral.{level}       backbone.fpn_lateral{level+3}
    backbone.fpn.output.{level}        backbone.fpn_output{level+3}
    backbone.fpn.lateral_norm.{level}  backbone.fpn_lateral{level+3}.norm
    backbone.fpn.output_norm.{level}   backbone.fpn_output{level+3}.norm
    backbone.fpn.strided.{level}       backbone.top_block.p{level+6}
    head.classes                       head.cls_score
    head.boxes                         head.bbox_pred
"""

DETECTRON2_RETINANET = System(
    "detectron2-retinanet",
    DETECTRON2_BODY
    + rules(
        "",
        "",
        _DETECTRON2_DENSE
        + """
        head.class_convs.{layer}  head.cls_subnet.{2*layer}
        head.box_convs.{layer}    head.bbox_subnet.{2*layer}
        """,
    ),
    ignored=re.compile(r"pixel_(mean|std)|anchor_generator\.cell_anchors\.\d+"),
)

DETECTRON2_FCOS = System(
    "detectron2-fcos",
    DETECTRON2_BODY
    + rules(
        "",
        "",
        _DETECTRON2_DENSE
        + """
        head.class_convs.{layer}  head.cls_subnet.{3*layer}
        head.class_norms.{layer}  head.cls_subnet.{3*layer+1}
        head.box_convs.{layer}    head.bbox_subnet.{3*layer}
        head.box_norms.{layer}    head.bbox_subnet.{3*layer+1}
        head.centerness           head.ctrness
        """,
    ),
    ignored=DETECTRON2_RETINANET.ignored,
)

_TORCHVISION_DENSE = """
    backbone.fpn.lateral.{level}       backbone.fpn.inner_blocks.{level}.0
    backbone.fpn.output.{level}        backbone.fpn.layer_blocks.{level}.0
    backbone.fpn.lateral_norm.{level}  backbone.fpn.inner_blocks.{level}.1
    backbone.fpn.output_norm.{level}   backbone.fpn.layer_blocks.{level}.1
    backbone.fpn.strided.0             backbone.fpn.extra_blocks.p6
    backbone.fpn.strided.1             backbone.fpn.extra_blocks.p7
    head.classes                       head.classification_head.cls_logits
    head.boxes                         head.regression_head.bbox_reg
    backbone.fpn.lateral.{level}       backbone.fpn.inner_blocks.{level}
    backbone.fpn.output.{level}        backbone.fpn.layer_blocks.{level}
"""

TORCHVISION_RETINANET = System(
    "torchvision-retinanet",
    TORCHVISION_BODY
    + rules(
        "",
        "",
        _TORCHVISION_DENSE
        + """
        head.class_convs.{layer}  head.classification_head.conv.{layer}.0
        head.class_norms.{layer}  head.classification_head.conv.{layer}.1
        head.box_convs.{layer}    head.regression_head.conv.{layer}.0
        head.box_norms.{layer}    head.regression_head.conv.{layer}.1

        head.class_convs.{layer}  head.classification_head.conv.{2*layer}
        head.box_convs.{layer}    head.regression_head.conv.{2*layer}
        """,
    ),
    ignored=re.compile(r"anchor_generator\.cell_anchors\.\d+"),
    to_ours=without_background,
    to_theirs=with_background,
)

TORCHVISION_FCOS = System(
    "torchvision-fcos",
    TORCHVISION_BODY
    + rules(
        "",
        "",
        _TORCHVISION_DENSE
        + """
        head.class_convs.{layer}  head.classification_head.conv.{3*layer}
        head.class_norms.{layer}  head.classification_head.conv.{3*layer+1}
        head.box_convs.{layer}    head.regression_head.conv.{3*layer}
        head.box_norms.{layer}    head.regression_head.conv.{3*layer+1}
        head.centerness           head.regression_head.bbox_ctrness
        """,
    ),
    ignored=TORCHVISION_RETINANET.ignored,
    to_ours=without_background,
    to_theirs=with_background,
)

MMDETECTION_RETINANET = System(
    "mmdetection-retinanet",
    rules("backbone.body.", "backbone.", "conv1 \n bn1" + TORCHVISION_BLOCKS)
    + rules(
        "",
        "",
        """
        backbone.fpn.strided.0    neck.fpn_convs.3.conv
        backbone.fpn.strided.1    neck.fpn_convs.4.conv
        """
        + MMDETECTION_PYRAMID
        + """
        head.class_convs.{layer}  bbox_head.cls_convs.{layer}.conv
        head.class_norms.{layer}  bbox_head.cls_convs.{layer}.bn
        head.box_convs.{layer}    bbox_head.reg_convs.{layer}.conv
        head.box_norms.{layer}    bbox_head.reg_convs.{layer}.bn
        head.classes              bbox_head.retina_cls
        head.boxes                bbox_head.retina_reg
        """,
    ),
    ignored=MMDETECTION.ignored,
    respell=respell_mmdetection,
    to_ours=by_size,
    to_theirs=by_ratio,
)
