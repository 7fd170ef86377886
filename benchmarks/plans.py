"""The table of docs/scaling.md: `amopo plan` for pod configs on slices of three generations.

    python -m benchmarks.plans --json=docs/results/DATE-plans.json [--configs=A,B] [--topologies=X,Y]

Needs no TPU. One row of tokens per chip, so that the step grows with the slice. What the file holds already is not
compiled again; then the table in docs/scaling.md is written anew.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from absl import flags

from amopo_jax.cli.configs import define_config, spec_from_flags
from amopo_jax.plan.case import check_cases
from amopo_jax.plan.chips import GIB
from amopo_jax.plan.estimate import assume
from amopo_jax.plan.plan import make_plan, with_remedies
from amopo_jax.plan.report import to_json
from amopo_jax.plan.search import show
from amopo_jax.plan.topology import parse_topology
from amopo_jax.run_spec import RunSpec
from benchmarks import report

CONFIGS = ("qwen2_5_7b", "qwen2_5_32b")
TOPOLOGIES = (
  "v5e:4x8", "v5e:8x8", "v5e:16x16", "v5p:2x2x4", "v5p:4x4x4", "v5p:4x8x8", "v6e:4x8", "v6e:8x8", "v6e:16x16"
)  # fmt: skip
PAGE = Path(__file__).parent.parent / "docs" / "scaling.md"
TABLE = re.compile(r"(<!-- plans -->\n).*?(<!-- /plans -->)", re.DOTALL)
HEAD = (
  "model",
  "slice",
  "chips",
  "GiB per chip",
  "TFLOP",
  "s per step",
  "MFU",
  "pairs/s",
  "hours",
  "chip-hours",
  "made",
)


def main() -> None:
  args = arguments()
  file = Path(args.json)
  done: dict[str, Any] = json.loads(file.read_text())["plans"] if file.exists() else {}
  for name in args.configs.split(","):
    spec = load(name)
    for topology in args.topologies.split(","):
      key = f"{name} {topology}"
      if key not in done:
        done[key] = measure(spec, topology)
        report.write(args.json, {"plans": done})
  PAGE.write_text(TABLE.sub(lambda found: found[1] + table(done) + found[2], PAGE.read_text()))


def arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--json", metavar="FILE", required=True)
  parser.add_argument("--configs", default=",".join(CONFIGS))
  parser.add_argument("--topologies", default=",".join(TOPOLOGIES))
  return parser.parse_args()


def load(name: str) -> RunSpec:
  """A config of configs/ as a run."""
  values, given = flags.FlagValues(), [f"--config={Path(__file__).parent.parent}/configs/{name}.py"]
  define_config(values, given)
  values(["amopo", *given])
  return spec_from_flags(values)


def measure(spec: RunSpec, topology: str) -> dict[str, Any]:
  """The plan of a run with one row per chip."""
  [case] = check_cases(spec, [parse_topology(topology)], 1)
  workload = assume(spec)
  tell = lambda text: print(text, file=sys.stderr, flush=True)
  found = with_remedies(make_plan(case, workload, tell), case, tell)
  made = {key: value for key, value in report.provenance().items() if key in ("date", "commit")}
  return to_json([found], workload)["plans"][0] | {"made": made}


def table(plans: dict[str, Any]) -> str:
  """Markdown, one line per plan."""
  lines = [HEAD, ("---", "---", *["---:"] * (len(HEAD) - 2))]
  lines += [line(key.split()[0], plan) for key, plan in plans.items()]
  return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def line(name: str, plan: dict[str, Any]) -> tuple[str, ...]:
  """Cells of a plan."""
  needed = f"{plan['memory']['needed'] / GIB:.1f} of {plan['chip_memory'] / GIB:.0f}"
  start = (name, plan["topology"], str(plan["num_chips"]))
  made = f"{plan['made']['date'][:10]}, {plan['made']['commit'][:7]}"
  if not plan["fits"]:
    return (*start, f"at least {needed}{remedy(plan)}", *["–"] * (len(HEAD) - 5), made)
  found, both = plan["estimate"], lambda key, form: " to ".join(format(value, form) for value in found[key])
  return (
    *start,
    needed,
    f"{(plan['cost']['flops'] + found['attention_flops']) / 1e12:.1f}",
    both("step_seconds", ".2f"),
    both("utilization", ".0%"),
    both("pairs_per_second", ".0f"),
    both("hours", ".2g"),
    both("chip_hours", ".0f"),
    made,
  )


def remedy(plan: dict[str, Any]) -> str:
  """The first change that was found to make it fit."""
  for trial in plan["trials"]:
    if trial["fits"]:
      where = "" if trial["topology"] == plan["topology"] else f" on {trial['topology']}"
      change = f" with `{show(trial['overrides'])}`" if trial["overrides"] else ""
      return f"; fits{where}{change}: {trial['needed'] / GIB:.1f}"
  return ""


if __name__ == "__main__":
  main()
