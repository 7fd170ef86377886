"""The one pass over the data that comes before anything else: every record is read, checked and counted once."""

import array
import dataclasses
import zlib

import numpy as np
from jaxtyping import Int32

from amopo_jax.data.findings import FoundPair, FoundRecord, find_pairs
from amopo_jax.data.recipe import Recipe
from amopo_jax.data.skips import SkipReason, SkipTally
from amopo_jax.types import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Survey:
  """What a pass over the data found.

  Attributes:
    num_records: records read, bad ones included.
    num_skipped: records left out, by the source or because of an error in a pair; 0 unless `on_error` is "skip".
    skip_reasons: why, and how often; the commonest first.
    num_undecided: records that gave no pair, because the rule found no difference.
    num_pairs: pairs to train on.
    num_cut: pairs of them that lose tokens.
    num_dropped: pairs left out because they are too long.
    num_tied: pairs without a difference in the dimension, per context.
    num_inverted: pairs in which the dimension prefers the rejected response, per context.
    table: (number of the record, number of the pair in it) of every pair.
    content: CRC-32 of the pairs' texts and scores, in their order.
  """

  num_records: int
  num_skipped: int
  skip_reasons: tuple[SkipReason, ...]
  num_undecided: int
  num_pairs: int
  num_cut: int
  num_dropped: int
  num_tied: tuple[int, ...]
  num_inverted: tuple[int, ...]
  table: Int32[np.ndarray, "N 2"]
  content: int


def survey(recipe: Recipe, *, num_workers: int = 0) -> Survey:
  """Reads every record once: validates, counts, and finds the pairs. Memory does not grow with the texts.

  Only pairs whose bytes could exceed the limits are tokenised.

  Args:
    recipe: how records become pairs.
    num_workers: processes to spread the pass over; 0 stays in this one.

  Returns:
    The counts and the table of pairs.

  Raises:
    InputError: a bad record or pair unless `on_error` is "skip"; no pair at all.
  """
  tally = _Tally(len(recipe.contexts.contexts))
  tally.skips.add_all(recipe.source.skip_reasons)
  for found in find_pairs(recipe, num_workers):
    tally.add(found)
  if not tally.table:
    why = f" ({tally.skips.summary()})" if tally.skips.total else ""
    raise InputError(f"data: no pair is left{why}; look at the rule, the score ranges and max_length")
  return Survey(
    num_records=recipe.source.skipped + tally.num_records,
    num_skipped=tally.skips.total,
    skip_reasons=tally.skips.commonest(),
    num_undecided=tally.num_undecided,
    num_pairs=len(tally.table) // 2,
    num_cut=tally.num_cut,
    num_dropped=tally.num_dropped,
    num_tied=tuple(tally.num_tied.tolist()),
    num_inverted=tuple(tally.num_inverted.tolist()),
    table=np.asarray(tally.table, np.int32).reshape(-1, 2),
    content=tally.content,
  )


class _Tally:
  """Running counts; of a pair it keeps two integers."""

  def __init__(self, num_contexts: int):
    self.num_records = self.num_undecided = self.num_cut = self.num_dropped = self.content = 0
    self.num_tied, self.num_inverted = np.zeros((2, num_contexts), np.int64)
    self.skips = SkipTally()
    self.table = array.array("i")

  def add(self, found: FoundRecord):
    self.num_records += 1
    if found.error is not None:
      self.skips.add(found.error)
    self.num_undecided += found.error is None and not found.pairs
    for pair in found.pairs:
      self._add_pair(pair)

  def _add_pair(self, pair: FoundPair):
    if pair.is_dropped:
      self.num_dropped += 1
      return
    self.num_cut += pair.is_cut
    self.num_tied += pair.score_gap == 0
    self.num_inverted += pair.score_gap < 0
    self.table.extend((pair.record, pair.number))
    self.content = zlib.crc32(pair.content.to_bytes(4, "big"), self.content)
