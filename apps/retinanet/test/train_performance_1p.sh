#!/usr/bin/env bash
# 500 steps on 1 device, for the speed: bash ./test/train_performance_1p.sh --data_path=COCO
exec bash "$(dirname "${BASH_SOURCE[0]}")/../../common/zoo.sh" retinanet performance 1 retinanet_r50_fpn_1x "$@"
