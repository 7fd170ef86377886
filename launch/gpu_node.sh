#!/usr/bin/env bash
# A run on the GPUs of this machine, in a container.
#
#   launch/gpu_node.sh --image=IMAGE [options] -- [VERB] --config=configs/X.py --workdir=DIR [--config.a.b=v …]
#
#   --image=IMAGE    docker build --file launch/Dockerfile --build-arg EXTRA=cuda --tag IMAGE .
#   --gpus=GPUS      as docker run has it: all, 2, '"device=0,1"'                                        [all]
#   --retries=N      times that a run which failed or was stopped starts again into the same workdir     [3]
#   --client=FLAG    one more flag of docker run, as it is; may be repeated (--client=--env=HF_TOKEN)
#   --dry-run        prints the command
#
# The current folder is there under the same name inside the container, so relative paths of configs, data and workdir
# mean the same. SIGTERM and Ctrl-C reach the run, which saves and ends with status 143; the same command resumes it.
# On several machines give each the same command and amopo's --processes=N --process=I --coordinator=HOST:PORT.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

image="" gpus=all retries=3
parse_options "image gpus retries" "" "$@"
require image gpus
require_number 0 retries
read_amopo_arguments
if [[ "${client_flags[*]:-}" != *--volume* && "${client_flags[*]:-}" != *--mount* ]]; then require_mounted; fi

# Shared memory and ports of the machine, as NCCL and the coordinator need them.
command=(docker run --rm --init "--gpus=$gpus" --network=host --ipc=host "--volume=$PWD:$PWD" "--workdir=$PWD"
  --stop-timeout=300)  # docker stop and a shutdown would kill it after 10 s
if [[ ${#client_flags[@]} -gt 0 ]]; then command+=("${client_flags[@]}"); fi
command+=("$image" /opt/amopo_jax/launch/local.sh "--retries=$retries" -- "${amopo_arguments[@]}")
if $dry_run; then perform "${command[@]}"; else exec "${command[@]}"; fi
