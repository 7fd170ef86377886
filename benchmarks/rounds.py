"""Paired rounds: in each, every contender takes one turn, so that a slow minute of the machine is shared.

A turn is one step on the whole machine while all others wait for their pipe. Where the memory of all contenders does
not fit at once, a turn is a process: start, one step to warm up, one step that is timed, exit.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

from benchmarks.contenders import Contender, Worker, WorkerFailure
from benchmarks.environments import InstallFailure

Start = Callable[[Contender], Worker]
Say = Callable[[str], None]
CHECKED_STEPS = 2
"""Steps of the check: the first loss is of the given weights, the second of the updated ones."""

ROOM = 0.8
"""Share of the free memory that contenders which live side by side may need."""


class Check(NamedTuple):
  """What a contender did alone, before anything is timed.

  Attributes:
    counts: of its step.
    steps: its answers.
  """

  counts: Any
  steps: list[dict[str, Any]]

  @property
  def peak_bytes(self) -> int:
    """Largest memory of the process."""
    return max(step["peak_bytes"] for step in self.steps)


def check_all(contenders: Mapping[str, Contender], start: Start, say: Say) -> tuple[dict[str, Check], dict[str, str]]:
  """Two steps of each, one contender at a time.

  Returns:
    What they did, and the reasons of those that could not.
  """
  checks, failures = {}, {}
  for name, contender in contenders.items():
    try:
      checks[name] = _check(start, contender)
      say(f"checked {name}: {checks[name].steps[-1]['seconds']:.2f} s, {checks[name].peak_bytes / 1e9:.1f} GB")
    except (InstallFailure, WorkerFailure) as error:
      failures[name] = str(error)
      say(f"{name} failed: {error}")
  return checks, failures


def fit_together(checks: Mapping[str, Check], free_bytes: int) -> bool:
  """Whether all contenders may live at the same time."""
  return sum(check.peak_bytes for check in checks.values()) <= ROOM * free_bytes


def timed_rounds(
  contenders: Mapping[str, Contender], start: Start, say: Say, *, rounds: int, together: bool
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, str]]:
  """The rounds; the order turns by one place in each.

  Args:
    contenders: those that passed the check.
    start: makes a worker.
    say: progress.
    rounds: how many.
    together: all live side by side, or each turn is a process.

  Returns:
    The answers of each, one per round, and the reasons of those that failed in between.
  """
  answers: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
  failures: dict[str, str] = {}
  with ExitStack() as stack:
    take = _living(contenders, start, stack) if together else lambda name: _process_turn(start, contenders[name])
    for number in range(rounds):
      names = [name for name in contenders if name not in failures]
      for name in names[number % len(names) :] + names[: number % len(names)] if names else []:
        try:
          answers[name].append(take(name))
          say(f"round {number + 1} {name}: {answers[name][-1]['seconds']:.2f} s")
        except (InstallFailure, WorkerFailure) as error:
          failures[name] = str(error)
          say(f"{name} failed: {error}")
  return answers, failures


def _living(contenders: Mapping[str, Contender], start: Start, stack: ExitStack) -> Callable[[str], dict[str, Any]]:
  """Turns of workers that stay; one that is asked for the first time warms up."""
  workers: dict[str, Worker] = {}

  def take(name: str) -> dict[str, Any]:
    if name not in workers:
      workers[name] = start(contenders[name])
      stack.callback(workers[name].close)
      _warm_up(workers[name])
    return workers[name].step()

  return take


def _warm_up(worker: Worker) -> None:
  """Some compile their step a second time, for what the first one returned."""
  for _ in range(CHECKED_STEPS):
    worker.step()


def _process_turn(start: Start, contender: Contender) -> dict[str, Any]:
  worker = start(contender)
  _warm_up(worker)
  answer = worker.step()
  worker.close()
  return answer


def _check(start: Start, contender: Contender) -> Check:
  worker = start(contender)
  steps = [worker.step() for _ in range(CHECKED_STEPS)]
  worker.close()
  return Check(worker.counts, steps)
