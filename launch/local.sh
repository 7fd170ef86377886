#!/usr/bin/env bash
# Runs amopo on this machine, on all devices it has or on virtual ones, as one process or as several that join.
#
#   launch/local.sh [options] -- [VERB] --config=configs/X.py --workdir=DIR [--config.a.b=v …]
#
#   --processes=N    processes; each gets its share of the GPUs, and its lines begin with [its number]   [1]
#   --devices=N      virtual CPU devices of each process, instead of the machine's own
#   --retries=N      times that a run which failed or was stopped starts again into the same workdir     [0]
#   --grace=SECONDS  once a process failed: what the others get to end by themselves, then to stop       [30]
#   --dry-run        prints the commands
#
# VERB is train unless given. SIGTERM and Ctrl-C reach every process: the run saves and ends with status 143, and the
# same command resumes it. Otherwise the status is that of the first process that failed. A mistake (2) is not retried.
# AMOPO=PATH in the environment names another amopo than .venv/bin/amopo or, without that, the one on PATH.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

processes=1 devices="" retries=0 grace=30
parse_options "processes devices retries grace" "" "$@"
require_number 1 processes
if [[ -n "$devices" ]]; then require_number 1 devices; fi
require_number 0 retries grace
if [[ "$processes" -gt 1 ]]; then several=several; else several=""; fi
read_amopo_arguments "$several"
find_amopo

# The GPUs of the machine, as CUDA_VISIBLE_DEVICES names them.
gpus=()
if [[ "$processes" -gt 1 && -z "$devices" ]]; then
  if [[ -n "${CUDA_VISIBLE_DEVICES:-}" ]]; then
    IFS=, read -r -a gpus <<< "$CUDA_VISIBLE_DEVICES"
  elif command -v nvidia-smi > /dev/null; then
    while read -r gpu; do gpus+=("$gpu"); done < <(nvidia-smi --query-gpu=index --format=csv,noheader)
  fi
  [[ $((${#gpus[@]} % processes)) -eq 0 ]] \
    || fail "${#gpus[@]} GPUs cannot be split between --processes=$processes; choose another number or --devices=N"
fi

# A port below those that the system hands out, on which nobody answers.
free_port() {
  local port
  while true; do
    port=$((20000 + RANDOM % 12000))
    (exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null || break
  done
  echo "$port"
}

# The command of process $1, joining at port $2: the array `command`.
command_of() {
  local share=$((${#gpus[@]} / processes))
  command=()
  if [[ -n "$devices" ]]; then
    command+=(env JAX_PLATFORMS=cpu
      "XLA_FLAGS=${XLA_FLAGS:+$XLA_FLAGS }--xla_force_host_platform_device_count=$devices")
  elif [[ "$share" -gt 0 ]]; then
    command+=(env "CUDA_VISIBLE_DEVICES=$(IFS=,; echo "${gpus[*]:$1 * share:share}")")
  fi
  command+=("$amopo" "${amopo_arguments[0]}")
  if [[ "$processes" -gt 1 ]]; then
    command+=("--processes=$processes" "--process=$1" "--coordinator=127.0.0.1:$2")
  fi
  command+=("${amopo_arguments[@]:1}")
}

if $dry_run; then
  port="$(free_port)"
  for ((process = 0; process < processes; process++)); do
    command_of "$process" "$port"
    perform "${command[@]}"
  done
  exit 0
fi
if [[ "$processes" -eq 1 && "$retries" -eq 0 ]]; then
  command_of 0 0
  exec "${command[@]}"
fi

scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
stop_status=143
stopped=false  # by a signal to this script
pids=()
readers=()

signal_all() {
  local pid
  for pid in ${pids[@]+"${pids[@]}"}; do kill "-$1" "$pid" 2> /dev/null || true; done
}

trap 'stopped=true; signal_all TERM' TERM INT HUP

# Copies lines, with the number of their process in front.
label() {
  local line
  while IFS= read -r line || [[ -n "$line" ]]; do printf '[%s] %s\n' "$1" "$line"; done
}

start() {
  local process port
  port="$(free_port)"
  for ((process = 0; process < processes; process++)); do
    command_of "$process" "$port"
    if [[ "$processes" -gt 1 ]]; then
      rm -f "$scratch/$process"
      mkfifo "$scratch/$process"
      (trap '' TERM INT HUP; label "$process" < "$scratch/$process") &
      readers+=("$!")
      "${command[@]}" > "$scratch/$process" 2>&1 < /dev/null &
    else
      "${command[@]}" < /dev/null &
    fi
    pids[process]=$!
  done
}

# Waits for all processes; `status` is what the run ends with. One that failed outweighs one that was stopped.
supervise() {
  local process ended deadline="" asked=false
  status=0
  while [[ ${#pids[@]} -gt 0 ]]; do
    for process in "${!pids[@]}"; do
      if kill -0 "${pids[process]}" 2> /dev/null; then continue; fi
      ended=0
      wait "${pids[process]}" || ended=$?
      unset "pids[process]"
      if [[ "$ended" -eq 0 ]]; then continue; fi
      if [[ "$status" -eq 0 || "$status" -eq "$stop_status" ]]; then status="$ended"; fi
      if [[ "$ended" -eq "$stop_status" ]]; then
        signal_all TERM
      elif [[ -z "$deadline" ]]; then
        deadline=$((SECONDS + grace))
      fi
    done
    if [[ -n "$deadline" && "$SECONDS" -ge "$deadline" ]]; then
      if $asked; then signal_all KILL; else signal_all TERM; fi
      asked=true
      deadline=$((SECONDS + grace))
    fi
    sleep 0.1
  done
}

# Lets the readers finish; something that outlived its process may hold their pipe open.
finish_reading() {
  local reader turn
  for reader in ${readers[@]+"${readers[@]}"}; do
    for ((turn = 0; turn < 20; turn++)); do
      kill -0 "$reader" 2> /dev/null || break
      sleep 0.1
    done
    kill -KILL "$reader" 2> /dev/null || true
  done
  readers=()
}

for ((retry = 0; ; retry++)); do
  start
  if $stopped; then signal_all TERM; fi  # those that a signal during the start missed
  supervise
  finish_reading
  if [[ "$status" -eq 0 || "$status" -eq 2 || "$retry" -ge "$retries" ]] || $stopped; then exit "$status"; fi
  say "ended with status $status; again into the same workdir (retry $((retry + 1)) of $retries)"
done
