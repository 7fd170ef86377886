"""What a step costs on many chips, from its cost on two smaller slices.

With the same rows on each chip, what a chip computes is the same on a slice of any size, what it keeps shrinks as 1/n
of the parts n into which parameters are split, and a ring of n chips sends (n - 1)/n of what it gathers. So every
cost is A + B/n, and two small slices tell A and B. Compiling for hundreds of chips takes minutes, for sixteen seconds.
"""

import math

from amopo_jax.plan.case import Case, place
from amopo_jax.plan.changes import Overrides, override
from amopo_jax.plan.cost import Cost, positive, step_cost, weighted
from amopo_jax.plan.topology import Topology, smaller_topologies
from amopo_jax.types import InputError

_LEAST_PARTS = 16
"""Of the parameters, on the smaller of the two slices; a few layers must fit, and what is not split not matter."""


def case_cost(case: Case, scored_share: float) -> tuple[Cost, float]:
  """Counts a step, on two smaller slices if there are such.

  Args:
    case: on abstract devices of a TPU.
    scored_share: of the tokens, those that the head takes.

  Returns:
    The cost of one step on one chip, and the seconds that counting took.
  """
  pair = smaller_cases(case) or [case]
  counted = [step_cost(one.parts, one.config, one.num_contexts, scored_share) for one in pair if one.parts]
  costs, seconds = zip(*counted, strict=True)
  shares = _shares([1 / _parts(one) for one in pair], 1 / _parts(case))
  return positive(weighted(*zip(shares, costs, strict=True))), sum(seconds)


def smaller_cases(case: Case) -> list[Case]:
  """The run on the two smallest slices that split parameters into 16 parts or more, in at most half as many as here;
  empty where there are none. Rows on a chip, replicas and other splits stay."""
  found: list[Case] = []
  for topology in smaller_topologies(case.topology):
    try:
      smaller = place(override(case.spec, _changes(case, topology)), case.config, topology)
    except InputError:  # a split that does not divide
      continue
    if _LEAST_PARTS <= _parts(smaller) <= _parts(case) // 2 and _rows_per_chip(smaller) == _rows_per_chip(case):
      found.append(smaller)
  return found[:2] if len(found) > 1 else []


def _changes(case: Case, topology: Topology) -> Overrides:
  rows, pairs = case.spec.batch.rows, case.spec.batch.max_pairs
  part = math.gcd(rows * topology.num_chips // case.topology.num_chips, rows)
  return {
    "mesh.fsdp": -1,
    "batch.rows": part,
    "batch.group_rows": math.gcd(case.spec.batch.group_rows, part // case.spec.batch.accumulation or 1),
    "batch.max_pairs": pairs * part // rows,
  }


def _parts(case: Case) -> int:
  return case.mesh.shape["fsdp"]


def _rows_per_chip(case: Case) -> float:
  return case.spec.batch.rows / case.topology.num_chips  # a split over `tensor` is the same on all slices


def _shares(known: list[float], wanted: float) -> list[float]:
  """Factors of values at the known places whose sum is the value of a straight line at the wanted one."""
  if len(known) == 1:
    return [1.0]
  one, two = known
  return [(wanted - two) / (one - two), (one - wanted) / (one - two)]
