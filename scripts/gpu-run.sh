#!/bin/bash
# On a machine with a GPU, in the folder that scripts/gpu-bundle.mjs made: the tests of real GPUs, then every row of docs/gpu.md as
# JSON lines in $OUT. Arguments name parts of it: test sanitize table ways verified heads busy mps store. Ten minutes in all.
set -u
cd "$(dirname "$0")" || exit
export OUT="${OUT:-$PWD/out}" GPU_OWNER="$PWD/owner.py" PYTHON="${GPU_PYTHON:-python3}"
mkdir -p "$OUT"
[ -x node ] || { xz -dc node.xz >node && chmod +x node; } || exit

bench() { # the file in $OUT, then what the benchmark's environment has beyond ours
  local out="$OUT/$1.jsonl"
  shift
  env -u GPU_PYTHON "$@" ./node --expose-gc gpu.bench.mjs --json >>"$out" || echo "gpu.bench with $* ended with $?"
}
beside() {
  for way in kernel engines; do
    bench "$1" GPU_PYTHON="$PYTHON" GPU_BUSY=1 GPU_TOKENS=2048 MOONCAKE_GPU_WAY=$way
  done
  bench "$1" GPU_PYTHON="$PYTHON" GPU_BUSY=1 GPU_TOKENS=2048
}
run() {
  case $1 in
    test) GPU_PYTHON="$PYTHON" ./node gpu.test.mjs ;;
    sanitize)
      for tool in memcheck racecheck; do
        GPU_PYTHON="$PYTHON" compute-sanitizer --tool $tool --error-exitcode 9 ./node gpu.test.mjs
      done
      ;;
    table) bench table GPU_PYTHON="$PYTHON" ;;
    ways) for way in kernel engines; do bench ways MOONCAKE_GPU_WAY=$way GPU_TOKENS=128,2048,16384; done ;;
    verified) bench verified GPU_VERIFY=full ;;
    heads) bench heads GPU_ROWS=1 GPU_TOKENS=128,2048,16384 ;;
    busy) beside busy ;;
    mps)
      export CUDA_MPS_PIPE_DIRECTORY=/tmp/mooncake-mps CUDA_MPS_LOG_DIRECTORY=/tmp/mooncake-mps
      mkdir -p $CUDA_MPS_PIPE_DIRECTORY
      nvidia-cuda-mps-control -d && beside mps
      echo quit | nvidia-cuda-mps-control
      unset CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY
      ;;
    store) ./node --expose-gc gpu-store.bench.mjs --json >"$OUT/store.jsonl" ;;
    *) echo "no part $1" ;;
  esac
}

nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
[ $# -gt 0 ] || set -- test sanitize table ways verified heads busy mps store
for part in "$@"; do
  echo "== $part"
  run "$part"
done
