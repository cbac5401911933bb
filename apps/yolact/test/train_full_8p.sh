#!/usr/bin/env bash
# The whole training on 8 devices, evaluated: bash ./test/train_full_8p.sh COCO
exec bash "$(dirname "${BASH_SOURCE[0]}")/../../common/zoo.sh" yolact full 8 yolact_base "$@"
