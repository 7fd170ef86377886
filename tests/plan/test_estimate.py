import pytest

from amopo_jax.plan.chips import Chip
from amopo_jax.plan.collectives import Collective
from amopo_jax.plan.cost import Cost
from amopo_jax.plan.estimate import Workload, assume, attention_flops, estimate, model_flops
from amopo_jax.policy import find_config
from benchmarks.flops import step_flops
from benchmarks.peers.serve import Counts

CHIP = Chip(flops=1e9, memory_rate=10.0, link_rate=1.0, network_rate=0.5, memory=1.0)
COST = Cost(0.0, 50.0, {"all-gather": Collective(1, 2.0, 0.5), "all-reduce": Collective(1, 1.0, 0.0)})


@pytest.fixture(scope="module")
def config(make_spec):
  return find_config("", dict(make_spec().model.arch))


def test_the_longest_of_the_times_and_their_sum_bound_a_step(make_spec, config):
  spec = make_spec(batch__rows=8, train__epochs=2)
  found = estimate(spec, config, COST, CHIP, 4, Workload(tokens_per_pair=64, scored_share=0.5, pairs=160))
  products = attention_flops(spec, config, 8 * 128) / 4 / 1e9
  assert found.seconds == pytest.approx({"products": products, "memory": 5.0, "links": 3.0, "network": 1.0})
  assert found.bound == "memory"
  assert found.step_seconds == pytest.approx((5.0, 9.0 + products))
  assert found.pairs_per_step == 16
  assert found.pairs_per_second[0] == pytest.approx(16 / 5)
  assert found.steps == 20
  assert found.hours[0] == pytest.approx(20 * 5 / 3600)
  assert found.chip_hours[1] == pytest.approx(4 * found.hours[1])
  assert found.utilization[0] == pytest.approx(found.model_flops / 1e9 / 5)


def test_steps_that_the_config_names_are_taken_as_they_are(make_spec, config):
  assert estimate(make_spec(train__steps=7), config, COST, CHIP, 4, Workload(64, 0.5, 160)).steps == 7


@pytest.mark.parametrize("length, seen", [(128, 64), (8192, 377)])
def test_what_the_method_asks_for_is_the_benchmarks_count(make_spec, config, length, seen):
  fields = dict(make_spec().model.arch)
  tokens, scored = 2 * length, length
  wanted = step_flops(fields, Counts(tokens, scored, tokens * seen, ()))
  assert model_flops(make_spec(batch__row_length=length), config, tokens, scored) == pytest.approx(wanted.model)


def test_frozen_kernels_need_no_gradient(make_spec, config):
  whole, adapters = (model_flops(make_spec(lora__rank=rank), config, 128, 64) for rank in (0, 4))
  assert 2 / 3 < adapters / whole < 1  # attention has no kernels


def test_kernels_run_again_where_their_result_is_not_kept(make_spec, config):
  kept, again = (attention_flops(make_spec(model__remat=name), config, 1000) for name in ("save_attention", "full"))
  assert again / kept == pytest.approx(11 / 9)


def test_what_is_not_said_of_the_data_is_assumed(make_spec):
  spec = make_spec()
  assert assume(spec) == Workload(1600, 0.64, 10_000)  # two contexts; a held-out source
  assert assume(spec, tokens_per_pair=99.0, scored_share=0.5, pairs=70) == Workload(99, 0.5, 70)
  assert assume(make_spec(data__heldout={}, data__heldout_fraction=0.1), pairs=70).pairs == 63
