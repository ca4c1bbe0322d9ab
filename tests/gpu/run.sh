#!/usr/bin/env bash
# Everything that needs a GPU, within five minutes, with a table at the end.
#
#   tests/gpu/run.sh [FEATURES.onnx]    a network of your own to measure (default: the demo's); PYTHON=… picks the interpreter
#
# Needs: the repository's dev extra; for their rows parrotgate[tensorrt] (pycuda, TensorRT) and parrotgate[cuda].
# PYTHONPATH=tests/gpu/rtx takes TensorRT for RTX in TensorRT's place.
# Ends with 0 when nothing failed; what the machine lacks is skipped and named.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
PYTHON=${PYTHON:-$( [ -x .venv/bin/python ] && echo .venv/bin/python || echo python3 )}
MODEL=${1:-edge/demo/models/features.onnx}
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
failed=0
table=()

# step NAME SECONDS COMMAND…: run it under a limit, show its output, and note how it ended and its last line.
step() {
  local name=$1 limit=$2 began=$SECONDS code outcome log
  shift 2
  log=$WORK/${name// /-}.log
  echo "== $name"
  timeout --kill-after=5 "$limit" "$@" 2>&1 | tee "$log"
  code=${PIPESTATUS[0]}
  case $code in
    0) outcome=ok; grep -q 'skipped' "$log" && ! grep -q 'passed' "$log" && outcome=skipped ;;
    5) outcome=skipped ;;                  # pytest: nothing to run
    124|137) outcome="over ${limit} s"; failed=1 ;;
    *) outcome="failed ($code)"; failed=1 ;;
  esac
  table+=("$(printf '%-34s %-12s %5s s   %s' "$name" "$outcome" $((SECONDS - began)) "$(grep '[[:alnum:]]' "$log" | tail -n 1 | cut -c1-100)")")
}

pytest() { "$PYTHON" -m pytest -q -m gpu -p no:cacheprovider -rs "$@"; }
export -f pytest
export PYTHON PARROTGATE_REQUIRE_GPU=1    # tests run, and fail, where no GPU is seen

step 'GPU and driver' 10 bash -c '
  if command -v nvidia-smi >/dev/null; then
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
  elif [ -r /proc/device-tree/model ]; then tr -d "\0" </proc/device-tree/model; echo; head -n 1 /etc/nv_tegra_release 2>/dev/null
  else echo "no NVIDIA GPU found"; exit 1; fi'
step 'versions' 15 "$PYTHON" -c '
import importlib, platform
said = ["Python", platform.python_version(), platform.machine()]
for name in ("pycuda", "tensorrt", "onnxruntime", "cuda.bindings"):
    try:
        module = importlib.import_module(name)
        said += [name, getattr(module, "__version__", "") or getattr(module, "VERSION_TEXT", "")]
    except ImportError:
        said += [name, "missing"]
print(*said)'
step 'pycuda code' 60 bash -c 'pytest tests/gpu/test_cuda.py'
if "$PYTHON" -c 'import pycuda.driver' 2>/dev/null; then
  step 'copies beside computing' 20 "$PYTHON" -m tests.gpu.overlap
fi
step 'ONNX Runtime on CUDA' 60 bash -c 'pytest tests/gpu/test_backends.py -k onnx_runtime'
step 'the worker on CUDA' 60 bash -c 'pytest tests/gpu/test_worker.py'
step 'TensorRT' 90 bash -c 'pytest tests/gpu/test_backends.py -k "not onnx_runtime"'
if "$PYTHON" -c 'import tensorrt, pycuda.driver' 2>/dev/null; then
  step 'engines build' 40 "$PYTHON" -m engines build "$MODEL" --precision fp16 --batch 1,32,128 --out "$WORK/measured.plan" --cache "$WORK/cache"
  [ -e "$WORK/measured.plan" ] && step 'figures' 40 "$PYTHON" -m tests.gpu.figures "$WORK/measured.plan" 1
fi
if "$PYTHON" -c 'import onnxruntime as o, sys; sys.exit("CUDAExecutionProvider" not in o.get_available_providers())' 2>/dev/null; then
  step 'ONNX Runtime, CUDA against CPU' 20 "$PYTHON" -m tests.gpu.against_cpu "$MODEL"
  step 'figures, ONNX Runtime on CUDA' 25 "$PYTHON" -m engines bench "$MODEL" --device cuda --batch 1,8,32,128 --seconds 2
  step 'figures, ONNX Runtime on the CPU' 25 "$PYTHON" -m engines bench "$MODEL" --device cpu --batch 1,8,32 --seconds 2
fi

echo
printf '%s\n' "${table[@]}"
echo "together ${SECONDS} s"
exit "$failed"
