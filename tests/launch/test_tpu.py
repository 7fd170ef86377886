"""tpu_vm.sh and queued_resources.sh against a cloud that really runs what it is told, in folders of this machine."""

import json

import pytest

from tests.launch.conftest import AWKWARD

GCLOUD = """
import pathlib, shutil, subprocess
folder = pathlib.Path({folder!r})
cloud = json.loads((folder / "cloud.json").read_text())
machine = folder / "machine"
_, _, kind, verb, *flags = sys.argv[1:]

def lose(state):
  shutil.rmtree(machine, ignore_errors=True)
  cloud["states"] = [state]

def end(status, message=""):
  (folder / "cloud.json").write_text(json.dumps(cloud))
  if message:
    print(message, file=sys.stderr if status else sys.stdout)
  sys.exit(status)

if verb == "create":
  if cloud["create"]:
    status = cloud["create"].pop(0)
    if status:
      end(status, "ERROR: no capacity")
  ready = ["READY" if kind == "tpu-vm" else "ACTIVE"]
  cloud["states"] = cloud["after_create"].pop(0) if cloud["after_create"] else ready
  machine.mkdir()
elif verb == "describe":
  if not cloud["states"]:
    end(1, "ERROR: NOT_FOUND: Resource was not found")
  state = cloud["states"].pop(0) if len(cloud["states"]) > 1 else cloud["states"][0]
  if state == "no network":
    end(1, "ERROR: no network")
  end(0, state)
elif verb == "delete":
  shutil.rmtree(machine, ignore_errors=True)
  cloud["states"] = []
elif verb == "scp":
  shutil.copy(flags[0], machine)
elif verb == "ssh":
  command = next(flag for flag in flags if flag.startswith("--command=")).partition("=")[2]
  environment = dict(os.environ, HOME=str(machine), AMOPO=str(folder / "amopo"))
  done = subprocess.run(["bash", "-c", command], cwd=machine, env=environment)
  if command.endswith("status"):
    (folder / "watched").touch()
  if " start " in command and cloud["lose"]:
    state = cloud["lose"].pop(0)
    if state:
      while not (folder / "started").exists():
        pass
      (folder / "started").unlink()
      lose(state)
  end(done.returncode)
end(0)
"""
AMOPO = """
import pathlib, time
folder = pathlib.Path({folder!r})
plan = json.loads((folder / "amopo.json").read_text())
(folder / "amopo.json").write_text(json.dumps(plan[1:]))
(folder / "started").touch()
while plan[0] == "until watched" and not (folder / "watched").exists():
  time.sleep(0.05)
sys.exit(0 if plan[0] == "until watched" else plan[0])
"""
SCRIPTS = {"tpu_vm.sh": "tpu-vm", "queued_resources.sh": "queued-resources"}
PLACE = ("--name=pod", "--zone=us-central1-a")
RUN = ("--config=configs/base.py", "--workdir=gs://bucket/run", AWKWARD)


@pytest.fixture
def launch(clients):
  """Runs one of the scripts; the keywords plan what the cloud and amopo do."""

  def run(script, step, *options, states=(), create=(), after_create=(), lose=(), amopo=(0,), arguments=RUN):
    cloud = {"states": states, "create": create, "after_create": after_create, "lose": lose}
    (clients.folder / "cloud.json").write_text(json.dumps(cloud))
    (clients.folder / "amopo.json").write_text(json.dumps(amopo))
    clients.add("gcloud", GCLOUD.format(folder=str(clients.folder)))
    clients.add("amopo", AMOPO.format(folder=str(clients.folder)))
    clients.add("uv")
    flags = ("--type=v6e-256", "--poll=0") if step == "all" else ()
    after = ("--", *arguments) if arguments else ()
    return clients.run("bash", f"launch/{script}", step, *PLACE, *flags, *options, *after)

  return run


LOG = "ssh"
"""The end of the log, before a machine that has it goes away."""


def steps(clients):
  """The verbs that gcloud was given, without the looks that do not change anything."""
  names = []
  for program, *arguments in clients.calls:
    if program != "gcloud" or arguments[3] == "describe":
      continue
    command = arguments[-1] if arguments[3] == "ssh" else ""
    if command.endswith("worker.sh status"):
      continue
    names.append(next((name for name in ("tar", "install", "start") if f"{name} " in command), arguments[3]))
  return names


def runs(clients):
  return [call[1:] for call in clients.calls if call[0] == "amopo"]


SETUP = ["scp", "tar", "install", "start"]


@pytest.mark.parametrize("script, lost", [("tpu_vm.sh", "PREEMPTED"), ("queued_resources.sh", "SUSPENDED")])
def test_a_run_that_loses_its_machines_goes_on_in_the_same_workdir_on_new_ones(clients, launch, script, lost):
  result = launch(script, "all", lose=[lost], amopo=[0, 0])
  assert result.status == 0, result.err
  assert steps(clients) == ["create", *SETUP, "delete", "create", *SETUP, "delete"]
  assert runs(clients) == [["train", "--processes=auto", *RUN]] * 2
  assert f"pod is {lost}" in result.err
  assert "retry 1 of 10" in result.err


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_call_names_the_kind_and_the_zone(clients, launch, script):
  assert launch(script, "all", "--project=mine").status == 0
  calls = [call for call in clients.calls if call[0] == "gcloud"]
  assert all(call[1:4] == ["compute", "tpus", SCRIPTS[script]] for call in calls)
  assert all({"--zone=us-central1-a", "--project=mine"} <= set(call) for call in calls)


def test_a_run_that_fails_or_is_stopped_starts_again_on_the_same_machines(clients, launch):
  result = launch("tpu_vm.sh", "all", "--retries=3", amopo=[1, 143, 0])
  assert result.status == 0, result.err
  assert steps(clients) == ["create", *SETUP, LOG, *SETUP, LOG, *SETUP, "delete"]


def test_it_gives_up_after_the_stated_number_of_retries(clients, launch):
  result = launch("queued_resources.sh", "all", "--retries=1", amopo=[1, 1, 0])
  assert result.status == 1
  assert steps(clients) == ["create", *SETUP, LOG, *SETUP, LOG, "delete"]
  assert sum("run.log" in word for call in clients.calls for word in call) == 2


def test_a_mistake_is_not_tried_again_and_the_machines_stay_for_the_next_try(clients, launch):
  result = launch("queued_resources.sh", "all", amopo=[2])
  assert result.status == 2
  assert steps(clients) == ["create", *SETUP, LOG]
  assert "that is left to you" in result.err


def test_no_capacity_is_tried_again_a_flag_that_gcloud_refuses_is_not(clients, launch):
  assert launch("tpu_vm.sh", "all", "--retries=1", create=[1, 0]).status == 0
  assert steps(clients) == ["create", "create", *SETUP, "delete"]
  clients.calls_file.unlink()
  assert launch("tpu_vm.sh", "all", create=[2]).status == 2
  assert steps(clients) == ["create"]


def test_a_request_is_waited_for_and_made_again_when_it_failed(clients, launch):
  queue = [["WAITING_FOR_RESOURCES", "PROVISIONING", "FAILED"], ["ACCEPTED", "ACTIVE"]]
  result = launch("queued_resources.sh", "all", after_create=queue)
  assert result.status == 0, result.err
  assert steps(clients) == ["create", "delete", "create", *SETUP, "delete"]
  assert "pod is PROVISIONING; waiting" in result.err


def test_a_state_that_gcloud_cannot_tell_ends_it_at_first_and_is_waited_out_later(clients, launch):
  assert launch("tpu_vm.sh", "all", states=["no network"]).status == 1
  assert steps(clients) == []
  result = launch("tpu_vm.sh", "all", after_create=[["READY", "no network", "READY"]])
  assert result.status == 0, result.err
  assert steps(clients) == ["create", *SETUP, "delete"]


def test_a_run_that_is_going_on_is_only_watched(clients, launch):
  assert launch("tpu_vm.sh", "create", "--type=v6e-256", arguments=()).status == 0
  for step in ("copy", "install"):
    assert launch("tpu_vm.sh", step, states=["READY"], arguments=()).status == 0
  assert launch("tpu_vm.sh", "run", states=["READY"], amopo=["until watched"]).status == 0
  while not (clients.folder / "started").exists():
    pass
  clients.calls_file.unlink()
  watched = launch("tpu_vm.sh", "all", states=["READY"])
  assert watched.status == 0, watched.err
  assert "a run is going on; waiting for it" in watched.err
  assert steps(clients) == ["delete"]


def test_waiting_ends_with_the_status_of_the_run(clients, launch):
  assert launch("tpu_vm.sh", "create", "--type=v6e-256", arguments=()).status == 0
  assert launch("tpu_vm.sh", "copy", states=["READY"], arguments=()).status == 0
  assert launch("tpu_vm.sh", "run", states=["READY"], amopo=[143]).status == 0
  while not (clients.folder / "started").exists():
    pass
  waited = launch("tpu_vm.sh", "wait", "--poll=0", states=["READY"], arguments=())
  assert (waited.status, waited.out) == (143, "143\n")
  waited = launch("tpu_vm.sh", "wait", "--poll=0", states=["PREEMPTED"], arguments=())
  assert (waited.status, waited.out) == (1, "lost\n")


def test_a_copy_takes_away_what_an_earlier_one_brought_and_nothing_else(clients, launch):
  assert launch("tpu_vm.sh", "create", "--type=v6e-256", arguments=()).status == 0
  there = clients.folder / "machine" / "amopo_jax"
  kept = (".venv/bin/python", "run.log", "run.pid")
  for name in (*kept, "configs/deleted here.py"):
    (there / name).parent.mkdir(parents=True, exist_ok=True)
    (there / name).touch()
  (there.parent / "amopo_jax.files").write_text("configs/deleted here.py\n")
  assert launch("tpu_vm.sh", "copy", states=["READY"], arguments=()).status == 0
  left = {str(path.relative_to(there)) for path in there.rglob("*") if path.is_file()}
  assert {*kept, "configs/base.py", "launch/lib.sh"} <= left
  assert "configs/deleted here.py" not in left
  assert "launch/lib.sh" in (there.parent / "amopo_jax.files").read_text().splitlines()


def test_variables_are_handed_on_by_name_and_not_shown(clients):
  words = ("run", *PLACE, "--pass=HF_TOKEN,A_B", "--dry-run", "--", *RUN)
  shown = clients.run("bash", "launch/tpu_vm.sh", *words, HF_TOKEN="secret it is", A_B="$x")
  assert (shown.status, "secret" in shown.out) == (0, False)
  assert "HF_TOKEN=… A_B=… bash amopo_jax/launch/worker.sh start" in shown.commands[0][-1]
  missing = clients.run("bash", "launch/tpu_vm.sh", *words, HF_TOKEN="secret")
  assert (missing.status, missing.err) == (2, "launch/tpu_vm.sh: --pass=HF_TOKEN,A_B: A_B is not set here\n")
  odd = clients.run("bash", "launch/tpu_vm.sh", "run", *PLACE, "--pass=a;b", "--dry-run", "--", *RUN)
  assert (odd.status, odd.err.count("\n")) == (2, 1)


@pytest.mark.parametrize(
  "type_, version",
  [
    ("v5litepod-256", "v2-alpha-tpuv5-lite"),
    ("v5p-128", "v2-alpha-tpuv5"),
    ("v6e-256", "v2-alpha-tpuv6e"),
    ("v4-8", "tpu-ubuntu2204-base"),
  ],
)
def test_the_software_version_goes_with_the_type(clients, type_, version):
  dry = ("--dry-run", *PLACE, f"--type={type_}")
  (one,) = clients.run("bash", "launch/tpu_vm.sh", "create", *dry, "--spot", "--client=--network=n").commands
  assert one[:7] == ["gcloud", "compute", "tpus", "tpu-vm", "create", "pod", "--zone=us-central1-a"]
  assert one[7:] == [f"--accelerator-type={type_}", f"--version={version}", "--spot", "--network=n"]
  (two,) = clients.run("bash", "launch/queued_resources.sh", "create", *dry, "--slices=2", "--version=v").commands
  assert two[-4:] == [f"--accelerator-type={type_}", "--runtime-version=v", "--node-count=2", "--node-prefix=pod"]


@pytest.mark.parametrize(
  "arguments, message",
  [
    ((), "give what to do first: one of create copy install run wait all status tail stop delete"),
    (("make",), "give what to do first: one of create"),
    (("delete", *PLACE, "--", "x"), "delete takes nothing after --"),
    (("all", *PLACE, "--type=v6e-8", "--retries=many"), "--retries=many is not a whole number of 0 or more"),
  ],
)
def test_what_to_do_is_said_first(clients, arguments, message):
  result = clients.run("bash", "launch/tpu_vm.sh", *arguments)
  assert (result.status, result.out) == (2, "")
  assert result.err.startswith(f"launch/tpu_vm.sh: {message}")
