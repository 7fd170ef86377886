import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from amopo_jax import mesh as meshes
from amopo_jax.types import InputError


@pytest.mark.parametrize(
  "sizes, shape",
  [
    ((1, -1, 1, 1), (1, 8, 1, 1)),
    ((-1, 2, 1, 2), (2, 2, 1, 2)),
    ((2, 1, -1, 2), (2, 1, 2, 2)),
    ((8, 1, 1, -1), (8, 1, 1, 1)),
  ],
)
def test_one_axis_takes_what_is_left(sizes, shape):
  made = meshes.make_mesh(**dict(zip(meshes.AXES, sizes, strict=True)))
  assert tuple(made.shape.values()) == shape


@pytest.mark.parametrize(
  "sizes", [(3, 1, 1, 1), (3, -1, 1, 1), (-1, -1, 1, 1), (0, 8, 1, 1), (1, 4, 1, 1), (1, 4, 0, 1)]
)
def test_a_mesh_that_does_not_cover_the_devices_is_refused(sizes):
  with pytest.raises(InputError, match=r"config\.mesh"):
    meshes.make_mesh(**dict(zip(meshes.AXES, sizes, strict=True)))


def test_slices_are_replicas_of_devices_that_are_next_to_each_other():
  mesh = meshes.make_mesh(data=4, fsdp=1, context=2, tensor=1, slices=2, devices=list(reversed(jax.devices())))
  ids = np.vectorize(lambda device: device.id)(mesh.devices)
  assert mesh.axis_names == meshes.AXES
  np.testing.assert_array_equal(ids.reshape(2, 4), np.arange(8).reshape(2, 4))


@pytest.mark.parametrize(
  "sizes, slices, message",
  [
    ((3, -1, 1, 1), 3, "does not cover 8 devices"),
    ((1, 8, 1, 1), 3, "slices=3 does not divide 8 devices; set it to what there is"),
    ((1, 8, 1, 1), 0, "slices=0 does not divide 8 devices"),
    ((2, 4, 1, 1), 4, "data=2 is no multiple of slices=4; slices are replicas, so set data to 4 or more"),
    ((1, 8, 1, 1), 2, "data=1 is no multiple of slices=2"),
  ],
)
def test_slices_that_cannot_be_are_refused(sizes, slices, message):
  with pytest.raises(InputError, match=rf"config\.mesh.*{message}"):
    meshes.make_mesh(**dict(zip(meshes.AXES, sizes, strict=True)), slices=slices)


def test_the_slices_of_a_tpu_are_those_of_its_devices(tpu_devices):
  devices = tpu_devices("v5e:2x2", num_slices=2)
  mesh = meshes.make_mesh(data=2, fsdp=2, context=2, tensor=1, slices=2, devices=list(reversed(devices)))
  assert [{device.slice_index for device in part.flat} for part in mesh.devices] == [{0}, {1}]
  with pytest.raises(InputError, match=r"config\.mesh\.slices=1: the devices lie in 2 slices; set it to 2"):
    meshes.make_mesh(data=2, fsdp=4, tensor=1, devices=devices)


@pytest.mark.parametrize(("environment", "devices"), [({}, 2), ({"JAX_NUM_CPU_DEVICES": "3"}, 3)], ids=str)
def test_a_cpu_is_as_many_devices_as_asked_unless_the_environment_says(environment, devices):
  code = "import jax; from amopo_jax.mesh import ask_for_cpu_devices as ask; ask(2); print(jax.device_count())"
  clean = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
  found = subprocess.run(
    [sys.executable, "-c", code], env={**clean, "JAX_PLATFORMS": "cpu", **environment}, capture_output=True, text=True
  )
  assert found.stdout == f"{devices}\n", found.stderr
