"""Parses a verb's flags; whatever is wrong with them, or with the config they name, becomes one line."""

from collections.abc import Sequence

from absl import flags

from amopo_jax.cli.config_errors import explain
from amopo_jax.cli.configs import config_arguments
from amopo_jax.types import InputError


def parse(values: flags.FlagValues, arguments: Sequence[str], *, subjects: Sequence[str] = ()) -> str:
  """Fills in the flags.

  Args:
    values: the verb's flags; they receive what the user gave.
    arguments: all that follows the verb.
    subjects: what may follow the verb without being a flag; one of them must.

  Returns:
    That one; "" where there are none.

  Raises:
    InputError: an unknown flag, a value of the wrong type, a config that fails, something that is not a flag.
  """
  path, overrides = config_arguments(arguments)
  try:
    rest = values(["amopo", *arguments])[1:]
  except flags.UnrecognizedFlagError as error:
    raise InputError(f"{error} (--help lists the flags)") from error
  except flags.Error as error:
    raise InputError(explain(error, path, overrides) if path else str(error)) from error
  except Exception as error:  # a config is a program, and may raise anything
    raise InputError(explain(error, path, overrides) if path else str(error)) from error
  if subjects:
    _check_subject(rest, subjects)
  elif rest:
    raise InputError(f"unexpected argument {rest[0]!r}; flags are written --name=value")
  return rest[0] if subjects else ""


def require(values: flags.FlagValues, *names: str) -> None:
  """Refuses to go on without these flags."""
  for name in names:
    if not values[name].value:
      raise InputError(f"--{name} is missing: {values[name].help}")


def as_number(name: str, text: str) -> float:
  """A number among several of a flag."""
  try:
    return float(text)
  except ValueError:
    raise InputError(f"{name}: {text!r} is no number") from None


def _check_subject(rest: Sequence[str], subjects: Sequence[str]) -> None:
  choices = ", ".join(subjects)
  if not rest:
    raise InputError(f"something must follow the verb; choose one of {choices}")
  if rest[0] not in subjects:
    raise InputError(f"unknown {rest[0]!r}; choose one of {choices}")
  if rest[1:]:
    raise InputError(f"unexpected argument {rest[1]!r}; flags are written --name=value")
