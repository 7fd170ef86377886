"""Conversion of other record files to the native format: any adapter's, and the USR dialogues'.

The USR format (Mehri and Eskenazi 2020, as stored by UniEval) is a row per response,
`{"source": dialogue, "context": knowledge, "system_output": response, "scores": {dimension: number}}`; the
rows with the same dialogue and knowledge make a record, wherever they stand. None of its responses is chosen.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from amopo_jax.data.adapters import ADAPTERS
from amopo_jax.data.fields import Row, as_scores, as_text, field
from amopo_jax.data.records import Message, Record, Response
from amopo_jax.data.skips import SkipReason
from amopo_jax.data.sources import Rows, open_rows, open_source
from amopo_jax.types import InputError

FORMATS = ("usr", *ADAPTERS)
"""What can be converted."""

_NO_KNOWLEDGE = "_nofact"


class Converted(NamedTuple):
  """What a conversion did.

  Attributes:
    num_records: written.
    num_skipped: left out.
    skip_reasons: why, and how often.
  """

  num_records: int
  num_skipped: int
  skip_reasons: tuple[SkipReason, ...]


def convert(path: str, *, format: str, out: Path, on_error: str = "raise") -> Converted:
  """Writes the records of a file as native JSON Lines.

  Args:
    path: as for `open_source`.
    format: one of FORMATS.
    out: the file to write; it appears when it is complete.
    on_error: what becomes of a bad record: raise, or skip and count.

  Returns:
    How many records were written, and how many skipped.

  Raises:
    InputError: `out` exists, unknown format, or a bad record.
  """
  if out.exists():
    raise InputError(f"{out}: exists already; name another file")
  if format not in FORMATS:
    raise InputError(f"format: unknown name '{format}'; choose one of {', '.join(FORMATS)}")
  if format == "usr" and on_error != "raise":
    raise InputError("on_error: rows of the USR format belong together and are not skipped; mend the file")
  source = None if format == "usr" else open_source(path, format=format, on_error=on_error)
  partial = out.with_name(f"{out.name}.{os.getpid()}.partial")
  try:
    with open(partial, "w", encoding="utf-8") as file:
      count = 0
      for record in _usr_file(path) if source is None else (source[number] for number in range(len(source))):
        file.write(json.dumps(to_native(record), ensure_ascii=False) + "\n")
        count += 1
    partial.replace(out)
  except OSError as error:
    raise InputError(f"{out}: cannot be written ({error.strerror}); check the folder and its space") from None
  finally:
    partial.unlink(missing_ok=True)
  return Converted(count, *(source.skipped, source.skip_reasons) if source else (0, ()))


def to_native(record: Record) -> dict:
  """A record as an object of the native format; the `native` adapter reads it back."""
  row = {
    "prompt": [{"role": message.role, "content": message.content} for message in record.prompt],
    "responses": [{"content": response.content, "scores": dict(response.scores)} for response in record.responses],
  }
  chosen = {} if record.chosen is None else {"chosen": record.chosen}
  return row | chosen | ({"wanted": dict(record.wanted)} if record.wanted else {})


def _usr_file(path: str) -> Iterator[Record]:
  return (record for rows in open_rows(path) for record in usr_records(rows))


def usr_records(rows: Rows) -> Iterator[Record]:
  """Groups the rows of a USR file by dialogue, in the order of their first appearance.

  Args:
    rows: one row per response.

  Yields:
    One record per dialogue, of all its responses.

  Raises:
    InputError: a row without one of the fields, or what `Record` refuses (a dialogue with one response).
  """
  groups: dict[tuple[str, str], list[int]] = {}
  for number in range(len(rows)):
    row, origin = rows[number], rows.origin(number)
    source = as_text(field(row, "source", origin), "'source'", origin)
    knowledge = as_text(field(row, "context", origin), "'context'", origin)
    groups.setdefault((source, knowledge), []).append(number)
  for (source, knowledge), members in groups.items():
    responses = tuple(_usr_response(rows[number], rows.origin(number)) for number in members)
    yield Record(_usr_prompt(source, knowledge), responses, None, rows.origin(members[0]))


def _usr_response(row: Row, origin: str) -> Response:
  output = as_text(field(row, "system_output", origin), "'system_output'", origin)
  return Response(output.strip(), as_scores(field(row, "scores", origin), origin))


def _usr_prompt(source: str, knowledge: str) -> tuple[Message, ...]:
  """A turn per line, the last one the user's; the knowledge is the system message."""
  turns = [turn.strip() for turn in source.splitlines() if turn.strip()]
  roles = ["user" if (len(turns) - place) % 2 else "assistant" for place in range(len(turns))]
  dialogue = tuple(Message(role, turn) for role, turn in zip(roles, turns, strict=True))
  fact = knowledge.strip()
  return dialogue if fact in ("", _NO_KNOWLEDGE) else (Message("system", fact), *dialogue)
