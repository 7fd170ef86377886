"""From groups to the batch of a step: micro-batches of rows with one numbering of slots."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from amopo_jax.data.pack import EMPTY_PLACE, Group
from amopo_jax.types import NO_SLOT, Batch, InputError, PackedRows, PairInfo


def collate(
  groups: Sequence[Group],
  *,
  accumulation: int,
  num_pairs: int,
  places: Sequence[int] = (),
  reference: Float32[np.ndarray, "N K P"] | None = None,
) -> Batch:
  """Stacks the groups of a step, stream by stream: micro-batch a holds the groups a G/A to (a+1) G/A - 1.

  A group's slots are moved by the slots of the groups before it in its micro-batch, so that slot
  `(b * K + k) * 2 + p` counts pairs b over the whole micro-batch. A pair weighs `1 / num_pairs`, an empty place 0.

  Args:
    groups: of all streams of this process, G of them, one shape.
    accumulation: micro-batches A; divides G.
    num_pairs: pairs in the whole step, over all processes (`count_pairs` of all their groups); at least 1.
    places: which groups of a micro-batch of the whole step these are, where other processes have others.
    reference: of all pairs of the run, by their numbers, where the objective needs it.

  Returns:
    numpy arrays: rows [A, G/A * rows, S], pairs [A, G/A * max_pairs, ...].

  Raises:
    InputError: A does not divide G.
  """
  if len(groups) % accumulation:
    raise InputError(f"accumulation: {accumulation} micro-batches do not divide {len(groups)} streams; change either")
  in_micro = len(groups) // accumulation
  num_slots = groups[0].is_ordered.size * 2
  places = places or range(in_micro)
  shifts = [places[number % in_micro] * num_slots for number in range(len(groups))]

  def stack(arrays: Sequence[Any]) -> Any:  # numpy in, numpy out; Batch is annotated with jax's Array
    stacked = np.stack(arrays)
    return stacked.reshape(accumulation, in_micro * stacked.shape[1], *stacked.shape[2:])

  rows = [_shift_slots(group.rows, shift) for group, shift in zip(groups, shifts, strict=True)]
  index = stack([group.index for group in groups])
  weight: Any = np.where(index == EMPTY_PLACE, 0, 1 / num_pairs).astype(np.float32)
  pairs = PairInfo(
    is_ordered=stack([group.is_ordered for group in groups]),
    score_gap=stack([group.score_gap for group in groups]),
    weight=weight,
    reference=None if reference is None else _look_up(reference, index),
    wanted=stack([group.wanted for group in groups]),
  )
  return Batch(PackedRows(*(stack(field) for field in zip(*rows, strict=True))), pairs, index)


def count_pairs(groups: Sequence[Group]) -> int:
  """Pairs in some groups.

  Args:
    groups: any.

  Returns:
    Places that are not empty.
  """
  return sum(int((group.index != EMPTY_PLACE).sum()) for group in groups)


def _look_up(reference: Float32[np.ndarray, "N K P"], index: Any) -> Any:
  return np.where((index == EMPTY_PLACE)[..., None, None], np.float32(0), reference[index])


def _shift_slots(rows: PackedRows, shift: int) -> PackedRows:
  return rows._replace(slot=np.where(rows.slot == NO_SLOT, NO_SLOT, rows.slot + np.int32(shift)))
