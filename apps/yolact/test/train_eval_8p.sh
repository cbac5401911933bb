#!/usr/bin/env bash
# Evaluation of a checkpoint on 8 devices: train_eval_8p.sh --data_path=COCO --pth_path=FILE
ZOO_ARGUMENTS=("$@")
source "$(dirname "${BASH_SOURCE[0]}")/../../common/zoo.sh"
zoo eval 8 eval yolact_base
