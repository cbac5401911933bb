#!/usr/bin/env bash
# From a checkpoint, on other data or classes, on 1 device: bash ./test/train_finetune_1p.sh --data_path=COCO --pth_path=FILE
exec bash "$(dirname "${BASH_SOURCE[0]}")/../../common/zoo.sh" retinanet finetune 1 retinanet_r50_fpn_1x "$@"
