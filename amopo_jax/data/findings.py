"""What one reading of every record brings to light, here or spread over processes."""

import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from amopo_jax.data.contexts import order
from amopo_jax.data.encode import fits_by_bytes
from amopo_jax.data.encoded import Dropped
from amopo_jax.data.recipe import Recipe
from amopo_jax.data.records import Pair
from amopo_jax.types import InputError

_CHUNK = 256
"""Records that a process takes at a time."""


class FoundPair(NamedTuple):
  """A pair and what will become of it.

  Attributes:
    record: number of the record in the source.
    number: number of the pair in the record.
    score_gap: see `contexts.order`.
    is_cut: it will lose tokens.
    is_dropped: it is too long and will be left out.
    content: CRC-32 of its texts and scores.
  """

  record: int
  number: int
  score_gap: Float32[np.ndarray, "K"]
  is_cut: bool
  is_dropped: bool
  content: int


class FoundRecord(NamedTuple):
  """The pairs of a record, or why it is skipped."""

  pairs: list[FoundPair]
  error: str | None


def find_pairs(recipe: Recipe, num_workers: int) -> Iterator[FoundRecord]:
  """Reads every record once and looks at its pairs, in order; only pairs that may be too long are tokenised.

  Args:
    recipe: how records become pairs.
    num_workers: processes; 0 stays in this one.

  Yields:
    One finding per record.

  Raises:
    InputError: a bad record or pair, unless `on_error` is "skip".
  """
  count = len(recipe.source)
  if num_workers == 0:
    yield from (_look_at(recipe, record) for record in range(count))
    return
  chunks = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
  with ProcessPoolExecutor(num_workers, get_context("spawn"), _set_recipe, (recipe,)) as pool:
    for found in pool.map(_look_at_chunk, chunks):
      yield from found


_worker_recipe: list[Recipe] = []
"""The recipe of a surveying process, sent to it once."""


def _set_recipe(recipe: Recipe):
  _worker_recipe.append(recipe)


def _look_at_chunk(records: Iterable[int]) -> list[FoundRecord]:
  return [_look_at(_worker_recipe[0], record) for record in records]


def _look_at(recipe: Recipe, record: int) -> FoundRecord:
  try:
    pairs = recipe.pairs(record)
    return FoundRecord([_look_at_pair(recipe, record, number, pair) for number, pair in enumerate(pairs)], None)
  except InputError as error:
    if recipe.on_error == "raise":
      raise
    return FoundRecord([], str(error))


def _look_at_pair(recipe: Recipe, record: int, number: int, pair: Pair) -> FoundPair:
  _, gaps = order(pair, recipe.contexts)
  surely_fine = min(recipe.limits.max_length, recipe.pack.safe_length)
  content = zlib.crc32(repr((pair.prompt, pair.chosen, pair.rejected, pair.wanted)).encode())
  if fits_by_bytes(pair, recipe.contexts, recipe.tokenizer, surely_fine):
    return FoundPair(record, number, gaps, is_cut=False, is_dropped=False, content=content)
  encoded = recipe.encode(pair)
  is_dropped = isinstance(encoded, Dropped)
  return FoundPair(record, number, gaps, not is_dropped and encoded.num_cut > 0, is_dropped, content)
