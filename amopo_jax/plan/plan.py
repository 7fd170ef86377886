"""The plan of a run on a topology: does it fit, what does a step cost, how long does the run take, what would change
that."""

from typing import NamedTuple

from amopo_jax import mesh as meshes
from amopo_jax.plan.ahead import Memory, try_step
from amopo_jax.plan.case import Case
from amopo_jax.plan.changes import Overrides
from amopo_jax.plan.cost import Cost, step_cost
from amopo_jax.plan.estimate import Estimate, Workload, estimate
from amopo_jax.plan.formula import formula_cost, formula_memory, granted
from amopo_jax.plan.search import Tell, Trial, search


class Plan(NamedTuple):
  """What a run needs and takes on one topology.

  Attributes:
    topology: its name.
    num_chips: of all slices.
    mesh: devices along each axis.
    overrides: what had to be changed of the config to be on this topology.
    rows_per_chip: token rows of a micro-batch on each chip; chips that split layers share them.
    row_length: tokens of a row.
    micro_batches: of a step.
    is_compiled: by the compiler for these chips; False: by formula.
    fits: into the chip's memory.
    chip_memory: bytes that it has.
    memory: of one chip.
    cost: of one step on one chip; None where it does not fit.
    estimate: of step and run; None where it does not fit.
    compile_seconds: of the step itself.
    trials: changes that were tried because it does not fit.
  """

  topology: str
  num_chips: int
  mesh: dict[str, int]
  overrides: Overrides
  rows_per_chip: int
  row_length: int
  micro_batches: int
  is_compiled: bool
  fits: bool
  chip_memory: float
  memory: Memory
  cost: Cost | None
  estimate: Estimate | None
  compile_seconds: float
  trials: list[Trial]


def make_plan(case: Case, workload: Workload, tell: Tell) -> Plan:
  """Compiles the step and counts its cost.

  Args:
    case: of `case.check_cases`.
    workload: what is assumed of the data.
    tell: hears of every stage.
  """
  if case.parts is None:
    room = granted(case.topology.chip)
    memory = formula_memory(case.spec, case.config, case.mesh)._replace(available=room)
    fits = memory.needed <= room
    cost = formula_cost(case.spec, case.config, case.mesh, workload.scored_share) if fits else None
    return _plan(case, memory, fits, workload, cost)
  name = case.topology.name
  tell(f"{name}: compiling the step")
  attempt = try_step(case.parts, case.num_contexts)
  tell(f"{name}: {'fits' if attempt.fits else 'does not fit'}, compiled in {attempt.seconds:.0f} s")
  cost = None
  if attempt.executable:
    cost = step_cost(attempt.executable, case.parts, case.config, workload.scored_share)
  return _plan(case, attempt.memory, attempt.fits, workload, cost)._replace(compile_seconds=attempt.seconds)


def with_remedies(plan: Plan, case: Case, tell: Tell) -> Plan:
  """The plan with what was tried to make it fit, if it does not."""
  return plan if plan.fits else plan._replace(trials=search(case, tell))


def _plan(case: Case, memory: Memory, fits: bool, workload: Workload, cost: Cost | None) -> Plan:
  batch, chip, num_chips = case.spec.batch, case.topology.chip, case.topology.num_chips
  found = estimate(case.spec, case.config, cost, chip, num_chips, workload) if cost else None
  return Plan(
    topology=case.topology.name,
    num_chips=num_chips,
    mesh=dict(case.mesh.shape),
    overrides=case.overrides,
    rows_per_chip=batch.rows // batch.accumulation // meshes.row_shards(case.mesh),
    row_length=batch.row_length,
    micro_batches=batch.accumulation,
    is_compiled=case.topology.is_tpu,
    fits=fits,
    chip_memory=chip.memory,
    memory=memory,
    cost=cost,
    estimate=found,
    compile_seconds=0.0,
    trials=[],
  )
