import dataclasses

import jax
import jax.numpy as jnp
import pytest

from amopo_jax import build
from amopo_jax.data.contexts import Context
from amopo_jax.models.attention import attention
from amopo_jax.policy import find_policy
from amopo_jax.types import InputError


def source_of(spec):
  return find_policy(spec.model.path, dict(spec.model.arch))


@pytest.fixture(scope="module")
def data(make_spec):
  spec = make_spec()
  return build.build_data(spec, source_of(spec))


def test_contexts_keep_the_order_and_the_ranges_of_the_config(make_spec):
  spec = make_spec()
  overall = dataclasses.replace(spec.data.contexts["correctness"], dimension="", template="overall")
  contexts = build.build_contexts({"b": spec.data.contexts["helpfulness"], "a": overall}, "after")
  template = "focus on {dimension} score {score} ."
  assert contexts.contexts == (Context("b", "helpfulness", template, 0.0, 4.0), Context("a", None, "overall"))
  assert contexts.place == "after"


def test_data_are_surveyed_and_the_heldout_source_is_kept_apart(data):
  assert [len(dataset) for dataset in data.train] == [data.surveys["world"].num_pairs]
  assert [len(dataset) for dataset in data.heldout] == [data.surveys["heldout world"].num_pairs]
  assert data.weights is None
  assert data.contexts.names == ("helpfulness", "correctness")


def test_several_sources_are_drawn_by_weight(make_config, make_spec, world):
  source = {"path": f"{world}/heldout.jsonl", "format": "native", "weight": 3.0}
  spec = make_spec(data__train__more=source)
  assert build.build_data(spec, source_of(spec)).weights == [1.0, 3.0]


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_refused(make_spec, weight):
  with pytest.raises(InputError, match=r"config\.data\.train\.world\.weight: .* is not positive"):
    build.plan_data(make_spec(data__train__world__weight=weight))


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_a_held_out_share_outside_its_range_is_refused(make_spec, fraction):
  with pytest.raises(InputError, match=r"config\.data\.heldout_fraction: .* is not in \[0, 1\)"):
    build.plan_data(make_spec(data__heldout_fraction=fraction))


def test_limits_follow_the_row_unless_they_are_set(make_spec):
  assert build.plan_data(make_spec()).limits == build.Limits(128, 64, "cut")
  assert build.plan_data(make_spec(data__max_length=100)).limits == build.Limits(100, 50, "cut")
  set_by_hand = make_spec(data__max_length=100, data__max_response=70, data__too_long="drop")
  assert build.plan_data(set_by_hand).limits == build.Limits(100, 70, "drop")


@pytest.mark.parametrize("max_pairs, places", [(0, 2 * 128 // 16), (8, 2), (4, 1)])
def test_a_group_has_places_for_its_share_of_the_pairs(make_spec, max_pairs, places):
  pack = build.pack_spec(make_spec(batch__max_pairs=max_pairs).batch, 3)
  assert pack == build.PackSpec(row_length=128, rows=2, max_pairs=places, num_contexts=3)


@pytest.mark.parametrize(
  "overrides, message",
  [
    ({"batch__rows": 7}, r"rows=7 must be a multiple of group_rows \* accumulation = 2 \* 1"),
    ({"batch__accumulation": 3}, r"rows=8 must be a multiple"),
    ({"batch__max_pairs": 3}, r"config\.batch\.max_pairs: 3 is not a multiple of the 4 groups"),
    ({"batch__max_pairs": 6}, r"config\.batch\.max_pairs: 6 is not a multiple of the 4 groups"),
  ],
)
def test_a_batch_that_does_not_come_out_even_is_refused(make_spec, overrides, message):
  with pytest.raises(InputError, match=message):
    build.pack_spec(make_spec(**overrides).batch, 2)


def test_without_a_tokenizer_and_a_model_that_brings_one_it_is_asked_for(make_spec):
  spec = make_spec(data__tokenizer="")
  with pytest.raises(InputError, match=r"config\.data\.tokenizer: not set.*name a directory"):
    build.build_tokenizer(spec.data, source_of(spec))


def test_a_run_s_own_tokenizer_is_taken_where_none_is_named(make_spec, trained, data):
  spec = make_spec(model__path=str(trained[0]), model__arch={}, data__tokenizer="")
  assert build.build_tokenizer(spec.data, source_of(spec)).fingerprint == data.tokenizer.fingerprint


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
  assert build_one(model__attention="xla") is attention
  assert build_one().__qualname__ == "split_attention.<locals>.attended"  # by `auto` blocks, on a CPU too
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
