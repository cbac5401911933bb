#!/usr/bin/env bash
# The whole training on 8 devices, evaluated: bash ./test/train_full_8p.sh --data_path=COCO
exec bash "$(dirname "${BASH_SOURCE[0]}")/../../common/zoo.sh" retinanet full 8 retinanet_r50_fpn_1x "$@"
