#!/bin/sh
# What a container runs: `mask_rcnn train --data DIR`, as `hatch run apps/mask_rcnn train --data DIR` does outside.
[ -f /usr/local/Ascend/ascend-toolkit/set_env.sh ] && . /usr/local/Ascend/ascend-toolkit/set_env.sh
app=${1:-mask_rcnn}
[ $# -eq 0 ] || shift
exec python -m "apps.$app" "$@"
