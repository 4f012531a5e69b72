#!/usr/bin/env bash
# Builds kdhost for CUDA, compares it with the CPU and times it beside torchvision: README.md.
# tests/gpu/run.sh [DEVICE] [arguments of gpu.py]; DEVICE is cuda:0 unless given.
set -euo pipefail
cd "$(dirname "$0")/../.."
device=${1:-cuda:0}
shift || true

(cd plugins && cargo build --release)
if [ "${device%%:*}" = cuda ]; then
  nvidia-smi --query-gpu=index,name,driver_version,memory.total --format=csv
  cargo build --release -p kdhost --features cuda
else
  cargo build --release -p kdhost
fi
"${PYTHON:-python3}" tests/gpu/gpu.py --device "$device" "$@"
