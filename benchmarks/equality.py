"""Before anything is timed: do all contenders compute the same?

Contenders of the AMoPO loss are compared with the first of them: the loss of the given weights, which shows that they
see the same tokens and the same model; the length of the first gradient; and the loss after one update, which shows
that every gradient has the same sign: AdamW's first update hardly knows its size. The others train on a loss of their
own; it is computed again from the log-probabilities of the first contender that tells them, by the formula of their
paper.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.contenders import Contender
from benchmarks.peers.serve import Job
from benchmarks.rounds import Check

TOLERANCE = {"float32": 5e-5, "bfloat16": 2e-2}
"""Largest relative difference; float32 rounds in another order in every library."""

ORPO_WEIGHT = 0.1
"""λ of Tunix's default."""


class Verdict(NamedTuple):
  """One contender's losses.

  Attributes:
    losses: of the first two steps.
    expected: the reference's loss, or the contender's own from the reference's log-probabilities; NaN: unknown.
    expected_next: the same after one update; NaN for a loss of its own.
    grad_norms: length of the first gradient, the contender's and the reference's; NaN: unknown.
    is_equal: within the tolerance; of the reference itself too.
    is_checked: whether there was anything to compare with.
  """

  losses: tuple[float, float]
  expected: float
  expected_next: float
  grad_norms: tuple[float, float]
  is_equal: bool
  is_checked: bool

  @property
  def word(self) -> str:
    """For the table."""
    return "unchecked" if not self.is_checked else "yes" if self.is_equal else "NO"


def compare(contenders: Mapping[str, Contender], checks: Mapping[str, Check], job: Job) -> dict[str, Verdict]:
  """A verdict on each.

  Args:
    contenders: who.
    checks: their first steps.
    job: for the pairs, the type, beta and gamma.
  """
  amopo = [name for name in checks if contenders[name].loss == "amopo"]
  tellers = (check.steps[0]["mean_logps"] for check in checks.values())
  logps = next((np.array(told).reshape(-1, 2) for told in tellers if told), None)
  lengths = np.array([len(response) for _, response in job.pairs.sequences], float).reshape(-1, 2)
  found = {}
  for name, check in checks.items():
    losses = tuple(step["loss"] for step in check.steps)
    expected, norms = (np.nan, np.nan), (np.nan, np.nan)
    if contenders[name].loss == "amopo":
      expected = tuple(step["loss"] for step in checks[amopo[0]].steps)
      norms = _grad_norm(check), _grad_norm(checks[amopo[0]])
    elif logps is not None:
      expected = (own_loss(contenders[name].loss, logps, lengths, job), np.nan)
    is_equal = _are_close((*losses, norms[0]), (*expected, norms[1]), TOLERANCE[job.dtype])
    is_checked = not np.isnan(expected[0])
    found[name] = Verdict(losses, *expected, norms, is_equal and is_checked, is_checked)
  return found


def own_loss(kind: str, mean_logps: np.ndarray, lengths: np.ndarray, job: Job) -> float:
  """A peer's loss from mean log-probabilities.

      simpo   mean of −log σ(β (avg_w − avg_l) − γ)
      orpo    mean of −avg_w − λ log σ(log odds_w − log odds_l), with Tunix's odds of the whole response

  Args:
    kind: simpo or orpo.
    mean_logps: [rows, 2], chosen and rejected.
    lengths: tokens of each, [rows, 2].
    job: for beta and gamma.
  """
  chosen, rejected = mean_logps[:, 0], mean_logps[:, 1]
  if kind == "simpo":
    return float(np.mean(np.logaddexp(0, job.target_margin - job.beta * (chosen - rejected))))
  sums = mean_logps * lengths
  log_odds = sums - np.log1p(-np.exp(sums))
  return float(np.mean(-chosen + ORPO_WEIGHT * np.logaddexp(0, log_odds[:, 1] - log_odds[:, 0])))


def _grad_norm(check: Check) -> float:
  told = check.steps[0].get("grad_norm")
  return np.nan if told is None else told


def _are_close(losses: Sequence[float], expected: Sequence[float], tolerance: float) -> bool:
  known = [(x, y) for x, y in zip(losses, expected, strict=True) if not np.isnan(y)]
  return all(abs(x - y) <= tolerance * abs(y) for x, y in known)
