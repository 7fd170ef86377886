"""What the chips send each other, read from the text of a compiled program."""

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from amopo_jax.plan.hlo import CHAIN, COMPUTATION, SHAPE, permuted, shape_bytes

ONCE: Mapping[str, float] = MappingProxyType({})
"""Each computation runs once."""

KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")

_INSTRUCTION = re.compile(rf"= (?P<result>.*?) (?P<kind>{'|'.join(KINDS)})(?P<start>-start)?\(")
_LISTED = re.compile(r"replica_groups=\{(\{[\d,{}]*\})\}")
_IOTA = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESH = re.compile(
  r"replica_groups=mesh\[(?P<axes>[^\]]*)\](?:, device_ids=\((?P<ids>(?:[^()]|\([^()]*\))*)\))? \{(?P<named>[^}]*)\}"
)
_AXIS = re.compile(r"'?([^',={]+)'?=(\d+)")
_NAMED = re.compile(r"'?([^',:]+)'?(?::\((\d+)\)(\d+))?(?:,|$)")
_RESHAPED = re.compile(r"\[([\d,]+)\](?:T\(([\d,]+)\))?")

_BETWEEN_SLICES = re.compile(r'= (?P<result>\(.*?\)) send\(.*_xla_megascale_transfer_type="(?P<kind>\w+)"')
"""What passes the data-center network goes by the hosts: a transfer to them instead of an instruction of its kind."""

_SCATTERING = "all-reduce-scatter"
"""In the name of a computation whose all-reduce keeps a slice of the sum: the TPU compiler's reduce-scatter."""


class Collective(NamedTuple):
  """All collectives of one kind, on one chip.

  Attributes:
    count: instructions.
    link_bytes: that the chip sends over the links of its slice.
    network_bytes: that it sends to other slices.
  """

  count: float
  link_bytes: float
  network_bytes: float


def read_collectives(text: str, slice_of: Sequence[int], times: Mapping[str, float] = ONCE) -> dict[str, Collective]:
  """Every collective of a program, as often as the loops that hold it turn.

  A ring of n chips sends, per chip, (n - 1)/n of what is gathered or exchanged, (n - 1)/n of what is summed and
  scattered, and twice that of what is summed for all.

  Between slices, a chip hands what it sends to its host, whose part of the ring is counted here as the chip's.

  Args:
    text: of `jax.stages.Compiled.as_text`.
    slice_of: number of the slice of each device, in the order of the mesh.
    times: of `loops.run_times`.

  Returns:
    By kind; those that occur.
  """
  found: dict[str, Collective] = {}
  for kind, result, groups, runs in _instructions(text, len(slice_of), times):
    spanned = max(len({slice_of[device] for device in group}) for group in groups)
    largest = max(map(len, groups))
    before = found.get(kind, Collective(0, 0, 0))
    network = _sent(kind, result, spanned, largest) if spanned > 1 else 0.0
    within = _sent(kind, result, largest, largest) if largest > spanned or spanned == 1 else 0.0
    found[kind] = Collective(
      before.count + runs, before.link_bytes + runs * within, before.network_bytes + runs * network
    )
  for kind, network, runs in _transfers(text, len(set(slice_of)), times):
    before = found.get(kind, Collective(0, 0, 0))
    found[kind] = before._replace(count=before.count + runs, network_bytes=before.network_bytes + runs * network)
  return found


def _instructions(
  text: str, num_devices: int, times: Mapping[str, float]
) -> Iterator[tuple[str, int, list[list[int]], float]]:
  """Kind, bytes of the result and groups of devices of each collective, and how often it runs.

  One that the TPU's compiler runs beside products stands in every fusion that takes it a step further, as one chain.
  """
  is_scattering, seen, runs = False, set(), 1.0
  for line in text.splitlines():
    if computation := COMPUTATION.match(line):
      is_scattering, runs = _SCATTERING in line, times.get(computation[1], 1.0)
    found, chain = _INSTRUCTION.search(line), CHAIN.search(line)
    if found and not (chain and chain[1] in seen):
      seen |= {chain[1]} if chain else set()
      groups = _groups(line, num_devices)
      result = _result_bytes(found["kind"], bool(found["start"]), found["result"], max(map(len, groups)))
      if found["kind"] == "all-reduce" and is_scattering:
        yield "reduce-scatter", result // max(map(len, groups)), groups, runs
      else:
        yield found["kind"], result, groups, runs


def _result_bytes(kind: str, is_start: bool, shapes: str, group: int) -> int:
  """Of all results of a collective; those of a start, but for an all-reduce, stand beside its operands and numbers."""
  sizes = [(axes, shape_bytes(name, axes)) for name, axes in SHAPE.findall(shapes)]
  if not is_start or kind == "all-reduce":
    return sum(size for _, size in sizes)
  share = {"all-gather": group / (group + 1), "reduce-scatter": 1 / (group + 1)}.get(kind, 1 / 2)
  return round(share * sum(size for axes, size in sizes if axes))


def _transfers(text: str, num_slices: int, times: Mapping[str, float]) -> Iterator[tuple[str, float, float]]:
  """Kind, bytes over the network of what each slice exchanges with all others by its hosts, and how often it runs."""
  runs = 1.0
  for line in text.splitlines():
    if computation := COMPUTATION.match(line):
      runs = times.get(computation[1], 1.0)
    if found := _BETWEEN_SLICES.search(line):
      kind = found["kind"].lower().replace("_", "-")
      operand = max(shape_bytes(*shape) for shape in SHAPE.findall(found["result"]))
      result = operand * num_slices if kind == "all-gather" else operand
      result = operand // num_slices if kind == "reduce-scatter" else result
      yield kind, _sent(kind, result, num_slices, num_slices), runs


def _sent(kind: str, result: int, chips: int, group: int) -> float:
  """Bytes that a chip sends in a ring of `chips`, for a collective of `group` chips."""
  share = (chips - 1) / chips
  factor = {"all-reduce": 2 * share, "reduce-scatter": group * share, "collective-permute": 1.0}
  return result * (factor.get(kind, share))


def _groups(line: str, num_devices: int) -> list[list[int]]:
  if found := _LISTED.search(line):
    return [list(map(int, group.split(","))) for group in re.findall(r"\{([\d,]+)\}", found[1])]
  if found := _IOTA.search(line):
    count, size = int(found[1]), int(found[2])
    axes = [int(axis) for axis in found[3].split(",")]
    order = [int(axis) for axis in found[4].split(",")] if found[4] else range(len(axes))
    return np.arange(math.prod(axes)).reshape(axes).transpose(order).reshape(count, size).tolist()
  if found := _MESH.search(line):
    return _groups_of_mesh(found["axes"], found["ids"] or "", found["named"])
  if found := permuted(line):
    return [sorted(set(pair)) for pair in found]
  return [list(range(num_devices))]


def _groups_of_mesh(axes: str, ids: str, named: str) -> list[list[int]]:
  """Groups along some axes of a mesh, as 'a'=2,'b'=8 and 'b':(2)4: of b's two blocks of four, each of four."""
  sizes = {name: int(size) for name, size in _AXIS.findall(axes)}
  parts = [(name, int(before or 1), int(size or sizes[name])) for name, before, size in _NAMED.findall(named)]
  spans = {axis: [(before, before * count) for name, before, count in parts if name == axis] for axis in sizes}
  cuts = {axis: sorted({1, size, *itertools.chain(*spans[axis])}) for axis, size in sizes.items()}
  # Every axis falls into factors where a part begins or ends: (axis, blocks before the factor, blocks after it).
  factors = [(axis, *ends) for axis in sizes for ends in itertools.pairwise(cuts[axis])]
  holds = lambda part, factor: part[0] == factor[0] and part[1] <= factor[1] < part[1] * part[2]
  within = [place for part in parts for place, factor in enumerate(factors) if holds(part, factor)]
  others = [place for place in range(len(factors)) if place not in within]
  shape = [high // low for _, low, high in factors]
  devices = _device_ids(ids, math.prod(shape)).reshape(shape).transpose(others + within)
  return devices.reshape(-1, math.prod(shape[place] for place in within)).tolist()


def _device_ids(text: str, count: int) -> np.ndarray:
  """The devices of a mesh in its order: all in a row, a transposed grid as [4,2]T(1,0), or one by one."""
  if found := _RESHAPED.search(text):
    axes = [int(axis) for axis in found[1].split(",")]
    order = [int(axis) for axis in found[2].split(",")] if found[2] else range(len(axes))
    return np.arange(count).reshape(axes).transpose(order).reshape(-1)
  return np.asarray([int(one) for one in text.split(",")]) if text else np.arange(count)
