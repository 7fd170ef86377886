"""The records of a run's training side: the data that are left for a final measurement.

    python benchmarks/without_heldout.py runs/usr/tuning --out=usr_final.jsonl

Whoever chose hyper-parameters by a run's held-out accuracy has looked at its held-out records. This writes the lines
of the run's sources that it did not hold out; the final runs split those anew.
"""

import argparse
from pathlib import Path

from amopo_jax.build_data import build_data
from amopo_jax.data.adapters import ADAPTERS
from amopo_jax.data.dataset import PairDataset
from amopo_jax.policy import find_policy, read_run
from amopo_jax.types import InputError


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("workdir", help="run that was looked at; its sources are files of one record per line")
  parser.add_argument("--out", required=True, help="JSONL file to write")
  args = parser.parse_args()
  try:
    lines = kept_lines(args.workdir)
  except (InputError, OSError) as error:
    raise SystemExit(f"without_heldout: {error}") from None
  Path(args.out).write_text("".join(lines))
  print(f"{args.out}: {len(lines)} records")


def kept_lines(workdir: str) -> list[str]:
  """The lines of the records that the run trained on, in the order of the files.

  Raises:
    InputError: a format whose records are not one line each.
  """
  spec = read_run(workdir).spec
  for name, source in spec.data.train.items():
    if ADAPTERS[source.format].rows_per_record != 1 or not source.path.endswith(".jsonl"):
      raise InputError(f"{workdir}: source {name} ({source.path}, {source.format}) is not one record per line")
  data = build_data(spec, find_policy(workdir, {}))
  return [line for dataset in data.train for line in _lines(dataset)]


def _lines(dataset: PairDataset) -> list[str]:
  records = sorted({int(record) for record in dataset.table[:, 0]})
  places = [dataset.recipe.source.origin(record).rsplit(":", 1) for record in records]
  files = {path: Path(path).read_text().split("\n") for path, _ in places}  # splitlines cuts at U+2028, too
  return [files[path][int(line) - 1] + "\n" for path, line in places]


if __name__ == "__main__":
  main()
