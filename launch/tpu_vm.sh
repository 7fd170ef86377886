#!/usr/bin/env bash
# A run on a Cloud TPU VM, of one or many hosts.
#
#   launch/tpu_vm.sh all     --name=NAME --zone=ZONE --type=v6e-256 [options] -- [VERB] --config=… --workdir=gs://…
#   launch/tpu_vm.sh create  --name=NAME --zone=ZONE --type=v6e-256 [options]
#   launch/tpu_vm.sh copy    --name=NAME --zone=ZONE     this checkout, to all workers
#   launch/tpu_vm.sh install --name=NAME --zone=ZONE     amopo_jax[tpu], on all workers
#   launch/tpu_vm.sh run     --name=NAME --zone=ZONE -- [VERB] --config=… --workdir=gs://…     starts on all workers
#   launch/tpu_vm.sh wait | status | tail | stop | delete  --name=NAME --zone=ZONE
#
#   --project=ID     instead of gcloud's own
#   --version=IMAGE  TPU software version, instead of the one that goes with the type
#   --spot           a VM that costs less and may be taken away
#   --client=FLAG    one more flag of gcloud's create, as it is; may be repeated
#   --pass=NAME,…    variables of the environment here that the run gets there, such as HF_TOKEN
#   --retries=N      all: times that the TPU is made again, or the run started again       [10]
#   --poll=SECONDS   between two looks at the TPU and the run                              [60]
#   --dry-run        prints the commands
#
# all makes the TPU, copies, installs, runs, and waits. A TPU that was taken away is deleted and made again, and the run
# goes on from the last checkpoint in its workdir. At the end the TPU is deleted. Runs do not depend on this machine:
# the same command watches a run that is going on. Status: 0 done, 2 a mistake, 1 or the run's own after the last retry.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=tpu_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/tpu_lib.sh"

# shellcheck disable=SC2034  # for tpu_lib.sh
{
  resource=tpu-vm
  ready=READY
  state_field=state
  gone="PREEMPTED|TERMINATED|STOPPED"
  first_worker=(--worker=0)
  every_worker=(--worker=all)
  read_tpu_options "" "$@"
  create_flags=("--accelerator-type=$type" "--version=$version")
  delete_flags=(--quiet)
}
take_step
