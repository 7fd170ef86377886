"""From the streams of a run to batches on the devices, in step with the other processes.

A process packs only the groups of which its devices hold a row. What all of them must know of a step before it is
dispatched, the number of its pairs and whether anybody was asked to stop, is a small sum over devices; it is begun one
step ahead, so that nobody waits for it.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from amopo_jax import processes
from amopo_jax.data.collate import collate, count_pairs
from amopo_jax.data.pack import Group
from amopo_jax.data.pipeline import Stream
from amopo_jax.mesh import ROW_AXES, Share, place_batch, row_shards
from amopo_jax.stopping import StopRequest
from amopo_jax.types import Batch, InputError


def holders(mesh: Mesh, num_groups: int, rows: int) -> list[set[int]]:
  """For every group of a micro-batch, the processes whose devices hold a row of it.

  Args:
    mesh: of `make_mesh`.
    num_groups: in a micro-batch.
    rows: of a group.
  """
  found: list[set[int]] = [set() for _ in range(num_groups)]
  places = NamedSharding(mesh, PartitionSpec(ROW_AXES)).devices_indices_map((num_groups * rows,))
  for device, (index,) in places.items():
    start, stop, _ = index.indices(num_groups * rows)
    for group in range(start // rows, -(-stop // rows)):
      found[group].add(device.process_index)
  return found


class FeedSpec(NamedTuple):
  """How the streams of a run lie in a step.

  Attributes:
    mesh: where batches go.
    num_streams: groups of a step, all micro-batches together.
    accumulation: micro-batches.
    share: groups of a micro-batch that this process packs.
    counted: those of them whose pairs it counts, so that a group of two processes counts once.
  """

  mesh: Mesh
  num_streams: int
  accumulation: int
  share: Share
  counted: frozenset[int]

  @property
  def owned(self) -> tuple[int, ...]:
    """The streams of this process: stream m * G + g is group g of G in micro-batch m."""
    per_micro = self.share.num_groups
    return tuple(micro * per_micro + group for micro in range(self.accumulation) for group in self.share.groups)


def make_feed_spec(mesh: Mesh, *, num_streams: int, accumulation: int, rows: int, max_pairs: int) -> FeedSpec:
  """Divides the streams among the processes.

  Args:
    mesh: of `make_mesh`.
    num_streams: groups of a step.
    accumulation: micro-batches, which divide them.
    rows, max_pairs: of a group.

  Raises:
    InputError: the places for pairs do not divide over the devices of several processes.
  """
  num_groups = num_streams // accumulation
  found, here, shards = holders(mesh, num_groups, rows), jax.process_index(), row_shards(mesh)
  share = Share(tuple(group for group in range(num_groups) if here in found[group]), num_groups)
  if processes.is_several() and num_groups * max_pairs % shards:
    raise InputError(
      f"config.batch.max_pairs: {num_groups * max_pairs} places of a micro-batch do not divide over {shards} devices, "
      "as they must with several processes; make it a multiple"
    )
  return FeedSpec(mesh, num_streams, accumulation, share, frozenset(g for g in share.groups if min(found[g]) == here))


class _Drawn(NamedTuple):
  """A step's groups of this process, the stream's state after them, and what all processes have said of the step."""

  groups: list[Group]
  state: dict
  said: "jax.Array | np.ndarray"


class Feed(Iterator[Batch]):
  """The batches of a stream, until it ends everywhere or somebody is asked to stop.

  Args:
    stream: of this process, with the streams `layout.owned`.
    layout: of `make_feed_spec`.
    stop: the request that this process may receive.
    reference: of all pairs, as of `collate`.

  Attributes:
    state: of the stream after the batch handed out last.
    num_pairs: of that batch, all processes together.
    is_stopped: whether it ended because a process was asked to stop; the same on all of them.
  """

  def __init__(self, stream: Stream, layout: FeedSpec, stop: StopRequest, reference: np.ndarray | None = None):
    self.state, self.num_pairs, self.is_stopped = stream.get_state(), 0, False
    self._stream, self._layout, self._stop, self._reference = stream, layout, stop, reference
    self._sum = _make_sum(layout.mesh) if processes.is_several() else None
    self._ahead: _Drawn | None = None

  def __next__(self) -> Batch:
    drawn = self._ahead or self._draw()
    self.num_pairs, asked = (int(x) for x in np.asarray(drawn.said))
    if asked or not self.num_pairs:
      self.is_stopped = bool(asked)
      raise StopIteration
    self.state = drawn.state
    accumulation, share = self._layout.accumulation, self._layout.share
    batch = collate(
      drawn.groups,
      accumulation=accumulation,
      num_pairs=self.num_pairs,
      places=share.groups,
      reference=self._reference,
    )
    self._ahead = self._draw() if self._sum else None
    return place_batch(batch, self._layout.mesh, share)

  def _draw(self) -> _Drawn:
    if self._stop and not self._sum:
      return _Drawn([], self.state, np.asarray([0, 1]))
    groups = next(self._stream, None) or self._stream.empty_groups()
    said = np.asarray([self._count(groups), bool(self._stop)], np.int32)
    return _Drawn(groups, self._stream.get_state(), self._sum(said) if self._sum else said)

  def _count(self, groups: list[Group]) -> int:
    numbered = zip(groups, self._layout.owned, strict=True)
    return count_pairs(
      [group for group, stream in numbered if stream % self._layout.share.num_groups in self._layout.counted]
    )


def _make_sum(mesh: Mesh):
  """The sum over processes of a small vector, begun when called and waited for when read."""
  flat = Mesh(mesh.devices.reshape(-1), ("all",))
  split = NamedSharding(flat, PartitionSpec("all"))
  add = jax.jit(lambda x: x.sum(0), out_shardings=NamedSharding(flat, PartitionSpec()))
  local = [device for device in flat.devices if device.process_index == jax.process_index()]

  def total(values: np.ndarray) -> jax.Array:
    silent = np.zeros_like(values)
    parts = [jax.device_put((values if device is local[0] else silent)[None], device) for device in local]
    return add(jax.make_array_from_single_device_arrays((flat.size, *values.shape), split, parts))

  return total
