"""Groups: pairs packed into a fixed number of rows of a fixed length, as numpy arrays."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32

from amopo_jax.data.encoded import EncodedPair
from amopo_jax.data.fit import Run, Sized, plan_group
from amopo_jax.data.trie import lay_out
from amopo_jax.types import NO_SLOT, InputError, PackedRows

EMPTY_PLACE = -1
"""`Group.index` of a place without a pair."""


_CHOICE = 4
"""Groups' worth of tokens, or of places for pairs, that a group is chosen from."""


@dataclasses.dataclass(frozen=True)
class PackSpec:
  """The fixed shapes of a group.

  Attributes:
    row_length: tokens of a row, S.
    rows: rows of a group.
    max_pairs: places for pairs in a group; some stay empty.
    num_contexts: K.

  Raises:
    InputError: a number below 1.
  """

  row_length: int
  rows: int
  max_pairs: int
  num_contexts: int

  def __post_init__(self):
    for field in dataclasses.fields(self):
      if getattr(self, field.name) < 1:
        raise InputError(f"pack: {field.name} is {getattr(self, field.name)}; it must be at least 1")

  @property
  def num_slots(self) -> int:
    """Slots of a group, `max_pairs * num_contexts * 2`."""
    return self.max_pairs * self.num_contexts * 2

  @property
  def num_tokens(self) -> int:
    """Tokens of a group."""
    return self.rows * self.row_length

  @property
  def safe_length(self) -> int:
    """The longest sequences of which a pair always fits into a group, shared prefixes or not."""
    per_row = -(-2 * self.num_contexts // self.rows)
    return self.row_length // per_row


class Group(NamedTuple):
  """Whole pairs in rows. `b` counts the places for pairs.

  Attributes:
    rows: the tokens [rows, row_length]; slots count from 0 within the group, `(b * K + k) * 2 + p`.
    is_ordered: see `contexts.order`; False in an empty place.
    score_gap: see `contexts.order`; 0 in an empty place.
    index: number of the pair in its data set, EMPTY_PLACE where there is none.
    wanted: see `contexts.wanted`; 1 in an empty place.
  """

  rows: PackedRows
  is_ordered: Bool[np.ndarray, "B K"]
  score_gap: Float32[np.ndarray, "B K"]
  index: Int32[np.ndarray, "B"]
  wanted: Float32[np.ndarray, "B K"]


def empty_group(spec: PackSpec) -> Group:
  """A group of padding and empty places.

  Args:
    spec: the shapes.

  Returns:
    Fresh arrays.
  """
  shape = (spec.rows, spec.row_length)
  fields: Any = [np.zeros(shape, np.int32) for _ in PackedRows._fields]  # annotated with jax's Array
  slot: Any = np.full(shape, NO_SLOT, np.int32)
  return Group(
    PackedRows(*fields)._replace(slot=slot),
    is_ordered=np.zeros((spec.max_pairs, spec.num_contexts), bool),
    score_gap=np.zeros((spec.max_pairs, spec.num_contexts), np.float32),
    index=np.full(spec.max_pairs, EMPTY_PLACE, np.int32),
    wanted=np.ones((spec.max_pairs, spec.num_contexts), np.float32),
  )


def pack_group(pending: Sequence[Sized], spec: PackSpec) -> tuple[Group, list[int]]:
  """Packs one group from the pairs that wait.

  Args:
    pending: the pairs, oldest first; the more there are to choose from, the less padding.
    spec: the shapes.

  Returns:
    The group, and the places in `pending` of its pairs, ascending, in the order of the group's places.

  Raises:
    InputError: the oldest pair does not fit into a group.
  """
  if not pending:
    return empty_group(spec), []
  plan = plan_group(pending, rows=spec.rows, row_length=spec.row_length, max_pairs=spec.max_pairs)
  taken = sorted({run.pair for row in plan for run in row})
  group = empty_group(spec)
  for place, number in enumerate(taken):
    encoded = pending[number].encoded
    group.is_ordered[place], group.score_gap[place] = encoded.is_ordered, encoded.score_gap
    group.index[place] = encoded.index
    if encoded.wanted is not None:
      group.wanted[place] = encoded.wanted
  for row, runs in enumerate(plan):
    _write_row(PackedRows(*(field[row] for field in group.rows)), runs, pending, taken, spec.num_contexts * 2)
  return group, taken


def has_choice(pending: Sequence[Sized], spec: PackSpec, lookahead: int) -> bool:
  """Whether enough pairs wait for a group to be packed well: a number of them, and several groups' worth of tokens.

  Args:
    pending: the pairs that wait.
    spec: the shapes.
    lookahead: least number of pairs.

  Returns:
    False where more should be read first; short pairs, of which a group holds many, need more of them.
  """
  if len(pending) < lookahead:
    return False
  return len(pending) >= _CHOICE * spec.max_pairs or sum(pair.whole for pair in pending) >= _CHOICE * spec.num_tokens


def pack_all(pairs: Sequence[EncodedPair], spec: PackSpec, *, lookahead: int) -> list[Group]:
  """Packs a handful of pairs at once, without a stream.

  Args:
    pairs: in the order in which they would be read.
    spec: the shapes.
    lookahead: see `has_choice`.

  Returns:
    Groups that hold every pair once.
  """
  waiting, pending, groups = list(pairs), [], []
  while waiting or pending:
    while waiting and not has_choice(pending, spec, lookahead):
      pending.append(Sized(waiting.pop(0)))
    group, taken = pack_group(pending, spec)
    pending = [pair for number, pair in enumerate(pending) if number not in taken]
    groups.append(group)
  return groups


def padding(groups: Sequence[Group]) -> float:
  """Share of the tokens that is padding.

  Args:
    groups: at least one.

  Returns:
    In [0, 1].
  """
  return float(np.mean([group.rows.subtree_end == 0 for group in groups]))


def _write_row(row: PackedRows, runs: Sequence[Run], pending: Sequence[Sized], taken: list[int], slots_per_pair: int):
  """Writes tries one after the other into views of a row, their fields moved to where they stand."""
  start = 0
  for run in runs:
    pair = pending[run.pair]
    segment = lay_out(pair.encoded, pair.leaves[run.start : run.stop], taken.index(run.pair) * slots_per_pair)
    stop = start + len(segment.tokens)
    row.tokens[start:stop] = segment.tokens
    row.positions[start:stop] = segment.positions
    row.subtree_end[start:stop] = segment.subtree_end + start
    row.parent[start:stop] = np.where(segment.positions > 0, segment.parent + start, 0)
    row.slot[start:stop] = segment.slot
    start = stop
