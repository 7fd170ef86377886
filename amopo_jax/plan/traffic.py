"""Bytes that the instructions of a compiled program read from the chip's memory and write to it.

What lies in the core's fast memory costs nothing here; what gets there and back does, as instructions of its own. A
fusion reads of an array what it slices of it, and writes of one that it changes in place what it changes.
"""

import re
from collections.abc import Iterator, Mapping

from amopo_jax.plan.hlo import CHAIN, Array, Computation, Instruction, root_of

_CALLS = re.compile(r"\bcalls=%?([\w.-]+)")

_NOTHING = {
  *("parameter", "constant", "get-tuple-element", "tuple", "bitcast", "while", "conditional", "call"),
  *("after-all", "partition-id", "replica-id", "opt-barrier", "async-update"),
}
_VIEWS = re.compile(r'custom_call_target="(?:AllocateBuffer|ConcatBitcast|Assume\w*|Gather\w*)"')
_SLICES = ("dynamic-slice", "slice", "gather")


def traffic(instruction: Instruction, computation: Computation, computations: Mapping[str, Computation]) -> int:
  """Bytes of one instruction that is not part of a fusion.

  Args:
    instruction: one of the computation's.
    computation: that says where its operands lie.
    computations: of the program.
  """
  kind, arrays = instruction.kind, instruction.arrays
  if kind in _NOTHING or kind.endswith("-done") or _VIEWS.search(instruction.attributes):
    return 0
  if kind == "fusion":
    return _of_fusion(instruction, computations)
  operands = [computation[name].arrays for name in instruction.operands if name in computation]
  if kind in _SLICES or kind in ("slice-start", "dynamic-slice-start"):
    moved = arrays[0] if kind in _SLICES else max(arrays[1:], key=lambda one: one.size)
    return moved.size * (_is_far(operands[0][0]) + _is_far(moved))
  if kind == "dynamic-update-slice":
    return operands[1][0].size * (_is_far(operands[1][0]) + _is_far(arrays[0]))
  if kind == "scatter":
    return _far(operands[1]) + _far(operands[2]) + 2 * operands[2][0].size * _is_far(arrays[0])
  if kind.endswith("-start") and kind != "all-reduce-start":
    return _far(arrays)  # the operands stand beside the results
  return _far(arrays) + sum(map(_far, operands))


def chained(instruction: Instruction, computation: Computation) -> tuple[str, int] | None:
  """Name of the chain, and bytes of all its steps together, of a collective that runs beside products."""
  if found := CHAIN.search(instruction.attributes):
    operands = [computation[name].arrays for name in instruction.operands if name in computation]
    return found[1], _far(instruction.arrays) + sum(map(_far, operands))
  return None


def _of_fusion(fusion: Instruction, computations: Mapping[str, Computation]) -> int:
  inner = _called(fusion, computations)
  parameters = [one for one in inner.values() if one.kind == "parameter"]
  read = sum(_read(one, inner, computations) for one in parameters if _far(one.arrays))
  parts = _results(inner, computations)
  if len(parts) != len(fusion.arrays):  # such as the many parts of a collective's state
    return read + (0 if all(size == 0 for size in parts) else _far(fusion.arrays))
  whole = lambda array, part: array.size if part is None else part
  return read + sum(whole(array, part) for array, part in zip(fusion.arrays, parts, strict=True) if _is_far(array))


def _read(parameter: Instruction, inner: Computation, computations: Mapping[str, Computation]) -> int:
  """Bytes of a fusion's operand that it looks at."""
  whole = _far(parameter.arrays)
  return min(whole, sum(_looked_at(parameter, *use, computations) for use in _uses(parameter, inner)))


def _looked_at(parameter: Instruction, user: Instruction, place: int, computations: Mapping[str, Computation]) -> int:
  """Bytes of a fusion's operand that one of its instructions looks at, as its operand number `place`."""
  if user.kind in _SLICES and place == 0:
    return user.arrays[0].size
  if _keeps(user, place):
    return 0
  if user.kind != "fusion":
    return _far(parameter.arrays)
  nested = _called(user, computations)
  [its] = [one for one in nested.values() if one.kind == "parameter" and int(one.argument) == place]
  return _read(its, nested, computations)


def _keeps(user: Instruction, place: int) -> bool:
  """Whether an array is handed on as it is, or but for a slice."""
  is_in_place = user.kind == "dynamic-update-slice" and place == 0
  return is_in_place or user.kind in ("tuple", "custom-call") or bool(CHAIN.search(user.attributes))


def _uses(value: Instruction, inner: Computation) -> Iterator[tuple[Instruction, int]]:
  """Who takes a value, and as which operand; through bitcasts."""
  for user in inner.values():
    if value.name in user.operands:
      yield from _uses(user, inner) if user.kind == "bitcast" else [(user, user.operands.index(value.name))]


def _results(inner: Computation, computations: Mapping[str, Computation]) -> list[int | None]:
  """Bytes of each result that are written, if not all of it: a slice, or nothing where it is handed on."""
  root = root_of(inner)
  parts = [inner[name] for name in root.operands] if root.kind == "tuple" else [root]
  return [_written(part, inner, computations) for part in parts]


def _written(made: Instruction, inner: Computation, computations: Mapping[str, Computation]) -> int | None:
  while made.kind == "bitcast":
    made = inner[made.operands[0]]
  if made.kind == "dynamic-update-slice":
    return inner[made.operands[1]].arrays[0].size
  if made.kind in ("parameter", "custom-call", "get-tuple-element") or CHAIN.search(made.attributes):
    return 0
  if made.kind == "fusion" and len(made.arrays) == 1:
    return _results(_called(made, computations), computations)[0]
  return None


def _called(fusion: Instruction, computations: Mapping[str, Computation]) -> Computation:
  found = _CALLS.search(fusion.attributes)
  if found is None:
    raise ValueError(f"{fusion.name}: a fusion that calls nothing")
  return computations[found[1]]


def _is_far(array: Array) -> bool:
  return array.place == 0


def _far(arrays: tuple[Array, ...]) -> int:
  return sum(array.size for array in arrays if _is_far(array))
