#!/usr/bin/env bash
# Builds in place for this machine's GPU and runs every test of tests/gpu, then the operations under compute-sanitizer
# where that is installed: all within ten minutes, with nothing but pytest and NumPy. The parts' results stand at the
# end.
#     tests/gpu/run.sh [pytest's arguments]
set -u
cd "$(dirname "$0")/../.."
export GRPO_TEST_GPU=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
python=${PYTHON:-python3}
results=() failed=0

part() {                       # part NAME SECONDS COMMAND...
    local name=$1 limit=$2 begun=$SECONDS status
    shift 2
    echo "== $name"
    timeout "$limit" "$@"
    status=$?
    local outcome=passed
    [ $status = 0 ] || outcome="FAILED ($status)"
    results+=("$(printf '%-10s %4d s  %s' "$name" $((SECONDS - begun)) "$outcome")")
    [ $status = 0 ] || failed=1
    return $status
}

pytest() { "$python" -m pytest -q -p no:cacheprovider "$@"; }
sanitize() {                   # sanitize TOOL SECONDS TESTS...: as far as the time goes
    local tool=$1 limit=$2 status
    shift 2
    timeout "$limit" compute-sanitizer --tool "$tool" --target-processes all --error-exitcode 99 --print-limit 20 \
        "$python" -m pytest -q -x -p no:cacheprovider "$@"
    status=$?
    [ $status = 124 ] || return $status
    echo "$tool: not all tests were run in $limit s; what it found in the others stands above"
}
export -f pytest sanitize
export python

part build 150 env GRPO_CUDA=1 "$python" setup.py -q build_ext --inplace || { printf '%s\n' "${results[@]}"; exit 1; }
part doctor 60 "$python" -m grpo doctor
part tests 240 bash -c 'pytest tests/gpu --durations=15 "$@"' - "$@"
if command -v compute-sanitizer >/dev/null; then
    small=()
    for name in memory rows attention head sample gemm; do small+=("tests/gpu/test_gpu_$name.py"); done
    part memcheck 90 bash -c 'sanitize memcheck 80 "$@"' - "${small[@]}"
    part racecheck 90 bash -c 'sanitize racecheck 80 "$@"' - "${small[@]}"
else
    results+=("compute-sanitizer is not installed: memory and races were not checked")
fi
printf '%s\n' "${results[@]}"
exit $failed
