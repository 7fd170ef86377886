"""The dials of the synthetic world."""

import dataclasses

from amopo_jax.types import InputError


@dataclasses.dataclass(frozen=True)
class WorldSpec:
  """What share of the records shows which difficulty.

  Attributes:
    tied: share of records, in [0, 1], whose responses score the same in a dimension at least, while none
      disagrees with the overall choice.
    inverted: share of records, in [0, 1], where a dimension at least prefers the response that was not chosen.
      In the records that are neither, every dimension agrees with the choice.
    conflict: share of questions, in [0, 1], that limit the number of words, so that no response has full marks
      in every dimension.
    noise: chance, in [0, 1], that a recorded score is replaced by one drawn evenly from 0 to 4; which response is the
      chosen one is not touched.
    num_items: smallest and largest number of words to edit, from 2 to 6.
    slack: smallest and largest number of courtesies that fit under such a limit, from 0 to 3.

  Raises:
    InputError: a share or a range outside of what is said here.
  """

  tied: float = 0.3
  inverted: float = 0.25
  conflict: float = 0.4
  noise: float = 0.0
  num_items: tuple[int, int] = (3, 4)
  slack: tuple[int, int] = (1, 3)

  def __post_init__(self):
    shares = {"tied": self.tied, "inverted": self.inverted, "conflict": self.conflict, "noise": self.noise}
    for name, share in (shares | {"tied + inverted": self.tied + self.inverted}).items():
      if not 0 <= share <= 1:
        raise InputError(f"world: {name} is {share:g}, which is no share; keep it within 0 to 1")
    _check_within("num_items", self.num_items, 2, 6)
    _check_within("slack", self.slack, 0, 3)


def _check_within(name: str, ends: tuple[int, int], low: int, high: int):
  if not low <= ends[0] <= ends[1] <= high:
    raise InputError(f"world: {name} spans {ends[0]} to {ends[1]}; keep it, rising, within {low} to {high}")


DEFAULT_SPEC = WorldSpec()
"""Moderate difficulties: the world of the quickstart."""
