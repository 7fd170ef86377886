import dataclasses

import jax
import numpy as np
import pytest

from amopo_jax import build
from amopo_jax.build_step import build_optimizer, build_parts, build_step, storing_mesh
from amopo_jax.policy import find_policy
from amopo_jax.prepare import prepare
from amopo_jax.types import InputError


def parts_of(spec):
  source = find_policy(spec.model.path, dict(spec.model.arch))
  return build_parts(spec, source.config, build.build_mesh(spec), len(spec.data.contexts))


def test_a_run_has_the_state_that_is_built_here(make_spec):
  spec = make_spec(mesh__tensor=2)
  built, run = build_step(parts_of(spec), 17), prepare(spec, None)
  describe = lambda target: jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype), leaf.sharding), target)
  assert describe(built.target) == describe(run.target)


def test_nothing_is_computed(make_spec):
  for leaf in jax.tree.leaves(build_step(parts_of(make_spec()), 3).target):
    assert isinstance(leaf, jax.ShapeDtypeStruct)


@pytest.mark.parametrize(
  "overrides, message",
  [
    ({"objective__name": "ppo"}, r"config\.objective\.name"),
    ({"model__remat": "some"}, r"config\.model\.remat"),
    ({"optim__name": "adam"}, r"config\.optim\.name"),
    ({"model__param_dtype": "float16"}, r"config\.model\.param_dtype"),
    ({"mesh__rules": (("nothing", ()), (".*", ("tensor",) * 5))}, r"config\.mesh\.rules"),
  ],
)
def test_what_is_wrong_with_a_config_is_found_before_a_step_is_built(make_spec, overrides, message):
  with pytest.raises(InputError, match=message):
    parts_of(make_spec(**overrides))


def test_the_schedule_is_as_long_as_the_run(make_spec):
  _, schedule = build_optimizer(make_spec(optim__warmup_fraction=0.5), 10)
  assert float(schedule(5)) == pytest.approx(1e-2)
  assert float(schedule(10)) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("width, fsdp", [(32, 8), (36, 4), (50, 2), (33, 1)])
def test_parameters_are_stored_over_as_many_devices_as_divide_them(make_spec, width, fsdp):
  spec = make_spec(mesh__data=2, mesh__tensor=2)
  config = dataclasses.replace(find_policy("", dict(spec.model.arch)).config, width=width)
  mesh = storing_mesh(spec, config)
  assert (mesh.shape["fsdp"], mesh.size) == (fsdp, 8)


def test_each_slice_stores_a_replica(make_spec, monkeypatch):
  monkeypatch.setattr("amopo_jax.mesh.devices._slice_of", lambda device: device.id // 4)
  monkeypatch.setattr("amopo_jax.mesh.devices.mesh_utils.create_hybrid_device_mesh", hybrid)
  spec = make_spec()
  mesh = storing_mesh(spec, find_policy("", dict(spec.model.arch)).config)
  assert [{device.id // 4 for device in part.flat} for part in mesh.devices] == [{0}, {1}]


def hybrid(within, between, devices, **options):
  return np.asarray(devices).reshape([w * b for w, b in zip(within, between, strict=True)])
