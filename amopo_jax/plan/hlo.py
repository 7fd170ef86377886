"""How the text of a compiled program reads."""

import math
import re

COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) .*\{$")
"""First line of a computation: its name."""

SHAPE = re.compile(r"\b(pred|[a-z]+\d+)\[([\d,]*)\]")
"""Type and axes of an array, such as `bf16` and `8,128`."""


def shape_bytes(kind: str, sizes: str) -> int:
  """Of an array by its type and axes, without padding."""
  bits = 8 if kind == "pred" else int(re.sub(r"\D", "", kind))
  return -(-bits * math.prod(int(size) for size in sizes.split(",") if size) // 8)
