"""Oracle: every token walks up its ancestors, one at a time, and takes a float64 softmax over them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amopo_jax.models.attention import reference as module

ROWS, LENGTH, HEADS, KV_HEADS, SIZE = 2, 23, 4, 2, 8

attention = jax.jit(module.attention, static_argnames=("chunk", "window"))


def random_tries(seed: int, rows: int = ROWS, length: int = LENGTH, padding: int = 4):
  """Depth-first rows of random tries: each token's parent is on the path that leads to the one before it."""
  draw = np.random.default_rng(seed)
  parent = np.full((rows, length), -1)
  positions = np.zeros((rows, length), np.int32)
  subtree_end = np.zeros((rows, length), np.int32)
  for r in range(rows):
    path: list[int] = []
    for i in range(length - padding):
      if draw.random() < 0.3:
        del path[draw.integers(0, len(path) + 1) :]
      parent[r, i] = path[-1] if path else -1
      positions[r, i] = len(path)
      path.append(i)
      for ancestor in path:
        subtree_end[r, ancestor] = i + 1
  return parent, positions, subtree_end


def oracle(q, k, v, parent, window: int | None = None) -> np.ndarray:
  q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
  out = np.zeros_like(q)
  for r, i, h in np.ndindex(q.shape[:3]):
    chain, j = [], i
    while j >= 0 and (window is None or len(chain) < window):
      chain.append(j)
      j = parent[r, j]
    group = h // (q.shape[2] // k.shape[2])
    scores = k[r, chain, group] @ q[r, i, h] / np.sqrt(q.shape[3])
    shares = np.exp(scores - scores.max())
    out[r, i, h] = shares @ v[r, chain, group] / shares.sum()
  return out


def random_heads(seed: int, rows: int = ROWS, length: int = LENGTH, dtype=jnp.float32):
  keys = jax.random.split(jax.random.key(seed), 3)
  sizes = (HEADS, KV_HEADS, KV_HEADS)
  return [
    2 * jax.random.normal(key, (rows, length, heads, SIZE), dtype) for key, heads in zip(keys, sizes, strict=True)
  ]


def plain_attention(q, k, v, visible: np.ndarray):
  """The same in three lines of jnp without chunks or a hand-written gradient."""
  k, v = (jnp.repeat(x, q.shape[2] // k.shape[2], axis=2) for x in (k, v))
  scores = jnp.einsum("rqhd,rkhd->rhqk", q, k) / np.sqrt(q.shape[3])
  shares = jax.nn.softmax(jnp.where(visible[:, None], scores, -jnp.inf), axis=-1)
  return jnp.einsum("rhqk,rkhd->rqhd", shares, v)


def ancestry(parent: np.ndarray) -> np.ndarray:
  rows, length = parent.shape
  visible = np.zeros((rows, length, length), bool)
  for r, i in np.ndindex(parent.shape):
    j = i
    while j >= 0:
      visible[r, i, j] = True
      j = parent[r, j]
  return visible


@pytest.mark.parametrize("chunk", [2, 5, LENGTH, 4 * LENGTH])
def test_tokens_attend_to_their_ancestors_whatever_the_chunk(chunk: int):
  q, k, v = random_heads(0)
  parent, _, subtree_end = random_tries(0)
  ours = attention(q, k, v, jnp.asarray(subtree_end), chunk=chunk)
  np.testing.assert_allclose(ours, oracle(q, k, v, parent), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("window", [1, 3, 100])
def test_a_window_counts_positions_along_the_path(window: int):
  q, k, v = random_heads(1)
  parent, positions, subtree_end = random_tries(1)
  ours = attention(q, k, v, jnp.asarray(subtree_end), chunk=6, positions=jnp.asarray(positions), window=window)
  np.testing.assert_allclose(ours, oracle(q, k, v, parent, window), rtol=1e-5, atol=1e-5)


def test_a_window_without_positions_is_an_error():
  q, k, v = random_heads(1)
  with pytest.raises(ValueError, match="pass positions"):
    attention(q, k, v, jnp.ones((ROWS, LENGTH), jnp.int32), chunk=4, window=3)


@pytest.mark.parametrize("chunk", [2, LENGTH])
def test_the_hand_written_gradient_is_that_of_plain_attention(chunk: int):
  heads = random_heads(2)
  parent, _, subtree_end = random_tries(2)
  weight = jax.random.normal(jax.random.key(9), heads[0].shape)
  ours = lambda q, k, v: jnp.sum(weight * attention(q, k, v, jnp.asarray(subtree_end), chunk=chunk))
  plain = lambda q, k, v: jnp.sum(weight * plain_attention(q, k, v, ancestry(parent)))
  found, expected = (jax.jit(jax.grad(f, (0, 1, 2)))(*heads) for f in (ours, plain))
  for mine, theirs in zip(found, expected, strict=True):
    np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def test_the_gradient_agrees_with_differences_of_the_float64_oracle():
  heads = random_heads(3)
  parent, positions, subtree_end = random_tries(3)
  draw = np.random.default_rng(3)
  weight = draw.normal(size=heads[0].shape)

  def value(q, k, v):
    out = attention(q, k, v, jnp.asarray(subtree_end), chunk=12, positions=jnp.asarray(positions), window=4)
    return jnp.sum(out * weight.astype(np.float32))

  grads = jax.jit(jax.grad(value, (0, 1, 2)))(*heads)
  step = 1e-4
  for which in range(3):
    direction = draw.normal(size=heads[which].shape)
    sides = []
    for sign in (1, -1):
      moved = [np.asarray(x, np.float64) for x in heads]
      moved[which] = moved[which] + sign * step * direction
      sides.append(np.sum(weight * oracle(*moved, parent, 4)))
    up, down = sides
    np.testing.assert_allclose(np.sum(grads[which] * direction), (up - down) / (2 * step), rtol=1e-4)


def test_padding_is_finite_and_touches_nothing():
  q, k, v = random_heads(4)
  _, _, subtree_end = random_tries(4)
  real = subtree_end > 0
  spoil = lambda x: jnp.where(real[:, :, None, None], x, 1e4)

  def total(q, k, v):
    out = attention(q, k, v, jnp.asarray(subtree_end), chunk=12)
    return jnp.sum(jnp.where(real[:, :, None, None], out, 0.0)), out

  both = jax.jit(jax.value_and_grad(total, (0, 1, 2), has_aux=True))
  (_, clean), clean_grads = both(q, k, v)
  spoiled = [spoil(x) for x in (q, k, v)]
  (_, dirty), dirty_grads = both(*spoiled)
  np.testing.assert_array_equal(dirty[real], clean[real])
  assert np.isfinite(dirty).all()
  for before, after in zip(clean_grads, dirty_grads, strict=True):
    np.testing.assert_array_equal(after[real], before[real])
    np.testing.assert_array_equal(after[~real], 0.0)


def test_extreme_scores_stay_finite():
  q, k, v = (50 * x for x in random_heads(5))
  parent, _, subtree_end = random_tries(5)
  ours = attention(q, k, v, jnp.asarray(subtree_end), chunk=LENGTH)
  np.testing.assert_allclose(ours, oracle(q, k, v, parent), rtol=1e-3, atol=1e-3)
  grad = jax.grad(lambda q: jnp.sum(attention(q, k, v, jnp.asarray(subtree_end), chunk=LENGTH)))(q)
  assert np.isfinite(grad).all()


def test_bfloat16_in_bfloat16_out_with_a_float32_softmax():
  heads = random_heads(6, dtype=jnp.bfloat16)
  parent, _, subtree_end = random_tries(6)
  value = lambda q, k, v: attention(q, k, v, jnp.asarray(subtree_end), chunk=12)
  ours = value(*heads)
  assert ours.dtype == jnp.bfloat16
  # Two roundings to 8 bits: of the shares and of the result.
  np.testing.assert_allclose(ours.astype(jnp.float32), oracle(*heads, parent), atol=0.03)
  grads = jax.jit(jax.grad(lambda *heads: jnp.sum(value(*heads).astype(jnp.float32)), (0, 1, 2)))(*heads)
  assert [g.dtype for g in grads] == [jnp.bfloat16] * 3


def compiled(length: int, chunk: int):
  """The compiled gradient of the sum, for its cost."""
  heads = random_heads(0, rows=1, length=length)
  end = jnp.full((1, length), length, jnp.int32)
  value = lambda q, k, v: jnp.sum(attention(q, k, v, end, chunk=chunk) ** 2)
  return jax.jit(jax.grad(value, (0, 1, 2))).lower(*heads).compile()


def test_keys_after_the_chunk_cost_nothing():
  whole, chunked = (compiled(256, chunk).cost_analysis()["flops"] for chunk in (256, 64))
  # Of 4 × 4 blocks 10 are computed: 0.625 of the work.
  assert chunked < 0.68 * whole


@pytest.mark.parametrize(("length", "chunk"), [(4096, 512), (4096, 100), (300, 7), (5, 8)])
def test_spans_cover_every_query_once_and_about_half_of_the_square(length: int, chunk: int):
  spans = list(module._spans(length, chunk))
  queries = [first for s in spans for first in range(s.start, s.end, s.size)]
  assert queries == list(range(0, length, chunk))
  assert spans[-1].end == length
  assert all(s.size <= chunk for s in spans)
  share = sum(s.size * s.count * s.end for s in spans) / length**2
  assert share <= (0.57 if length >= 8 * chunk else 1.0)


def test_memory_is_not_quadratic_in_the_row(monkeypatch: pytest.MonkeyPatch):
  monkeypatch.setattr(module, "_PREFIXES", 2)
  short, long = (compiled(length, 32).memory_analysis().temp_size_in_bytes for length in (512, 2048))
  # Four times the row: four times the memory, not sixteen times.
  assert long < 4.4 * short
