#!/usr/bin/env bash
# What can only be checked on a GPU, in one call: parity with the processor, training with checkpoints, timings in bf16.
#
#   scripts/gpu_checks.sh [OUT]       default OUT: a temporary folder, named at the end
#
# Needs torch with CUDA, numpy, safetensors, pytest, hypothesis, typer and rich, and Fashion-MNIST or DATA=FOLDER to
# train on; not the package itself, so its runs draw no report. It has never been
# run on a GPU (docs/validation.md lists what was not).
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-$(mktemp -d)}
export PYTHONPATH="$PWD/.types:$PWD/tests"
python3 -c 'import torch, sys; sys.exit(0 if torch.cuda.is_available() else "gpu_checks.sh needs a GPU that torch sees")'

python3 -m pytest -q -p no:cacheprovider tests/test_decode.py tests/test_timing.py -k "cuda"

bench() { python3 -c 'from orderbench.runs.cli import main; main()' "$@"; }
data=${DATA:+--data "$DATA"}
# shellcheck disable=SC2086
bench train tokenizer $data --out "$out/tokenizer" --device cuda --steps 200 --every 100
# shellcheck disable=SC2086
bench train model $data --tokenizer "$out/tokenizer/tokenizer.safetensors" --out "$out/model" --device cuda --steps 100 --every 50 --minutes 1

for dtype in "" --bf16; do
  python3 scripts/decode_times.py --device cuda --batches 1,16,64,256 $dtype | tee -a "$out/decode_times.md"
done
for dtype in fp32 bf16; do
  bench run --orders raster,radial --device cuda --dtype $dtype --only latency,likelihood --batch 64 --no-report --out "$out/run-$dtype"
done
echo "gpu_checks.sh: everything is in $out"
