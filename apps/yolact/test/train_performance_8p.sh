#!/usr/bin/env bash
# 500 steps on 8 devices, for the speed: bash ./test/train_performance_8p.sh COCO
exec bash "$(dirname "${BASH_SOURCE[0]}")/../../common/zoo.sh" yolact performance 8 yolact_base "$@"
