import dataclasses

import numpy as np
import pytest

from amopo_jax import build_data
from amopo_jax.data.contexts import Context
from amopo_jax.data.encode import Limits
from amopo_jax.data.layout import Layout
from amopo_jax.data.pack import PackSpec
from amopo_jax.policy import find_policy
from amopo_jax.types import InputError


def source_of(spec):
  return find_policy(spec.model.path, dict(spec.model.arch))


@pytest.fixture(scope="module")
def data(make_spec):
  spec = make_spec()
  return build_data.build_data(spec, source_of(spec))


def test_contexts_keep_the_order_and_the_ranges_of_the_config(make_spec):
  spec = make_spec()
  overall = dataclasses.replace(spec.data.contexts["correctness"], dimension="", template="overall")
  contexts = build_data.build_contexts({"b": spec.data.contexts["helpfulness"], "a": overall}, "after")
  template = "focus on {dimension} score {score} ."
  assert contexts.contexts == (Context("b", "helpfulness", template, 0.0, 4.0), Context("a", None, "overall"))
  assert contexts.place == "after"


@pytest.mark.parametrize("template, low", [("be {score:truth} true", 0.0), ("write {{score:truth}} .", None)])
def test_a_context_without_a_dimension_has_a_range_if_it_tells_a_score(make_spec, template, low):
  entry = dataclasses.replace(make_spec().data.contexts["correctness"], dimension="", template=template)
  assert build_data.build_contexts({"a": entry}, "after").contexts[0].low == low


def test_a_stray_brace_is_reported_with_its_context(make_spec):
  entry = dataclasses.replace(make_spec().data.contexts["correctness"], template="be {score true")
  with pytest.raises(InputError, match=r"config\.data\.contexts: 'a': stray brace"):
    build_data.build_contexts({"a": entry}, "after")


def test_data_are_surveyed_and_the_heldout_source_is_kept_apart(data):
  assert [len(dataset) for dataset in data.train] == [data.surveys["world"].num_pairs]
  assert [len(dataset) for dataset in data.heldout] == [data.surveys["heldout world"].num_pairs]
  assert data.weights is None
  assert data.contexts.names == ("helpfulness", "correctness")


def test_several_sources_are_drawn_by_weight(make_config, make_spec, world):
  source = {"path": f"{world}/heldout.jsonl", "format": "native", "weight": 3.0}
  spec = make_spec(data__train__more=source)
  assert build_data.build_data(spec, source_of(spec)).weights == [1.0, 3.0]


def test_training_pairs_may_be_laid_out_in_part_and_keep_their_numbers_and_tokens(make_spec):
  spec = make_spec(data__heldout={}, data__heldout_fraction=0.2)
  whole, part = (
    build_data.build_data(spec, source_of(spec), layout=layout) for layout in (Layout(), Layout(rejected="none"))
  )
  assert len(part.train[0]) == len(whole.train[0])
  for number in range(5):
    one, other = whole.train[0][number], part.train[0][number]
    assert (one.index, one.origin) == (other.index, other.origin)
    assert (one.is_laid_out.tolist(), other.is_laid_out.tolist()) == ([[True, True]] * 2, [[True, False]] * 2)
    assert all(np.array_equal(a, b) for a, b in zip(one.prompts, other.prompts, strict=True))
  assert part.heldout[0][0].is_laid_out.all()


def test_contexts_of_training_pairs_may_be_drawn_and_those_of_held_out_pairs_are_all_there(make_spec):
  spec = make_spec(data__heldout={}, data__heldout_fraction=0.2)
  data = build_data.build_data(spec, source_of(spec), layout=Layout(contexts=1))
  assert (data.train[0].recipe.layout.contexts, data.heldout[0].recipe.layout.contexts) == (1, 0)


@pytest.mark.parametrize("count", [-1, 3])
def test_more_contexts_than_there_are_cannot_be_drawn(make_spec, count):
  with pytest.raises(InputError, match=r"config\.data\.contexts_per_pair: .* is not in 0 to 2"):
    build_data.plan_data(make_spec(data__contexts_per_pair=count))


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_refused(make_spec, weight):
  with pytest.raises(InputError, match=r"config\.data\.train\.world\.weight: .* is not positive"):
    build_data.plan_data(make_spec(data__train__world__weight=weight))


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_a_held_out_share_outside_its_range_is_refused(make_spec, fraction):
  with pytest.raises(InputError, match=r"config\.data\.heldout_fraction: .* is not in \[0, 1\)"):
    build_data.plan_data(make_spec(data__heldout_fraction=fraction))


def test_limits_follow_the_row_unless_they_are_set(make_spec):
  assert build_data.plan_data(make_spec()).limits == Limits(128, 64, "cut")
  assert build_data.plan_data(make_spec(data__max_length=100)).limits == Limits(100, 50, "cut")
  set_by_hand = make_spec(data__max_length=100, data__max_response=70, data__too_long="drop")
  assert build_data.plan_data(set_by_hand).limits == Limits(100, 70, "drop")


@pytest.mark.parametrize("max_pairs, places", [(0, 2 * 128 // 16), (8, 2), (4, 1)])
def test_a_group_has_places_for_its_share_of_the_pairs(make_spec, max_pairs, places):
  pack = build_data.pack_spec(make_spec(batch__max_pairs=max_pairs).batch, 3)
  assert pack == PackSpec(row_length=128, rows=2, max_pairs=places, num_contexts=3)


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
    build_data.pack_spec(make_spec(**overrides).batch, 2)


def test_without_a_tokenizer_and_a_model_that_brings_one_it_is_asked_for(make_spec):
  spec = make_spec(data__tokenizer="")
  with pytest.raises(InputError, match=r"config\.data\.tokenizer: not set.*name a directory"):
    build_data.build_tokenizer(spec.data, source_of(spec))


def test_a_run_s_own_tokenizer_is_taken_where_none_is_named(make_spec, trained, data):
  spec = make_spec(model__path=str(trained[0]), model__arch={}, data__tokenizer="")
  assert build_data.build_tokenizer(spec.data, source_of(spec)).fingerprint == data.tokenizer.fingerprint


def test_a_tokenizer_may_lie_in_a_bucket(make_spec, world, bucket):
  for file in (world / "tokenizer").iterdir():
    bucket.pipe_file(f"bucket/tokenizer/{file.name}", file.read_bytes())
  spec = make_spec(data__tokenizer="gs://bucket/tokenizer")
  source = find_policy("", dict(spec.model.arch))
  here = build_data.build_tokenizer(make_spec().data, source)
  assert build_data.build_tokenizer(spec.data, source).fingerprint == here.fingerprint
  missing = make_spec(data__tokenizer="gs://bucket/nothing")
  with pytest.raises(InputError, match=r"gs://bucket/nothing: no such directory"):
    build_data.build_tokenizer(missing.data, source)
