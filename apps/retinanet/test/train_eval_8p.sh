#!/usr/bin/env bash
# Evaluation of a checkpoint on 8 devices: bash ./test/train_eval_8p.sh --data_path=COCO --pth_path=FILE
exec bash "$(dirname "${BASH_SOURCE[0]}")/../../common/zoo.sh" retinanet eval 8 retinanet_r50_fpn_1x "$@"
