import os
import subprocess
import sys

import pytest

from amopo_jax import host

FAULTS = """
import resource
from amopo_jax import host
host.set_up()
import jax
import jax.numpy as jnp
from amopo_jax.mesh import jit_for, make_mesh

def wasteful(x):  # 128 MiB of temporaries in every call
  y = jnp.full((4096, 4096), x)
  return (y @ y)[0, 0]

faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
f = jit_for(make_mesh(data=1, fsdp=1, tensor=1, devices=jax.devices()[:1]), wasteful)
for call in range(4):
  before = faults()
  f(float(call)).block_until_ready()
print(faults() - before)
"""


def faults_of_a_later_call(**environment: str) -> int:
  """Pages that the fourth call of a program had to fetch from the system."""
  env = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
  done = subprocess.run(
    [sys.executable, "-c", FAULTS], env=env | environment, capture_output=True, text=True, check=True, timeout=120
  )
  return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's memory is kept")
def test_a_program_finds_the_memory_of_its_last_call_again():
  assert faults_of_a_later_call() < 1000


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's memory is kept")
def test_who_sets_malloc_variables_is_left_alone():
  assert faults_of_a_later_call(MALLOC_TOP_PAD_="131072") > 10000


@pytest.mark.parametrize(
  "given, devices, platforms", [(None, [], "cpu"), (None, ["/dev/accel0"], None), ("tpu", [], "tpu")]
)
def test_no_accelerator_is_looked_for_where_there_is_none(monkeypatch, given, devices, platforms):
  kept = []
  monkeypatch.setattr(host, "keep_freed_memory", lambda: kept.append(True))
  monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
  monkeypatch.setattr("glob.glob", lambda pattern: [found for found in devices if found.startswith(pattern[:-1])])
  monkeypatch.delenv("JAX_PLATFORMS") if given is None else monkeypatch.setenv("JAX_PLATFORMS", given)
  host.set_up()
  assert os.environ.get("JAX_PLATFORMS") == platforms
  assert bool(kept) == (not devices)
