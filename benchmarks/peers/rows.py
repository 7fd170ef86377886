"""The sequences as the peers take them: rows of a prompt and two responses, every array padded to one length.

A peer knows no contexts: a pair in K contexts is K rows, 2K sequences.
"""

from typing import NamedTuple

import numpy as np

from benchmarks.peers.pairs import Pairs
from benchmarks.peers.serve import Counts, padded

PAD = 0


class Rows(NamedTuple):
  """Token ids [rows, length] and their masks, 1 where there is a token.

  Attributes:
    prompt, prompt_mask: padded on the left.
    chosen, chosen_mask, rejected, rejected_mask: padded on the right, both to the longest response.
  """

  prompt: np.ndarray
  prompt_mask: np.ndarray
  chosen: np.ndarray
  chosen_mask: np.ndarray
  rejected: np.ndarray
  rejected_mask: np.ndarray

  @property
  def length(self) -> int:
    """Of a padded sequence."""
    return self.prompt.shape[1] + self.chosen.shape[1]

  def counts(self, *, head_tokens: int | None = None) -> Counts:
    """What a step over all rows computes; `head_tokens` of each sequence, where it is not all of them."""
    sequences = 2 * len(self.prompt)
    return padded([self.length] * sequences, self.length, sequences * (head_tokens or self.length))

  def micro_batches(self, count: int) -> "list[Rows]":
    """Equal parts, in order."""
    return [Rows(*part) for part in zip(*(np.split(field, count) for field in self), strict=True)]


def make_rows(pairs: Pairs) -> Rows:
  """All rows, prompts and responses padded to the longest of the batch: static shapes, as tight as they get."""
  prompts = [prompt for prompts in pairs.prompts for prompt in prompts]
  contexts = len(pairs.prompts[0])
  chosen, rejected = ([two[member] for two in pairs.responses for _ in range(contexts)] for member in (0, 1))
  longest = max(map(len, chosen + rejected))
  return Rows(*_pad(prompts, max(map(len, prompts)), left=True), *_pad(chosen, longest), *_pad(rejected, longest))


def _pad(arrays: list[np.ndarray], length: int, *, left: bool = False) -> tuple[np.ndarray, np.ndarray]:
  ids, mask = np.full((2, len(arrays), length), PAD, np.int32)
  for row, array in enumerate(arrays):
    place = slice(length - len(array), length) if left else slice(len(array))
    ids[row, place], mask[row, place] = array, 1
  return ids, mask
