#!/usr/bin/env bash
# What only a GPU can show, in one call of under nine minutes; docs/gpu.md says what comes home and how to go on.
#
#   scripts/gpu_checks.sh [OUT] [--data FOLDER] [--minutes 8.5] [--only PIECE,...]
#   scripts/gpu_checks.sh --dry-run      all pieces at toy size on a processor, in under three minutes
#
# Needs torch with CUDA and what `bench run` needs, but not the package itself. PYTHON names another interpreter.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH="$root/.types${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" "$root/scripts/gpu_checks.py" "$@"
