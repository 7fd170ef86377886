#!/usr/bin/env bash
# What the other scripts call on the machines of a pod, in the copy of the checkout there.
#
#   launch/worker.sh install EXTRA   makes .venv with amopo_jax[EXTRA] (tpu, cuda), on a Python that is new enough
#   launch/worker.sh start VERB …    starts amopo VERB … in the background, unless one is running; it writes to run.log
#   launch/worker.sh status          prints running, none, lost (with the machine's last reboot) or the last exit status
#   launch/worker.sh stop            asks the running one to save and stop
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$checkout"
[[ $# -gt 0 ]] || fail "give install, start, status or stop"
action="$1"
shift

# A number that was in use before a reboot may be another program's now.
is_running() {
  [[ -e run.pid ]] && tr '\0' ' ' 2> /dev/null < "/proc/$(cat run.pid)/cmdline" | grep -q 'amopo-run'
}

case "$action" in
  install)
    # The system's Python is too old on some images, and cannot be added to on others.
    if ! command -v uv > /dev/null; then
      curl --location --silent --show-error --fail https://astral.sh/uv/install.sh | sh
      export PATH="$HOME/.local/bin:$PATH"
    fi
    [[ -x .venv/bin/python ]] || uv venv --quiet --python='>=3.11' .venv
    uv pip install --quiet --python=.venv/bin/python --editable ".${1:+[$1]}"
    ;;
  start)
    if is_running; then
      say "a run is going on; it stays as it is"
      exit 0
    fi
    rm -f run.status
    # shellcheck disable=SC2016  # for the shell that waits
    setsid nohup bash -c '"$@"; echo "$?" > run.status' amopo-run "${AMOPO:-.venv/bin/amopo}" "$@" \
      >> run.log 2>&1 < /dev/null &
    echo "$!" > run.pid
    ;;
  status)
    if is_running; then
      echo running
    elif [[ -e run.status ]]; then
      cat run.status
    elif [[ -e run.pid ]]; then
      echo lost
    else
      echo none
    fi
    ;;
  stop)
    if is_running; then pkill -TERM -P "$(cat run.pid)"; fi
    ;;
  *) fail "unknown $(quoted "$action"); give install, start, status or stop" ;;
esac
