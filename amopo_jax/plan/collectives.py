"""What the chips send each other, read from the text of a compiled program."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")

_INSTRUCTION = re.compile(rf"= (?P<result>.*?) (?P<kind>{'|'.join(KINDS)})(?P<start>-start)?\(")
_SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_LISTED = re.compile(r"replica_groups=\{(\{[\d,{}]*\})\}")
_IOTA = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")

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


def read_collectives(text: str, slice_of: Sequence[int]) -> dict[str, Collective]:
  """Every collective of a program, each instruction once.

  A ring of n chips sends, per chip, (n - 1)/n of what is gathered or exchanged, (n - 1)/n of what is summed and
  scattered, and twice that of what is summed for all.

  Args:
    text: of `jax.stages.Compiled.as_text`.
    slice_of: number of the slice of each device, in the order of the mesh.

  Returns:
    By kind; those that occur.
  """
  found: dict[str, Collective] = {}
  for kind, result, groups in _instructions(text, len(slice_of)):
    spanned = max(len({slice_of[device] for device in group}) for group in groups)
    largest = max(map(len, groups))
    before = found[kind] if kind in found else Collective(0, 0, 0)
    network = _sent(kind, result, spanned, largest) if spanned > 1 else 0.0
    within = _sent(kind, result, largest, largest) if largest > spanned or spanned == 1 else 0.0
    found[kind] = Collective(before.count + 1, before.link_bytes + within, before.network_bytes + network)
  return found


def combine(terms: Sequence[tuple[float | int, Mapping[str, Collective]]]) -> dict[str, Collective]:
  """Weighted sums by kind; a difference may be negative."""
  kinds = {kind for _, found in terms for kind in found}
  total = lambda kind: sum(factor * np.asarray(found[kind]) for factor, found in terms if kind in found)
  return {kind: Collective(*np.asarray(total(kind)).tolist()) for kind in KINDS if kind in kinds}


def _instructions(text: str, num_devices: int) -> Iterator[tuple[str, int, list[list[int]]]]:
  """Kind, bytes of the result and groups of devices of each collective."""
  is_scattering = False
  for line in text.splitlines():
    if line.endswith("{"):
      is_scattering = _SCATTERING in line
    found = _INSTRUCTION.search(line)
    if found:
      sizes = [_bytes(kind, axes) for kind, axes in _SHAPE.findall(found["result"])]
      result = max(sizes) if found["start"] else sum(sizes)  # a start's result holds its operand too
      groups = _groups(line, num_devices)
      if found["kind"] == "all-reduce" and is_scattering:
        yield "reduce-scatter", result // max(map(len, groups)), groups
      else:
        yield found["kind"], result, groups


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
  return [list(range(num_devices))]


def _bytes(kind: str, sizes: str) -> int:
  width = 1 if kind == "pred" else int(re.sub(r"\D", "", kind)) // 8
  return width * math.prod(int(size) for size in sizes.split(",") if size)
