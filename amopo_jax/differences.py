"""Where two JSON trees differ."""

import json
from collections.abc import Iterator
from typing import Any


class _Missing:
  """Stands for a value that is not there."""

  def __repr__(self) -> str:
    return "nothing"


MISSING = _Missing()


def differences(mine: Any, theirs: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
  """The values in which two trees differ.

  Args:
    mine, theirs: JSON-able; `theirs` has been through JSON.
    where: path of both.

  Yields:
    (path, mine, theirs), the paths in alphabetical order; what one of them lacks is `MISSING`.
  """
  if isinstance(mine, dict) and isinstance(theirs, dict):
    for key in sorted(mine.keys() | theirs.keys()):
      path = f"{where}.{key}" if where else key
      yield from differences(mine.get(key, MISSING), theirs.get(key, MISSING), path)
  elif MISSING in (mine, theirs) or json.loads(json.dumps(mine)) != theirs:
    yield where, mine, theirs
