#!/usr/bin/env bash
# 500 steps on 8 device(s), for the speed: train_performance_8p.sh --data_path=COCO
ZOO_ARGUMENTS=("$@")
source "$(dirname "${BASH_SOURCE[0]}")/../../common/zoo.sh"
zoo train 8 perf yolact_base --solver.steps 500 --train.checkpoint-interval 0
