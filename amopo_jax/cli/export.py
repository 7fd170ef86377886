"""amopo export --workdir=DIR[,DIR …] --out=HF_DIR [--step=N] [--dtype=bfloat16] [--adapters] [--weights=1,2 …]

Writes a directory that transformers and vLLM load: config.json, safetensors, tokenizer; the adapters of a LoRA run are
merged into it. With --adapters, the adapters alone, for peft. Of several runs, the mean of their parameters: a model
soup, by --weights.
"""

from absl import flags

from amopo_jax.cli.joining import define_processes, joined
from amopo_jax.cli.parse import as_number, require


def define(values: flags.FlagValues, arguments: list[str]) -> None:
  """Flags of this verb."""
  del arguments
  flags.DEFINE_string("workdir", None, "folder of the run; several, with commas, are averaged", flag_values=values)
  flags.DEFINE_string("out", None, "directory to write, also gs://; must not exist, or be empty", flag_values=values)
  flags.DEFINE_integer("step", None, "checkpoint; default: the newest", flag_values=values)
  flags.DEFINE_string("dtype", "", "of the files: float32 or bfloat16; default: as trained", flag_values=values)
  flags.DEFINE_bool("adapters", False, "of a LoRA run: write the adapters alone, for peft", flag_values=values)
  flags.DEFINE_list("weights", [], "of several runs; default: all alike", flag_values=values)
  define_processes(values)


def run(values: flags.FlagValues) -> int:
  """Exports."""
  require(values, "workdir", "out")
  from amopo_jax.console import make_console
  from amopo_jax.export import export
  from amopo_jax.export_adapters import export_adapters
  from amopo_jax.types import InputError

  if values.adapters and values.weights:
    raise InputError("--weights: adapters are not averaged; leave --adapters out, and whole models are")
  with joined(values):
    if values.adapters:
      step = export_adapters(values.workdir, values.out, step=values.step, dtype=values.dtype)
      make_console().print(f"{values.out}: adapters of step {step} of {values.workdir}")
      return 0
    weights = [as_number("--weights", text) for text in values.weights]
    exported = export(values.workdir, values.out, step=values.step, dtype=values.dtype, weights=weights)
    console = make_console()
  console.print(f"{values.out}: step {exported.step} of {values.workdir}")
  if not exported.has_standard_tokenizer:
    console.print(
      "note: AutoTokenizer would replace this tokenizer by that of the model's family; load it with "
      "transformers.PreTrainedTokenizerFast"
    )
  return 0
