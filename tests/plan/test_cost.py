import pytest

from amopo_jax.plan.ahead import compile_step
from amopo_jax.plan.collectives import Collective
from amopo_jax.plan.cost import Cost, step_cost
from benchmarks.flops import step_flops
from benchmarks.peers.serve import Counts


def test_bytes_are_added_over_kinds():
  cost = Cost(1.0, 2.0, {"all-gather": Collective(2, 3.0, 1.0), "all-reduce": Collective(1, 4.0, 0.0)})
  assert (cost.link_bytes, cost.network_bytes) == (7.0, 1.0)


def wanted_flops(case, scored_share, tokens):
  counts = Counts(tokens, round(tokens * scored_share), 0, ("layers", "head"))
  return step_flops(dict(case.spec.model.arch), counts).executed


LARGE = {
  "model__attention": "auto",  # whose products the compiler does not see
  "model__remat": "save_attention",
  "batch__rows": 4,
  "batch__row_length": 512,
  "model__arch__hidden_size": 512,
  "model__arch__intermediate_size": 2048,
  "model__arch__num_hidden_layers": 6,
  "model__arch__vocab_size": 8192,
}


@pytest.mark.slow
@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_compilers_count_is_the_analytic_one_where_products_are_large(case, accumulation):
  found = case(**(LARGE | {"batch__rows": 4 * accumulation, "batch__accumulation": accumulation}))
  executable = compile_step(found.parts, found.num_contexts)
  cost, seconds = step_cost(executable, found.parts, found.config, found.num_contexts, 0.5)
  assert cost.flops == pytest.approx(wanted_flops(found, 0.5, 512 * accumulation), rel=0.05)
  assert cost.memory_bytes > 0
  assert seconds > 0
  kernels = 6 * (512 * (2 * 512 + 2 * 256) + 3 * 512 * 2048)
  gathered = accumulation * 2 * 2 * kernels * 3 / 4  # bfloat16, forward and backward, three of four parts
  assert gathered < cost.collectives["all-gather"].link_bytes < 1.5 * gathered
