"""What a run says before its first step: where it runs, on which pairs, and what the model will see of one of them."""

from collections.abc import Sequence

import jax
from rich.console import Console

from amopo_jax.data.sample import show_sample
from amopo_jax.data.survey import Survey
from amopo_jax.policy import count_parameters
from amopo_jax.prepare import Run


def announce(run: Run, console: Console) -> None:
  """Prints devices, model, batch, counts of pairs, and one decoded sample per context."""
  console.print(_where(run))
  console.print(_batch(run))
  for name, found in run.data.surveys.items():
    console.print(describe_counts(name, found))
    console.print(_describe_order(found, run.data.contexts.names))
    for reason in found.skip_reasons:
      console.print(f"skipped in {name}: {reason}")
  dataset = run.data.train[0]
  console.print("one pair as the model sees it; scored tokens are marked:")
  console.print(show_sample(dataset[0], run.data.tokenizer, run.data.contexts.names))


def describe_counts(name: str, found: Survey) -> str:
  """One line: what became of a source's records."""
  return (
    f"data {name}: {found.num_pairs} pairs of {found.num_records} records; "
    f"{found.num_cut} cut, {found.num_dropped} dropped, {found.num_skipped} skipped, {found.num_undecided} undecided"
  )


def _describe_order(found: Survey, contexts: Sequence[str]) -> str:
  """One line: how many pairs each context's dimension does not order."""
  by_context = zip(contexts, found.num_tied, found.num_inverted, strict=True)
  shown = ", ".join(f"{context} {tied} / {inverted}" for context, tied, inverted in by_context)
  return f"  tied / inverted: {shown}"


def _where(run: Run) -> str:
  device = jax.devices()[0]
  shape = " × ".join(f"{axis} {size}" for axis, size in run.mesh.shape.items())
  config = run.source.config
  parameters = count_parameters(config)
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
