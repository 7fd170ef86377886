"""How the model, which knows no mesh, lets its caller say where activations lie."""

from collections.abc import Callable

from jaxtyping import Array

Constrain = Callable[[Array, str], Array]
"""Hook by which the caller lays an activation out on its devices; gets the array and its kind."""


def identity(x: Array, kind: str) -> Array:
  """The `Constrain` that leaves the layout to the compiler."""
  del kind
  return x
