"""amopo plan --config=configs/X.py --topology=v5e:16x16[,2*v5p:4x4x4,h100:8] [--json[=FILE]] …

Compiles the run's real train step for TPUs that are not there, on this machine's CPU, and says what it needs and takes:
memory per chip, operations, traffic, time. A step that does not fit is tried again with changes until one does. Reads
no data, and no model where config.model.arch describes it.
"""

import json
import os
import sys
from functools import partial
from pathlib import Path

from absl import flags

from amopo_jax.cli.configs import define_config, spec_from_flags
from amopo_jax.cli.parse import require
from amopo_jax.types import InputError, RunFailure


def define(values: flags.FlagValues, arguments: list[str]) -> None:
  """Flags of this verb."""
  define_config(values, arguments)
  flags.DEFINE_list("topology", None, "generation and chips, several with commas", flag_values=values)
  count, number = partial(flags.DEFINE_integer, lower_bound=0), partial(flags.DEFINE_float, lower_bound=0)
  count("rows_per_chip", 0, "rows of a micro-batch on each chip; 0: batch.rows", flag_values=values)
  number("tokens_per_pair", 0.0, "of the rows, in all contexts; 0: 800 per context", flag_values=values)
  number("scored_share", 0.0, "of the tokens that the head takes; 0: 0.64", upper_bound=1, flag_values=values)
  count("pairs", 0, "records of an epoch, before any are held out; 0: 10,000", flag_values=values)
  text = "prints JSON, or writes it to a file beside the table"
  flags.DEFINE_flag(flags.Flag(flags.ArgumentParser(), None, "json", "", text, boolean=True), values)


def run(values: flags.FlagValues) -> int:
  """Plans every topology."""
  require(values, "topology")
  import jax

  from amopo_jax.plan.case import check_cases
  from amopo_jax.plan.estimate import assume
  from amopo_jax.plan.plan import Plan, make_plan, with_remedies
  from amopo_jax.plan.report import assumptions, to_json, to_lines
  from amopo_jax.plan.topology import parse_topology

  jax.config.update("jax_enable_compilation_cache", False)  # nothing for absent devices can be read back from it
  file = Path(values.json) if values.json not in ("", "true") else None
  if file and (file.is_dir() or not os.access(file.parent, os.W_OK)):
    raise InputError(f"--json={file}: no file can be written there")
  spec = spec_from_flags(values)
  topologies = [parse_topology(name) for name in values.topology]
  cases = check_cases(spec, topologies, values.rows_per_chip)
  workload = assume(spec, tokens_per_pair=values.tokens_per_pair, scored_share=values.scored_share, pairs=values.pairs)
  tell = lambda text: print(text, file=sys.stderr, flush=True)
  plans, status = list[Plan](), 0
  shown = lambda: json.dumps(to_json(plans, workload), indent=1)
  try:
    for case in cases:
      try:
        plans.append(make_plan(case, workload, tell))
      except RunFailure as error:
        tell(f"amopo plan: {case.topology.name}: {error}")
        status = 1
        continue
      plans[-1] = with_remedies(plans[-1], case, tell)
      if file:
        file.write_text(shown() + "\n")  # after each, as the next may take minutes
      if values.json != "true":
        print("\n".join(to_lines(plans[-1], case.topology.chip)), flush=True)
  finally:  # what is there is there, also where a later one cannot be made
    if values.json == "true" and plans:
      print(shown(), flush=True)
  if values.json != "true":
    print("\n".join(["assumed", *(f"  {one}" for one in assumptions(workload))]))
  return status
