#!/usr/bin/env bash
# A run as a managed job of SkyPilot, described in launch/skypilot.yaml.
#
#   launch/skypilot.sh --name=NAME --type=ACCELERATORS [options] \
#     -- [VERB] --config=configs/X.py --workdir=gs://… [--config.a.b=v …]
#
#   --type=ACCELERATORS  of each machine, as SkyPilot names them: tpu-v6e-256, H100:8
#   --nodes=N            machines; a TPU of many hosts is one                                        [1]
#   --client=FLAG        one more flag of sky jobs launch, as it is; may be repeated (--client=--infra=gcp/us-east1)
#   --dry-run            prints the command
#
# SkyPilot makes the machines again wherever it finds some when they are taken away, and starts a run that was stopped
# (143) or failed again, into the same workdir. To watch or stop it: sky jobs logs, sky jobs cancel --name NAME.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

name="" type="" nodes=1
parse_options "name type nodes" "" "$@"
require name type
require_number 1 nodes
if [[ "$type" == tpu-* && "$nodes" -gt 1 ]]; then fail "--nodes=$nodes: of TPUs one machine is started; give a larger --type"; fi
if [[ "$type" == tpu-* || "$nodes" -gt 1 ]]; then several=several; else several=""; fi
read_amopo_arguments "$several"
require_bucket
require_config

command=(sky jobs launch "--name=$name" "--gpus=$type" "--num-nodes=$nodes" --detach-run --yes)
if [[ "$type" != tpu-* ]]; then command+=(--env=AMOPO_EXTRA=cuda); fi
if [[ ${#client_flags[@]} -gt 0 ]]; then command+=("${client_flags[@]}"); fi
command+=("--env=AMOPO_ARGUMENTS=$(quoted "${amopo_arguments[@]}")" launch/skypilot.yaml)
# The file's workdir is this checkout.
cd "$checkout"
perform "${command[@]}"
