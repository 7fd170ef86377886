"""What can be seen of joining with one process; tests/test_processes.py has the others."""

import socket

import jax
import pytest

from amopo_jax.join import HEARTBEAT_SECONDS, join, leave
from amopo_jax.processes import SIGN_SECONDS, SILENT_SECONDS
from amopo_jax.types import InputError


@pytest.mark.parametrize(
  "processes, process, coordinator, message",
  [
    ("two", 0, "a:1", "--processes=two: is neither auto nor a number of processes"),
    ("0", 0, "a:1", "--processes=0: is neither auto nor a number"),
    ("2", None, "a:1", r"--processes=2: give --process=I, the index of this one, too"),
    ("2", 0, "", r"--processes=2: give --coordinator=HOST:PORT, where process 0 listens, too"),
    ("2", 2, "a:1", r"--process=2: is not in 0 to 1"),
    ("2", -1, "a:1", r"--process=-1: is not in 0 to 1"),
    ("2", 0, "host", r"--coordinator=host: is not HOST:PORT"),
    ("2", 0, "host:port", r"--coordinator=host:port: is not HOST:PORT"),
    ("auto", 0, "", "--processes=auto: takes neither --process nor --coordinator"),
    ("1", None, "a:1", "--processes=1: takes neither"),
  ],
)
def test_flags_that_do_not_fit_together_are_refused(processes, process, coordinator, message):
  with pytest.raises(InputError, match=message):
    join(processes, process, coordinator, timeout=1)


def test_an_open_mpi_that_jax_does_not_know_is_told_how_to_say_it(monkeypatch):
  monkeypatch.setattr(jax.distributed, "initialize", None)
  monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
  monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "32")
  monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "3")
  with pytest.raises(
    InputError, match=r"pip install mpi4py, or give --processes=32 --process=3 --coordinator=HOST:PORT"
  ):
    join("auto", None, "", timeout=1)


@pytest.mark.parametrize("size, rank", [("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"), ("PMI_SIZE", "PMI_RANK")])
def test_mpi4py_finds_the_others_where_it_is_there(monkeypatch, size, rank):
  asked = []
  monkeypatch.setattr(jax.distributed, "initialize", lambda **found: asked.append(found))
  monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "mpi4py")
  monkeypatch.setenv(size, "32")
  monkeypatch.setenv(rank, "3")
  join("auto", None, "", timeout=1)
  assert asked[0]["cluster_detection_method"] == "mpi4py"


def test_one_process_joins_nobody(monkeypatch):
  monkeypatch.setattr(jax.distributed, "initialize", None)
  join("1", None, "", timeout=1)
  leave()
  assert jax.process_count() == 1


def test_a_silent_process_is_named_before_the_runtime_aborts():
  assert SILENT_SECONDS + 2 * SIGN_SECONDS < HEARTBEAT_SECONDS / 2


def test_a_port_that_is_taken_is_told_before_the_runtime_listens(monkeypatch):
  monkeypatch.setattr(jax.distributed, "initialize", lambda **_: pytest.fail("asked"))
  with socket.socket() as taken:
    taken.bind(("", 0))
    taken.listen()
    port = taken.getsockname()[1]
    with pytest.raises(
      InputError, match=rf"--coordinator=127.0.0.1:{port}: process 0 cannot listen there .*; choose a free"
    ):
      join("2", 0, f"127.0.0.1:{port}", timeout=20)
  with pytest.raises(InputError, match="choose a free port"):
    join("2", 0, "127.0.0.1:99999", timeout=20)
