"""amopo lab world --out=DIR [--seed=0] [--train=N] [--heldout=N]

Writes the synthetic world: preference records graded by program in three dimensions, and their tokenizer.
"""

from absl import flags

from amopo_jax.cli.parse import require

SUBJECTS = ("world",)
"""What may follow `amopo lab`."""


def define(values: flags.FlagValues, arguments: list[str]) -> None:
  """Flags of this verb."""
  del arguments
  flags.DEFINE_string(
    "out", None, "directory to write; one that holds this world already is left as it is", flag_values=values
  )
  flags.DEFINE_integer("seed", 0, "names the world", flag_values=values)
  flags.DEFINE_integer("train", 4000, "training records", flag_values=values)
  flags.DEFINE_integer("heldout", 400, "held-out records, on other questions", flag_values=values)


def run(values: flags.FlagValues) -> int:
  """Writes the world and prints what is in it."""
  require(values, "out")
  from amopo_jax.lab.write import write_world

  summary = write_world(
    values.out,
    seed=values.seed,
    num_train=values.train,
    num_heldout=values.heldout,
  )
  for split in ("train", "heldout"):
    found = summary[split]
    kinds = ", ".join(f"{count} {kind}" for kind, count in found["kinds"].items())
    print(f"{values.out}/{split}.jsonl: {found['records']} records ({kinds}, {found['conflicts']} conflicts)")
  print(f"mean scores by chance {summary['heldout']['chance']}, at the optimum {summary['heldout']['optimum']}")
  return 0
