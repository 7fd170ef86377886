"""What a run says before its first step: where it runs, on which pairs, and what the model will see of one of them."""

import math
from collections.abc import Sequence

import jax
from rich.console import Console
from rich.text import Text

from amopo_jax.data.sample import show_sample
from amopo_jax.data.survey import Survey
from amopo_jax.policy import count_parameters
from amopo_jax.prepare import Run

_SHOWN_REASONS = 5


def announce(run: Run, console: Console) -> None:
  """Prints devices, model, batch, counts of pairs, and one decoded sample per context."""
  console.print(_where(run))
  console.print(_batch(run))
  longest = run.spec.data.max_length or run.spec.batch.row_length
  for line in warn_of_length(longest, run.source.config.max_positions):
    console.print(Text(line, style="bold red"), soft_wrap=True)
  for name, found in run.data.surveys.items():
    console.print(describe_counts(name, found))
    console.print(_describe_order(found, run.data.contexts.names))
    for line in warn_of_skips(name, found):
      console.print(Text(line, style="bold red"), soft_wrap=True)
  dataset = run.data.train[0]
  console.print("one pair as the model sees it; scored tokens are marked:")
  console.print(show_sample(dataset[0], run.data.tokenizer, run.data.contexts.names))


def describe_counts(name: str, found: Survey) -> str:
  """One line: what became of a source's records."""
  return (
    f"data {name}: {found.num_pairs} pairs of {found.num_records} records; "
    f"{found.num_cut} cut, {found.num_dropped} dropped, {found.num_skipped} skipped, {found.num_undecided} undecided"
  )


def warn_of_length(longest: int, positions: int) -> list[str]:
  """A line where sequences may be longer, in tokens, than the model was made for."""
  told = f"WARNING: config.data.max_length: up to {longest} tokens, but the model was made for {positions} positions"
  return [told] if longest > positions else []


def warn_of_skips(name: str, found: Survey) -> list[str]:
  """How many records are skipped and why, a line per reason; nothing where none is."""
  if not found.num_skipped:
    return []
  shown, others = found.skip_reasons[:_SHOWN_REASONS], found.skip_reasons[_SHOWN_REASONS:]
  lines = [
    f"WARNING: data {name}: {found.num_skipped} of {found.num_records} records "
    f"({found.num_skipped / found.num_records:.0%}) are skipped, as config.data.on_error=skip says:",
    *(f"  {reason.count} × such as {reason.example}" for reason in shown),
  ]
  more = f"  {sum(reason.count for reason in others)} × for {len(others)} other reasons"
  return [*lines, more] if others else lines


def _describe_order(found: Survey, contexts: Sequence[str]) -> str:
  """One line: how many pairs each context's dimension does not order."""
  by_context = zip(contexts, found.num_tied, found.num_inverted, strict=True)
  shown = ", ".join(f"{context} {tied} / {inverted}" for context, tied, inverted in by_context)
  return f"  tied / inverted: {shown}"


def _where(run: Run) -> str:
  device = jax.devices()[0]
  shape = " × ".join(f"{axis} {size}" for axis, size in run.mesh.shape.items())
  shape += f" in {run.spec.mesh.slices} slices" if run.spec.mesh.slices > 1 else ""
  shape += ", optimizer state in the memory of the hosts" if run.spec.optim.offload else ""
  config = run.source.config
  parameters = count_parameters(config)
  origin = run.source.path or "random weights"
  trained = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(run.target.params))
  lora = run.spec.lora
  adapters = (
    f"\nLoRA of rank {lora.rank}: {trained:,} parameters are trained and saved, in adapters; "
    f"frozen kernels in {lora.base_dtype or run.spec.model.param_dtype}"
  )
  return (
    f"jax {jax.__version__} on {jax.device_count()} {device.platform} device(s), mesh {shape}\n"
    f"{config.architecture}, {parameters / 1e6:,.1f} M parameters in {run.spec.model.param_dtype}, from {origin}; "
    f"attention {run.attention}{adapters if lora.rank else ''}"
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
