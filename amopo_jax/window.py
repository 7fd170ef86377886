"""The steps since the last logged line: what they add up to, and how fast they went."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from amopo_jax.metrics import MetricSums, add, summarize


class Window:
  """Collects the sums of steps; its state goes into checkpoints, so that a resumed run logs what it would have.

  Args:
    contexts: names along K.
  """

  def __init__(self, contexts: Sequence[str]):
    self._contexts = contexts
    self._sums: MetricSums | None = None
    self._num_steps, self._since = 0, time.monotonic()
    self._untimed = _Counts(0, 0.0, 0.0)

  @property
  def state(self) -> dict[str, Any]:
    """JSON-able; times are not in it."""
    return {"num_steps": self._num_steps, "sums": [np.asarray(x).tolist() for x in self._sums or ()]}

  def set_state(self, state: dict[str, Any]) -> None:
    """Goes on from a state."""
    self._num_steps = state["num_steps"]
    self._sums = MetricSums._make(np.asarray(x, np.float32) for x in state["sums"]) if state["sums"] else None
    self._untimed = self._counts()

  def start_clock(self) -> None:
    """Leaves out of the rates what took time before the first step."""
    self._since = time.monotonic()

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Leaves out of the rates what takes time without being a step."""
    began = time.monotonic()
    yield
    self._since += time.monotonic() - began

  def add(self, sums: MetricSums) -> None:
    """One more step."""
    self._sums, self._num_steps = (add(self._sums, sums) if self._sums else sums), self._num_steps + 1

  def close(self) -> dict[str, float]:
    """Means over the steps and `throughput/*`; the next window begins."""
    if self._sums is None:
      raise ValueError("window: no step since the last line")
    seconds = max(time.monotonic() - self._since, 1e-9)
    timed = [ended - before for ended, before in zip(self._counts(), self._untimed, strict=True)]
    line = summarize(self._sums, self._contexts) | {
      "throughput/pairs_per_second": timed[1] / seconds,
      "throughput/tokens_per_second": timed[2] / seconds,
      "throughput/seconds_per_step": seconds / max(timed[0], 1),
    }
    self._sums, self._num_steps, self._since = None, 0, time.monotonic()
    self._untimed = _Counts(0, 0.0, 0.0)
    return line

  def _counts(self) -> "_Counts":
    sums = self._sums
    return _Counts(self._num_steps, float(sums.pairs), float(sums.tokens)) if sums else _Counts(0, 0.0, 0.0)


class _Counts(NamedTuple):
  """Of the steps of a window."""

  steps: int
  pairs: float
  tokens: float
