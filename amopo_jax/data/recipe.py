"""How records become encoded pairs that fit into a group: everything there is to say of it, in one value."""

import dataclasses

from amopo_jax.data.contexts import ContextSpec
from amopo_jax.data.encode import Limits, encode_pair
from amopo_jax.data.encoded import Dropped, EncodedPair
from amopo_jax.data.fit import Sized
from amopo_jax.data.layout import EVERYTHING, Layout
from amopo_jax.data.pack import PackSpec
from amopo_jax.data.pairs import Rule
from amopo_jax.data.records import Pair
from amopo_jax.data.sources import ON_ERROR, RecordSource
from amopo_jax.data.tokenizer import Tokenizer
from amopo_jax.types import InputError

_SHRINK = 7 / 8
"""Factor by which a pair's sequences are shortened until the pair fits into a group."""


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How records become encoded pairs; pickles, so that worker processes can use it.

  Attributes:
    source: the records.
    rule: chooses the pairs of a record, e.g. one of `pairs.RULES`; pickles.
    contexts: the K contexts.
    tokenizer: with a chat template.
    limits: how long a sequence may be.
    pack: the group that every pair must fit into.
    on_error: one of `sources.ON_ERROR`, for what is only found out when a pair is encoded (e.g. a missing score).
    layout: what is laid out of each pair; what is cut and dropped is the same for all of them.

  Raises:
    InputError: unknown on_error, sequences longer than a row, or a K that differs from the group's.
  """

  source: RecordSource
  rule: Rule
  contexts: ContextSpec
  tokenizer: Tokenizer
  limits: Limits
  pack: PackSpec
  on_error: str = "raise"
  layout: Layout = EVERYTHING

  def __post_init__(self):
    if self.on_error not in ON_ERROR:
      raise InputError(f"data: unknown on_error '{self.on_error}'; choose one of {', '.join(ON_ERROR)}")
    if self.limits.max_length > self.pack.row_length:
      raise InputError(
        f"limits: max_length {self.limits.max_length} is more than the row_length {self.pack.row_length}; "
        "lower the one or raise the other"
      )
    if len(self.contexts.contexts) != self.pack.num_contexts:
      raise InputError(
        f"pack: num_contexts is {self.pack.num_contexts}, but there are {len(self.contexts.contexts)} contexts"
      )

  def pairs(self, record: int) -> list[Pair]:
    """The pairs of a record, chosen by the rule.

    Args:
      record: its number in the source.

    Returns:
      Pairs, perhaps none.

    Raises:
      InputError: a bad record.
    """
    return self.rule(self.source[record], self.contexts.ranges)

  def encode(self, pair: Pair, index: int = -1) -> EncodedPair | Dropped:
    """Encodes a pair so that it fits into a group; arguments and errors as `encode.encode_pair`.

    Under "cut", a pair that is too large for a group as a whole gets shorter and shorter sequences until it fits.
    """
    limits = self.limits
    encoded = encode_pair(pair, self.contexts, self.tokenizer, limits, index=index)
    while isinstance(encoded, EncodedPair) and not self._fits(encoded):
      reason = f"{Sized(encoded.largest).whole} tokens in all contexts, more than {self.pack.rows} rows hold"
      if limits.too_long == "drop":
        return Dropped(pair.origin, reason)
      if limits.too_long == "error":
        raise InputError(f"{pair.origin}: {reason}; use more rows, or set too_long to cut or drop")
      limits = _shorter(limits, encoded.largest.longest, self.pack)
      encoded = encode_pair(pair, self.contexts, self.tokenizer, limits, index=index)
    return encoded if isinstance(encoded, Dropped) else self.layout(encoded)

  def _fits(self, encoded: EncodedPair) -> bool:
    return Sized(encoded.largest).fits(self.pack.rows, self.pack.row_length)


def _shorter(limits: Limits, longest: int, pack: PackSpec) -> Limits:
  length = max(int(longest * _SHRINK), pack.safe_length)
  return dataclasses.replace(limits, max_length=length, max_response=min(limits.max_response, length // 2))
