#!/usr/bin/env bash
# 500 steps on 1 device, for the speed: bash ./test/train_performance_1p.sh COCO
exec bash "$(dirname "${BASH_SOURCE[0]}")/../../common/zoo.sh" yolact performance 1 yolact_base "$@"
