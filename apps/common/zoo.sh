# What the scripts under apps/<app>/test share: the options, files and closing lines of Ascend's model zoo.
#
#   zoo COMMAND PROCESSES KIND RECIPE [OPTIONS...]      KIND: acc, perf, eval, ..
#
# A script's own arguments: --data_path=DIR (required), --pth_path=FILE, --batch_size=N, --recipe=NAME, --nproc=N; every
# other one is passed on to the command, such as --device cpu or --solver.steps 10.

zoo() {
    local command=$1 processes=$2 kind=$3 recipe=$4
    shift 4
    local options=("$@") data_path= pth_path= batch_size= argument
    for argument in "${ZOO_ARGUMENTS[@]}"; do
        case $argument in
            --data_path=*) data_path=${argument#*=} ;;
            --pth_path=*) pth_path=${argument#*=} ;;
            --batch_size=*) batch_size=${argument#*=} ;;
            --recipe=*) recipe=${argument#*=} ;;
            --nproc=*) processes=${argument#*=} ;;
            *) options+=("$argument") ;;
        esac
    done
    if [ -z "$data_path" ]; then
        echo "[Error] para \"data_path\" must be config" >&2
        return 2
    fi
    [ -z "$pth_path" ] || options+=(--weights "$pth_path")
    [ "$command" = eval ] || options+=(--recipe "$recipe")
    if [ -n "$batch_size" ]; then
        [ "$command" = eval ] && options+=(--batch "$batch_size") || options+=(--data.batch "$batch_size")
    fi

    local test_dir app root id=${ASCEND_DEVICE_ID:-0} started=$SECONDS status=0
    test_dir=$(cd "$(dirname "${BASH_SOURCE[1]}")" && pwd)
    app=$(basename "$(dirname "$test_dir")")
    root=$(cd "$test_dir/../../.." && pwd)
    local output=${ZOO_OUTPUT:-$test_dir/output}/$id
    mkdir -p "$output"
    local log=$output/train_$id.log run=$output/$kind-$(date +%Y%m%d-%H%M%S)
    PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} ${PYTHON:-python} -m "apps.$app" "$command" --data "$data_path" \
        --nproc "$processes" --output "$run" "${options[@]}" 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    [ "$status" = 0 ] || return "$status"

    # What the zoo's tools read: the closing lines of the log, and two files named after the case.
    local fps accuracy loss seconds=$((SECONDS - started)) batch case_name
    fps=$(_zoo_field 'Final Performance images/sec' "$log")
    accuracy=$(_zoo_field 'Final Train Accuracy' "$log")
    batch=${batch_size:-$(awk '/^Batch [0-9]+ /{print $2; exit}' "$log")}
    case_name=${app}_bs${batch:-1}_${processes}p_$kind
    grep -o '^step [0-9]*/[0-9]*  loss [0-9.e+-]*' "$log" | awk '{print $4}' > "$output/train_${case_name}_loss.txt"
    loss=$(tail -n 1 "$output/train_${case_name}_loss.txt")
    printf '%s\n' "Network = $app" "RankSize = $processes" "BatchSize = ${batch:-1}" "DeviceType = $(uname -m)" \
        "CaseName = $case_name" "ActualFPS = $fps" "TrainingTime = $(_zoo_ms "$batch" "$fps")" \
        "TrainAccuracy = $accuracy" "ActualLoss = $loss" "E2ETrainingTime = $seconds" > "$output/$case_name.log"
}

_zoo_field() { awk -F ' : ' -v name="$1" '$1 == name {value = $2} END {print value}' "$2"; }

# Milliseconds a step.
_zoo_ms() { awk -v batch="${1:-1}" -v fps="${2:-0}" 'BEGIN {if (fps > 0) printf "%.2f", batch * 1000 / fps}'; }
