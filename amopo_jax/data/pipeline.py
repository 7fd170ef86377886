"""Streams of packed groups whose state is a handful of integers.

    recipe = Recipe(source, rule, contexts, tokenizer, limits, pack)    # recipe.py
    counts = survey(recipe)                                             # survey.py: validates and counts
    stream = make_stream([PairDataset(recipe, counts.table)], pack, seed=0, num_epochs=None, num_streams=G,
                         owned=range(G), num_workers=0, shuffle=True)
    for groups in stream:                                               # one group per owned stream
      batch = collate(groups, accumulation=A, num_pairs=count_pairs(groups))  # collate.py
      state = stream.get_state()                                        # goes into the checkpoint

The order of the data is a function from position to pair: a Grain MapDataset, shuffled anew in every epoch. Stream
g of G reads the positions g, g + G, g + 2G, … and packs groups from a look-ahead buffer. All there is to know of it
is the next position and the positions of the pairs still in the buffer; resuming encodes these again. So the streams
do not depend on how many processes or workers read them.
"""

import functools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grain
from absl import flags

from amopo_jax.data.collate import count_pairs
from amopo_jax.data.dataset import PairDataset
from amopo_jax.data.pack import Group, PackSpec, empty_group
from amopo_jax.data.streams import PackedStreams, StreamState, order_pairs
from amopo_jax.types import InputError

LOOKAHEAD = 48
"""Pairs a stream packs from. On the UltraFeedback pairs, four contexts, 8 rows of 4,096: 2.4 % padding (32: 2.7 %)."""

_PREFETCHED = 2
"""Steps that a worker process prepares ahead."""


def make_stream(
  datasets: Sequence[PairDataset],
  pack: PackSpec,
  *,
  seed: int,
  num_epochs: int | None,
  num_streams: int,
  owned: Sequence[int],
  num_workers: int,
  shuffle: bool,
  weights: Sequence[float | int] | None = None,
  lookahead: int = LOOKAHEAD,
) -> "Stream":
  """Opens the streams of this process.

  Args:
    datasets: one, or several to be mixed.
    pack: shapes of a group.
    seed: of the order, at least 0.
    num_epochs: passes over the data (over the sum of the data sets where there are several); None never ends.
    num_streams: G, the streams of all processes together, whatever their number.
    owned: the streams of this process.
    num_workers: processes that encode and pack, at most one per owned stream; 0 does it here. A script that asks
      for any must guard its main module (`if __name__ == "__main__"`).
    shuffle: a new random order in every epoch, or the order of the file.
    weights: shares of the data sets in the mixture; by their sizes if None. Each begins anew when it ends.
    lookahead: least number of pairs a stream packs from (`pack.has_choice`); more give less padding, and a longer
      state.

  Returns:
    An iterator over steps.

  Raises:
    InputError: a stream number out of range, weights that do not match the data sets.
  """
  if not owned or not all(0 <= stream < num_streams for stream in owned):
    raise InputError(f"streams: {list(owned)} are not streams of 0 to {num_streams - 1}; check num_streams")
  order = order_pairs(datasets, weights, seed=seed, num_epochs=num_epochs, shuffle=shuffle)
  packing = functools.partial(PackedStreams, order, pack, num_streams, lookahead)
  return Stream(
    packing,
    empty_group(pack),
    owned=tuple(owned),
    num_streams=num_streams,
    num_pairs=sum(map(len, datasets)),
    num_workers=min(num_workers, len(owned)),
  )


class Stream(Iterator[list[Group]]):
  """Steps of one process: a list of groups, one per owned stream and in their order.

  A stream that has ended emits empty groups until all streams of the process have. Its state counts what was handed
  out, not what workers have prepared.

  Attributes:
    num_pairs: pairs of an epoch.
  """

  def __init__(
    self,
    packing: Callable[[Mapping[int, StreamState]], "PackedStreams"],
    empty: Group,
    *,
    owned: tuple[int, ...],
    num_streams: int,
    num_pairs: int,
    num_workers: int,
  ):
    self.num_pairs = num_pairs
    self._packing, self._empty = packing, empty
    self._owned, self._num_streams, self._num_workers = owned, num_streams, num_workers
    self._states: dict[int, StreamState] = {stream: {"next": stream, "pending": []} for stream in owned}
    self._iterator: grain.DatasetIterator | None = None

  def __next__(self) -> list[Group]:
    if self._iterator is None:
      packed = self._packing(self._states)
      self._iterator = iter(_in_workers(packed, self._num_workers) if self._num_workers else packed)
    emitted = {}
    for _ in range(max(1, self._num_workers)):  # the workers' shares come one after the other
      emitted |= next(self._iterator)
    if not count_pairs([group for group, _ in emitted.values()]):
      raise StopIteration
    self._states = {stream: emitted[stream][1] for stream in self._owned}
    return [emitted[stream][0] for stream in self._owned]

  def get_state(self) -> dict:
    """What `set_state` needs to go on after the last step handed out.

    Returns:
      {"num_streams": G, "num_pairs": N, "streams": {"g": StreamState}} with the owned streams, plain JSON.
      `merge_states` puts those of several processes together.
    """
    streams = {str(stream): {**state, "pending": list(state["pending"])} for stream, state in self._states.items()}
    return {"num_streams": self._num_streams, "num_pairs": self.num_pairs, "streams": streams}

  def set_state(self, state: Mapping) -> None:
    """Goes on where a state was taken, in this or another process, with these or other workers.

    Args:
      state: from `get_state`, with at least the owned streams.

    Raises:
      InputError: it was taken with other data or another number of streams, or lacks an owned stream.
    """
    for name, now in (("num_streams", self._num_streams), ("num_pairs", self.num_pairs)):
      if state[name] != now:
        raise InputError(f"data state: {name} was {state[name]}, now it is {now}; restore the data and its settings")
    missing = [stream for stream in self._owned if str(stream) not in state["streams"]]
    if missing:
      raise InputError(f"data state: has no streams {missing}; restore it with the files of all processes")
    self.close()
    self._states = {
      stream: {"next": int(kept["next"]), "pending": [int(position) for position in kept["pending"]]}
      for stream, kept in ((stream, state["streams"][str(stream)]) for stream in self._owned)
    }

  @property
  def epoch(self) -> float:
    """Passes over the data that were handed out, pairs in the look-ahead buffers not counted."""
    handed_out = sum(
      (state["next"] - stream) / self._num_streams - len(state["pending"]) for stream, state in self._states.items()
    )
    return handed_out * self._num_streams / len(self._owned) / self.num_pairs

  def empty_groups(self) -> list[Group]:
    """A step of empty groups: what a process that has ended contributes while others go on."""
    return [self._empty] * len(self._owned)

  def close(self) -> None:
    """Ends the worker processes; the next step starts new ones from the current state."""
    if self._iterator is not None:
      self._iterator.close()
    self._iterator = None


def merge_states(states: Sequence[Mapping]) -> dict:
  """The state of all streams, from those of several processes; a stream of two processes is the same in both."""
  streams = {name: stream for state in states for name, stream in state["streams"].items()}
  return {**states[0], "streams": streams}


def _in_workers(packed: PackedStreams, num_workers: int) -> grain.IterDataset:
  """Divides the streams among processes.

  Grain reads absl flags for this, also outside absl programs. Groups travel through a pipe (under a megabyte each):
  shared memory would leak what is still underway when the streams are closed.
  """
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()
  options = grain.experimental.DatasetOptions(min_shm_size=sys.maxsize)
  unshared = grain.experimental.WithOptionsIterDataset(packed, options)
  workers = grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=_PREFETCHED)
  return unshared.mp_prefetch(workers, worker_init_fn=_follow_parent)


def _follow_parent(index: int, count: int) -> None:
  """In a worker: signals are the parent's to answer, and without it, however it ended, there is nothing to do.

  One that ended in the middle of a group would leave the parent waiting for the rest of it.
  """
  del index, count
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
  end_with_parent()


def end_with_parent() -> None:
  """Ends this process when the one that started it is gone, however that ended."""

  def wait(parent: Any) -> None:
    parent.join()
    os._exit(0)

  threading.Thread(target=wait, args=(multiprocessing.parent_process(),), daemon=True).start()
