"""A pair as tokens: K prompts, two responses, and which of the 2K sequences are laid out."""

import dataclasses
import functools
import itertools

import numpy as np
from jaxtyping import Bool, Float32

from amopo_jax.data.tokenizer import TokenIds
from amopo_jax.types import PAIR_MEMBERS

Leaf = tuple[int, int]
"""(context, pair member): one of the 2K sequences of a pair."""


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedPair:
  """The tokens of a pair in all contexts.

  Attributes:
    prompts: one array of tokens per context, none of them empty.
    responses: tokens of the chosen and of the rejected response, with the end of turn unless it was cut off.
    is_ordered: see `contexts.order`.
    score_gap: see `contexts.order`.
    index: number of the pair in its data set, -1 if it has none.
    num_cut: tokens taken away, from the longest prompt and from both responses.
    origin: of the record.
    others: tokens of `Pair.others`; not laid out.
    wanted: see `contexts.wanted`; None: every context alike.
    laid_out: the sequences that rows hold, see `layout`; at least one; None: all.
  """

  prompts: tuple[TokenIds, ...]
  responses: tuple[TokenIds, TokenIds]
  is_ordered: Bool[np.ndarray, "K"]
  score_gap: Float32[np.ndarray, "K"]
  index: int
  num_cut: int
  origin: str
  others: tuple[TokenIds, ...] = ()
  wanted: Float32[np.ndarray, "K"] | None = None
  laid_out: Bool[np.ndarray, "K P"] | None = None

  @functools.cached_property
  def branching(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The trie of the prompts: contexts in depth-first order, and the tokens each shares with the one before it.

    Sequences in lexicographic order are the leaves of their trie in depth-first order, a prefix before what
    continues it; neighbours share the longest prefixes. The first of them shares 0 tokens.
    """
    keys = [prompt.astype(">u4").tobytes() for prompt in self.prompts]
    contexts = sorted(range(len(keys)), key=lambda k: (keys[k], k))
    shared = [_common_prefix(self.prompts[one], self.prompts[two]) for one, two in itertools.pairwise(contexts)]
    return tuple(contexts), (0, *shared)

  @property
  def is_laid_out(self) -> Bool[np.ndarray, "K P"]:
    """`laid_out`, for all alike."""
    return np.ones((len(self.prompts), len(PAIR_MEMBERS)), bool) if self.laid_out is None else self.laid_out

  @functools.cached_property
  def leaves(self) -> tuple[Leaf, ...]:
    """The sequences that are laid out, by context and member."""
    return tuple((int(k), int(p)) for k, p in np.argwhere(self.is_laid_out))

  @property
  def longest(self) -> int:
    """Tokens of the longest sequence that is laid out."""
    return max(len(self.prompts[k]) + len(self.responses[p]) for k, p in self.leaves)

  @property
  def largest(self) -> "EncodedPair":
    """A pair at least as large as any two of the responses and others make: where it fits, all of them do."""
    if not self.others:
      return self
    longest = max((*self.responses, *self.others), key=len)
    return dataclasses.replace(self, responses=(longest, longest), others=())


@dataclasses.dataclass(frozen=True)
class Dropped:
  """A pair that is left out.

  Attributes:
    origin: of the record.
    reason: why, for a report.
  """

  origin: str
  reason: str


def _common_prefix(one: TokenIds, two: TokenIds) -> int:
  length = min(len(one), len(two))
  differs = one[:length] != two[:length]
  return int(differs.argmax()) if differs.any() else length
