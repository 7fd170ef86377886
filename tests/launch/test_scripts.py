"""What holds for every script: it is clean shell, explains itself, and answers mistakes with one line and status 2."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.launch.conftest import AWKWARD, ROOT

SCRIPTS = sorted(path for path in (ROOT / "launch").iterdir() if path.suffix in (".sh", ".sbatch"))
LIBRARIES = {"lib.sh", "tpu_lib.sh"}
RUN = ("--", "--config=configs/quickstart.py", "--workdir=gs://bucket/run", AWKWARD)
TPU = ("--name=pod", "--zone=us-central1-a", "--type=v5litepod-256")
COMMANDS = {
  "local.sh": (),
  "gpu_node.sh": ("--image=image",),
  "tpu_vm.sh": ("all", *TPU),
  "queued_resources.sh": ("all", *TPU),
  "xpk.sh": ("--name=run", "--cluster=cluster", "--type=v5litepod-256", "--image=image"),
  "skypilot.sh": ("--name=run", "--type=tpu-v6e-256"),
  "slurm.sbatch": (),
}


def launch(clients, name, *arguments, **environment):
  return clients.run("bash", f"launch/{name}", *arguments, **environment)


def test_every_script_is_in_this_table():
  assert {path.name for path in SCRIPTS} == {*COMMANDS, *LIBRARIES, "worker.sh"}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_bash_can_read_it(path):
  assert subprocess.run(["bash", "-n", path], check=False).returncode == 0


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_it_can_be_executed_unless_it_is_sourced(path):
  assert bool(path.stat().st_mode & 0o111) == (path.name not in LIBRARIES)


def test_shellcheck_finds_nothing():
  shellcheck = shutil.which("shellcheck", path=f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}")
  if shellcheck is None:
    pytest.skip("shellcheck is not installed; requirements-dev.txt brings it")
  done = subprocess.run([shellcheck, *map(str, SCRIPTS)], capture_output=True, text=True, check=False)
  assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_the_comment_at_its_top(clients, name):
  result = launch(clients, name, "--help")
  assert (result.status, result.err) == (0, "")
  assert "--dry-run" in result.out
  assert f"launch/{name}" in result.out
  assert "set -euo" not in result.out


@pytest.mark.parametrize("name", COMMANDS)
def test_a_dry_run_needs_no_client_and_keeps_every_argument_whole(clients, name):
  clients.environment["PATH"] = "/usr/bin:/bin"
  for program in ("gcloud", "docker", "xpk", "sky", "srun"):
    clients.add(program)
  result = launch(clients, name, *COMMANDS[name], "--dry-run", *RUN, PATH=clients.environment["PATH"])
  assert (result.status, result.err) == (0, "")
  assert clients.calls == []
  words = [word for command in result.commands for word in command]
  # Either an argument as it is, or one level of quoting further down, for the shell of another machine.
  assert AWKWARD in words or any(AWKWARD in further(word, clients.folder) for word in words)


def further(word: str, folder: pathlib.Path) -> list[str]:
  """The words of a shell command that is itself one argument; nothing if it is none. Its `&&` are run, there."""
  command = f"set -- {word.partition('=')[2]}; printf '%s\\0' \"$@\""
  return subprocess.run(["bash", "-fc", command], cwd=folder, capture_output=True, text=True, check=False).stdout.split(
    "\0"
  )


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
  "options, message",
  [
    (("--such=1",), "unknown option --such; --help lists them"),
    (("--such",), "unknown option --such; --help lists them"),
    (("such thing",), "unknown argument such\\ thing; --help says what there is"),
    (("--client",), "--client needs a value: --client=…"),
    ((), "nothing to run; give -- --config=FILE --workdir=DIR"),
  ],
)
def test_a_mistake_is_one_line_and_status_2(clients, name, options, message):
  result = launch(clients, name, *COMMANDS[name], *options, "--dry-run")
  assert (result.status, result.out) == (2, "")
  assert result.err.startswith(f"launch/{name}: {message}")
  assert result.err.count("\n") == 1


@pytest.mark.parametrize("name", [name for name in COMMANDS if COMMANDS[name]])
def test_what_is_missing_is_named(clients, name):
  for option in COMMANDS[name]:
    if not option.startswith("--"):
      continue
    others = [other for other in COMMANDS[name] if other != option]
    result = launch(clients, name, *others, "--dry-run", *RUN)
    assert (result.status, result.out) == (2, "")
    assert result.err == f"launch/{name}: {option.partition('=')[0]}=… is missing\n"


@pytest.mark.parametrize("name", ["tpu_vm.sh", "queued_resources.sh", "xpk.sh", "skypilot.sh"])
@pytest.mark.parametrize(
  "workdir, message",
  [
    (("--workdir=runs/x",), "--workdir=runs/x is lost with the machine; give a place in a bucket, --workdir=gs://…"),
    (
      ("--workdir=gs://b/x", "--out=x.jsonl"),
      "--out=x.jsonl is lost with the machine; give a place in a bucket, --out=gs://…",
    ),
    ((), "--workdir=gs://… is missing after --"),
  ],
)
def test_a_workdir_that_goes_with_the_machine_is_refused(clients, name, workdir, message):
  result = launch(clients, name, *COMMANDS[name], "--dry-run", "--", "--config=configs/base.py", *workdir)
  assert (result.status, result.out, result.err) == (2, "", f"launch/{name}: {message}\n")


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("verb, shown", [("trian", "trian"), ("parse", "parse"), ("", "''")])
def test_a_verb_that_amopo_has_not_is_refused(clients, name, verb, shown):
  result = launch(clients, name, *COMMANDS[name], "--dry-run", "--", verb, *RUN[1:])
  assert (result.status, result.out) == (2, "")
  assert result.err == f"launch/{name}: amopo has no verb {shown}\n"


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("verb", ["doctor", "plan"])
def test_a_verb_of_one_process_is_not_given_to_several(clients, name, verb):
  result = launch(clients, name, *COMMANDS[name], "--dry-run", "--", verb, *RUN[1:])
  message = f"launch/{name}: amopo {verb} runs as one process; give it to one machine, without this script\n"
  is_alone = name in ("local.sh", "gpu_node.sh")
  assert (result.status, result.err) == ((0, "") if is_alone else (2, message))


def test_a_study_may_be_given_to_several(clients):
  study = ("lab", "baselines", "--out=/shared/lab", "--judge=judge me")
  result = launch(clients, "slurm.sbatch", *COMMANDS["slurm.sbatch"], "--dry-run", "--", *study)
  assert (result.status, result.err) == (0, "")
  assert "lab --processes=auto baselines --out=/shared/lab --judge=judge\\ me" in result.out


@pytest.mark.parametrize("name", ["tpu_vm.sh", "queued_resources.sh", "xpk.sh", "skypilot.sh"])
def test_a_result_that_goes_with_the_machine_is_refused(clients, name):
  run = lambda *given: launch(clients, name, *COMMANDS[name], "--dry-run", "--", "score", "--model=gs://b/run", *given)
  assert run("--out=gs://b/scores.jsonl").status == 0
  assert run().err == f"launch/{name}: --out=gs://… is missing after --\n"
  assert run("--out=scores.jsonl").err.startswith(f"launch/{name}: --out=scores.jsonl is lost with the machine")


def test_one_process_of_this_machine_runs_any_verb(clients):
  run = lambda number: launch(clients, "local.sh", f"--processes={number}", "--dry-run", "--", "doctor")
  assert run(1).status == 0
  assert run(2).err.startswith("launch/local.sh: amopo doctor runs as one process")


@pytest.mark.parametrize("name", ["tpu_vm.sh", "queued_resources.sh", "skypilot.sh"])
@pytest.mark.parametrize(
  "config, message",
  [
    (("--config=no/such.py",), "--config=no/such.py: no such file in the checkout, which is what the machines get"),
    ((), "--config=… is missing after --"),
  ],
)
def test_a_config_that_the_machines_would_not_have_is_refused(clients, name, config, message):
  result = launch(clients, name, *COMMANDS[name], "--dry-run", "--", *config, "--workdir=gs://bucket/run")
  assert (result.status, result.out, result.err) == (2, "", f"launch/{name}: {message}\n")


@pytest.mark.parametrize("name", ["tpu_vm.sh", "queued_resources.sh", "xpk.sh", "skypilot.sh"])
@pytest.mark.parametrize("last", ["--workdir=/tmp/run", "--workdir=gs://", "--workdir"])
def test_every_workdir_is_looked_at(clients, name, last):
  result = launch(clients, name, *COMMANDS[name], "--dry-run", *RUN, last)
  assert (result.status, result.out) == (2, "")
  assert result.err.startswith(f"launch/{name}: {last} is lost with the machine")


@pytest.mark.parametrize("name", ["queued_resources.sh", "xpk.sh"])
def test_slices_that_no_mesh_was_given_for_are_pointed_out(clients, name):
  command = (*COMMANDS[name], "--slices=2", "--dry-run", *RUN)
  result = launch(clients, name, *command)
  assert result.status == 0
  assert "give --config.mesh.slices=2 --config.mesh.data=2 after --" in result.err
  assert launch(clients, name, *command, "--config.mesh.slices=2").err == ""


def test_a_flag_takes_no_value_and_several_machines_are_no_tpu(clients):
  result = launch(clients, "tpu_vm.sh", *COMMANDS["tpu_vm.sh"], "--spot=yes", "--dry-run", *RUN)
  assert (result.status, result.err) == (2, "launch/tpu_vm.sh: --spot takes no value\n")
  result = launch(clients, "skypilot.sh", *COMMANDS["skypilot.sh"], "--nodes=2", "--dry-run", *RUN)
  assert (result.status, result.out, result.err.count("\n")) == (2, "", 1)


@pytest.mark.parametrize("name", COMMANDS)
def test_another_verb_than_train_may_come_first(clients, name):
  result = launch(clients, name, *COMMANDS[name], "--dry-run", "--", "score", "--model=gs://b/run", "--out=gs://b/x")
  assert (result.status, result.err) == (0, "")
  assert "score" in result.out
  assert "train" not in result.out
