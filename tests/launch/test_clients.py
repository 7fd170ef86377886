"""What xpk, SkyPilot, Slurm and Docker are asked, and that amopo gets its arguments whole from what they then do."""

import pathlib
import re
import shutil

import pytest
import yaml

from tests.launch.conftest import AWKWARD, ROOT

RUN = ("--config=configs/base.py", "--workdir=gs://bucket/run", AWKWARD)


def launch(clients, name, *arguments, **environment):
  return clients.run("bash", f"launch/{name}", *arguments, **environment)


def amopo_calls(clients):
  return [call[1:] for call in clients.calls if call[0] == "amopo"]


def test_xpk_makes_a_jobset_that_restarts_and_execs_amopo(clients):
  clients.add("xpk")
  clients.add("amopo")
  options = ("--name=run", "--cluster=c", "--type=v6e-256", "--slices=2", "--image=image", "--zone=z")
  assert launch(clients, "xpk.sh", *options, "--client=--spot", "--", *RUN).status == 0
  ((*call, command),) = clients.calls
  assert call == [
    *("xpk", "workload", "create", "--workload=run", "--cluster=c", "--tpu-type=v6e-256", "--num-slices=2"),
    *("--docker-image=image", "--max-restarts=10", "--restart-on-exit-codes=1"),
    *("--termination-grace-period-seconds=120", "--zone=z", "--spot"),
  ]
  command = command.removeprefix("--command=")
  assert command.startswith("exec amopo train "), "xpk passes SIGTERM on to what it started itself"
  assert "\n" not in command, "xpk writes it into one line of YAML"
  assert clients.run("bash", "-c", f"({command})").status == 0
  assert amopo_calls(clients) == [["train", "--processes=auto", *RUN]]


@pytest.mark.parametrize("type_, nodes, extra", [("tpu-v6e-256", 1, "tpu"), ("H100:8", 2, "cuda")])
def test_skypilot_gets_a_job_of_the_file_in_this_checkout(clients, type_, nodes, extra):
  clients.add("sky", "open(os.path.join(os.environ['HOME'], 'cwd'), 'w').write(os.getcwd())")
  options = ("--name=run", f"--type={type_}", f"--nodes={nodes}", "--client=--infra=gcp/us-east5")
  script = str(ROOT / "launch" / "skypilot.sh")
  assert clients.run("bash", script, *options, "--", *RUN, cwd=clients.folder).status == 0
  (call,) = clients.calls
  assert call[:4] == ["sky", "jobs", "launch", "--name=run"]
  assert call[4:8] == [f"--gpus={type_}", f"--num-nodes={nodes}", "--detach-run", "--yes"]
  assert call[-1] == "launch/skypilot.yaml"
  assert (clients.folder / "cwd").read_text() == str(ROOT)
  assert ("--env=AMOPO_EXTRA=cuda" in call) == (extra == "cuda")


@pytest.mark.parametrize(
  "extra, nodes, join",
  [
    ("tpu", "64", ["--processes=auto"]),
    ("cuda", "1", []),
    ("cuda", "2", ["--processes=2", "--process=1", "--coordinator=10.0.0.1:8476"]),
  ],
)
def test_a_task_of_skypilot_joins_its_machines(clients, extra, nodes, join):
  task = yaml.safe_load((ROOT / "launch" / "skypilot.yaml").read_text())
  clients.add("sky")
  given = ["score", *RUN, "--out=gs://bucket/x"]
  launch(clients, "skypilot.sh", "--name=run", "--type=any", "--", *given)
  argument = next(flag for flag in clients.calls[0] if flag.startswith("--env=AMOPO_ARGUMENTS="))
  environment = {
    **{name: value for name, value in task["envs"].items() if value},
    "AMOPO_ARGUMENTS": argument.removeprefix("--env=AMOPO_ARGUMENTS="),
    "AMOPO_EXTRA": extra,
    "SKYPILOT_NUM_NODES": nodes,
    "SKYPILOT_NODE_RANK": "1",
    "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
  }
  amopo = clients.add("amopo")
  assert clients.run("bash", "-c", task["run"], AMOPO=str(amopo), **environment).status == 0
  assert amopo_calls(clients) == [["score", *join, *given[1:]]]


def test_skypilot_runs_again_what_was_stopped(clients):
  task = yaml.safe_load((ROOT / "launch" / "skypilot.yaml").read_text())
  assert task["resources"]["job_recovery"]["recover_on_exit_codes"] == [143]
  assert task["envs"]["AMOPO_ARGUMENTS"] is None, "SkyPilot asks for what is null"


@pytest.fixture
def slurm(clients, tmp_path):
  """Runs slurm.sbatch as Slurm does: a copy, in a folder of its own; `status` is what srun returns."""
  spool = tmp_path / "spool"
  spool.mkdir()
  script = shutil.copy(ROOT / "launch" / "slurm.sbatch", spool / "slurm_script")

  def run(*arguments, status=0, cwd=ROOT, **environment):
    clients.add("srun", f"sys.exit({status})")
    clients.add("scontrol")
    job = {"SLURM_JOB_ID": "17", "SLURM_SUBMIT_DIR": str(cwd), "AMOPO": "/opt/amopo"}
    return clients.run("bash", str(script), *arguments, cwd=cwd, **job, **environment)

  return run


def test_slurm_starts_the_tasks_and_ends_with_their_status(clients, slurm):
  assert slurm("--", *RUN).status == 0
  assert clients.calls == [
    ["srun", "--label", "--kill-on-bad-exit=0", "--wait=0", "/opt/amopo", "train", "--processes=auto", *RUN]
  ]


@pytest.mark.parametrize("status, starts", [(1, 3), (134, 3), (2, 1), (143, 1)])
def test_slurm_starts_a_run_that_failed_again_in_the_same_job(clients, slurm, status, starts):
  result = slurm("--failures=2", "--retries=0", "--", *RUN, status=status)
  assert result.status == status
  assert [call[0] for call in clients.calls] == starts * ["srun"]
  assert result.err.count("again into the same workdir") == starts - 1


@pytest.mark.parametrize("count, requeues", [(None, True), ("2", True), ("3", False)])
def test_slurm_queues_a_stopped_run_again_as_often_as_stated(clients, slurm, count, requeues):
  restarts = {} if count is None else {"SLURM_RESTART_COUNT": count}
  assert slurm("--retries=3", "--", *RUN, status=143, **restarts).status == 143
  assert clients.calls[1:] == ([["scontrol", "requeue", "17"]] if requeues else [])


def test_slurm_wants_a_task_per_gpu_and_the_checkout(clients, slurm, tmp_path):
  result = slurm("--", *RUN, SLURM_GPUS_ON_NODE="8")
  assert (result.status, result.err) == (
    2,
    "launch/slurm.sbatch: 1 tasks on a node of 8 GPUs would leave GPUs unused; give sbatch --ntasks-per-node=8\n",
  )
  assert slurm("--", *RUN, SLURM_GPUS_ON_NODE="8", SLURM_NTASKS_PER_NODE="8").status == 0
  assert slurm("--", *RUN, SLURM_GPUS_ON_NODE="8", SLURM_TASKS_PER_NODE="8(x2)").status == 0, "sbatch --ntasks=16"
  result = slurm("--", *RUN, cwd=tmp_path)
  assert (result.status, result.err.count("\n")) == (2, 1)
  assert "submit from the checkout" in result.err


def test_slurm_is_asked_to_warn_and_to_requeue():
  directives = re.findall(r"^#SBATCH (.*)$", (ROOT / "launch" / "slurm.sbatch").read_text(), re.MULTILINE)
  assert {"--requeue", "--signal=TERM@300", "--open-mode=append"} <= set(directives)


def test_docker_gets_the_gpus_and_the_folder_and_its_status_is_kept(clients, tmp_path):
  clients.add("docker", "sys.exit(143)")
  folder = tmp_path / "a folder"
  folder.mkdir()
  script = str(ROOT / "launch" / "gpu_node.sh")
  options = ("--image=image", "--gpus=device=0,1", "--retries=5", "--client=--env=HF_TOKEN")
  assert clients.run("bash", script, *options, "--", *RUN, cwd=folder).status == 143
  (call,) = clients.calls
  assert call[:7] == ["docker", "run", "--rm", "--init", "--gpus=device=0,1", "--network=host", "--ipc=host"]
  assert call[7:9] == [f"--volume={folder}:{folder}", f"--workdir={folder}"]
  assert call[9:12] == ["--stop-timeout=300", "--env=HF_TOKEN", "image"]
  assert call[12:] == ["/opt/amopo_jax/launch/local.sh", "--retries=5", "--", "train", *RUN]


@pytest.mark.parametrize("workdir", ["/elsewhere/run", "../run", "gs://"])
def test_docker_gets_no_run_whose_workdir_the_container_would_take_along(clients, tmp_path, workdir):
  script, run = str(ROOT / "launch" / "gpu_node.sh"), ("--config=configs/base.py", f"--workdir={workdir}")
  result = clients.run("bash", script, "--dry-run", "--image=image", "--", *run, cwd=tmp_path)
  assert (result.status, result.out, result.err.count("\n")) == (2, "", 1)
  assert f"--workdir={workdir} is lost with the container" in result.err
  mounted = ("--dry-run", "--image=image", "--client=--volume=/elsewhere:/elsewhere", "--", *run)
  assert clients.run("bash", script, *mounted, cwd=tmp_path).status == 0


def test_the_image_is_built_from_what_is_let_through():
  folder = ROOT / "launch"
  sources = [
    source
    for line in (folder / "Dockerfile").read_text().splitlines()
    if line.startswith("COPY ")
    for source in line.split()[1:-1]
  ]
  ignored, *rules = (folder / "Dockerfile.dockerignore").read_text().split()
  assert ignored == "*"
  assert sorted(rule.removeprefix("!") for rule in rules if rule.startswith("!")) == sorted(sources)
  assert all(list(pathlib.Path(ROOT).glob(source)) for source in sources)
  for extra in ("tpu", "cuda"):
    assert (ROOT / f"requirements-{extra}.txt").exists()
