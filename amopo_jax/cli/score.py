"""amopo score --model=HF_DIR|HUB_NAME|WORKDIR --data=FILE --out=FILE [--format=native] [--config=…] [--step=N]

Per record, context and response: length, sum_logp, mean_p, std_p, reward (docs/data.md, "Scores"). Contexts, tokenizer
and beta come from --config, else from the workdir's run; a model without either is asked the bare question.
"""

import dataclasses
import sys

from absl import flags

from amopo_jax.cli.configs import define_config, policy_spec
from amopo_jax.cli.joining import define_processes, joined
from amopo_jax.cli.parse import require


def define(values: flags.FlagValues, arguments: list[str]) -> None:
  """Flags of this verb."""
  define_config(values, arguments)
  flags.DEFINE_string("model", None, "Hugging Face directory or hub name, or the workdir of a run", flag_values=values)
  flags.DEFINE_string("data", None, "records to score", flag_values=values)
  flags.DEFINE_string("format", "native", "adapter that reads them (docs/data.md)", flag_values=values)
  flags.DEFINE_string("out", None, "JSONL file to write", flag_values=values)
  flags.DEFINE_integer("step", None, "checkpoint of a workdir; default: the newest", flag_values=values)
  define_processes(values)


def run(values: flags.FlagValues) -> int:
  """Scores."""
  require(values, "model", "data", "out")
  from amopo_jax.announce import describe_counts, warn_of_skips
  from amopo_jax.console import make_console
  from amopo_jax.score import score

  spec = _spec(values)
  with joined(values):
    scored = score(spec, values.out, step=values.step)
    console = make_console()
  for name, found in scored.surveys.items():
    console.print(describe_counts(name, found))
    for line in warn_of_skips(name, found):
      print(line, file=sys.stderr)
  console.print(f"{values.out}: {scored.num_lines} lines")
  return 0


def _spec(values: flags.FlagValues):
  from amopo_jax.run_spec import SourceSpec

  spec = policy_spec(values, values.model)
  source = SourceSpec(path=values.data, format=values.format, weight=1.0)
  data = dataclasses.replace(spec.data, train={"data": source}, heldout={}, heldout_fraction=0.0)
  return dataclasses.replace(spec, data=data)
