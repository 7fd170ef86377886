"""The prompt trie of one pair: the 2K sequences of a pair with their common prompt prefixes written once.

A *leaf* `(k, p)` is response p in context k. The prompts of the chosen leaves form a prefix tree; each response
hangs at the end of its prompt and is nobody's prefix, so that it is scored on its own. The tree is written in
depth-first order, in which "j is an ancestor of i" is one comparison: `j <= i < subtree_end[j]`.
Response tokens are never merged.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from amopo_jax.data.encoded import EncodedPair, Leaf
from amopo_jax.types import NO_SLOT


class Segment(NamedTuple):
  """A trie in depth-first order, the fields of `types.PackedRows` counted from its first token.

  Attributes:
    tokens: vocabulary index.
    positions: depth.
    subtree_end: one past the last descendant.
    parent: place of the token before it on its path; the root's is 0, itself.
    slot: the response it is scored for, or NO_SLOT.
  """

  tokens: Int32[np.ndarray, "T"]
  positions: Int32[np.ndarray, "T"]
  subtree_end: Int32[np.ndarray, "T"]
  parent: Int32[np.ndarray, "T"]
  slot: Int32[np.ndarray, "T"]


def size(encoded: EncodedPair, leaves: Iterable[Leaf]) -> int:
  """Tokens of the trie of some leaves, without building it.

      sum_k |prompt_k| - sum of the prefixes shared with the neighbour before + sum of the responses

  Args:
    encoded: the pair.
    leaves: which sequences; each at most once.

  Returns:
    Number of tokens.
  """
  leaves = list(leaves)
  prompts = sum(len(encoded.prompts[k]) - shared for k, shared in prompts_in_order(encoded, leaves))
  return prompts + sum(len(encoded.responses[p]) for _, p in leaves)


def lay_out(encoded: EncodedPair, leaves: Iterable[Leaf], slot_base: int) -> Segment:
  """Writes the trie of some leaves of a pair.

  Args:
    encoded: the pair.
    leaves: which sequences; each at most once.
    slot_base: slot of the leaf (0, 0); leaf (k, p) has `slot_base + 2 k + p`.

  Returns:
    The trie, `size(encoded, leaves)` tokens.
  """
  leaves = sorted(leaves)
  segment = Segment(*(np.zeros(size(encoded, leaves), np.int32) for _ in Segment._fields))
  path = np.zeros(0, np.int32)  # places of the current prompt's tokens, root first
  place = 0
  for context, shared in prompts_in_order(encoded, leaves):
    segment.subtree_end[path[shared:]] = place  # the trie leaves these nodes for good
    run = _write(segment, place, encoded.prompts[context][shared:], path[:shared], NO_SLOT)
    path = np.concatenate([path[:shared], run])
    place += len(run)
    for member in (p for k, p in leaves if k == context):
      run = _write(segment, place, encoded.responses[member], path, slot_base + 2 * context + member)
      place += len(run)
      segment.subtree_end[run] = place
  segment.subtree_end[path] = place
  return segment


def unshared(encoded: EncodedPair, slot_base: int) -> list[Segment]:
  """The pair without sharing, one segment per sequence: what the trie must agree with.

  Args:
    encoded: the pair.
    slot_base: see `lay_out`.

  Returns:
    A segment for each of its `leaves`.
  """
  return [lay_out(encoded, [leaf], slot_base) for leaf in encoded.leaves]


def prompts_in_order(encoded: EncodedPair, leaves: Iterable[Leaf]) -> list[tuple[int, int]]:
  """The contexts that occur, depth-first, each with the tokens that its prompt shares with the one before.

  What two contexts of a sorted list share is the least of what the neighbours between them share.

  Args:
    encoded: the pair.
    leaves: which sequences.

  Returns:
    (context, shared tokens); the first shares none.
  """
  wanted = {k for k, _ in leaves}
  chosen: list[tuple[int, int]] = []
  shared_since = 0
  for context, shared in zip(*encoded.branching, strict=True):
    shared_since = min(shared_since, shared)
    if context in wanted:
      chosen.append((context, shared_since))
      shared_since = len(encoded.prompts[context])
  return chosen


def _write(
  segment: Segment, place: int, tokens: Int32[np.ndarray, "T"], path: Int32[np.ndarray, "D"], slot: int
) -> Int32[np.ndarray, "T"]:
  """Writes a run of tokens below the last token of `path`; returns their places."""
  run = np.arange(place, place + len(tokens), dtype=np.int32)
  segment.tokens[run] = tokens
  segment.positions[run] = len(path) + np.arange(len(tokens))
  segment.parent[run[1:]] = run[:-1]
  segment.parent[run[:1]] = path[-1] if len(path) else 0
  segment.slot[run] = slot
  return run
