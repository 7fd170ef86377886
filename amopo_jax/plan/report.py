"""A plan as lines for people and as JSON for programs."""

import importlib.metadata
from collections.abc import Sequence
from typing import Any

from amopo_jax.plan.chips import GIB, Chip
from amopo_jax.plan.cost import Cost
from amopo_jax.plan.estimate import Estimate, Workload
from amopo_jax.plan.plan import Plan
from amopo_jax.plan.search import Trial, show

Line = tuple[str, str]

_OFFLOADED = "which go to the chip and back in every step; that takes time which is not in the seconds below"


def to_json(plans: Sequence[Plan], workload: Workload) -> dict[str, Any]:
  """Everything that is known, in plain values: bytes, operations and seconds, of one chip unless it says otherwise."""
  return {
    "assumptions": {**workload._asdict(), "notes": assumptions(workload)},
    "versions": {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "amopo_jax")},
    "plans": [_plain(plan) for plan in plans],
  }


def assumptions(workload: Workload) -> list[str]:
  """What the figures stand on."""
  return [
    f"a pair takes {workload.tokens_per_pair:,.0f} tokens of the rows in all contexts, of which the head takes "
    f"{workload.scored_share:.0%} (UltraFeedback: 800 per context, 64%; --tokens_per_pair, --scored_share)",
    f"an epoch has {workload.pairs:,} training pairs (--pairs, less what the config holds out)",
    "every chip reaches its published peaks (amopo_jax/plan/chips.py); a range is: products, memory, links and network "
    "overlap perfectly, or not at all",
    "memory traffic is what the compiled instructions read from the chip's memory and write to it; the attention "
    "kernels read each array once",
    "a query sees 377 keys and the kernels visit 960 for it, or a causal half of short rows (docs/numerics.md)",
    "rows are full of tokens (UltraFeedback in groups of 8 rows of 4,096: 97%)",
    "hours are those of the steps alone, without evaluation, checkpoints and compilation",
  ]


def to_lines(plan: Plan, chip: Chip) -> list[str]:
  """A plan as text."""
  sections = [("", _head(plan)), ("memory of a chip, GiB", _memory(plan))]
  if plan.cost and plan.estimate:
    sections += [("one step on one chip", _step(plan.cost, plan.estimate, chip)), ("the run", _run(plan.estimate))]
  lines = [f"{plan.topology}: {'fits' if plan.fits else 'DOES NOT FIT'}"]
  for title, found in sections:
    lines += [f"  {title}"] if title else []
    indent = "    " if title else "  "
    width = max(len(name) for name, _ in found)
    lines += [f"{indent}{name:{width}}  {value}" for name, value in found]
  return lines + (_trials(plan) if plan.trials else [])


def _head(plan: Plan) -> list[Line]:
  axes = " × ".join(f"{axis} {size}" for axis, size in plan.mesh.items())
  rows = f"{plan.rows_per_chip} of {plan.row_length:,} tokens, {plan.micro_batches} micro-batch(es) a step"
  how = f"compiled in {plan.compile_seconds:.0f} s"
  changed = [("as with", show(plan.overrides))] if plan.overrides else []
  return [
    ("mesh", f"{axes} = {plan.num_chips} chips"),
    ("rows per chip", rows),
    *changed,
    ("by", how if plan.is_compiled else "formula; there is no compiler for these chips here"),
  ]


def _memory(plan: Plan) -> list[Line]:
  found = plan.memory
  parts = [("parameters", found.parameters), ("optimizer", found.optimizer), ("batch", found.batch)]
  parts += [("frozen base", found.base)] if found.base else []
  padding = found.arguments - sum(size for _, size in parts)
  parts += [("padding of these", padding)] if padding > 0 else []
  if found.temporaries is not None:
    stacks = [("kept activations", found.activations), ("gradients of layers", found.gradients)]
    stacks = [(name, size) for name, size in stacks if size]
    others = found.temporaries - sum(size for _, size in stacks)
    parts += [*stacks, ("other temporaries", others)] if others >= 0 else [("temporaries", found.temporaries)]
    rest = found.needed - found.arguments - found.temporaries
    parts += [("program", rest)] if rest > 0 else []
  granted = found.available or plan.chip_memory
  lines = [(name, f"{size / GIB:8.2f}") for name, size in parts]
  lines.append(("together", _together(plan.fits, found.needed / GIB, granted / GIB)))
  return lines + ([("on its host", f"{found.host / GIB:8.2f}, {_OFFLOADED}")] if found.host else [])


def _together(fits: bool, needed: float, granted: float) -> str:
  """GiB that a chip needs and has."""
  if not fits:
    return f"at least {needed:.2f}, which is more than the {granted:.2f} that there are"
  return f"{needed:.2f}, of the {granted:.2f} that there are"


def _step(cost: Cost, found: Estimate, chip: Chip) -> list[Line]:
  rates = {"products": chip.flops, "memory": chip.memory_rate, "links": chip.link_rate, "network": chip.network_rate}
  amounts = {
    "products": f"{(cost.flops + found.attention_flops) / 1e12:.3f} TFLOP",
    "memory": f"{cost.memory_bytes / 1e9:.1f} GB",
    "links": f"{cost.link_bytes / 1e9:.2f} GB",
    "network": f"{cost.network_bytes / 1e9:.2f} GB",
  }
  shown = [name for name in amounts if name != "network" or cost.network_bytes]
  lines = [(name, f"{amounts[name]} at {_rate(name, rates[name])}: {found.seconds[name]:.3f} s") for name in shown]
  for kind, one in cost.collectives.items():
    sent = one.link_bytes + one.network_bytes
    sizes = f"{one.count:.0f} of {sent / one.count / 1e6:.1f} MB, " if one.count else ""
    lines.append((f"  {kind}", f"{sizes}{sent / 1e9:.2f} GB"))
  seconds = f"{_range(found.step_seconds, '.3f')}, bound by {found.bound}"
  return [*lines, ("seconds", seconds), ("MFU", _range(found.utilization, ".0%"))]


def _run(found: Estimate) -> list[Line]:
  return [
    ("pairs per step", f"{found.pairs_per_step:.0f}"),
    ("pairs per second", _range(found.pairs_per_second, ".1f")),
    ("steps", f"{found.steps:,}"),
    ("hours", _range(found.hours, ".2f")),
    ("chip-hours", _range(found.chip_hours, ".1f")),
  ]


def _trials(plan: Plan) -> list[str]:
  fitting = [trial for trial in plan.trials if trial.fits]
  lines = ["  what would fit" if fitting else "  nothing that was tried fits"]
  lines += [f"    {_trial(plan, trial)}" for trial in fitting]
  others = [f"    {_trial(plan, trial)}" for trial in plan.trials if not trial.fits]
  return lines + (["  tried, and does not", *others] if others else [])


def _trial(plan: Plan, trial: Trial) -> str:
  where = f"--topology={trial.topology} " if trial.topology != plan.topology else ""
  how = "" if trial.was_compiled or not plan.is_compiled else " for the arrays alone"
  other = "" if trial.keeps_result else "  (computes something else)"
  return f"{where}{show(trial.overrides)}: {trial.needed / GIB:.2f} GiB per chip{how}{other}".replace(" :", ":")


def _rate(name: str, rate: float) -> str:
  return f"{rate / 1e12:.0f} TFLOP/s" if name == "products" else f"{rate / 1e9:.4g} GB/s"


def _range(values: tuple[float, float], form: str) -> str:
  low, high = (format(value, form) for value in values)
  return low if low == high else f"{low} to {high}"


def _plain(value: Any) -> Any:
  if fields := getattr(value, "_fields", None):  # of a NamedTuple
    return {name: _plain(getattr(value, name)) for name in fields}
  if isinstance(value, dict):
    return {key: _plain(inner) for key, inner in value.items()}
  return [_plain(inner) for inner in value] if isinstance(value, tuple | list) else value
