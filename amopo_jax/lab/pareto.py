"""Trade-offs between dimensions: which points nobody beats, and how much of the space they dominate."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64

Points = Float64[np.ndarray, "N D"]
"""N points of D scores; more is better in every one."""


def front(points: Points) -> Bool[np.ndarray, " N"]:
  """Whether no other point is at least as good in every dimension and better in one."""
  no_worse = np.all(points[None] >= points[:, None], -1)
  better = np.any(points[None] > points[:, None], -1)
  return ~np.any(no_worse & better, 1)


def hypervolume(points: Points, worst: Sequence[float]) -> float:
  """Volume of what is dominated by a point and dominates `worst`, in score ** D.

  By slices along the last dimension: exact, in time N ** D at worst, which is nothing for the dozens of points of a
  study.

  Args:
    points: a dimension of a point below `worst` makes it count for nothing.
    worst: one score per dimension.
  """
  reach = points - np.asarray(worst, np.float64)
  return _volume(reach[np.all(reach > 0, 1)])


def _volume(reach: Points) -> float:
  if not len(reach):
    return 0.0
  if reach.shape[1] == 1:
    return float(reach.max())
  total, below = 0.0, 0.0
  for level in np.unique(reach[:, -1]):
    total += (level - below) * _volume(reach[reach[:, -1] >= level, :-1])
    below = level
  return float(total)
