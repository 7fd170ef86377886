"""The text of a compiled program as computations, instructions and arrays."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) .*\{$")
"""First line of a computation: its name."""

SHAPE = re.compile(r"\b(pred|[a-z]+\d+)\[([\d,]*)\]")
"""Type and axes of an array, such as `bf16` and `8,128`."""

CHAIN = re.compile(r'chain_id="(\d+)"')
"""Of a collective that runs beside products: it stands in every fusion that takes it a step further."""

COMMENT = re.compile(r"/\*.*?\*/")
"""In long tuples, such as their fifth part's number."""

_ARRAY = re.compile(SHAPE.pattern + r"(?:\{([^}]*)\})?")
_PLACE = re.compile(r"S\((\d+)\)")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%([\w.-]+) = ")
_KIND = re.compile(r" ?([\w-]+)\(")
_NAME = re.compile(r"%([\w.-]+)")
_PAIRS = re.compile(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}")
_PAIR = re.compile(r"\{(\d+),(\d+)\}")
_PARENTHESIS = re.compile(r"[()]")


class Array(NamedTuple):
  """One array.

  Attributes:
    axes: sizes.
    size: bytes, without padding.
    place: memory that it lies in; 0 is that of the chip, 1 the core's own fast one.
  """

  axes: tuple[int, ...]
  size: int
  place: int


class Instruction(NamedTuple):
  """One instruction.

  Attributes:
    name: unique in its computation.
    is_root: its result is the computation's.
    kind: such as "fusion".
    arrays: of its result, those of tuples within tuples one after the other.
    operands: names.
    argument: what stands between its parentheses: a constant's value, a parameter's number.
    attributes: the rest of its line.
  """

  name: str
  is_root: bool
  kind: str
  arrays: tuple[Array, ...]
  operands: tuple[str, ...]
  argument: str
  attributes: str


Computation = dict[str, Instruction]
"""Its instructions by name, in their order."""


def parse(text: str) -> dict[str, Computation]:
  """The computations of a program by name; whoever is called stands before the caller, the program's own last.

  Args:
    text: of `jax.stages.Compiled.as_text`.
  """
  found: dict[str, Computation] = {}
  current: Computation = {}
  for line in text.splitlines():
    if start := COMPUTATION.match(line):
      current = found.setdefault(start[1], {})
    elif instruction := _parse_line(line):
      current[instruction.name] = instruction
  return found


def root_of(computation: Computation) -> Instruction:
  """The instruction whose result is the computation's."""
  return next(instruction for instruction in reversed(computation.values()) if instruction.is_root)


def permuted(attributes: str) -> list[tuple[int, int]]:
  """(source, target) of the devices of a permute; none of anything else."""
  found = _PAIRS.search(attributes)
  return [(int(source), int(target)) for source, target in _PAIR.findall(found[1])] if found else []


def shape_bytes(kind: str, sizes: str) -> int:
  """Of an array by its type and axes, without padding."""
  bits = 8 if kind == "pred" else int(re.sub(r"\D", "", kind))
  return -(-bits * math.prod(int(size) for size in sizes.split(",") if size) // 8)


def _parse_line(line: str) -> Instruction | None:
  start = _INSTRUCTION.match(line)
  if start is None:
    return None
  rest = COMMENT.sub("", line[start.end() :])
  end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
  kind = _KIND.match(rest, end)
  if kind is None:
    return None
  close = _closing(rest, kind.end() - 1)
  argument = rest[kind.end() : close]
  arrays, operands = tuple(_arrays(rest[:end])), tuple(_NAME.findall(argument))
  return Instruction(start[2], bool(start[1]), kind[1], arrays, operands, argument, rest[close + 1 :])


def _closing(text: str, start: int) -> int:
  """Place of the parenthesis that closes the one at `start`."""
  depth = 0
  for found in _PARENTHESIS.finditer(text, start):
    depth += 1 if found[0] == "(" else -1
    if not depth:
      return found.start()
  return len(text)


def _arrays(text: str) -> Iterator[Array]:
  for kind, sizes, layout in _ARRAY.findall(text):
    place = _PLACE.search(layout)
    axes = tuple(int(size) for size in sizes.split(",") if size)
    yield Array(axes, shape_bytes(kind, sizes), int(place[1]) if place else 0)
