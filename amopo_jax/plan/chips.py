"""Published peaks of accelerator chips, and the slices of them that there are.

TPU figures are those of cloud.google.com/tpu/docs/v5e, /v5p and /v6e (read in November 2026): bfloat16 peak,
bandwidth of the memory, of the links between chips (half of the published figure where that counts both directions)
and of the data-center network, the latter of a pod divided by its chips. GPU figures are those of NVIDIA's data
sheets of the SXM modules, dense, with one 400 Gb/s adapter per GPU (A100: 200) as in NVIDIA's DGX systems.
"""

from typing import NamedTuple


class Chip(NamedTuple):
  """Published peaks of one chip.

  Attributes:
    flops: bfloat16 operations per second.
    memory_rate: bytes of its memory per second.
    link_rate: bytes per second that it sends to chips of its slice, or GPUs of its node, over all links together.
    network_rate: bytes per second that it sends to other slices or nodes.
    memory: bytes.
  """

  flops: float
  memory_rate: float
  link_rate: float
  network_rate: float
  memory: float


GIB = 2**30

TPUS: dict[str, Chip] = {
  "v5e": Chip(197e12, 819e9, 200e9, 3.125e9, 16 * GIB),
  "v5p": Chip(459e12, 2765e9, 600e9, 6.25e9, 95 * GIB),
  "v6e": Chip(918e12, 1640e9, 400e9, 12.5e9, 32 * GIB),
}
"""The generations that the attention kernels are compiled for in the tests."""

GPUS: dict[str, Chip] = {
  "a100": Chip(312e12, 2039e9, 300e9, 25e9, 80e9),
  "h100": Chip(989e12, 3350e9, 450e9, 50e9, 80e9),
  "h200": Chip(989e12, 4800e9, 450e9, 50e9, 141e9),
}

GPUS_PER_NODE = 8
"""That share fast links."""

GPU_SHARE = 0.75
"""Of a GPU's memory, what JAX takes unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise."""

_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_SMALL_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4")
_CUBE, _MOST_CHIPS, _LONGEST_SIDE = 4, 6144, 24

SHAPES: dict[str, tuple[str, ...]] = {
  "v5e": _FLAT,
  "v6e": _FLAT,
  "v5p": (*_SMALL_CUBES, "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16", "16x16x16", "16x16x24"),
}
"""Slices from small to large; of v5p's beyond one cube, those of the documentation's table."""


def slice_exists(generation: str, shape: tuple[int, ...]) -> bool:
  """Whether a slice of one pod can have this shape.

  Args:
    generation: of TPUS.
    shape: chips along each axis.
  """
  if "x".join(map(str, shape)) in SHAPES[generation]:
    return True
  is_cubes = len(shape) == 3 and all(side % _CUBE == 0 and 0 < side <= _LONGEST_SIDE for side in shape)
  chips = shape[0] * shape[1] * shape[2] if is_cubes else 0
  return generation == "v5p" and is_cubes and sorted(shape) == list(shape) and chips <= _MOST_CHIPS


def describe_slices(generation: str) -> str:
  """The shapes of a generation, for a message."""
  beyond = ", or three multiples of 4 in ascending order, 6144 chips at most" if generation == "v5p" else ""
  return ", ".join(SHAPES[generation]) + beyond
