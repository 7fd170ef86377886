import jax
import jax.numpy as jnp
import pytest

from amopo_jax import build
from amopo_jax.models.attention import attention
from amopo_jax.policy import find_policy
from amopo_jax.types import InputError


def source_of(spec):
  return find_policy(spec.model.path, dict(spec.model.arch))


def test_rows_must_divide_over_the_mesh(make_spec):
  assert build.build_mesh(make_spec(mesh__tensor=2)).shape == {"data": 1, "fsdp": 4, "context": 1, "tensor": 2}
  with pytest.raises(InputError, match="4 rows per micro-batch do not divide over 8 devices"):
    build.build_mesh(make_spec(batch__accumulation=2))


def test_the_config_s_sharding_rules_come_before_the_default_ones(make_spec):
  spec = make_spec(mesh__rules=((".*embed.*", (None, "fsdp")),))
  mesh = build.build_mesh(spec)
  shapes = {"embed": {"weight": jax.ShapeDtypeStruct((256, 32), jnp.float32)}}
  placed = build.param_shardings(spec, shapes, mesh)
  assert placed["embed"]["weight"].spec == jax.sharding.PartitionSpec(None, "fsdp")


def test_names_of_dtypes(make_spec):
  assert build.dtype("config.x", "bfloat16") == jnp.bfloat16
  with pytest.raises(InputError, match=r"config\.x: 'float16' is unknown; choose one of float32, bfloat16"):
    build.dtype("config.x", "float16")


def test_the_attention_goes_by_name_and_by_the_devices(make_spec):
  source = source_of(make_spec())
  build_one = lambda **changes: build.build_attention(
    make_spec(**changes).model, source.config, build.build_mesh(make_spec())
  )
  assert build_one(model__attention="xla") == ("xla", attention)
  name, attend = build_one()
  assert (name, attend.__qualname__) == (
    "xla_blocks",
    "split_attention.<locals>.attended",
  )
  with pytest.raises(
    InputError, match=r"config\.model\.attention: 'flash' is unknown; choose one of auto, xla, pallas"
  ):
    build_one(model__attention="flash")
  with pytest.raises(InputError, match=r"config\.model\.attention: pallas_tpu cannot be: .* here they are cpu"):
    build_one(model__attention="pallas_tpu")


@pytest.mark.parametrize("devices, rows, is_made", [(1, (4, 128), True), (1, (0, 0), False), (2, (4, 128), False)])
def test_kept_logits_outlive_the_step_on_one_cpu_that_trains(make_spec, monkeypatch, devices, rows, is_made):
  spec = make_spec(model__head_keep=0.1)
  grid = build.meshes.make_mesh(data=1, fsdp=devices, tensor=1, devices=jax.devices()[:devices])
  given, make = {}, build.make_score_fn
  monkeypatch.setattr(
    build, "make_score_fn", lambda *args, **settings: given.update(settings) or make(*args, **settings)
  )
  build.build_score_fn(spec.model, source_of(spec).config, 2, grid, rows=rows)
  assert (given["room"] is not None) == is_made


def test_processes_have_the_same_attention(make_spec, monkeypatch):
  """Each has made its own trial of it."""
  compared = []
  monkeypatch.setattr("amopo_jax.build.processes.agree", lambda what, value: compared.append((what, value)))
  spec = make_spec()
  config = find_policy("", dict(spec.model.arch)).config
  assert compared == [("attention", build.build_attention(spec.model, config, build.build_mesh(spec)).name)]
