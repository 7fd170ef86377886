"""What the passes over the layers leave behind, read from the text of a compiled step.

The forward loop fills one stack per kept activation and the backward loop one per gradient: arrays whose first axis is
the layer, of which every turn writes a slice. The parameters are stacks too, but pass through a loop as they are.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from amopo_jax.models.transformer import LAYERS
from amopo_jax.plan.hlo import COMMENT, COMPUTATION, SHAPE, shape_bytes

_LOOP = re.compile(r"= \((?P<carried>.*)\) while\(.*\bbody=%?(?P<body>[\w.-]+).*op_name=\"(?P<name>[^\"]*)\"")
_PART = re.compile(r"%?([\w.-]+) = .* get-tuple-element\(.*\), index=(\d+)")
_ROOT = re.compile(r"ROOT .*\) tuple\((.*)\)")


class Stacks(NamedTuple):
  """Bytes on one chip.

  Attributes:
    activations: kept by the forward pass for the backward pass, of all layers.
    gradients: of the layers' parameters.
  """

  activations: int
  gradients: int


def read_stacks(text: str, num_turns: int) -> Stacks:
  """The stacks that the loops over layers write; zeros where layers stand one after the other.

  Args:
    text: of `jax.stages.Compiled.as_text`.
    num_turns: of such a loop.
  """
  lines = [COMMENT.sub("", line) for line in text.splitlines()]
  through = dict(_passed_through(lines))
  activations = gradients = 0
  for line in lines:
    loop = _LOOP.search(line)
    if loop and LAYERS in loop["name"].split("/")[-2]:
      written = _written(loop["carried"], through.get(loop["body"], set()), num_turns)
      if "transpose" in loop["name"].split("/")[-2]:
        gradients = max(gradients, written)
      else:
        activations = max(activations, written)
  return Stacks(activations, gradients)


def _written(carried: str, through: set[int], num_turns: int) -> int:
  own = [shape for place, shape in enumerate(SHAPE.findall(carried)) if place not in through]
  return sum(shape_bytes(kind, sizes) for kind, sizes in own if sizes.split(",")[0] == str(num_turns))


def _passed_through(lines: list[str]) -> Iterator[tuple[str, set[int]]]:
  """Of each computation the places of its argument's parts that are its result's at the same places."""
  computation, parts = "", {}
  for line in lines:
    if found := COMPUTATION.match(line):
      computation, parts = found[1], {}
    if found := _PART.search(line):
      parts[found[1]] = int(found[2])
    if found := _ROOT.search(line):
      names = re.findall(r"%([\w.-]+)", found[1])
      yield computation, {place for place, name in enumerate(names) if parts.get(name) == place}
