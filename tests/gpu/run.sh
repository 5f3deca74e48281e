#!/usr/bin/env bash
# What to run where a GPU is at hand: about ten minutes, then it stops by itself. Needs torch, torchvision, numpy, scipy,
# safetensors, matplotlib, tqdm and pytest; transformers and timm for one of the peers. No network, no nbdev.
#
#   python tests/gpu/prepare.py gpu_inputs --data DIR --backbone-weights FILE     first, on a machine that has the data
#   OUT=results bash tests/gpu/run.sh                                             on the GPU machine
#   OUT=results bash tests/gpu/run.sh --rehearse                                  the same steps, tiny, on a CPU
#
# INPUTS names the prepared folder (default: gpu_inputs). Into $OUT go steps.json (which step took how long and how it ended),
# a log per step, tests.xml, syncs.json, benchmark.json (for NANODETR_GPU_BENCHMARK of notebook 17), photos.json and pictures.
# A step that fails does not stop the others; the exit status then is 1.
set -uo pipefail
cd "$(dirname "$0")/../.."
: "${OUT:?where should the results go? as in: OUT=results bash tests/gpu/run.sh}"
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
export OUT PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" MPLBACKEND=agg PYTHONDONTWRITEBYTECODE=1 TOKENIZERS_PARALLELISM=false
inputs=${INPUTS:-gpu_inputs}
status=0 steps=""

step() {  # step NAME SECONDS COMMAND...: at most so long; its output in $OUT/NAME.log
  local name=$1 most=$2 code=0 start=$SECONDS
  shift 2
  timeout -k 10 "$most" "$@" > "$OUT/$name.log" 2>&1 || { code=$?; status=1; }
  echo "$name: exit $code after $((SECONDS - start)) s"
  [ "$code" = 0 ] || tail -n 5 "$OUT/$name.log"
  steps="$steps${steps:+, }{\"step\": \"$name\", \"exit\": $code, \"seconds\": $((SECONDS - start))}"
  echo "[$steps]" > "$OUT/steps.json"
}

if [ "${1:-}" = "--rehearse" ]; then
  export NANODETR_REHEARSE=1 OMP_NUM_THREADS=1
  inputs="$OUT/inputs"
  step prepare 120 python tests/gpu/prepare.py "$inputs" --tiny
  [ -d "$inputs/peers" ] && export NANODETR_PEERS="$inputs/peers"
  step tests 300 python -m pytest tests/gpu -m gpu -q -p no:cacheprovider --junitxml "$OUT/tests.xml"
  step benchmark 300 sh -c 'python -m nanodetr.benchmark criterion transformer --tiny --repeats 1 --arithmetic fp32 bf16 --json > "$OUT/benchmark.json"'
  step photos 300 python tests/gpu/photos.py "$inputs" --rehearse --data bccd --out "$OUT"
else
  [ -f "$inputs/backbone.safetensors" ] || { echo "$inputs is not there: make it with tests/gpu/prepare.py, or name it with INPUTS" >&2; exit 2; }
  [ -d "$inputs/peers" ] && export NANODETR_PEERS="$PWD/$inputs/peers"
  python -c 'import torch; print(torch.cuda.get_device_name(), torch.__version__)' || { echo "torch sees no GPU here: --rehearse runs on a CPU" >&2; exit 2; }
  step tests 75 python -m pytest tests/gpu -m gpu -q -p no:cacheprovider --junitxml "$OUT/tests.xml"
  step benchmark 150 sh -c 'python -m nanodetr.benchmark --device cuda --repeats 9 --json > "$OUT/benchmark.json"'
  step bccd 175 python tests/gpu/photos.py "$inputs" --data bccd --seconds 42 --out "$OUT/bccd"
  step cards 175 python tests/gpu/photos.py "$inputs" --data cards --seconds 42 --out "$OUT/cards"
fi
exit $status
