"""How often each part of a compiled program runs, read from its text."""

import re
from collections.abc import Callable, Iterator, Mapping

from amopo_jax.plan.hlo import Computation, Instruction, permuted, root_of

_CALLED = re.compile(r"\b(?:calls|to_apply|body|condition)=%?([\w.-]+)|branch_computations=\{([^}]*)\}")
_OF_LOOP = re.compile(r"\b(body|condition)=%?([\w.-]+)")
_NAME = re.compile(r'op_name="([^"]*)"')
_WINDOWED = "windowed_dot_general_body"
"""In the name of a loop that the TPU compiler makes of a product and the gather before or the scatter behind it: its
turns pass part after part around a ring of chips."""

Turns = Callable[[str], float]
"""Name of a loop, as `op_name` of its metadata -> how often it turns, where the program decides that as it runs."""


def run_times(computations: Mapping[str, Computation], turns: Turns = lambda name: 1.0) -> dict[str, float]:
  """How often each computation of a program runs.

  Args:
    computations: of `hlo.parse`.
    turns: of loops whose number of turns is not in the text.
  """
  calls: dict[str, list[tuple[str, float]]] = {}
  for caller, computation in computations.items():
    for instruction in computation.values():
      names = list(_called(instruction))
      factor = _turns_of(instruction, computation, computations, turns) if instruction.kind == "while" else 1.0
      for name in names:
        calls.setdefault(name, []).append((caller, factor))
  times: dict[str, float] = {}
  for name in reversed(list(computations)):
    times[name] = sum(times.get(caller, 0.0) * factor for caller, factor in calls[name]) if name in calls else 1.0
  return times


def called_by(kinds: tuple[str, ...], computations: Mapping[str, Computation]) -> set[str]:
  """Computations that are part of instructions other than these, such as the body of a fusion."""
  found = (one for computation in computations.values() for one in computation.values() if one.kind not in kinds)
  return {name for instruction in found for name in _called(instruction)}


def _called(instruction: Instruction) -> Iterator[str]:
  for called, branches in _CALLED.findall(instruction.attributes):
    yield from [called] if called else re.findall(r"[\w.-]+", branches)


def _turns_of(
  loop: Instruction, computation: Computation, computations: Mapping[str, Computation], turns: Turns
) -> float:
  parts = dict(_OF_LOOP.findall(loop.attributes))
  if _WINDOWED in parts["body"] and (rings := list(_rings(computations[parts["body"]]))):
    return max(rings) / len(rings)
  found = _written_turns(loop, computation, computations[parts["condition"]])
  name = _NAME.search(loop.attributes)
  return found if found is not None else turns(name[1] if name else "")


def _written_turns(loop: Instruction, computation: Computation, condition: Computation) -> float | None:
  """Of a loop that counts by one up to a constant; None of another."""
  root = root_of(condition)
  if root.kind != "compare" or "direction=LT" not in root.attributes:
    return None
  count, end = (condition[name] for name in root.operands)
  if count.kind != "get-tuple-element" or end.kind != "constant":
    return None
  place = int(re.findall(r"index=(\d+)", count.attributes)[0])
  carried = computation.get(loop.operands[0])
  start = computation.get(carried.operands[place]) if carried and carried.kind == "tuple" else None
  while start and start.kind in ("copy", "copy-done", "copy-start", "bitcast"):
    start = computation.get(start.operands[0])
  begin = int(start.argument) if start and start.kind == "constant" else 0
  return float(int(end.argument) - begin)


def _rings(body: Computation) -> Iterator[int]:
  """Chips of the ring of each permute of a loop, which together pass on as many parts as a ring has chips."""
  for instruction in body.values():
    pairs = permuted(instruction.attributes)
    if pairs and instruction.kind in ("collective-permute", "collective-permute-start"):
      yield _ring_length(pairs)


def _ring_length(pairs: list[tuple[int, int]]) -> int:
  """Chips of the ring in which the first of some (source, target) lies."""
  following = dict(pairs)
  first = at = next(iter(following))
  length = 1
  while (at := following.get(at, first)) != first:
    length += 1
  return length
