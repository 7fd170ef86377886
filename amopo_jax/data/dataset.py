"""Random access to encoded pairs, and the one pass over the data that comes before it.

A `Recipe` says how records become encoded pairs. `survey` reads every record once: it validates, counts, and finds
which pairs there are. `PairDataset` then encodes pair i whenever somebody asks for it, so nothing but two integers
per pair is held in memory, and resuming needs no stored tokens.
"""

import array
import dataclasses
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from amopo_jax.data.contexts import ContextSpec, order
from amopo_jax.data.encode import Dropped, EncodedPair, Limits, encode_pair, fits_by_bytes
from amopo_jax.data.fit import Sized
from amopo_jax.data.pack import PackSpec
from amopo_jax.data.pairs import RULES
from amopo_jax.data.records import Pair
from amopo_jax.data.sources import ON_ERROR, RecordSource
from amopo_jax.data.tokenizer import Tokenizer
from amopo_jax.types import InputError

_SHRINK = 7 / 8
"""Factor by which a pair's sequences are shortened until the pair fits into a group."""

_CHUNK = 256
"""Records that a surveying process takes at a time."""

_KEPT_REASONS = 10


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How records become encoded pairs; pickles, so that worker processes can use it.

  Attributes:
    source: the records.
    rule: a name of `pairs.RULES`.
    contexts: the K contexts.
    tokenizer: with a chat template.
    limits: how long a sequence may be.
    pack: the group that every pair must fit into.
    on_error: one of `sources.ON_ERROR`, for what is only found out when a pair is encoded (e.g. a missing score).

  Raises:
    InputError: unknown rule, sequences longer than a row, or a K that differs from the group's.
  """

  source: RecordSource
  rule: str
  contexts: ContextSpec
  tokenizer: Tokenizer
  limits: Limits
  pack: PackSpec
  on_error: str = "raise"

  def __post_init__(self):
    if self.rule not in RULES:
      raise InputError(f"data: unknown rule '{self.rule}'; choose one of {', '.join(RULES)}")
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
    return RULES[self.rule](self.source[record], self.contexts.ranges)

  def encode(self, pair: Pair, index: int = -1) -> EncodedPair | Dropped:
    """Encodes a pair so that it fits into a group; arguments and errors as `encode.encode_pair`.

    Under "cut", a pair that is too large for a group as a whole gets shorter and shorter sequences until it fits.
    """
    encoded = encode_pair(pair, self.contexts, self.tokenizer, self.limits, index=index)
    limits = self.limits
    while isinstance(encoded, EncodedPair) and not Sized(encoded).fits(self.pack.rows, self.pack.row_length):
      reason = (
        f"{Sized(encoded).whole} tokens in all contexts, more than a group of {self.pack.rows} rows holds"
      )
      if limits.too_long == "drop":
        return Dropped(pair.origin, reason)
      if limits.too_long == "error":
        raise InputError(f"{pair.origin}: {reason}; use more rows, or set too_long to cut or drop")
      limits = _shorter(limits, encoded.longest, self.pack)
      encoded = encode_pair(pair, self.contexts, self.tokenizer, limits, index=index)
    return encoded


@dataclasses.dataclass(frozen=True, eq=False)
class Survey:
  """What a pass over the data found.

  Attributes:
    num_records: records read; bad ones that the source left out are not among them.
    num_skipped: records left out here because of an error in a pair, 0 unless `on_error` is "skip".
    skip_reasons: messages of the first of them.
    num_undecided: records that gave no pair, because the rule found no difference.
    num_pairs: pairs to train on.
    num_cut: pairs of them that lose tokens.
    num_dropped: pairs left out because they are too long.
    num_tied: pairs without a difference in the dimension, per context.
    num_inverted: pairs in which the dimension prefers the rejected response, per context.
    table: (number of the record, number of the pair in it) of every pair.
  """

  num_records: int
  num_skipped: int
  skip_reasons: tuple[str, ...]
  num_undecided: int
  num_pairs: int
  num_cut: int
  num_dropped: int
  num_tied: tuple[int, ...]
  num_inverted: tuple[int, ...]
  table: Int32[np.ndarray, "N 2"]


class PairDataset:
  """Random access to the encoded pairs of a surveyed source.

  Attributes:
    recipe: how they are made.
    table: see `Survey`.
  """

  def __init__(self, recipe: Recipe, table: Int32[np.ndarray, "N 2"]):
    self.recipe, self.table = recipe, table

  def __len__(self) -> int:
    return len(self.table)

  def pair(self, index: int) -> Pair:
    """The texts and scores of a pair, before encoding."""
    record, number = self.table[index]
    return self.recipe.pairs(int(record))[int(number)]

  def __getitem__(self, index: int) -> EncodedPair:
    encoded = self.recipe.encode(self.pair(index), index)
    if isinstance(encoded, Dropped):
      raise InputError(
        f"{encoded.origin}: {encoded.reason}; the file has changed since it was surveyed, start again"
      )
    return encoded


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
  for found in _findings(recipe, num_workers):
    tally.add(found)
  if not tally.table:
    raise InputError("data: no pair to train on; look at the rule, the score ranges and max_length")
  return Survey(
    num_records=tally.num_records,
    num_skipped=tally.num_skipped,
    skip_reasons=tuple(tally.skip_reasons),
    num_undecided=tally.num_undecided,
    num_pairs=len(tally.table) // 2,
    num_cut=tally.num_cut,
    num_dropped=tally.num_dropped,
    num_tied=tuple(tally.num_tied.tolist()),
    num_inverted=tuple(tally.num_inverted.tolist()),
    table=np.asarray(tally.table, np.int32).reshape(-1, 2),
  )


class _FoundPair(NamedTuple):
  record: int
  number: int
  score_gap: np.ndarray
  is_cut: bool
  is_dropped: bool


class _FoundRecord(NamedTuple):
  pairs: list[_FoundPair]
  error: str | None


class _Tally:
  """Running counts; of a pair it keeps two integers."""

  def __init__(self, num_contexts: int):
    self.num_records = self.num_skipped = self.num_undecided = self.num_cut = self.num_dropped = 0
    self.num_tied, self.num_inverted = np.zeros((2, num_contexts), np.int64)
    self.skip_reasons: list[str] = []
    self.table = array.array("i")

  def add(self, found: _FoundRecord):
    self.num_records += 1
    if found.error is not None:
      self.num_skipped += 1
      self.skip_reasons += [found.error] if len(self.skip_reasons) < _KEPT_REASONS else []
    self.num_undecided += found.error is None and not found.pairs
    for pair in found.pairs:
      self._add_pair(pair)

  def _add_pair(self, pair: _FoundPair):
    if pair.is_dropped:
      self.num_dropped += 1
      return
    self.num_cut += pair.is_cut
    self.num_tied += pair.score_gap == 0
    self.num_inverted += pair.score_gap < 0
    self.table.extend((pair.record, pair.number))


def _findings(recipe: Recipe, num_workers: int) -> Iterator[_FoundRecord]:
  count = len(recipe.source)
  if num_workers == 0:
    yield from (_look_at(recipe, record) for record in range(count))
    return
  chunks = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
  with ProcessPoolExecutor(num_workers, get_context("spawn"), _set_recipe, (recipe,)) as pool:
    for found in pool.map(_look_at_chunk, chunks):
      yield from found


_worker_recipe: list[Recipe] = []
"""The recipe of a surveying process, sent to it once."""


def _set_recipe(recipe: Recipe):
  _worker_recipe.append(recipe)


def _look_at_chunk(records: Iterable[int]) -> list[_FoundRecord]:
  return [_look_at(_worker_recipe[0], record) for record in records]


def _look_at(recipe: Recipe, record: int) -> _FoundRecord:
  try:
    pairs = recipe.pairs(record)
    return _FoundRecord(
      [_look_at_pair(recipe, record, number, pair) for number, pair in enumerate(pairs)], None
    )
  except InputError as error:
    if recipe.on_error == "raise":
      raise
    return _FoundRecord([], str(error))


def _look_at_pair(recipe: Recipe, record: int, number: int, pair: Pair) -> _FoundPair:
  _, gaps = order(pair, recipe.contexts)
  surely_fine = min(recipe.limits.max_length, recipe.pack.safe_length)
  if fits_by_bytes(pair, recipe.contexts, recipe.tokenizer, surely_fine):
    return _FoundPair(record, number, gaps, is_cut=False, is_dropped=False)
  encoded = recipe.encode(pair)
  is_dropped = isinstance(encoded, Dropped)
  return _FoundPair(record, number, gaps, not is_dropped and encoded.num_cut > 0, is_dropped)


def _shorter(limits: Limits, longest: int, pack: PackSpec) -> Limits:
  length = max(int(longest * _SHRINK), pack.safe_length)
  return dataclasses.replace(limits, max_length=length, max_response=min(limits.max_response, length // 2))
