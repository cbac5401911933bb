"""Deterministic weights for parity vectors: fill(name, shape) -> numpy array.

Every tensor of a reference model's state_dict (torchvision, detectron2, yolact,
mmdetection or maskrcnn-benchmark naming) is a pure function of its name and shape:

  seed  = zlib.crc32(name.encode("utf-8"))                       (0 .. 2**32-1)
  u     = numpy.random.RandomState(seed).random_sample(shape)    (float64, C order, [0,1))

RandomState is numpy's frozen legacy generator (MT19937), so u is bit-exact everywhere.

  * name ends ".num_batches_tracked"   -> zeros, int64
  * 1-D ".running_mean"                -> 0.2*u - 0.1
  * 1-D ".running_var"                 -> 0.8 + 0.4*u
  * 1-D ".weight" (norm scale)         -> gain * (0.8 + 0.4*u)     gain from NORM_GAIN, else 1
  * 1-D ".bias"                        -> 0.2*u - 0.1, times BIAS_GAIN, plus BACKGROUND on the
                                          background logit(s) of the classifier
  * 2-D/4-D weights                    -> w = (2u-1)*sqrt(3)  (unit variance), then ZERO-SUM:
        - transposed convs (TRANSPOSED):  w -= w.mean(axis=0, keepdims=True);  fan_in = shape[0]
        - shape[1] == 1:                  no centring;                          fan_in = prod(shape[1:])
        - shape[1] == 3 (image conv):     w -= w.mean(axis=(1,2,3));            fan_in = prod(shape[1:])
        - else:                           w -= w.mean(axis=1, keepdims=True);   fan_in = prod(shape[1:])
      w *= gain / sqrt(fan_in), gain = the first matching rule of GAIN (else RELU_GAIN).
  All arithmetic is float64, the result is cast to float32 once at the end.

Zero-sum filters remove the common positive offset of post-ReLU features, so that a
random 50..101 layer net still gives location-dependent features (He-normal weights alone
collapse: all locations get nearly the same logits).  1/0.341 is the centred variance of
relu(N(0,1)), hence RELU_GAIN = 1.7125 keeps unit variance from relu to relu.
"""

import re
import zlib

import numpy as np

RELU_GAIN = 1.7125

# first match wins; re.search on the full name
GAIN = [
    # ---- stems. detectron2 / maskrcnn-benchmark feed unnormalised (std 1) pixels ----
    (r"(bottom_up|body)\.stem\.conv1\.weight$", 2.0 / 57.0),
    (r"backbone\.(body\.)?conv1\.weight$|_preconv\.0\.weight$", 2.0),
    # ---- FPN ----
    (r"(fpn\.inner_blocks\.\d+\.0|fpn_lateral\d|fpn\.fpn_inner\d)\.weight$", 0.6),
    (r"(neck\.lateral_convs\.\d+\.conv|fpn\.lat_layers\.\d)\.weight$", 0.6),
    (r"(fpn\.layer_blocks\.\d+\.0|fpn_output\d|fpn\.fpn_layer\d|neck\.fpn_convs\.\d+\.conv)\.weight$", 0.7),
    (r"fpn\.pred_layers\.\d\.weight$", 0.7),
    (r"fpn\.downsample_layers\.\d\.weight$", 1.7125),
    # ---- RPN ----
    (r"(rpn\.head\.conv\.0\.0|rpn\.head\.conv|rpn_head\.conv|rpn_head\.rpn_conv)\.weight$", 1.0),
    (r"(rpn\.head\.cls_logits|objectness_logits|rpn_head\.rpn_cls)\.weight$", 2.2),
    (r"(rpn\.head\.bbox_pred|anchor_deltas|rpn_head\.rpn_reg)\.weight$", 0.5),
    # ---- box heads ----
    (r"(box_head\.fc6|box_head\.(\d\.)?fc1|box\.feature_extractor\.fc6|shared_fcs\.0)\.weight$", 1.2),
    (r"(cls_score|fc_cls)\.weight$", 3.0),
    (r"(box_predictor\.(\d\.)?bbox_pred|box\.predictor\.bbox_pred|fc_reg)\.weight$", 1.2),
    # ---- mask heads ----
    (r"(mask_fcn_logits|mask_head\.predictor|conv_logits)\.weight$", 2.5),
    # ---- keypoint head ----
    (r"kps_score_lowres\.weight$", 2.5),
    # ---- YOLACT ----
    (r"upfeature\.0\.weight$", 1.2),
    (r"conf_layer\.weight$", 4.5),
    (r"bbox_layer\.weight$", 1.2),
    (r"mask_layer\.weight$", 1.7),
    (r"semantic_seg_conv\.weight$", 3.0),
    (r"conv_offset_mask\.weight$", 1.0),
]
TRANSPOSED = r"(conv5_mask|kps_score_lowres|mask_head\.deconv|mask_head\.\d\.upsample|mask_head\.upsample)\.weight$"
# last norm of a residual branch: keeps the residual stream from growing
NORM_GAIN = [
    (r"(\.bn3|\.conv3\.norm)\.weight$", 0.2),
    (r"backbone\.layers\.\d+\.\d+\.conv2\.1\.weight$", 0.2),
]  # darknet block
BIAS_GAIN = [(r"(objectness_logits|cls_logits|rpn_cls)\.bias$", 1.0)]
BACKGROUND = 4.0  # added to the background logit's bias
YOLACT_CLASSES = 81  # conf_layer: priors * 81 logits, background first in each group


def _rule(table, name, default):
    for pat, val in table:
        if re.search(pat, name):
            return val
    return default


def fill(name, shape):
    shape = tuple(int(s) for s in shape)
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    u = np.random.RandomState(zlib.crc32(name.encode("utf-8"))).random_sample(shape)
    if len(shape) == 1:
        if name.endswith(".running_mean"):
            w = 0.2 * u - 0.1
        elif name.endswith(".running_var"):
            w = 0.8 + 0.4 * u
        elif name.endswith(".weight"):
            w = _rule(NORM_GAIN, name, 1.0) * (0.8 + 0.4 * u)
        elif name.endswith(".bias"):
            w = (0.2 * u - 0.1) * _rule(BIAS_GAIN, name, 1.0)
            if re.search(r"(cls_score|fc_cls)\.bias$", name):
                # torchvision (91, or 2 with keypoints) and maskrcnn-benchmark ("box.predictor"): background is
                # class 0; detectron2 / mmdet: background is the last class
                first = shape[0] in (2, 91) or "box.predictor" in name
                w[0 if first else -1] += BACKGROUND
            elif name.endswith("conf_layer.bias"):
                w[::YOLACT_CLASSES] += BACKGROUND
        else:
            raise ValueError("no rule for 1-D tensor " + name)
        return w.astype(np.float32)
    if not name.endswith(".weight"):
        raise ValueError("no rule for " + name)
    w = (2.0 * u - 1.0) * np.sqrt(3.0)
    if re.search(TRANSPOSED, name):
        w = w - w.mean(axis=0, keepdims=True)
        fan_in = shape[0]
    else:
        fan_in = int(np.prod(shape[1:]))
        if shape[1] == 3:
            w = w - w.mean(axis=tuple(range(1, len(shape))), keepdims=True)
        elif shape[1] != 1:
            w = w - w.mean(axis=1, keepdims=True)
    return (w * (_rule(GAIN, name, RELU_GAIN) / np.sqrt(fan_in))).astype(np.float32)


def fill_module(module):
    """Fill a torch module's state_dict in place (convenience; needs torch)."""
    import torch

    sd = module.state_dict()
    with torch.no_grad():
        for k, v in sd.items():
            v.copy_(torch.from_numpy(fill(k, v.shape)))
    module.load_state_dict(sd)
    return module
