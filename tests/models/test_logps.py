"""Oracle: a log-softmax over all words in float64, for every cut of tokens and vocabulary."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as Spec

from amopo_jax.models import logps
from amopo_jax.models.logps import Scored, Tiling, room_shape, scored_logps, whole_chunks

SHARDS, TOKENS, SCORED, WIDTH, VOCAB = 2, 9, 12, 5, 24


def inputs(seed: int, *, void: int = 0):
  draw = np.random.default_rng(seed)
  hidden = jnp.asarray(draw.normal(size=(SHARDS, TOKENS, WIDTH)), jnp.float32)
  weight = jnp.asarray(draw.normal(size=(VOCAB, WIDTH)), jnp.float32)
  whole = lambda low, high: jnp.asarray(draw.integers(low, high, (SHARDS, SCORED)), jnp.int32)
  count = jnp.asarray([SCORED - void, SCORED - 2 * void], jnp.int32)
  return hidden, weight, Scored(whole(0, TOKENS), whole(0, VOCAB), whole(0, 3), count)


def oracle(hidden, weight, scored):
  states = np.take_along_axis(np.asarray(hidden, np.float64), np.asarray(scored.source)[..., None], axis=1)
  logits = states @ np.asarray(weight, np.float64).T
  top = np.max(logits, axis=-1, keepdims=True)
  lse = top[..., 0] + np.log(np.sum(np.exp(logits - top), axis=-1))
  return np.take_along_axis(logits, np.asarray(scored.target)[..., None], axis=2)[..., 0] - lse


CUTS = [
  Tiling(chunk=chunk, block=block, kept=kept, vocab_shards=shards)
  for chunk, kept in ((12, 0), (12, 1), (4, 0), (4, 2), (1, 5))
  for block, shards in ((24, 1), (7, 1), (8, 1), (5, 2), (3, 4), (1, 1))
]


@pytest.mark.parametrize("tiling", CUTS)
def test_every_cut_gives_the_log_softmax_and_its_gradient(tiling: Tiling, monkeypatch):
  monkeypatch.setattr("amopo_jax.models.word_blocks._MULTIPLE", 2)
  hidden, weight, scored = inputs(0)
  pull = jnp.asarray(np.random.default_rng(1).normal(size=scored.slot.shape), jnp.float32)
  found, back = jax.vjp(lambda h, w: scored_logps(h, w, scored, tiling), hidden, weight)
  np.testing.assert_allclose(found, oracle(hidden, weight, scored), rtol=1e-5, atol=1e-6)
  for which, (mine, x) in enumerate(zip(back(pull), (hidden, weight), strict=True)):
    direction = np.random.default_rng(2).normal(size=x.shape)
    sides = []
    for sign in (1, -1):
      moved = [np.asarray(y, np.float64) for y in (hidden, weight)]
      moved[which] = moved[which] + sign * 1e-5 * direction
      sides.append(np.sum(np.asarray(pull, np.float64) * oracle(*moved, scored)))
    np.testing.assert_allclose(np.sum(mine * direction), (sides[0] - sides[1]) / 2e-5, rtol=1e-4)


@pytest.mark.parametrize("kept", [0, 1, 2])
@pytest.mark.parametrize("void", [0, 1, 2, 3, 5])
def test_what_remains_behind_the_whole_chunks_comes_in_pieces(kept: int, void: int, monkeypatch):
  """Chunks of 4 tokens in pieces of 1; three or more that remain are a chunk."""
  monkeypatch.setattr("amopo_jax.models.logps._PIECES", 4)
  monkeypatch.setattr("amopo_jax.models.logps._LEAST_PIECE", 1)
  hidden, weight, scored = inputs(6)
  count = SCORED - void
  scored = scored._replace(count=jnp.asarray([count, min(count, 2)], jnp.int32))
  is_scored = jnp.arange(SCORED)[None, :] < scored.count[:, None]
  pull = jnp.where(is_scored, jnp.asarray(np.random.default_rng(1).normal(size=is_scored.shape), jnp.float32), 0.0)
  both = lambda tiling: jax.vjp(lambda h, w: scored_logps(h, w, scored, tiling), hidden, weight)
  (found, back), (expected, expected_back) = both(Tiling(4, 8, kept, 1)), both(Tiling(12, 24, 0, 1))
  np.testing.assert_allclose(jnp.where(is_scored, found, 0), jnp.where(is_scored, expected, 0), rtol=1e-5)
  for mine, other in zip(back(pull), expected_back(pull), strict=True):
    np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5)
  rest = count % 4
  computed = np.flatnonzero(np.any(np.asarray(found) != 0, axis=0))
  assert computed[-1] + 1 == (count if rest < 3 else count + 4 - rest)


@pytest.mark.parametrize("has_room", [True, False])
@pytest.mark.parametrize("kept", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 4, 6, 9])
def test_pieces_in_place_of_a_kept_chunk_are_kept_too(count: int, kept: int, has_room: bool, monkeypatch):
  """None of their logits is computed again, and those in the room are the logits."""
  monkeypatch.setattr("amopo_jax.models.logps._PIECES", 4)
  monkeypatch.setattr("amopo_jax.models.logps._LEAST_PIECE", 1)
  hidden, weight, scored = inputs(7)
  scored = scored._replace(count=jnp.asarray([count, 1], jnp.int32))
  tiling = Tiling(4, 8, kept, 1)
  room = jax.new_ref(jnp.zeros(room_shape(tiling, VOCAB, SHARDS))) if has_room else None
  computed = []
  product = logps._logits
  seen = lambda chunk, *rest: (jax.debug.callback(lambda x: computed.append(x.shape[1]), chunk.target), chunk)[1]
  monkeypatch.setattr(logps, "_logits", lambda chunk, *rest: product(seen(chunk), *rest))
  _, back = jax.vjp(lambda h, w: scored_logps(h, w, scored, tiling, room), hidden, weight)
  jax.effects_barrier()
  forward = sum(computed)
  back(jnp.ones(scored.slot.shape))
  jax.effects_barrier()
  assert forward == 3 * count
  assert sum(computed) - forward == 3 * max(count - 4 * kept, 0)
  if room is not None:
    full = jnp.einsum("vd,gcd->vgc", weight, jnp.take_along_axis(hidden, scored.source[..., None], axis=1))
    in_room = jnp.moveaxis(room[...], 0, -2).reshape(VOCAB, SHARDS, 4 * kept)
    some = min(count, 4 * kept)
    np.testing.assert_allclose(in_room[..., :some], full[..., :some], rtol=1e-5)
    np.testing.assert_array_equal(in_room[..., some:], 0.0)


@pytest.mark.parametrize("kept", [0, 1])
def test_void_places_are_not_computed(kept: int):
  hidden, weight, scored = inputs(3, void=4)
  scored = scored._replace(source=scored.source.at[:, 8:].set(TOKENS - 1))
  hidden = hidden.at[:, -1].set(jnp.nan)
  scored = scored._replace(source=scored.source.at[:, :8].set(scored.source[:, :8] % (TOKENS - 1)))
  found = scored_logps(hidden, weight, scored, Tiling(4, 8, kept, 1))
  np.testing.assert_allclose(found[:, :8], oracle(hidden, weight, scored)[:, :8], rtol=1e-5)
  np.testing.assert_array_equal(found[:, 8:], 0.0)


def test_logits_far_apart_and_blocks_in_any_order_stay_finite():
  hidden, weight, scored = inputs(4)
  for order in (1, -1):
    steep = weight * jnp.linspace(0.0, 1e3, VOCAB)[::order, None]
    found, back = jax.vjp(lambda h, w: scored_logps(h, w, scored, Tiling(4, 5, 1, 1)), hidden, steep)
    np.testing.assert_allclose(found, oracle(hidden, steep, scored), rtol=1e-5, atol=1e-4)
    assert all(np.isfinite(grad).all() for grad in back(jnp.ones_like(found)))


def test_devices_that_share_the_vocabulary_meet_only_after_the_inner_loop():
  mesh = Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("data", "tensor"))
  place = lambda x, *spec: jax.device_put(x, NamedSharding(mesh, Spec(*spec)))
  hidden, weight, scored = inputs(5)
  tiling = Tiling(4, 5, 1, 2)
  value = lambda h, w, s: jnp.sum(jnp.sin(scored_logps(h, w, s, tiling)))
  placed = place(hidden, "data"), place(weight, "tensor"), Scored(*(place(x, "data") for x in scored))
  program = jax.jit(jax.grad(value, (0, 1))).lower(*placed).compile()
  for mine, theirs in zip(program(*placed), jax.grad(value, (0, 1))(hidden, weight, scored), strict=True):
    np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)
  collectives = [line for line in program.as_text().splitlines() if "all-" in line or "collective" in line]
  assert [line for line in collectives if "while/body/while/body" in line] == []


@pytest.mark.parametrize(
  "count, chunk, whole", [(1416, 2048, 0), (1535, 2048, 0), (1536, 2048, 1), (2064, 2048, 1), (257, 256, 2)]
)
def test_three_quarters_of_a_chunk_are_a_chunk_and_small_ones_have_no_pieces(count, chunk, whole):
  assert whole_chunks(count, chunk) == whole
