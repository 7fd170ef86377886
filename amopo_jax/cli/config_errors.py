"""Why a config could not be used, in one line: where its program failed, or which override names no key."""

import runpy
import sysconfig
import traceback
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from amopo_jax.types import InputError


def explain(error: Exception | str, path: str, overrides: Sequence[str]) -> str:
  """One line for a failure to read a config; runs its program once more to see where it fails.

  Args:
    error: what was raised, or what to say if nothing better is found.
    path: the config file.
    overrides: the arguments that begin with `--config.`.
  """
  try:
    config = _run(path)
  except InputError as failure:
    return str(failure)
  except Exception as failure:  # a config is a program, and may raise anything
    return f"{_place(failure, path)}: {type(failure).__name__}: {_reason(failure)}; mend the config"
  if not isinstance(config, ConfigDict):
    found = type(config).__name__
    return f"{path}: get_config() returns {found}, not a ConfigDict; begin with configs.base.get_config()"
  unknown = [found for found in (_unknown_key(config, argument) for argument in overrides) if found]
  return (
    unknown[0] if unknown else f"{error}{'; configs/base.py says what it means' if '--config.' in str(error) else ''}"
  )


def _run(path: str) -> object:
  names = runpy.run_path(path)
  if "get_config" not in names:
    raise InputError(f"{path}: defines no get_config(); a config file does, see configs/base.py")
  return names["get_config"]()


def _place(failure: Exception, path: str) -> str:
  """File and line of the innermost frame that is not a library's."""
  if isinstance(failure, SyntaxError) and failure.filename:
    return f"{failure.filename}:{failure.lineno}"
  here = Path(__file__).parent
  libraries = (*sysconfig.get_paths().values(), "<", str(here))
  frames = [f for f in traceback.extract_tb(failure.__traceback__) if not f.filename.startswith(libraries)]
  return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else path


def _reason(failure: Exception) -> str:
  return failure.msg if isinstance(failure, SyntaxError) else str(failure)


def _unknown_key(config: ConfigDict, argument: str) -> str:
  """Says which part of `--config.a.b=v` does not exist; "" if all of it does."""
  names = argument.lstrip("-").partition("=")[0].split(".")
  node = config
  for place, name in enumerate(names[1:], 2):
    where = ".".join(names[:place])
    if not isinstance(node, ConfigDict):
      return f"{where}: unknown key; {'.'.join(names[: place - 1])} is a value, not a section"
    if name not in node:
      return f"{where}: unknown key; the keys are {', '.join(node) or 'none'}"
    node = node[name]
  return ""
