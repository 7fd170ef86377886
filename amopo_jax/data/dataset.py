"""Random access to encoded pairs.

Pair i is encoded whenever somebody asks for it, so that nothing but two integers per pair is held in memory, and
resuming needs no stored tokens.
"""

import dataclasses

import numpy as np
from jaxtyping import Int32

from amopo_jax.data.encoded import Dropped, EncodedPair
from amopo_jax.data.layout import Layout
from amopo_jax.data.recipe import Recipe
from amopo_jax.data.records import Pair
from amopo_jax.types import InputError


class PairDataset:
  """Random access to the encoded pairs of a surveyed source.

  Attributes:
    recipe: how they are made.
    table: see `Survey`.
    first: number of the first pair among those of all data sets of a run, where there are several.
  """

  def __init__(self, recipe: Recipe, table: Int32[np.ndarray, "N 2"], first: int = 0):
    self.recipe, self.table, self.first = recipe, table, first

  def __len__(self) -> int:
    return len(self.table)

  def laying_out(self, layout: Layout) -> "PairDataset":
    """The same pairs with other sequences laid out."""
    return PairDataset(dataclasses.replace(self.recipe, layout=layout), self.table, self.first)

  def pair(self, index: int) -> Pair:
    """The texts and scores of a pair, before encoding."""
    record, number = self.table[index]
    return self.recipe.pairs(int(record))[int(number)]

  def __getitem__(self, index: int) -> EncodedPair:
    encoded = self.recipe.encode(self.pair(index), self.first + index)
    if isinstance(encoded, Dropped):
      raise InputError(f"{encoded.origin}: {encoded.reason}; the file has changed since it was surveyed, start again")
    return encoded
