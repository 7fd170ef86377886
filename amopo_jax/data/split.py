"""Held-out pairs: a share of the prompts, so that no prompt is on both sides."""

import hashlib
import json
import math

import numpy as np

from amopo_jax.data.dataset import PairDataset
from amopo_jax.data.records import Message
from amopo_jax.types import InputError


def split_by_prompt(
  dataset: PairDataset, fraction: float, *, seed: int, sides: dict[bytes, bool]
) -> tuple[PairDataset, PairDataset]:
  """Splits a data set by its prompts.

  Args:
    dataset: all pairs of a source.
    fraction: share of its prompts to hold out, rounded up to a whole prompt; in [0, 1).
    seed: of the draw.
    sides: digest of a prompt -> held out, from the sources before, whose prompts keep their side; those of this
      source are added.

  Returns:
    The pairs to train on, and those that are held out.

  Raises:
    InputError: nothing would be left to train on.
  """
  if not fraction:
    return dataset, PairDataset(dataset.recipe, dataset.table[:0])
  records, places = np.unique(dataset.table[:, 0], return_inverse=True)
  digests = [_digest(dataset.recipe.source[int(record)].prompt) for record in records]
  prompts = list(dict.fromkeys(digests))
  order = np.random.default_rng(seed).permutation(len(prompts))
  chosen = {prompts[place] for place in order[: math.ceil(fraction * len(prompts))]}
  is_out = np.asarray([sides.setdefault(digest, digest in chosen) for digest in digests])[places]
  if is_out.all():
    raise InputError("config.data.heldout_fraction: holds out every record; give more data or a smaller fraction")
  return PairDataset(dataset.recipe, dataset.table[~is_out]), PairDataset(dataset.recipe, dataset.table[is_out])


def _digest(prompt: tuple[Message, ...]) -> bytes:
  turns = [(message.role, message.content) for message in prompt]
  return hashlib.blake2b(json.dumps(turns).encode(), digest_size=16).digest()
