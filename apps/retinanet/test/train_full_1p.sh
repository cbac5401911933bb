#!/usr/bin/env bash
# The whole training on 1 device, evaluated: bash ./test/train_full_1p.sh --data_path=COCO
exec bash "$(dirname "${BASH_SOURCE[0]}")/../../common/zoo.sh" retinanet full 1 retinanet_r50_fpn_1x "$@"
