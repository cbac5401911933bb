#!/usr/bin/env bash
# The whole training on 1 device, evaluated: bash ./test/train_full_1p.sh --data_path=COCO
exec bash "$(dirname "${BASH_SOURCE[0]}")/../../common/zoo.sh" cascade_rcnn full 1 cascade_mask_rcnn_r50_fpn_1x "$@"
