#!/usr/bin/env bash
# Builds in place for this machine's GPU and runs every test of tests/gpu, then the operations under compute-sanitizer where
# that is installed: all within ten minutes, with nothing but pytest and NumPy. The parts' results stand at the end.
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
    results+=("$(printf '%-10s %4d s  %s' "$name" $((SECONDS - begun)) "$([ $status = 0 ] && echo passed || echo "FAILED ($status)")")")
    [ $status = 0 ] || failed=1
    return $status
}

pytest() { "$python" -m pytest -q -p no:cacheprovider "$@"; }
sanitize() {                   # sanitize TOOL TESTS...
    local tool=$1
    shift
    compute-sanitizer --tool "$tool" --target-processes all --error-exitcode 99 --print-limit 20 "$python" -m pytest -q -x -p no:cacheprovider "$@"
}
export -f pytest sanitize
export python

part build 150 env GRPO_CUDA=1 "$python" setup.py -q build_ext --inplace || { printf '%s\n' "${results[@]}"; exit 1; }
part doctor 20 "$python" -m grpo doctor
part tests 240 bash -c 'pytest tests/gpu --durations=15 "$@"' - "$@"
if command -v compute-sanitizer >/dev/null; then
    small=(tests/gpu/test_gpu_memory.py tests/gpu/test_gpu_rows.py tests/gpu/test_gpu_gemm.py tests/gpu/test_gpu_head.py tests/gpu/test_gpu_sample.py)
    for file in tests/gpu/test_gpu_attention.py; do if [ -e $file ]; then small+=($file); fi; done
    part memcheck 90 bash -c 'sanitize memcheck "$@"' - "${small[@]}"
    part racecheck 90 bash -c 'sanitize racecheck "$@"' - "${small[@]}"
else
    results+=("compute-sanitizer is not installed: memory and races were not checked")
fi
printf '%s\n' "${results[@]}"
exit $failed
