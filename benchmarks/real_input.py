"""The held-out table of runs that differ in their seed: accuracy per context, before and after, and what it rests on.

    python benchmarks/real_input.py runs/usr/amopo0 runs/usr/amopo1 runs/usr/amopo2 [--out=table.md]

Reads each workdir's `metrics.jsonl` (its first and its last evaluation), and its data once more to count the held-out
pairs that a context's dimension orders: those are what an accuracy is a share of. The split is drawn with the seed.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from amopo_jax.build_data import build_data
from amopo_jax.data.contexts import order
from amopo_jax.policy import find_policy, read_run
from amopo_jax.summary import before_and_after
from amopo_jax.types import InputError
from amopo_jax.writers import read_metrics

METRICS = (("accuracy", "eval_rewards/accuracies", 3), ("margin", "eval_rewards/margins", 2))
MEAN = "mean"


@dataclasses.dataclass(frozen=True)
class Seed:
  """One run.

  Attributes:
    seed: of its config.
    contexts: names along K.
    before: its first evaluation, before the first step.
    after: its last evaluation.
    ordered: per context, held-out pairs that its dimension orders.
    pairs: held-out pairs.
    records: records that they come from.
  """

  seed: int
  contexts: tuple[str, ...]
  before: dict
  after: dict
  ordered: dict[str, int]
  pairs: int
  records: int


def main() -> None:
  args = arguments()
  try:
    text = markdown([read(workdir) for workdir in args.workdirs])
  except InputError as error:
    raise SystemExit(f"real_input: {error}") from None
  print(text, end="")
  if args.out:
    Path(args.out).write_text(text)


def arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("workdirs", nargs="+", help="finished runs of one config, one per seed")
  parser.add_argument("--out", default="", help="Markdown file to write")
  return parser.parse_args()


def read(workdir: str) -> Seed:
  ends = before_and_after(read_metrics(workdir))
  if ends is None:
    raise InputError(f"{workdir}: has no two evaluations; is it a finished run with held-out pairs?")
  spec = read_run(workdir).spec
  data = build_data(spec, find_policy(workdir, {}))
  pairs = [dataset.pair(index) for dataset in data.heldout for index in range(len(dataset))]
  if len(pairs) != ends[1]["eval_num_pairs"]:
    raise InputError(f"{workdir}: was evaluated on {ends[1]['eval_num_pairs']:g} pairs, not on today's {len(pairs)}")
  is_ordered = np.sum([order(pair, data.contexts)[0] for pair in pairs], axis=0)
  return Seed(
    seed=spec.seed,
    contexts=data.contexts.names,
    before=dict(ends[0]),
    after=dict(ends[1]),
    ordered=dict(zip(data.contexts.names, is_ordered.tolist(), strict=True)),
    pairs=len(pairs),
    records=sum(len(np.unique(dataset.table[:, 0])) for dataset in data.heldout),
  )


def markdown(seeds: Sequence[Seed]) -> str:
  """One row per context; figures are mean ± sample standard deviation over the seeds."""
  names = (*seeds[0].contexts, MEAN)
  head = ["context", "ordered held-out pairs"]
  head += [f"{metric} {when}" for metric, _, _ in METRICS for when in ("before", "after", "change")]
  rows = [head, ["---", *["---:"] * (len(head) - 1)], *(_row(seeds, name) for name in names)]
  held = ", ".join(f"{seed.pairs} of {seed.records} records (seed {seed.seed})" for seed in seeds)
  return f"Held-out pairs: {held}.\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(seeds: Sequence[Seed], name: str) -> list[str]:
  counts = " / ".join(str(seed.ordered[name]) for seed in seeds) if name != MEAN else ""
  return [name, counts, *(cell for _, key, digits in METRICS for cell in _change(seeds, key, name, digits))]


def _change(seeds: Sequence[Seed], key: str, name: str, digits: int) -> list[str]:
  full = key if name == MEAN else f"{key}/{name}"
  # json's null is a context without an ordered pair
  before, after = (np.array([line[full] for line in lines], float) for lines in _ends(seeds))
  signed = _spread(after - before, digits)
  return [_spread(before, digits), _spread(after, digits), signed if signed.startswith("-") else f"+{signed}"]


def _ends(seeds: Sequence[Seed]) -> tuple[list[dict], list[dict]]:
  return [seed.before for seed in seeds], [seed.after for seed in seeds]


def _spread(values: np.ndarray, digits: int) -> str:
  deviation = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
  return f"{np.mean(values):.{digits}f}{deviation}"


if __name__ == "__main__":
  main()
