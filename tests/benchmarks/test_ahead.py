import pytest

from benchmarks.ahead import sent_bytes, step_cost
from benchmarks.flops import step_flops
from benchmarks.peers.serve import Counts

PROGRAM = """
  %all-gather.1 = bf16[8,128]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=1
  %start = (f32[2,4]{1,0}, f32[8,4]{1,0:T(8,128)}) all-gather-start(%x), channel_id=2
  %done = f32[8,4]{1,0} all-gather-done(%start)
  %sum = (f32[16]{0}, pred[3]{0}) all-reduce(%a, %b), to_apply=%add
  %kept = f32[1024]{0} add(%a, %all-reduce.7)
"""


def test_what_is_sent_is_the_results_of_the_collectives_each_once():
  assert sent_bytes(PROGRAM) == 8 * 128 * 2 + 8 * 4 * 4 + (16 * 4 + 3)


@pytest.mark.slow
def test_the_compilers_count_is_the_analytic_one_where_products_are_large(make_spec, tpu_devices):
  tokens, scored = 512, 256
  arch = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 6, "vocab_size": 8192}
  spec = make_spec(
    model__compute_dtype="bfloat16",
    model__remat="save_attention",
    batch__rows=4,
    batch__row_length=tokens,
    **{f"model__arch__{name}": value for name, value in arch.items()},
  )
  cost = step_cost(spec, tpu_devices("v5e:2x2"), scored=scored, num_contexts=2, pairs=8)
  wanted = step_flops(spec.model.arch, Counts(tokens, scored, 0, ("layers", "head")))
  assert cost.flops == pytest.approx(wanted.executed, rel=0.05)
  assert cost.hbm_bytes > 0
  assert cost.sent_bytes > 0
