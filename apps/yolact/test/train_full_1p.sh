#!/usr/bin/env bash
# The whole training on 1 device(s), evaluated: train_full_1p.sh --data_path=COCO
ZOO_ARGUMENTS=("$@")
source "$(dirname "${BASH_SOURCE[0]}")/../../common/zoo.sh"
zoo train 1 acc yolact_base
