"""What a run says on the terminal: plain lines, and a progress bar with the figures that matter.

On a terminal the bar is redrawn in place; elsewhere (a log file, a pod's worker) a line is printed every few seconds.
Only process 0 speaks.
"""

import math
import time
from collections.abc import Mapping
from types import TracebackType

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

QUIET_SECONDS = 10.0
"""Least time between two progress lines where there is no terminal."""


def make_console() -> Console:
  """Standard output for people; silent on all processes but the first."""
  return Console(quiet=jax.process_index() != 0, soft_wrap=True, highlight=False, markup=False)


class RunProgress:
  """Progress of a run: loss, margin and accuracy where pairs are compared, pairs/s and time left.

  Args:
    console: of `make_console`.
    total: expected number of steps.
    done: steps finished before this process started.
    launched: `time.monotonic()` at the start of the run.
  """

  def __init__(self, console: Console, *, total: int, done: int, launched: float):
    self._console = console
    self._total, self._done, self._begun = total, done, done
    self._launched = launched
    self._started = self._spoke = time.monotonic()
    columns = [
      TextColumn("step"),
      MofNCompleteColumn(),
      BarColumn(bar_width=24),
      TextColumn("{task.fields[figures]}"),
    ]
    self._bar = Progress(
      *columns, TextColumn("left"), TimeRemainingColumn(), console=console, disable=not console.is_terminal
    )
    self._task = self._bar.add_task("", total=total, completed=done, figures="compiling …")

  def __enter__(self) -> "RunProgress":
    self._bar.start()
    return self

  def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
    self._bar.stop()

  def update(self, step: int, values: Mapping[str, float]) -> None:
    """Shows the figures of a logged step."""
    compared = {"margin": values["rewards/margins"], "acc": values["rewards/accuracies"]}
    known = [f"{name} {value:.3f}" for name, value in compared.items() if not math.isnan(value)]
    figures = "  ".join([f"loss {values['loss']:.4f}", *known, f"{values['throughput/pairs_per_second']:.1f} pairs/s"])
    self._bar.update(self._task, completed=step, figures=figures)
    self._done = step
    now = time.monotonic()
    last = step >= self._total
    if not self._console.is_terminal and (last or now - self._spoke >= QUIET_SECONDS or step == self._begun + 1):
      self._spoke = now
      self._console.print(f"step {step}/{self._total}  {figures}  left {self._left(now)}")

  def first_step(self) -> None:
    """Says how long it took to get going: loading, compiling and the first evaluation included."""
    self._console.print(f"first step {time.monotonic() - self._launched:.1f} s after the start")

  def _left(self, now: float) -> str:
    steps = self._done - self._begun
    if not steps:
      return "?"
    seconds = (now - self._started) / steps * max(self._total - self._done, 0)
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02d}:{int(seconds) % 60:02d}"
