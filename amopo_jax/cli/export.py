"""amopo export --workdir=DIR --out=HF_DIR [--step=N] [--dtype=bfloat16]

Writes a directory that transformers and vLLM load: config.json, safetensors, tokenizer.
"""

from absl import flags

from amopo_jax.cli.parse import require


def define(values: flags.FlagValues, arguments: list[str]) -> None:
  """Flags of this verb."""
  del arguments
  flags.DEFINE_string("workdir", None, "folder of the run", flag_values=values)
  flags.DEFINE_string("out", None, "directory to write; must not exist, or be empty", flag_values=values)
  flags.DEFINE_integer("step", None, "checkpoint; default: the newest", flag_values=values)
  flags.DEFINE_string("dtype", "", "of the files: float32 or bfloat16; default: as trained", flag_values=values)


def run(values: flags.FlagValues) -> int:
  """Exports."""
  require(values, "workdir", "out")
  from amopo_jax.export import export

  exported = export(values.workdir, values.out, step=values.step, dtype=values.dtype)
  print(f"{values.out}: step {exported.step} of {values.workdir}")
  if not exported.has_standard_tokenizer:
    print(
      "note: AutoTokenizer would replace this tokenizer by that of the model's family; load it with "
      "transformers.PreTrainedTokenizerFast"
    )
  return 0
