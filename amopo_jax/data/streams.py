"""Streams in lockstep: what a process or worker runs to read, encode and pack (pipeline.py says why)."""

import sys
from collections.abc import Mapping, Sequence

import grain
import numpy as np

from amopo_jax.data.dataset import PairDataset
from amopo_jax.data.fit import Sized
from amopo_jax.data.layout import Layout
from amopo_jax.data.pack import Group, PackSpec, has_choice, pack_group
from amopo_jax.types import InputError

StreamState = dict
"""{"next": position to read next, "pending": positions in the look-ahead buffer, oldest first}; plain JSON."""


def order_pairs(
  datasets: Sequence[PairDataset],
  weights: Sequence[float | int] | None,
  *,
  seed: int,
  num_epochs: int | None,
  shuffle: bool,
) -> grain.MapDataset:
  """Position -> encoded pair. Each data set is shuffled by itself, then they are mixed in fixed proportions."""
  ordered = []
  for number, dataset in enumerate(datasets):
    one = grain.MapDataset.source(dataset)
    if shuffle:  # SeedSequence: Grain shuffles epoch e with seed + e, so neighbouring seeds would share orders
      one = one.shuffle(seed=int(np.random.SeedSequence([seed, number]).generate_state(1)[0]))
    ordered.append(_drawing_contexts(one, dataset.recipe.layout, [seed, number]))
  if len(ordered) == 1:
    return ordered[0].repeat(num_epochs)
  if weights is not None and len(weights) != len(datasets):
    raise InputError(f"data: {len(weights)} weights for {len(datasets)} data sets; give one each")
  shares = [float(len(dataset)) for dataset in datasets] if weights is None else list(weights)
  mixed = grain.MapDataset.mix([one.repeat() for one in ordered], shares)
  return mixed if num_epochs is None else mixed[: min(num_epochs * sum(map(len, datasets)), sys.maxsize)]


def _drawing_contexts(one: grain.MapDataset, layout: Layout, seeds: Sequence[int]) -> grain.MapDataset:
  """Each pair in as many of its contexts as the layout says, anew in every epoch."""
  if not layout.contexts:
    return one
  return one.random_map(layout.draw, seed=int(np.random.SeedSequence([*seeds, 1]).generate_state(1)[0]))


class PackedStreams(grain.IterDataset):
  """Some streams in lockstep, for Grain: emits {stream: (group, state after it)}, and never ends.

  Args:
    order: position -> encoded pair.
    pack: shapes of a group.
    num_streams: G.
    lookahead: least number of pairs a stream packs from, see `has_choice`.
    states: where each of these streams begins.
  """

  def __init__(
    self,
    order: grain.MapDataset,
    pack: PackSpec,
    num_streams: int,
    lookahead: int,
    states: Mapping[int, StreamState],
  ):
    super().__init__(order)
    self._order, self._pack = order, pack
    self._num_streams, self._lookahead, self._states = num_streams, lookahead, dict(states)

  def set_slice(self, sl: slice, sequential_slice: bool = False) -> None:
    """Called by Grain in a worker process: leaves it its share of the streams."""
    self._states = dict(list(self._states.items())[sl])

  def __iter__(self) -> "_PackedStreamsIterator":
    return _PackedStreamsIterator(self._order, self._pack, self._num_streams, self._lookahead, self._states)


class _PackedStreamsIterator(grain.DatasetIterator):
  def __init__(
    self,
    order: grain.MapDataset,
    pack: PackSpec,
    num_streams: int,
    lookahead: int,
    states: Mapping[int, StreamState],
  ):
    super().__init__()
    self._order, self._pack = order, pack
    self._num_streams, self._lookahead = num_streams, lookahead
    self.set_state({"streams": {str(stream): state for stream, state in states.items()}})

  def __next__(self) -> dict[int, tuple[Group, StreamState]]:
    return {stream: self._emit(stream) for stream in self._next}

  def get_state(self) -> dict:
    return {"streams": {str(stream): self._state(stream) for stream in self._next}}

  def set_state(self, state: dict) -> None:
    self._next, self._pending = {}, {}
    for name, kept in state["streams"].items():
      self._next[int(name)] = kept["next"]
      self._pending[int(name)] = [(position, Sized(self._order[position])) for position in kept["pending"]]

  def _state(self, stream: int) -> StreamState:
    return {"next": self._next[stream], "pending": [position for position, _ in self._pending[stream]]}

  def _emit(self, stream: int) -> tuple[Group, StreamState]:
    pending = self._pending[stream]
    while self._next[stream] < len(self._order) and not has_choice(
      [pair for _, pair in pending], self._pack, self._lookahead
    ):
      pending.append((self._next[stream], Sized(self._order[self._next[stream]])))
      self._next[stream] += self._num_streams
    group, taken = pack_group([pair for _, pair in pending], self._pack)
    self._pending[stream] = [waiting for place, waiting in enumerate(pending) if place not in taken]
    return group, self._state(stream)
