#!/usr/bin/env bash
# Trains on this machine, on all devices it has (or on N virtual CPU devices with --devices=N).
#
#   launch/local.sh [--dry-run] [--devices=N] -- --config=configs/X.py --workdir=DIR [--config.a.b=v …]
#
# A run that was stopped by a signal (status 143) or died is started again with the same command: it resumes.
set -euo pipefail

dry_run=false
devices=""
while [[ $# -gt 0 ]]; do
  case "$1" in
    --dry-run) dry_run=true ;;
    --devices=*) devices="${1#*=}" ;;
    --) shift; break ;;
    *) echo "launch/local.sh: unknown option $1; options end with --" >&2; exit 2 ;;
  esac
  shift
done
if [[ $# -eq 0 ]]; then
  echo "launch/local.sh: nothing to run; give -- --config=FILE --workdir=DIR" >&2
  exit 2
fi
if [[ -n "$devices" && ! "$devices" =~ ^[1-9][0-9]*$ ]]; then
  echo "launch/local.sh: --devices=$devices is not a positive number" >&2
  exit 2
fi

amopo=amopo
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
if [[ -x "$here/.venv/bin/amopo" ]]; then amopo="$here/.venv/bin/amopo"; fi
if [[ -n "$devices" ]]; then
  export JAX_PLATFORMS=cpu XLA_FLAGS="${XLA_FLAGS:-} --xla_force_host_platform_device_count=$devices"
fi
if $dry_run; then
  printf '%q ' "$amopo" train "$@"
  echo
  exit 0
fi
exec "$amopo" train "$@"
