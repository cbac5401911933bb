#!/usr/bin/env bash
# What the scripts under apps/<app>/test share: the arguments, files and closing lines of Ascend's model zoo.
#
#   zoo.sh APP full|performance|eval|finetune PROCESSES RECIPE [ARGUMENTS...]
#
# The arguments are those of the zoo's ports, with `=` or a space before the value:
#
#   DIR (the first one), --data_path, --data    COCO's folder, or the one above it; else $DETECTRON2_DATASETS
#   --pth_path                                  weights
#   --batch_size --momentum --seed --weight_decay --save_folder --node_device      of YOLACT's
#   AMP 1, OPT_LEVEL O2, LOSS_SCALE_VALUE 64    of detectron2's: mixed precision
#   --recipe, --nproc                           ours: another recipe, another number of processes
#
# Every other one is passed on to the command, such as --device cpu or --solver.steps 10.

app=$1 kind=$2 processes=$3 recipe=$4
shift 4
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
id=${ASCEND_DEVICE_ID:-0}
output=${ZOO_OUTPUT:-$root/apps/$app/test/output}/$id
command=train data=${DETECTRON2_DATASETS:-} batch_size='' batch=--data.batch
case $kind in
    full) short=acc options=() ;;
    performance) short=perf options=(--solver.steps 500 --train.checkpoint-interval 0) ;;
    finetune) short=finetune options=(--drop-class-head True) ;;
    eval) short=eval options=() command=eval batch=--batch ;;
esac
run=$output/$short-$(date +%Y%m%d-%H%M%S)

case ${1:-} in
    '' | -* | AMP | OPT_LEVEL | LOSS_SCALE_VALUE) ;;
    *) data=$1 && shift ;;
esac
while [ $# -gt 0 ]; do
    name=${1%%=*}
    case $name in
        --data_path | --data | --pth_path | --recipe | --nproc | AMP | OPT_LEVEL | LOSS_SCALE_VALUE) ;;
        --batch_size | --momentum | --seed | --weight_decay | --save_folder | --node_device) ;;
        *) options+=("$1") && shift && continue ;;
    esac
    if [[ $1 == *=* ]]; then
        value=${1#*=}
    elif [ $# -gt 1 ]; then
        value=$2 && shift
    else
        echo "[Error] $name needs a value" >&2
        exit 2
    fi
    shift
    case $name in
        --data_path | --data) data=$value ;;
        --pth_path) options+=(--weights "$value") ;;
        --recipe) recipe=$value ;;
        --nproc) processes=$value ;;
        --batch_size) batch_size=$value && options+=("$batch" "$value") ;;
        --momentum) options+=(--solver.momentum "$value") ;;
        --seed) options+=(--train.seed "$value") ;;
        --weight_decay) options+=(--solver.weight-decay "$value") ;;
        --save_folder) run=$value ;;
        --node_device) options+=(--device "${value/gpu/cuda}") ;;
        AMP) [ "$value" = 0 ] || options+=(--train.precision O1) ;;
        OPT_LEVEL) options+=(--train.precision "$value") ;;
        LOSS_SCALE_VALUE) options+=(--train.loss-scale "$value") ;;
    esac
done
if [ -z "$data" ]; then
    echo '[Error] para "data_path" must be config: give --data_path=DIR, or set DETECTRON2_DATASETS' >&2
    exit 2
fi
# detectron2's ports take the folder above.
[ -d "$data/annotations" ] || [ ! -d "$data/coco" ] || data=$data/coco
[ "$command" = eval ] || options+=(--recipe "$recipe")

has_packages() {
    "$1" -c 'import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, ("torch", "det_engine", "tyro"))))' 2> /dev/null
}
for python in "${PYTHON:-}" python python3 "$root/.hatch/default/bin/python" ''; do
    [ -z "$python" ] || ! has_packages "$python" || break
done
if [ -z "$python" ]; then
    echo "[Error] no Python here has the project's packages: run \"pip install hatch\" and \"hatch env create\" in $root," \
        "or set PYTHON to one that has them" >&2
    exit 2
fi

mkdir -p "$output"
log=$output/train_$id.log
PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} "$python" -m "apps.$app" "$command" --data "$data" \
    --nproc "$processes" --output "$run" "${options[@]}" 2>&1 | tee "$log"
status=${PIPESTATUS[0]}
[ "$status" = 0 ] || exit "$status"

# What the zoo's tools read: the closing lines of the log, and two files named after the case.
field() { awk -F ' : ' -v name="$1" '$1 == name {value = $2} END {print value}' "$log"; }
fps=$(field 'Final Performance images/sec')
batch_size=${batch_size:-$(awk '/^Batch [0-9]+ /{print $2; exit}' "$log")}
batch_size=${batch_size:-1}
case_name=${app}_bs${batch_size}_${processes}p_$short
grep -o '^step [0-9]*/[0-9]*  loss [0-9.e+-]*' "$log" | awk '{print $4}' > "$output/train_${case_name}_loss.txt"
{
    echo "Network = $app"
    echo "RankSize = $processes"
    echo "BatchSize = $batch_size"
    echo "DeviceType = $(uname -m)"
    echo "CaseName = $case_name"
    echo "ActualFPS = $fps"
    echo "TrainingTime = $(awk -v batch="$batch_size" -v fps="${fps:-0}" 'BEGIN {if (fps > 0) printf "%.2f", batch * 1000 / fps}')"
    echo "TrainAccuracy = $(field 'Final Train Accuracy')"
    echo "ActualLoss = $(tail -n 1 "$output/train_${case_name}_loss.txt")"
    echo "E2ETrainingTime = $SECONDS"
} > "$output/$case_name.log"
