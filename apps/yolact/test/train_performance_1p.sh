#!/usr/bin/env bash
# 500 steps on 1 device(s), for the speed: train_performance_1p.sh --data_path=COCO
ZOO_ARGUMENTS=("$@")
source "$(dirname "${BASH_SOURCE[0]}")/../../common/zoo.sh"
zoo train 1 perf yolact_base --solver.steps 500 --train.checkpoint-interval 0
