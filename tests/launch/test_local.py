"""local.sh: several processes of a program that stands in for amopo."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.launch.conftest import AWKWARD, ROOT

AMOPO = """
import signal, time
process = next((a.partition("=")[2] for a in sys.argv if a.startswith("--process=")), "0")
plan = dict(a.removeprefix("--on-").split("=") for a in sys.argv if a.startswith("--on-"))
todo = plan.get(process, "0")
if todo == "wait":
  once = lambda *_: (signal.signal(signal.SIGTERM, signal.SIG_IGN), os.write(1, b"saved\\n"), os._exit(143))
  signal.signal(signal.SIGTERM, once)
if todo == "deaf":
  signal.signal(signal.SIGTERM, signal.SIG_IGN)
xla, gpus = os.environ.get("XLA_FLAGS"), os.environ.get("CUDA_VISIBLE_DEVICES")
print("process", process, "xla", xla, "gpus", gpus, flush=True)
here = os.path.dirname(os.path.abspath(sys.argv[0]))
if todo in ("deaf", "wait"):
  open(os.path.join(here, "listening " + process), "w").close()
  time.sleep(30)
waits = [other for other, what in plan.items() if what in ("deaf", "wait")]
while not all(os.path.exists(os.path.join(here, "listening " + other)) for other in waits):
  time.sleep(0.05)
if todo == "late":
  time.sleep(0.5)
  print("ended by itself", flush=True)
  todo = "3"
sys.exit(int(todo))
"""


@pytest.fixture
def local(clients):
  """Runs local.sh; `--on-I=WHAT` among the arguments says what process I does."""
  amopo = clients.add("other amopo", AMOPO)

  def run(*options, arguments=("--config=c.py", "--workdir=w"), **environment):
    return clients.run("bash", "launch/local.sh", *options, "--", *arguments, AMOPO=str(amopo), **environment)

  return run


def test_one_process_is_amopo_itself(clients, local):
  result = local(arguments=("--workdir=w", AWKWARD))
  assert (result.status, result.out) == (0, "process 0 xla None gpus None\n")
  assert clients.calls == [["other amopo", "train", "--workdir=w", AWKWARD]]


def test_processes_join_at_one_free_port_and_label_their_lines(clients, local):
  result = local("--processes=3", "--devices=2", arguments=("score", AWKWARD), XLA_FLAGS="--before")
  assert (result.status, result.err) == (0, "")
  flags = "--before --xla_force_host_platform_device_count=2"
  assert sorted(result.out.splitlines()) == [f"[{i}] process {i} xla {flags} gpus None" for i in range(3)]
  calls = sorted(clients.calls)
  assert [call[:4] for call in calls] == [["other amopo", "score", "--processes=3", f"--process={i}"] for i in range(3)]
  assert all(call[5:] == [AWKWARD] for call in calls)
  (coordinator,) = {call[4] for call in calls}
  assert re.fullmatch(r"--coordinator=127\.0\.0\.1:[23]\d{4}", coordinator)


def test_a_dry_run_prints_what_would_run(clients, local):
  result = local("--dry-run", "--processes=2", "--devices=2")
  assert (result.status, clients.calls) == (0, [])
  for process, command in enumerate(result.commands):
    assert command[:3] == ["env", "JAX_PLATFORMS=cpu", "XLA_FLAGS=--xla_force_host_platform_device_count=2"]
    assert command[3].endswith("other amopo")
    assert command[4:7] == ["train", "--processes=2", f"--process={process}"]
    assert command[8:] == ["--config=c.py", "--workdir=w"]


def test_gpus_are_split(clients, local):
  clients.add("nvidia-smi", "print('0\\n1\\n2\\n3')")
  lines = local("--processes=2").out.splitlines()
  assert sorted(lines) == ["[0] process 0 xla None gpus 0,1", "[1] process 1 xla None gpus 2,3"]
  lines = local("--processes=2", CUDA_VISIBLE_DEVICES="5,7").out.splitlines()
  assert sorted(lines) == ["[0] process 0 xla None gpus 5", "[1] process 1 xla None gpus 7"]
  result = local("--processes=3")
  assert (result.status, result.err) == (
    2,
    "launch/local.sh: 4 GPUs cannot be split between --processes=3; choose another number or --devices=N\n",
  )


def test_the_first_failure_is_the_status_and_the_others_may_end_by_themselves(local):
  result = local("--processes=3", "--grace=20", arguments=("--on-0=late", "--on-1=5", "--on-2=0"))
  assert result.status == 5
  assert "[0] ended by itself" in result.out


def test_after_the_grace_the_others_are_asked_and_then_killed(local):
  start = time.monotonic()
  result = local("--processes=3", "--grace=1", arguments=("--on-0=deaf", "--on-1=5", "--on-2=wait"))
  assert result.status == 5
  assert "[2] saved" in result.out
  assert time.monotonic() - start < 15


def test_a_process_that_was_stopped_has_the_others_stop_and_save(local):
  result = local("--processes=2", "--grace=20", arguments=("--on-0=wait", "--on-1=143"))
  assert result.status == 143
  assert "[0] saved" in result.out


@pytest.mark.parametrize(
  "name, options",
  [
    ("SIGTERM", ()),
    ("SIGTERM", ("--retries=3",)),
    ("SIGTERM", ("--processes=2",)),
    ("SIGTERM", ("--processes=2", "--retries=3")),
    ("SIGINT", ("--processes=2", "--retries=3")),
  ],
)
def test_a_signal_reaches_every_process_and_is_not_retried(clients, name, options):
  amopo = clients.add("amopo", AMOPO)
  # The background jobs of a shell ignore SIGINT, and so would their children.
  listening = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp('bash', sys.argv[1:])"
  script = ["bash", "launch/local.sh", *options, "--", "--on-0=wait", "--on-1=wait"]
  command = [sys.executable, "-c", listening, *script]
  environment = {**clients.environment, "AMOPO": str(amopo)}
  with subprocess.Popen(
    command,
    cwd=ROOT,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  ) as script:
    for _ in range(2 if "--processes=2" in options else 1):
      assert "process" in script.stdout.readline()
    os.kill(script.pid, getattr(signal, name))
    out = script.stdout.read()
  assert script.returncode == 143
  assert out.count("saved") == (2 if "--processes=2" in options else 1)
  assert "again" not in out


@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_that_fails_starts_again_as_often_as_stated(clients, local, processes):
  result = local(f"--processes={processes}", "--retries=2", "--grace=20", arguments=("--on-0=7",))
  assert result.status == 7
  assert len(clients.calls) == 3 * processes
  assert result.err.splitlines()[-2:] == [
    f"launch/local.sh: ended with status 7; again into the same workdir (retry {retry} of 2)" for retry in (1, 2)
  ]


def test_a_mistake_is_not_tried_again(clients, local):
  assert local("--retries=2", arguments=("--on-0=2",)).status == 2
  assert len(clients.calls) == 1


@pytest.mark.parametrize(
  "option, message",
  [
    ("--processes=0", "--processes=0 is not a whole number of 1 or more"),
    ("--processes=2.5", "--processes=2.5 is not a whole number of 1 or more"),
    ("--processes", "--processes needs a value: --processes=…"),
    ("--devices=none", "--devices=none is not a whole number of 1 or more"),
    ("--grace=", "--grace= is not a whole number of 0 or more"),
  ],
)
def test_numbers_are_checked(local, option, message):
  result = local(option)
  assert (result.status, result.out, result.err) == (2, "", f"launch/local.sh: {message}\n")
