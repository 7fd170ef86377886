"""All kernels against the reference, those of accelerators in interpret mode: output, gradients, what they skip."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amopo_jax.models.attention import ATTENTION_NAME
from amopo_jax.models.attention.fused import fused_attention
from amopo_jax.models.attention.pallas_tpu import pallas_tpu
from amopo_jax.models.attention.pallas_triton import pallas_triton
from amopo_jax.models.attention.reference import attention
from amopo_jax.models.attention.xla_blocks import xla_blocks

KERNELS = {"tpu": pallas_tpu(interpret=True), "triton": pallas_triton(interpret=True), "blocks": xla_blocks()}
TOLERANCE = {jnp.float32: 3e-6, jnp.bfloat16: 0.01}
"""Largest difference as a share of the largest value: sums in another order; some roundings to 8 bits."""

FAST = {
  "two rows, two heads per key head": ((0, 2, 300), {}),
  "bfloat16, three heads per key head, one token over a block": (
    (1, 1, 257),
    {"heads": 3, "key_heads": 1, "padding": 0, "dtype": jnp.bfloat16},
  ),
  "a window, an odd size of heads, half a row of padding": ((2, 1, 300), {"size": 80, "padding": 160, "window": 9}),
  "three rows shorter than a block, a window": ((12, 3, 40), {"size": 16, "window": 9}),
}
SLOW = {
  "a row shorter than a block": ((3, 1, 40), {"heads": 2, "key_heads": 2}),
  "seven heads per key head": ((4, 1, 130), {"heads": 7, "key_heads": 1}),
  "heads of 128": ((5, 1, 150), {"size": 128}),
  "a window in bfloat16": ((6, 2, 140), {"window": 40, "dtype": jnp.bfloat16}),
  "many blocks": ((7, 2, 700), {}),
}
CASES = FAST | SLOW


def both(attend, problem, window=None):
  """Output, d_q, d_k, d_v."""

  @jax.jit
  def run(problem):
    one = lambda q, k, v: attend(q, k, v, problem.subtree_end, chunk=128, positions=problem.positions, window=window)
    output, pull = jax.vjp(one, problem.q, problem.k, problem.v)
    return output, *pull(problem.d_output)

  return run(problem)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("case", [*FAST, *(pytest.param(case, marks=pytest.mark.slow) for case in SLOW)])
def test_output_and_gradients_are_those_of_the_reference(make_problem, kernel: str, case: str):
  (seed, rows, length), changes = CASES[case]
  sizes = {"heads": 4, "key_heads": 2, "size": 64, "padding": 5, "dtype": jnp.float32} | changes
  window = sizes.pop("window", None)
  problem = make_problem(seed, rows, length, **sizes)
  ours = both(partial(fused_attention, KERNELS[kernel]), problem, window)
  theirs = both(attention, problem, window)
  for mine, expected in zip(ours, theirs, strict=True):
    assert mine.dtype == sizes["dtype"]
    mine, expected = (np.asarray(x, np.float32) for x in (mine, expected))
    np.testing.assert_allclose(mine, expected, rtol=0, atol=TOLERANCE[sizes["dtype"]] * np.abs(expected).max())


@pytest.mark.parametrize("kernel, length", [*((kernel, 200) for kernel in KERNELS), ("blocks", 100)])
def test_padding_is_finite_and_touches_nothing(make_problem, kernel: str, length: int):
  clean = make_problem(0, 1, length, heads=2, key_heads=1, size=64, padding=50, dtype=jnp.float32)
  real = np.asarray(clean.subtree_end > 0)
  spoil = lambda x: jnp.where(real[:, :, None, None], x, 1e4)
  quiet = clean._replace(d_output=jnp.where(real[:, :, None, None], clean.d_output, 0.0))
  attend = partial(fused_attention, KERNELS[kernel])
  before = both(attend, quiet)
  after = both(attend, quiet._replace(q=spoil(clean.q), k=spoil(clean.k), v=spoil(clean.v)))
  for one, other in zip(before, after, strict=True):
    assert np.isfinite(other).all()
    np.testing.assert_array_equal(np.asarray(one)[real], np.asarray(other)[real])
  for gradient in after[1:]:
    np.testing.assert_array_equal(np.asarray(gradient)[~real], 0.0)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_window_without_positions_is_an_error(make_problem, kernel: str):
  p = make_problem(0, 1, 8, heads=1, key_heads=1, size=8, padding=0, dtype=jnp.float32)
  with pytest.raises(ValueError, match="pass positions"):
    fused_attention(KERNELS[kernel], p.q, p.k, p.v, p.subtree_end, chunk=128, window=3)


@pytest.mark.parametrize("kernel", KERNELS)
def test_dead_blocks_are_not_looked_at(make_problem, kernel: str):
  """A NaN in a key would reach every query whose block is computed with it: 0 × NaN is NaN."""
  p = make_problem(0, 1, 512, heads=2, key_heads=1, size=64, padding=0, dtype=jnp.float32)
  end = jnp.where(jnp.arange(512) < 256, 256, 512)[None].astype(jnp.int32)  # two branches of two blocks
  spoiled = p._replace(subtree_end=end, v=p.v.at[:, 10].set(jnp.nan))
  output = both(partial(fused_attention, KERNELS[kernel]), spoiled)[0]
  assert np.isfinite(output[:, 256:]).all()
  assert np.isnan(output[:, 10:128]).all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_policy_that_keeps_the_attention_keeps_what_the_backward_pass_needs(make_problem, kernel: str):
  p = make_problem(0, 1, 128, heads=2, key_heads=1, size=64, padding=0, dtype=jnp.float32)

  def kept(policy) -> int:
    one = lambda q: fused_attention(KERNELS[kernel], q, p.k, p.v, p.subtree_end, chunk=128)
    pull = jax.eval_shape(lambda q: jax.vjp(jax.checkpoint(one, policy=policy), q)[1], p.q)
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(pull))

  policies = jax.checkpoint_policies
  more = kept(policies.save_only_these_names(ATTENTION_NAME)) - kept(policies.nothing_saveable)
  assert more == 4 * 128 * 2 * (64 + 1)  # the heads' outputs, and the logsumexp of each


def in_parts(attend, parts: int):
  """The attention of a row whose queries come in equal parts, one after the other, each with its offset."""

  def attended(q, k, v, subtree_end, **settings):
    count = q.shape[1] // parts
    each = [
      attend(q[:, start : start + count], k, v, subtree_end, offset=jnp.asarray(start), **settings)
      for start in range(0, q.shape[1], count)
    ]
    return jnp.concatenate(each, axis=1)

  return attended


PARTS = {
  "blocks that begin at the parts": ((8, 2, 512), 4, {}),
  "parts that begin within a block, a window": ((9, 2, 300), 2, {"size": 80, "padding": 160, "window": 9}),
  "parts shorter than a block": ((10, 1, 120), 3, {"key_heads": 1}),
  "parts of one block and a token": ((11, 1, 774), 3, {"padding": 0, "window": 200}),
}


@pytest.mark.parametrize("kernel", [*KERNELS, "reference"])
@pytest.mark.parametrize("case", PARTS)
def test_queries_in_parts_are_those_of_the_whole_row(make_problem, kernel: str, case: str):
  """Gradients of keys that a part's queries never see are zeros, not what lay in memory before."""
  (seed, rows, length), parts, changes = PARTS[case]
  sizes = {"heads": 4, "key_heads": 2, "size": 64, "padding": 5, "dtype": jnp.float32} | changes
  window = sizes.pop("window", None)
  problem = make_problem(seed, rows, length, **sizes)
  attend = attention if kernel == "reference" else partial(fused_attention, KERNELS[kernel])
  ours = both(in_parts(attend, parts), problem, window)
  theirs = both(attention, problem, window)
  for mine, expected in zip(ours, theirs, strict=True):
    np.testing.assert_allclose(mine, expected, rtol=0, atol=TOLERANCE[jnp.float32] * np.abs(expected).max())
