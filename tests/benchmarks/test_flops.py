import pytest

from amopo_jax.models.hf_config import from_hf
from amopo_jax.policy import count_parameters
from benchmarks.flops import step_flops
from benchmarks.peers.serve import Counts
from benchmarks.shapes import SHAPES, qwen2

FIELDS = qwen2(layers=3, width=8, heads=4, kv_heads=2, mlp_width=16, words=50)


def test_every_product_by_hand():
  tokens, scored, attended = 5, 2, 15
  kernels = 8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 16  # q, k and v, o, mlp
  forward = 2 * tokens * 3 * kernels + 2 * 2 * attended * 3 * 8 + 2 * scored * 8 * 50
  assert step_flops(FIELDS, Counts(tokens, scored, attended)) == (3 * forward, 3 * forward)


def test_what_is_recomputed_counts_as_executed_only():
  counts = Counts(5, 2, 15, ("head",))
  half = step_flops(FIELDS, counts._replace(head_recomputed=0.5))
  whole = step_flops(FIELDS, counts)
  assert whole.executed - half.executed == half.executed - half.model
  model, executed = step_flops(FIELDS, counts)
  assert executed - model == 2 * 2 * 8 * 50
  everything = step_flops(FIELDS, counts._replace(recomputed=("layers", "attention", "head")))
  assert everything.executed == pytest.approx(model * 4 / 3 - 2 * 5 * 3 * 8 * 16)  # but for the MLP's last product
  scores_only = step_flops(FIELDS, counts._replace(recomputed=("scores",)))
  assert scores_only.executed - model == 2 * 15 * 3 * 8


def test_small_has_the_parameters_that_it_says():
  assert count_parameters(from_hf(SHAPES["small"], "small")) == pytest.approx(25.9e6, rel=0.01)
