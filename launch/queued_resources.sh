#!/usr/bin/env bash
# A run on Cloud TPUs that are waited for in Google's queue, in one slice or several.
#
#   launch/queued_resources.sh all --name=NAME --zone=ZONE --type=v6e-256 [options] \
#     -- [VERB] --config=configs/X.py --workdir=gs://… [--config.a.b=v …]
#
# or one of the steps create, copy, install, run, wait, status, tail, stop, delete, as in launch/tpu_vm.sh.
#
#   --slices=N       slices of this type, joined by the data centre's network (config.mesh.slices)   [1]
#   --project=ID     instead of gcloud's own
#   --version=IMAGE  TPU software version, instead of the one that goes with the type
#   --spot           VMs that cost less and may be taken away
#   --client=FLAG    one more flag of gcloud's create, as it is; may be repeated
#   --pass=NAME,…    variables of the environment here that the run gets there, such as HF_TOKEN
#   --retries=N      all: times that the request is made again, or the run started again             [10]
#   --poll=SECONDS   between two looks at the request and the run                                    [60]
#   --dry-run        prints the commands
#
# all requests the TPUs, waits for them, copies, installs, runs, and waits. A request that was SUSPENDED (its VMs were
# taken away) or FAILED is deleted and made again, and the run goes on from the last checkpoint in its workdir. At the
# end the request and its VMs are deleted. The same command watches a run that is going on. Status: 0 done, 2 a mistake,
# 1 or the run's own after the last retry.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=tpu_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/tpu_lib.sh"

# shellcheck disable=SC2034  # for tpu_lib.sh
{
  resource=queued-resources
  ready=ACTIVE
  state_field=state.state
  gone="SUSPENDED|FAILED"
  first_worker=(--node=0 --worker=0)
  every_worker=(--node=all --worker=all)
  read_tpu_options slices "$@"
  create_flags=("--accelerator-type=$type" "--runtime-version=$version")
  if [[ "$slices" -eq 1 ]]; then
    create_flags+=("--node-id=$name")
  else
    create_flags+=("--node-count=$slices" "--node-prefix=$name")
  fi
  delete_flags=(--force --quiet)
}
take_step
