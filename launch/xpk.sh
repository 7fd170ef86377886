#!/usr/bin/env bash
# A run on a GKE cluster of TPUs, as a JobSet that xpk makes.
#
#   launch/xpk.sh --name=NAME --cluster=CLUSTER --type=v5litepod-256 --image=IMAGE [options] \
#     -- [VERB] --config=configs/X.py --workdir=gs://… [--config.a.b=v …]
#
#   --image=IMAGE    built from launch/Dockerfile and pushed: docker build --file launch/Dockerfile --tag IMAGE .
#   --slices=N       slices of this type, joined by the data centre's network (config.mesh.slices)   [1]
#   --zone=ZONE --project=ID   instead of gcloud's own
#   --retries=N      times that the JobSet is started again                                          [10]
#   --grace=SECONDS  between SIGTERM and the end of a pod: the time to save in                       [120]
#   --client=FLAG    one more flag of xpk workload create, as it is; may be repeated (--client=--spot)
#   --dry-run        prints the command (--client=--dry-run is xpk's own, which also shows the JobSet)
#
# A pod that is taken away, was stopped (143) or failed (1) has the JobSet start all pods again into the same workdir;
# a mistake in what was given (2) ends it. To stop it: xpk workload delete --workload=NAME --cluster=CLUSTER.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

name="" cluster="" type="" image="" slices=1 zone="" project="" retries=10 grace=120
parse_options "name cluster type image slices zone project retries grace" "" "$@"
require name cluster type image
require_number 1 slices
require_number 0 retries grace
read_amopo_arguments auto
require_bucket
advise_slices "$slices"

command=(xpk workload create "--workload=$name" "--cluster=$cluster" "--tpu-type=$type" "--num-slices=$slices"
  "--docker-image=$image" "--max-restarts=$retries" --restart-on-exit-codes=1
  "--termination-grace-period-seconds=$grace")
if [[ -n "$zone" ]]; then command+=("--zone=$zone"); fi
if [[ -n "$project" ]]; then command+=("--project=$project"); fi
if [[ ${#client_flags[@]} -gt 0 ]]; then command+=("${client_flags[@]}"); fi
# exec: xpk passes SIGTERM on to the process that it started, which should be amopo and no shell around it.
command+=("--command=exec amopo $(quoted "${amopo_arguments[@]}")")
perform "${command[@]}"
