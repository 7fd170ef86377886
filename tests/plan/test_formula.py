import pytest

from amopo_jax.plan.case import check_cases
from amopo_jax.plan.formula import formula_cost, formula_memory
from amopo_jax.plan.topology import parse_topology
from amopo_jax.policy import count_parameters


@pytest.fixture
def case(make_spec):
  def make(topology="h100:8", **overrides):
    [found] = check_cases(make_spec(**overrides), [parse_topology(topology)], 0)
    return found

  return make


def memory(case):
  return formula_memory(case.spec, case.config, case.mesh)


def test_the_state_is_split_and_counted_exactly(case):
  one, eight = memory(case("h100:1")), memory(case())
  parameters = 4 * count_parameters(case().config)
  assert one.parameters == parameters
  assert 2 * parameters <= one.optimizer < 2 * parameters + 100
  whole = 5 * 32 + 2 * (32 + 16 + 16)  # norms and biases are on every GPU
  assert eight.parameters == (parameters - 4 * whole) / 8 + 4 * whole


def test_what_is_kept_grows_from_policy_to_policy_and_shrinks_with_micro_batches(case):
  needed = [
    memory(case(model__remat=name, batch__rows=64, batch__row_length=4096)).needed
    for name in ("full", "save_attention", "dots_no_batch", "dots", "none")
  ]
  assert needed == sorted(needed)
  assert len(set(needed)) == 5
  whole, cut = (memory(case(batch__rows=64, batch__row_length=4096, batch__accumulation=a)) for a in (1, 8))
  assert cut.needed < whole.needed


def test_the_cost_of_a_step_is_split_over_the_gpus(case):
  one, eight = (formula_cost(c.spec, c.config, c.mesh, 0.5) for c in (case("h100:1"), case()))
  assert one.flops == pytest.approx(8 * eight.flops)
  assert one.collectives == {}
  # Parameters come twice in the compute type, their gradients go once; seven of eight parts are elsewhere.
  parameters = count_parameters(case().config)
  assert eight.link_bytes == pytest.approx((2 * 4 + 4) * parameters * 7 / 8)
  assert eight.network_bytes == 0


def test_replicas_sum_gradients_and_parts_of_rows_gather_keys_and_values(case):
  plain, copied, cut = case("h100:4"), case(mesh__data=2), case(mesh__context=2)
  costs = [formula_cost(c.spec, c.config, c.mesh, 0.5) for c in (plain, copied, cut)]
  parameters = count_parameters(plain.config)
  assert costs[0].collectives.get("all-reduce") is None
  assert costs[1].collectives["all-reduce"].link_bytes == pytest.approx(2 * 4 * parameters / 4 / 2)
  assert costs[2].link_bytes > costs[0].link_bytes


def test_activations_are_split_over_parts_of_rows(case):
  long = {"batch__rows": 64, "batch__row_length": 4096}
  assert memory(case(mesh__context=2, **long)).temporaries < memory(case("h100:4", **long)).temporaries


def test_beyond_a_node_an_eighth_crosses_the_network(case):
  found = case("h100:16", batch__rows=16)
  cost = formula_cost(found.spec, found.config, found.mesh, 0.5)
  assert cost.network_bytes == pytest.approx(cost.link_bytes / 8)


def test_more_is_computed_where_less_is_kept(case):
  less, more = (
    formula_cost(c.spec, c.config, c.mesh, 0.5).flops for c in (case(model__remat="dots"), case(model__remat="full"))
  )
  assert less < more < 1.4 * less


def test_gradients_that_meet_are_a_set_and_a_backward_pass_per_context(case):
  one, met = case(), case(objective__conflict_radius=0.4)
  assert memory(met).gradients == 2 * memory(one).gradients
  costs = [formula_cost(c.spec, c.config, c.mesh, 0.5) for c in (one, met)]
  assert costs[1].flops / costs[0].flops == pytest.approx(7 / 4, rel=0.02)  # of 1 + 3 units, 3 more


def test_replicas_in_other_nodes_sum_their_gradients_over_the_network_and_gather_within(case):
  found = case("h100:16", mesh__data=2, batch__rows=16)
  cost = formula_cost(found.spec, found.config, found.mesh, 0.5)
  assert cost.network_bytes == pytest.approx(cost.collectives["all-reduce"].link_bytes)
  assert cost.network_bytes > 0
  one = case(batch__rows=16)
  assert cost.memory_bytes == pytest.approx(formula_cost(one.spec, one.config, one.mesh, 0.5).memory_bytes)


@pytest.mark.parametrize("remat, sums", [("dots", 4), ("full", 5)])
def test_gpus_that_split_layers_sum_activations_within_their_node(case, remat, sums):
  found = case("h100:16", mesh__tensor=2, batch__rows=16, model__remat=remat)
  cost = formula_cost(found.spec, found.config, found.mesh, 0.5)
  tokens = 16 // 8 * found.spec.batch.row_length
  sent = 2 * (1 - 1 / 2) * sums * found.config.num_layers * tokens * found.config.width * 4
  assert cost.collectives["all-reduce"].link_bytes == pytest.approx(sent)
  assert cost.collectives["all-reduce"].network_bytes == 0


def test_offloaded_moments_lie_with_the_host(case):
  here, there = memory(case()), memory(case(optim__offload=True))
  assert (here.host, there.host) == (0, here.optimizer - there.optimizer)
  assert there.host == pytest.approx(2 * there.parameters, rel=0.01)
