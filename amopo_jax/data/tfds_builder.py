"""A TFDS data set out of HelpSteer2-style files, prepared as array_record without TensorFlow.

    build_tfds({"train": "train.jsonl.gz", "validation": "validation.jsonl.gz"}, data_dir, name="my_scores")
    open_source("tfds:my_scores:validation", format="helpsteer2", cache_dir=data_dir)

The rows keep their order: TFDS shuffles by default, which would part the two rows of a prompt.
"""

import re
import types
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from amopo_jax.data.adapters import ADAPTERS
from amopo_jax.data.fields import Row, as_score
from amopo_jax.data.sources import RecordSource, Rows, open_rows
from amopo_jax.types import InputError

_TEXTS = ("prompt", "response")


class _HelpSteerStyle(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """One example per row: prompt, response, and a float32 per dimension."""

  VERSION = tfds.core.Version("1.0.0")
  url_infos = None  # nothing to download; TFDS would look for checksums through a package it does not require

  def __init__(self, *, splits: Mapping[str, list[Rows]], dimensions: tuple[str, ...], data_dir: Path):
    self._rows, self._dimensions = splits, dimensions
    super().__init__(data_dir=data_dir, file_format="array_record")

  def _info(self) -> tfds.core.DatasetInfo:
    texts = {name: tfds.features.Text() for name in _TEXTS}
    features = tfds.features.FeaturesDict({**texts, **dict.fromkeys(self._dimensions, np.float32)})
    return tfds.core.DatasetInfo(
      builder=self,
      description="Prompts, two scored responses each, in consecutive rows (HelpSteer2 style).",
      features=features,
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
    return {split: self._generate_examples(parts) for split, parts in self._rows.items()}

  def _generate_examples(self, parts: list[Rows]) -> Iterator[tuple[int, Row]]:
    rows = ((part[number], part.origin(number)) for part in parts for number in range(len(part)))
    for key, (row, origin) in enumerate(rows):
      scores = {name: as_score(row[name], name, origin) for name in self._dimensions}
      yield key, {**{name: row[name] for name in _TEXTS}, **scores}


def _named(name: str) -> type[_HelpSteerStyle]:
  """The builder under a data set's name, which TFDS keeps on the class."""
  options = {"skip_registration": True}
  return types.new_class("Named", (_HelpSteerStyle,), options, lambda body: body.update(name=name))


def build_tfds(path: str | Mapping[str, str], data_dir: str | Path, *, name: str) -> int:
  """Prepares a TFDS data set from HelpSteer2-style rows; `tfds:NAME` then reads it.

  Args:
    path: the file (as for `open_source`) of the split train, or split -> file.
    data_dir: the TFDS data folder to write below.
    name: name of the data set: lower case, digits, underscores.

  Returns:
    Number of records (two rows each), all splits together.

  Raises:
    InputError: a bad row, rows with different dimensions, a bad name, or a data set of that name.
  """
  if not re.fullmatch("[a-z][a-z0-9_]*", name):
    raise InputError(f"name: '{name}' cannot name a TFDS data set; use lower case, digits and underscores")
  paths = {"train": path} if isinstance(path, str) else path
  splits = {split: open_rows(file) for split, file in paths.items()}
  first = next(iter(splits.values()))[0]
  dimensions = tuple(key for key in first[0] if key not in _TEXTS)
  count = sum(_checked(parts, dimensions) for parts in splits.values())
  builder = _named(name)(splits=splits, dimensions=dimensions, data_dir=Path(data_dir))
  if Path(builder.data_path).exists():
    raise InputError(f"{builder.data_path}: exists already; name another data set or remove it")
  builder.download_and_prepare()
  return count


def _checked(parts: list[Rows], dimensions: tuple[str, ...]) -> int:
  """Reads every record once, because TFDS would wrap an error into its own."""
  for part in parts:
    for number in range(len(part)):
      if set(part[number]) != {*_TEXTS, *dimensions}:
        raise InputError(
          f"{part.origin(number)}: its fields are {', '.join(part[number])}; "
          f"the first row has {', '.join((*_TEXTS, *dimensions))}"
        )
  source = RecordSource(parts, ADAPTERS["helpsteer2"])
  return sum(1 for number in range(len(source)) if source[number])
