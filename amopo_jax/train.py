"""Training: one jitted step in a small loop that can be stopped and continued anywhere.

The order within an iteration is what makes a resume exact: batch n is drawn; step n is dispatched; the metrics of
step n-1, which are ready by now, are reported while step n runs; if due, an evaluation and then a checkpoint of the
state after step n together with the input pipeline's state after batch n.
"""

import errno
import time
from functools import partial
from typing import Any, NamedTuple

import jax
from rich.console import Console

from amopo_jax import processes
from amopo_jax.announce import announce
from amopo_jax.checkpoint import Checkpoints
from amopo_jax.console import RunProgress
from amopo_jax.data.pipeline import merge_states
from amopo_jax.evaluate import evaluate
from amopo_jax.feed import Feed
from amopo_jax.lock import hold_workdir
from amopo_jax.lora import Base, check_base
from amopo_jax.metrics import MetricSums, finite, summarize
from amopo_jax.prepare import Run, identify, open_workdir, prepare, start_or_resume, train_stream
from amopo_jax.reference import Table, reference_of
from amopo_jax.run_codec import to_dict
from amopo_jax.run_spec import RunSpec
from amopo_jax.state import TrainState, digests
from amopo_jax.stopping import StoppedError, StopRequest, stop_on_signals
from amopo_jax.summary import show_summary
from amopo_jax.types import Batch, RunFailure
from amopo_jax.watchdog import Watchdog
from amopo_jax.window import Window
from amopo_jax.writers import MetricWriter, last_evaluation


class Outcome(NamedTuple):
  """How a run ended.

  Attributes:
    step: finished steps.
    stopped_by: name of the signal that stopped it, "" if it is complete.
  """

  step: int
  stopped_by: str


def train(spec: RunSpec, workdir: str, console: Console) -> Outcome:
  """Trains, or goes on training, in a workdir.

  Args:
    spec: the config.
    workdir: local or gs:// folder; one that holds this run already is resumed.
    console: where it reports to people.

  Raises:
    InputError: a mistake in what was given; found before anything is written or compiled.
    RunFailure: the loss or the gradient is not finite, or the disk is full.
  """
  began = time.monotonic()
  processes.agree("config", to_dict(spec))
  with stop_on_signals() as stop:
    run = prepare(spec, workdir)
    processes.agree("found", identify(run))
    announce(run, console)
    try:
      with hold_workdir(workdir), Watchdog(spec.train.hang_minutes) as watchdog:
        return _train(run, workdir, console, stop, watchdog, began)
    except OSError as error:
      remedy = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "mend that"
      reason = f"{error.strerror or error} ({error.filename})" if error.filename else str(error)
      raise RunFailure(f"{workdir}: {reason}; {remedy} and start again with the same command") from error


def _train(run: Run, workdir: str, console: Console, stop: StopRequest, watchdog: Watchdog, began: float) -> Outcome:
  checkpoints = open_workdir(run, workdir)
  base = run.load_base()
  watchdog.beat()
  try:
    reference = reference_of(run, workdir, base, stop, progressed=watchdog.beat)
  except StoppedError:
    checkpoints.close()
    return Outcome(checkpoints.latest_step() or 0, stop.told_by)
  step, state, meta = start_or_resume(run, checkpoints)
  if step:
    check_base(base.fingerprint, meta.get("base", ""), workdir, run.spec.model.path)
    console.print(f"resumed at step {step}")
  writer = MetricWriter(
    workdir,
    start_step=step,
    tensorboard=run.spec.train.tensorboard,
    wandb_project=run.spec.train.wandb_project,
    config=to_dict(run.spec),
  )
  shown = RunProgress(console, total=run.num_steps, done=step, launched=began)
  with writer, shown as progress:
    loop = _Loop(run, base, reference, reports=_Reports(checkpoints, writer, progress, watchdog), stop=stop)
    outcome = loop.go_on(step, state, meta, processes.from_first(last_evaluation(workdir)))
  checkpoints.close()
  if not outcome.stopped_by:
    show_summary(workdir, run.data.contexts.names, console)
  return outcome


class _Pending(NamedTuple):
  """A dispatched step whose metrics have not been fetched."""

  step: int
  metrics: dict[str, Any]


class _Reports(NamedTuple):
  """Where the loop reports to."""

  checkpoints: Checkpoints
  writer: MetricWriter
  progress: RunProgress
  watchdog: Watchdog


class _Loop:
  """The loop and what it reports to; the state passes through and is never kept."""

  def __init__(self, run: Run, base: Base, reference: Table | None, *, reports: _Reports, stop: StopRequest):
    self.run, self.base, self.reference, self.stop = run, base, reference, stop
    self.checkpoints, self.writer, self.progress, self.watchdog = reports
    self._contexts = run.data.contexts.names
    self._window = Window(self._contexts)
    self._is_going = self._is_stopped = False

  def go_on(self, step: int, state: TrainState, meta: dict[str, Any], evaluated_at: int) -> Outcome:
    """From a restored state to the end, or to the request to stop; then saves."""
    spec = self.run.spec
    stream = train_stream(spec, self.run.data, self.run.feed.owned, num_workers=spec.data.workers)
    if meta:
      stream.set_state(meta["stream"])
      self._window.set_state(meta["window"])
    if evaluated_at < step and (step == 0 or _is_due(step, spec.train.eval_every)):
      evaluated_at = step if self._evaluate(step, state) else evaluated_at
    else:
      self._held_out_sums(state, most=2)  # compiled here, as is their sum, not when one is due
    digests(state)  # and this not at the first save
    feed = Feed(stream, self.run.feed, self.stop, self.reference)
    pending, values = None, None
    self._window.start_clock()
    while (batch := self._next_batch(feed, step)) is not None:
      state, metrics = self.run.train_step(state, batch, self.base.params)
      self._report(pending)
      step += 1
      pending, values = _Pending(step, metrics), None
      if self._is_milestone(step):
        self._report(pending)
        pending, values = None, self._milestone(step, state, feed)
        evaluated_at = step if values is not None else evaluated_at
    self._report(pending)
    self._is_stopped |= feed.is_stopped
    if not self._is_stopped and evaluated_at < step:
      values = self._evaluate(step, state)
    self._save(state, feed, values)
    self.checkpoints.wait()
    stream.close()
    return Outcome(step, self.stop.told_by if self._is_stopped else "")

  def _next_batch(self, feed: Feed, step: int) -> Batch | None:
    """What step `step + 1` is made of, None when the run is complete or asked to stop."""
    steps = self.run.spec.train.steps
    return None if self._is_stopped or (steps and step >= steps) else next(feed, None)

  def _is_milestone(self, step: int) -> bool:
    loop = self.run.spec.train
    return _is_due(step, loop.eval_every) or _is_due(step, loop.save_every)

  def _milestone(self, step: int, state: TrainState, feed: Feed) -> dict[str, float] | None:
    """Evaluates, then saves, whichever is due; the metrics of all steps so far have been seen to be finite."""
    loop = self.run.spec.train
    with self._window.paused():
      values = self._evaluate(step, state) if _is_due(step, loop.eval_every) else None
      if _is_due(step, loop.save_every) and not self._is_stopped:
        self._save(state, feed, values)
    return values

  def _report(self, pending: _Pending | None) -> None:
    """Fetches a step's metrics, stops the run if they are not finite, and writes them when they are due."""
    if pending is None:
      return
    values = jax.device_get(pending.metrics)
    self.watchdog.beat()
    if not self._is_going:
      self._is_going = True
      self.progress.first_step()
    sums = values.pop("sums")
    self._window.add(sums)
    line = summarize(sums, self._contexts) | {name: float(value) for name, value in values.items()}
    if not finite(line, ("loss", "grad_norm", "param_norm")):
      self._raise_diverged(pending.step, line)
    if _is_due(pending.step, self.run.spec.train.log_every):
      line |= self._window.close()
      self.writer.write(pending.step, line)
      self.progress.update(pending.step, line)

  def _evaluate(self, step: int, state: TrainState) -> dict[str, float] | None:
    """Held-out metrics, written; None if there are no held-out pairs or it was asked to stop."""
    if (sums := self._held_out_sums(state)) is None:
      return None
    values = summarize(sums, self._contexts, prefix="eval_")
    self.writer.write(step, values)
    return values

  def _held_out_sums(self, state: TrainState, *, most: int = 0) -> MetricSums | None:
    found = evaluate(
      partial(self.run.eval_step, base=self.base.params),
      state.params,
      self.run.data.heldout,
      pack=self.run.data.pack,
      layout=self.run.feed,
      stop=self.stop,
      most=most,
      reference=self.reference,
      progressed=self.watchdog.beat,
    )
    self._is_stopped |= found.is_stopped
    return found.sums

  def _save(self, state: TrainState, feed: Feed, values: dict[str, float] | None) -> None:
    meta = {
      "stream": merge_states(processes.to_first(feed.state)),
      "config": to_dict(self.run.spec),
      "tokenizer": self.run.data.tokenizer.fingerprint,
      **({"base": self.base.fingerprint} if self.base.fingerprint else {}),
      "window": self._window.state,
    }
    best = self.run.spec.train.best_metric
    self.writer.flush()
    self.checkpoints.save(state, meta, values if values and finite(values, (best,) if best else ()) else None)

  def _raise_diverged(self, step: int, line: dict[str, float]) -> None:
    self.checkpoints.wait()
    norms = ", ".join(f"{name} {line[name]:.4g}" for name in ("loss", "grad_norm", "param_norm"))
    raise RunFailure(
      f"step {step}: not finite: {norms}; nothing of this step was saved, the newest checkpoint is "
      f"{self.checkpoints.latest_step()}; lower optim.learning_rate or optim.clip, or look at the batch's records"
    )


def _is_due(step: int, every: int) -> bool:
  return every > 0 and step % every == 0
