import dataclasses

import pytest

from amopo_jax.plan.ahead import argument_sizes, compile_step
from amopo_jax.plan.collectives import Collective
from amopo_jax.plan.cost import Cost, HeadTurns, head_turns, read_cost, step_cost
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


PROGRAM = """
%body (x: bf16[8,16]) -> bf16[8,16] {
  %x = bf16[8,16]{1,0:T(8,128)(2,1)} parameter(0)
  %y = bf16[16,16]{1,0:T(8,128)(2,1)S(1)} parameter(1)
  ROOT %product = bf16[8,16]{1,0:T(8,128)(2,1)} convolution(%x, %y), dim_labels=bf_io->bf
}

%more (p: pred[]) -> pred[] {
  ROOT %p = pred[] parameter(0)
}

ENTRY %main (x: bf16[8,16]) -> bf16[8,16] {
  %x = bf16[8,16]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %loop = bf16[8,16] while(%x), condition=%more, body=%body, metadata={op_name="jvp(head_chunks)/spans/while"}
}
"""


def test_products_and_traffic_count_as_often_as_they_run():
  found = read_cost(PROGRAM, [0], lambda name: 2.5 if "head_chunks" in name else 1.0)
  assert found == Cost(2.5 * 2 * 8 * 16 * 16, 2.5 * 2 * 8 * 16 * 2, {})


@pytest.mark.parametrize(
  "keep, turns",
  [(0.0, HeadTurns(0, 1.5)), (512 * 64 * 4 / 2**30, HeadTurns(1, 0.5)), (1.0, HeadTurns(1.5, 0))],
)
def test_the_head_turns_as_often_as_scored_tokens_make_chunks(case, keep, turns):
  found = case(batch__rows=8, batch__row_length=512, model__head_chunk=512, model__head_keep=keep)
  config = dataclasses.replace(found.config, vocab_size=64)
  assert head_turns(found.spec, config, found.mesh, 0.75) == turns


@pytest.mark.slow
@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_compilers_count_is_the_analytic_one_where_products_are_large(case, accumulation):
  found = case(**(LARGE | {"batch__rows": 4 * accumulation, "batch__accumulation": accumulation}))
  executable = compile_step(found.parts, found.num_contexts)
  cost = step_cost(executable, found.parts, found.config, 0.5)
  assert cost.flops == pytest.approx(wanted_flops(found, 0.5, 512 * accumulation), rel=0.02)
  state = sum(argument_sizes(found.parts, found.num_contexts)[:2])
  assert 2 * state < cost.memory_bytes < 2 * state + accumulation * 3e8  # read and written, and a pass over the layers
  kernels = 6 * (512 * (2 * 512 + 2 * 256) + 3 * 512 * 2048)
  gathered = accumulation * 2 * 2 * kernels * 3 / 4  # bfloat16, forward and backward, three of four parts
  assert gathered < cost.collectives["all-gather"].link_bytes < 1.5 * gathered
