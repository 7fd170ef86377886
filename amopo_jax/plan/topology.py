"""Names of topologies, and the abstract devices of a TPU's: `v5e:16x16`, `2*v5p:4x4x4` (two slices), `h100:8`."""

import importlib.metadata
import importlib.util
import math
import os
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from amopo_jax.plan.chips import GPUS, SHAPES, TPUS, Chip, describe_slices, slice_exists
from amopo_jax.types import InputError

_NAME = re.compile(r"(?:(?P<slices>\d+)\*)?(?P<generation>\w+):(?P<shape>\d+(?:x\d+)*)")

_MOST_SLICES = 128
"""More than anybody has joined; each takes the compiler's time."""

_COMPILER_ENVIRONMENT = {
  "TPU_SKIP_MDS_QUERY": "1",  # do not ask the machine which TPU it is …
  "TPU_ACCELERATOR_TYPE": "v5litepod-4",  # … nor complain that it is none; what is compiled for does not depend on it
  "TPU_WORKER_HOSTNAMES": "localhost",
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # several processes may compile at once
}


class Topology(NamedTuple):
  """Chips that a run is planned for.

  Attributes:
    slices: slices of a TPU, joined by the data-center network; 1 for GPUs.
    generation: of the chips, a key of `chips.TPUS` or `chips.GPUS`.
    shape: chips along each axis of a slice, or the number of GPUs.
  """

  slices: int
  generation: str
  shape: tuple[int, ...]

  @property
  def name(self) -> str:
    """As it is given on the command line."""
    several = f"{self.slices}*" if self.slices > 1 else ""
    return f"{several}{self.generation}:{'x'.join(map(str, self.shape))}"

  @property
  def is_tpu(self) -> bool:
    """Whether there is a compiler for it."""
    return self.generation in TPUS

  @property
  def chip(self) -> Chip:
    """Published peaks."""
    return TPUS[self.generation] if self.is_tpu else GPUS[self.generation]

  @property
  def num_chips(self) -> int:
    """Of all slices together."""
    return self.slices * math.prod(self.shape)


def parse_topology(text: str) -> Topology:
  """Reads a name such as `v5e:4x8`, `2*v5e:16x16` or `h100:8`.

  Raises:
    InputError: an unknown generation, or a slice that does not exist; says what there is.
  """
  where, found = f"--topology={text}", _NAME.fullmatch(text)
  if found is None:
    raise InputError(
      f"{where}: no topology; give generation and chips, as v5e:16x16, 2*v5p:4x4x4 (two slices) or h100:8"
    )
  slices, generation = int(found["slices"] or 1), found["generation"]
  shape = tuple(map(int, found["shape"].split("x")))
  if generation not in (*TPUS, *GPUS):
    raise InputError(
      f"{where}: unknown generation {generation!r}; there are {', '.join(TPUS)} (as v5e:4x8, v5p:4x4x4) and "
      f"{', '.join(GPUS)} (as h100:8)"
    )
  if generation in GPUS and (len(shape) != 1 or not shape[0] or slices != 1):
    raise InputError(f"{where}: of GPUs give the number alone, as {generation}:8 or {generation}:64")
  if slices > _MOST_SLICES:
    raise InputError(f"{where}: {slices} slices; give {_MOST_SLICES} at most")
  if generation in TPUS and not (slices and slice_exists(generation, shape)):
    raise InputError(f"{where}: there is no such slice; of {generation} there are {describe_slices(generation)}")
  return Topology(slices, generation, shape)


def larger_topologies(topology: Topology) -> list[Topology]:
  """Single slices of the same generation with more chips, from small to large; of GPUs 2, 4 and 8 times as many."""
  if not topology.is_tpu:
    return [topology._replace(shape=(topology.num_chips * times,)) for times in (2, 4, 8)]
  shapes = [tuple(map(int, shape.split("x"))) for shape in SHAPES[topology.generation]]
  found = [Topology(1, topology.generation, shape) for shape in shapes]
  return [larger for larger in found if larger.num_chips > topology.num_chips]


def abstract_devices(topology: Topology) -> Sequence[Any]:
  """The devices of a TPU topology, to compile for.

  Raises:
    InputError: the TPU's compiler is not installed.
  """
  use_tpu_compiler()
  shape = (*topology.shape, 1)[:3]
  host = {"chips_per_host_bounds": shape} if math.prod(shape) == 1 else {}  # else a host has 2 x 2 chips
  name = f"{topology.generation}:{'x'.join(map(str, topology.shape))}"
  found = topologies.get_topology_desc(topology_name=name, platform="tpu", num_slices=topology.slices, **host)
  return found.devices


def use_tpu_compiler() -> None:
  """Makes the TPU's compiler ready in this process, which from then on uses no other accelerator.

  Raises:
    InputError: it is not installed.
  """
  if importlib.util.find_spec("libtpu") is None:
    raise InputError(
      f"amopo plan needs the TPU's compiler, which needs no TPU (Linux, x86-64): pip install '{_wanted_compiler()}'"
    )
  jax.config.update("jax_platforms", "cpu")
  for name, value in _COMPILER_ENVIRONMENT.items():
    os.environ.setdefault(name, value)


def _wanted_compiler() -> str:
  """The requirement by which the installed jax names its compiler, such as libtpu==0.0.42.*."""
  named = [line.partition(";")[0].strip() for line in importlib.metadata.requires("jax") or ()]
  return next(line for line in named if line.startswith("libtpu"))
