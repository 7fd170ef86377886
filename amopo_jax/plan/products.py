"""Operations of the matrix products in the text of a compiled program, two per multiply-add.

The TPU's compiler writes every product as a convolution: what is summed is a feature or a window, and what both sides
have in common is a window as long as itself, of which each place meets one other.
"""

import math
import re

import numpy as np

from amopo_jax.plan.hlo import Computation, Instruction

_LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")
_WINDOW = re.compile(r"window=\{([^}]*)\}")
_FIELD = re.compile(r"(\w+)=([\d_x-]+)")
_GROUPS = re.compile(r"batch_group_count=(\d+)")
_COMMON = re.compile(r"lhs_(?:batch|contracting)_dims=\{([\d,]*)\}")


def product_flops(instruction: Instruction, computation: Computation) -> float:
  """Operations of a `convolution` or a `dot`; 0 of anything else.

  Args:
    instruction: one of the computation's.
    computation: that says of its operands how large they are.
  """
  if instruction.kind not in ("convolution", "dot"):
    return 0.0
  left, right = (computation[name].arrays[0].axes for name in instruction.operands[:2])
  if instruction.kind == "dot":
    return 2.0 * math.prod(left) * math.prod(right) / _shared(instruction.attributes, left)
  labels = _LABELS.search(instruction.attributes)
  if labels is None:
    raise ValueError(f"{instruction.name}: a convolution without dim_labels")
  of_left, of_right = dict(zip(labels[1], left, strict=True)), dict(zip(labels[2], right, strict=True))
  of_result = dict(zip(labels[3], instruction.arrays[0].axes, strict=True))
  groups = _GROUPS.search(instruction.attributes)
  batch = of_left["b"] // (int(groups[1]) if groups else 1)
  window = _WINDOW.search(instruction.attributes)
  fields = dict(_FIELD.findall(window[1])) if window else {}
  spans = range(len(of_right) - 2)
  meetings = math.prod(_meetings(fields, n, of_left[str(n)], of_right[str(n)], of_result[str(n)]) for n in spans)
  return 2.0 * batch * of_right["i"] * of_right["o"] * meetings


def _shared(attributes: str, left: tuple[int, ...]) -> int:
  """Places that a dot's operands have in common: those of batch and contracted axes."""
  return math.prod(left[int(axis)] for axes in _COMMON.findall(attributes) for axis in axes.split(",") if axis)


def _meetings(fields: dict[str, str], number: int, size: int, window: int, result: int) -> int:
  """How many places of a window, over all places of the result, meet an entry and not padding or a hole."""
  at = lambda name, default: fields[name].split("x")[number] if name in fields else default
  low = int(str(at("pad", "0_0")).split("_")[0])
  stride, holes, spread = (int(at(name, 1)) for name in ("stride", "lhs_dilate", "rhs_dilate"))
  places = np.arange(result)[:, None] * stride - low + np.arange(window)[None, :] * spread
  return int(np.sum((places >= 0) & (places < (size - 1) * holes + 1) & (places % holes == 0)))
