"""Prompts without responses: what is to be answered."""

from pathlib import Path
from typing import NamedTuple

from amopo_jax.data.fields import as_prompt, field
from amopo_jax.data.records import Message, check_prompt
from amopo_jax.data.sources import open_rows, open_source
from amopo_jax.types import InputError


class Prompt(NamedTuple):
  """What is to be answered.

  Attributes:
    messages: the dialogue so far; the last message is the user's.
    origin: where it came from, "file:line".
  """

  messages: tuple[Message, ...]
  origin: str


def read_prompts(path: str | Path, *, format: str) -> list[Prompt]:
  """Reads all prompts of a file.

  Args:
    path: as `sources.open_source` takes it.
    format: a name of `adapters.ADAPTERS`, whose responses are left alone; of "native" rows `prompt` alone is looked
      at, so that they need not have responses.

  Raises:
    InputError: no such file or format, no prompts, or one that is none.
  """
  if format != "native":
    source = open_source(path, format=format)
    return [Prompt(source[number].prompt, source.origin(number)) for number in range(len(source))]
  found = []
  for part in open_rows(str(path)):
    for number in range(len(part)):
      origin = part.origin(number)
      messages = as_prompt(field(part[number], "prompt", origin), origin)
      check_prompt(messages, origin)
      found.append(Prompt(messages, origin))
  if not found:
    raise InputError(f"{path}: no prompts; is the file empty?")
  return found
