#!/usr/bin/env bash
# What to run where a GPU is at hand: about ten minutes, then it stops by itself. Needs torch, torchvision, numpy, scipy,
# safetensors, matplotlib, tqdm and pytest; transformers and timm for one of the peers. No network, no nbdev.
#
#   python tests/gpu/prepare.py gpu_inputs --data DIR --backbone-weights FILE     first, on a machine that has the data
#   OUT=results bash tests/gpu/run.sh [PART...]                                   on the GPU machine
#   OUT=results bash tests/gpu/run.sh --rehearse                                  the same steps, tiny, on a CPU
#
# PART: tests, benchmark, screening, pretrain, bccd, cards; without any: all but screening. INPUTS names the prepared folder
# (default: gpu_inputs), ROWS the rows of the benchmark, ARITHMETIC its kinds of arithmetic, SECONDS_EACH how long each training
# of bccd and cards lasts (default: 60), RECIPES which (see photos.py), COMPARE what trains beside them without a head (default:
# nothing; faster-rcnn, say).
#
# What is not timed runs side by side first: the tests, the screening (recipes of photos.py for 60 seconds each, judged on
# validation data), the head (PRETRAIN seconds of drawn scenes, default 100; kept in NANODETR_CACHE for a later call), and what
# torch.compile has to compile, which the timed rows and trainings then find in its cache. With 16 processor cores, compiling
# the training step beside a pretraining took more than 200 seconds: better give benchmark and pretrain a call each.
#
# Into $OUT go steps.json (which step took how long and how it ended), a log per step, tests.xml, syncs.json, benchmark.json
# (for NANODETR_GPU_BENCHMARK of notebook 17), a photos.json and pictures for each data set; and all of that in all.tgz, renewed
# after each step: fetch that one where only a few files come back. A step that fails does not stop the others; the exit status
# then is 1.
set -uo pipefail
cd "$(dirname "$0")/../.."
: "${OUT:?where should the results go? as in: OUT=results bash tests/gpu/run.sh}"
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
for part in "$@"; do
  [[ " --rehearse tests benchmark screening pretrain bccd cards " == *" $part "* ]] || { echo "there is no part $part: choose of tests, benchmark, screening, pretrain, bccd and cards, or --rehearse" >&2; exit 2; }
done
export OUT PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" MPLBACKEND=agg PYTHONDONTWRITEBYTECODE=1 TOKENIZERS_PARALLELISM=false
inputs=${INPUTS:-gpu_inputs}
rm -f "$OUT"/steps.jsonl "$OUT"/row-*.json

step() {  # step NAME SECONDS COMMAND...: at most so long; its output in $OUT/NAME.log
  local name=$1 most=$2 code=0 start=$SECONDS
  shift 2
  timeout -k 10 "$most" "$@" > "$OUT/$name.log" 2>&1 || code=$?
  echo "$name: exit $code after $((SECONDS - start)) s"
  [ "$code" = 0 ] || tail -n 5 "$OUT/$name.log"
  echo "{\"step\": \"$name\", \"exit\": $code, \"seconds\": $((SECONDS - start))}" >> "$OUT/steps.jsonl"
  tar czf "/tmp/all-$name.tgz" -C "$OUT" --exclude all.tgz . && mv "/tmp/all-$name.tgz" "$OUT/all.tgz"
}

rows() {  # rows ROW...: each in a process of its own, so that one that fails leaves the others; together in benchmark.json
  local row
  for row in "$@"; do step "row-$row" 150 sh -c "python -m nanodetr.benchmark $row $timing --json > '$OUT/row-$row.json'"; done
  python - "$OUT" <<'END'
import json, sys
from pathlib import Path
found = [json.loads(path.read_text()) for path in sorted(Path(sys.argv[1]).glob("row-*.json")) if path.stat().st_size]
if found: (Path(sys.argv[1]) / "benchmark.json").write_text(json.dumps(found[0] | {key: [x for one in found for x in one[key]] for key in ("rows", "failed")}, indent=1))
END
}

finish() {
  python -c 'import json, sys; print(json.dumps([json.loads(line) for line in sys.stdin], indent=1))' < "$OUT/steps.jsonl" > "$OUT/steps.json"
  ! grep -qv '"exit": 0,' "$OUT/steps.jsonl"
}

if [ "${1:-}" = "--rehearse" ]; then
  export NANODETR_REHEARSE=1 OMP_NUM_THREADS=1
  inputs="$OUT/inputs"
  step prepare 120 python tests/gpu/prepare.py "$inputs" --tiny
  [ -d "$inputs/peers" ] && export NANODETR_PEERS="$inputs/peers"
  step tests 300 python -m pytest tests/gpu -m gpu -q -p no:cacheprovider --junitxml "$OUT/tests.xml"
  timing="--tiny --repeats 1 --arithmetic fp32 bf16"
  rows criterion transformer
  export NANODETR_CACHE="$OUT/cache"
  step pretrain 120 python tests/gpu/photos.py "$inputs" --rehearse --pretrain 1 --recipes cures-deformable-256 --out "$OUT/pretrain"
  step photos 300 python tests/gpu/photos.py "$inputs" --rehearse --data bccd --head --recipes cures-deformable-256 faster-rcnn --out "$OUT"
  finish
  exit
fi

[ -f "$inputs/backbone.safetensors" ] || { echo "$inputs is not there: make it with tests/gpu/prepare.py, or name it with INPUTS" >&2; exit 2; }
[ -d "$inputs/peers" ] && export NANODETR_PEERS="$PWD/$inputs/peers"
python -c 'import torch; print(torch.cuda.get_device_name(), torch.__version__)' || { echo "torch sees no GPU here: --rehearse runs on a CPU" >&2; exit 2; }
parts=" ${*:-tests benchmark pretrain bccd cards} "
export NANODETR_CACHE="${NANODETR_CACHE:-/tmp/nanodetr}" TORCHINDUCTOR_COMPILE_THREADS=4
recipes=${RECIPES:-cures-deformable-256}
wanted() { [[ $parts == *" $1 "* ]]; }

wanted tests && step tests 120 python -m pytest tests/gpu -m gpu -q -p no:cacheprovider --junitxml "$OUT/tests.xml" &
if wanted screening; then
  for recipe in ${RECIPES:-cures cures-dc5 cures-256 cures-deformable cures-quality}; do
    step "screening-$recipe" 130 python tests/gpu/photos.py "$inputs" --data bccd --seconds 60 --recipes "$recipe" --splits val --workers 2 --out "$OUT/screening/$recipe" &
  done
fi
if wanted pretrain; then
  step pretrain 300 python tests/gpu/photos.py "$inputs" --pretrain "${PRETRAIN:-100}" --recipes $recipes --workers 8 --out "$OUT/pretrain" &
  for name in bccd cards; do
    step "compiling-$name" 200 python tests/gpu/photos.py "$inputs" --data $name --seconds 1 --recipes $recipes --compile --splits val --workers 1 --out "$OUT/compiling/$name" &
  done
fi
arithmetic=${ARITHMETIC:-fp32 bf16 compiled graphs}
rows_wanted=${ROWS:-inference-1 inference-8 step transformer criterion memory}
if wanted benchmark; then
  for row in $rows_wanted; do
    [[ $row == criterion || $row == memory ]] || step "compiling-$row" 200 python -m nanodetr.benchmark $row --device cuda --repeats 1 --arithmetic $arithmetic &
  done
fi
wait
timing="--device cuda --repeats 9 --arithmetic $arithmetic"
wanted benchmark && rows $rows_wanted
head=
[ -n "$(find "$NANODETR_CACHE/heads" -name head.safetensors 2> /dev/null)" ] && head=--head  # none is kept: they start without
for name in bccd cards; do
  wanted $name && step $name 420 python tests/gpu/photos.py "$inputs" --data $name --seconds "${SECONDS_EACH:-60}" --recipes $recipes --compile $head --out "$OUT/$name"
  wanted $name && [ -n "${COMPARE:-}" ] && step "$name-beside" 420 python tests/gpu/photos.py "$inputs" --data $name --seconds "${SECONDS_EACH:-60}" --recipes $COMPARE --out "$OUT/$name-beside"
done
finish
