"""Where two JSON trees differ."""

import json
from collections.abc import Iterator
from typing import Any


def differences(mine: Any, theirs: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
  """The values in which two trees differ.

  Args:
    mine, theirs: JSON-able; `theirs` has been through JSON.
    where: path of both.

  Yields:
    (path, mine, theirs), the paths in alphabetical order.
  """
  if isinstance(mine, dict) and isinstance(theirs, dict):
    for key in sorted(mine.keys() | theirs.keys()):
      yield from differences(mine.get(key), theirs.get(key), f"{where}.{key}" if where else key)
  elif json.loads(json.dumps(mine)) != theirs:
    yield where, mine, theirs
