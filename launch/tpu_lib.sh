# The steps of tpu_vm.sh and queued_resources.sh, which source this. They define
#   resource      what gcloud compute tpus calls it
#   ready         the state in which the TPU can be used, found in the field `state_field`
#   gone          the states from which it never comes back, as a pattern of [[ =~ ]]
#   first_worker, every_worker   flags of ssh and scp
#   create_flags, delete_flags   arrays, once the options are known
# shellcheck shell=bash disable=SC2034,SC2154
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

steps="create copy install run wait all status tail stop delete"
name="" zone="" project="" type="" version="" pass="" spot=false slices=1 retries=10 poll=60

# read_tpu_options "MORE NAMES" "$@"
read_tpu_options() {
  local more="$1"
  shift
  if [[ "${1:-}" == --help ]]; then usage; exit 0; fi
  [[ $# -gt 0 && " $steps " == *" $1 "* ]] || fail "give what to do first: one of $steps"
  step="$1"
  shift
  parse_options "name zone project type version pass retries poll $more" "spot" "$@"
  require name zone
  require_number 0 retries poll
  require_number 1 slices
  if [[ "$step" == create || "$step" == all ]]; then require type; fi
  if [[ "$step" == run || "$step" == all ]]; then
    read_amopo_arguments auto
    require_bucket
    require_config
    advise_slices "$slices"
    require_variables
  elif [[ ${#arguments[@]} -gt 0 ]]; then
    fail "$step takes nothing after --"
  fi
  place=("--zone=$zone")
  if [[ -n "$project" ]]; then place+=("--project=$project"); fi
  if [[ -z "$version" ]]; then version="$(software_version)"; fi
}

# The environment has what --pass names.
require_variables() {
  local variable
  for variable in ${pass//,/ }; do
    [[ "$variable" =~ ^[A-Za-z_][A-Za-z_0-9]*$ ]] || fail "--pass=$pass: $(quoted "$variable") is no name of a variable"
    [[ -n "${!variable:-}" ]] || fail "--pass=$pass: $variable is not set here"
  done
}

# The system image that Cloud TPU's documentation names for JAX on this type.
software_version() {
  case "$type" in
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    *) echo tpu-ubuntu2204-base ;;
  esac
}

tpus() {
  perform gcloud compute tpus "$resource" "$@"
}

# on WORKERS… -- COMMAND…: one shell command on these workers.
on() {
  local workers=()
  while [[ "$1" != -- ]]; do workers+=("$1"); shift; done
  shift
  tpus ssh "$name" "${place[@]}" "${workers[@]}" "--command=$*"
}

worker_script() {
  on "${every_worker[@]}" -- "${environment:-}bash amopo_jax/launch/worker.sh $(quoted "$@")"
}

create() {
  local command=(create "$name" "${place[@]}" "${create_flags[@]}")
  if $spot; then command+=(--spot); fi
  if [[ ${#client_flags[@]} -gt 0 ]]; then command+=("${client_flags[@]}"); fi
  tpus "${command[@]}"
}

# On a machine: what an earlier copy brought goes first, since a file that was deleted here is not to be imported there.
unpack="mkdir -p amopo_jax && touch amopo_jax.files && (cd amopo_jax && xargs -d '\\n' rm -f < ../amopo_jax.files) \
  && tar -tzf amopo_jax.tar.gz > amopo_jax.files && tar -xzf amopo_jax.tar.gz -C amopo_jax"

# What git tracks or would track: the working tree without environments, runs and caches.
copy() {
  local folder="${TMPDIR:-/tmp}/launch-$name"
  # shellcheck disable=SC2016  # for the shell that packs
  perform mkdir -p "$folder" \
    && perform bash -o pipefail -c \
      'cd "$1" && git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d "" file; do
        if [[ -e "$file" || -L "$file" ]]; then printf "%s\0" "$file"; fi
      done | tar -czf "$2" --null -T -' \
      pack "$checkout" "$folder/amopo_jax.tar.gz" \
    && tpus scp "$folder/amopo_jax.tar.gz" "$name:" "${place[@]}" "${every_worker[@]}" \
    && on "${every_worker[@]}" -- "$unpack" \
    && perform rm -r "$folder"
}

install() {
  worker_script install tpu
}

# With the variables that --pass names, whose values a dry run keeps to itself.
run() {
  local environment="" variable value
  for variable in ${pass//,/ }; do
    if $dry_run; then value='…'; else value="$(quoted "${!variable}")"; fi
    environment+="$variable=$value "
  done
  worker_script start "${amopo_arguments[@]}"
}

delete() {
  tpus delete "$name" "${place[@]}" "${delete_flags[@]}"
}

describe() {
  tpus describe "$name" "${place[@]}" "--format=value($state_field)"
}

# The state that gcloud gives, ABSENT if there is no such TPU, UNKNOWN if gcloud cannot tell.
current_state() {
  local output
  if output="$(describe 2>&1)"; then
    echo "${output##*$'\n'}"
  elif [[ "$output" == *NOT_FOUND* || "$output" == *"not found"* ]]; then
    echo ABSENT
  else
    echo "$output" >&2
    echo UNKNOWN
  fi
}

# Waits until the TPU can be used, making it if there is none (`made`); 1 if it was lost meanwhile or cannot be had.
obtain() {
  local state
  made=false
  while true; do
    state="$(current_state)"
    if [[ "$state" == "$ready" ]]; then return 0; fi
    if [[ "$state" == ABSENT ]]; then
      if $made; then return 1; fi
      say "making $name"
      create || return $?
      made=true
    elif [[ "$state" =~ ^($gone)$ ]]; then
      say "$name is $state"
      delete || return $?
      if $made; then return 1; fi
    else
      say "$name is $state; waiting"
      sleep "$poll"
    fi
  done
}

# How the run stands on all workers together: running, none, lost, unknown or an exit status.
run_status() {
  local output line result=unknown
  output="$(worker_script status)" || true
  while IFS= read -r line; do
    case "$line" in
      running) echo running; return ;;
      2) result=2 ;;
      lost | none) if [[ "$result" != 2 ]]; then result="$line"; fi ;;
      0) if [[ "$result" == unknown ]]; then result=0; fi ;;
      143) if [[ "$result" == unknown || "$result" == 0 ]]; then result=143; fi ;;
      [0-9]*) if [[ "$result" =~ ^(unknown|0|143)$ ]]; then result="$line"; fi ;;
    esac
  done <<< "$output"
  echo "$result"
}

# Waits until the run has ended or the TPU is lost; prints its status, or lost.
ending() {
  local state status
  while true; do
    state="$(current_state)"
    if [[ "$state" == ABSENT || "$state" =~ ^($gone)$ ]]; then echo lost; return; fi
    if [[ "$state" == "$ready" ]]; then
      status="$(run_status)"
      if [[ "$status" != running && "$status" != unknown ]]; then echo "$status"; return; fi
    fi
    sleep "$poll"
  done
}

# One try: 0 done, 2 a mistake, anything else can be tried again.
attempt() {
  local status
  obtain || return $?
  if ! $made && [[ "$(run_status)" == running ]]; then
    say "a run is going on; waiting for it"
  else
    { copy && install && run; } || return 1
  fi
  status="$(ending)"
  say "the run on $name: $status"
  if [[ ! "$status" =~ ^[0-9]+$ ]]; then return 1; fi
  if [[ "$status" -ne 0 ]]; then on "${every_worker[@]}" -- 'tail -n 50 amopo_jax/run.log' || true; fi
  return "$status"
}

rehearse() {
  local part
  for part in describe create copy install run describe; do "$part"; done
  worker_script status
  delete
}

all() {
  local retry status=0
  if $dry_run; then rehearse; return; fi
  if [[ "$(current_state)" == UNKNOWN ]]; then say "gcloud cannot say how $name is"; exit 1; fi
  trap 'say "no longer watching; what runs goes on, and the same command watches again"; exit 130' INT
  for ((retry = 0; retry <= retries; retry++)); do
    if [[ "$retry" -gt 0 ]]; then
      say "again into the same workdir (retry $retry of $retries)"
      sleep "$poll"
    fi
    status=0
    attempt || status=$?
    if [[ "$status" -eq 0 || "$status" -eq 2 ]]; then break; fi
  done
  if [[ "$status" -eq 2 ]]; then
    say "a mistake in what was given; nothing is deleted, that is left to you: $script delete"
  else
    delete || status=1
  fi
  exit "$status"
}

# Prints how the run ended, and ends with its status.
wait_for_end() {
  local status
  if $dry_run; then describe; worker_script status; return; fi
  status="$(ending)"
  echo "$status"
  if [[ "$status" =~ ^[0-9]+$ ]]; then exit "$status"; fi
  exit 1
}

take_step() {
  case "$step" in
    status) describe; worker_script status ;;
    wait) wait_for_end ;;
    stop) worker_script stop ;;
    tail) on "${first_worker[@]}" -- 'tail -n 100 -F amopo_jax/run.log' ;;
    *) "$step" ;;
  esac
}
