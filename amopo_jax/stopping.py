"""Being asked to stop: SIGTERM and SIGINT set a flag that the loops look at between two pieces of work; and saying why
a run stops."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

EXIT_STATUS = 128 + signal.SIGTERM
"""Exit status of a run that was asked to stop, saved, and can be resumed; 143, as the shell reports SIGTERM."""


_telling, _told = threading.Lock(), set[str]()


class StopRequest:
  """Whether somebody asked the process to stop."""

  def __init__(self):
    self.signal_name = ""

  def __bool__(self) -> bool:
    return bool(self.signal_name)

  @property
  def told_by(self) -> str:
    """What ended a run that was asked to stop: another process may have received the signal."""
    return self.signal_name or "a signal to another process"


class StoppedError(Exception):
  """Somebody asked the process to stop, and what it was doing cannot be gone on with later."""


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
  """While it is open, SIGTERM and the first Ctrl-C only set the flag; a second Ctrl-C interrupts at once.

  Python runs the handler as soon as the call that holds the interpreter returns, so a signal that arrives during a
  compilation is honoured at the step boundary after it.
  """
  request = StopRequest()

  def handle(number: int, frame: FrameType | None) -> None:
    if request and number == signal.SIGINT:
      raise KeyboardInterrupt
    request.signal_name = signal.Signals(number).name

  before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
  try:
    yield request
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def forget_what_was_told() -> None:
  """At the start of a run: what an earlier one of this interpreter told says nothing about this one."""
  with _telling:
    _told.clear()


def tell(line: str, of: str = "") -> None:
  """Prints to standard error what went wrong, once in a run: a mistake of all processes comes from each of them.

  Args:
    line: what went wrong.
    of: stands before it.
  """
  with _telling, contextlib.suppress(OSError):  # nobody reads it any more; the others still have to know
    if line not in _told:
      _told.add(line)
      print(f"{of}{line}", file=sys.stderr, flush=True)
