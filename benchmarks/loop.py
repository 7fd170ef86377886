"""The training loop against the bare step: what input, metrics and logging cost beside the device's work.

    python -m benchmarks.loop [--rounds=5] [--steps=60] [--override=A.B=V] [--json=FILE]

A run of `amopo train` on the quickstart's world and model, random weights, and the same compiled step called again and
again on batches that are on the device already, waited for once at the end. Seconds per step of both, in turn; those of
the run are its own `throughput/seconds_per_step`, without the first window of ten steps, which compiles.
"""

import argparse
import io
import statistics
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from amopo_jax.cli.configs import spec_from_config
from amopo_jax.feed import Feed
from amopo_jax.lab.write import write_world
from amopo_jax.prepare import prepare, train_stream
from amopo_jax.run_spec import RunSpec
from amopo_jax.stopping import StopRequest
from amopo_jax.train import train
from amopo_jax.writers import read_metrics
from benchmarks import report
from benchmarks.peers.ours import override
from configs import base, quickstart, quickstart_sft

WINDOW = 10
"""Steps between two lines of the log."""

BATCHES = 8
"""That the bare step takes in turn."""


def main() -> None:
  args = arguments()
  with tempfile.TemporaryDirectory() as folder:
    spec = make_spec(Path(folder), args.steps, args.override)
    seconds: dict[str, list[float]] = {"train": [], "step": []}
    for number in range(args.rounds):
      seconds["train"].append(looped(spec, Path(folder) / f"run{number}"))
      seconds["step"].append(bare(spec, Path(folder) / "none"))
  times = statistics.median(a / b for a, b in zip(seconds["train"], seconds["step"], strict=True))
  lines = [("", "median s/step", "rounds")]
  lines += [(name, f"{statistics.median(of):.4f}", " ".join(f"{x:.4f}" for x in of)) for name, of in seconds.items()]
  print(report.align(lines))
  print(f"the loop takes {times:.3f} times the bare step")
  if args.json:
    report.write(args.json, {"seconds": seconds, "times": times})


def arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--steps", type=int, default=6 * WINDOW, help="of each run and each turn")
  parser.add_argument("--override", action="append", default=[], metavar="A.B=V", help="of the quickstart's config")
  parser.add_argument("--json", metavar="FILE")
  args = parser.parse_args()
  if args.steps < 2 * WINDOW:
    parser.error(f"--steps: at least {2 * WINDOW}, as the first {WINDOW} compile")
  return args


def make_spec(folder: Path, steps: int, overrides: list[str], *, num_train: int = 2000) -> RunSpec:
  """The quickstart's second stage on a world written into the folder, from random weights."""
  world = folder / "world"
  write_world(world, seed=0, num_train=num_train, num_heldout=16)
  config = quickstart.get_config()
  config.model.path, config.model.arch = "", quickstart_sft.get_config().model.arch
  config.data.tokenizer = str(world / "tokenizer")
  config.data.train.world = base.source(str(world / "train.jsonl"))
  config.data.heldout.world = base.source(str(world / "heldout.jsonl"))
  config.train.update(steps=steps, log_every=WINDOW, eval_every=0, save_every=0)
  return spec_from_config(override(config, overrides))


def looped(spec: RunSpec, workdir: Path) -> float:
  """Seconds per step of a run."""
  train(spec, str(workdir), Console(file=io.StringIO()))
  key = "throughput/seconds_per_step"
  return statistics.median([line[key] for line in read_metrics(str(workdir)) if key in line][1:])


def bare(spec: RunSpec, workdir: Path) -> float:
  """Seconds per step of the step alone; nothing is written."""
  run = prepare(spec, str(workdir))
  feed = Feed(train_stream(spec, run.data, run.feed.owned, num_workers=0), run.feed, StopRequest())
  batches: list[Any] = list(islice(feed, BATCHES))
  state, _ = run.train_step(run.init(), batches[0], None)
  jax.block_until_ready((state, batches))
  began = time.perf_counter()
  for batch in islice(cycle(batches), spec.train.steps):
    state, _ = run.train_step(state, batch, None)
  jax.block_until_ready(state)
  return (time.perf_counter() - began) / spec.train.steps


if __name__ == "__main__":
  main()
