"""amopo lab world --out=DIR [--seed=0] [--train=N] [--heldout=N]
amopo lab grade --responses=BEFORE.jsonl,AFTER.jsonl

`world` writes the synthetic world: preference records graded by program in three dimensions, and their tokenizer.
`grade` gives the true scores of what `amopo generate` answered to its questions.
"""

from collections.abc import Sequence

from absl import flags

from amopo_jax.cli.parse import require

SUBJECTS = ("world", "grade")
"""What may follow `amopo lab`."""


def define(values: flags.FlagValues, arguments: list[str]) -> None:
  """Flags of this verb."""
  del arguments
  flags.DEFINE_string(
    "out", None, "world: directory to write; one that holds this world already is left as it is", flag_values=values
  )
  flags.DEFINE_integer("seed", 0, "world: its name", flag_values=values)
  flags.DEFINE_integer("train", 4000, "world: training records", flag_values=values)
  flags.DEFINE_integer("heldout", 400, "world: held-out records, on other questions", flag_values=values)
  flags.DEFINE_list("responses", None, "grade: files of amopo generate, such as before,after", flag_values=values)


def run(values: flags.FlagValues, subject: str) -> int:
  """Does what the subject says."""
  return _write_world(values) if subject == "world" else _grade(values)


def _write_world(values: flags.FlagValues) -> int:
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


def _grade(values: flags.FlagValues) -> int:
  require(values, "responses")
  from amopo_jax.lab.grading import best_scores, read_scores, table_rows

  files: Sequence[str] = values.responses
  head, *rows = table_rows([read_scores(path) for path in files], best_scores(files[-1]))
  print(f"true scores, 0 to 4, of {' → '.join(files)}")
  for row in (head, ["---", *["---:"] * (len(head) - 1)], *rows):
    print(f"| {' | '.join(row)} |")
  return 0
