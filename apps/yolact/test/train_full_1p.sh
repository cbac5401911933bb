#!/usr/bin/env bash
# The whole training on 1 device, evaluated: bash ./test/train_full_1p.sh COCO
exec bash "$(dirname "${BASH_SOURCE[0]}")/../../common/zoo.sh" yolact full 1 yolact_base "$@"
