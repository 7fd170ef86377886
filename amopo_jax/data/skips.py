"""Why records were skipped: how often each reason occurred, with one example to look at."""

import re
from collections.abc import Sequence
from typing import NamedTuple

_MOST_KINDS = 100
"""Reasons that are told apart, so that memory does not grow with the data."""

_ORIGIN = re.compile(r"^.*?:\d+: ")
"""What every message about a record begins with, "file:line: "."""

_NUMBER = re.compile(r"\d+(\.\d+)?")


class SkipReason(NamedTuple):
  """One reason.

  Attributes:
    count: records it was given for.
    example: the first message of them, which begins with "file:line".
  """

  count: int
  example: str


class SkipTally:
  """Counts messages that differ in origin and numbers alone as one reason; what is rare beyond 100 kinds as one, too.

  Attributes:
    total: messages counted.
  """

  def __init__(self):
    self.total = 0
    self._kinds: dict[str, SkipReason] = {}

  def add(self, message: str) -> None:
    """Counts one message about one record."""
    self._count(SkipReason(1, message))

  def add_all(self, reasons: Sequence[SkipReason]) -> None:
    """Counts what another tally found."""
    for reason in reasons:
      self._count(reason)

  def commonest(self) -> tuple[SkipReason, ...]:
    """All reasons, those of most records first; their counts add up to `total`."""
    return tuple(sorted(self._kinds.values(), key=lambda reason: -reason.count))

  def summary(self) -> str:
    """The commonest reason as a clause for a message, "" where nothing was skipped."""
    if not self.total:
      return ""
    first = self.commonest()[0]
    return f"{self.total} left out, {first.count} of them as in {first.example}"

  def _count(self, reason: SkipReason):
    self.total += reason.count
    kind = _NUMBER.sub("#", _ORIGIN.sub("", reason.example))
    if kind not in self._kinds and len(self._kinds) >= _MOST_KINDS:
      kind = ""
    before = self._kinds.get(kind, SkipReason(0, reason.example))
    self._kinds[kind] = before._replace(count=before.count + reason.count)
