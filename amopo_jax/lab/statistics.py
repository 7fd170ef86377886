"""What a handful of seeds allows one to say: means with 95 % intervals, of values and of differences seed by seed."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95


class Interval(NamedTuple):
  """A mean and how far it may be off.

  Attributes:
    mean: of the values.
    half: half the width of the 95 % interval by Student's t; NaN of fewer than two values.
    count: of the values.
  """

  mean: float
  half: float
  count: int

  @property
  def low(self) -> float:
    """Lower end."""
    return self.mean - self.half

  @property
  def high(self) -> float:
    """Upper end."""
    return self.mean + self.half

  def __str__(self) -> str:
    return f"{self.mean:.2f}" if np.isnan(self.half) else f"{self.mean:.2f} ± {self.half:.2f}"


def interval(values: Sequence[float]) -> Interval:
  """The interval of a mean.

  Args:
    values: one per seed, at least one.
  """
  array = np.asarray(values, np.float64)
  half = float("nan")
  if array.size > 1:
    half = float(stats.t.ppf((1 + LEVEL) / 2, array.size - 1) * array.std(ddof=1) / np.sqrt(array.size))
  return Interval(float(array.mean()), half, array.size)


def difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Interval | None:
  """The interval of ours − theirs over the seeds that both have; None where they share none.

  Args:
    ours, theirs: seed -> value. Runs of a seed share their start and their data, so that pairing takes that noise out.
  """
  both = [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]
  return interval(both) if both else None
