#!/usr/bin/env bash
# 500 steps on 8 devices, for the speed: bash ./test/train_performance_8p.sh --data_path=COCO
exec bash "$(dirname "${BASH_SOURCE[0]}")/../../common/zoo.sh" retinanet performance 8 retinanet_r50_fpn_1x "$@"
