"""Random access to the rows of a prepared TFDS data set (array_record), without TensorFlow."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from amopo_jax.data.fields import Row, as_object
from amopo_jax.types import InputError


class TfdsRows:
  """The examples of one split, decoded to plain Python values.

  Args:
    path: `tfds:NAME[:SPLIT]`; NAME may have a config and a version as in TFDS (`name/config`), SPLIT may be a
      slice (`train[:90%]`); `train` if left out.
    data_dir: TFDS data folder; TFDS_DATA_DIR, then TFDS's own default, if None.

  Raises:
    InputError: no such data set, split, or a preparation in a format without random access.
  """

  def __init__(self, path: str, data_dir: Path | None = None):
    self.name = path
    _, name, split = [*path.split(":", maxsplit=2), "train"][:3]
    import tensorflow_datasets as tfds  # here, not above: it takes seconds, and few runs read TFDS

    try:
      examples = tfds.data_source(name, split=split, data_dir=data_dir, download=False)
    except (
      tfds.core.DatasetNotFoundError,
      OSError,
      ValueError,
      NotImplementedError,
      AssertionError,
    ) as error:
      reason = str(error).strip().splitlines()[0]
      raise InputError(
        f"{path}: no prepared array_record data set ({reason}); build it first (docs/data.md), "
        "or set TFDS_DATA_DIR to where it is"
      ) from None
    self._examples = cast(Sequence[Row], examples)  # one split, therefore no tree of them

  def __len__(self) -> int:
    return len(self._examples)

  def __getitem__(self, number: int) -> Row:
    return as_object(_plain(self._examples[number]), "the example", self.origin(number))

  def origin(self, number: int) -> str:
    """Where a row is, "tfds:NAME:SPLIT:number"."""
    return f"{self.name}:{number}"


def _plain(value: object) -> object:
  """Bytes become text, arrays lists, numpy scalars Python numbers."""
  if isinstance(value, dict):
    return {name: _plain(entry) for name, entry in value.items()}
  if isinstance(value, list | tuple):
    return [_plain(entry) for entry in value]
  if isinstance(value, np.ndarray | np.generic):
    return _plain(value.tolist())
  return value.decode() if isinstance(value, bytes) else value
