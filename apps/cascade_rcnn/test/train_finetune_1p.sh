#!/usr/bin/env bash
# From a checkpoint, on other data or classes: train_finetune_1p.sh --data_path=DIR --pth_path=FILE
ZOO_ARGUMENTS=("$@")
source "$(dirname "${BASH_SOURCE[0]}")/../../common/zoo.sh"
zoo train 1 finetune cascade_mask_rcnn_r50_fpn_1x --drop-class-head True
