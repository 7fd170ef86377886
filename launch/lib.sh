# Sourced by the scripts of this folder.
# shellcheck shell=bash disable=SC2034

script="launch/$(basename "$0")"
checkout="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
dry_run=false
arguments=()     # of amopo, as given after --
client_flags=()  # given as --client=FLAG, for the client's command that makes something

# A mistake in what was given.
fail() {
  echo "$script: $1" >&2
  exit 2
}

say() {
  echo "$script: $1" >&2
}

# The arguments as one line that a shell reads as the same arguments.
quoted() {
  local line
  line="$(printf '%q ' "$@")"
  printf '%s' "${line% }"
}

# Runs a command, or prints it in a dry run.
perform() {
  if $dry_run; then
    quoted "$@"
    echo
  else
    "$@"
  fi
}

# The comment at the top of the script.
usage() {
  awk 'NR == 1 { next } /^#/ { sub(/^# ?/, ""); print; next } { exit }' "$0"
}

# parse_options "NAME …" "FLAG …" "$@": --NAME=VALUE becomes the variable NAME, --FLAG the variable FLAG (true),
# what follows -- the array `arguments`.
parse_options() {
  local names=" $1 " flags=" $2 dry_run " option
  shift 2
  while [[ $# -gt 0 ]]; do
    option="${1%%=*}"
    option="${option#--}"
    option="${option//-/_}"
    case "$1" in
      --) shift; arguments=("$@"); return ;;
      --help) usage; exit 0 ;;
      --client=*) client_flags+=("${1#*=}") ;;
      --client) fail "$1 needs a value: $1=…" ;;
      --*=*)
        [[ "$flags" != *" $option "* ]] || fail "${1%%=*} takes no value"
        [[ "$names" == *" $option "* ]] || fail "unknown option ${1%%=*}; --help lists them, amopo's own follow --"
        printf -v "$option" '%s' "${1#*=}"
        ;;
      --*)
        [[ "$names" != *" $option "* ]] || fail "$1 needs a value: $1=…"
        [[ "$flags" == *" $option "* ]] || fail "unknown option $1; --help lists them, amopo's own follow --"
        printf -v "$option" true
        ;;
      *) fail "unknown argument $(quoted "$1"); --help says what there is, amopo's own follow --" ;;
    esac
    shift
  done
}

# require NAME …: the options of these names were given.
require() {
  local required
  for required in "$@"; do
    [[ -n "${!required}" ]] || fail "--$required=… is missing"
  done
}

# require_number LEAST NAME …: the options of these names are whole numbers, and at least LEAST.
require_number() {
  local least="$1" number
  shift
  for number in "$@"; do
    [[ "${!number}" =~ ^(0|[1-9][0-9]{0,8})$ && "${!number}" -ge "$least" ]] \
      || fail "--$number=${!number} is not a whole number of $least or more"
  done
}

# What amopo is to do: the array `amopo_arguments`, VERB first. $1: "several" where several processes do it, which not
# every verb knows; "auto" where they are told so by --processes=auto.
read_amopo_arguments() {
  local verb=train module
  [[ ${#arguments[@]} -gt 0 ]] || fail "nothing to run; give -- --config=FILE --workdir=DIR"
  if [[ "${arguments[0]}" != -* ]]; then
    verb="${arguments[0]}"
    arguments=("${arguments[@]:1}")
  fi
  module="$checkout/amopo_jax/cli/$verb.py"
  grep -qs '^def run(' "$module" || fail "amopo has no verb $(quoted "$verb")"
  if [[ -n "${1:-}" ]] && ! grep -q '^  define_processes(' "$module"; then
    fail "amopo $verb runs as one process; give it to one machine, without this script"
  fi
  amopo_arguments=("$verb")
  if [[ "${1:-}" == auto ]]; then amopo_arguments+=(--processes=auto); fi
  if [[ ${#arguments[@]} -gt 0 ]]; then amopo_arguments+=("${arguments[@]}"); fi
}

# Machines that go away take their disks along.
require_bucket() {
  local argument given="" wanted=--out
  if [[ "${amopo_arguments[0]}" == train ]]; then wanted=--workdir; fi
  for argument in "${amopo_arguments[@]}"; do
    case "$argument" in
      --workdir=gs://?* | --out=gs://?*) given+=" ${argument%%=*}" ;;
      --workdir | --workdir=* | --out | --out=*)
        fail "$argument is lost with the machine; give a place in a bucket, ${argument%%=*}=gs://…"
        ;;
    esac
  done
  [[ "$given " == *" $wanted "* ]] || fail "$wanted=gs://… is missing after --"
}

# Machines that get a copy of this checkout find no other file here: a run needs a config, and that it is there.
require_config() {
  local argument given=false file
  for argument in "${amopo_arguments[@]}"; do
    case "$argument" in
      --config=*)
        given=true
        file="${argument#--config=}"
        [[ -f "$checkout/${file%%:*}" ]] || fail "$argument: no such file in the checkout, which is what the machines get"
        ;;
    esac
  done
  $given || [[ "${amopo_arguments[0]}" != train ]] || fail "--config=… is missing after --"
}

# A container takes along what it wrote outside the current folder.
require_mounted() {
  local argument
  for argument in "${amopo_arguments[@]}"; do
    case "$argument" in
      --workdir=gs://?* | --workdir="$PWD"/* | --out=gs://?* | --out="$PWD"/*) ;;
      --workdir | --workdir= | --workdir=/* | --workdir=gs:* | --workdir=../* | --workdir=*/../* | \
        --out | --out= | --out=/* | --out=gs:* | --out=../* | --out=*/../*)
        fail "$argument is lost with the container; give a folder in the current one or gs://…, or mount it: --client=--volume=…"
        ;;
    esac
  done
}

# Several slices need a mesh of as many.
advise_slices() {
  if [[ "$1" -gt 1 && "${amopo_arguments[0]}" != export && "${amopo_arguments[*]}" != *--config.mesh.slices=* ]]; then
    say "$1 slices: unless the config has them, give --config.mesh.slices=$1 --config.mesh.data=$1 after --"
  fi
}

# The variable `amopo`: AMOPO from the environment, else the checkout's own, else the one on PATH.
find_amopo() {
  amopo="${AMOPO:-$checkout/.venv/bin/amopo}"
  if [[ -z "${AMOPO:-}" && ! -x "$amopo" ]]; then amopo=amopo; fi
}
