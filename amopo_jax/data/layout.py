"""Which of a pair's 2K sequences are laid out: those that the objective looks at, so that the others cost nothing.

A term that a tie policy drops has no gradient, whatever its sequences hold; supervised learning looks at chosen
responses alone; and a step may look at a few of the contexts only, drawn anew in every epoch.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool

from amopo_jax.data.encoded import EncodedPair
from amopo_jax.types import CHOSEN, REJECTED, InputError

WHERE: dict[str, Callable[[EncodedPair], Bool[np.ndarray, "K"]]] = {
  "all": lambda pair: np.ones(len(pair.prompts), bool),
  "none": lambda pair: np.zeros(len(pair.prompts), bool),
  "agreeing": lambda pair: pair.is_ordered,
  "decided": lambda pair: pair.score_gap != 0,
}
"""Contexts by name: those whose dimension prefers the chosen response, those whose scores differ."""


@dataclasses.dataclass(frozen=True)
class Layout:
  """What is laid out of a pair.

  Attributes:
    chosen, rejected: in which contexts the response is, a key of WHERE.
    contexts: at most so many contexts of a pair, drawn anew each time that it is read; 0: all.

  Raises:
    InputError: no such contexts.
  """

  chosen: str = "all"
  rejected: str = "all"
  contexts: int = 0

  def __post_init__(self):
    for name in (self.chosen, self.rejected):
      if name not in WHERE:
        raise InputError(f"layout: unknown contexts '{name}'; choose one of {', '.join(WHERE)}")

  def __call__(self, pair: EncodedPair) -> EncodedPair:
    """The pair with what is laid out of it: where that is nothing, one sequence, as rows hold no empty pair."""
    laid_out = np.stack([WHERE[self.chosen](pair), WHERE[self.rejected](pair)], axis=1)
    if not laid_out.any():
      laid_out[0, CHOSEN] = True
    return dataclasses.replace(pair, laid_out=laid_out)

  @property
  def draw(self) -> Callable[[EncodedPair, np.random.Generator], EncodedPair]:
    """(pair, its random numbers) -> the pair in `contexts` of its contexts."""
    return functools.partial(_draw, count=self.contexts)


EVERYTHING = Layout()


def _draw(pair: EncodedPair, rng: np.random.Generator, *, count: int) -> EncodedPair:
  """Of the contexts in which both responses are laid out, so that they are compared; else of those with one of them."""
  laid_out = pair.is_laid_out
  both = laid_out[:, CHOSEN] & laid_out[:, REJECTED]
  candidates = np.flatnonzero(both if both.any() else laid_out.any(axis=1))
  drawn = rng.permutation(candidates)[:count]
  return dataclasses.replace(pair, laid_out=laid_out & np.isin(np.arange(len(laid_out)), drawn)[:, None])
