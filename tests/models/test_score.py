"""The same pairs in three layouts: moments, losses and gradients must not know which (float32, 1e-5 relative).

The layouts are built here from the definitions in `amopo_jax.types`, without `amopo_jax.data`.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amopo_jax.models.config import ModelConfig
from amopo_jax.models.score import make_score_fn
from amopo_jax.models.transformer import abstract_params
from amopo_jax.types import CHOSEN, NO_SLOT, REJECTED, PackedRows, ResponseMoments

CONFIG = ModelConfig(
  architecture="Qwen2ForCausalLM",
  vocab_size=29,
  width=16,
  num_layers=2,
  num_heads=4,
  num_kv_heads=2,
  head_dim=4,
  mlp_width=24,
  qkv_bias=True,
  tie_embeddings=True,
)
CONTEXTS = 2
RTOL = 1e-5


@dataclasses.dataclass(frozen=True)
class Node:
  """A run of tokens in a trie, what follows it, and the slot its tokens are scored for."""

  tokens: tuple[int, ...]
  children: tuple["Node", ...] = ()
  slot: int = NO_SLOT


@dataclasses.dataclass(frozen=True)
class TextPair:
  """Head shared by all contexts, one tail of the prompt per context, and the two responses."""

  header: tuple[int, ...]
  tails: tuple[tuple[int, ...], ...]
  responses: tuple[tuple[int, ...], tuple[int, ...]]


PAIRS = (
  TextPair((1, 2, 3), ((4, 5), (6,)), ((7, 8, 9, 10), (7, 11))),
  TextPair((1, 12), ((13, 14, 15), (16, 17)), ((18,), (19, 20, 21))),
  TextPair((22, 23, 24, 25), ((26,), (27,)), ((28, 1), (28, 1, 2))),
)


def slot_of(pair: int, context: int, member: int) -> int:
  return (pair * CONTEXTS + context) * 2 + member


def tree(number: int, pair: TextPair) -> Node:
  """The pair's trie: header, then a branch per context, then a branch per response."""

  def answer(context: int, member: int) -> Node:
    return Node(pair.responses[member], slot=slot_of(number, context, member))

  tails = (Node(tail, (answer(context, CHOSEN), answer(context, REJECTED))) for context, tail in enumerate(pair.tails))
  return Node(pair.header, tuple(tails))


def paths(number: int, pair: TextPair) -> list[Node]:
  """The same 2 K sequences, each on its own."""
  return [
    Node(pair.header + pair.tails[context], (Node(pair.responses[member], slot=slot_of(number, context, member)),))
    for context in range(CONTEXTS)
    for member in (CHOSEN, REJECTED)
  ]


def write(node: Node, row: dict[str, list[int]], path: tuple[int, ...]) -> None:
  """Appends the node and all that follows it, depth first; `path` holds the indices of its ancestors."""
  for token in node.tokens:
    index = len(row["tokens"])
    row["tokens"].append(token)
    row["positions"].append(len(path))
    row["parent"].append(path[-1] if path else 0)
    row["slot"].append(node.slot)
    row["subtree_end"].append(0)
    path = (*path, index)
    for ancestor in path:
      row["subtree_end"][ancestor] = index + 1
  for child in node.children:
    write(child, row, path)


def lay_out(rows: Sequence[Sequence[Node]], length: int) -> PackedRows:
  """One row per sequence of tries, padded as `PackedRows` says."""
  padding = {"tokens": 0, "positions": 0, "subtree_end": 0, "parent": 0, "slot": NO_SLOT}
  packed: dict[str, list[list[int]]] = {name: [] for name in padding}
  for tries in rows:
    row: dict[str, list[int]] = {name: [] for name in padding}
    for trie in tries:
      write(trie, row, ())
    for name, value in padding.items():
      packed[name].append(row[name] + [value] * (length - len(row[name])))
  return PackedRows(**{name: jnp.asarray(x, jnp.int32) for name, x in packed.items()})


UNSHARED = lay_out([[path] for n, pair in enumerate(PAIRS) for path in paths(n, pair)], 10)
TRIES = lay_out([[tree(n, pair)] for n, pair in enumerate(PAIRS)], 20)
# A pair may also be spread over rows, its prompt repeated: the last pair's contexts lie in different rows.
PACKED = lay_out(
  [
    [tree(0, PAIRS[0]), *paths(2, PAIRS[2])[:2]],
    [*paths(2, PAIRS[2])[2:], tree(1, PAIRS[1])],
  ],
  37,
)
LAYOUTS = {"unshared": UNSHARED, "tries": TRIES, "packed": PACKED}


def random_params(config: ModelConfig) -> dict:
  draw = np.random.default_rng(0)
  shapes = abstract_params(config, jnp.float32)
  return jax.tree.map(lambda x: jnp.asarray(draw.normal(scale=0.4, size=x.shape), x.dtype), shapes)


def losses(moments: ResponseMoments) -> dict[str, jax.Array]:
  """An AMoPO-like loss with constant weights, and a sum in which every moment carries gradient."""
  logps = moments.sum_logp / moments.length
  probs = moments.sum_p / moments.length
  margins = 0.8 * (logps[..., CHOSEN] - logps[..., REJECTED])
  alpha = jax.lax.stop_gradient(jax.nn.softmax(jnp.sum(probs, axis=-1), axis=-1))
  per_pair = -jnp.sum(alpha * jax.nn.log_sigmoid(margins - 0.5), axis=-1)
  weights = jax.random.normal(jax.random.key(1), (len(moments), *logps.shape))
  return {"amopo": jnp.mean(per_pair), "all moments": jnp.sum(weights * jnp.stack(moments))}


def run(rows: PackedRows, config: ModelConfig = CONFIG, num_pairs: int = len(PAIRS), **changes):
  """Moments, both losses, and the gradient of both."""
  settings = {"compute_dtype": jnp.float32, "remat": "none", "attention_chunk": 40, "head_chunk": 8} | changes
  score = make_score_fn(config, num_contexts=CONTEXTS, **settings)

  def value(params: dict, rows: PackedRows):
    moments = score(params, rows, num_pairs)
    return losses(moments), moments

  gradient = jax.jit(jax.jacrev(value, has_aux=True))
  grads, moments = gradient(random_params(config), rows)
  return moments, losses(moments), grads


def assert_close(found, expected, rtol: float = RTOL) -> None:
  """Every leaf agrees relative to its largest entry."""
  for mine, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=rtol * float(jnp.max(jnp.abs(theirs))))


@pytest.fixture(scope="module")
def unshared():
  return run(UNSHARED)


def test_a_trie_written_by_hand_is_what_the_helper_writes():
  # header 1 2 3 | context 4 5 | 7 8 9 10 | 7 11 | context 6 | 7 8 9 10 | 7 11 | padding
  by_hand = PackedRows(
    tokens=[1, 2, 3, 4, 5, 7, 8, 9, 10, 7, 11, 6, 7, 8, 9, 10, 7, 11, 0, 0],
    positions=[0, 1, 2, 3, 4, 5, 6, 7, 8, 5, 6, 3, 4, 5, 6, 7, 4, 5, 0, 0],
    subtree_end=[18, 18, 18, 11, 11, 9, 9, 9, 9, 11, 11, 18, 16, 16, 16, 16, 18, 18, 0, 0],
    parent=[0, 0, 1, 2, 3, 4, 5, 6, 7, 4, 9, 2, 11, 12, 13, 14, 11, 16, 0, 0],
    slot=[-1, -1, -1, -1, -1, 0, 0, 0, 0, 1, 1, -1, 2, 2, 2, 2, 3, 3, -1, -1],
  )
  for name, values in by_hand._asdict().items():
    np.testing.assert_array_equal(getattr(TRIES, name)[0], values, err_msg=name)


@pytest.mark.parametrize("layout", ["tries", "packed"])
def test_moments_losses_and_gradients_do_not_depend_on_the_layout(layout: str, unshared):
  moments, values, grads = run(LAYOUTS[layout])
  assert_close(moments, unshared[0])
  assert_close(values, unshared[1])
  assert_close(grads, unshared[2])


def test_lengths_are_those_of_the_responses(unshared):
  expected = [[[len(y) for y in pair.responses]] * CONTEXTS for pair in PAIRS]
  np.testing.assert_array_equal(unshared[0].length, expected)


def test_contexts_differ_so_that_the_comparison_means_something(unshared):
  logps = unshared[0].sum_logp / unshared[0].length
  assert float(jnp.min(jnp.abs(logps[:, 0] - logps[:, 1]))) > 1e-2
  assert all(float(jnp.abs(g).max()) > 1e-3 for g in jax.tree.leaves(unshared[2]))


def test_chunks_shards_and_remat_change_nothing(unshared):
  moments, _, grads = run(PACKED, attention_chunk=15, head_chunk=3, head_shards=2, remat="full")
  assert_close(moments, unshared[0])
  assert_close(grads, unshared[2])


@pytest.mark.parametrize(
  "changes", [{"qkv_bias": False, "qk_norm": True, "tie_embeddings": False}, {"sliding_window": 3}]
)
def test_other_families_do_not_depend_on_the_layout_either(changes: dict):
  config = dataclasses.replace(CONFIG, **changes)
  found, expected = run(PACKED, config), run(UNSHARED, config)
  assert_close(found, expected)


def test_an_empty_place_gets_exact_zeros_and_disturbs_nobody(unshared):
  score = make_score_fn(
    CONFIG,
    num_contexts=CONTEXTS,
    compute_dtype=jnp.float32,
    remat="none",
    attention_chunk=40,
    head_chunk=64,
  )
  moments = jax.jit(score, static_argnums=2)(random_params(CONFIG), PACKED, len(PAIRS) + 1)
  np.testing.assert_array_equal(jnp.stack(moments)[:, -1], 0.0)
  assert_close(ResponseMoments(*(x[:-1] for x in moments)), unshared[0])


def test_the_hook_may_lay_out_the_head_weight():
  seen = []

  def constrain(x: jax.Array, kind: str) -> jax.Array:
    seen.append((kind, x.shape, x.dtype))
    return x

  score = make_score_fn(
    CONFIG,
    num_contexts=CONTEXTS,
    compute_dtype=jnp.bfloat16,
    remat="none",
    attention_chunk=40,
    head_chunk=64,
    constrain=constrain,
  )
  found = jax.eval_shape(lambda params: score(params, PACKED, len(PAIRS)), abstract_params(CONFIG, jnp.float32))
  assert ("head_weight", (CONFIG.vocab_size, CONFIG.width), jnp.dtype(jnp.bfloat16)) in seen
  assert {(x.shape, x.dtype) for x in found} == {((len(PAIRS), CONTEXTS, 2), jnp.dtype(jnp.float32))}
