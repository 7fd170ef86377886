"""Oracle: all logits of all tokens, a log-softmax, and a Python loop over the scored tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as Spec

from amopo_jax.models import head
from amopo_jax.models.head import MomentSums, _marked_first, make_room, moments_head
from amopo_jax.types import NO_SLOT, PackedRows

ROWS, LENGTH, WIDTH, VOCAB, SLOTS = 4, 11, 6, 17, 5


def random_rows(seed: int, scored_share: float = 0.6, rows: int = ROWS, length: int = LENGTH) -> PackedRows:
  """Any tokens, any earlier parents (several tokens may share one), any slots; slot 3 never occurs."""
  draw = np.random.default_rng(seed)
  index = np.arange(length)
  parent = np.maximum(index - draw.integers(1, 4, size=(rows, length)), 0)
  slot = draw.choice([s for s in range(SLOTS) if s != 3], size=(rows, length))
  slot = np.where(draw.random((rows, length)) < scored_share, slot, NO_SLOT)
  slot[:, 0] = NO_SLOT
  fields = {"parent": parent, "slot": slot, "tokens": draw.integers(0, VOCAB, size=(rows, length))}
  fields |= {"positions": np.zeros((rows, length)), "subtree_end": np.full((rows, length), length)}
  return PackedRows(**{name: jnp.asarray(x, jnp.int32) for name, x in fields.items()})


def random_inputs(seed: int, dtype=jnp.float32, rows: int = ROWS, length: int = LENGTH, vocab: int = VOCAB):
  draw = np.random.default_rng(seed)
  hidden = jnp.asarray(draw.normal(size=(rows, length, WIDTH)), dtype)
  return hidden, jnp.asarray(draw.normal(size=(vocab, WIDTH)), dtype)


def oracle(hidden, weight, rows: PackedRows) -> np.ndarray:
  hidden, weight = np.asarray(hidden, np.float64), np.asarray(weight, np.float64)
  sums = np.zeros((4, SLOTS))
  for r, j in np.ndindex(rows.slot.shape):
    slot = int(rows.slot[r, j])
    if slot == NO_SLOT:
      continue
    logits = weight @ hidden[r, int(rows.parent[r, j])]
    logp = logits[int(rows.tokens[r, j])] - np.log(np.sum(np.exp(logits)))
    sums[:, slot] += [1.0, logp, np.exp(logp), np.exp(2 * logp)]
  return sums


def plain_head(hidden, weight, rows: PackedRows) -> MomentSums:
  """The same in jnp with all logits at once and no hand-written gradient."""
  states = jnp.take_along_axis(hidden, rows.parent[..., None], axis=1)
  logps = jax.nn.log_softmax(jnp.einsum("rsd,vd->rsv", states, weight, preferred_element_type=jnp.float32))
  logp = jnp.take_along_axis(logps, rows.tokens[..., None], axis=2)[..., 0]
  one_hot = jax.nn.one_hot(rows.slot, SLOTS)
  terms = (jnp.ones_like(logp), logp, jnp.exp(logp), jnp.exp(2 * logp))
  return MomentSums(*(jnp.einsum("rs,rsn->n", term, one_hot) for term in terms))


def scalar(sums: MomentSums) -> jax.Array:
  """Depends on every moment of every slot, each with a weight of its own."""
  weights = jax.random.normal(jax.random.key(5), (len(sums), SLOTS))
  return jnp.sum(weights * jnp.stack(sums))


LAYOUTS = [(1, 1), (4, 1), (100, 1), (3, 2), (7, 4)]


@pytest.mark.parametrize(("chunk", "shards"), LAYOUTS)
def test_moments_are_those_of_the_full_softmax(chunk: int, shards: int):
  hidden, weight = random_inputs(0)
  rows = random_rows(0)
  ours = jax.jit(lambda h, w: moments_head(h, w, rows, SLOTS, chunk=chunk, shards=shards))(hidden, weight)
  np.testing.assert_allclose(jnp.stack(ours), oracle(hidden, weight, rows), rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(jnp.stack(ours)[:, 3], 0.0)


@pytest.mark.parametrize(("chunk", "shards"), LAYOUTS)
def test_the_last_token_of_a_row_counts_once(chunk: int, shards: int):
  hidden, weight = random_inputs(0)
  rows = random_rows(0)
  rows = rows._replace(slot=rows.slot.at[:, -3:].set(2))
  ours = moments_head(hidden, weight, rows, SLOTS, chunk=chunk, shards=shards)
  np.testing.assert_array_equal(ours.length, oracle(hidden, weight, rows)[0])
  np.testing.assert_allclose(jnp.stack(ours), oracle(hidden, weight, rows), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("chunk", "shards"), LAYOUTS)
def test_the_hand_written_gradient_is_that_of_the_full_softmax(chunk: int, shards: int):
  inputs = random_inputs(1)
  rows = random_rows(1)
  ours = lambda h, w: scalar(moments_head(h, w, rows, SLOTS, chunk=chunk, shards=shards))
  found = jax.jit(jax.grad(ours, (0, 1)))(*inputs)
  expected = jax.grad(lambda h, w: scalar(plain_head(h, w, rows)), (0, 1))(*inputs)
  for mine, theirs in zip(found, expected, strict=True):
    np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("field", range(4))
def test_the_gradient_of_each_moment_agrees_with_differences_of_the_oracle(field: int):
  inputs = random_inputs(2)
  rows = random_rows(2)
  draw = np.random.default_rng(2)
  weights = draw.normal(size=SLOTS)
  value = lambda h, w: jnp.sum(moments_head(h, w, rows, SLOTS, chunk=4)[field] * jnp.asarray(weights, jnp.float32))
  grads = jax.jit(jax.grad(value, (0, 1)))(*inputs)
  for which in range(2):
    direction = draw.normal(size=inputs[which].shape)
    sides = []
    for sign in (1, -1):
      moved = [np.asarray(x, np.float64) for x in inputs]
      moved[which] = moved[which] + sign * 1e-5 * direction
      sides.append(oracle(*moved, rows)[field] @ weights)
    slope = (sides[0] - sides[1]) / 2e-5
    np.testing.assert_allclose(np.sum(grads[which] * direction), slope, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("chunk", "shards", "sharers"), [(4, 1, 2), (3, 2, 3), (100, 4, 4)])
def test_the_scored_tokens_of_a_shard_may_be_dealt_to_several_devices(chunk: int, shards: int, sharers: int):
  inputs = random_inputs(12)
  rows = random_rows(12)
  seen = []

  def constrain(x: jax.Array, kind: str) -> jax.Array:
    seen.append((kind, x.shape[:2]))
    return x

  split = {"chunk": chunk, "shards": shards, "sharers": sharers, "constrain": constrain}
  ours = lambda h, w: moments_head(h, w, rows, SLOTS, **split)
  np.testing.assert_allclose(jnp.stack(ours(*inputs)), oracle(*inputs, rows), rtol=1e-5, atol=1e-6)
  found = jax.jit(jax.grad(lambda h, w: scalar(ours(h, w)), (0, 1)))(*inputs)
  expected = jax.grad(lambda h, w: scalar(plain_head(h, w, rows)), (0, 1))(*inputs)
  for mine, theirs in zip(found, expected, strict=True):
    np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)
  assert set(seen) == {("head_shards", (shards, sharers))}


def test_sharers_get_as_many_scored_tokens_but_for_one(monkeypatch: pytest.MonkeyPatch):
  counts, score = [], head.scored_logps
  note = lambda *args: counts.append(np.asarray(args[2].count)) or score(*args)
  monkeypatch.setattr(head, "scored_logps", note)
  rows = random_rows(13)
  moments_head(*random_inputs(13), rows, SLOTS, chunk=4, shards=2, sharers=3)
  each = counts[0].reshape(2, 3)
  np.testing.assert_array_equal(each.sum(axis=1), np.asarray(rows.slot >= 0).reshape(2, -1).sum(axis=1))
  assert (each.max(axis=1) - each.min(axis=1) <= 1).all()


def test_a_last_chunk_may_overrun_the_row():
  inputs = random_inputs(11)
  rows = random_rows(11, scored_share=1.0)
  # 20 of the 22 tokens of a shard are scored: four chunks of 6 reach beyond all of them.
  ours = lambda h, w: moments_head(h, w, rows, SLOTS, chunk=6, shards=2)
  np.testing.assert_allclose(jnp.stack(ours(*inputs)), oracle(*inputs, rows), rtol=1e-5, atol=1e-6)
  found = jax.grad(lambda h, w: scalar(ours(h, w)), (0, 1))(*inputs)
  expected = jax.grad(lambda h, w: scalar(plain_head(h, w, rows)), (0, 1))(*inputs)
  for mine, theirs in zip(found, expected, strict=True):
    np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def test_no_scored_token_at_all_gives_exact_zeros():
  inputs = random_inputs(3)
  rows = random_rows(3, scored_share=0.0)
  ours = lambda h, w: scalar(moments_head(h, w, rows, SLOTS, chunk=4))
  value, grads = jax.value_and_grad(ours, (0, 1))(*inputs)
  assert value == 0.0
  assert all((g == 0.0).all() for g in grads)


def test_a_shard_without_scored_tokens_waits_for_the_others():
  hidden, weight = random_inputs(4)
  rows = random_rows(4)
  rows = rows._replace(slot=rows.slot.at[: ROWS // 2].set(NO_SLOT))
  ours = moments_head(hidden, weight, rows, SLOTS, chunk=2, shards=2)
  np.testing.assert_allclose(jnp.stack(ours), oracle(hidden, weight, rows), rtol=1e-5, atol=1e-6)


def test_impossible_tokens_and_certain_tokens_stay_finite():
  hidden, weight = random_inputs(5)
  rows = random_rows(5)
  ours = lambda h, w: scalar(moments_head(h, w, rows, SLOTS, chunk=4))
  value, grads = jax.value_and_grad(ours, (0, 1))(1e3 * hidden, 1e2 * weight)
  sums = moments_head(1e3 * hidden, 1e2 * weight, rows, SLOTS, chunk=4)
  assert sums.sum_logp.min() < -1e4
  assert np.isfinite(value)
  assert all(np.isfinite(g).all() for g in grads)


def test_bfloat16_products_with_float32_logits_and_moments():
  hidden, weight = random_inputs(6, jnp.bfloat16)
  rows = random_rows(6)
  ours = lambda h, w: moments_head(h, w, rows, SLOTS, chunk=4)
  sums = ours(hidden, weight)
  assert {x.dtype for x in sums} == {jnp.dtype(jnp.float32)}
  # The inputs are bfloat16 for both; the logits are not rounded again, so the agreement is that of float32.
  np.testing.assert_allclose(jnp.stack(sums), oracle(hidden, weight, rows), rtol=1e-5, atol=1e-6)
  grads = jax.grad(lambda h, w: scalar(ours(h, w)), (0, 1))(hidden, weight)
  plain = lambda h, w: scalar(plain_head(h, w, rows))
  expected = jax.grad(plain, (0, 1))(hidden.astype(jnp.float32), weight.astype(jnp.float32))
  for mine, theirs in zip(grads, expected, strict=True):
    assert mine.dtype == jnp.bfloat16
    np.testing.assert_allclose(mine.astype(jnp.float32), theirs, atol=0.02 * float(jnp.abs(theirs).max()))


def test_a_float32_weight_gets_a_float32_gradient():
  hidden, _ = random_inputs(6, jnp.bfloat16)
  _, weight = random_inputs(6)
  value = lambda w: scalar(moments_head(hidden, w, random_rows(6), SLOTS, chunk=4))
  assert jax.grad(value)(weight).dtype == jnp.float32


def test_rows_that_do_not_split_evenly_are_an_error():
  hidden, weight = random_inputs(7)
  with pytest.raises(ValueError, match="4 rows cannot be split into 3"):
    moments_head(hidden, weight, random_rows(7), SLOTS, chunk=4, shards=3)


def test_a_vocabulary_that_does_not_split_evenly_is_an_error():
  hidden, weight = random_inputs(7)
  with pytest.raises(ValueError, match="17 words cannot be split into 2"):
    moments_head(hidden, weight, random_rows(7), SLOTS, chunk=4, vocab_shards=2)


@pytest.mark.parametrize("keep_chunks", [1, 3, 100])
def test_logits_that_are_kept_change_nothing(keep_chunks: int):
  inputs, rows = random_inputs(12), random_rows(12)
  chunk = 4
  gradient = lambda keep: jax.jit(
    jax.value_and_grad(lambda h, w: scalar(moments_head(h, w, rows, SLOTS, chunk=chunk, keep=keep)), (0, 1))
  )
  keep = keep_chunks * chunk * VOCAB * 4 / 2**30
  jax.tree.map(
    lambda mine, theirs: np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6),
    gradient(keep)(*inputs),
    gradient(0.0)(*inputs),
  )


@pytest.mark.parametrize("keep_chunks", [1, 100])
def test_a_room_that_outlives_the_step_changes_nothing_and_is_used(keep_chunks: int):
  inputs, rows, keep = random_inputs(12), random_rows(12), keep_chunks * 4 * VOCAB * 4 / 2**30
  room = make_room((ROWS, LENGTH), VOCAB, chunk=4, keep=keep)
  gradient = lambda **how: jax.jit(
    jax.value_and_grad(lambda h, w: scalar(moments_head(h, w, rows, SLOTS, chunk=4, **how)), (0, 1))
  )
  in_room, without = gradient(keep=keep, room=room), gradient(keep=0.0)
  for seed in (12, 13):  # what the first step left there is written over
    inputs = random_inputs(seed)
    same = lambda mine, theirs: np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    jax.tree.map(same, in_room(*inputs), without(*inputs))
  assert np.count_nonzero(room[...][0]) == 4 * VOCAB


def test_a_room_in_loops_over_values_and_over_gradients():
  """An evaluation maps over micro-batches without a gradient; accumulation scans over them with one."""
  (hidden, weight), rows, keep = random_inputs(12), random_rows(12), 100 * 4 * VOCAB * 4 / 2**30
  room, scales = make_room((ROWS, LENGTH), VOCAB, chunk=4, keep=keep), jnp.arange(1.0, 4.0)
  value = lambda room: lambda w: scalar(moments_head(hidden, w, rows, SLOTS, chunk=4, keep=keep, room=room))
  values = lambda room: jax.jit(lambda w: jax.lax.map(lambda scale: value(room)(w * scale), scales))(weight)
  add = lambda room: lambda total, scale: (total + jax.grad(value(room))(weight * scale), None)
  gradients = lambda room: jax.jit(lambda start: jax.lax.scan(add(room), start, scales)[0])(jnp.zeros_like(weight))
  np.testing.assert_array_equal(values(room), values(None))
  assert not np.any(room[...])
  np.testing.assert_array_equal(gradients(room), gradients(None))
  assert np.any(room[...])


def test_a_room_of_another_size_is_left_alone():
  rows, room = random_rows(12), make_room((2, LENGTH), VOCAB, chunk=64, keep=1.0)
  jax.grad(lambda h, w: scalar(moments_head(h, w, rows, SLOTS, chunk=64, keep=1.0, room=room)))(*random_inputs(12))
  assert not np.any(room[...])


@pytest.mark.parametrize("rows, keep", [((0, 0), 1.0), ((ROWS, LENGTH), 0.0)])
def test_no_room_where_nothing_is_kept(rows, keep):
  assert make_room(rows, VOCAB, chunk=4, keep=keep) is None


def test_kept_logits_stay_within_their_budget():
  inputs, rows = random_inputs(13, rows=1, length=512, vocab=2048), random_rows(13, 1.0, 1, 512)
  needed = lambda keep, room=None: (
    jax.jit(jax.grad(lambda h, w: scalar(moments_head(h, w, rows, SLOTS, chunk=64, keep=keep, room=room)), (0, 1)))
    .lower(*inputs)
    .compile()
    .memory_analysis()
    .temp_size_in_bytes
  )
  budget = 2 * 64 * 2048 * 4
  keep, nothing = budget / 2**30, needed(0.0)
  assert 0.9 * budget < needed(keep) - nothing < 1.2 * budget
  assert needed(keep, make_room((1, 512), 2048, chunk=64, keep=keep)) - nothing < 0.1 * budget


def compiled_gradient(rows: int, length: int, vocab: int, chunk: int):
  hidden, weight = random_inputs(8, rows=rows, length=length, vocab=vocab)
  packed = random_rows(8, rows=rows, length=length)
  value = lambda h, w, packed: scalar(moments_head(h, w, packed, SLOTS, chunk=chunk))
  return jax.jit(jax.grad(value, (0, 1))).lower(hidden, weight, packed).compile()


def test_memory_does_not_grow_with_row_length_times_vocabulary():
  vocab, chunk = 2048, 16
  short, long = (
    compiled_gradient(1, length, vocab, chunk).memory_analysis().temp_size_in_bytes for length in (128, 1024)
  )
  all_logits = 1024 * vocab * 4
  assert long - short < 0.02 * all_logits
  assert long < 0.25 * all_logits


def test_tokens_that_are_not_scored_are_never_projected():
  hidden, weight = random_inputs(9)
  rows = random_rows(9)
  rows = rows._replace(slot=jnp.full_like(rows.slot, NO_SLOT).at[0, 1:6].set(0))
  ours = moments_head(hidden.at[1:].set(jnp.nan), weight, rows, SLOTS, chunk=5)
  np.testing.assert_allclose(jnp.stack(ours), oracle(hidden, weight, rows), rtol=1e-5, atol=1e-6)


def test_shards_on_four_devices_meet_only_after_the_loop():
  mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
  place = lambda x, *spec: jax.device_put(x, NamedSharding(mesh, Spec(*spec)))
  hidden, weight = random_inputs(10)
  rows = random_rows(10)
  value = lambda h, w, rows: scalar(moments_head(h, w, rows, SLOTS, chunk=3, shards=4))
  inputs = place(hidden, "data"), place(weight), PackedRows(*(place(x, "data") for x in rows))
  program = jax.jit(jax.grad(value, (0, 1))).lower(*inputs).compile()
  found = program(*inputs)
  expected = jax.grad(lambda h, w: scalar(plain_head(h, w, rows)), (0, 1))(hidden, weight)
  for mine, theirs in zip(found, expected, strict=True):
    np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)
  in_loops = [line for line in program.as_text().splitlines() if "all-" in line and "while/body" in line]
  assert in_loops == []


def test_a_budget_that_keeps_nothing_is_said(caplog):
  hidden, weight = random_inputs(0)
  chunk = 8 * VOCAB * 4  # bytes of a chunk's logits
  keep = lambda budget: jax.eval_shape(
    lambda h: moments_head(h, weight, random_rows(0), SLOTS, chunk=8, keep=budget / 2**30), hidden
  )
  keep(chunk)
  assert not caplog.records
  keep(chunk - 8)
  assert "keeps nothing: a chunk of 8 tokens needs more" in caplog.text


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_scored_tokens_come_first_in_their_order(share):
  marked = np.random.default_rng(0).random((3, 50)) < share
  found = np.asarray(_marked_first(jnp.asarray(marked)))
  for row, places in zip(marked, found, strict=True):
    np.testing.assert_array_equal(places[: row.sum()], np.flatnonzero(row))
    assert (places[row.sum() :] == 49).all()
