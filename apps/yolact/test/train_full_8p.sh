#!/usr/bin/env bash
# The whole training on 8 device(s), evaluated: train_full_8p.sh --data_path=COCO
ZOO_ARGUMENTS=("$@")
source "$(dirname "${BASH_SOURCE[0]}")/../../common/zoo.sh"
zoo train 8 acc yolact_base
