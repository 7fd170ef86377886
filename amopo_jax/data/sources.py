"""Record sources: random access to the records of files and TFDS data sets, one at a time.

    source = open_source("train.jsonl", format="native")
    len(source), source[0], source.origin(0)

Nothing but byte offsets is held in memory. A source pickles, so that Grain's worker processes can reopen it.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from amopo_jax.data.adapters import ADAPTERS, Adapter
from amopo_jax.data.fetch import hub_set, local_files
from amopo_jax.data.records import Record
from amopo_jax.data.rows import FileRows
from amopo_jax.data.skips import SkipReason, SkipTally
from amopo_jax.data.tfds_rows import TfdsRows
from amopo_jax.types import InputError

ON_ERROR = ("raise", "skip")
"""What happens to a bad record: an error when it is read, or left out and counted at the opening."""


Rows = FileRows | TfdsRows
"""Random access to decoded rows."""


class RecordSource:
  """Random access to records, a Grain data source.

  Args:
    parts: the rows, file by file; a record never spans two.
    adapter: what makes rows into records.
    on_error: one of ON_ERROR; "skip" reads and checks every record once, here.

  Attributes:
    skipped: number of records left out, 0 with "raise".
    skip_reasons: why, and how often.

  Raises:
    InputError: no records, or a file whose rows do not come out even.
  """

  def __init__(self, parts: Sequence[Rows], adapter: Adapter, on_error: str = "raise"):
    self._parts, self._adapter = tuple(parts), adapter
    counts = [_count_records(part, adapter.rows_per_record) for part in self._parts]
    self._ends = np.cumsum(counts, dtype=np.int64)
    self._numbers = np.arange(sum(counts), dtype=np.int64)
    self.skipped = 0
    self.skip_reasons: tuple[SkipReason, ...] = ()
    if not len(self):
      raise InputError(f"{self._name()}: no records; is the file empty?")
    if on_error == "skip":
      self._leave_out_bad()

  def __len__(self) -> int:
    return len(self._numbers)

  def __getitem__(self, number: int) -> Record:
    part, row = self._locate(number)
    rows = [part[row + place] for place in range(self._adapter.rows_per_record)]
    return self._adapter.parse(rows, part.origin(row))

  def origin(self, number: int) -> str:
    """Where a record comes from, "file:line", without reading it."""
    part, row = self._locate(number)
    return part.origin(row)

  def _locate(self, number: int) -> tuple[Rows, int]:
    record = int(self._numbers[number])
    place = int(np.searchsorted(self._ends, record, side="right"))
    before = int(self._ends[place - 1]) if place else 0
    return self._parts[place], (record - before) * self._adapter.rows_per_record

  def _leave_out_bad(self):
    tally, good = SkipTally(), []
    for number in range(len(self)):
      reason = self._reason_against(number)
      if reason is None:
        good.append(number)
      else:
        tally.add(reason)
    if not good:
      raise InputError(f"{self._name()}: no record without an error: {tally.summary()}")
    self._numbers = np.asarray(good, np.int64)
    self.skipped, self.skip_reasons = tally.total, tally.commonest()

  def _reason_against(self, number: int) -> str | None:
    try:
      self[number]
    except InputError as error:
      return str(error)
    return None

  def _name(self) -> str:
    return ", ".join(part.name for part in self._parts)


def open_source(
  path: str | Path, *, format: str, cache_dir: str | Path | None = None, on_error: str = "raise"
) -> RecordSource:
  """Opens files or a TFDS data set as records.

  Args:
    path: what `fetch.local_files` takes (files, globs, gs://, hf://, known hub names, comma-separated), or
      `tfds:NAME[:SPLIT]` for a prepared TFDS data set.
    format: a name of ADAPTERS; "auto" for a known hub name, which implies it.
    cache_dir: where remote and compressed files are unpacked; below HF_HOME if None. For tfds: its data_dir.
    on_error: one of ON_ERROR.

  Returns:
    The records.

  Raises:
    InputError: unknown format, missing or unreachable file, and what `RecordSource` refuses.
  """
  if on_error not in ON_ERROR:
    raise InputError(f"on_error: unknown value '{on_error}'; choose one of {', '.join(ON_ERROR)}")
  adapter = _adapter(str(path), format)
  cache = None if cache_dir is None else Path(cache_dir)
  return RecordSource(open_rows(str(path), cache), adapter, on_error)


def open_rows(path: str, cache_dir: Path | None = None) -> list[Rows]:
  """The raw rows behind a path, file by file; arguments and errors as `open_source`."""
  if path.startswith("tfds:"):
    return [TfdsRows(path, cache_dir)]
  return [FileRows(file.path, file.name) for file in local_files(path, cache_dir)]


def _adapter(path: str, format: str) -> Adapter:
  if format == "auto":
    known = hub_set(path)
    if known is None:
      raise InputError(f"{path}: its format is not known; name one of {', '.join(ADAPTERS)}")
    format = known.format
  if format not in ADAPTERS:
    raise InputError(f"format: unknown name '{format}'; choose one of {', '.join(ADAPTERS)}")
  return ADAPTERS[format]


def _count_records(part: Rows, rows_per_record: int) -> int:
  if len(part) % rows_per_record:
    raise InputError(
      f"{part.name}: {len(part)} rows, but the format takes {rows_per_record} per record; a row is missing or too many"
    )
  return len(part) // rows_per_record
