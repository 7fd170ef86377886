"""The batch as a file that every contender reads, with NumPy alone: it is also read in the peers' environments."""

from pathlib import Path
from typing import NamedTuple

import numpy as np


class Pairs(NamedTuple):
  """Token ids.

  Attributes:
    prompts: per pair and context.
    responses: per pair, chosen then rejected.
    noise: standard normal draws of the first steps [step, pair, context, member], the same for every contender.
  """

  prompts: list[list[np.ndarray]]
  responses: list[list[np.ndarray]]
  noise: np.ndarray

  @property
  def sequences(self) -> list[tuple[np.ndarray, np.ndarray]]:
    """(prompt, response) of every sequence, by pair, context and member: the axes [B K P], flat."""
    return [
      (prompt, response)
      for prompts, responses in zip(self.prompts, self.responses, strict=True)
      for prompt in prompts
      for response in responses
    ]

  @property
  def shape(self) -> tuple[int, int, int]:
    """Pairs, contexts, members."""
    return len(self.prompts), len(self.prompts[0]), 2


def save(path: Path, pairs: Pairs) -> None:
  """Writes them as one .npz that any NumPy reads."""
  flat = [ids for prompts in pairs.prompts for ids in prompts] + [ids for two in pairs.responses for ids in two]
  lengths = np.array([len(ids) for ids in flat], np.int64)
  np.savez(path, tokens=np.concatenate(flat), lengths=lengths, shape=np.array(pairs.shape), noise=pairs.noise)


def load(path: Path) -> Pairs:
  """Reads what `save` wrote."""
  with np.load(path) as file:
    flat = np.split(file["tokens"], np.cumsum(file["lengths"])[:-1])
    count, contexts, _ = (int(size) for size in file["shape"])
    noise = file["noise"]
  prompts, responses = flat[: count * contexts], flat[count * contexts :]
  by_pair = [prompts[pair * contexts : (pair + 1) * contexts] for pair in range(count)]
  return Pairs(by_pair, [responses[2 * pair : 2 * pair + 2] for pair in range(count)], noise)
