"""What would make a step fit, found by compiling it.

On the same chips, changes of the config (`changes.py`), of each kind until one fits; then, unless one was found that
leaves the result as it is, larger slices of the generation. A step whose arrays alone are larger than the chip's
memory is refused without the compiler.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from amopo_jax import mesh as meshes
from amopo_jax.plan.ahead import argument_sizes, try_step
from amopo_jax.plan.case import Case, place
from amopo_jax.plan.changes import (
  Overrides,
  adapter_changes,
  free_changes,
  least_memory,
  on_all_chips,
  override,
  state_changes,
)
from amopo_jax.plan.formula import formula_memory, granted
from amopo_jax.plan.topology import Topology, larger_topologies
from amopo_jax.types import InputError, RunFailure

Tell = Callable[[str], None]
"""Says to whoever waits what is being done."""


class Trial(NamedTuple):
  """A change that was tried.

  Attributes:
    topology: on which.
    overrides: keys and values, as on the command line.
    keeps_result: what is computed stays the same.
    fits: whether the step does.
    needed: bytes per chip, as far as they were counted.
    was_compiled: False where the arrays alone are too large, and on GPUs.
  """

  topology: str
  overrides: Overrides
  keeps_result: bool
  fits: bool
  needed: int
  was_compiled: bool


def search(case: Case, tell: Tell) -> list[Trial]:
  """Tries changes of a run that does not fit.

  Args:
    case: on abstract devices of a TPU, or on GPUs, where a formula stands for the compiler.
    tell: hears of every trial.

  Returns:
    All that was tried, in order.
  """
  shards = meshes.row_shards(case.mesh)
  trials = list(_until_one_fits(case, free_changes(case.spec, shards), True, tell))
  if any(trial.fits for trial in trials):
    return trials
  base = least_memory(case.spec, shards)
  for kind in (state_changes(case.spec, shards), adapter_changes(case.spec)):
    trials += _until_one_fits(case, [base | change for change in kind], False, tell)
  return trials + list(_on_more_chips(case, tell))


def _until_one_fits(case: Case, changes: Sequence[Overrides], keeps_result: bool, tell: Tell) -> Iterator[Trial]:
  for change in changes:
    try:
      changed = place(override(case.spec, change), case.config, case.topology)
    except InputError:  # it cannot be on these chips, such as more splits than there are key heads
      continue
    trial = _try(changed, change, keeps_result, tell)
    if trial:
      yield trial
      if trial.fits:
        return


def _on_more_chips(case: Case, tell: Tell) -> Iterator[Trial]:
  """The next larger slices, with all that saves memory there without another result, until the run fits."""
  for topology in larger_topologies(case.topology):
    tried = (_try(placed, change, True, tell) for placed, change in _placements(case, topology))
    trial = next((trial for trial in tried if trial), None)
    if trial:
      yield trial
      if trial.fits:
        return


def _placements(case: Case, topology: Topology) -> Iterator[tuple[Case, Overrides]]:
  """A run on more chips, by rows alone, and with the tokens of a row split in two where there are more than rows."""
  for split in (1, 2):
    try:
      change = on_all_chips(case.spec, topology.slices, case.spec.mesh.context * split)
      alone = override(case.spec, change | {"batch.accumulation": 1})
      shards = meshes.row_shards(place(alone, case.config, topology).mesh)
      change |= least_memory(override(case.spec, change), shards)
      placed = place(override(case.spec, change), case.config, topology)
    except InputError:
      continue
    yield placed, placed.overrides | change


def _try(case: Case, change: Overrides, keeps_result: bool, tell: Tell) -> Trial | None:
  """None if the compiler refuses the step for another reason than memory."""
  if case.parts is None:
    needed = formula_memory(case.spec, case.config, case.mesh).needed
    return Trial(case.topology.name, change, keeps_result, needed <= granted(case.topology.chip), needed, False)
  arrays = sum(argument_sizes(case.parts, case.num_contexts))
  if arrays > case.topology.chip.memory:
    return Trial(case.topology.name, change, keeps_result, False, arrays, False)
  tell(f"{case.topology.name}: trying {show(change) or 'the config as it is'}")
  try:
    found = try_step(case.parts, case.num_contexts)
  except RunFailure as error:
    tell(f"{case.topology.name}: {error}")
    return None
  if found.fits:
    tell(f"{case.topology.name}: fits with {show(change) or 'the config as it is'}")
  return Trial(case.topology.name, change, keeps_result, found.fits, found.memory.needed, True)


def show(overrides: Overrides) -> str:
  """As on the command line."""
  return " ".join(f"--config.{key}={value}" for key, value in overrides.items())
