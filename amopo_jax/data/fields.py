"""Reading the fields of a raw row, with an error that says which field of which row is wrong, and how."""

from collections.abc import Collection, Mapping

from amopo_jax.data.records import Message
from amopo_jax.types import InputError

Row = Mapping[str, object]
"""One decoded JSON object, or one example of a TFDS data set."""


def field(row: Row, name: str, origin: str) -> object:
  """The value of a field that must be there."""
  if name not in row:
    raise InputError(f"{origin}: no field '{name}' (found: {', '.join(row) or 'nothing'}); is it the right format?")
  return row[name]


def refuse_others(row: Row, known: Collection[str], what: str, origin: str):
  """Refuses an object with a field that nobody reads: it may be a typing error of one that is read."""
  unknown = row.keys() - set(known)
  if unknown:
    raise InputError(
      f"{origin}: unknown field {min(unknown)!r} in {what}; its fields are {', '.join(known)} "
      "(put what is not read under the row's 'metadata')"
    )


def as_text(value: object, what: str, origin: str) -> str:
  """The value as text that UTF-8 can write, refused if it is anything else."""
  if not isinstance(value, str):
    raise InputError(f"{origin}: {what} is {_kind(value)}; it must be a text")
  try:
    value.encode()
  except UnicodeEncodeError as error:
    half = ascii(value[error.start])
    raise InputError(f"{origin}: {what} has the lone surrogate {half}; remove it or write the whole pair") from None
  return value


def as_object(value: object, what: str, origin: str) -> Row:
  """The value as a JSON object, refused if it is anything else."""
  if not isinstance(value, Mapping):
    raise InputError(f"{origin}: {what} is {_kind(value)}; it must be an object")
  return value


def as_list(value: object, what: str, origin: str) -> list:
  """The value as a list, refused if it is anything else."""
  if not isinstance(value, list):
    raise InputError(f"{origin}: {what} is {_kind(value)}; it must be a list")
  return value


def as_score(value: object, dimension: str, origin: str) -> float:
  """The value as a number; numeric strings count, as in the released set. `Record` refuses NaN and inf."""
  what = f"the score {as_text(dimension, 'the name of a score', origin)!r}"
  if isinstance(value, bool) or not isinstance(value, int | float | str):
    raise InputError(f"{origin}: {what} is {_kind(value)}; it must be a number")
  try:
    return float(value)
  except ValueError:
    raise InputError(f"{origin}: '{dimension}' is {value!r}; a score must be a number") from None
  except OverflowError:
    raise InputError(f"{origin}: {what} is beyond the range of floats; correct it") from None


def as_scores(value: object, origin: str) -> dict[str, float]:
  """The value as a mapping from dimension to score."""
  return {name: as_score(score, name, origin) for name, score in as_object(value, "'scores'", origin).items()}


def as_message(value: object, origin: str) -> Message:
  """The value as a `{"role", "content"}` message; `Record` checks the role."""
  message = as_object(value, "a message", origin)
  return Message(
    as_text(field(message, "role", origin), "a role", origin),
    as_text(field(message, "content", origin), "the content of a message", origin),
  )


def as_prompt(value: object, origin: str) -> tuple[Message, ...]:
  """The value as a dialogue: a text is one user message, a list is messages."""
  if isinstance(value, str):
    return (Message("user", as_text(value, "the prompt", origin)),)
  return tuple(as_message(message, origin) for message in as_list(value, "the prompt", origin))


def _kind(value: object) -> str:
  if value is None:
    return "null"
  return {bool: "a truth value", dict: "an object", list: "a list", str: "a text"}.get(type(value), "a number")
