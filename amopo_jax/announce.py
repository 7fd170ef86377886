"""What a run says before its first step: where it runs, on which pairs, and what the model will see of one of them."""

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from amopo_jax import build
from amopo_jax.data.sample import show_sample
from amopo_jax.data.survey import Survey
from amopo_jax.models.transformer import abstract_params
from amopo_jax.prepare import Run


def announce(run: Run, console: Console) -> None:
  """Prints devices, model, batch, counts of pairs, and one decoded sample per context."""
  console.print(_where(run))
  console.print(_batch(run))
  console.print(survey_table(run.data))
  for name, found in run.data.surveys.items():
    for reason in found.skip_reasons:
      console.print(f"skipped in {name}: {reason}")
  dataset = run.data.train[0]
  console.print("one pair as the model sees it; scored tokens are marked:")
  console.print(show_sample(dataset[0], run.data.tokenizer, run.data.contexts.names))


def survey_table(data: build.Data) -> Table:
  """Pairs per source: kept, cut, dropped, skipped, and ties and inversions per context."""
  table = Table(
    title="pairs (tied / inverted: the dimension does not order them, or orders them the other way)"
  )
  for column in ("source", "records", "skipped", "undecided", "pairs", "cut", "dropped"):
    table.add_column(column, justify="left" if column == "source" else "right")
  for context in data.contexts.names:
    table.add_column(f"{context}\ntied / inverted", justify="right")
  for name, found in data.surveys.items():
    table.add_row(name, *_counts(found))
  return table


def _counts(found: Survey) -> list[str]:
  whole = (
    found.num_records,
    found.num_skipped,
    found.num_undecided,
    found.num_pairs,
    found.num_cut,
    found.num_dropped,
  )
  by_context = [f"{t} / {i}" for t, i in zip(found.num_tied, found.num_inverted, strict=True)]
  return [str(count) for count in whole] + by_context


def _where(run: Run) -> str:
  device = jax.devices()[0]
  shape = " × ".join(f"{axis} {size}" for axis, size in run.mesh.shape.items())
  config = run.source.config
  leaves = jax.tree.leaves(abstract_params(config, np.float32))
  parameters = sum(int(np.prod(leaf.shape)) for leaf in leaves)
  origin = run.source.path or "random weights"
  return (
    f"jax {jax.__version__} on {jax.device_count()} {device.platform} device(s), mesh {shape}\n"
    f"{config.architecture}, {parameters / 1e6:,.1f} M parameters in {run.spec.model.param_dtype}, from {origin}"
  )


def _batch(run: Run) -> str:
  batch, loop = run.spec.batch, run.spec.train
  goal = f"{run.num_steps} steps" if loop.steps else f"{loop.epochs} epoch(s), about {run.num_steps} steps"
  heldout = sum(len(dataset) for dataset in run.data.heldout)
  return (
    f"{sum(len(dataset) for dataset in run.data.train)} training pairs, {heldout} held out; {goal} of "
    f"{batch.rows} rows × {batch.row_length} tokens in {batch.accumulation} micro-batch(es); "
    f"objective {run.spec.objective.name}: rewards are beta × the mean (not the sum) of token log-probabilities"
  )
