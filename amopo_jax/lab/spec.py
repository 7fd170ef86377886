"""The dials of the synthetic world."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from amopo_jax.lab.domains import DOMAINS
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
    noise: chance, in [0, 1], that a recorded score of a training record is replaced by one drawn evenly from 0 to 4;
      which response is the chosen one follows the recorded scores.
    num_items: smallest and largest number of words to edit, from 2 to 6.
    dimensions: how many scores a response has, from 2 to 6: the first ones of `graders.GRADERS`.
    turns: questions of a dialogue, from 1 to 3, the last of which is to be answered; with more than one each says
      which dimension matters now, another one than before, and that one counts `WANTED` times in the choice.
    domain: what the questions are about, a key of `domains.DOMAINS`.
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
  domain: str = "text"
  dimensions: int = 3
  turns: int = 1

  def __post_init__(self):
    shares = {"tied": self.tied, "inverted": self.inverted, "conflict": self.conflict, "noise": self.noise}
    for name, share in (shares | {"tied + inverted": self.tied + self.inverted}).items():
      if not 0 <= share <= 1:
        raise InputError(f"world: {name} is {share:g}, which is no share; keep it within 0 to 1")
    if self.domain not in DOMAINS:
      raise InputError(f"world: domain {self.domain!r} is unknown; choose one of {', '.join(DOMAINS)}")
    _check_within("dimensions", (self.dimensions, self.dimensions), 2, 6)
    _check_within("turns", (self.turns, self.turns), 1, 3)
    _check_within("num_items", self.num_items, 2, 6)
    _check_within("slack", self.slack, 0, 3)


def read_dials(texts: Sequence[str]) -> WorldSpec:
  """The default world with some dials turned.

  Args:
    texts: each `name=value`, a range as `low,high`.

  Raises:
    InputError: no such dial, or a value that it cannot have.
  """
  types = {field.name: type(field.default) for field in dataclasses.fields(WorldSpec)}
  found: dict[str, Any] = {}
  for text in texts:
    name, _, value = text.partition("=")
    if name not in types:
      raise InputError(f"--dial={text}: no such dial; choose one of {', '.join(types)}")
    try:
      found[name] = _read_range(value) if types[name] is tuple else types[name](value)
    except ValueError:
      raise InputError(
        f"--dial={text}: not a value of {name}, which is {getattr(DEFAULT_SPEC, name)!r} by default"
      ) from None
  return WorldSpec(**found)


def _read_range(text: str) -> tuple[int, int]:
  low, high = map(int, text.split(","))
  return low, high


def _check_within(name: str, ends: tuple[int, int], low: int, high: int):
  if not low <= ends[0] <= ends[1] <= high:
    raise InputError(f"world: {name} spans {ends[0]} to {ends[1]}; keep it, rising, within {low} to {high}")


DEFAULT_SPEC = WorldSpec()
"""Moderate difficulties: the world of the quickstart."""
