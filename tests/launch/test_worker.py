"""worker.sh in a copy of launch/, as it lies on a machine of a pod."""

import shutil
import subprocess
import time

import pytest

from tests.launch.conftest import AWKWARD, ROOT

AMOPO = """
import signal, time
if "--wait" in sys.argv:
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
  print("ready", flush=True)
  time.sleep(60)
sys.exit(3)
"""


@pytest.fixture
def machine(clients, tmp_path):
  """Runs worker.sh on a machine that has a copy of launch/ and a program that stands in for amopo."""
  checkout = tmp_path / "amopo_jax"
  shutil.copytree(ROOT / "launch", checkout / "launch")
  amopo = clients.add("amopo", AMOPO)

  def run(*arguments):
    return clients.run("bash", "amopo_jax/launch/worker.sh", *arguments, cwd=tmp_path, AMOPO=str(amopo))

  run.checkout = checkout
  yield run
  run("stop")


def wait_for(machine, status):
  end = time.monotonic() + 60
  while (found := machine("status").out.strip()) != status:
    assert time.monotonic() < end, found
    time.sleep(0.05)


def test_a_run_goes_on_in_the_background_and_leaves_its_status_and_its_log(clients, machine):
  assert machine("status").out == "none\n"
  result = machine("start", "train", AWKWARD)
  assert (result.status, result.out, result.err) == (0, "", "")
  wait_for(machine, "3")
  assert clients.calls == [["amopo", "train", AWKWARD]]


def test_a_running_one_is_left_alone_and_stops_when_asked(clients, machine):
  machine("start", "train", "--wait")
  log = machine.checkout / "run.log"
  while "ready" not in log.read_text():
    time.sleep(0.05)
  assert machine("status").out == "running\n"
  assert "a run is going on" in machine("start", "train").err
  assert len(clients.calls) == 1
  assert machine("stop").status == 0
  wait_for(machine, "143")
  assert machine("stop").status == 0


def test_a_run_that_ended_with_the_machine_is_lost(machine):
  with subprocess.Popen(["sleep", "60"]) as another:
    (machine.checkout / "run.pid").write_text(str(another.pid))  # the number is another program's now
    assert machine("status").out == "lost\n"
    assert machine("stop").status == 0
    assert another.poll() is None
    another.kill()
  assert machine("start", "train").status == 0
  wait_for(machine, "3")


def test_install_makes_an_environment_once_and_installs_each_time(clients, machine):
  clients.add("uv")
  assert machine("install", "tpu").status == 0
  install = ["uv", "pip", "install", "--quiet", "--python=.venv/bin/python", "--editable", ".[tpu]"]
  assert clients.calls == [["uv", "venv", "--quiet", "--python=>=3.11", ".venv"], install]
  python = machine.checkout / ".venv" / "bin" / "python"
  python.parent.mkdir(parents=True)
  python.symlink_to("/bin/true")
  assert machine("install", "tpu").status == 0
  assert clients.calls[2:] == [install]


@pytest.mark.parametrize("arguments", [(), ("begin",)])
def test_what_to_do_is_said(machine, arguments):
  result = machine(*arguments)
  assert (result.status, result.err.count("\n")) == (2, 1)
  assert "install, start, status or stop" in result.err
